"""The recipes of the project, and how recipes extend each other."""

import itertools
import json
import os
from pathlib import Path

import fsspec
import pytest
import yaml

from flexray.config import load_config, recipe
from flexray.config.recipe import MAX_BYTES
from flexray.errors import ConfigError
from flexray.methods import make_methods
from flexray.storage import open_file
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
    assert config.data.name == data.stem.removesuffix("_hub")
    assert config.data.kind in (data.stem, config.data.name)
    assert config.prompt.instruction
    assert config.prompt.few_shots or config.prompt.few_shot_data
    assert config.model.path == yaml.safe_load(model.read_text())["model"]["path"]


def test_the_recipes_of_written_data_sets_and_results_go_on_top_of_those() -> None:
    base = [str(RECIPES / "data" / "webqa.yaml"), str(RECIPES / "models" / "smollm2.yaml")]
    written = load_config([*base, str(RECIPES / "prompts" / "paraphrase.yaml")])
    assert [method.kind for method in written.methods] == ["sampled"]
    assert written.prompt.few_shots
    assert written.prompt.few_shot_data is None
    few_shots = load_config([*base, str(RECIPES / "prompts" / "few-shot-paraphrases.yaml")]).prompt.few_shots
    assert [len(few_shot.paraphrases) for few_shot in few_shots] == [2, 1, 3, 0]
    results = [str(RECIPES / "results" / f"{name}.yaml") for name in ("webqa", "methods")]
    names = [method.name for method in make_methods(load_config([*base, *results]).methods)]
    assert len(names) == 12
    assert {"origin", "per_prompt", "weighted_max", "attention/full_prompt/continuous"} <= set(names)


def test_there_is_a_recipe_for_each_data_set_and_model() -> None:
    assert [path.stem for path in DATA] == [
        "lama",
        "lama_hub",
        "myriadlama",
        "nq_open",
        "pararel",
        "pararel_hub",
        "popqa",
        "squad",
        "triviaqa",
        "webqa",
    ]
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


