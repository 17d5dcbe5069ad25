"""A shard that kills its process comes again; the tracker finds the rows that do it."""

import pytest

from flexray.pipeline.crash_tracker import MAX_CRASHES, CrashTracker


def work(tracker, num_rows, deadly, limit=200):
    """Processes take the shard up until one gets through; returns the rows given up and the crashes."""
    for crashes in range(limit):
        attempt = tracker.attempt("s", num_rows)
        assert attempt.crashes == crashes
        covered = [row for rows in attempt.ranges for row in range(*rows)]
        assert sorted([*covered, *attempt.given_up]) == list(range(num_rows))
        for rows in attempt.ranges:
            tracker.begin({"s": rows})
            if any(deadly(row) for row in range(*rows)):
                break
        else:
            tracker.end(["s"])
            return attempt.given_up, crashes
    raise AssertionError("the shard is repeated for ever")


def test_a_shard_that_crashes_no_process_is_answered_in_one_range():
    attempt = CrashTracker().attempt("s", 512)
    assert attempt.ranges == [(0, 512)]
    assert not attempt.given_up


@pytest.mark.parametrize("bad", [0, 7, 300, 511])
def test_one_deadly_row_is_found_in_a_few_crashes_and_the_others_are_answered(bad):
    given_up, crashes = work(CrashTracker(), 512, lambda row: row == bad)
    assert given_up == {bad}
    assert crashes == 5  # in 512, 64, 8, 1 and once more


def test_several_deadly_rows_are_found():
    given_up, crashes = work(CrashTracker(), 64, lambda row: row in (3, 4, 60))
    assert given_up == {3, 4, 60}
    assert crashes <= MAX_CRASHES


def test_a_shard_of_deadly_rows_only_is_given_up_after_a_bounded_number_of_crashes():
    given_up, crashes = work(CrashTracker(), 512, lambda row: True)
    assert given_up == set(range(512))
    assert crashes == MAX_CRASHES


def test_a_process_that_dies_for_another_reason_costs_no_row():
    tracker = CrashTracker()
    tracker.attempt("s", 16)
    tracker.begin({"s": (0, 16)})
    attempt = tracker.attempt("s", 16)
    assert attempt.ranges == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16)]
    assert not attempt.given_up


def test_shards_are_told_apart_and_an_answered_one_is_forgotten():
    tracker = CrashTracker()
    tracker.begin({"a": (0, 4)})
    tracker.end(["a"])
    tracker.begin({"b": (0, 4)})
    assert tracker.attempt("a", 4).crashes == 0
    assert tracker.attempt("b", 4).crashes == 1
