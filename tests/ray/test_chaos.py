"""A short round of tests/chaos; `make chaos N=..` makes as many kills, of all kinds, as one likes."""

import os
import re
import subprocess
import sys

import pytest

from tests.chaos.kills import KINDS
from tests.conftest import PROJECT

# A few, so that CI stays short: each kind of process, and the commit before, amid and after its writes.
ROUND = ("driver", "node", "manifest before")
LONG_ROUND = (*ROUND, "engine", "data during", "manifest after")
assert set(LONG_ROUND) <= set(KINDS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kinds", [ROUND, pytest.param(LONG_ROUND, marks=pytest.mark.slow)])
def test_no_row_is_lost_or_doubled_whatever_is_killed(smollm2, kinds):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment["RAY_worker_niceness"] = "0"  # Ray's processes are most of what runs here
    count = str(len(kinds))
    options = [
        "--together",
        count,
        "--seed",
        "19",
        *(option for kind in kinds for option in ("--kind", kind)),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", count, *options],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"kills={count} storage_faults=0 lost=0 doubled=0 repeated=\d+", last), done.stdout
