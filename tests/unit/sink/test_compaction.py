"""Many manifests in few files: opening an output of many shards takes few requests."""

import json
from collections import Counter
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from flexray.errors import OutputError
from flexray.sink import (
    DamageError,
    OutputFolder,
    committed_shards,
    compact,
    discard_run,
    read_committed,
    verify,
)
from flexray.sink.commit.manifests import list_manifests
from flexray.sink.records import MANIFEST_FOLDER, manifest_name
from tests.unit.sink.builders import (
    PARTS,
    SHARDS,
    A,
    B,
    C,
    Shard,
    commit,
    finished,
    planned,
    shard_id,
    start,
    table,
)


class CountingFileSystem(MemoryFileSystem):
    """A file system in memory that counts what it is asked for."""

    protocol = ("counting", "memory")
    calls: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("counting://"))

    def _open(self, path, mode="rb", **kwargs):
        self.calls[mode] += 1
        return super()._open(path, mode, **kwargs)

    def ls(self, path, detail=True, **kwargs):
        self.calls["ls"] += 1
        return super().ls(path, detail, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        self.calls["cat"] += 1
        return super().cat_file(path, start, end, **kwargs)

    def _rm(self, path):
        self.calls["rm"] += 1
        return super()._rm(path)


fsspec.register_implementation("counting", CountingFileSystem, clobber=True)


@pytest.fixture
def counted(tmp_path):
    """A folder whose requests are counted."""
    folder = OutputFolder(f"counting://{tmp_path.name}/out")
    folder.prepare()
    yield folder
    fsspec.filesystem("counting").rm(f"/{tmp_path.name}", recursive=True)


def imitate(folder, run, count, start=0):
    """As many committed shards; only the manifests, whose files nobody opens here."""
    model = commit(folder, run, A)
    folder.remove(manifest_name(A.shard_id))
    for i in range(start, start + count):
        name = shard_id(i)
        manifest = model.model_copy(
            update={"shard_id": name, "file": f"data/{name}-{'0' * 32}.parquet"}
        ).sealed()
        folder.write_bytes(manifest_name(name), manifest.to_bytes())


def test_opening_5000_shards_takes_fewer_than_100_requests(counted):
    run = start(counted, [f"qa/test/{i}" for i in range(5001)], shard_rows=1)
    imitate(counted, run, 5000)
    before = committed_shards(counted, run)
    assert compact(counted, run.fingerprint) == 5000
    CountingFileSystem.calls.clear()
    assert committed_shards(counted, run) == before
    assert 0 < CountingFileSystem.calls.total() < 100
    CountingFileSystem.calls.clear()
    commit(counted, run, Shard(shard_id(5000), ("qa/test/5000",)))
    assert CountingFileSystem.calls.total() < 20  # and a commit does not look at all shards


def test_few_manifests_are_left_as_they_are(folder):
    run = finished(folder)
    assert compact(folder, run.fingerprint) == 0
    assert compact(folder, run.fingerprint, max_singles=3) == 0
    assert len(list_manifests(folder).singles) == 3


def test_compacted_shards_are_read_and_verified_as_before(folder):
    run = finished(folder)
    before = committed_shards(folder, run)
    assert compact(folder, run.fingerprint, max_singles=2) == 3
    listing = list_manifests(folder)
    assert (len(listing.singles), len(listing.compacts)) == (0, 1)
    assert committed_shards(folder, run) == before
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]
    report = verify(folder)
    assert report.ok
    assert report.findings == ()


def test_each_line_of_a_compact_file_is_a_sealed_manifest(folder):
    run = finished(folder)
    manifests = committed_shards(folder, run)
    compact(folder, run.fingerprint, max_singles=0)
    (name,) = list_manifests(folder).compacts
    lines = folder.read_bytes(name).splitlines()
    assert [json.loads(line) for line in lines] == [m.model_dump(mode="json") for m in manifests.values()]


def test_the_number_of_compact_files_stays_small(folder):
    run = start(folder, shard_rows=1)
    for number, spec in enumerate(planned(folder, run), 1):
        commit(folder, run, spec)
        compact(folder, run.fingerprint, max_singles=0, max_files=3)
        assert 1 <= len(list_manifests(folder).compacts) <= 3
        assert len(committed_shards(folder, run)) == number
    assert verify(folder).ok


def test_compacting_again_has_nothing_to_do(folder):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=0)
    assert compact(folder, run.fingerprint, max_singles=0) == 0
    assert compact(folder, run.fingerprint, max_singles=0, max_files=0) == 1  # into itself
    assert list(committed_shards(folder, run)) == [spec.shard_id for spec in SHARDS]


