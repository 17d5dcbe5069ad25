"""The sink on an S3 server that is well; `test_s3_faults.py` has one that is not."""

import pickle

import pytest
from s3fs import S3FileSystem

from flexray.errors import OutputError
from flexray.sink import DamageError, OutputFolder, committed_shards, read_committed, verify
from tests.unit.sink.builders import SHARDS, A, B, C, commit, edit_json, finished, start, table


@pytest.fixture
def folder(s3, bucket):
    folder = OutputFolder(f"s3://{bucket}/nightly/out")
    folder.prepare()
    return folder


def test_a_run_on_s3_is_started_committed_read_and_verified(folder):
    assert folder.list() == []
    finished(folder)
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]
    assert verify(folder).summary_line() == "rows=12 missing=0 doubled=0 damaged=0 unaccounted=0"
    assert folder.list() == ["_manifests", "_run.json", "data", "plan"]


def test_a_run_on_s3_is_resumed_by_another_process(folder):
    run = start(folder)
    commit(folder, run, A)
    other = pickle.loads(pickle.dumps(folder))
    assert start(other) == run
    assert list(committed_shards(other, run)) == [A.shard_id]
    commit(other, run, B)
    assert list(committed_shards(folder, run)) == [A.shard_id, B.shard_id]


def test_writes_of_another_client_are_seen(folder):
    run = start(folder)
    assert committed_shards(folder, run) == {}
    S3FileSystem.clear_instance_cache()
    commit(OutputFolder(folder.url), run, A)
    assert list(committed_shards(folder, run)) == [A.shard_id]


def test_a_crash_before_the_manifest_shows_nothing_on_s3(folder, monkeypatch):
    run = start(folder)
    write = OutputFolder.write_bytes

    def crash(self, name, data):
        if name.startswith("_manifests"):
            raise OSError("the node died")
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write_bytes", crash)
        with pytest.raises(OSError, match="the node died"):
            commit(folder, run, A)
    assert list(read_committed(folder)) == []
    assert len(verify(folder).orphans) == 1
    commit(folder, run, A)
    assert list(read_committed(folder)) == [table(A)]


def test_damage_on_s3_is_found(folder):
    run = finished(folder)
    manifests = committed_shards(folder, run)
    data = bytearray(folder.read_bytes(manifests[A.shard_id].file))
    data[50] ^= 1
    folder.write_bytes(manifests[A.shard_id].file, bytes(data))
    folder.remove(manifests[B.shard_id].file)
    assert verify(folder).summary_line() == "rows=4 missing=8 doubled=0 damaged=2 unaccounted=0"
    edit_json(folder, f"_manifests/{C.shard_id}.json", rows=1)
    assert verify(folder).summary_line() == "rows=0 missing=12 doubled=0 damaged=3 unaccounted=0"
    with pytest.raises(DamageError):
        list(read_committed(folder))


def test_foreign_objects_under_the_prefix_are_refused(folder):
    folder.write_bytes("thesis.tex", b"precious")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        start(folder)


def test_an_empty_object_that_stands_for_the_folder_is_no_foreign_file(folder, behind, bucket):
    behind.touch(f"{bucket}/nightly/out/")
    assert folder.list() == []
    start(folder)


def test_a_bucket_that_is_not_there_is_refused_and_not_created(s3):
    folder = OutputFolder("s3://no-such-bucket/out")
    with pytest.raises(
        OutputError, match=r"s3://no-such-bucket/out: .* cannot be created or written: .*bucket"
    ):
        folder.prepare()
    with pytest.raises(OutputError, match=r"The specified bucket does not exist .*Create the bucket"):
        verify(folder)


def test_missing_credentials_are_a_fault_of_the_output(s3, new_client, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(OutputError, match=r"cannot be created or written: .*credentials"):
        OutputFolder("s3://bucket/out").prepare()
