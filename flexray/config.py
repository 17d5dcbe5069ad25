"""The run's configuration: one YAML file, checked before anything is loaded.

Unknown keys, wrong types and values out of range are errors that name the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flexray.types import Backend, ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Fields(_Section):
    """Where each value stands in a source record; `a.b` reaches into nested records."""

    id: str | None = "id"
    """Identifies the row for ever. null: a digest of the row's content."""
    question: str = "question"
    paraphrases: str | None = "paraphrases"
    """A list of strings. null only with `include_question`."""
    answers: str | None = "answers"
    """A list of accepted answers. null: nothing is scored."""
    relation: str | None = None
    """A string: the group of the question, for accuracy by relation. null: no groups."""
    num_manual: str | None = None
    """A whole number: so many of the first paraphrases are manual templates. null: none are."""
    confidences: str | None = None
    """A list of numbers in [0, 1], one for each paraphrase. null: unknown."""


class DataConfig(_Section):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the data set; part of every row id."""
    split: str = Field(default="test", pattern=r"^[A-Za-z0-9._-]+$")
    files: tuple[str, ...] = Field(min_length=1)
    """Paths, URLs or globs: jsonl, json (one array of records) or Parquet."""
    format: Literal["auto", "jsonl", "json", "parquet"] = "auto"
    fields: Fields = Fields()
    include_question: bool = False
    """Use the question itself as the first paraphrase."""
    max_paraphrases: int | None = Field(default=None, ge=1)
    """Use only the first of them. null: all."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first rows of the data set. null: all."""
    shard_rows: int = Field(default=512, ge=1)
    """Rows in a shard: the unit of work, of commit and of resume."""

    @field_validator("files", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _some_text(self) -> DataConfig:
        if self.fields.paraphrases is None and not self.include_question:
            raise ValueError("fields.paraphrases is null: set include_question to true, or name the field")
        return self


class ModelConfig(_Section):
    path: str
    """Folder of a LLaMA checkpoint with safetensors and a tokenizer."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on GPU, float32 on CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trust_remote_code: bool = False
    """Run Python code from the tokenizer's folder. Leave off unless you wrote it."""


class FewShot(_Section):
    question: str
    answer: str


class PromptConfig(_Section):
    instruction: str = ""
    few_shots: tuple[FewShot, ...] = ()
    question_template: str = "\nQ: {question}"
    """One paraphrase, in a segment and in a few-shot."""
    cue: str = Field(default="\nA:", min_length=1)
    """Opens the answer region; the answer of a few-shot stands behind it."""
    add_bos: bool = True
    """Start the context with the tokenizer's BOS, if it has one."""

    @field_validator("question_template")
    @classmethod
    def _has_slot(cls, value: str) -> str:
        if value.count("{question}") != 1:
            raise ValueError("needs the slot {question} exactly once")
        return value


class MethodConfig(_Section):
    layout: Literal["shared_context", "full_prompt"] = "shared_context"
    """full_prompt: each paraphrase has a copy of the context of its own."""
    positions: Literal["restart", "continuous"] = "restart"
    """restart: each paraphrase starts right after the context, the answer after the longest."""
    max_new_tokens: int = Field(default=16, ge=1)
    stop_at_newline: bool = True

    @property
    def name(self) -> str:
        """The `method` of each output row."""
        return f"attention/{self.layout}/{self.positions}"


class EngineConfig(_Section):
    backend: Backend = "flex"
    strict: bool = False
    """Fail the run instead of falling back to another backend."""
    max_rows: int | None = Field(default=None, ge=1)
    """Rows decoded at once. null: 512 on GPU, 32 on CPU, less if the memory is short."""
    max_prefill_tokens: int | None = Field(default=None, ge=128)
    """Tokens in one packed prefill. null: 32768 on GPU, 2048 on CPU."""
    memory_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory that weights, KV pool and activations may take."""


class RayConfig(_Section):
    address: str | None = None
    """An existing cluster ("auto" or ray://...). null: RAY_ADDRESS if set, else start one here."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of the Ray started here. null: all of this machine's."""
    object_store_mb: int | None = Field(default=None, ge=80)
    """Object store of the Ray started here, in MiB. null: Ray's default."""
    min_actors: int = Field(default=1, ge=1)
    max_actors: int = Field(default=1, ge=1)
    num_gpus_per_actor: float | None = Field(default=None, ge=0)
    """null: 1 if the cluster has a GPU, else 0."""
    num_cpus_per_actor: float = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> RayConfig:
        if self.max_actors < self.min_actors:
            raise ValueError(f"max_actors ({self.max_actors}) is below min_actors ({self.min_actors})")
        return self


class RunConfig(_Section):
    output: str
    """Folder or URL that holds the run: data, manifests, plan."""
    data: DataConfig
    model: ModelConfig
    prompt: PromptConfig = PromptConfig()
    method: MethodConfig = MethodConfig()
    engine: EngineConfig = EngineConfig()
    ray: RayConfig = RayConfig()


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply `a.b=value` overrides (values are YAML).

    Raises:
        ConfigError: the file is missing or no YAML mapping, an override has no `=`, or a key is
            unknown, of the wrong type or out of range. The message names file and key.
    """
    try:
        with fsspec.open(path, "rt", encoding="utf-8") as stream:
            tree = yaml.safe_load(stream)
    except FileNotFoundError as e:
        raise ConfigError(f"{path}: no such configuration file. Give a path or URL of a YAML file.") from e
    except Exception as e:  # each store raises its own types, for a bad URL, key or permission
        raise ConfigError(f"{path}: cannot be read as YAML: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of sections is expected, found {type(tree).__name__}.")
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, source=path)


def parse_config(tree: dict[str, Any], *, source: str) -> RunConfig:
    """Check a configuration tree. Raises ConfigError with one line for each fault."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as e:
        lines = []
        for fault in e.errors():
            key = ".".join(str(part) for part in fault["loc"]) or "(top level)"
            lines.append(f"  {key}: {fault['msg']}{_hint(fault)}")
        raise ConfigError(f"{source}: {len(lines)} fault(s) in the configuration\n" + "\n".join(lines)) from e


def _hint(fault: Any) -> str:
    if fault["type"] == "missing":
        return ". Add this key."
    if fault["type"] == "extra_forbidden":
        section: Any = RunConfig
        for part in fault["loc"][:-1]:  # a number is the place in a tuple[Section, ...]
            section = get_args(section)[0] if isinstance(part, int) else section.model_fields[part].annotation
        return f". Unknown key; known here: {', '.join(sorted(section.model_fields))}"
    return f" (value: {fault['input']!r})"


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected section.key=value")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a section")
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"--set {override}: the value is no YAML: {e}") from e
