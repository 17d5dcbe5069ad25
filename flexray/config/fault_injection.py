"""Fault injection at named points, for tests and rehearsals; off unless FLEXRAY_FAULTS is set.

The variable holds a JSON list of faults, and the processes of a run inherit it:

    [{"point": "sink.write.during", "match": {"name": "_manifests/*"}, "action": "kill",
      "skip": 2, "times": 1, "ledger": "/tmp/faults"}]

`@FILE` names a local file with such a list. It is read at each point, so that faults can be changed while
processes run. The code calls `reach` at each point, and there the effect is that of a real fault: the process
dies, or the named error is raised. So tests need not replace parts of the program.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import json
import os
import pydoc
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "FLEXRAY_FAULTS"


@dataclass(frozen=True, kw_only=True, slots=True)
class InjectedFault:
    """A fault that happens at a point."""

    point: str
    action: str
    """kill: SIGKILL this process. sleep:SECONDS. raise:DOTTED.NAME: raise that error."""
    match: dict[str, str] = field(default_factory=dict)
    """Shell patterns that facts of the point must match."""
    skip: int = 0
    """How many matching calls pass before the fault happens, counted over all processes."""
    times: int | None = 1
    """How often it happens, over all processes. null: each time."""
    ledger: str | None = None
    """A local folder in which processes count together; needed unless the fault happens each time."""


def expected() -> bool:
    """Whether faults are injected at all. If not, callers need not compute facts."""
    return VARIABLE in os.environ


def reach(point: str, **facts: object) -> None:
    """Called at a point of the program; a fault that matches happens. Facts are compared as text."""
    if text := os.environ.get(VARIABLE):
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        for number, fault in enumerate(_parse(text)):
            if fault.point == point and _matches(fault, facts) and _is_due(fault, number):
                _happen(fault, facts)


@functools.lru_cache(maxsize=4)
def _parse(text: str) -> tuple[InjectedFault, ...]:
    return tuple(InjectedFault(**fault) for fault in json.loads(text))


def _matches(fault: InjectedFault, facts: dict[str, object]) -> bool:
    return all(
        name in facts and fnmatch.fnmatchcase(str(facts[name]), pattern)
        for name, pattern in fault.match.items()
    )


def _is_due(fault: InjectedFault, number: int) -> bool:
    if fault.skip == 0 and fault.times is None:
        return True
    if fault.ledger is None:
        raise ValueError(f"{VARIABLE}: the fault at {fault.point} needs a ledger to be counted")
    reached = _count(Path(fault.ledger), number)
    return fault.skip <= reached and (fault.times is None or reached < fault.skip + fault.times)


def _count(ledger: Path, number: int) -> int:
    """How often the fault's point was reached before, by any process."""
    ledger.mkdir(parents=True, exist_ok=True)
    for reached in itertools.count():
        try:
            os.close(os.open(ledger / f"{number}-{reached}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return reached
    raise AssertionError


def _happen(fault: InjectedFault, facts: dict[str, object]) -> None:
    action, _, argument = fault.action.partition(":")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "sleep":
        time.sleep(float(argument))
    elif action == "raise":
        error = pydoc.locate(argument)
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise ValueError(f"{VARIABLE}: {argument} is no error")
        raise error(f"injected at {fault.point} {facts}")
    else:
        raise ValueError(f"{VARIABLE}: unknown action {fault.action!r}")
