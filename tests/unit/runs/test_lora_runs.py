"""Runs and calls with LoRA adapters: their answers, what identifies them, what is told before they start."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import PeftModel
from typer.testing import CliRunner

import flexray
from flexray.cli import app
from flexray.config import parse_config
from flexray.errors import ConfigError, OutputError
from flexray.preflight.plan.memory import count_parameters
from flexray.report.explain.explain import explain
from flexray.runs.fingerprint import adapter_digest, fingerprint_parts
from flexray.runs.job import check_job
from flexray.sink import OutputFolder
from tests.lora_adapters import plain_model, save_adapter
from tests.plans import make_plan
from tests.ray.jobs import make_tree, question, rows_of, write
from tests.runs import run_shards
from tests.tiny_model import VOCAB
from tests.unit.preflight.doctor.conftest import told  # noqa: F401  a fixture

ROWS = [question(i) for i in range(6)]
METHODS = ["attention", "avg"]


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory) -> list[Path]:
    """Two, the second one of embeddings, too."""
    root = tmp_path_factory.mktemp("adapters")
    targets = {"target_modules": ["embed_tokens", "down_proj"], "use_rslora": True}
    return [
        save_adapter(root / "first", tiny_model, seed=1, target_modules="all-linear"),
        save_adapter(root / "second", tiny_model, seed=2, **targets),
    ]


@pytest.fixture(scope="module")
def merged(tiny_model, adapters, tmp_path_factory) -> Path:
    """A checkpoint into which PEFT has merged the first adapter."""
    folder = tmp_path_factory.mktemp("merged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PeftModel.from_pretrained(plain_model(tiny_model), adapters[0]).merge_and_unload().save_pretrained(
            folder
        )
    for file in tiny_model.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def tree_of(tiny_model, tmp_path):
    """Makes the recipe of a run with adapters."""

    def make(*lora: Path | str) -> dict[str, Any]:
        tree = make_tree(tmp_path / "out", tiny_model, write(tmp_path / "qa.jsonl", ROWS))
        tree["model"]["lora"] = [str(folder) for folder in lora]
        return tree

    return make


@pytest.fixture
def config_of(tree_of):
    """The same, checked."""
    return lambda *lora: parse_config(tree_of(*lora), source="test")


def answers_of(model: Path, lora: Any = ()) -> list[tuple[int, ...]]:
    llm = flexray.LLM(model, lora=lora, device="cpu", backend="sdpa")
    return [answer.token_ids for answer in llm.answer(ROWS, METHODS, max_new_tokens=6)]


def test_answers_are_those_of_the_checkpoint_that_peft_has_merged(tiny_model, adapters, merged):
    found = answers_of(tiny_model, str(adapters[0]))  # one needs no list
    assert found == answers_of(merged)
    assert found != answers_of(tiny_model)
    assert len(set(found)) > 1


def test_a_run_answers_with_its_adapters_in_their_order_and_its_record_says_which(
    config_of, adapters, tmp_path
):
    config = config_of(*adapters)
    run_shards(config, [0, 1])
    record = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert record["config"]["model"]["lora"] == [str(folder) for folder in adapters]
    assert record["parts"]["model"]["lora"] == [adapter_digest(folder) for folder in adapters]
    llm = flexray.LLM(config.model.path, lora=adapters, device="cpu", backend="sdpa", deterministic=True)
    asked = config.prompt.few_shots[0].model_dump()
    found = llm.answer(ROWS, instruction="Answer.", few_shots=[asked], max_new_tokens=4)
    rows = rows_of(tmp_path / "out")
    assert {row["source_row"]: tuple(row["token_ids"]) for row in rows.values()} == {
        answer.row + 1: answer.token_ids for answer in found
    }
    assert explain(config, row="2").same_tokens is True


def test_a_run_without_adapters_has_the_parts_that_it_had(config_of):
    config = config_of()
    assert "lora" not in fingerprint_parts(check_job(config, OutputFolder(config.output)).config)["model"]


def test_a_resume_with_another_adapter_is_refused_with_both_digests(config_of, adapters):
    run_shards(config_of(adapters[0]), [0])
    first, second = map(adapter_digest, adapters)
    with pytest.raises(OutputError, match=rf'model\.lora: \["{first}"\] -> \["{second}"\]'):
        run_shards(config_of(adapters[1]), [1])
    with pytest.raises(OutputError, match=rf'model\.lora: \["{first}"\] -> \(absent\)'):
        run_shards(config_of(), [1])
    with pytest.raises(OutputError, match=r"model\.lora: "):
        run_shards(config_of(*adapters), [1])
    assert len(run_shards(config_of(adapters[0]), [1])) == 2


def test_the_order_of_adapters_is_part_of_the_run(config_of, adapters):
    run_shards(config_of(*adapters), [0])
    with pytest.raises(OutputError, match=r"model\.lora: "):
        run_shards(config_of(*reversed(adapters)), [1])


def test_the_same_adapter_elsewhere_is_the_same_run_and_each_byte_of_its_files_counts(
    config_of, adapters, tmp_path, monkeypatch
):
    run_shards(config_of(adapters[0]), [0])
    copy = Path(shutil.copytree(adapters[0], tmp_path / "copy"))
    (copy / "README.md").write_text("no part of it")
    monkeypatch.chdir(tmp_path)
    relative = check_job(config_of("copy"), OutputFolder(str(tmp_path / "out")))
    assert relative.config.model.lora == (str(copy),)  # as a worker that started elsewhere finds it
    assert len(run_shards(config_of("copy"), [1])) == 2
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        before, content = adapter_digest(copy), bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        assert adapter_digest(copy) != before


def test_what_is_wrong_with_an_adapter_is_told_by_plan_doctor_night_and_run_alike(
    config_of,
    told,  # noqa: F811
    tree_of,
    adapters,
    tmp_path,
):
    broken = Path(shutil.copytree(adapters[0], tmp_path / "broken"))
    file = broken / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_type": "VERA"}))
    config = config_of(broken)
    with pytest.raises(ConfigError) as refused:
        check_job(config, OutputFolder(config.output))
    assert f"model.lora: {file}: peft_type is 'VERA'" in str(refused.value)
    (problem,) = make_plan(config).problems
    assert (problem.status, problem.check, problem.what) == ("fail", "model", str(refused.value))
    assert told(config, "model") == [problem]
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(tree_of(broken)))
    done = CliRunner().invoke(app, ["nightly", str(tmp_path / "night.yaml")])
    assert done.exit_code == 2
    assert "peft_type is 'VERA'" in " ".join(done.output.split())


def test_plan_and_doctor_count_a_head_that_the_adapters_make(config_of, told, tiny_model, adapters):  # noqa: F811
    config = config_of(*adapters)
    plain, more = count_parameters(tiny_model), VOCAB * 48
    plan = make_plan(config)
    assert plan.ready, plan.problems
    assert plan.memory.parameters == plain + more
    assert make_plan(config_of(adapters[0])).memory.parameters == plain
    (found,) = told(config, "model")
    assert found.status == "pass"
    assert f"LoRA adapters to merge: {adapters[0]}, {adapters[1]}" in found.what
