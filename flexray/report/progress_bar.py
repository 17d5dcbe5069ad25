"""Progress on a terminal: a bar that counts rows, with figures next to it; notes scroll above it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich import progress
from rich.console import Console
from rich.text import Text

from flexray.console.progress import CommittedShard, Lines, LogLine, Progress, Tracker
from flexray.console.terminal import printable


@contextlib.contextmanager
def show_progress(log: LogLine) -> Iterator[Progress]:
    """Progress of one run: a bar if standard output is a terminal, else plain lines."""
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(log)
        return
    with ProgressBar(console) as bar:
        yield bar


class ProgressBar(contextlib.AbstractContextManager["ProgressBar"]):
    """A progress bar. It is shown from `planned` to the end of the `with` block."""

    def __init__(self, console: Console):
        self._tracker = Tracker()
        self._display = progress.Progress(
            progress.BarColumn(bar_width=None),
            _Figures(self._tracker),
            console=console,
            expand=True,
            refresh_per_second=4,
            redirect_stderr=sys.stderr.isatty(),  # a log that goes to a file stays there
        )
        self._task = self._display.add_task("", total=None)

    def __exit__(self, *error: object) -> None:
        self._display.stop()

    def planned(self, *, rows: int, shards: int) -> None:
        """So much is to be done by this start."""
        self._tracker.plan(rows=rows, shards=shards)
        self._display.update(self._task, total=rows)
        self._display.start()

    def committed(self, shard: CommittedShard) -> None:
        """A shard is done."""
        self._tracker.add(shard)
        self._display.update(self._task, completed=self._tracker.rows)

    def note(self, line: str) -> None:
        """Anything else that people should know."""
        self._display.console.print(Text(printable(line)), soft_wrap=True)


class _Figures(progress.ProgressColumn):
    """The figures next to the bar."""

    def __init__(self, tracker: Tracker):
        super().__init__()
        self._tracker = tracker

    def render(self, task: progress.Task) -> Text:
        return Text(self._tracker.describe())
