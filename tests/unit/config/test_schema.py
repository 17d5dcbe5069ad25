"""The configuration: what is refused, and that the message names file, key and value."""

from typing import get_args

import pytest
import yaml

from flexray.config import FewShot, RunConfig, load_config, parse_config
from flexray.config.data import Section
from flexray.errors import ConfigError

GOOD = {"output": "out", "data": {"name": "qa", "files": "a.jsonl"}, "model": {"path": "m"}}


@pytest.fixture
def load(tmp_path):
    """Loads a tree from a YAML file."""

    def load(tree, overrides=()):
        path = tmp_path / "job.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        return load_config(str(path), overrides)

    return load


def with_value(dotted, value):
    """GOOD with one more value."""
    tree = {key: dict(section) if isinstance(section, dict) else section for key, section in GOOD.items()}
    *parents, leaf = dotted.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = value
    return tree


def test_what_is_left_out_has_its_default(load):
    config = load(GOOD)
    assert config.data.files == ("a.jsonl",)
    assert config.data.shard_rows == 512
    assert config.engine.backend == "flex"
    assert config.methods[0].name == "attention/shared_context/restart"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "outputs",
            "x",
            "known here: data, engine, evaluation, generation, limits, methods, model, output, ",
        ),
        ("engine.backnd", "flex", "known here: backend, "),
        (
            "data.fields.anwsers",
            "a",
            "known here: answers, candidates, confidences, id, num_manual, paraphrases, question",
        ),
        (
            "prompt.few_shots",
            [{"question": "q", "answer": "a", "hint": "h"}],
            "known here: answer, paraphrases, question",
        ),
        ("engine.backend", "flash", "'flash'"),
        ("data.shard_rows", "many", "'many'"),
        ("data.shard_rows", 0, "0"),
        ("generation.max_new_tokens", 1.5, "1.5"),
        ("generation.stop", ["END", ""], '"" would end every answer before it begins. Leave it out'),
        ("generation.logprobs", 21, "21"),
        ("generation.candidates", [], "a list of texts is needed"),
        ("generation.candidates", {"P36": ["Rome"], "P19": [" "]}, "'P19': a list of texts is needed"),
        ("generation.candidates", ["yes", "no", "yes"], "'yes' stands there twice. Remove one"),
        ("generation.candidates", "row", "Set data.fields.candidates"),
        ("generation.candidates", {}, "a relation's list is needed"),
        ("generation", {"candidates": ["a"], "length_penalty": float("inf")}, "length_penalty"),
        ("generation.length_penalty", 0.0, "length_penalty has no effect without candidates"),
        ("generation", {"candidates": ["a"], "stop": "b"}, "so stop has no effect. Remove it"),
        (
            "methods",
            [{"kind": "vote", "ties": "logprob"}],
            "needs log-probabilities. Set generation.logprobs",
        ),
        ("generation.min_new_tokens", 17, "min_new_tokens (17) is above max_new_tokens (16)"),
        ("engine.gpu_memory_utilization", 2, "2"),
        ("data.files", [], "[]"),
        ("data.name", "a/b", "'a/b'"),
        ("prompt.question_template", "Q:", "needs the slot {question} exactly once"),
        ("prompt.answer_prefix", "", "''"),
        ("ray", {"min_actors": 3, "max_actors": 1}, "max_actors (1) is below min_actors (3)"),
        ("model", "folder", "'folder'"),
        ("output", "s3://bucket/" + "x" * 900, "too long by 238 bytes for the names of the files in it"),
        ("output", "x/" * 2000, "for the names of the files in it. Shorten it (value: 'x/x/"),
        ("data.files", ["x" * 10_000, 3], "x...)"),
    ],
)
def test_an_unknown_key_or_bad_value_is_named(load, tmp_path, key, value, said):
    with pytest.raises(ConfigError) as error:
        load(with_value(key, value))
    message = str(error.value)
    assert str(tmp_path / "job.yaml") in message
    assert key.partition(".")[0] in message
    assert said in message


