"""A run whose record is lost or damaged: the same run writes it again, and any other is refused."""

import pytest

from flexray.errors import OutputError
from flexray.sink import (
    DamageError,
    committed_shards,
    compact,
    discard_run,
    load_run,
    read_committed,
    repair,
    verify,
)
from flexray.sink.records import QUARANTINE_FOLDER, RUN_FILE, manifest_name
from tests.unit.sink.builders import PARTS, SHARDS, A, B, commit, edit_json, finished, shard_id, start
from tests.unit.sink.damages import resume


@pytest.mark.parametrize("max_singles", [0, 1000])
def test_a_lost_run_record_is_written_again_if_the_commits_are_this_runs(folder, max_singles):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=max_singles)
    folder.remove(RUN_FILE)
    again = start(folder)
    assert again.rebuilt
    assert again.fingerprint == run.fingerprint
    assert verify(folder).ok
    assert start(folder) == again


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": PARTS | {"method": "other"}},
        {"parts": PARTS | {"model": {"digest": "xyz"}}},
    ],
)
def test_results_without_a_run_record_are_refused_by_another_run(folder, changes):
    finished(folder)
    folder.remove(RUN_FILE)
    before = folder.list()
    with pytest.raises(
        OutputError, match=r"_run.json is lost or damaged, but 3 manifest files, 3 data"
    ) as caught:
        start(folder, **changes)
    assert f"shard {A.shard_id} " in str(caught.value)
    assert folder.list() == before


def test_results_with_a_damaged_manifest_and_no_run_record_are_repaired_first(folder):
    finished(folder)
    folder.remove(RUN_FILE)
    edit_json(folder, manifest_name(B.shard_id), rows=3)
    with pytest.raises(OutputError, match=rf"{B.shard_id}.json: was changed .* `flexray repair` moves"):
        start(folder)
    said = []
    repair(folder, log=said.append)
    assert "_run.json: is missing, although 3 manifest files, 3 data files and the plan are there" in said[-1]
    assert resume(folder) == {shard_id(3)}
    assert verify(folder).ok


@pytest.mark.parametrize("read", [load_run, lambda folder: list(read_committed(folder))])
def test_who_reads_a_run_without_its_record_is_told_what_is_there(folder, read):
    finished(folder)
    folder.remove(RUN_FILE)
    with pytest.raises(
        DamageError, match=r"3 manifest files, 3 data files and the plan .* same recipe again"
    ):
        read(folder)


def test_verify_tells_a_lost_record_and_counts_the_rows_all_the_same(folder):
    finished(folder)
    folder.remove(RUN_FILE)
    report = verify(folder)
    assert report.summary_line() == "rows=12 missing=0 doubled=0 damaged=1 unaccounted=0"
    assert [finding.kind for finding in report.findings] == ["run_record_missing"]


@pytest.mark.parametrize("content", [b"", b"half", b"edited"])
@pytest.mark.parametrize("commits", [0, 2])
def test_a_damaged_run_record_is_written_again_and_kept_aside(folder, content, commits):
    run = start(folder)
    for spec in SHARDS[:commits]:
        commit(folder, run, spec)
    whole = folder.read_bytes(RUN_FILE)
    damaged = {b"": b"", b"half": whole[: len(whole) // 2], b"edited": whole.replace(b"abc", b"xyz")}[content]
    folder.write_bytes(RUN_FILE, damaged)
    again = start(folder)
    assert again.rebuilt
    assert again.fingerprint == run.fingerprint
    assert again.next_shard >= run.next_shard
    (kept,) = folder.list(QUARANTINE_FOLDER)
    assert folder.read_bytes(f"{QUARANTINE_FOLDER}/{kept}/{RUN_FILE}") == damaged
    assert len(resume(folder)) == 3 - commits
    assert verify(folder).ok


def test_a_damaged_run_record_of_another_run_stays(folder):
    finished(folder)
    folder.write_bytes(RUN_FILE, b"")
    with pytest.raises(OutputError, match=f"shard {A.shard_id} belongs to another configuration, model"):
        start(folder, parts=PARTS | {"method": "other"})
    assert folder.read_bytes(RUN_FILE) == b""
    assert QUARANTINE_FOLDER not in folder.list()


def test_data_whose_manifests_and_record_are_lost_are_not_written_over(folder):
    finished(folder)
    folder.remove(RUN_FILE)
    for shard in SHARDS:
        folder.remove(manifest_name(shard.shard_id))
    with pytest.raises(OutputError, match=r"3 data files and the plan are there. Rows without manifests"):
        start(folder, parts=PARTS | {"method": "other"})
    run = start(folder)  # the plan files are this run's: the data files are as a killed start leaves them
    assert run.next_shard == 6
    assert len(verify(folder).orphans) == 3


def test_manifests_whose_data_and_record_are_lost_are_results_of_a_run(folder):
    run = finished(folder)
    for manifest in committed_shards(folder, run).values():
        folder.remove(manifest.file)
    folder.remove(RUN_FILE)
    with pytest.raises(DamageError, match="is missing, although 3 manifest files, 0 data files and the plan"):
        load_run(folder)
    with pytest.raises(OutputError, match="3 of the 3 committed shards do not belong to the run that starts"):
        start(folder, parts=PARTS | {"method": "other"})
    with pytest.raises(DamageError, match="3 of 3 committed shards have lost their rows"):
        start(folder)


def test_a_run_without_its_record_can_be_discarded(folder):
    finished(folder)
    folder.remove(RUN_FILE)
    assert discard_run(folder)
    start(folder, parts=PARTS | {"method": "other"})
    assert verify(folder).rows == 0
