"""What of a run as a whole is above its limits."""

from types import SimpleNamespace

import pytest

from flexray.config import LimitsConfig
from flexray.runs.run import over_limits
from flexray.sink import ShardStats


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
