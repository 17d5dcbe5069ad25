"""Paths in a recipe: inputs beside it, else in the current folder; the output below the current folder."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flexray.config import load_config
from flexray.config.paths import resolve_paths
from flexray.data.files import find_files
from flexray.errors import ConfigError

Patch = pytest.MonkeyPatch


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with recipes/a.yaml; data lie beside the recipe and in the folder."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "recipes/data/a.jsonl",
        "recipes/plug.py",
        "data/a.jsonl",
        "data/b.jsonl",
        "recipes/m/config.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def placed(**tree: Any) -> Any:
    return resolve_paths(tree, "recipes/a.yaml")


def test_inputs_are_looked_for_beside_the_recipe_then_in_the_current_folder(here: Path) -> None:
    files = ["data/a.jsonl", "data/b.jsonl", "data/?.jsonl", "none.jsonl", "s3://x/data/a.jsonl"]
    files += ["zip://*.json::data/a.jsonl", "zip://a.json::data/b.jsonl", "zip://a.json::s3://x/data/a.jsonl"]
    tree = placed(data={"files": files}, model={"path": "m"}, plugins=["plug.py", "json"], output="data")
    assert tree["data"]["files"] == [
        "recipes/data/a.jsonl",
        "data/b.jsonl",
        "recipes/data/?.jsonl",
        "none.jsonl",
        "s3://x/data/a.jsonl",
        "zip://*.json::recipes/data/a.jsonl",  # whatever the archive is called
        "zip://a.json::data/b.jsonl",
        "zip://a.json::s3://x/data/a.jsonl",
    ]
    assert tree["model"]["path"] == "recipes/m"
    assert tree["plugins"] == ["recipes/plug.py", "json"]
    assert tree["output"] == "data"
    tree = {"model": {"path": "m"}}
    assert resolve_paths(tree, "https://h/recipes/a.yaml") == resolve_paths(tree, "a.yaml") == tree


def test_only_what_the_user_wrote_is_a_pattern(tmp_path: Path, monkeypatch: Patch) -> None:
    for name in ("exp[1]", "exp1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text('{"question": "a"}\n')
    monkeypatch.chdir(tmp_path)
    (files,) = resolve_paths({"data": {"files": ["*.jsonl"]}}, "exp[1]/r.yaml")["data"]["files"]
    own = [str(tmp_path / "exp[1]" / "a.jsonl")]
    assert [file.path for file in find_files([files], "data.files")] == own
    monkeypatch.chdir(tmp_path / "exp[1]")
    assert [file.path for file in find_files(["*.jsonl"], "data.files")] == own


def test_what_a_recipe_extends_has_paths_of_its_own(here: Path) -> None:
    (here / "recipes/base").mkdir()
    (here / "recipes/base/b.jsonl").touch()
    base = {"data": {"name": "d", "files": "b.jsonl"}, "model": {"path": "m"}}
    (here / "recipes/base/base.yaml").write_text(yaml.safe_dump(base))
    (here / "recipes/a.yaml").write_text("extends: base/base.yaml\noutput: out\n")
    config = load_config("recipes/a.yaml")
    assert config.data.files == ("recipes/base/b.jsonl",)
    assert config.model.path == "m"
    assert load_config("recipes/a.yaml", ["data.files=b.jsonl"]).data.files == ("b.jsonl",)


def test_the_home_folder_and_variables_of_the_environment(here: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("BUCKET", "s3://nightly")
    tree = {
        "output": "${BUCKET}/out",
        "data": {"name": "d", "files": ["~/a.jsonl", "${BUCKET}/${BUCKET}"]},
        "model": {"path": "~/m", "lora": "~/l"},
        "prompt": {"instruction": "${BUCKET} ~"},
    }
    (here / "recipes/a.yaml").write_text(yaml.safe_dump(tree))
    config = load_config("recipes/a.yaml")
    assert config.output == "s3://nightly/out"
    assert config.data.files == ("/home/me/a.jsonl", "s3://nightly/s3://nightly")
    assert (config.model.path, config.model.lora) == ("/home/me/m", ("/home/me/l",))
    assert config.prompt.instruction == "${BUCKET} ~"


def test_a_variable_that_is_not_set_is_named_with_its_key(here: Path, monkeypatch: Patch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match=r"recipes/a.yaml: model.path: the environment has no NOT_SET"):
        placed(model={"path": "${NOT_SET}/m"})


def test_sections_that_aliases_share_stay_as_they_are(here: Path) -> None:
    shared = {"files": "data/a.jsonl", "path": "m"}
    tree = resolve_paths({"data": shared, "model": shared}, "recipes/a.yaml")
    assert shared == {"files": "data/a.jsonl", "path": "m"}
    assert tree["data"] == {"files": "recipes/data/a.jsonl", "path": "m"}
    assert tree["model"] == {"files": "data/a.jsonl", "path": "recipes/m"}


def test_variables_in_overrides_are_those_of_paths_in_recipes(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/mnt/qa")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("{output: out, data: {name: qa, files: a.jsonl}, model: {path: m}}")
    asked = ["output=${PLACE}/out", "data.files=['${PLACE}/a.jsonl', b.jsonl]", "prompt.instruction=${PLACE}"]
    config = load_config(str(recipe), asked)
    assert (config.output, config.data.files) == ("/mnt/qa/out", ("/mnt/qa/a.jsonl", "b.jsonl"))
    assert config.prompt.instruction == "${PLACE}"  # no path
    with pytest.raises(ConfigError, match="--set: output: the environment has no NOPE"):
        load_config(str(recipe), ["output=${NOPE}/x"])
