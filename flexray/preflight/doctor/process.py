"""Do a piece of work in a process of its own: one that hangs or crashes is an error here and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from flexray.preflight.doctor.packages import PROJECT

SHOWN_LINES = 3


class ProcessError(RuntimeError):
    """The process did not do its work."""


def call_module(module: str, argument: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run `python -m module`, which reads a JSON object and prints another as its last line.

    Raises:
        ProcessError: it failed, died or took longer than `seconds`.
    """
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(argument),
            env=os.environ | {"PYTHONPATH": python_path},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as e:
        raise ProcessError(f"gave no answer in {seconds:.0f} s") from e
    if done.returncode:
        last = " / ".join(done.stderr.strip().splitlines()[-SHOWN_LINES:])
        raise ProcessError(f"{_end(done.returncode)}: {last}" if last else _end(done.returncode))
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
