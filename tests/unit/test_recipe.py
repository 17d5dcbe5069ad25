"""The recipes of the project, and how recipes extend each other."""

from pathlib import Path

import fsspec
import pytest
import yaml

from flexray.config import load_config
from flexray.methods import make_methods
from flexray.types import ConfigError
from tests.conftest import PROJECT

RECIPES = PROJECT / "jobs" / "recipes"
DATA = sorted((RECIPES / "data").glob("*.yaml"))
MODELS = sorted((RECIPES / "models").glob("*.yaml"))


def write(path: Path, tree: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree))
    return str(path)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_recipe_is_a_whole_run(recipe: Path) -> None:
    config = load_config(str(recipe), ["data.files=other", "data.limit=3"])
    assert config.data.limit == 3
    assert recipe.stem.startswith(config.data.name)
    assert config.output == f"out/{recipe.stem}"


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
@pytest.mark.parametrize("data", DATA, ids=lambda path: path.stem)
def test_each_data_set_goes_with_each_model(tmp_path: Path, data: Path, model: Path) -> None:
    config = load_config([str(data), str(model)])
    extending = write(tmp_path / "a.yaml", {"extends": [str(data), str(model)]})
    assert load_config(extending) == config
    assert config.data.kind == config.data.name == data.stem
    assert config.prompt.instruction
    assert config.prompt.few_shots or config.prompt.few_shot_data
    assert config.model.path == yaml.safe_load(model.read_text())["model"]["path"]


def test_the_recipes_of_written_data_sets_and_results_go_on_top_of_those() -> None:
    base = [str(RECIPES / "data" / "webqa.yaml"), str(RECIPES / "models" / "smollm2.yaml")]
    written = load_config([*base, str(RECIPES / "prompts" / "paraphrase.yaml")])
    assert [method.kind for method in written.methods] == ["sampled"]
    assert written.prompt.few_shots
    assert written.prompt.few_shot_data is None
    results = [str(RECIPES / "results" / f"{name}.yaml") for name in ("webqa", "methods")]
    names = [method.name for method in make_methods(load_config([*base, *results]).methods)]
    assert len(names) == 12
    assert {"origin", "per_prompt", "weighted_max", "attention/full_prompt/continuous"} <= set(names)


def test_there_is_a_recipe_for_each_data_set_and_model() -> None:
    assert [path.stem for path in DATA] == ["myriadlama", "pararel", "triviaqa", "webqa"]
    assert [path.stem for path in MODELS] == ["llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b", "smollm2"]


BASE = {"output": "base", "data": {"name": "qa", "files": ["a.jsonl"]}, "model": {"path": "m"}}


def test_sections_are_merged_and_everything_else_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "base" / "one.yaml", BASE)
    write(tmp_path / "base" / "two.yaml", {"model": {"dtype": "float32"}, "output": "two"})
    own = {"extends": ["base/one.yaml", "base/two.yaml"], "data": {"files": ["b.jsonl"]}}
    config = load_config(write(tmp_path / "own.yaml", own), ["model.device=cpu"])
    assert config.output == "two"
    assert config.data.files == ("b.jsonl",)
    assert config.data.name == "qa"
    assert (config.model.path, config.model.dtype, config.model.device) == ("m", "float32", "cpu")


def test_names_are_relative_to_the_file_they_stand_in(tmp_path: Path) -> None:
    write(tmp_path / "b" / "low.yaml", BASE)
    write(tmp_path / "a" / "mid.yaml", {"extends": "../b/low.yaml"})
    top = write(tmp_path / "top.yaml", {"extends": "a/mid.yaml", "output": "top"})
    assert load_config(top).output == "top"


def test_a_file_may_be_extended_twice_but_not_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", BASE)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.yaml", {"extends": "base.yaml", "output": name})
    assert load_config(write(tmp_path / "both.yaml", {"extends": ["a.yaml", "b.yaml"]})).output == "b"
    write(tmp_path / "a.yaml", {"extends": "./b.yaml"})
    write(tmp_path / "b.yaml", {"extends": "a.yaml"})
    with pytest.raises(ConfigError, match=r"extends itself: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load_config(str(tmp_path / "a.yaml"))


def test_a_missing_or_broken_file_names_the_one_that_extends_it(tmp_path: Path) -> None:
    top = write(tmp_path / "top.yaml", {"extends": "none.yaml"})
    with pytest.raises(ConfigError, match=r"none\.yaml: no such .* \(extended by .*top\.yaml\)"):
        load_config(top)
    write(tmp_path / "none.yaml", ["a"])
    with pytest.raises(ConfigError, match=r"none\.yaml: a mapping .*by .*top\.yaml\), found list"):
        load_config(top)


@pytest.mark.parametrize("value", [3, {"a": "b"}, [3], [""], None])
def test_extends_is_a_name_or_a_list_of_names(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: extends: the name of a file or a list"):
        load_config(write(tmp_path / "a.yaml", BASE | {"extends": value}))


def test_recipes_at_a_url_extend_their_neighbours() -> None:
    for name, tree in (("base", BASE), ("top", {"extends": "base.yaml", "output": "top"})):
        with fsspec.open(f"memory://recipes/{name}.yaml", "w") as stream:
            stream.write(yaml.safe_dump(tree))
    assert load_config("memory://recipes/top.yaml").output == "top"
