"""Records say which code computed rows; another values version is refused, unless it is allowed."""

import json
import shutil
from pathlib import Path

import pytest

from flexray.errors import OutputError
from flexray.evaluation import evaluate
from flexray.sink import (
    CodeVersion,
    OutputFolder,
    committed_shards,
    compact,
    load_run,
    recommit_shard,
    repair,
    verify,
)
from flexray.sink.records import CODE_OF_0_1, RUN_FILE
from tests.unit.sink.builders import ERROR, PARTS, SHARDS, commit, row, start, table

WRITTEN_BY_0_1 = Path(__file__).with_name("folder_of_0_1")
THEN = CodeVersion(flexray="0.2.0", commit="c0ffee", source_sha256="a" * 64, values_version=2)
NOW = CodeVersion(flexray="0.3.0", commit="", source_sha256="b" * 64, values_version=3)


def parts(code, **changes):
    return PARTS | {"values_version": code.values_version} | changes


@pytest.fixture
def old(tmp_path):
    """A folder as flexray 0.1 wrote it: one shard in a file of its own, two in a compact file."""
    return OutputFolder(str(shutil.copytree(WRITTEN_BY_0_1, tmp_path / "old")))


def test_the_records_say_which_code_wrote_them(folder):
    run = start(folder, parts=parts(THEN), code=THEN)
    manifest = commit(folder, run, SHARDS[0], code=THEN)
    assert load_run(folder).code == THEN
    assert committed_shards(folder, run.fingerprint)["a"].code == (THEN,) == manifest.code


def test_a_folder_of_0_1_is_read_verified_and_evaluated(old):
    assert load_run(old).code is None
    assert {m.code for m in committed_shards(old, load_run(old).fingerprint).values()} == {()}
    assert verify(old).ok
    assert evaluate([str(old)]).methods[0].scored == 12


def test_records_of_0_1_stay_what_they_are_when_they_are_compacted_or_repaired(old):
    run = load_run(old)
    assert compact(old, run.fingerprint, max_singles=0, max_files=0) == 2
    assert verify(old).ok
    (compacted,) = old.list("_manifests")
    old.remove(committed_shards(old, run.fingerprint)["a"].file)
    repair(old, log=lambda line: None)
    assert old.list("_manifests") != [compacted]
    assert set(committed_shards(old, run.fingerprint)) == {"b", "c"}
    assert verify(old).damaged == 0


def test_a_folder_of_0_1_is_not_gone_on_with_unasked(old):
    before = old.read_bytes(RUN_FILE)
    with pytest.raises(OutputError) as refused:
        start(old, parts=parts(NOW), code=NOW)
    message = str(refused.value)
    assert "values version 1 (flexray 0.1)" in message
    assert "values version 3 (flexray 0.3.0)" in message
    assert "written by flexray 0.1" in message
    assert "--allow-code-change" in message
    assert old.read_bytes(RUN_FILE) == before


def test_another_values_version_is_refused_with_both_named(folder):
    start(folder, parts=parts(THEN), code=THEN)
    with pytest.raises(
        OutputError, match=r"version 2 \(flexray 0.2.0, commit c0ffee\).* version 3 \(flexray 0.3.0\)"
    ):
        start(folder, parts=parts(NOW), code=NOW)


def test_another_commit_of_the_same_values_version_goes_on(folder):
    other = THEN.model_copy(update={"commit": "beef", "source_sha256": "c" * 64})
    run = start(folder, parts=parts(THEN), code=THEN)
    assert start(folder, parts=parts(other), code=other) == run
    assert commit(folder, run, SHARDS[0], code=other).code == (other,)


def test_a_code_change_that_is_allowed_goes_on_and_each_manifest_tells_its_code(old):
    old.remove(committed_shards(old, load_run(old).fingerprint)["c"].file)
    old.remove("_manifests/c.json")
    run = start(old, parts=parts(NOW), code=NOW, allow_code_change=True)
    commit(old, run, SHARDS[2], code=NOW)
    assert [m.code for m in committed_shards(old, run.fingerprint).values()] == [(), (), (NOW,)]
    assert load_run(old).code is None
    assert verify(old).ok


def test_an_allowed_code_change_allows_nothing_else(folder):
    start(folder, parts=parts(THEN), code=THEN)
    with pytest.raises(OutputError, match=r"method: \"m\" -> \"n\"") as refused:
        start(folder, parts=parts(NOW, method="n"), code=NOW, allow_code_change=True)
    assert "values_version: 2 -> 3" in str(refused.value)


def test_a_key_that_was_renamed_since_0_1_is_no_difference(folder):
    start(folder, parts=PARTS | {"prompt": {"cue": "A:"}})
    run = start(folder, parts=parts(NOW, prompt={"answer_prefix": "A:"}), code=NOW, allow_code_change=True)
    assert run.parts["prompt"] == {"cue": "A:"}


@pytest.mark.parametrize("then", [None, THEN])
def test_rows_computed_again_by_other_code_leave_both_in_the_manifest(folder, then):
    run = start(folder, SHARDS[:1])
    rows = [row(row_id, "a", **(ERROR if place else {})) for place, row_id in enumerate(SHARDS[0].row_ids)]
    failed = commit(folder, run, SHARDS[0], table=table(SHARDS[0], rows=rows), code=then)
    again = recommit_shard(folder, failed, table(SHARDS[0]), engine_stats={}, seconds=1, code=NOW)
    assert again.code == (then or CODE_OF_0_1, NOW)


def test_an_edited_code_is_damage(folder):
    start(folder, parts=parts(THEN), code=THEN)
    tree = json.loads(folder.read_bytes(RUN_FILE))
    tree["code"]["commit"] = "0ther"
    folder.write_bytes(RUN_FILE, json.dumps(tree).encode())
    with pytest.raises(OutputError, match="was changed after it was written"):
        load_run(folder)
