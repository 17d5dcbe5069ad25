import errno
import os

import pytest

from flexray.preflight.host import check_writable, existing_folder, ram_bytes


def test_the_check_that_a_folder_can_be_written_leaves_it_as_it_was(tmp_path):
    before = os.stat(tmp_path).st_mtime_ns
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert os.stat(tmp_path).st_mtime_ns == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "out")


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to("nowhere")
    for path in ("file", "file/below", "broken/below"):
        with pytest.raises(NotADirectoryError) as e:
            check_writable(tmp_path / path)
        assert e.value.errno == errno.ENOTDIR


def test_a_name_that_is_too_long_for_a_folder_to_be_is_told(tmp_path):
    with pytest.raises(OSError, match="File name too long") as e:
        check_writable(tmp_path / "none" / ("ü" * 130) / "below")
    assert e.value.errno == errno.ENAMETOOLONG
    check_writable(tmp_path / "none" / ("ü" * 127))


def test_folders_that_are_not_there_are_made_in_the_nearest_that_is(tmp_path):
    assert existing_folder(tmp_path / "a" / "b") == tmp_path
    assert ram_bytes() > 2**28
