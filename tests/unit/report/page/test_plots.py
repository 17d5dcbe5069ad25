"""The plots' numbers: bars add up to what was counted, and axes end in round numbers above it."""

from __future__ import annotations

import doctest
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.report import formatting
from flexray.report.page import plots
from flexray.report.page.plots import difference_axis, histogram, nice_step, share_axis, throughput
from flexray.report.work import Shard, WorkSummary


def shard(committed: float, seconds: float, rows: int = 10) -> Shard:
    return Shard(shard_id="a", work=WorkSummary(rows=rows, seconds=seconds), committed=committed)


def shown(plot: plots.Plot, thing: str = "rows") -> int:
    """How many the bars' texts say there are."""
    return sum(
        int(bar.text.partition(": ")[2].partition(f" {thing}")[0].replace(",", "")) for bar in plot.bars
    )


@pytest.mark.parametrize("module", [plots, formatting], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200))
def test_a_histogram_of_integers_loses_nothing_and_stays_in_its_frame(values):
    plot = histogram(Counter(values), unit="tokens")
    assert plot is not None
    assert shown(plot) == len(values)
    assert all(bar.left >= 0 and bar.left + bar.width <= 100.001 for bar in plot.bars)
    assert all(0 < bar.height <= 100.001 for bar in plot.bars)
    assert all(0 <= tick.at <= 100.001 for tick in (*plot.x_ticks, *plot.y_ticks))
    assert len(plot.bars) <= 45


@given(st.lists(st.integers(0, 10**9).map(lambda ms: ms / 1_000), min_size=1, max_size=100))
def test_a_histogram_of_seconds_loses_nothing(values):
    plot = histogram(Counter(values), unit="s", things="shards", whole=False)
    assert plot is not None
    assert shown(plot, "shards") == len(values)


def test_a_bar_says_which_values_it_counts():
    plot = histogram({3: 2, 4: 1}, unit="tokens")
    assert [bar.text for bar in plot.bars] == ["3 tokens: 2 rows (66.7%)", "4 tokens: 1 rows (33.3%)"]
    assert plot.summary == "median 3 · 95th percentile 4 · highest 4"


def test_one_value_does_not_fill_the_plot():
    (bar,) = histogram({50: 7}, unit="tokens").bars
    assert bar.width < 15
    assert 0 < bar.left < 85


def test_a_few_values_far_above_the_others_are_one_bar():
    plot = histogram({10: 500, 11: 400, 12: 300, 9_000: 2}, unit="tokens")
    assert plot.bars[-1].text.endswith("tokens or more: 2 rows (0.2%)")
    assert len(plot.bars) == 4
    assert plot.summary.endswith("highest 9,000")


def test_nothing_counted_is_no_plot():
    assert histogram({}, unit="tokens") is None
    assert throughput([], 0, 100) is None


@given(st.lists(st.tuples(st.floats(0, 5_000), st.floats(0, 900), st.integers(0, 500)), min_size=1))
def test_throughput_adds_up_to_the_rows(commits):
    shards = [shard(1_000 + at, seconds, rows) for at, seconds, rows in commits]
    start = min(s.span[0] for s in shards) - 1
    end = max(s.committed for s in shards)
    plot = throughput(shards, start, end)
    top = float(plot.y_ticks[-1].text.replace(",", "").replace("k", "e3"))
    assert plot.y_ticks[-1].at == pytest.approx(0)
    seconds = max(end - start, 1)
    counted = sum(bar.height / 100 * top * bar.width / 100 * seconds for bar in plot.bars)
    assert counted == pytest.approx(sum(s.work.rows for s in shards), rel=1e-6, abs=1e-6)


def test_a_pause_is_seen_as_a_gap():
    plot = throughput([shard(100, 100), shard(1_000, 100)], 0, 1_000)
    assert all(bar.left < 11 or bar.left > 88 for bar in plot.bars)


def test_an_axis_of_shares_shows_all_of_them_between_tenths():
    axis = share_axis([0.62, 0.68])
    assert (axis.low, axis.high) == (0.6, 0.7)
    assert share_axis([1.0, 1.0]).high == 1
    assert share_axis([]).low == 0


@given(st.lists(st.integers(-1_000_000, 1_000_000).map(lambda n: n / 1_000_000)))
def test_an_axis_of_differences_has_0_in_its_middle_and_shows_all_of_them(values):
    axis = difference_axis(values)
    assert axis.at(0) == pytest.approx(50)
    assert all(-0.001 <= axis.at(value) <= 100.001 for value in values)


@given(st.floats(1e-6, 1e9), st.integers(1, 60))
def test_a_step_cuts_a_span_into_no_more_parts_than_asked(span, parts):
    assert span / nice_step(span, parts) <= parts * 1.001
