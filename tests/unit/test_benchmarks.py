"""What benchmarks conclude from what they have seen."""

from types import SimpleNamespace

import pytest

from benchmarks.idle import busy
from benchmarks.job_rate import calls_of, lanes_of, loss, steady


def shard(number, process, answered_at, *, first=None, rows=10, seconds=0.1):
    stats = {
        "process": process,
        "counted_in": "" if first in (None, number) else f"s{first}",
        "answered_at": answered_at,
        "seconds": seconds,
    }
    return SimpleNamespace(shard_id=f"s{number}", rows=rows, engine_stats=stats)


def calls(process, first, ends, shards=8):
    """Manifests of calls of so many shards each, of 10 rows, which end at these times."""
    numbers = [range(first + i * shards, first + (i + 1) * shards) for i in range(len(ends))]
    return [
        shard(number, process, end, first=some[0])
        for some, end in zip(numbers, ends, strict=True)
        for number in some
    ]


def test_a_job_is_as_fast_as_its_actors_between_their_first_and_last_calls():
    # the first call compiles, and the last one is not counted: 80 rows a second, and 40
    manifests = [*calls("a", 0, [30, 31, 32, 33, 99]), *calls("b", 100, [40, 42, 44, 99])]
    lanes = lanes_of(calls_of(manifests))
    assert {name: lane.rate for name, lane in lanes.items()} == {"a": 80, "b": 40}
    found = steady(lanes, 2)
    assert (found.rows_per_second, found.seconds, found.start, found.end) == (120, 3, 40, 33)
    assert found.busy == pytest.approx((0.8 + 0.4) / 2)


def test_actors_that_had_too_little_to_do_are_no_measure():
    manifests = [*calls("a", 0, [30, 31, 32, 33]), *calls("b", 100, [40, 42])]
    with pytest.raises(SystemExit, match="1 of 2"):
        steady(lanes_of(calls_of(manifests)), 2)


def test_what_a_kill_costs_is_the_work_of_steady_actors_that_was_not_done():
    # both answer 80 rows a second; a is killed at 13.5, and b2 in its place answers from 23 on
    manifests = [
        *calls("a", 0, [10, 11, 12, 13]),
        *calls("b", 100, [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]),
        *calls("a2", 300, [23, 24, 25]),
    ]
    every = calls_of(manifests)
    cost = loss(every, lanes_of(every, 13.5), "a", 13.5)
    assert cost.until_answers == 9.5
    assert cost.actor_seconds == 12 - 3  # from 13 to 25, three calls


def test_after_a_kill_that_nobody_came_back_from_the_time_until_the_end_is_lost():
    manifests = [*calls("a", 0, [10, 11, 12, 13]), *calls("b", 100, list(range(10, 26)))]
    every = calls_of(manifests)
    cost = loss(every, lanes_of(every, 13.5), "a", 13.5)
    assert cost.until_answers is None
    assert cost.actor_seconds == 12


def test_a_gpu_waits_between_kernels_that_do_not_follow_each_other_at_once():
    found = busy([(5.0, 6.0), (1.0, 2.0), (1.5, 3.0), (3.0 + 1e-5, 4.0)])  # two of them at once
    assert (found.waiting, found.span) == (1.0, 5.0)
    assert found.between_kernels == pytest.approx(1e-5)
    assert found.at_work == pytest.approx(4.0 - 1e-5)
