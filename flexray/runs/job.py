"""A job: a configuration that was checked against software, storage, model and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flexray.config import RunConfig
from flexray.data import Scan, scan, with_few_shots
from flexray.methods import make_methods
from flexray.models.checkpoint import check_checkpoint, load_tokenizer
from flexray.models.lora import check_adapters
from flexray.models.remarks import remark
from flexray.models.tensor_parallel import local_config
from flexray.pipeline.hub import notes_of, pin
from flexray.pipeline.prepare import prompt_builder
from flexray.pipeline.software import check_software
from flexray.runs.fingerprint import code_version, fingerprint_parts, provenance
from flexray.sink import OutputFolder, RunRecord, start_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a run is to do, checked as far as possible without holding the output folder."""

    config: RunConfig
    """With its few-shots drawn, so that all rows of a run have the same context, and with what it names of
    the hub pinned to commits."""
    found: Scan
    parts: dict[str, Any]
    notes: tuple[str, ...] = ()
    """Lines to log at the start."""

    def start(
        self, folder: OutputFolder, *, known: bool = False, allow_code_change: bool = False
    ) -> RunRecord:
        """The record of this run in its folder (see `start_run`)."""
        return start_run(
            folder,
            known=known,
            allow_code_change=allow_code_change,
            code=code_version(),
            parts=self.parts,
            config=self.config.model_dump(mode="json"),
            provenance=provenance(),
            shards=self.found.shards,
            methods=tuple(method.name for method in make_methods(self.config.methods)),
        )


def plan_job(config: RunConfig, folder: OutputFolder | None) -> Job:
    """Check versions, storage and model, draw few-shots, scan the data. Raises UserError.

    Args:
        folder: checked for writing; None: nothing is to be written.
    """
    notes = check_software(config)
    if folder is not None:
        folder.prepare()
    config = pin(config)
    notes += notes_of(config)
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    local_config(check_checkpoint(config.model.path), config.engine.tensor_parallel)  # raises
    check_adapters(config.model.path, config.model.lora)
    notes += tuple(f"note: {odd}" for odd in remark(config.model.path, tokenizer))
    config = with_few_shots(config)
    prompt_builder(config)  # raises if no prompt can be made
    found = scan(config.data)
    return Job(config=config, found=found, parts=fingerprint_parts(config, found), notes=notes)
