"""Which keys go together for a data set."""

from typing import Any

import pytest

from flexray.config import DataConfig, parse_config
from flexray.errors import ConfigError


def load(data: dict[str, Any], **prompt: Any) -> DataConfig:
    tree = {"output": "o", "model": {"path": "m"}, "data": {"name": "d", "files": "a.jsonl"} | data}
    return parse_config(tree | {"prompt": prompt}, source="test").data


def test_a_pararel_folder_stands_for_its_facts_and_patterns() -> None:
    config = load({"kind": "pararel", "files": "s3://b/pararel/"})
    assert config.files == ("s3://b/pararel/facts/P*.jsonl",)
    assert config.template_files == ("s3://b/pararel/patterns/P*.jsonl",)
    assert DataConfig.model_validate_json(config.model_dump_json()) == config


def test_kinds_without_paraphrases_include_the_question_unless_told_not_to() -> None:
    assert load({"kind": "webqa"}).include_question
    assert not load({"kind": "triviaqa", "include_question": False, "paraphrase_files": "b"}).include_question


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": 3}, "kind"),
        ({"kind": "pararel"}, "kind pararel needs template_files"),
        ({"kind": "pararel", "files": ["a", "b"]}, "kind pararel needs template_files"),
        ({"kind": "lama_hub", "template_files": "a"}, "template_files: kind lama_hub has no templates"),
        ({"kind": "lama", "myriadlama_answers": "aliases"}, "myriadlama_answers: kind lama has none"),
        ({"sample": 0.1, "sample_rows": 3}, "sample and sample_rows: a share and a number of rows"),
        ({"sample_rows": 0}, "data.sample_rows"),
        ({"template_files": "a"}, "template_files: kind records has no templates"),
        ({"kind": "webqa", "template_files": "a"}, "template_files: kind webqa has no templates"),
        ({"kind": "myriadlama", "pararel_style": "mask"}, "pararel_style: kind myriadlama has none"),
        ({"kind": "webqa", "fields": {"id": "x"}}, "fields: kind webqa knows its own"),
        ({"kind": "webqa", "include_question": False}, "kind webqa has no paraphrases"),
        ({"kind": "myriadlama", "include_question": True}, "is its first paraphrase"),
        ({"kind": "myriadlama", "max_manual": 0, "max_automatic": 0}, "nothing would be left"),
        ({"kind": "pararel", "files": "dir", "max_manual": 0}, "nothing would be left"),
        ({"kind": "myriadlama", "max_manual": -1}, "max_manual"),
        ({"paraphrase_files": "b", "fields": {"id": None}}, "they are joined by id"),
        ({"name": "a" * 100, "split": "b" * 67}, "name and split: 167 characters together, at most 166"),
        ({"files": [["a"]]}, "data.files: a text or a list of texts is needed (value: [['a']])"),
        ({"files": {"a": "b"}}, "data.files: a text or a list of texts is needed"),
        ({"paraphrase_files": 3}, "data.paraphrase_files: a text or a list of texts is needed (value: 3)"),
        ({"limit": 2**70}, "data.limit: a number of more than 64 bits"),
        ({"paraphrase_file": "b"}, "known here: fields, files, format"),
    ],
)
def test_keys_that_do_not_go_together_are_named(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as e:
        load(data)
    assert said in str(e.value)


def test_few_shots_come_from_one_place() -> None:
    drawn = {"files": "b.jsonl"}
    with pytest.raises(ConfigError, match="give one of them"):
        load({}, few_shots=[{"question": "q", "answer": "a"}], few_shot_data=drawn)
    load({}, few_shots=[], few_shot_data=drawn)
    with pytest.raises(ConfigError, match=r"few_shot_data\.number: .*known here: count, fields, files"):
        load({}, few_shot_data=drawn | {"number": 3})
    with pytest.raises(ConfigError, match=r"few_shot_data\.fields\.id: .*known here: answers, par"):
        load({}, few_shot_data=drawn | {"fields": {"id": "x"}})
