import pytest

from flexray.sink import OutputFolder


@pytest.fixture
def folder(tmp_path):
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    return folder
