"""docs/operations.md names all checks, and who makes them."""

import re
from pathlib import Path

from flexray.preflight import doctor, plan
from flexray.runs.start_checks import START_CHECKS

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
CHECKS = {
    "start": {check.name for check in START_CHECKS},
    "plan": {check.name for check in plan.CHECKS},
    "doctor": {
        "config",
        *(check.name for check in (*doctor.MACHINE_CHECKS, *doctor.RECIPE_CHECKS, *doctor.PROCESS_CHECKS)),
    },
}


def test_the_table_has_each_check_with_those_that_make_it():
    section = PAGE.read_text(encoding="utf-8").partition("## Checks")[2].partition("\n## ")[0]
    told = {who: set() for who in CHECKS}
    for row in re.findall(r"^\|(.*`.*)\|$", section, re.MULTILINE):
        names, _, makers, _ = (cell.strip() for cell in row.split("|"))
        for who in makers.split(", "):
            told[who].update(re.findall(r"`([\w-]+)`", names))
    assert told == CHECKS
