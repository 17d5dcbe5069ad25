"""What of a run as a whole is above its limits."""

from types import SimpleNamespace

import pytest

from flexray.config import LimitsConfig
from flexray.console.progress import CommittedShard
from flexray.errors import OutputError
from flexray.runs.run import judge, over_limits
from flexray.sink import ShardStats
from tests.unit.sink.builders import ERROR, Shard, commit, row, shard_id, start, table
from tests.unit.sink.conftest import folder

__all__ = ["folder"]


def manifests(rows, errors, fallbacks):
    stats = ShardStats(
        rows=rows,
        answered=rows - errors,
        errors=errors,
        rows_by_method={"m": rows},
        backend_requested={"sdpa": rows},
        backend_used={"sdpa": rows},
        fallback_reason={"": rows - fallbacks, "x": fallbacks},
        finish_reason={"length": rows},
        scored=0,
        correct=0,
        prompt_tokens=0,
        generated_tokens=0,
    )
    return [SimpleNamespace(accounting=stats) for _ in range(2)]


@pytest.mark.parametrize(
    ("errors", "fallbacks", "limits", "said"),
    [
        (0, 0, {"max_error_share": 0, "max_fallback_share": 0}, ""),
        (5, 10, {"max_error_share": 0.5}, ""),
        (
            6,
            0,
            {"max_error_share": 0.5},
            "12 of 20 rows are errors, more than limits.max_error_share (0.5) allows",
        ),
        (1, 0, {"max_error_share": 0}, "2 of 20 rows are errors"),
        (0, 3, {"max_fallback_share": 0.1}, "6 of 20 rows fell back, more than limits.max_fallback_share"),
    ],
)
def test_a_run_above_its_limits_says_which_and_by_how_much(errors, fallbacks, limits, said):
    found = over_limits(manifests(10, errors, fallbacks), LimitsConfig(**limits))
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_the_first_rows_alone_are_judged_whatever_else_is_committed(folder):
    ids = [f"qa/test/{i}" for i in range(30)]
    run = start(folder, ids, methods=("m",), shard_rows=10)
    for n in range(3):  # the last one by another actor, while the first two are looked at
        shard = Shard(shard_id(n), tuple(ids[10 * n : 10 * n + 10]), ("m",))
        bad = [n == 1 or i >= 4 for i in range(10)]
        rows = [
            row(row_id, shard.shard_id, method="m", **(ERROR if is_bad else {}))
            for row_id, is_bad in zip(shard.row_ids, bad, strict=True)
        ]
        commit(folder, run, shard, table=table(shard, rows=rows))

    def shards(errors: int) -> list[CommittedShard]:
        return [
            CommittedShard(shard_id=shard_id(n), rows=10, errors=e, fallbacks=0, seconds=1.0)
            for n, e in enumerate((6, errors))
        ]

    judge(folder.url, shards(errors=4))  # half of them are no reason
    with pytest.raises(OutputError, match=r"of the first 20 rows 16 are errors.*\n  16 rows: "):
        judge(folder.url, shards(errors=10))
