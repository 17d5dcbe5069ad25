"""Recipes of 0.1 load, with one warning that names the new keys."""

import datetime
import warnings

import pytest

from flexray.config import parse_config
from flexray.errors import ConfigError

TREE = {"output": "out", "data": {"name": "qa", "files": "q.jsonl"}, "model": {"path": "model"}}
OLD = {
    "prompt": {"cue": "\nAnswer:"},
    "engine": {"max_rows": 8, "max_prefill_tokens": 256, "memory_fraction": 0.5},
}


def test_old_keys_load_with_one_warning_that_names_the_new_ones():
    with pytest.warns(FutureWarning) as said:
        config = parse_config(TREE | OLD, source="old.yaml")
    assert config.prompt.answer_prefix == "\nAnswer:"
    assert (config.engine.max_num_seqs, config.engine.max_num_batched_tokens) == (8, 256)
    assert config.engine.gpu_memory_utilization == 0.5
    (line,) = [str(warning.message) for warning in said]
    assert line.startswith("old.yaml: prompt.cue is now prompt.answer_prefix; engine.max_rows is now ")


def test_new_keys_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_config(TREE | {"engine": {"max_num_seqs": 8}}, source="new.yaml")


def test_an_old_key_beside_the_new_one_is_an_unknown_key():
    with pytest.raises(ConfigError, match=r"engine\.max_rows: .*Unknown key"):
        parse_config(TREE | {"engine": {"max_rows": 8, "max_num_seqs": 8}}, source="both.yaml")


def faults(**sections):
    with pytest.raises(ConfigError) as e:
        parse_config(TREE | sections, source="my.yaml")
    first, *lines = str(e.value).splitlines()
    assert first == f"my.yaml: {len(lines)} fault(s) in the configuration"
    return lines


def test_true_is_no_number():
    (line,) = faults(data=TREE["data"] | {"limit": True})
    assert line == "  data.limit: a number is needed, not true or false (value: True)"
    assert len(faults(engine={"max_num_seqs": True, "gpu_memory_utilization": True})) == 2
    assert parse_config(TREE | {"engine": {"strict": True}}, source="my.yaml").engine.strict


def test_a_fault_within_a_list_is_told_alone():
    (line,) = faults(methods=[{"kind": "attention", "layout": "none"}])
    assert line.startswith("  methods.0.layout: ")
    (line,) = faults(methods=[])
    assert line.startswith("  methods: ")


def test_what_yaml_does_not_read_as_a_text_wants_quotes():
    (line,) = faults(data=TREE["data"] | {"name": datetime.date(2020, 1, 1)})
    assert line.endswith("YAML reads it as another type: put it in quotes")
    (line,) = faults(data=TREE["data"] | {"name": ["a"]})
    assert "quotes" not in line
