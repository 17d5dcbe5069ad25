import pytest

from tests.unit.doctor.conftest import config_of  # noqa: F401  a fixture


@pytest.fixture
def files(tmp_path):
    """All that lies below the test's folder, with its bytes and times."""

    def look():
        found = {}
        for path in sorted(tmp_path.rglob("*")):
            status = path.stat()
            found[str(path)] = (status.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        return found

    return look
