"""The process of a check: a tiny random model answers by two backends, or Ray runs a task.

Its argument is a name of TASKS. It reads the configuration, or null, as JSON from standard input, and prints
the findings as JSON in its last line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import random
import socket
import sys
import time
from collections.abc import Iterator

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flexray.config import Backend, EngineConfig, GenerationConfig, MethodConfig, RayConfig, RunConfig
from flexray.config.load import parse_config
from flexray.console.checks import Check, Finding, fail, make_checks, passed, warn
from flexray.engine.engine import Engine
from flexray.engine.fallback import describe_fault, handled_errors
from flexray.errors import UserError
from flexray.models.checkpoint import check_checkpoint, resolve_dtype
from flexray.models.families import kv_shape
from flexray.pipeline.ray_connection import is_for_a_cluster
from flexray.preflight.doctor.machine_checks import runs_on_gpu
from flexray.prompts.prompt import Prompt

LEAST_STORE_MB = 80
VOCABULARY = 256
METHODS = (MethodConfig(), MethodConfig(kind="per_prompt"))  # fused, and each paraphrase by itself
CONTEXT, SEGMENT_SIZES = 45, ((2, 7, 12), (3, 9, 4), (12, 2, 5), (8, 8, 3))
"""Tokens: of a context longer than a block, and of each prompt's paraphrases."""


class Bytes:
    """The parts of a tokenizer that the engine uses; each token is a byte."""

    eos_token_id = 0

    def __len__(self) -> int:
        return VOCABULARY

    def batch_decode(self, ids: list[list[int]], *, clean_up_tokenization_spaces: bool) -> list[str]:
        return [bytes(i).decode("latin-1") for i in ids]


def check_attention(config: RunConfig | None) -> Iterator[Finding]:
    """Whether a tiny random model answers with the same tokens by the configured backend and by `eager`.

    In float32 both must agree. In 16 bits, if the run uses them, the backend only has to work.
    """
    engine = config.engine if config else EngineConfig()
    if engine.backend == "eager":
        yield passed("eager is what other backends are compared with")
        return
    device = "cuda" if runs_on_gpu(config) else "cpu"
    wanted = resolve_dtype(config.model.dtype if config else "auto", on_gpu=device == "cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in dict.fromkeys(["float32", wanted]):
        found = compare_backends(engine, device, dtype, *_heads(config))
        yield found
        if found.status != "pass":
            return


def compare_backends(engine: EngineConfig, device: str, dtype: str, heads: int, width: int) -> Finding:
    """Answer prompts by the backend of a run and by eager.

    Args:
        heads: query heads of a key/value head. width: of a head.
    """
    start = time.perf_counter()
    expected = _answers("eager", device, dtype, heads, width)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    what = f"{engine.backend} on {name} in {dtype}"
    try:
        got = _answers(engine.backend, device, dtype, heads, width)
    except Exception as e:
        what += f": {describe_fault(engine.backend, e)}"
        if engine.strict or not isinstance(e, handled_errors()):
            return fail(what, "A run would stop. Set engine.backend to sdpa to do without it.")
        return warn(
            what,
            "Rows will be answered by another backend, and say so. Setting engine.backend to sdpa saves the "
            "attempts.",
        )
    same = sum(a == b for a, b in zip(got, expected, strict=True))
    what += f": {same} of {len(expected)} answers are those of eager ({time.perf_counter() - start:.0f} s)"
    if dtype == "float32" and same < len(expected):
        return fail(what, "Do not use this backend here: set engine.backend.")
    return passed(what)


def _heads(config: RunConfig | None) -> tuple[int, int]:
    """Query heads of a key/value head, and the size of a head, of the configured model if it can be read."""
    if config is not None:
        with contextlib.suppress(UserError):  # which the check of the model reports
            shape = check_checkpoint(config.model.path)
            kv_heads, width = kv_shape(shape)
            return shape.num_attention_heads // kv_heads, width
    return 3, 64


def _answers(backend: Backend, device: str, dtype: str, heads: int, width: int) -> list[tuple[int, ...]]:
    """The tokens of all answers; the model and the prompts are the same each time."""
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=heads * 32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=width,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    engine = Engine(
        LlamaForCausalLM(shape).eval().to(device, getattr(torch, dtype)),
        Bytes(),  # type: ignore[arg-type]
        METHODS,
        GenerationConfig(max_new_tokens=6, stop_at_newline=False),
        EngineConfig(backend=backend, strict=True, max_num_seqs=8, max_num_batched_tokens=256),
    )
    tokens = iter(random.Random(0).choices(range(1, VOCABULARY), k=1000))

    def words(count: int) -> tuple[int, ...]:
        return tuple(next(tokens) for _ in range(count))

    context, answer_prefix = words(CONTEXT), words(2)
    prompts = [Prompt(context, tuple(map(words, sizes)), answer_prefix) for sizes in SEGMENT_SIZES]
    answers = engine.generate(prompts)
    return [generation.token_ids for methods in answers for method in methods for generation in method]


def check_cluster(config: RunConfig | None) -> Iterator[Finding]:
    """Start and stop a Ray of one CPU, or join the cluster of ray.address or RAY_ADDRESS, as a run does."""
    import ray

    from flexray.pipeline.ray_connection import connect_ray

    joins = is_for_a_cluster(config) if config else bool(os.environ.get("RAY_ADDRESS"))
    settings = config.ray if config and joins else RayConfig(num_cpus=1, object_store_mb=LEAST_STORE_MB)
    start = time.perf_counter()
    connect_ray(settings)

    @ray.remote(num_cpus=1, max_retries=0)
    def who() -> tuple[str, str]:
        return socket.gethostname(), platform.python_version()

    host, python = ray.get(who.remote())
    nodes, resources = sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()
    ray.shutdown()
    where = "a Ray on this machine"
    if joins:
        where = f"the cluster at {settings.address or os.environ.get('RAY_ADDRESS')}"
    gpus = resources.get("GPU", 0)
    what = (
        f"Ray {ray.__version__}: {where} did a task on {host} in {time.perf_counter() - start:.1f} s; "
        f"nodes: {nodes}, CPUs: {resources.get('CPU', 0):g}, GPUs: {gpus:g}"
    )
    each = settings.num_gpus_per_actor
    wanted = (settings.max_actors or 0) * (1 if each is None else each)
    if python != platform.python_version():
        yield fail(f"{what}; its Python is {python}, here it is {platform.python_version()}")
    elif joins and 0 < gpus < wanted:
        advice = "Fewer actors than that will work: lower ray.max_actors, or add nodes."
        yield warn(f"{what}; ray.max_actors asks for {wanted:g} GPUs", advice)
    else:
        yield passed(what)


TASKS = {"attention": check_attention, "ray": check_cluster}

if __name__ == "__main__":
    name, tree = sys.argv[1], json.load(sys.stdin)
    config = None if tree is None else parse_config(tree, source="standard input")
    findings = list(make_checks([Check(name, TASKS[name])], config))
    print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
