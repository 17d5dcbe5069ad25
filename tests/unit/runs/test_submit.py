"""`flexray submit`: what is refused here never reaches a cluster, and what is submitted runs there."""

import re
import shlex
import socket
from pathlib import Path
from typing import get_type_hints

import fsspec
import pytest
import yaml
from ray.runtime_env import RuntimeEnv
from typer.testing import CliRunner

from flexray.cli import app
from flexray.cli.submit_command import NOT_SUBMITTED, OUTPUTS, PATHS, RECIPES, take_apart
from flexray.config import load_config
from flexray.config.load import parse_config
from flexray.runs.fingerprint import PACKAGE
from flexray.runs.submission import Submission, make_submission
from flexray.runs.submit import VARIABLES
from tests.conftest import PROJECT

RECIPE = {
    "output": "s3://bucket/answers",
    "data": {"name": "qa", "files": ["/mnt/qa/*.jsonl"]},
    "model": {"path": "/mnt/qa/model"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Any folder, with a recipe; the current one."""
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def submission(words: str, *, install: bool = False, **options) -> Submission:
    """Of a command line of flexray."""
    name, *rest = shlex.split(words)
    return make_submission(take_apart(name, rest), install=install, **options)


def recipes_of(job: Submission) -> dict:
    """The recipes that a job brings along, by name."""
    found = {name: content for name, content in job.bundle.files.items() if name.endswith(".yaml")}
    return {name: yaml.safe_load(content) for name, content in found.items()}


def refusal(*arguments: str, address: str | None = "http://127.0.0.1:1") -> str:
    """The one message of a submission that is refused."""
    where = ["--address", address] if address else []
    result = CliRunner().invoke(app, ["submit", *where, *arguments])
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("words", "subject", "there"),
    [
        ("run night.yaml --fresh", "run-qa", "run --fresh night.yaml"),
        ("run -c night.yaml --set data.limit=3 --no-fresh", "run-qa", "run --no-fresh night.yaml"),
        ("retry-errors night.yaml", "retry-errors-qa", "retry-errors night.yaml"),
        ("nightly . --retry-errors --verify", "nightly", "nightly --retry-errors --verify night.yaml"),
        ("nightly --config night.yaml", "nightly", "nightly night.yaml"),
        (
            "paraphrase night.yaml --to /mnt/to.jsonl --keep 3",
            "paraphrase-qa",
            "paraphrase --to=/mnt/to.jsonl --keep=3 night.yaml",
        ),
        (
            "adopt --config night.yaml /mnt/old 's3://b/an old'",
            "adopt-qa",
            "adopt --config=night.yaml /mnt/old 's3://b/an old'",
        ),
        (
            "evaluate night.yaml /mnt/b --baseline avg",
            "evaluate-answers",
            "evaluate --baseline=avg s3://bucket/answers /mnt/b",
        ),
        (
            "evaluate /mnt/b --set evaluation.headline=contains",
            "evaluate-b",
            "evaluate --set=evaluation.headline=contains /mnt/b",
        ),
        ("verify night.yaml --json", "verify-answers", "verify --json s3://bucket/answers"),
        (
            "export /mnt/a/ --to s3://b/a.csv --wide",
            "export-a",
            "export --to=s3://b/a.csv --wide /mnt/a/",
        ),
        ("doctor", "doctor", "doctor"),
    ],
)
def test_a_command_is_submitted_with_its_options(words, subject, there):
    job = submission(words)
    assert job.entrypoint == f"python -m flexray {there}"
    assert re.fullmatch(rf"flexray-{subject}-20\d\d-\d\d-\d\d-[0-9a-f]{{6}}", job.id)
    take_apart(*shlex.split(job.entrypoint)[3:4], shlex.split(job.entrypoint)[4:])  # flexray reads it there


def test_every_command_can_be_submitted_and_its_files_and_folders_are_known():
    values = {"baseline", "columns", "gpu", "method", "methods", "row"}  # words that name no file
    known = {*RECIPES, *OUTPUTS, *PATHS, "set_", "plugin", *values}
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        if name in NOT_SUBMITTED:
            assert "no command that can be submitted" in refusal("--job", name, "night.yaml")
            continue
        for parameter, kind in get_type_hints(command.callback.__wrapped__).items():
            is_text = kind not in (bool, int, float | None, type(None))
            assert not is_text or parameter in known, f"{name} --{parameter}"


def test_a_recipe_travels_with_what_it_extends_and_what_overrides_it_as_one_file(folder, monkeypatch):
    monkeypatch.setenv("BUCKET", "s3://bucket")
    (folder / "base.yaml").write_text("data: {split: train}\nprompt: {instruction: 'Ä: 1e3\u2028?'}\n")
    recipe = RECIPE | {"output": "${BUCKET}/x", "extends": "base.yaml"}
    (folder / "night.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "more.yaml").write_text("limits: {max_error_share: 1.0e-1}\n")
    words = ["--set=prompt.answer_prefix=' A:'", "--set", "data.limit=7"]
    job = make_submission(take_apart("run", ["night.yaml", "-c", "more.yaml", *words]), install=False)
    assert job.entrypoint == "python -m flexray run more.yaml"
    (tree,) = recipes_of(job).values()
    overrides = ["prompt.answer_prefix=' A:'", "data.limit=7"]
    assert parse_config(tree, source="job") == load_config(["night.yaml", "more.yaml"], overrides)
    assert tree["output"] == "s3://bucket/x"


def test_recipes_of_one_name_and_those_at_urls_travel_too(folder):
    for name, output in (("a", "/mnt/a"), ("b", "/mnt/b")):
        (folder / name).mkdir()
        (folder / name / "night.yaml").write_text(yaml.safe_dump(RECIPE | {"output": output}))
    with fsspec.open("memory://recipes/last", "w") as stream:
        stream.write(yaml.safe_dump(RECIPE))
    job = submission("nightly a b memory://recipes/last")
    assert job.entrypoint == "python -m flexray nightly night.yaml night-2.yaml last.yaml"
    outputs = {name: tree["output"] for name, tree in recipes_of(job).items()}
    assert outputs == {
        "night.yaml": "/mnt/a",
        "night-2.yaml": "/mnt/b",
        "last.yaml": "s3://bucket/answers",
    }


def test_two_outputs_of_one_day_are_two_ids_and_the_same_job_is_one():
    words = ["run night.yaml", "run night.yaml --set output=/mnt/b", "run night.yaml --replace-changed"]
    words += ["retry-errors night.yaml", "verify /mnt/a/x", "verify /mnt/b/x"]
    ids = [submission(line).id for line in words]
    assert len(set(ids)) == len(words)
    assert submission(words[0]).id == ids[0]
    assert submission(words[0], submission_id="mine").id == "mine"


def test_plugins_travel_and_keep_their_names_below_the_current_folder(folder):
    elsewhere = folder / "elsewhere"
    for place, text in (("here/p.py", "1"), ("elsewhere/p.py", "2"), ("elsewhere/other/p.py", "3")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    plugins = ["here/p.py", "json", str(elsewhere / "p.py"), str(elsewhere / "other" / "p.py")]
    (folder / "night.yaml").write_text(yaml.safe_dump(RECIPE | {"plugins": plugins}))
    job = submission("run night.yaml")
    (tree,) = recipes_of(job).values()
    assert tree["plugins"] == ["here/p.py", "json", "_plugins/p.py", "_plugins/p-2.py"]
    texts = [job.bundle.files[name] for name in tree["plugins"] if name != "json"]
    assert texts == [b"1", b"2", b"3"]
    job = submission(f"evaluate /mnt/a --plugin json --plugin {elsewhere}/p.py")
    assert job.entrypoint == "python -m flexray evaluate --plugin=json --plugin=_plugins/p.py /mnt/a"
    assert job.bundle.files["_plugins/p.py"] == b"2"


def test_a_plugin_that_is_not_there_is_named(folder):
    message = refusal("--job", "evaluate", "/mnt/a", "--plugin", "none.py")
    assert "plug-in none.py: cannot be read: " in message


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("output", "output=out/night"),
        ("model.path", "model.path=models/llama"),
        ("model.lora", "model.lora=[/mnt/qa/first, adapters/second]"),
        ("data.files", "data.files=[/mnt/a.jsonl, b.jsonl]"),
        ("data.files", "data.files=['zip://a.jsonl::/mnt/q.zip', 'zip://a.jsonl::q.zip']"),
        ("data.paraphrase_files", "data.paraphrase_files=more.jsonl"),
        ("data.ids", "data.ids=wrong.txt"),
        ("prompt.few_shot_data.files", "prompt.few_shot_data={files: train.jsonl}"),
        ("prompt.few_shot_data.hub", "prompt.few_shot_data={hub: models/saved}"),
    ],
)
def test_a_relative_path_is_refused_by_its_key(folder, key, override):
    (folder / "models" / "saved").mkdir(parents=True)
    message = refusal("night.yaml", "--set", override)
    assert f"relative paths: {key}: " in message
    assert "they would be in the job's own folder, which lasts as long as the job" in message


@pytest.mark.parametrize(
    ("job", "key", "arguments"),
    [
        ("verify", "output", ["out"]),
        ("export", "--to", ["/mnt/a", "--to", "a.csv"]),
        ("evaluate", "--json", ["/mnt/a", "--json=found.json"]),
        ("report", "--html", ["s3://bucket/a"]),
        ("show-mask", "--png", ["night.yaml"]),
        ("adopt", "output", ["--config", "night.yaml", "old"]),
    ],
)
def test_a_relative_path_of_a_command_is_refused_by_its_option(job, key, arguments):
    assert f"{key}: " in refusal("--job", job, *arguments)


def test_names_on_the_hub_are_no_relative_paths():
    names = "--set model.path=someone/llama@v2 --set 'data.files=[]' --set data.hub=someone/questions"
    (tree,) = recipes_of(submission(f"run night.yaml {names}")).values()
    assert (tree["model"]["path"], tree["data"]["hub"]) == ("someone/llama@v2", "someone/questions")


def test_the_demo_of_the_project_is_no_job_for_a_cluster(monkeypatch):
    monkeypatch.chdir(PROJECT)
    message = refusal("jobs/recipes/demo.yaml")
    assert "output: out/demo, model.path: models/smollm2-135m, data.files: jobs/data/demo.jsonl" in message


def test_what_a_command_does_not_take_is_told_as_by_the_command():
    result = CliRunner().invoke(app, ["submit", "night.yaml", "--wide"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such option: --wide" in result.stderr
    assert "no recipe is named. Give a YAML file: flexray submit --job nightly" in refusal("--job=nightly")


@pytest.mark.parametrize("text", [None, "[1]", "a: [", "\x00"])
def test_a_runtime_environment_that_is_none_is_named(text):
    if text is not None:
        Path("env.yaml").write_text(text)
    assert "error: env.yaml: " in refusal("night.yaml", "--runtime-env", "env.yaml")


def test_a_runtime_environment_of_ones_own_is_all_there_is():
    Path("env.yaml").write_text("env_vars: {A: '1'}\n")
    job = submission("run night.yaml", install=True, runtime_env=Path("env.yaml"))
    assert job.runtime_env == {"env_vars": {"A": "1"}}


def test_a_fault_in_any_recipe_is_told_before_anything_is_uploaded(folder):
    (folder / "recipes").mkdir()
    (folder / "recipes" / "a.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "recipes" / "b.yaml").write_text(yaml.safe_dump(RECIPE | {"modle": {}}))
    message = refusal("--job", "nightly", "recipes")
    assert "recipes/b.yaml: 1 fault(s)" in message
    assert "modle: " in message


def test_the_nodes_install_what_is_installed_here_but_for_ray():
    job = submission("run night.yaml", install=True)
    environment = RuntimeEnv(**job.runtime_env)
    digest, constraints, *packages = environment.pip_config()["packages"]
    assert constraints == "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/constraints.txt"
    assert {"torch", "transformers", "typer", "simplemma"} < set(packages)
    assert "ray" not in packages
    pins = dict(line.split("==") for line in job.bundle.files["constraints.txt"].decode().splitlines())
    assert set(packages) < set(pins)
    assert "tokenizers" in pins  # what transformers needs
    assert not {"ray", "flexray"} & set(pins)
    assert all(re.fullmatch(r"[\d.]+(?:\.?(?:a|b|rc|post)\d+)?", version) for version in pins.values()), pins
    assert re.fullmatch(r"# constraints.txt [0-9a-f]{16}", digest)
    assert environment.env_vars()["HF_HUB_OFFLINE"] == "1"
    assert "pip" not in submission("run night.yaml").runtime_env


def test_the_bundle_is_this_package_and_the_same_bytes_each_time(folder):
    job = submission("run night.yaml")
    sources = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}
    assert sources | {"flexray/report/page/assets/style.css", "night.yaml"} <= set(job.bundle.files)
    assert not [name for name in job.bundle.files if "__pycache__" in name]
    job.bundle.write(folder / "a.zip")
    submission("run night.yaml").bundle.write(folder / "b.zip")
    assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()


def test_an_address_at_which_no_cluster_answers_is_refused(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for place in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            assert f"--address {place}: no Ray dashboard answers" in refusal("night.yaml", address=place)
        message = refusal("night.yaml", address=f"http://user:password@127.0.0.1:{port}")
        assert "no Ray dashboard answers" in message
        assert "password" not in message
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        assert "RAY_ADDRESS 127.0.0.1:" in refusal("night.yaml", address=None)


def test_the_variables_of_ray_name_the_cluster_if_no_address_is_given(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    assert "no cluster is named. Give the dashboard of its head" in refusal("night.yaml", address=None)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert "RAY_ADDRESS http://127.0.0.1:1: no Ray" in refusal("night.yaml", address=None)
    assert "RAY_ADDRESS http://127.0.0.1:1: no Ray" in refusal("night.yaml", address="http://127.0.0.1:1/")
    assert "RAY_ADDRESS is set to another address" in refusal("night.yaml", address="http://HEAD:8265")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:2")
    assert "RAY_API_SERVER_ADDRESS http://127.0.0.1:2: no Ray" in refusal("night.yaml", address=None)
