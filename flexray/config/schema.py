"""The settings of a run, except those of its data, which are in config/data.py.

Unknown keys, wrong types and values out of range are errors that name the key.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from flexray.config.data import DataConfig, FewShotData, Files, Section
from flexray.config.evaluation import EvaluationConfig
from flexray.config.plugins import load_plugins

PathOrUrl = Annotated[str, AfterValidator(os.path.expanduser)]  # a leading ~ is the home folder
MAX_PATH, MAX_KEY = 4095, 1024  # bytes of a local path, and of a key of an object store
Backend = Literal["flex", "sdpa", "eager"]
MAX_LOGPROBS = 20
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


class FewShot(Section):
    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    """Other wordings of the question. With some, the few-shot is asked as a row is: the question, its first
    paraphrase, and these are isolated from each other, and the answer looks at all of them."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The question and its paraphrases."""
        return (self.question, *self.paraphrases)

    @model_validator(mode="after")
    def _some_text(self) -> FewShot:
        if self.paraphrases and not all(text.strip() for text in self.asked):
            raise ValueError("paraphrases: neither the question nor one of them may be empty. Leave it out")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        if not self.paraphrases:  # as in fingerprints and records from before the key
            tree.pop("paraphrases", None)
        return tree


class PromptConfig(Section):
    chat: bool = False
    """For instruct models: use the tokenizer's chat template. The instruction is the system message,
    few-shots are user and assistant turns, the question is the last user turn. Templates that write a date
    get 26 July 2024; thinking is off in templates that have a switch for it."""
    instruction: str = ""
    """The beginning of the context."""
    few_shots: tuple[FewShot, ...] = ()
    """Questions with answers, which follow the instruction in this order."""
    few_shot_data: FewShotData | None = None
    """Instead of few_shots: draw them from other rows."""
    few_shot_sets: tuple[tuple[FewShot, ...], ...] = ()
    """Instead of few_shots, for `flexray paraphrase`: samples are drawn with each of these sets, in a run of
    its own in the folder `set-0`, `set-1` and so on of the output."""
    question_template: str = "\nQ: {question}"
    """The text of a paraphrase, in a segment and in a few-shot. docs/algorithm.md, Boundaries, says where its
    tokens begin and end. With chat: the whole turn, by default "{question}"."""
    answer_prefix: str = "\nA:"
    """The text that an answer follows, also in a few-shot. With chat: none."""
    add_bos: bool = True
    """Begin the context with BOS, if the model's folder names one. With chat the template decides."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_chat(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("chat") is True:
            return {"question_template": "{question}", "answer_prefix": "", **tree}
        return tree

    @field_validator("answer_prefix")
    @classmethod
    def _opens_the_answer(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("chat"):
            if value:
                raise ValueError(
                    'with prompt.chat the template opens the answer. Leave answer_prefix out, or set it to ""'
                )
        elif not value:
            raise ValueError("must not be empty without prompt.chat")
        return value

    @field_validator("question_template")
    @classmethod
    def _has_slot(cls, value: str) -> str:
        if value.count("{question}") != 1:
            raise ValueError("needs the slot {question} exactly once")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> PromptConfig:
        sources = {key: getattr(self, key) for key in ("few_shots", "few_shot_data", "few_shot_sets")}
        given = [key for key, value in sources.items() if value not in ((), None)]
        if len(given) > 1:
            one, other = given[:2]
            raise ValueError(f"{one} and {other}: give one of them, and set the other to [] or null")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        if not self.few_shot_sets:  # as in fingerprints and records from before the key
            tree.pop("few_shot_sets", None)
        return tree


class MethodConfig(Section):
    kind: str = "attention"
    """attention, ape, concat, origin, per_prompt, vote, avg, max, mean_prob, nbce, weighted_avg,
    weighted_max, draws, sampled, confidence, or a registered method. The next four settings are for
    attention, samples for sampled and confidence; do_sample and those up to seed for all but draws (seed for
    it, too), draws and those up to beta for draws and nbce, the last two for ape."""
    layout: Literal["shared_context", "full_prompt", "myriadlama"] = "shared_context"
    """full_prompt: each paraphrase has its own copy of the context. myriadlama: shared_context that
    distinguishes manual and automatic templates."""
    positions: Literal["restart", "continuous"] = "restart"
    """restart: each paraphrase starts right after the context, the answer after the longest."""
    cross_attention: bool = False
    """myriadlama: each manual template sees the manual templates before it."""
    paraphrase_scale: float | Literal["-log N"] = 0.0
    """Added to the attention scores of the answer for the paraphrases; "-log N" gives all N the weight of
    one."""
    samples: int = Field(default=8, ge=1, le=1000)
    """Answers drawn. sampled: for the first paraphrase; confidence: for each."""
    do_sample: bool = False
    """Draw each token instead of taking the most likely one. sampled and confidence do without."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits before an answer is drawn."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Tokens are drawn from the most likely ones that together have this probability (below 1: of 1,024)."""
    seed: int = Field(default=0, ge=0)
    """This and the row's id determine what is drawn."""
    match: str = "exact_match"
    """confidence: the metric that compares drawn answers with the greedy one; its mean is the confidence."""
    ties: Literal["first", "logprob"] = "first"
    """vote: which of the most frequent answers counts: the first, or the one whose log-probabilities have the
    highest sum, for which generation.logprobs must be set."""
    draws: Annotated[int, Field(ge=1, le=1000)] | Literal["leave_one_out"] = 8
    """Subsets of the paraphrases that are drawn, an answer each. leave_one_out: all but the first, all but
    the second, and so on."""
    size: int = Field(default=5, ge=1)
    """Paraphrases in a subset; of a question that has fewer, all."""
    fusion: Literal["attention", "avg", "max"] = "attention"
    """How the paraphrases of a subset make one answer: as the method of this name."""
    beta: float = Field(default=0.25, ge=0)
    """How much the prediction without any paraphrase counts against those with one."""
    attention_temperature: float = Field(default=0.9, gt=0)
    """ape: T, which divides the answer's attention scores against the paraphrases; below 1 it looks at fewer
    of their tokens."""
    attention_scale: float = Field(default=0.9, gt=0)
    """ape: S, by which what the paraphrases weigh together is scaled. With 1 for both, ape is attention."""

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As in records from before the keys."""
        tree: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        since = "do_sample", "match", "ties", "attention_temperature", "attention_scale"
        later = [key for key in since if getattr(self, key) == fields[key].default]
        return {key: value for key, value in tree.items() if key not in later}

    @model_validator(mode="after")
    def _crossing(self) -> MethodConfig:
        if self.cross_attention and self.layout != "myriadlama":
            raise ValueError("cross_attention: only layout myriadlama knows manual templates")
        return self

    @model_validator(mode="after")
    def _sequences(self) -> MethodConfig:
        if self.fusion != "attention" and self.draws != "leave_one_out" and self.draws * self.size > 2000:
            raise ValueError(
                f"draws and size: {self.draws} x {self.size} sequences a question, of at most 2000. Lower one"
            )
        return self

    @property
    def name(self) -> str:
        """The `method` of each output row. It tells all settings, as methods of one name are one column of a
        table."""
        if self.kind != "attention":
            fields = type(self).model_fields
            set_here = {key: value for key, value in self if key != "kind" and value != fields[key].default}
            return "/".join([self.kind, *(_setting(key, value) for key, value in set_here.items())])
        parts = ["attention", self.layout, self.positions]
        parts += ["cross"] * self.cross_attention
        parts += [f"scale {self.paraphrase_scale}"] if self.paraphrase_scale else []
        fields = {key: type(self).model_fields[key] for key in ("do_sample", "temperature", "top_p", "seed")}
        parts += [
            _setting(key, getattr(self, key))
            for key, field in fields.items()
            if getattr(self, key) != field.default
        ]
        return "/".join(parts)

    @property
    def copies_context(self) -> bool:
        """Whether each paraphrase has a copy of the context at its own positions."""
        return self.kind == "attention" and self.layout == "full_prompt" and self.positions == "continuous"

    @property
    def runs_on(self) -> bool:
        """Whether the positions of the paraphrases follow one another, so that all of them count."""
        return self.kind == "concat" or (self.kind == "attention" and self.positions == "continuous")

    @property
    def draws_tokens(self) -> bool:
        """Whether tokens are drawn at random."""
        return self.do_sample or self.kind in ("sampled", "confidence")

    @property
    def max_paraphrases(self) -> int:
        """The most paraphrases of a question: each is a bit of a number where a sequence sees some of them
        only, and sequences are counted in 11 bits."""
        if self.kind == "nbce" or (self.kind == "draws" and self.fusion == "attention"):
            return 63
        return 45 if self.kind == "draws" and self.draws == "leave_one_out" else 2047


def _setting(key: str, value: Any) -> str:
    return key if key == "do_sample" else f"{key} {_spelled(value)}"


def _spelled(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _exact(value) if is_number else str(value)


def _exact(number: float) -> str:
    """The number with six digits (2 for 2.0), or with all if it needs more: each number has another text."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


