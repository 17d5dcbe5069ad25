"""What repair moves, when, and what it leaves alone."""

import json
import os
import subprocess
import sys
import time
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from flexray.errors import OutputError
from flexray.sink import (
    HeldError,
    OutputFolder,
    committed_shards,
    compact,
    discard_run,
    read_committed,
    repair,
    verify,
)
from flexray.sink.lock.hold import is_lock
from flexray.sink.records import QUARANTINE_FOLDER, RUN_FILE, manifest_name
from tests.faulty_s3 import answer
from tests.unit.sink.builders import PLAN_FILE, SHARDS, A, B, C, edit_json, finished, shard_id, start, table
from tests.unit.sink.damages import ORPHAN, contents, flip, quiet, resume


def test_each_quarantine_says_why(folder):
    run = finished(folder)
    file = committed_shards(folder, run)[B.shard_id].file
    folder.remove(file)
    said = []
    result = repair(folder, log=said.append)
    (name,) = folder.list("_quarantine")  # the name that older releases know
    assert result.quarantine == f"{QUARANTINE_FOLDER}/{name}"
    reason = json.loads(folder.read_bytes(f"{result.quarantine}/reason.json"))
    assert [finding["kind"] for finding in reason["findings"]] == ["data_missing", "missing_rows"]
    assert result.moved == (manifest_name(B.shard_id),)
    assert said == [f"moving {manifest_name(B.shard_id)} to {result.quarantine}: is missing"]


def test_a_record_in_a_compact_file_is_moved_and_the_others_stay(folder):
    run = finished(folder)
    manifests = committed_shards(folder, run)
    compact(folder, run.fingerprint, max_singles=0)
    flip("data")(folder, manifests)
    result = repair(folder, log=quiet)
    assert len(result.moved) == 2
    kept = [folder.read_bytes(f"{result.quarantine}/{name}") for name in result.moved]
    assert manifests[B.shard_id].to_bytes() in kept
    assert committed_shards(folder, run) == {k: manifests[k] for k in (A.shard_id, C.shard_id)}


def test_a_young_orphan_stays_unless_all_are_asked_for(folder):
    finished(folder)
    folder.write_bytes(ORPHAN, b"rows")
    assert repair(folder, log=quiet).moved == ()
    assert repair(folder, all_orphans=True, log=quiet).moved == (ORPHAN,)
    assert verify(folder).orphans == ()


def test_an_orphan_of_more_than_an_hour_is_moved(folder):
    finished(folder)
    folder.write_bytes(ORPHAN, b"rows")
    then = time.time() - 3700
    os.utime(folder.where(ORPHAN), (then, then))
    result = repair(folder, log=quiet)
    assert result.moved == (ORPHAN,)
    assert folder.read_bytes(f"{result.quarantine}/{ORPHAN}") == b"rows"


class Timeless(MemoryFileSystem):
    """A store whose times do not name their zone, which is UTC."""

    protocol = "timeless"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def modified(self, path):
        return super().modified(path).replace(tzinfo=None)


def test_a_young_orphan_is_known_as_one_on_a_store_whose_times_name_no_zone():
    fsspec.register_implementation("timeless", Timeless, clobber=True)
    folder = OutputFolder("timeless://out")
    finished(folder)
    folder.write_bytes(ORPHAN, b"rows")
    assert repair(folder, dry_run=True, log=quiet).moved == ()


@pytest.mark.parametrize("point", ["sink.quarantine.kept", "sink.repair.remove"])
def test_a_repair_that_was_cut_short_is_repeated_and_loses_nothing(folder, point, monkeypatch):
    run = finished(folder)
    flip("data")(folder, committed_shards(folder, run))
    before = contents(folder)
    for after in (0, 1):
        tracker = folder.where(f"../ledger{after}")
        fault = {"point": point, "action": "raise:OSError", "skip": after, "ledger": tracker}
        monkeypatch.setenv("FLEXRAY_FAULTS", json.dumps([fault]))
        with pytest.raises(OutputError, match="cannot be repaired: injected"):
            repair(folder, all_orphans=True, log=quiet)
        assert contents(folder) >= before
        monkeypatch.delenv("FLEXRAY_FAULTS")
        repair(folder, all_orphans=True, log=quiet)
        assert contents(folder) >= before
        assert resume(folder) == {B.shard_id}
        assert verify(folder).ok
        flip("data")(folder, committed_shards(folder, run))
        before = contents(folder)


