"""A short round of tests/chaos; `make chaos N=..` makes as many kills, of all kinds, as one likes."""

import os
import re
import subprocess
import sys

import pytest

from tests.chaos.kills import KINDS
from tests.conftest import PROJECT

# Of those that end the driver, which is started again each time, one of each file.
LEFT_OUT = ("plan before", "plan during", "record before", "record after", "lock before", "lock after")
ROUND = [kind for kind in KINDS if kind not in LEFT_OUT]


@pytest.mark.timeout(600)
def test_no_row_is_lost_or_doubled_whatever_is_killed(smollm2):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    count = str(len(ROUND))
    options = ["--together", count, "--seed", "1", *(option for kind in ROUND for option in ("--kind", kind))]
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
    assert re.fullmatch(rf"kills={count} lost=0 doubled=0 repeated=\d+", last), done.stdout
