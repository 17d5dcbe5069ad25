"""Plain lines of progress: few enough, with all that was done in them, and a time left to be believed."""

import pytest

from flexray.console.progress import LINE_SECONDS, WINDOW_SECONDS, CommittedShard, Lines, Tracker


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tracker(clock):
    """Of 1,000 rows, which have been waited for since 60 seconds ago."""
    tracker = Tracker(clock)
    tracker.plan(rows=1000, shards=100)
    clock.now += 60
    return tracker


def shard(number=0, **changes):
    known = {"shard_id": f"qa-{number:06d}", "rows": 10, "errors": 0, "fallbacks": 0, "seconds": 2.0}
    return CommittedShard(**(known | changes))


def commit(tracker, clock, *, bursts, of, apart):
    """Shards of ten rows come in bursts, within a tenth of a second each; the clock ends with the last."""
    for burst in range(bursts):
        clock.now += apart if burst else 0
        for _ in range(of):
            tracker.add(shard())
            clock.now += 0.1 / of
    clock.now -= 0.1 / of


def test_before_the_second_shard_no_rate_is_told(tracker, clock):
    assert (tracker.rate, tracker.remaining) == (None, None)
    tracker.add(shard())
    assert (tracker.rate, tracker.remaining) == (None, None)
    assert tracker.describe() == "10/1,000 rows, 1 min 00 s"


def test_the_time_left_does_not_count_loading_and_compiling(tracker, clock):
    commit(tracker, clock, bursts=5, of=1, apart=2.0)
    assert tracker.rate == pytest.approx(10 / 2, rel=0.1)
    assert tracker.remaining == pytest.approx(950 / 5, rel=0.1)


def test_shards_that_come_in_bursts_do_not_look_fast(tracker, clock):
    commit(tracker, clock, bursts=1, of=4, apart=0)
    assert tracker.rate is None
    commit(tracker, clock, bursts=1, of=1, apart=0)
    clock.now += 10
    commit(tracker, clock, bursts=3, of=4, apart=10)
    assert tracker.rate == pytest.approx(40 / 10, rel=0.05)


def test_the_first_shard_of_a_burst_does_not_make_the_run_look_slow(tracker, clock):
    commit(tracker, clock, bursts=1, of=9, apart=0)
    clock.now += 20
    tracker.add(shard())
    assert tracker.rate == pytest.approx(90 / 20, rel=0.05)
    for _ in range(8):
        tracker.add(shard())
    assert tracker.rate == pytest.approx(90 / 20, rel=0.05)


def test_a_rate_that_changes_is_followed(tracker, clock):
    commit(tracker, clock, bursts=20, of=1, apart=1.0)
    assert tracker.rate == pytest.approx(10, rel=0.1)
    commit(tracker, clock, bursts=50, of=1, apart=5.0)
    assert tracker.rate == pytest.approx(2, rel=0.1)


def test_a_run_of_long_calls_looks_at_the_last_one(tracker, clock):
    commit(tracker, clock, bursts=4, of=4, apart=5 * WINDOW_SECONDS)
    assert tracker.rate == pytest.approx(40 / (5 * WINDOW_SECONDS), rel=0.01)


def test_the_time_left_grows_while_nothing_comes(tracker, clock):
    commit(tracker, clock, bursts=5, of=1, apart=2.0)
    before = tracker.remaining
    clock.now += 1.0
    assert tracker.remaining == before  # not overdue yet
    clock.now += 600
    assert tracker.remaining > 50 * before


def test_nothing_is_left_at_the_end(tracker, clock):
    tracker.plan(rows=50, shards=5)
    commit(tracker, clock, bursts=5, of=1, apart=2.0)
    assert tracker.remaining == 0
    assert tracker.describe() == "50/50 rows, 1 min 08 s, 4.8 rows/s"


def said_of(clock, shards, apart, **changes):
    lines = []
    progress = Lines(lines.append, clock)
    progress.planned(rows=10 * shards, shards=shards)
    for number in range(shards):
        clock.now += apart
        progress.committed(shard(number, **changes))
    return lines


def test_each_of_a_few_shards_has_a_line(clock):
    assert said_of(clock, 3, 2.0) == [
        "  qa-000000: 10 rows, 0 errors, 2.0 s [10/30 rows, 2.0 s]",
        "  qa-000001: 10 rows, 0 errors, 2.0 s [20/30 rows, 4.0 s, 5.0 rows/s, 2.0 s left]",
        "  qa-000002: 10 rows, 0 errors, 2.0 s [30/30 rows, 6.0 s, 5.0 rows/s]",
    ]


def test_thousands_of_shards_have_a_line_every_few_seconds_and_lose_no_count(clock):
    lines = said_of(clock, 4001, 1 / 16, errors=1, fallbacks=2)
    assert len(lines) == pytest.approx(4001 / 16 / LINE_SECONDS, abs=2)
    assert lines[0].startswith(
        "  80 shards: 800 rows, 80 errors, 160 fallbacks, 160.0 s [800/40,010 rows, 80 errors, 160 "
    )
    assert "[40,010/40,010 rows" in lines[-1]
    told = [int(line.split()[0]) for line in lines if " shards: " in line]
    assert sum(told) + len(lines) - len(told) == 4001


def test_a_note_is_said_as_it_is():
    lines = []
    Lines(lines.append).note("nothing to do")
    assert lines == ["nothing to do"]
