"""One listing tells whether the data files of committed shards are there, whole."""

import pytest

from flexray.sink import DamageError, OutputFolder, committed_shards, compact, repair, verify, whole_shards
from tests.unit.sink.builders import A, B, C, commit, commit_all, finished, start
from tests.unit.sink.damages import quiet, resume


@pytest.fixture(params=["local", "s3"])
def any_folder(request):
    if request.param == "local":
        return request.getfixturevalue("folder")
    request.getfixturevalue("s3")
    return OutputFolder(f"s3://{request.getfixturevalue('bucket')}/out")


@pytest.mark.parametrize("compacted", [False, True])
def test_whole_shards_are_those_that_are_committed(any_folder, compacted):
    run = finished(any_folder)
    if compacted:
        compact(any_folder, run.fingerprint, max_singles=0)
    assert whole_shards(any_folder, run) == committed_shards(any_folder, run)


def test_lost_and_shortened_data_files_are_named_and_mended_by_a_repair_and_a_resume(any_folder):
    run = finished(any_folder)
    manifests = committed_shards(any_folder, run)
    any_folder.remove(manifests[A.shard_id].file)
    any_folder.write_bytes(manifests[C.shard_id].file, b"")
    with pytest.raises(DamageError) as caught:
        whole_shards(any_folder, run)
    message = str(caught.value)
    assert "2 of 3 committed shards have lost their rows" in message
    assert f"{manifests[A.shard_id].file} is missing" in message
    assert (
        f"{manifests[C.shard_id].file} has 0 bytes, but {manifests[C.shard_id].bytes:,} were written"
        in message
    )
    assert f"`flexray repair {any_folder}`" in message
    repair(any_folder, log=quiet)
    assert resume(any_folder) == {A.shard_id, C.shard_id}
    assert verify(any_folder).ok


def test_a_lost_file_is_seen_while_there_are_shards_to_do(folder):
    run = start(folder)
    folder.remove(commit(folder, run, A).file)
    with pytest.raises(DamageError, match="1 of 1 committed shards have lost their rows"):
        resume(folder)


def test_of_many_lost_files_the_first_are_named(folder):
    run = start(folder, [f"qa/test/{i}" for i in range(8)], shard_rows=1)
    commit_all(folder, run)
    files = [manifest.file for manifest in whole_shards(folder, run).values()]
    for file in files:
        folder.remove(file)
    with pytest.raises(DamageError, match="8 of 8 committed shards") as caught:
        whole_shards(folder, run)
    assert [file in str(caught.value) for file in files] == [True] * 3 + [False] * 5


def test_a_folder_in_the_place_of_a_data_file_is_no_data_file(folder, tmp_path):
    run = finished(folder)
    file = committed_shards(folder, run)[B.shard_id].file
    folder.remove(file)
    (tmp_path / "out" / file).mkdir()
    with pytest.raises(DamageError, match=f"{file} is missing"):
        whole_shards(folder, run)
    repair(folder, log=quiet)
    assert resume(folder) == {B.shard_id}
    assert verify(folder).foreign == (file,)


def test_the_data_of_a_revision_that_was_replaced_are_not_missed(folder):
    run = finished(folder)
    folder.write_bytes(f"data/{B.shard_id}-{'0' * 32}.parquet", b"an orphan")
    assert len(whole_shards(folder, run)) == 3
