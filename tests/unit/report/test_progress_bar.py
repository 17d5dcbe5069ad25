"""The bar of progress on a terminal, and lines where there is none."""

import io
import re

import pytest
from rich.console import Console

from flexray.console.progress import CommittedShard, Lines
from flexray.report.progress_bar import ProgressBar, show_progress

SHARD = CommittedShard(shard_id="qa-0", rows=10, errors=0, fallbacks=0, seconds=1.0)


@pytest.fixture
def terminal():
    """A console that writes what a terminal would get."""
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def shown(terminal):
    """The last state of the line with the bar."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())
    return [part for part in re.split(r"[\r\n]+", text) if "rows" in part][-1]


def test_the_bar_tells_rows_errors_and_fallbacks(terminal):
    with ProgressBar(terminal) as bar:
        bar.planned(rows=40, shards=4)
        bar.committed(SHARD)
        bar.committed(CommittedShard(shard_id="qa-1", rows=10, errors=2, fallbacks=3, seconds=1.0))
    assert re.search(r"━+.* 20/40 rows, 2 errors, 3 fallbacks, \d+\.\d s", shown(terminal))


def test_a_note_stands_above_the_bar_and_controls_nothing(terminal):
    with ProgressBar(terminal) as bar:
        bar.planned(rows=40, shards=4)
        bar.note("took over [red]the lock\x1b[2J")
    assert "took over [red]the lock\\x1b[2J\n" in terminal.file.getvalue()
    assert "\x1b[2J" not in terminal.file.getvalue()


def test_a_run_with_nothing_to_do_shows_no_bar(terminal):
    with ProgressBar(terminal) as bar:
        bar.note("everything is committed")
    assert terminal.file.getvalue() == "everything is committed\n"


def test_an_error_leaves_the_terminal_in_order(terminal):
    def fail():
        with ProgressBar(terminal) as bar:
            bar.planned(rows=40, shards=4)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    shows, hides = (terminal.file.getvalue().count(code) for code in ("\x1b[?25h", "\x1b[?25l"))
    assert shows == hides == 1  # the cursor


def test_without_a_terminal_progress_is_plain_lines(capsys):
    said = []
    with show_progress(said.append) as progress:
        assert isinstance(progress, Lines)
        progress.planned(rows=10, shards=1)
        progress.committed(SHARD)
    assert said == ["  qa-0: 10 rows, 0 errors, 1.0 s [10/10 rows, 0.0 s]"]
    assert capsys.readouterr().out == ""
