"""The summary adds up, stays short, and prints generated text as it is."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from flexray.report.summary import print_summary
from flexray.report.work import WorkSummary


def shard(**changes: Any) -> WorkSummary:
    counted = {"rows": 100, "scored": 100, "correct": 60, "seconds": 2.0, "backend_used": {"flex": 100}}
    counters = ("backend_used", "fallback_reason")
    work = {name: Counter(v) if name in counters else v for name, v in (counted | changes).items()}
    return WorkSummary(**work)


def summary(shards: list[WorkSummary], width: int = 110, **options: Any) -> str:
    out = io.StringIO()
    run = {"methods": ["attention/shared/restart"]} | options
    print_summary(shards, console=Console(file=out, width=width), **run)
    return out.getvalue()


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


def test_totals_and_speed_are_printed():
    text = summary([shard(), shard(errors=4, scored=96, correct=36)], seconds=8.0)
    assert "attention/shared/restart" in line(text, "method")
    assert line(text, "rows").split() == ["rows", "200"]
    assert line(text, "answered").split() == ["answered", "196"]
    assert line(text, "errors").split() == ["errors", "4"]
    assert "25.00 rows/s" in line(text, "speed")


def test_backends_and_fallbacks_are_those_of_all_shards():
    used = {"flex": 90, "sdpa": 8, "": 2}
    reasons = {"flex: out of memory": 8}
    text = summary([shard(), shard(errors=2, backend_used=used, fallback_reason=reasons)])
    assert "flex 190, sdpa 8, none 2" in line(text, "backend used")
    assert "fallback: 8 rows: flex: out of memory" in text


def test_of_many_shards_there_is_no_list():
    text = summary([shard(errors=i % 2) for i in range(1000)])
    assert line(text, "shards").split() == ["shards", "1,000"]
    assert len(text.splitlines()) < 12


def test_many_reasons_are_cut():
    text = summary([shard(fallback_reason={f"reason {i}": 1 for i in range(50)})])
    assert "... and 40 more reasons" in text


def test_without_wall_time_the_speed_is_one_workers():
    assert "50.00 rows/s  (100 rows in 2.0 s of work, per worker)" in summary([shard()])


def test_a_run_without_shards_is_printed():
    text = summary([])
    assert line(text, "rows").split() == ["rows", "0"]
    assert "not measured" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_reasons_are_never_markup(terminal):
    out = io.StringIO()
    bad = "[bold]x[/red] [link=http://evil]y"
    console = Console(file=out, width=200, force_terminal=terminal, color_system=None)
    shards = [shard(backend_used={bad: 100}, fallback_reason={bad: 1})]
    print_summary(shards, methods=[bad], console=console)
    assert out.getvalue().count(bad) == 3


def test_a_file_gets_plain_text():
    assert "\x1b" not in summary([shard(errors=1)])
