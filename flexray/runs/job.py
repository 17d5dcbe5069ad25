"""A job: a configuration that was checked against software, storage and model; and its plan in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from flexray.config import EvaluationConfig, FewShot, RunConfig
from flexray.data import refuse_asked_few_shots, source_versions, with_few_shots
from flexray.errors import UserError
from flexray.methods import make_methods
from flexray.pipeline.hub import pin
from flexray.runs.fingerprint import code_version, fingerprint_parts, provenance
from flexray.runs.start_checks import START_CHECKS, Start
from flexray.sink import (
    DamageError,
    Manifest,
    NoRunError,
    OutputFolder,
    RunRecord,
    clear_scratch,
    discard_run,
    load_run,
    open_run,
    plan_run,
    record_evaluation,
    whole_shards,
)
from flexray.sink.plan.site import Mapper
from flexray.sink.plan.staging import Staged, stage, stage_table
from flexray.sink.run.other_run import refuse_other_run
from flexray.storage import redact


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a run is to do, checked as far as possible without its data and without holding its folder."""

    config: RunConfig
    """With what it names of the hub pinned to commits. Its few-shots are drawn when the data are known."""
    notes: tuple[str, ...] = ()
    """Lines to log at the start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A job whose plan is in its folder."""

    config: RunConfig
    """With its few-shots drawn, so that all rows of a run have the same context."""
    record: RunRecord
    committed: dict[str, Manifest]
    """Of the planned shards, by shard id."""


def refuse_other_settings(config: RunConfig, folder: OutputFolder) -> None:
    """Raise OutputError at once if the folder holds a run of other settings, before torch and transformers
    are imported to check the model. What cannot be told yet is left to the checks that follow.

    Raises:
        OutputError: as `open_run`.
    """
    try:
        run = load_run(folder)
        pinned = pin(config)
        drawn = _recorded_few_shots(folder, pinned)
        asked = pinned if drawn is None else _with(pinned, drawn)
        parts = fingerprint_parts(asked, pinned.prompt.few_shot_data)
    except (UserError, OSError):
        return
    if isinstance(run, RunRecord):
        refuse_other_run(folder, run, parts, asked.model_dump(mode="json"))


def check_job(config: RunConfig, folder: OutputFolder | None) -> Job:
    """Make the checks at the start of a run. Raises the UserError or OSError of the first that fails.

    Args:
        folder: checked for writing; None: nothing is to be written.
    """
    start = Start(config=config, folder=folder)
    found = [finding for check in START_CHECKS for finding in check.findings(start)]
    notes = (f"note: {finding.what}" if finding.status == "warn" else finding.what for finding in found)
    return Job(config=start.config, notes=tuple(notes))


def plan(
    job: Job,
    folder: OutputFolder,
    *,
    fresh: bool = False,
    allow_code_change: bool = False,
    replace_changed: bool = False,
    found: pa.Table | None = None,
    distribute: Mapper | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Planned:
    """Plan in the folder what the job has to do there: nothing new if neither data nor methods have changed
    since the last start. Needs the folder's lock.

    Args:
        fresh: discard an earlier run, once the data are known to be good.
        found: the data set (PLAN_SCHEMA). None: it is read if that is needed.
        distribute: reads and plans large data sets in other processes. None: this process plans all.
        note: called with a line about what is planned.

    Raises:
        UserError: see `open_run` and `plan_run`; or the data cannot be used.
    """
    clear_scratch(folder)  # of a start that died
    reads = 0

    def read(run: RunRecord | None) -> Staged:
        nonlocal reads
        reads += 1
        note(f"reading the data set {job.config.data.name}/{job.config.data.split}, and planning its rows")
        return stage(job.config.data, folder, run, distribute) if found is None else stage_table(found)

    try:
        return _plan(
            job,
            folder,
            fresh=fresh,
            allow_code_change=allow_code_change,
            replace_changed=replace_changed,
            read=read,
            note=note,
        )
    finally:
        if reads:
            clear_scratch(folder)


def _plan(
    job: Job,
    folder: OutputFolder,
    *,
    fresh: bool,
    allow_code_change: bool,
    replace_changed: bool,
    read: Callable[[RunRecord | None], Staged],
    note: Callable[[str], None],
) -> Planned:
    config, data = job.config, None
    drawn = None if fresh else _recorded_few_shots(folder, config)
    if config.prompt.few_shot_data is not None and drawn is None:
        data = read(None)
        config = with_few_shots(config, data.tables())
    elif drawn is not None:
        config = _with(config, drawn)
    discarded = False
    if fresh:
        data = data or read(None)
        discarded = discard_run(folder)
    parts = fingerprint_parts(config, job.config.prompt.few_shot_data)
    tree, code = config.model_dump(mode="json"), code_version()
    run = None
    if not discarded:  # what else lies in the folder was accepted when the discarded run began
        run = open_run(folder, parts=parts, config=tree, code=code, allow_code_change=allow_code_change)
    if run and not run.selection.sources and run.rebuilt:
        note(f"{folder}: its run record was lost, and is written again")
    committed = whole_shards(folder, run) if run else {}
    sources = source_versions(config.data)
    methods = tuple(method.name for method in make_methods(config.methods))
    if run is None or (run.selection.sources, run.selection.methods) != (sources, methods):
        data = data or read(run)
        if drawn:
            refuse_asked_few_shots(drawn, data.tables())
        run = plan_run(
            folder,
            run,
            data,
            parts=parts,
            methods=methods,
            config=tree,
            provenance=provenance(),
            sources=sources,
            committed=committed,
            code=code,
            replace_changed=replace_changed,
        )
    elif run.config.get("evaluation", EvaluationConfig().model_dump(mode="json")) != tree["evaluation"]:
        run = record_evaluation(folder, run, tree["evaluation"])
    return Planned(config=config, record=run, committed=committed)


def resume(job: Job, folder: OutputFolder, *, allow_code_change: bool = False) -> Planned:
    """The plan as the last start left it; the data are not looked at. Raises UserError as `open_run`, or if
    there is no run."""
    drawn = _recorded_few_shots(folder, job.config)
    config = job.config if drawn is None else _with(job.config, drawn)
    run = open_run(
        folder,
        parts=fingerprint_parts(config, job.config.prompt.few_shot_data),
        config=config.model_dump(mode="json"),
        code=code_version(),
        allow_code_change=allow_code_change,
    )
    if run is None:
        raise NoRunError(f"{folder}: holds no run. Start it with `flexray run`.")
    return Planned(config=config, record=run, committed=whole_shards(folder, run))


def _recorded_few_shots(folder: OutputFolder, config: RunConfig) -> tuple[FewShot, ...] | None:
    """Those that an earlier start drew; () if it drew from something else, which `open_run` refuses. None:
    none were to be drawn, or no start is recorded."""
    if config.prompt.few_shot_data is None:
        return None
    try:
        prompt = load_run(folder).parts["prompt"]
    except (NoRunError, DamageError):
        return None
    if prompt.get("few_shot_data") != redact(config.prompt.few_shot_data.model_dump(mode="json")):
        return ()
    return tuple(FewShot(**few_shot) for few_shot in prompt["few_shots"])


def _with(config: RunConfig, few_shots: tuple[FewShot, ...]) -> RunConfig:
    prompt = config.prompt.model_copy(update={"few_shots": few_shots, "few_shot_data": None})
    return config.model_copy(update={"prompt": prompt})
