"""Checks that may hang or crash: each is made in a process of its own, by `process_tasks`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

from flexray.config import RunConfig
from flexray.console.checks import Finding, fail
from flexray.preflight.doctor.packages import PROJECT

TASKS = "flexray.preflight.doctor.process_tasks"
SHOWN_LINES = 3


def in_process(name: str, seconds: float, advice: str) -> Callable[[RunConfig | None], Iterator[Finding]]:
    """A check of `process_tasks`, which fails if its process dies or gives no answer in so many seconds."""

    def look(config: RunConfig | None) -> Iterator[Finding]:
        python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        try:
            done = subprocess.run(
                [sys.executable, "-m", TASKS, name],
                input=json.dumps(config and config.model_dump(mode="json")),
                env=os.environ | {"PYTHONPATH": python_path},
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            yield fail(f"the process that tried it gave no answer in {seconds:.0f} s", advice)
            return
        if done.returncode:
            end = f"ended with exit code {done.returncode}"
            if done.returncode < 0:
                end = f"was killed by {signal.Signals(-done.returncode).name}"
            last = " / ".join(done.stderr.strip().splitlines()[-SHOWN_LINES:])
            yield fail(f"the process that tried it {end}: {last}", advice)
            return
        yield from (Finding(**found) for found in json.loads(done.stdout.splitlines()[-1]))

    return look
