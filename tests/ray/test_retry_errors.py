"""The error rows of a run are answered once what was wrong is mended; all other rows stay as they are."""

import json
import re
from pathlib import Path

import pytest

from flexray.config import parse_config
from flexray.errors import OutputError
from flexray.runs.retry_errors import retry_errors
from flexray.sink import OutputFolder, read_committed, verify
from tests.ray.jobs import contents, flexray_here, make_tree, manifests, question, write, write_config

ROWS = 7  # in shards of three
INDIA = "qa/test/q6"  # the one question about it, in a shard of its own
COPIES = {"kind": "attention", "layout": "full_prompt", "positions": "continuous"}
FAILED = ("origin", INDIA)


@pytest.fixture(scope="module")
def fault(small_tokenizer):
    """The fault that no backend can prefill what holds a word; a change to it is merged in."""

    def fault(word, **changes):
        ids = " ".join(map(str, small_tokenizer.encode(f" {word}", add_special_tokens=False)))
        always = {"point": "engine.prefill", "action": "raise:NotImplementedError", "times": None}
        return {**always, "match": {"ids": f"* {ids} *"}, **changes}

    return fault


def flexray(command, config):
    """What it says; it must end well."""
    code, said, errors = flexray_here(command, "--config", config)
    assert code == 0, said + errors
    return said.splitlines()


def rows_of(output):
    """The committed rows by method and row id."""
    rows = [row for table in read_committed(OutputFolder(str(output))) for row in table.to_pylist()]
    return {(row["method"], row["row_id"]): row for row in rows}


def errors_of(rows):
    return {key for key, row in rows.items() if row["error"]}


@pytest.fixture(scope="module")
def faulty(local_ray, faults_file, fault, tiny_model, tmp_path_factory):
    """A run by two methods with rows of which one never was good, one lacks what it needs, and one was failed
    by one method; returns the configuration's file and tree."""
    folder = tmp_path_factory.mktemp("faulty")
    changes = {1: {"question": ""}, 4: {"paraphrases": []}}
    records = [question(i, **changes.get(i, {})) for i in range(ROWS)]
    tree = make_tree(folder / "out", tiny_model, write(folder / "questions.jsonl", records))
    tree["methods"] = [COPIES, "origin"]
    config = write_config(folder, tree)
    # sdpa and eager, by the method whose positions restart, which comes first; then the other one answers
    faults_file.write_text(json.dumps([fault("India", times=2, ledger=str(folder / "ledger"))]))
    flexray("run", config)
    faults_file.write_text("[]")
    return config, tree


def test_the_error_rows_are_answered_and_nothing_else_changes(faulty, inject, fault):
    config, tree = faulty
    output = Path(tree["output"])
    rows, before = rows_of(output), contents(output)
    never = {(method, f"qa/test/q{i}") for method, _ in rows for i in (1, 4)}
    assert errors_of(rows) == {FAILED, *never}

    inject(fault("India"))
    first, *_, total = flexray("retry-errors", config)[-6:]
    assert first == f"{output}: 5 error rows in 3 shards are tried again"
    assert total == "retried=5 answered=0 still_errors=5"
    assert contents(output) == before, "a shard in which no row is better is not committed again"

    inject()
    *_, total = said = flexray("retry-errors", config)
    (shard,) = [line for line in said if line.startswith("  qa-test-000002: ")]
    assert re.fullmatch(r"  qa-test-000002: 1 rows, 0 errors, \S+ s \[\d/5 rows.*\]", shard)
    assert total == "retried=5 answered=1 still_errors=4"
    report = verify(OutputFolder(str(output)))
    assert report.ok
    assert len(report.orphans) == 1
    after = rows_of(output)
    answered = after.pop(FAILED)
    del rows[FAILED]
    assert (answered["error"], answered["backend_used"], answered["fallback_reason"]) == ("", "sdpa", "")
    assert answered["token_ids"]
    assert after == rows
    now = contents(output)
    assert {p for p in before if now[p] != before[p]} == {manifests(output)["qa-test-000002"]}


def test_a_run_without_error_rows_is_left_alone_and_asks_for_no_ray(again, output, tmp_path, monkeypatch):
    before = contents(output)
    monkeypatch.setattr("flexray.runs.run.connect_ray", lambda *_: pytest.fail("no Ray is needed"))
    config = write_config(tmp_path, again)
    assert flexray("retry-errors", config)[-1] == "retried=0 answered=0 still_errors=0"
    assert contents(output) == before


def test_another_configuration_is_refused(again, output):
    before = contents(output)
    again["generation"]["max_new_tokens"] = 5
    with pytest.raises(OutputError, match=r"generation\.max_new_tokens: 4 -> 5"):
        retry_errors(parse_config(again, source="test"), log=lambda _: None)
    assert contents(output) == before


def test_a_folder_without_a_run_is_refused_and_left_alone(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(0)])
    tree = make_tree(tmp_path / "out", tiny_model, data)
    with pytest.raises(OutputError, match="holds no run"):
        retry_errors(parse_config(tree, source="test"), log=lambda _: None)
    assert not (tmp_path / "out").exists()
