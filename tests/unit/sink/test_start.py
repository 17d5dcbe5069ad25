import hashlib
import json
import math

import pytest

from flexray.data import to_questions
from flexray.data.plan_rows import read_planned
from flexray.errors import OutputError
from flexray.sink import (
    DamageError,
    OutputFolder,
    checked_specs,
    fingerprint,
    load_run,
    specs_of,
)
from flexray.sink.records import RUN_FILE
from flexray.sink.records.sealed import SCHEMA_VERSION
from tests.unit.sink.builders import PARTS, PLAN_FILE, SHARDS, A, commit, edit_json, planned, question, start


def test_a_start_writes_the_plan_and_the_run(folder):
    run = start(folder)
    assert planned(folder, run) == list(SHARDS)
    assert (run.planned_rows, run.planned_shards, run.next_shard) == (12, 3, 3)
    assert run.fingerprint == fingerprint(PARTS)
    assert run.row_schema["error"] == "string not null"
    assert load_run(folder) == run


def test_a_row_group_of_the_plan_is_a_shard_with_all_that_is_known_of_its_questions(folder):
    rows = [question(f"qa/test/{i}", confidences=(0.5, 0.25), relation="P1") for i in range(5)]
    run = start(folder, rows, shard_rows=3)
    specs = list(specs_of(folder, run).values())
    assert [spec.num_rows for spec in specs] == [3, 2]
    assert checked_specs(folder, run, [spec.shard_id for spec in specs]) == specs
    read = [q for spec in specs for q in to_questions(read_planned(spec), dataset="qa", split="test")]
    assert read == rows


def test_the_plan_is_complete_before_the_run_exists(folder, monkeypatch):
    order = []
    write = OutputFolder.write_bytes
    monkeypatch.setattr(OutputFolder, "write_bytes", lambda *a: (order.append(a[1]), write(*a)))
    start(folder)
    assert order == [PLAN_FILE, RUN_FILE]


def test_the_same_run_is_resumed_and_its_record_kept(folder):
    first = start(folder, config={"ray": {"max_actors": 1}})
    commit(folder, first, A)
    assert start(folder, config={"ray": {"max_actors": 2}}) == first
    assert load_run(folder) == first


def test_another_run_is_refused_and_each_part_that_differs_is_named(folder):
    start(folder)
    other = PARTS | {"model": {"digest": "xyz"}, "method": "n" * 300, "extra": None}
    with pytest.raises(OutputError) as caught:
        start(folder, parts=other)
    message = str(caught.value)
    assert 'model.digest: "abc" -> "xyz"' in message
    assert 'method: "m" -> "nnn' in message
    assert "extra: (absent) -> null" in message
    assert "prompt" not in message
    assert "another output folder" in message
    assert "FRESH" in message
    assert max(map(len, message.splitlines())) < 250


def test_a_difference_late_in_a_long_text_is_shown(folder):
    start(folder, parts=PARTS | {"prompt": "x" * 500 + "old" + "y" * 500})
    with pytest.raises(OutputError, match=r"prompt: \.\.\.x+old.* -> \.\.\.x+new"):
        start(folder, parts=PARTS | {"prompt": "x" * 500 + "new" + "y" * 500})


def test_a_folder_with_foreign_files_is_refused(folder):
    folder.write_bytes("thesis.tex", b"precious")
    with pytest.raises(OutputError, match=r"holds no run \(thesis.tex\)"):
        start(folder)
    assert folder.list() == ["thesis.tex"]


def test_a_crash_between_plan_and_run_only_means_to_start_again(folder):
    start(folder, ["qa/test/z"])
    folder.remove(RUN_FILE)
    folder.write_bytes(".probe-00", b"flexray")
    folder.write_bytes("._run.json.00.tmp", b"{")
    assert start(folder).planned_rows == 12


def test_an_uncommitted_shard_is_not_read_from_a_plan_that_was_changed(folder):
    run = start(folder)
    data = bytearray(folder.read_bytes(PLAN_FILE))
    data[len(data) // 2] ^= 1
    folder.write_bytes(PLAN_FILE, bytes(data))
    with pytest.raises(DamageError, match=r"0000.parquet: is not the file .* `flexray repair` moves it"):
        checked_specs(folder, run, [A.shard_id])
    assert checked_specs(folder, run, []) == []


def test_no_secret_reaches_the_run_record_or_a_message(folder):
    parts = PARTS | {"url": "https://host/d.jsonl?sig=hush1"}
    start(
        folder,
        parts=parts,
        config={"output": "s3://key:hush2@bucket/out"},
        provenance={"u": "ftp://hush3@h"},
    )
    assert b"hush" not in folder.read_bytes(RUN_FILE)
    assert start(folder, parts=parts).fingerprint == fingerprint(parts)
    with pytest.raises(OutputError, match="a URL's credentials or query") as caught:
        start(folder, parts=PARTS | {"url": "https://host/d.jsonl?sig=hush4"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"seconds": NaN}'])
def test_an_unreadable_run_record_is_not_trusted(folder, content):
    start(folder)
    folder.write_bytes(RUN_FILE, content)
    with pytest.raises(DamageError, match=r"_run.json: is no"):
        load_run(folder)


def test_a_record_of_another_schema_version_is_refused(folder):
    start(folder)
    later = load_run(folder).model_copy(update={"schema_version": 99}).sealed()
    folder.write_bytes(RUN_FILE, later.to_bytes())
    refused = rf"schema version 99.* this flexray reads versions 3, 4, {SCHEMA_VERSION}"
    with pytest.raises(OutputError, match=refused):
        load_run(folder)


def test_a_record_whose_version_alone_was_changed_is_damaged(folder):
    start(folder)
    edit_json(folder, RUN_FILE, schema_version=99)
    with pytest.raises(DamageError, match="was changed after it was written"):
        load_run(folder)


def test_a_folder_without_a_run_is_said_to_be_one(folder):
    with pytest.raises(OutputError, match="holds no run"):
        load_run(folder)


def test_the_fingerprint_is_that_of_the_values_not_of_their_order():
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": math.nan})


def test_the_fingerprint_is_the_sha256_of_compact_json_in_utf8_with_sorted_keys():
    """As folders of all releases have it."""
    spelled = '{"a":[1,null],"b":"où ?"}'
    assert fingerprint({"b": "où ?", "a": [1, None]}) == hashlib.sha256(spelled.encode()).hexdigest()


def test_the_run_record_is_plain_json(folder):
    start(folder, parts=PARTS | {"instruction": "Réponds !"})
    assert "Réponds !".encode() in folder.read_bytes(RUN_FILE)
    tree = json.loads(folder.read_bytes(RUN_FILE))
    assert {"schema_version", "fingerprint", "parts", "config", "provenance", "plan", "digest"} <= tree.keys()