def test_a_recipe_may_be_json_with_pairs_of_surrogates(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(json.dumps(BASE | {"prompt": {"instruction": "Answer \U0001f600"}}))
    assert load_config(str(tmp_path / "a.yaml")).prompt.instruction == "Answer \U0001f600"
    with pytest.raises(ConfigError, match="surrogates not allowed"):
        load_config(str(tmp_path / "a.yaml"), [r'prompt.instruction="\ud83d"'])


def test_a_pipe_is_not_extended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml: is no regular file \(extended by .*a\.yaml\)"):
        load_config(write(tmp_path / "a.yaml", {"extends": "pipe.yaml"}))


def test_a_file_name_may_not_be_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY_ONE", "")
    with pytest.raises(ConfigError, match="files: an empty name, as of a"):
        load_config(write(tmp_path / "a.yaml", BASE), ["data.files=${EMPTY_ONE}"])


def test_a_file_that_many_extend_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(recipe, "open_file", lambda path: (read.append(path), open_file(path))[1])
    names = [f"{i}.yaml" for i in range(60)]  # each twice: 2 ** 60 ways from the first to the last
    for name, next_one in itertools.pairwise(names):
        write(tmp_path / name, {"extends": [next_one, f"./{next_one}"]})
    write(tmp_path / names[-1], BASE)
    assert load_config(str(tmp_path / names[0])).output == BASE["output"]
    assert len(read) == len(names)


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


def bomb(kind: str, at: str) -> str:
    """YAML whose last key, `at`, stands for 9 to the 12th values."""
    lines = ["a0: &a0 [x]" if kind == "list" else "a0: &a0 {x: 1}"]
    for level in range(1, 13):
        below = [f"*a{level - 1}"] * 9
        if kind == "section":
            below = [f"k{number}: {alias}" for number, alias in enumerate(below)]
        value = {"list": "[%s]", "section": "{%s}", "merge": "{<<: [%s]}"}[kind] % ", ".join(below)
        lines.append(f"a{level}: &a{level} {value}")
    return "\n".join([*lines, f"{at}: *a12", ""])


@pytest.mark.parametrize(
    ("kind", "at", "said"),
    [
        ("list", "output", r"\n  output: Input should be a valid string \(value: \[\[.*\.\.\.\)"),
        ("list", "methods", r"\n  methods\.8: Input should be .* \(value: \[\[.*\.\.\.\)"),
        ("list", "extends", r"extends: the name of a file or a list of names is needed, not \[\["),
        ("section", "prompt", r"\n  prompt\.k8: .* Unknown key"),
        ("merge", "prompt", r"merges \(<<\) of more than 100000 keys|\n  prompt\.x: "),  # by PyYAML's version
    ],
)
def test_few_lines_that_stand_for_billions_of_values_are_refused(
    tmp_path: Path, kind: str, at: str, said: str
) -> None:
    text = bomb(kind, at)
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text.replace("\n", "  # another\n"))
    for paths in (["a.yaml"], ["a.yaml", "b.yaml"]):
        with pytest.raises(ConfigError, match=said) as e:
            load_config([str(tmp_path / path) for path in paths])
        assert len(str(e.value)) < 20_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("&a [*a]", r"an alias \(\*\) stands within what it stands for"),
        ("&a {few_shots: *a}", r"an alias \(\*\) stands within"),
        ("[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("[" * 9999, "nested more than 50 levels deep"),
        ("{chat: true, chat: false}", "the key 'chat' is there twice"),
        ("9" * 9999, "Exceeds the limit"),
        ("{add_bos: 010}", "010 is another number in YAML, octal or of base 60(?s:.*)line"),
        ("{add_bos: 1:30}", "1:30 is another number in YAML"),
        ("{instruction: 2026-02-30}", "'2026-02-30' is no timestamp(?s:.*)line"),
        ("{instruction: !!timestamp x}", "'x' is no timestamp"),
    ],
    ids=[
        "list in itself",
        "section in itself",
        "deep",
        "deeper",
        "twice",
        "digits",
        "octal",
        "60",
        "date",
        "tag",
    ],
)
def test_what_yaml_allows_and_nobody_means_is_refused(tmp_path: Path, value: str, said: str) -> None:
    path = write(tmp_path / "good.yaml", BASE)
    with pytest.raises(ConfigError, match=f"--set prompt=(?s:.*): the value is no YAML: .*{said}") as e:
        load_config(path, [f"prompt={value}"])
    assert len(str(e.value)) < 1000
    (tmp_path / "bad.yaml").write_text(f"{yaml.safe_dump(BASE)}prompt: {value}\n")
    with pytest.raises(ConfigError, match=rf"bad\.yaml: cannot be read as YAML: .*{said}"):
        load_config(str(tmp_path / "bad.yaml"))


def test_aliases_and_merges_are_read(tmp_path: Path) -> None:
    few = "[&shot {question: q, answer: a}, *shot, {<<: *shot, answer: b}]"
    write(tmp_path / "base.yaml", BASE)
    (tmp_path / "a.yaml").write_text(f"extends: base.yaml\nprompt: {{few_shots: {few}}}")
    few_shots = load_config(str(tmp_path / "a.yaml")).prompt.few_shots
    assert [shot.answer for shot in few_shots] == ["a", "a", "b"]


def test_an_override_changes_no_other_section_that_is_the_same_by_an_alias(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "output: o\nmodel: {path: m}\ndata: {name: d, files: a, fields: &f {question: q, answers: a}}\n"
        "prompt: {few_shot_data: {files: b, fields: *f}}\n"
    )
    config = load_config(str(tmp_path / "a.yaml"), ["data.fields.question=other"])
    assert config.prompt.few_shot_data is not None
    assert (config.data.fields.question, config.prompt.few_shot_data.fields.question) == ("other", "q")


def test_a_file_that_is_too_large_for_a_recipe_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        load_config(str(tmp_path / "a.yaml"))