FIRST_KEYS = ("max_new_tokens", "stop_at_newline")
CHANGES_CHOICE = ("stop", "min_new_tokens", "repetition_penalty")
"""Keys of `generation` that say how tokens are chosen and when an answer ends."""


class GenerationConfig(Section):
    max_new_tokens: int = Field(default=16, ge=1)
    """The most tokens of an answer."""
    stop_at_newline: bool = True
    """End an answer also at its first line break, not only where the model ends it."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, which goes up to the first of them. A single one needs no list."""
    min_new_tokens: int = Field(default=0, ge=0)
    """Before an answer has so many tokens, none is chosen that ends it: EOS, or a line break if that does.
    Texts of `stop` end it nevertheless."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1, tokens that the answer sees or that it has already are less likely: their logits are divided
    by this if above 0, else multiplied."""
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    """Write the log-probability of each generated token, and of the so many most likely ones; 0: of none
    besides. null: no log-probabilities."""
    candidates: Literal["row"] | tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    """Answers to choose among, instead of generating: the one of the highest score is the prediction. A list
    for all rows; a list for each relation; or `row`: those in the row's `data.fields.candidates`."""
    length_penalty: float = 1.0
    """A candidate's score is the sum of its tokens' log-probabilities, divided by their number to the power
    of this. 1: their mean; 0: their sum."""

    @property
    def num_logprobs(self) -> int | None:
        """`logprobs`; those of the tokens themselves are also what candidates are scored by."""
        return 0 if self.logprobs is None and self.candidates is not None else self.logprobs

    @field_validator("candidates")
    @classmethod
    def _some_candidates(cls, value: Any) -> Any:
        lists = value if isinstance(value, dict) else {"": value} if isinstance(value, tuple) else {}
        for relation, texts in lists.items():
            of = f"{relation!r}: " if relation else ""
            if not texts or not all(text.strip() for text in texts):
                raise ValueError(f"{of}a list of texts is needed, none of them empty")
            if again := next((text for i, text in enumerate(texts) if text in texts[:i]), None):
                raise ValueError(f"{of}{again!r} stands there twice. Remove one")
        return value

    @model_validator(mode="after")
    def _chooses_or_generates(self) -> GenerationConfig:
        fields = type(self).model_fields
        changed = [key for key in CHANGES_CHOICE if getattr(self, key) != fields[key].default]
        if self.candidates is not None and changed:
            raise ValueError(f"candidates are scored as they are, so {changed[0]} has no effect. Remove it")
        if self.candidates is None and self.length_penalty != 1:
            raise ValueError("length_penalty has no effect without candidates. Remove it, or give some")
        return self

    @field_validator("stop", mode="before")
    @classmethod
    def _some_text(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else value
        if isinstance(texts, list | tuple) and "" in texts:
            raise ValueError('"" would end every answer before it begins. Leave it out')
        return texts

    @model_validator(mode="after")
    def _leaves_room(self) -> GenerationConfig:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens ({self.min_new_tokens}) is above max_new_tokens ({self.max_new_tokens}). "
                "Lower one, or raise the other"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As in fingerprints and records from before a key."""
        tree: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        later = [key for key in tree if key not in FIRST_KEYS and getattr(self, key) == fields[key].default]
        return {key: value for key, value in tree.items() if key not in later}


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
        if self.generation.num_logprobs is None and any(method.ties == "logprob" for method in self.methods):
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
