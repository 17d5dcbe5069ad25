"""Fixtures of the tests of the page."""

import pytest

from flexray.report.page import write_page
from flexray.sink import OutputFolder
from tests.unit.report.page_runs import many_shards
from tests.unit.sink.conftest import folder

__all__ = ["folder", "many_page"]


@pytest.fixture(scope="session")
def many_page(tmp_path_factory):
    """The page of a run of 1,000 shards: do not change it."""
    place = tmp_path_factory.mktemp("many")
    folder = OutputFolder(str(place / "out"))
    folder.prepare()
    many_shards(folder)
    write_page(folder.url, place / "report.html")
    return place / "report.html"
