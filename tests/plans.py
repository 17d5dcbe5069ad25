"""Whole plans of runs."""

from typing import Any

from flexray.config import RunConfig
from flexray.preflight.plan import look, start_plan
from flexray.preflight.plan.dry_run import DryRun


def make_plan(config: RunConfig, **options: Any) -> DryRun:
    """The whole plan; its warnings and failures are in `problems`. Options as of `start_plan`."""
    run = start_plan(config, **options)
    run.problems = [finding for finding in look(run) if finding.status != "pass"]
    return run
