"""The checks at the start of a run, before its data are read. `plan` and `doctor` make them, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexray.config import RunConfig
from flexray.console.checks import Check, Finding, passed, warn
from flexray.data.files import check_paths
from flexray.errors import ConfigError
from flexray.evaluation import make_metrics
from flexray.evaluation.answer_metrics import PLAIN_TOKENS
from flexray.evaluation.output_rows import check_match
from flexray.methods import Method, make_methods
from flexray.models.checkpoint import check_checkpoint, load_tokenizer
from flexray.models.lora import check_adapters
from flexray.models.remarks import remark
from flexray.models.tensor_parallel import local_config
from flexray.pipeline.hub import notes_of, pin_data_sets, pin_model_paths
from flexray.pipeline.prepare import prompt_builder
from flexray.pipeline.software import check_software
from flexray.sink import OutputFolder
from flexray.storage import reads_output, redact

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import LlamaConfig, PreTrainedTokenizerBase


@dataclass(kw_only=True, eq=False)
class Start:
    """A run that is about to start, and what the checks have found out about it."""

    config: RunConfig
    """What it names of the hub is pinned to commits by the checks of the model and the data."""
    folder: OutputFolder | None
    """None: nothing is to be written."""
    on_cpu: bool | None = None
    """Whether the model will be on a CPU. None: as `check_software` finds out."""
    methods: tuple[Method, ...] = ()
    shape: LlamaConfig | None = None
    """The model's configuration. None, as the tokenizer: not checked yet, or it cannot be used."""
    tokenizer: PreTrainedTokenizerBase | None = None


def _versions(start: Start) -> Iterator[Finding]:
    for note in check_software(start.config, on_cpu=start.on_cpu):
        yield warn(note)


def _methods(start: Start) -> None:
    start.methods = make_methods(start.config.methods)
    check_match(start.config.methods)


def _evaluation(start: Start) -> None:
    make_metrics(start.config.evaluation, PLAIN_TOKENS)


def _output(start: Start) -> None:
    for pattern in start.config.data.files:
        if reads_output(pattern, start.config.output):
            raise ConfigError(
                f"output: {redact(start.config.output)} is within the reach of data.files: {redact(pattern)},"
                " so a second start would read what the first one has written. Give an output outside of it."
            )
    if start.folder is not None:
        start.folder.prepare()


def _model(start: Start) -> Iterator[Finding]:
    config = pin_model_paths(start.config)
    path = config.model.path
    shape = check_checkpoint(path)
    tokenizer = load_tokenizer(path, trust_remote_code=config.model.trust_remote_code)
    local_config(shape, config.engine.tensor_parallel)
    check_adapters(path, config.model.lora)
    start.config, start.shape, start.tokenizer = config, shape, tokenizer
    yield from map(passed, notes_of(config, ["model.path"]))
    yield from map(warn, remark(path, tokenizer))


def _files(start: Start) -> None:
    check_paths(start.config.data)


def _data(start: Start) -> Iterator[Finding]:
    start.config = pin_data_sets(start.config)
    yield from map(passed, notes_of(start.config, ["data.hub", "prompt.few_shot_data.hub"]))


def _prompt(start: Start) -> None:
    prompt_builder(start.config)


START_CHECKS: tuple[Check[Start], ...] = (
    Check("methods", _methods),
    Check("evaluation", _evaluation),
    Check("output", _output),
    Check("data", _files),
    Check("versions", _versions),
    Check("model", _model),
    Check("data", _data),
    Check("prompt", _prompt, needs=("methods", "model")),
)
"""What needs no model comes first: importing torch and transformers takes seconds."""
