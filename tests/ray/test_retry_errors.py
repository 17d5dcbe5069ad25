"""The error rows of a run are answered once what was wrong is mended; all other rows stay as they are."""

import re

import pytest

from flexray.config import parse_config
from flexray.retry import retry_errors
from flexray.sink import OutputFolder, read_committed, verify
from flexray.types import OutputError
from tests.ray.jobs import contents, flexray_here, make_tree, manifests, question, write, write_config

ROWS = 7  # in shards of three
PERU, INDIA = "qa/test/q2", "qa/test/q6"  # the one question about it; India's has a shard of its own
COPIES = {"kind": "attention", "layout": "full_prompt", "positions": "continuous"}
FAILED = ("attention/full_prompt/continuous", INDIA)


@pytest.fixture
def fail(inject, tokenizer):
    """Lets no backend prefill what holds a word; a change to the fault is merged in."""

    def fail(word, **changes):
        ids = " ".join(map(str, tokenizer.encode(f" {word}", add_special_tokens=False)))
        always = {"point": "engine.prefill", "action": "raise:NotImplementedError", "times": None}
        inject({**always, "match": {"ids": f"* {ids} *"}, **changes})

    return fail


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


def test_the_error_rows_are_answered_and_nothing_else_changes(fail, tiny_model, tmp_path, monkeypatch):
    output = tmp_path / "out"
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(output, tiny_model, data) | {"methods": [COPIES, "origin"]}
    config = write_config(tmp_path, tree)
    # sdpa and eager, by the first method; then the second one answers
    fail("India", times=2, ledger=str(tmp_path / "ledger"))
    flexray("run", config)
    rows, before = rows_of(output), contents(output)
    assert errors_of(rows) == {FAILED}

    *_, first, shard, total = flexray("retry-errors", config)
    assert first == f"{output}: 1 error rows in 1 shards are tried again"
    assert re.fullmatch(r"  qa-test-000002: 1 rows, 0 errors, \S+ s \[1/1 rows, .*\]", shard)
    assert total == "retried=1 answered=1 still_errors=0"
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

    with monkeypatch.context() as patch:
        patch.setattr("flexray.run.connect", lambda config: pytest.fail("no Ray is needed"))
        assert flexray("retry-errors", config)[-1] == "retried=0 answered=0 still_errors=0"
    assert contents(output) == now

    tree["generation"]["max_new_tokens"] = 5
    with pytest.raises(OutputError, match=r"generation\.max_new_tokens: 4 -> 5"):
        retry_errors(parse_config(tree, source="test"), say=lambda _: None)
    assert contents(output) == now


def test_a_shard_in_which_no_row_is_better_is_not_committed_again(inject, fail, tiny_model, tmp_path):
    output = tmp_path / "out"
    changes = {1: {"question": ""}, 4: {"paraphrases": []}}
    records = [question(i, **changes.get(i, {})) for i in range(ROWS)]
    data = write(tmp_path / "questions.jsonl", records)
    config = write_config(tmp_path, make_tree(output, tiny_model, data))
    fail("Peru")
    flexray("run", config)
    rows, before = rows_of(output), contents(output)
    assert {row_id for _, row_id in errors_of(rows)} == {"qa/test/q1", PERU, "qa/test/q4"}

    said = flexray("retry-errors", config)
    assert said[-1] == "retried=3 answered=0 still_errors=3"
    assert contents(output) == before

    inject()
    said = flexray("retry-errors", config)
    assert [line.partition(" errors")[0] for line in sorted(said[-3:-1])] == [
        "  qa-test-000000: 2 rows, 1",
        "  qa-test-000001: 1 rows, 1",
    ]
    assert said[-1] == "retried=3 answered=1 still_errors=2"
    assert verify(OutputFolder(str(output))).ok
    after = rows_of(output)
    (answered,) = errors_of(rows) - errors_of(after)
    assert answered[1] == PERU
    del rows[answered], after[answered]
    assert after == rows
    now = contents(output)
    assert {p for p in before if now[p] != before[p]} == {manifests(output)["qa-test-000000"]}


def test_a_folder_without_a_run_is_refused_and_left_alone(tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(0)])
    tree = make_tree(tmp_path / "out", tiny_model, data)
    with pytest.raises(OutputError, match="holds no run"):
        retry_errors(parse_config(tree, source="test"), say=lambda _: None)
    assert not (tmp_path / "out").exists()
