"""The settings of a run; those of data, prompt, methods and generation have files of their own.

Unknown keys, wrong types and values out of range are errors that name the key.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    field_validator,
    model_validator,
)

from flexray.config.data import DataConfig, Files, Section
from flexray.config.evaluation import EvaluationConfig
from flexray.config.generation import GenerationConfig
from flexray.config.method import MethodConfig
from flexray.config.plugins import load_plugins
from flexray.config.prompt import PromptConfig

PathOrUrl = Annotated[str, AfterValidator(os.path.expanduser)]  # a leading ~ is the home folder
MAX_PATH, MAX_KEY = 4095, 1024  # bytes of a local path, and of a key of an object store
Backend = Literal["flex", "sdpa", "eager"]
NAME_BELOW = 350  # bytes of the longest path within an output folder


class ModelConfig(Section):
    path: PathOrUrl
    """Folder of a LLaMA checkpoint with safetensors and a tokenizer; or owner/name@revision, a model of the
    Hugging Face hub as this machine's cache has it. A folder that exists wins."""
    lora: Files = ()
    """Folders of LoRA adapters in PEFT's format (adapter_config.json, adapter_model.safetensors), merged into
    the weights in this order when the model is loaded. Tokenizer and chat template stay the model's."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on GPU, float32 on CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if torch finds one, else the CPUs."""
    quantization: Literal["fp8"] | None = None
    """fp8: weights (when loaded) and activations of the decoder's linear layers in 8 bits (e4m3, a scale for
    each output channel and token). Answers differ a little: docs/results.md."""
    trust_remote_code: bool = False
    """Run Python code from the tokenizer's folder, never from the hub. Leave off unless you wrote it."""


class EngineConfig(Section):
    backend: Backend = "flex"
    """What computes attention: flex (compiled FlexAttention), sdpa or eager. If one fails, the next is
    used."""
    strict: bool = False
    """Fail the run instead of falling back to another backend."""
    deterministic: bool = True
    """A row's answer depends on the row alone, bit for bit, not on what is computed beside it: every prefill
    pass and decode batch is padded to one size. false: to sizes that suit a few rows."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """The most questions in work at once, and sequences in a decoding batch, as memory allows. null: on GPU
    2,048 questions in batches of 512, on CPU 32."""
    max_num_batched_tokens: int | None = Field(default=None, ge=128)
    """The most tokens of a packed prefill pass. null: 8192 on GPU, 512 on CPU; if not deterministic, 32768
    and 2048."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU memory free after loading the weights that KV cache and activations may take."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs of one node that hold a model together, each a part of every layer: as many must divide its heads,
    its key/value heads and its intermediate size. On CPUs as many processes."""
    share_prefixes: bool = True
    """Compute once what the paraphrases of a question begin with alike: the same answers with less work."""


class RayConfig(Section):
    address: str | None = None
    """An existing cluster ("auto" or ray://...). null: RAY_ADDRESS if set, else start one here."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of the Ray started here. null: all of this machine's."""
    object_store_mb: int | None = Field(default=None, ge=80)
    """Size of the object store of the Ray started here, in MiB. null: Ray's default."""
    min_actors: int = Field(default=1, ge=1)
    """Engines that are started at once; each is a process that holds the model."""
    max_actors: int | None = Field(default=None, ge=1)
    """The most engines, if the cluster has room and there are shards for them. null: one for each GPU that
    the cluster has when the run starts; without GPUs min_actors."""
    num_gpus_per_actor: float | None = Field(default=None, ge=0)
    """null: engine.tensor_parallel if the cluster has a GPU when the run starts, else 0."""
    num_cpus_per_actor: float = Field(default=1, gt=0)
    """CPUs that Ray reserves for an engine; half as many if none would be left for reading and committing."""

    @model_validator(mode="after")
    def _possible(self) -> RayConfig:
        gpus = self.num_gpus_per_actor
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"num_gpus_per_actor ({gpus:g}): above 1 it must be a whole number")
        if self.max_actors is not None and self.max_actors < self.min_actors:
            raise ValueError(f"max_actors ({self.max_actors}) is below min_actors ({self.min_actors})")
        return self


class LimitsConfig(Section):
    """Above these shares the job exits with 1; its output is complete nevertheless."""

    max_error_share: float = Field(default=0.05, ge=0, le=1)
    """Share of the rows that may be errors."""
    max_fallback_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the rows that may be answered by another backend than the configured one."""
    stop_early: bool = True
    """End a run, with the reason, if most of its first 200 rows are errors or empty answers. What is
    committed stays."""


class RunConfig(Section):
    output: PathOrUrl
    """Folder or URL of the output: data, manifests, plan."""
    data: DataConfig
    model: ModelConfig
    prompt: PromptConfig = PromptConfig()
    methods: tuple[MethodConfig, ...] = Field(default=(MethodConfig(),), min_length=1)
    """Each method answers every question. A method is given by its kind alone, or by its settings."""
    generation: GenerationConfig = GenerationConfig()
    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ray: RayConfig = RayConfig()
    plugins: tuple[str, ...] = ()
    """Modules or Python files that register methods, data set adapters or metrics."""

    @field_validator("plugins")
    @classmethod
    def _load(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        load_plugins(value)
        return value

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        load_plugins(self.plugins)  # also in Ray's workers

    @model_validator(mode="after")
    def _a_gpu_a_rank(self) -> RunConfig:
        gpus, ranks = self.ray.num_gpus_per_actor, self.engine.tensor_parallel
        if ranks > 1 and gpus not in (None, 0, ranks):
            raise ValueError(
                f"ray.num_gpus_per_actor is {gpus:g}, but engine.tensor_parallel {ranks} takes as many GPUs. "
                "Leave ray.num_gpus_per_actor out"
            )
        return self

    @model_validator(mode="after")
    def _ties_can_be_broken(self) -> RunConfig:
        if self.generation.logprobs is None and any(method.ties == "logprob" for method in self.methods):
            raise ValueError(
                "methods: vote with ties: logprob needs log-probabilities. Set generation.logprobs"
            )
        return self

    @model_validator(mode="after")
    def _candidates_are_there(self) -> RunConfig:
        if self.generation.candidates is None:
            return self
        if drawn := [method.name for method in self.methods if method.draws_tokens]:
            raise ValueError(
                f"methods: {drawn[0]} draws its answers, but generation.candidates gives them. Remove one"
            )
        if self.generation.candidates == "row" and not self.data.fields.candidates:
            raise ValueError(
                "generation.candidates: row needs the field that has them. Set data.fields.candidates"
            )
        return self

    @field_validator("output")
    @classmethod
    def _leaves_room(cls, value: str) -> str:
        path, most = (value, MAX_KEY) if "://" in value else (os.path.abspath(value), MAX_PATH)
        if (size := len(path.encode()) - most + NAME_BELOW) > 0:
            raise ValueError(f"too long by {size} bytes for the names of the files in it. Shorten it")
        return value

    @field_validator("methods", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        methods = value if isinstance(value, list | tuple) else (value,)
        return tuple({"kind": m} if isinstance(m, str) else m for m in methods)
