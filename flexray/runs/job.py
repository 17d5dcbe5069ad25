"""What is to be done: a configuration, checked against software, storage, model and data."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any

from flexray import __version__
from flexray.config import RunConfig
from flexray.config.plugins import plugin_digests
from flexray.data import Scan, scan, with_few_shots
from flexray.engine.values import VALUES_VERSION
from flexray.methods import make_methods
from flexray.models.checkpoint import load_tokenizer
from flexray.models.digest import checkpoint_digest
from flexray.models.remarks import remark
from flexray.pipeline.prepare import prompt_builder
from flexray.pipeline.software import check_software
from flexray.runs.code import code_version
from flexray.sink import OutputFolder, RunRecord, start_run
from flexray.sink.run import VALUES_KEY


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is to be done, checked as far as it can be before the output folder is held."""

    config: RunConfig
    """With its few-shots drawn: all rows of a run have the same context."""
    found: Scan
    parts: dict[str, Any]
    notes: tuple[str, ...] = ()
    """Logged at the start."""

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


def plan_job(config: RunConfig, folder: OutputFolder) -> Job:
    """Check versions, storage and model, draw few-shots, scan the data. Raises UserError."""
    notes = check_software(config)
    folder.prepare()
    config = _at_absolute_path(config)
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    notes += tuple(f"note: {odd}" for odd in remark(config.model.path, tokenizer))
    config = with_few_shots(config)
    prompt_builder(config)  # refuses what no prompt can be made with
    found = scan(config.data)
    return Job(config=config, found=found, parts=fingerprint_parts(config, found), notes=notes)


def fingerprint_parts(config: RunConfig, found: Scan) -> dict[str, Any]:
    """What determines the rows. Where files lie, how many run at once and which backend do not."""
    return {
        "data": {
            "name": config.data.name,
            "split": config.data.split,
            "digest": found.data_digest,
            "rows": found.num_rows,
            "include_question": config.data.include_question,
            "max_paraphrases": config.data.max_paraphrases,
        },
        "model": {
            "digest": checkpoint_digest(config.model.path),
            "dtype": config.model.dtype,
            **({"quantization": config.model.quantization} if config.model.quantization else {}),
        },
        "prompt": config.prompt.model_dump(mode="json"),
        "methods": [method.model_dump(mode="json") for method in config.methods],
        "generation": config.generation.model_dump(mode="json"),
        VALUES_KEY: VALUES_VERSION,
        **({"plugins": plugin_digests(config.plugins)} if config.plugins else {}),
    }


def _at_absolute_path(config: RunConfig) -> RunConfig:
    """The configuration, by which a worker that has started elsewhere finds the same model folder."""
    path = os.path.abspath(config.model.path)
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def provenance() -> dict[str, Any]:
    """Versions of what computes the rows."""
    packages = ("torch", "transformers", "tokenizers", "ray", "pyarrow", "safetensors", "numpy")
    return {"flexray": __version__, "python": python_version(), **{name: version(name) for name in packages}}
