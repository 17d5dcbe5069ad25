"""A dry run: what a run would do, need and fail at. Uses no GPU, loads no weights, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from flexray.config import RunConfig
from flexray.console.checks import Check, Finding, make_checks
from flexray.preflight.plan import data_checks, resource_checks, row_checks
from flexray.preflight.plan.devices import find_device
from flexray.preflight.plan.dry_run import DryRun
from flexray.preflight.plan.estimates import read_output
from flexray.runs.start_checks import START_CHECKS

CHECKS: tuple[Check[DryRun], ...] = (
    Check("device", resource_checks.check_device),
    Check("output", data_checks.open_folder),
    *START_CHECKS,
    Check("lock", data_checks.read_first_locks, needs=("output",)),
    Check("data", data_checks.read_data, needs=("data",)),
    Check("few-shots", data_checks.draw_few_shots, needs=("data",)),
    Check("committed", data_checks.plan_in_folder, needs=("methods", "output", "model", "few-shots")),
    Check("data", data_checks.count_rows, needs=("methods", "data")),
    Check("rows", row_checks.check_duplicates, needs=("data",)),
    Check("sample", row_checks.take_sample_of_rows, needs=("prompt", "few-shots")),
    Check("rows", row_checks.check_sample, needs=("sample",)),
    Check("prompt", row_checks.check_tokens, needs=("sample",)),
    Check("memory", resource_checks.plan_memory_of_rows, needs=("sample",)),
    Check("engines", resource_checks.check_engines, needs=("methods", "data")),
    Check("time", resource_checks.estimate_time, needs=("methods", "data")),
    Check("disk", resource_checks.check_disk_space, needs=("output",)),
    Check("output", resource_checks.check_place, needs=("output",)),
    Check("lock", data_checks.check_locks, needs=("output", "lock")),
)
"""In the order in which they are made."""


def start_plan(
    config: RunConfig,
    *,
    sample_rows: int = 256,
    gpu: str | None = None,
    gpu_memory: float | None = None,
    like: str | None = None,
) -> DryRun:
    """The run to be looked at.

    Args:
        sample_rows: rows to make prompts of.
        gpu: name of the GPU to plan for. gpu_memory: its memory in GiB. Neither: this machine's device.
        like: another output folder, whose speed is assumed for this run.

    Raises:
        ConfigError: an unknown GPU. OutputError: `like` holds no run.
    """
    device = find_device(config, gpu, gpu_memory)
    return DryRun(
        config=config,
        on_cpu=not device.is_gpu,
        device=device,
        named=bool(gpu or gpu_memory),
        sample_rows=sample_rows,
        like=read_output(like) if like else None,
    )


def look(run: DryRun) -> Iterator[Finding]:
    """Read what the run would read, and work out what it would do; writes nothing and takes no lock. Yields
    each finding as soon as it is there, and keeps it in the run."""
    for finding in make_checks(CHECKS, run):
        run.findings.append(finding)
        yield finding
