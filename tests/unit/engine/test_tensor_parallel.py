"""Tensor parallelism: processes that hold a model together answer as one that holds it all, and end so."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from transformers import LlamaConfig

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, ModelConfig
from flexray.config.fault_injection import VARIABLE
from flexray.engine.parallel_engine import ParallelModel
from flexray.engine.ranks import RankError
from flexray.errors import ConfigError, UserError
from flexray.models.all_reduce import RankGroup, all_reduce
from flexray.models.checkpoint import load_model
from flexray.models.flex import static_compile
from tests.conftest import PROJECT
from tests.expected import oracle_answers, tokens
from tests.random_models import save_model

GENERATION = GenerationConfig(max_new_tokens=5)
MANY = ("per_prompt", "avg", "sampled", "ape")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model with all biases there may be: one that is summed must be added once."""
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=96,
        intermediate_size=144,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        initializer_range=0.2,
        attention_bias=True,
        mlp_bias=True,
        eos_token_id=2,
    )
    return save_model(tmp_path_factory.mktemp("model"), config)


@contextlib.contextmanager
def loaded(folder, ranks):
    model = ParallelModel(ModelConfig(path=str(folder), dtype="float32", device="cpu"), ranks)
    try:
        yield model
    finally:
        model.close()


def answers(model, prompts, backend, methods=("attention",), **engine):
    config = EngineConfig(backend=backend, max_num_seqs=8, max_num_batched_tokens=256, **engine)
    return model.make_engine([MethodConfig(kind=kind) for kind in methods], GENERATION, config)


def test_two_ranks_answer_as_one_and_as_the_oracle_in_calls_of_any_size(
    folder, make_prompts, monkeypatch, tmp_path
):
    monkeypatch.setenv(VARIABLE, f"@{tmp_path}/faults")
    (tmp_path / "faults").write_text("[]")
    prompts = make_prompts(9, longest=12)
    with loaded(folder, 2) as model:
        engine = answers(model, prompts, "flex")
        assert model.model.config.num_attention_heads == 2
        assert engine.runner.model.shape.num_kv_heads == 1
        together = tokens(engine.generate(prompts))
        assert tokens(engine.generate(prompts)) == together
        assert tokens(engine.generate(prompts[3:5])) == together[3:5]
        assert engine.rounding["tensor_parallel"] == 2
        many = answers(model, prompts, "sdpa", methods=MANY, deterministic=False)
        by_two = [[[g.token_ids for g in said] for said in row] for row in many.generate(prompts[:4])]
        # what all ranks meet alike is raised, and not answered by another backend, on which they had to agree
        fault = {"point": "engine.prefill", "action": "raise:builtins.NotImplementedError", "times": None}
        (tmp_path / "faults").write_text(json.dumps([fault]))
        with pytest.raises(NotImplementedError):
            many.generate(prompts)
        (tmp_path / "faults").write_text("[]")
    plain, _ = load_model(folder, dtype="float32", device="cpu")
    assert together == oracle_answers(plain, prompts, engine)
    with pytest.raises(RankError, match="Load the model again"):
        engine.generate(prompts)
    with loaded(folder, 1) as model:
        whole = answers(model, prompts, "sdpa", methods=MANY, deterministic=False)
        assert "tensor_parallel" not in whole.rounding
        assert by_two == [
            [[g.token_ids for g in said] for said in row] for row in whole.generate(prompts[:4])
        ]


@pytest.mark.slow
def test_three_ranks_answer_as_one_and_two_do_not_divide_the_heads(smollm2, make_prompts):
    prompts = make_prompts(4, longest=12)
    found = {}
    for ranks in (3, 1):
        with loaded(smollm2, ranks) as model:
            engine = answers(model, prompts, "sdpa")
            found[ranks] = tokens(engine.generate(prompts)), tokens(engine.generate(prompts[:1]))
    assert found[3] == found[1]
    assert found[3][1] == found[3][0][:1]
    with pytest.raises(UserError, match=r"9.*3.*1, 3"):
        ParallelModel(ModelConfig(path=str(smollm2), device="cpu"), 2)


SCRIPT = """
import time
from flexray.engine.ranks import Ranks
ranks = Ranks(2)
print(ranks._processes[0].pid, flush=True)
time.sleep(300)
"""


def start():
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    )


def wait_until_gone(pids, seconds=60):
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if psutil.pid_exists(pid)]:
        if all(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in left):
            return
        assert time.monotonic() < end, f"alive: {left}"
        time.sleep(0.05)


def test_ranks_end_with_rank_0_and_rank_0_with_any_of_them():
    parent, other = start(), start()
    orphan, killed = (int(process.stdout.readline()) for process in (parent, other))
    time.sleep(1)  # it is importing torch, or has not begun: it is to end in either case
    parent.kill()
    os.kill(killed, signal.SIGKILL)
    _, said = other.communicate(timeout=60)
    assert other.returncode == 1
    assert f"rank 1 of 2 (process {killed}) has ended by SIGKILL" in said
    wait_until_gone([orphan, killed])
    parent.communicate()


@pytest.fixture
def group():
    """A torch group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_sum_is_one_call_in_a_compiled_layer(group, ranks):
    def layer(x, weight, group):
        return torch.relu(all_reduce(x @ weight, group) + 1)

    x, weight = torch.randn(5, 7), torch.randn(7, 3)
    for group in (RankGroup(0, ranks), None):
        torch.testing.assert_close(static_compile(layer)(x, weight, group), torch.relu(x @ weight + 1))


def test_a_process_that_is_in_a_group_is_refused(group, folder):
    with pytest.raises(ConfigError, match=r"tensor_parallel: 2: this process is in a group"):
        ParallelModel(ModelConfig(path=str(folder), device="cpu"), 2)
