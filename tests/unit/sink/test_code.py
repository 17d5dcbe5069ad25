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
from tests.unit.sink.builders import ERROR, PARTS, ROWS, A, commit, finished, planned, row, start, table
from tests.unit.sink.damages import files

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
    manifest = commit(folder, run, A, code=THEN)
    assert load_run(folder).code == THEN
    assert committed_shards(folder, run)[A.shard_id].code == (THEN,) == manifest.code


def test_a_folder_of_0_1_is_read_verified_and_evaluated(old):
    assert load_run(old).code is None
    assert {m.code for m in committed_shards(old, load_run(old)).values()} == {()}
    assert verify(old).ok
    assert evaluate([str(old)]).methods[0].scored == 12


def test_records_of_0_1_stay_what_they_are_when_they_are_compacted_or_repaired(old):
    run = load_run(old)
    assert compact(old, run.fingerprint, max_singles=0, max_files=0) == 2
    assert verify(old).ok
    (compacted,) = old.list("_manifests")
    old.remove(committed_shards(old, run)["a"].file)
    repair(old, log=lambda line: None)
    assert old.list("_manifests") != [compacted]
    assert set(committed_shards(old, run)) == {"b", "c"}
    assert verify(old).damaged == 0


@pytest.mark.parametrize("version", [3, 4])
def test_a_folder_that_cannot_grow_is_not_gone_on_with(old, version):
    record = load_run(old).model_copy(update={"schema_version": version}).sealed()
    old.write_bytes(RUN_FILE, record.to_bytes())
    before = files(old)
    with pytest.raises(OutputError, match=r"runs could not grow. `flexray adopt` brings its rows"):
        start(old, parts=parts(NOW), code=NOW, allow_code_change=True)
    assert files(old) == before
    assert verify(old).ok


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
    assert commit(folder, run, A, code=other).code == (other,)


def test_a_code_change_that_is_allowed_goes_on_and_each_manifest_tells_its_code(folder):
    run = start(folder, parts=parts(THEN), code=THEN)
    commit(folder, run, A, code=THEN)
    more = {"parts": parts(NOW), "code": NOW, "allow_code_change": True}
    run = start(folder, (*ROWS, "qa/test/12"), **more)
    for shard in planned(folder, run)[1:]:
        commit(folder, run, shard, code=NOW)
    assert [m.code for m in committed_shards(folder, run).values()] == [(THEN,), (NOW,), (NOW,), (NOW,)]
    assert load_run(folder).code == THEN
    assert verify(folder).ok


def test_what_is_planned_after_a_code_change_is_known_again_without_its_record(folder):
    run = finished(folder, A.row_ids, parts=parts(THEN), code=THEN)
    run = finished(folder, parts=parts(NOW), code=NOW, allow_code_change=True)
    folder.remove(RUN_FILE)
    again = start(folder, parts=parts(THEN), code=THEN)
    assert (again.plan, again.next_shard) == (run.plan, run.next_shard)


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
    run = start(folder, A.row_ids)
    rows = [row(row_id, A.shard_id, **(ERROR if place else {})) for place, row_id in enumerate(A.row_ids)]
    failed = commit(folder, run, A, table=table(A, rows=rows), code=then)
    again = recommit_shard(folder, failed, table(A), engine_stats={}, seconds=1, code=NOW)
    assert again.code == (then or CODE_OF_0_1, NOW)


def test_an_edited_code_is_damage(folder):
    start(folder, parts=parts(THEN), code=THEN)
    tree = json.loads(folder.read_bytes(RUN_FILE))
    tree["code"]["commit"] = "0ther"
    folder.write_bytes(RUN_FILE, json.dumps(tree).encode())
    with pytest.raises(OutputError, match="was changed after it was written"):
        load_run(folder)
