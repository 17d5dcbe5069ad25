"""What a run is to do is settled, and a model that cannot do it refused, before Ray starts."""

import json
import os
import shutil
from pathlib import Path

import pytest

from flexray.config import parse_config
from flexray.errors import DataError, ModelError
from flexray.runs.fingerprint import fingerprint_parts
from flexray.runs.job import check_job
from flexray.sink import OutputFolder
from tests.plans import make_plan
from tests.unit.preflight.doctor.conftest import config_of, told  # noqa: F401  fixtures


@pytest.fixture
def folder(tiny_model, tmp_path):
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def checked(config):
    return check_job(config, OutputFolder(config.output))


BROKEN = {
    "unlike the weights": lambda folder: edit(folder / "config.json", num_hidden_layers=3),
    "generation config cut": lambda folder: (folder / "generation_config.json").write_text('{"eos_'),
    "tokenizer cut": lambda folder: (folder / "tokenizer.json").write_text('{"version": "1.0", "mod'),
    "weights cut": lambda folder: os.truncate(folder / "model.safetensors", 5000),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_wrong_with_a_model_is_told_by_plan_doctor_and_run_alike(config_of, told, folder, broken):  # noqa: F811
    BROKEN[broken](folder)
    config = config_of(model={"path": str(folder)})
    with pytest.raises(ModelError) as refused:
        checked(config)
    (problem,) = make_plan(config).problems
    assert (problem.status, problem.check, problem.what) == ("fail", "model", str(refused.value))
    assert told(config, "model") == [problem]


def test_what_is_odd_about_a_model_is_told_by_plan_doctor_and_run_alike(config_of, told, folder):  # noqa: F811
    edit(folder / "generation_config.json", eos_token_id=[10**6])
    config = config_of(model={"path": str(folder)})
    (problem,) = make_plan(config).problems
    assert (problem.status, problem.check) == ("warn", "model")
    assert "the EOS 1000000 (generation_config.json)" in problem.what
    warning, _ = told(config, "model")
    assert warning == problem
    assert f"note: {problem.what}" in checked(config).notes


def test_a_worker_that_started_elsewhere_finds_the_model(config_of, folder, monkeypatch):  # noqa: F811
    absolute = checked(config_of(model={"path": str(folder)}))
    monkeypatch.chdir(folder.parent)
    relative = checked(config_of(model={"path": "model"}))
    assert relative.config.model.path == str(folder)
    assert fingerprint_parts(relative.config) == fingerprint_parts(absolute.config)  # the same run


def test_a_leading_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    data = {"name": "qa", "split": "test", "files": "qa.jsonl"}
    tree = {"output": "~/out", "data": data, "model": {"path": "~/models/small", "lora": "~/adapter"}}
    config = parse_config(tree, source="test")
    assert (config.output, config.model.path) == ("/home/someone/out", "/home/someone/models/small")
    assert config.model.lora == ("/home/someone/adapter",)
    config = parse_config({**tree, "output": "s3://bucket/~/out"}, source="test")
    assert config.output == "s3://bucket/~/out"


def test_a_file_that_is_not_there_is_told_before_the_model_is_looked_at(config_of, told, tmp_path):  # noqa: F811
    config = config_of(model={"path": str(tmp_path)}, data={"files": [str(tmp_path / "none.jsonl")]})
    missing = f"{tmp_path}/none.jsonl: no such file. Correct data.files."
    with pytest.raises(DataError, match=r"none.jsonl: no such file\. Correct data.files\."):
        checked(config)
    assert [p.what for p in make_plan(config).problems if p.check == "data"] == [missing]
    assert [p.what for p in told(config, "data")] == [missing]
