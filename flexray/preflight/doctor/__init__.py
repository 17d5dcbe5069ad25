"""Checks of a machine, and of what a configuration names there, before a run.

A check is a function from the configuration (None: there is none) to results, and one line in CHECKS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.config import RunConfig, load_config
from flexray.console.standard_output import standard_output
from flexray.console.terminal import printable
from flexray.errors import UserError
from flexray.preflight.check_results import CheckResult, Status
from flexray.preflight.doctor.machine_checks import check_compiler, check_disk, check_gpu, check_memory
from flexray.preflight.doctor.packages import check_packages, check_python
from flexray.preflight.doctor.process_checks import check_attention, check_cluster
from flexray.preflight.doctor.recipe_checks import check_data, check_model, check_output
from flexray.storage import redact

Check = Callable[[RunConfig | None], Iterable[CheckResult]]
CHECKS: dict[str, Check] = {
    "python": check_python,
    "packages": check_packages,
    "compiler": check_compiler,
    "gpu": check_gpu,
    "memory": check_memory,
    "disk": check_disk,
    "model": check_model,
    "data": check_data,
    "output": check_output,
    "ray": check_cluster,
    "attention": check_attention,
}
"""In the order in which they are made: the quick ones first."""
STYLES: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "bold red"}
NAME_WIDTH = 9  # of a check


def run_checks(
    checks: Mapping[str, Check], paths: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Iterator[CheckResult]:
    """Make the checks one after the other; yields each result as soon as it is there. A check that fails does
    not stop the others.

    Args:
        paths, overrides: of the configuration, as for `load_config`. No paths: without one.
    """
    config = None
    if paths:
        try:
            config = load_config(paths, overrides)
            yield CheckResult("pass", ", ".join(paths), check="config")
        except UserError as e:
            advice = "The checks of what it names are left out."
            yield CheckResult("fail", redact(str(e)), advice, check="config")
    for name, check in checks.items():
        try:
            for result in check(config):
                yield replace(result, what=redact(result.what), check=name)
        except (UserError, OSError) as e:
            yield CheckResult("fail", redact(str(e)), check=name)
        except Exception as e:  # any other may be the fault of the machine, which is being examined
            yield CheckResult("fail", redact(f"the check broke off: {type(e).__name__}: {e}"), check=name)


def print_results(results: Iterable[CheckResult], *, console: Console | None = None) -> bool:
    """Print a line for each result as soon as it is there, the advice below it, and the counts last.

    Args:
        console: where to print. None: standard output.

    Returns:
        Whether none has failed.
    """
    console = console or standard_output()
    counts: Counter[str] = Counter()
    for result in results:
        counts[result.status] += 1
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=4)
        grid.add_column(width=NAME_WIDTH)
        grid.add_column(overflow="fold")
        grid.add_row(Text(result.status, STYLES[result.status]), result.check, Text(printable(result.what)))
        if result.advice:
            grid.add_row("", "", Text(printable(result.advice), "bold"))
        console.print(grid)
    console.print(", ".join(f"{counts[status]} {status}" for status in STYLES))
    return not counts["fail"]
