"""The dry run: what can be found out about a run before it starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flexray.config import RunConfig
from flexray.pipeline.prepare import prompt_builder
from flexray.preflight.check_results import CheckResult, Problems
from flexray.preflight.plan.cards import CardPlan, least_cards, plan_cards
from flexray.preflight.plan.devices import Device, find_device
from flexray.preflight.plan.dry_folder import read_locks
from flexray.preflight.plan.estimates import (
    CommittedOutput,
    Room,
    TimeEstimate,
    from_committed,
    from_peak,
    read_output,
    room_of_sample,
)
from flexray.preflight.plan.memory import MemoryPlan, Work, engine_rows, plan_memory, plan_work
from flexray.preflight.plan.resource_checks import (
    check_actors,
    check_device,
    check_disk_space,
    check_locks,
    check_model_fits,
    check_place,
)
from flexray.preflight.plan.row_checks import check_duplicates, check_sample, check_tokens
from flexray.preflight.plan.sample import SampleFigures, figures, take_sample
from flexray.preflight.plan.start_checks import RunInputs, check_start
from flexray.storage import redact

SAMPLE_ROWS = 256
LEVELS = {"warn": "warning", "fail": "error"}
"""The word that a plan uses for the status of a problem."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFigures:
    """The size of the data set, and how much of its output is committed."""

    name: str
    files: int
    rows: int
    shards: int
    output_rows: int
    """One for each row and method."""
    committed_rows: int
    """Counted as output rows, and so are `left_rows`."""
    committed_shards: int
    left_rows: int
    left_shards: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """The result of a dry run. A part that could not be found out is None, and `problems` says why."""

    output: str
    methods: tuple[str, ...]
    max_new_tokens: int
    data: DataFigures | None
    sample: SampleFigures | None
    work: Work | None
    device: Device
    memory: MemoryPlan | None
    cards: tuple[CardPlan, ...]
    """Of GPUs: the memory of each at every `engine.tensor_parallel` that divides the model."""
    room: Room | None
    estimates: tuple[TimeEstimate, ...]
    problems: tuple[CheckResult, ...]

    @property
    def ready(self) -> bool:
        """Whether the run can be started."""
        return not any(problem.status == "fail" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        problems = [{"level": LEVELS[p.status], "about": p.check, "text": p.what} for p in self.problems]
        return {"ready": self.ready, **dataclasses.asdict(self), "problems": problems}


def make_plan(
    config: RunConfig,
    *,
    sample_rows: int = SAMPLE_ROWS,
    gpu: str | None = None,
    gpu_memory: float | None = None,
    like: str | None = None,
) -> DryRun:
    """Read what a run would read, and work out what it would do; writes nothing and takes no lock.

    Args:
        sample_rows: rows to make prompts of.
        gpu: name of the GPU to plan for. gpu_memory: its memory in GiB. Neither: this machine's device.
        like: another output folder, whose speed is assumed for this run.

    Raises:
        ConfigError: an unknown GPU. OutputError: `like` holds no run.
    """
    problems = Problems()
    device = find_device(config, gpu, gpu_memory)
    check_device(config, device, bool(gpu or gpu_memory), problems)
    inputs = check_start(config, problems, on_cpu=not device.is_gpu)
    job, found = inputs.job, inputs.found
    outputs = [CommittedOutput(output=str(inputs.folder), manifests=inputs.committed.values())]
    outputs += [read_output(like, inputs.parts)] if like else []
    data = _data_figures(config, found, inputs) if found is not None and inputs.methods else None
    sample = builder = memory = work = room = None
    cards: tuple[CardPlan, ...] = ()
    estimates: list[TimeEstimate] = []
    if job is not None:
        builder = problems.attempt("prompt", lambda: prompt_builder(job.config))
    if job and builder and found is not None:
        sample = problems.attempt("rows", lambda: take_sample(found, job.config, sample_rows))
    if found is not None:
        check_duplicates(found, problems)
    if sample:
        check_sample(sample, inputs.methods, config.limits, problems)
    if builder and sample:
        check_tokens(builder, sample, config, problems)
    if (
        job
        and inputs.shape
        and sample
        and data
        and (rows := engine_rows(job.config, inputs.methods, sample.prompts))
    ):
        largest = min(config.data.shard_rows, data.rows)
        memory = plan_memory(job.config, inputs.shape, device, rows, largest)
        cards = plan_cards(job.config, inputs.shape, device, rows, largest)
        work = plan_work(job.config, rows)
        check_model_fits(memory, device, problems, least_cards(cards, config.model.quantization))
    if data and not gpu and not gpu_memory:
        config = check_actors(config, device, data.shards, problems)
    if data and data.left_rows:
        left = (config, data.left_rows, data.left_shards)
        measured = [both for output in outputs if (both := from_committed(output, *left))]
        estimates = [time for time, _ in measured]
        if memory and work and (rough := from_peak(device, memory, work, *left)):
            estimates.append(rough)
        if measured:
            room = measured[0][1]
        elif sample and sample.questions:
            room = room_of_sample(data.left_rows, sample)
    if (folder := inputs.folder) is not None:
        if room and folder.is_local:
            check_disk_space(folder, room, problems)
        check_place(folder, config, problems)
        now = problems.attempt("lock", lambda: read_locks(folder))
        check_locks(folder, inputs.locks, now or {}, problems)
    return DryRun(
        output=str(inputs.folder or redact(config.output)),
        methods=tuple(method.name for method in inputs.methods),
        max_new_tokens=config.generation.max_new_tokens,
        data=data,
        sample=figures(sample) if sample else None,
        work=work,
        device=device,
        memory=memory,
        cards=cards,
        room=room,
        estimates=tuple(estimates),
        problems=tuple(problems.found),
    )


def _data_figures(config: RunConfig, found: pa.Table, inputs: RunInputs) -> DataFigures:
    committed = sum(manifest.rows for manifest in inputs.committed.values())
    record = inputs.record
    rows, shards = found.num_rows, -(-found.num_rows // config.data.shard_rows)
    output_rows = record.planned_rows if record else rows * len(inputs.methods)
    shards = record.planned_shards if record else shards
    return DataFigures(
        name=f"{config.data.name}/{config.data.split}",
        files=len(found["source_file"].unique()),
        rows=rows,
        shards=shards,
        output_rows=output_rows,
        committed_rows=committed,
        committed_shards=len(inputs.committed),
        left_rows=output_rows - committed,
        left_shards=shards - len(inputs.committed),
    )
