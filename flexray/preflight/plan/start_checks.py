"""The checks at a run's start; each is made even if another has failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from transformers import LlamaConfig

from flexray.config import RunConfig
from flexray.data import scan, with_few_shots
from flexray.evaluation import make_metrics
from flexray.evaluation.answer_metrics import PLAIN_TOKENS
from flexray.methods import Method, make_methods
from flexray.models.checkpoint import check_checkpoint, load_tokenizer
from flexray.models.lora import check_adapters
from flexray.models.remarks import remark
from flexray.models.tensor_parallel import local_config
from flexray.pipeline.hub import pin
from flexray.pipeline.software import check_software
from flexray.preflight.check_results import Problems
from flexray.preflight.plan.dry_folder import DryFolder, open_dry, read_locks
from flexray.runs.fingerprint import fingerprint_parts
from flexray.runs.job import Job, plan
from flexray.sink import Manifest, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """What the checks returned; None or empty if a check failed."""

    methods: tuple[Method, ...]
    shape: LlamaConfig | None
    """The model's configuration."""
    found: pa.Table | None
    """The data set, PLAN_SCHEMA."""
    folder: DryFolder | None
    locks: Mapping[str, bytes]
    job: Job | None
    """With its few-shots drawn. None: methods, model or data cannot be used."""
    parts: dict[str, Any] | None = None
    """Of the run's fingerprint."""
    record: RunRecord | None = None
    """The run as it would be planned; None: it cannot be."""
    committed: Mapping[str, Manifest] = field(default_factory=dict)


def check_start(config: RunConfig, problems: Problems, *, on_cpu: bool) -> RunInputs:
    """Check versions, methods, model, output and data, and note each problem.

    Args:
        on_cpu: the plan is for a CPU.
    """
    notes = problems.attempt("versions", lambda: check_software(config, on_cpu=on_cpu)) or ()
    for note in notes:
        problems.warn("versions", note.removeprefix("note: "))
    methods = problems.attempt("methods", lambda: make_methods(config.methods)) or ()
    problems.attempt("evaluation", lambda: make_metrics(config.evaluation, PLAIN_TOKENS))
    model = config.model
    shape = problems.attempt("model", lambda: check_checkpoint(model.path))
    tokenizer = shape and problems.attempt(
        "model", lambda: load_tokenizer(model.path, trust_remote_code=model.trust_remote_code)
    )
    split = shape and problems.attempt("model", lambda: local_config(shape, config.engine.tensor_parallel))
    merged = split and tokenizer and problems.attempt("model", lambda: check_adapters(model.path, model.lora))
    for odd in remark(model.path, tokenizer) if tokenizer else ():
        problems.warn("model", odd)
    folder = problems.attempt("output", lambda: open_dry(config.output))
    locks = (folder and problems.attempt("lock", lambda: read_locks(folder))) or {}
    found = problems.attempt("data", lambda: scan(config.data))
    drawn = None
    if found is not None:
        drawn = problems.attempt("few-shots", lambda: with_few_shots(config, [found]))
    job = parts = pinned = None
    if methods and merged and drawn:
        pinned = problems.attempt("model", lambda: pin(config))
        job = Job(config=pinned.model_copy(update={"prompt": drawn.prompt}), notes=notes) if pinned else None
        parts = problems.attempt("model", lambda: fingerprint_parts(drawn, config.prompt.few_shot_data))
    inputs = RunInputs(
        methods=methods, shape=shape, found=found, folder=folder, locks=locks, job=job, parts=parts
    )
    if pinned is None or folder is None:
        return inputs
    # plans the run in a folder that only pretends to write
    planned = problems.attempt("output", lambda: plan(Job(config=pinned), folder, found=found))
    return replace(inputs, record=planned.record, committed=planned.committed) if planned else inputs
