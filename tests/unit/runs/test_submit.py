"""`flexray submit`: what is refused here never reaches a cluster, and what is submitted runs there."""

import socket
from pathlib import Path

import fsspec
import pytest
import yaml
from typer.testing import CliRunner

from flexray.cli import app
from flexray.config import load_config
from flexray.runs.submit import make_submission
from tests.conftest import PROJECT

RECIPE = {
    "output": "s3://bucket/answers",
    "data": {"name": "qa", "files": ["/mnt/qa/*.jsonl"]},
    "model": {"path": "/mnt/qa/model"},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder that is uploaded, as far as it matters; the current one."""
    folder = tmp_path / "project"
    (folder / "jobs").mkdir(parents=True)
    for name in ("generate", "nightly", "evaluate"):
        (folder / "jobs" / f"{name}.py").touch()
    (folder / "runtime_env.yaml").write_text("env_vars: {A: '1'}\nworking_dir: elsewhere\n")
    (folder / "night.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(folder)
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def refusal(*arguments: str, address: str = "http://127.0.0.1:1") -> str:
    """The one message of a submission that is refused."""
    result = CliRunner().invoke(app, ["submit", "--address", address, *arguments])
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("job", "name", "entrypoint"),
    [
        (
            "generate",
            "qa",
            "python jobs/generate.py --config night.yaml --set 'prompt.instruction=In a word.'",
        ),
        ("nightly", "nightly", "python jobs/nightly.py night.yaml --set 'prompt.instruction=In a word.'"),
        ("evaluate", "evaluate-qa", "python jobs/evaluate.py s3://bucket/answers"),
    ],
)
def test_each_job_gets_what_its_script_takes_and_an_id_of_the_day(project, job, name, entrypoint):
    overrides = ["prompt.instruction=In a word."]
    submission = make_submission(
        job,
        [str(project / "night.yaml")],
        [load_config("night.yaml", overrides)],
        overrides=overrides,
        project=project,
        runtime_env=Path("runtime_env.yaml"),
    )
    assert submission.entrypoint == entrypoint
    prefix, day = submission.id[:-11], submission.id[-11:]
    assert prefix == f"flexray-{name}"
    assert day.startswith("-20")
    assert submission.runtime_env == {"env_vars": {"A": "1"}, "working_dir": str(project)}


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("output", "output=out/night"),
        ("model.path", "model.path=models/llama"),
        ("model.lora", "model.lora=[/mnt/qa/first, adapters/second]"),
        ("data.files", "data.files=[/mnt/a.jsonl, b.jsonl]"),
        ("data.paraphrase_files", "data.paraphrase_files=more.jsonl"),
        ("prompt.few_shot_data.files", "prompt.few_shot_data={files: train.jsonl}"),
        ("prompt.few_shot_data.hub", "prompt.few_shot_data={hub: models/saved}"),
    ],
)
def test_a_relative_path_is_refused_by_its_key(project, key, override):
    (project / "models" / "saved").mkdir(parents=True)
    message = refusal("--config", "night.yaml", "--set", override)
    assert f"relative paths: {key}: " in message
    assert "they would be in the uploaded copy of this folder, which lasts as long as the job" in message


def test_names_on_the_hub_are_no_relative_paths(project):
    names = ["model.path=someone/llama@v2", "data.files=[]", "data.hub=someone/questions"]
    config = load_config("night.yaml", names)
    submission = make_submission(
        "generate",
        [str(project / "night.yaml")],
        [config],
        overrides=names,
        project=project,
        runtime_env=Path("runtime_env.yaml"),
    )
    assert submission.entrypoint.endswith(
        "--set model.path=someone/llama@v2 --set 'data.files=[]' --set data.hub=someone/questions"
    )


def test_an_evaluation_needs_no_more_than_where_the_output_is(project):
    override = ["data.files=b.jsonl"]
    config = load_config("night.yaml", override)
    make_submission(
        "evaluate", ["night.yaml"], [config], project=project, runtime_env=Path("runtime_env.yaml")
    )
    assert "output: " in refusal("--job", "evaluate", "--config", "night.yaml", "--set", "output=out")


def test_the_demo_of_the_project_is_no_job_for_a_cluster(monkeypatch):
    monkeypatch.chdir(PROJECT)
    message = refusal("--config", "jobs/recipes/demo.yaml")
    assert "output: out/demo, model.path: models/smollm2-135m, data.files: jobs/data/demo.jsonl" in message


def test_a_recipe_outside_of_the_project_is_refused_unless_it_is_a_url(project, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    for path in (str(tmp_path / "mine.yaml"), "../mine.yaml"):
        assert f"{path}: outside of {project}, which is what is uploaded" in refusal("--config", path)
    with fsspec.open("memory://night.yaml", "w") as stream:
        stream.write(yaml.safe_dump(RECIPE))
    assert "no Ray dashboard answers" in refusal("--config", "memory://night.yaml")


def test_another_folder_than_the_project_is_refused(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal("--config", "project/night.yaml")
    assert f"{tmp_path}: there is no jobs/generate.py in this folder, which is what is uploaded" in message


@pytest.mark.parametrize("text", [None, "[1]", "a: [", "\x00"])
def test_a_runtime_environment_that_is_none_is_named(project, text):
    if text is not None:
        Path("env.yaml").write_text(text)
    assert "error: env.yaml: " in refusal("--config", "night.yaml", "--runtime-env", "env.yaml")


def test_a_fault_in_any_recipe_is_told_before_anything_is_uploaded(project):
    (project / "recipes").mkdir()
    (project / "recipes" / "a.yaml").write_text(yaml.safe_dump(RECIPE))
    (project / "recipes" / "b.yaml").write_text(yaml.safe_dump(RECIPE | {"modle": {}}))
    message = refusal("--job", "nightly", "--config", "recipes")
    assert "recipes/b.yaml: 1 fault(s)" in message
    assert "modle: " in message


def test_an_address_that_is_no_dashboards_is_refused(project, monkeypatch):
    for address in ("HEAD:8265", "ray://HEAD:10001"):
        assert "give the dashboard's, such as http://HEAD:8265" in refusal(
            "-c", "night.yaml", address=address
        )
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://user:password@127.0.0.1:{unused.getsockname()[1]}"
        message = refusal("-c", "night.yaml", address=address)
    assert "no Ray dashboard answers" in message
    assert "password" not in message
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265")
    assert "RAY_ADDRESS is set to another address" in refusal("-c", "night.yaml", address="http://HEAD:8265")
