"""What of a run as a whole is above its limits."""

from types import SimpleNamespace

import pytest

from flexray.config import LimitsConfig
from flexray.runs.run import over_limits


def manifests(rows, errors, fallbacks):
    account = SimpleNamespace(
        rows=rows, errors=errors, fallback_reason={"": rows - fallbacks, "x": fallbacks}
    )
    return [SimpleNamespace(accounting=account) for _ in range(2)]


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