@pytest.mark.parametrize(
    ("key", "at"),
    [("data.fields.anwsers", "data.fields.anwsers"), ("engine.backnd", "engine.backnd")],
)
def test_a_nested_key_is_named_by_its_whole_path(load, key, at):
    with pytest.raises(ConfigError, match=rf"\n  {at}: "):
        load(with_value(key, 1))


@pytest.mark.parametrize("key", ["output", "data", "model"])
def test_a_missing_section_is_named(load, key):
    with pytest.raises(ConfigError, match=rf"{key}: Field required\. Add this key\."):
        load({k: v for k, v in GOOD.items() if k != key})


def test_all_faults_are_told_at_once(load):
    tree = with_value("engine.backend", "flash")
    tree["data"]["shard_rows"] = 0
    with pytest.raises(ConfigError, match=r"2 fault\(s\)") as error:
        load(tree)
    assert "engine.backend" in str(error.value)
    assert "data.shard_rows" in str(error.value)


def test_no_paraphrases_need_the_question(load):
    tree = with_value("data.fields", {"paraphrases": None})
    with pytest.raises(ConfigError, match="set include_question to true"):
        load(tree)
    tree["data"]["include_question"] = True
    assert load(tree).data.fields.paraphrases is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "a mapping of sections is expected, found list"),
        ("", "a mapping of sections is expected, found NoneType"),
        ("data: [", "cannot be read as YAML"),
        ("data: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(load, tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        load(text)
    assert str(error.value).startswith(str(tmp_path / "job.yaml"))
    assert said in str(error.value)


def test_a_missing_file_or_a_folder_is_refused_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}/none.yaml: no such configuration file"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_config(str(tmp_path))
    with pytest.raises(ConfigError, match=r"nosuch://a/b\.yaml"):
        load_config("nosuch://a/b.yaml")


def test_overrides_are_yaml_and_reach_any_depth(load):
    config = load(
        GOOD, ["data.fields.answers=null", "engine.strict=true", "generation.max_new_tokens=3", "output=x=y"]
    )
    assert config.data.fields.answers is None
    assert config.engine.strict is True
    assert config.generation.max_new_tokens == 3
    assert config.output == "x=y"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("output", "expected section.key=value"),
        ("=x", "expected section.key=value"),
        ("output.name=x", "'output' is a value, not a section"),
        ("data.limit=[", "the value is no YAML"),
        ("data.limits=3", "data.limits: "),
    ],
)
def test_a_bad_override_is_named(load, override, said):
    with pytest.raises(ConfigError) as error:
        load(GOOD, [override])
    assert said in str(error.value)


def test_every_key_has_a_line_that_says_what_it_is():
    sections = [RunConfig, FewShot]
    for section in sections:  # grows
        for name, field in section.model_fields.items():
            kinds = [field.annotation, *get_args(field.annotation)]
            inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
            sections += [kind for kind in inner if kind not in sections]
            assert inner or field.description or section is FewShot, f"{section.__name__}.{name}"


def test_a_configuration_survives_json():
    config = parse_config(GOOD, source="test")
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_keys_that_came_later_are_in_a_fingerprint_only_if_they_are_used(load):
    generation = load(GOOD).generation.model_dump(mode="json")
    assert generation == {"max_new_tokens": 16, "stop_at_newline": True}
    used = load(with_value("generation", {"stop": "END", "logprobs": 0})).generation.model_dump(mode="json")
    assert used == generation | {"stop": ["END"], "logprobs": 0}
    (method,) = load(GOOD).methods
    assert "do_sample" not in method.model_dump(mode="json")


@pytest.mark.parametrize(
    "method", [{"kind": "sampled"}, {"kind": "confidence"}, {"kind": "avg", "do_sample": True}]
)
def test_methods_that_draw_choose_from_no_candidates(load, method):
    tree = with_value("generation.candidates", ["yes", "no"]) | {"methods": [method]}
    with pytest.raises(ConfigError, match=r"draws its answers, but generation\.candidates gives them"):
        load(tree)