@pytest.mark.parametrize("max_files", [0, 10])
@pytest.mark.parametrize(
    ("point", "name", "skip"),
    [
        ("sink.write.before", "_manifests/compact-*", 0),
        ("sink.write.during", "_manifests/compact-*", 0),
        ("sink.write.after", "_manifests/compact-*", 0),
        ("sink.compact.remove", "*", 0),
        ("sink.compact.remove", "*", 1),
        ("sink.compact.remove", "*", 2),
    ],
)
def test_a_crash_at_any_step_changes_nothing_that_is_seen(folder, monkeypatch, point, name, skip, max_files):
    run = start(folder)
    commit(folder, run, A)
    compact(folder, run.fingerprint, max_singles=0)
    commit(folder, run, B)
    commit(folder, run, C)
    before = committed_shards(folder, run)
    fault = {"point": point, "match": {"name": name}, "action": "raise:OSError", "times": 9, "skip": skip}
    monkeypatch.setenv("FLEXRAY_FAULTS", json.dumps([fault | {"ledger": folder.where("../ledger")}]))
    if skip == 2 and max_files == 10:
        compact(folder, run.fingerprint, max_singles=0, max_files=max_files)  # it removes two files only
    else:
        with pytest.raises(OutputError, match=r"cannot be compacted: .*injected"):
            compact(folder, run.fingerprint, max_singles=0, max_files=max_files)
    monkeypatch.delenv("FLEXRAY_FAULTS")
    assert committed_shards(folder, run) == before
    assert verify(folder).ok
    compact(folder, run.fingerprint, max_singles=0, max_files=max_files)
    listing = list_manifests(folder)
    assert listing.singles == ()
    assert committed_shards(folder, run) == before
    assert verify(folder).ok


def test_a_manifest_in_both_forms_is_one_shard(folder):
    run = finished(folder)
    single = folder.read_bytes(manifest_name(B.shard_id))
    compact(folder, run.fingerprint, max_singles=0)
    folder.write_bytes(manifest_name(B.shard_id), single)
    assert verify(folder).summary_line() == "rows=12 missing=0 doubled=0 damaged=0 unaccounted=0"
    compact(folder, run.fingerprint, max_singles=0, max_files=0)
    assert len(list_manifests(folder).compacts) == 1
    assert verify(folder).ok


def test_damaged_manifests_are_not_compacted(folder):
    run = finished(folder)
    folder.write_bytes(manifest_name(B.shard_id), b"{")
    assert compact(folder, run.fingerprint, max_singles=0) == 2
    assert list_manifests(folder).singles == (manifest_name(B.shard_id),)
    with pytest.raises(DamageError, match=rf"{B.shard_id}\.json"):
        committed_shards(folder, run)


@pytest.mark.parametrize("change", [lambda data: data[:-30], lambda data: data[data.index(b"\n") + 1 :]])
def test_a_changed_compact_file_is_an_error_not_fewer_shards(folder, change):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=0)
    (name,) = list_manifests(folder).compacts
    folder.write_bytes(name, change(folder.read_bytes(name)))
    with pytest.raises(DamageError, match="was changed after it was written"):
        committed_shards(folder, run)


def test_a_compact_file_of_another_run_is_an_error(folder):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=0)
    with pytest.raises(DamageError, match=r"has 3 of 3 records .* \(line 1 belongs to another run"):
        committed_shards(folder, run.model_copy(update={"fingerprint": "0" * 64}))


def test_a_changed_compact_file_is_damaged_whatever_run_its_records_are_of(folder):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=0)
    (name,) = list_manifests(folder).compacts
    folder.write_bytes(name, folder.read_bytes(name)[:-1])
    with pytest.raises(DamageError, match=r"was changed after it was written.*, and has 3 of 3") as caught:
        committed_shards(folder, run.model_copy(update={"fingerprint": "0" * 64}))
    assert caught.value.kind == "manifest_damaged"


def test_a_discarded_run_leaves_no_compact_file(folder):
    run = finished(folder)
    compact(folder, run.fingerprint, max_singles=0)
    assert discard_run(folder)
    assert folder.list(MANIFEST_FOLDER) == []
    start(folder, parts=PARTS | {"method": "other"})


def test_a_run_is_compacted_on_s3(s3, bucket):
    folder = OutputFolder(f"s3://{bucket}/out")
    folder.prepare()
    run = finished(folder)
    before = committed_shards(folder, run)
    assert compact(folder, run.fingerprint, max_singles=0) == 3
    assert committed_shards(folder, run) == before
    assert verify(folder).ok
