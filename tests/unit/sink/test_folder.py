import os
import pickle
import stat

import pytest

from flexray.errors import OutputError
from flexray.sink import OutputFolder


def test_prepare_creates_the_folder_and_leaves_nothing_in_it(tmp_path):
    folder = OutputFolder(str(tmp_path / "deep" / "out"))
    folder.prepare()
    assert (tmp_path / "deep" / "out").is_dir()
    assert folder.list() == []


def test_prepare_leaves_what_is_there(folder):
    folder.write_bytes("_run.json", b"{}")
    folder.prepare()
    assert folder.list() == ["_run.json"]


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=rf"{tmp_path}/out: .* cannot be created or written: .*exists"):
        OutputFolder(str(tmp_path / "out")).prepare()


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(
        OutputError, match=rf"{tmp_path}/file/out: .* cannot be created or written: Not a dir"
    ):
        OutputFolder(str(tmp_path / "file" / "out")).prepare()


def test_a_place_that_takes_no_files_is_refused():
    with pytest.raises(OutputError, match=r"/proc/flexray-out: .* cannot be created or written"):
        OutputFolder("/proc/flexray-out").prepare()


def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(OutputError, match=r"/proc/self: .* cannot be created or written"):
        OutputFolder("/proc/self").prepare()


@pytest.mark.parametrize("url", ["", "nosuchstore://bucket/out"])
def test_an_unusable_url_is_refused(url):
    with pytest.raises(OutputError, match="output folder"):
        OutputFolder(url)


def test_an_error_shows_no_credentials():
    with pytest.raises(OutputError) as caught:
        OutputFolder("nosuchstore://key:secret@bucket/out")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_files_are_written_read_listed_and_removed(kind, tmp_path):
    url = {"path": f"{tmp_path}/o", "file": f"file://{tmp_path}/o", "memory": f"memory://{tmp_path.name}/o"}[
        kind
    ]
    folder = OutputFolder(url)
    folder.prepare()
    assert folder.list("data") == []
    assert folder.read_if_there("data/b") is None
    folder.write_bytes("data/b", b"old")
    folder.write_bytes("data/b", b"new")
    folder.write_bytes("data/a", b"a")
    assert folder.read_bytes("data/b") == b"new"
    assert folder.list("data") == ["a", "b"]
    assert folder.list() == ["data"]
    folder.remove("data/a")
    assert folder.list("data") == ["b"]


def test_a_failed_local_write_leaves_the_old_file_and_no_other(folder, tmp_path, monkeypatch):
    folder.write_bytes("a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write_bytes("a", b"new")
    assert folder.list() == ["a"]
    assert folder.read_bytes("a") == b"old"


def test_a_reader_never_sees_half_a_local_file(folder, monkeypatch):
    seen = []
    replace = os.replace

    def look(source, target):
        seen.append(folder.read_if_there("a"))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    folder.write_bytes("a", b"whole")
    assert seen == [None]
    assert folder.read_bytes("a") == b"whole"


def test_a_local_file_is_whole_on_the_disk_before_it_gets_its_name_and_then_the_name_is(folder, monkeypatch):
    synced = []

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append("folder" if is_folder else (os.fstat(descriptor).st_size, folder.read_if_there("a")))

    monkeypatch.setattr(os, "fsync", fsync)
    folder.write_bytes("a", b"whole")
    assert synced == [(5, None), "folder"]


def test_listing_a_file_is_an_error(folder):
    folder.write_bytes("data", b"a file")
    with pytest.raises(NotADirectoryError):
        folder.list("data")


def test_a_relative_path_is_the_same_folder_after_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = OutputFolder("out")
    folder.write_bytes("a", b"a")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(folder)).read_bytes("a") == b"a"
