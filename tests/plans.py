"""Whole plans of runs."""

from typing import Any

from flexray.config import RunConfig
from flexray.preflight.plan import look, start_plan
from flexray.preflight.plan.dry_run import DryRun


def make_plan(config: RunConfig, **options: Any) -> DryRun:
    """The whole plan. Options as of `start_plan`."""
    run = start_plan(config, **options)
    list(look(run))
    return run
