"""The plots: pictures of their own, the same for the same numbers, whose text is only text."""

from __future__ import annotations

import base64
import doctest
import math
import warnings
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from flexray.evaluation import ScoreCounts
from flexray.report import formatting
from flexray.report.page.plots import accuracies, histogram, throughput, time_line
from flexray.report.work import Shard, WorkSummary
from tests.unit.report.page_runs import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


def shard(committed: float, seconds: float, rows: int = 10) -> Shard:
    return Shard(shard_id="a", work=WorkSummary(rows=rows, seconds=seconds), committed=committed)


def drawn(plot) -> ElementTree.Element:
    head, _, data = plot.url.partition(",")
    assert head == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(data))


def texts(plot) -> list[str]:
    return [element.text for element in drawn(plot).iter(f"{SVG}text")]


def test_the_examples_in_docstrings_hold():
    assert doctest.testmod(formatting).failed == 0


@pytest.mark.parametrize(
    "values", [Counter([3]), Counter([0.5, 7.25]), Counter(range(500)), {10: 500, 11: 400, 9_000: 2}]
)
def test_a_histogram_is_a_picture_with_its_quantiles_in_words(values):
    plot = histogram("Length", values, "tokens", "rows")
    assert plot == histogram("Length", dict(values), "tokens", "rows")
    assert "rows" in texts(plot)
    assert plot.summary.endswith(f"highest {max(values):,.4g}")
    assert any("or more" in text for text in texts(plot)) == (len(values) > 2)


def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed():
    plot = histogram("Length", Counter(range(1, 101)), "tokens", "rows")
    assert plot.summary == "median 50 · 95th percentile 95 · highest 100"


@pytest.mark.parametrize("values", [range(60), range(7, 400), [5, 6, 7, 40]])
def test_equal_counts_of_whole_numbers_are_bars_of_equal_height(values, monkeypatch):
    heights = []

    def hist(axes, shown, *, bins, weights, color):
        heights.extend(np.histogram(shown, bins, weights=weights)[0])

    monkeypatch.setattr(Axes, "hist", hist)
    histogram("Length", dict.fromkeys(values, 100), "tokens", "rows")
    inner = {height for height in heights[:-2] if height}  # above the 99th percentile the last bar has more
    assert len(inner) == 1
    assert sum(heights) == 100 * len(values)


def test_nothing_counted_is_no_plot():
    assert histogram("Length", {}, "tokens", "rows") is None
    assert throughput([], 0, 100) is None
    assert accuracies({"m": ScoreCounts(rows=3)}) is None


@given(st.lists(st.tuples(st.floats(0, 5_000), st.floats(0, 900), st.integers(0, 500)), min_size=1))
@settings(max_examples=30)
def test_throughput_adds_up_to_the_rows(commits):
    shards = [shard(1_000 + at, seconds, rows) for at, seconds, rows in commits]
    edges, rates = time_line(shards, min(s.span[0] for s in shards) - 1, max(s.committed for s in shards))
    counted = math.fsum(rates * (edges[1:] - edges[:-1]))
    assert counted == pytest.approx(sum(s.work.rows for s in shards), rel=1e-6, abs=1e-6)


def test_a_pause_is_seen_as_a_gap():
    edges, rates = time_line([shard(100, 100), shard(1_000, 100)], 0, 1_000)
    assert all(edge < 110 or edge > 880 for edge, rate in zip(edges, rates, strict=False) if rate)
    assert "minutes since the start" in texts(throughput([shard(100, 100), shard(1_000, 100)], 0, 1_000))


def test_names_are_text_whatever_they_hold():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = ScoreCounts(rows=10, scored=10, correct=5)
        plot = accuracies({HOSTILE[:40]: counts, "$x^ 日本": counts})
    assert {element.tag for element in drawn(plot).iter()}.isdisjoint({f"{SVG}image", f"{SVG}script"})
    assert HOSTILE[:40] in texts(plot)
    assert "$x^ 日本" in texts(plot)