def test_a_folder_that_a_run_is_at_work_in_is_not_repaired(folder):
    run = finished(folder)
    flip("data")(folder, committed_shards(folder, run))
    code = (
        "import sys; from flexray.sink import OutputFolder, hold\n"
        "with hold(OutputFolder(sys.argv[1]), beat_seconds=0.2): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, folder.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match="another run is at work"):
            repair(folder, log=quiet)
        assert len(repair(folder, dry_run=True, log=quiet).moved) == 2  # it only looks
        assert QUARANTINE_FOLDER not in folder.list()
    finally:
        other.communicate()
    assert len(repair(folder, log=quiet).moved) == 2


def test_what_this_version_cannot_judge_is_left_alone(folder):
    run = finished(folder)
    manifest = committed_shards(folder, run)[B.shard_id].model_copy(update={"schema_version": 99}).sealed()
    folder.write_bytes(manifest_name(B.shard_id), manifest.to_bytes())
    with pytest.raises(OutputError, match="Use the version of flexray that wrote it"):
        repair(folder, all_orphans=True, log=quiet)
    assert QUARANTINE_FOLDER not in folder.list()


def test_a_file_that_the_storage_does_not_give_stops_a_repair_before_it_moves_anything(s3, bucket):
    folder = OutputFolder(f"s3://{bucket}/out")
    run = finished(folder)
    flip("data")(folder, committed_shards(folder, run))
    s3.fail("GET", f"*/data/{A.shard_id}-*", answer(403, "AccessDenied", "Access Denied"), times=None)
    with pytest.raises(OutputError, match=rf"data/{A.shard_id}-.* cannot be read .*Until then, nothing"):
        repair(folder, all_orphans=True, log=quiet)
    assert QUARANTINE_FOLDER not in folder.list()


def test_a_run_does_not_take_a_quarantine_for_foreign_files_nor_discards_it(folder):
    run = finished(folder)
    flip("data")(folder, committed_shards(folder, run))
    repair(folder, log=quiet)
    kept = folder.list(QUARANTINE_FOLDER)
    assert discard_run(folder)
    assert folder.list(QUARANTINE_FOLDER) == kept
    start(folder)


def test_a_folder_without_a_run_is_not_repaired_and_no_lock_is_left(tmp_path):
    folder = OutputFolder(str(tmp_path))
    with pytest.raises(OutputError, match="holds no run"):
        repair(folder, log=quiet)
    assert folder.list() == []


def test_a_lost_run_record_with_damaged_commits_is_repaired_first(folder):
    finished(folder)
    flip(RUN_FILE)(folder, {})
    edit_json(folder, manifest_name(B.shard_id), rows=3)
    said = []
    repair(folder, log=said.append)
    assert "a run with the same configuration writes it again" in said[-1]
    assert resume(folder) == {shard_id(3)}
    assert verify(folder).ok


def test_a_damaged_plan_is_kept_beside_the_one_that_is_written_again(folder):
    finished(folder)
    flip(PLAN_FILE)(folder, {})
    damaged = folder.read_bytes(PLAN_FILE)
    said = []
    result = repair(folder, log=said.append)
    assert folder.read_bytes(f"{result.quarantine}/{PLAN_FILE}") == damaged
    assert "`flexray repair` moves it aside. Then run again" in said[-1]
    assert resume(folder) == set()
    assert verify(folder).ok


def test_a_run_on_s3_is_repaired(s3, bucket):
    folder = OutputFolder(f"s3://{bucket}/out")
    folder.prepare()
    run = finished(folder)
    manifests = committed_shards(folder, run)
    compact(folder, run.fingerprint, max_singles=0)
    flip("data")(folder, manifests)
    folder.write_bytes(ORPHAN, b"rows")
    result = repair(folder, log=quiet)
    assert len(result.moved) == 3  # the orphan is shard b's
    assert resume(folder) == {B.shard_id}
    assert verify(folder).ok
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]


def test_the_lock_of_a_repair_is_given_back(folder):
    finished(folder)
    repair(folder, log=quiet)
    assert [name for name in folder.list() if is_lock(name)] == []
