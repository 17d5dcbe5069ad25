"""Checks of a machine, and of what a configuration names there, before a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flexray.config import RunConfig, load_config
from flexray.console.checks import Check, Finding, make_checks
from flexray.errors import UserError
from flexray.preflight.doctor import machine_checks, packages, recipe_checks
from flexray.preflight.doctor.process_checks import in_process
from flexray.preflight.plan import start_plan
from flexray.preflight.plan.dry_run import DryRun
from flexray.preflight.plan.resource_checks import check_device
from flexray.runs.start_checks import START_CHECKS
from flexray.storage import redact

MACHINE_CHECKS: tuple[Check[RunConfig | None], ...] = (
    Check("packages", packages.check_packages),
    Check("compiler", machine_checks.check_compiler),
    Check("gpu", machine_checks.check_gpu),
    Check("memory", machine_checks.check_memory),
    Check("disk", machine_checks.check_disk),
)
"""Of the machine, for the configuration if there is one."""
RECIPE_CHECKS: tuple[Check[DryRun], ...] = (
    Check("device", check_device),
    *START_CHECKS,
    Check("model", recipe_checks.check_weights, needs=("model",)),
    Check("data", recipe_checks.check_first_shard, needs=("data",)),
    Check("output", recipe_checks.check_output, needs=("output",)),
)
"""Of what the configuration names."""
PROCESS_CHECKS: tuple[Check[RunConfig | None], ...] = (
    Check("ray", in_process("ray", 180, "Check ray.address, the network, Ray's token and its logs.")),
    Check("attention", in_process("attention", 900, "Set engine.backend to sdpa to do without it.")),
)
"""The slow ones come last."""


def examine(paths: Sequence[str] = (), overrides: Sequence[str] = ()) -> Iterator[Finding]:
    """Make all checks; yields each finding as soon as it is there.

    Args:
        paths, overrides: of the configuration, as for `load_config`. No paths: without one.
    """
    config = None
    if paths:
        try:
            config = load_config(paths, overrides)
            yield Finding("pass", redact(", ".join(paths)), check="config")
        except UserError as e:
            yield Finding("fail", redact(str(e)), check="config")
    yield from make_checks(MACHINE_CHECKS, config)
    if config is not None:
        yield from make_checks(RECIPE_CHECKS, start_plan(config))
    yield from make_checks(PROCESS_CHECKS, config)
