import hashlib
import json
import math
from dataclasses import replace

import pytest

from flexray.errors import OutputError
from flexray.sink import (
    DamageError,
    OutputFolder,
    fingerprint,
    load_run,
)
from flexray.sink.records import PLAN_FILE, RUN_FILE
from flexray.sink.row_table import from_parquet
from flexray.sink.sealed import SCHEMA_VERSION
from tests.unit.sink.builders import PARTS, SHARDS, commit, edit_json, shard, start


def test_a_start_writes_the_plan_and_the_run(folder):
    run = start(folder)
    plan = from_parquet(folder.read_bytes(PLAN_FILE)).to_pylist()
    assert [(r["shard_id"], r["row_id"]) for r in plan] == [
        (s.shard_id, i) for s in SHARDS for i in s.row_ids
    ]
    assert (run.plan.rows, run.plan.shards) == (12, 3)
    assert run.fingerprint == fingerprint(PARTS)
    assert run.row_schema["error"] == "string not null"
    assert load_run(folder) == run


def test_the_plan_is_complete_before_the_run_exists(folder, monkeypatch):
    order = []
    write = OutputFolder.write_bytes
    monkeypatch.setattr(OutputFolder, "write_bytes", lambda *a: (order.append(a[1]), write(*a)))
    start(folder)
    assert order == [PLAN_FILE, RUN_FILE]


def test_the_same_run_is_resumed_and_its_record_kept(folder):
    first = start(folder, config={"ray": {"max_actors": 1}})
    commit(folder, first, SHARDS[0])
    assert start(folder, config={"ray": {"max_actors": 2}}) == first


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
    start(folder, parts={"prompt": "x" * 500 + "old" + "y" * 500})
    with pytest.raises(OutputError, match=r"prompt: \.\.\.x+old.* -> \.\.\.x+new"):
        start(folder, parts={"prompt": "x" * 500 + "new" + "y" * 500})


def test_another_plan_of_the_same_configuration_is_refused(folder):
    start(folder)
    with pytest.raises(OutputError, match="12 planned rows in 3 shards are not the 8 rows in 2"):
        start(folder, shards=SHARDS[:2])


def test_a_folder_with_foreign_files_is_refused(folder):
    folder.write_bytes("thesis.tex", b"precious")
    with pytest.raises(OutputError, match=r"holds no run \(thesis.tex\)"):
        start(folder)
    assert folder.list() == ["thesis.tex"]


def test_a_crash_between_plan_and_run_only_means_to_start_again(folder):
    start(folder, shards=[shard("z")])
    folder.remove(RUN_FILE)
    folder.write_bytes(".probe-00", b"flexray")
    folder.write_bytes("._run.json.00.tmp", b"{")
    assert start(folder).plan.rows == 12


@pytest.mark.parametrize(
    ("shards", "problem"),
    [
        ([shard("a"), shard("a")], "shard a is planned twice"),
        ([shard("../a")], "cannot be used in a file name"),
        ([shard("a", 1), shard("b", 0), shard("a", 0)], "planned twice"),
    ],
)
def test_a_plan_that_is_not_one_to_one_is_refused(folder, shards, problem):
    with pytest.raises(ValueError, match=problem):
        start(folder, shards=shards)
    assert folder.list() == []


def test_a_row_planned_in_two_shards_is_refused(folder):
    twin = replace(shard("b"), row_ids=shard("a").row_ids)
    with pytest.raises(ValueError, match=r"row qa/test/a0 is planned twice.* shard b"):
        start(folder, shards=[shard("a"), twin])
    with pytest.raises(ValueError, match="4 rows, but 0 row ids"):
        start(folder, shards=[replace(shard("b"), row_ids=())])


def test_no_secret_reaches_the_run_record_or_a_message(folder):
    parts = {"data": "https://host/d.jsonl?sig=hush1"}
    start(
        folder,
        parts=parts,
        config={"output": "s3://key:hush2@bucket/out"},
        provenance={"u": "ftp://hush3@h"},
    )
    assert b"hush" not in folder.read_bytes(RUN_FILE)
    assert start(folder, parts=parts).fingerprint == fingerprint(parts)
    with pytest.raises(OutputError, match="a URL's credentials or query") as caught:
        start(folder, parts={"data": "https://host/d.jsonl?sig=hush4"})
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
    refused = rf"schema version 99.* this flexray reads versions 3, {SCHEMA_VERSION}"
    with pytest.raises(OutputError, match=refused):
        load_run(folder)


def test_a_record_whose_version_alone_was_changed_is_damaged(folder):
    start(folder)
    edit_json(folder, RUN_FILE, schema_version=99)
    with pytest.raises(DamageError, match="was changed after it was written"):
        load_run(folder)


@pytest.mark.parametrize("lost", [False, True])
def test_a_lost_or_damaged_plan_is_written_again_if_it_is_the_same(folder, lost):
    run = start(folder)
    whole = folder.read_bytes(PLAN_FILE)
    folder.remove(PLAN_FILE)
    if not lost:
        folder.write_bytes(PLAN_FILE, whole + b" ")
    assert start(folder) == run
    assert folder.read_bytes(PLAN_FILE) == whole


def test_a_plan_that_another_pyarrow_writes_in_other_bytes_is_the_same_plan(folder):
    run = start(folder)
    other = run.plan.model_copy(update={"sha256": "0" * 64, "bytes": 1})
    folder.write_bytes(RUN_FILE, run.model_copy(update={"plan": other}).sealed().to_bytes())
    assert start(folder) == run
    assert load_run(folder) == run


def test_a_damaged_plan_is_not_replaced_by_another_plan(folder):
    start(folder)
    folder.write_bytes(PLAN_FILE, b"")
    with pytest.raises(
        OutputError,
        match=r"_plan.parquet: is not .* 12 planned rows .* not the 12 rows in 2 shards",
    ):
        start(folder, shards=[shard("a"), shard("b", 8)])
    assert folder.read_bytes(PLAN_FILE) == b""


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
    start(folder, parts={"instruction": "Réponds !"})
    assert "Réponds !".encode() in folder.read_bytes(RUN_FILE)
    tree = json.loads(folder.read_bytes(RUN_FILE))
    assert {"schema_version", "fingerprint", "parts", "config", "provenance", "plan", "digest"} <= tree.keys()
