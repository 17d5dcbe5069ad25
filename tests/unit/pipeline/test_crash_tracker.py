"""A shard that kills its process comes again; the ledger finds the rows to blame."""

import pytest

from flexray.pipeline.crash_tracker import MAX_DEATHS, CrashTracker


def work(tracker, num_rows, deadly, limit=200):
    """Processes take the shard up until one gets through; returns the rows given up and the deaths."""
    for crashes in range(limit):
        attempt = tracker.attempt("s", num_rows)
        assert attempt.crashes == crashes
        covered = [row for piece in attempt.pieces for row in range(*piece)]
        assert sorted([*covered, *attempt.blamed]) == list(range(num_rows))
        for piece in attempt.pieces:
            tracker.begin({"s": piece})
            if any(deadly(row) for row in range(*piece)):
                break
        else:
            tracker.end(["s"])
            return attempt.blamed, crashes
    raise AssertionError("the shard is repeated for ever")


def test_a_shard_that_kills_nobody_is_answered_in_one_piece():
    attempt = CrashTracker().attempt("s", 512)
    assert attempt.pieces == [(0, 512)]
    assert not attempt.blamed


@pytest.mark.parametrize("bad", [0, 7, 300, 511])
def test_one_deadly_row_is_found_in_a_few_deaths_and_the_others_are_answered(bad):
    blamed, crashes = work(CrashTracker(), 512, lambda row: row == bad)
    assert blamed == {bad}
    assert crashes == 5  # in 512, 64, 8, 1 and once more


def test_several_deadly_rows_are_found():
    blamed, crashes = work(CrashTracker(), 64, lambda row: row in (3, 4, 60))
    assert blamed == {3, 4, 60}
    assert crashes <= MAX_DEATHS


def test_a_shard_of_deadly_rows_only_is_given_up_after_a_bounded_number_of_deaths():
    blamed, crashes = work(CrashTracker(), 512, lambda row: True)
    assert blamed == set(range(512))
    assert crashes == MAX_DEATHS


def test_a_process_that_dies_for_another_reason_costs_no_row():
    tracker = CrashTracker()
    tracker.attempt("s", 16)
    tracker.begin({"s": (0, 16)})
    attempt = tracker.attempt("s", 16)
    assert attempt.pieces == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16)]
    assert not attempt.blamed


def test_shards_are_told_apart_and_an_answered_one_is_forgotten():
    tracker = CrashTracker()
    tracker.begin({"a": (0, 4)})
    tracker.end(["a"])
    tracker.begin({"b": (0, 4)})
    assert tracker.attempt("a", 4).crashes == 0
    assert tracker.attempt("b", 4).crashes == 1
