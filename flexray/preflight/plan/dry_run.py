"""A run that is planned, but not done: what the checks have found out about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from flexray.config import RunConfig
from flexray.console.checks import Finding, is_ready
from flexray.preflight.plan.devices import Device
from flexray.preflight.plan.dry_folder import DryFolder
from flexray.preflight.plan.estimates import CommittedOutput, Room, TimeEstimate
from flexray.preflight.plan.memory import MemoryPlan, Work
from flexray.preflight.plan.sample import Sample
from flexray.runs.job import Planned
from flexray.runs.start_checks import Start
from flexray.sink import OutputFolder
from flexray.storage import redact


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFigures:
    """The size of the data set, and how much of its output is committed."""

    name: str
    files: int
    rows: int
    shards: int
    output_rows: int  # one for each row and method
    committed_rows: int  # counted as output rows, and so are `left_rows`
    committed_shards: int
    left_rows: int
    left_shards: int


@dataclass(kw_only=True, eq=False)
class DryRun(Start):
    """What the checks of a plan find out, in their order. A part that is not found out is None or empty, and
    a finding says why."""

    folder: OutputFolder | None = None  # a DryFolder, once it is opened
    device: Device
    named: bool  # whether the device is the one that the user asked for, not this machine's
    sample_rows: int
    like: CommittedOutput | None  # another run, whose speed is assumed for this one
    findings: list[Finding] = field(default_factory=list)
    locks: Mapping[str, bytes] = field(default_factory=dict)  # the lock files at the first look
    found: pa.Table | None = None  # the data set, PLAN_SCHEMA
    drawn: RunConfig | None = None  # the configuration with its few-shots drawn
    planned: Planned | None = None
    data: DataFigures | None = None
    sample: Sample | None = None
    work: Work | None = None
    memory: MemoryPlan | None = None
    cards: tuple[MemoryPlan, ...] = ()
    """Of GPUs: the memory of each at every `engine.tensor_parallel` that divides the model."""
    room: Room | None = None
    estimates: tuple[TimeEstimate, ...] = ()

    @property
    def dry_folder(self) -> DryFolder:
        """The folder, for checks that need it."""
        assert isinstance(self.folder, DryFolder)
        return self.folder

    @property
    def ready(self) -> bool:
        """Whether the run can be started."""
        return is_ready(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All figures and findings, for JSON."""
        found = {name: getattr(self, name) for name in ("data", "work", "device", "room")}
        return {
            "ready": self.ready,
            "output": str(self.folder or redact(self.config.output)),
            "methods": [method.name for method in self.methods],
            "max_new_tokens": self.config.generation.max_new_tokens,
            **{name: part and dataclasses.asdict(part) for name, part in found.items()},
            "sample": self.sample and self.sample.to_dict(),
            "memory": self.memory and self.memory.to_dict(),
            "cards": [card.to_dict() for card in self.cards],
            "estimates": [dataclasses.asdict(estimate) for estimate in self.estimates],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }
