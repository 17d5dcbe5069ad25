"""What of a run as a whole is above its limits."""

from types import SimpleNamespace

import pytest

from flexray.config import LimitsConfig
from flexray.runs.run import RunResult


def result(rows, errors, fallbacks):
    account = SimpleNamespace(
        rows=rows, errors=errors, fallback_reason={"": rows - fallbacks, "x": fallbacks}
    )
    manifests = {f"s{i}": SimpleNamespace(accounting=account) for i in range(2)}
    return RunResult(manifests=manifests, rows_before=0, rows_now=2 * rows, seconds=1.0)


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
    found = result(10, errors, fallbacks).over_limits(LimitsConfig(**limits))
    assert found.startswith(said)
    assert bool(found) == bool(said)
