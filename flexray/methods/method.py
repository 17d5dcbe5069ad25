"""What a method is to the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flexray.config import MethodConfig
from flexray.errors import ConfigError
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.prompts.prompt import Prompt

Fusion = Literal["mean", "max", "mean_prob", "nbce"]
"""How the sequences of one answer choose each token together. mean: the best of the weighted mean of their
logits; max: of the elementwise maximum of their probabilities (softmax each); mean_prob: of the weighted mean
of these; nbce: of the surest one's log probabilities, times its weight, and those of the sequence of negative
weight, which sees no paraphrase, times that."""

Answers = Literal["one", "paraphrases", "samples", "rated"]
"""What the sequences of a row are. one: one answer, however many sequences it is made of; paraphrases: one
for each paraphrase; samples: some of the same; rated: for each paraphrase one, and behind it those that it
is compared with. Of several the most frequent counts (see flexray.evaluation.output_rows)."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one sequence chooses its tokens. With equal params, the same row always draws the same tokens."""

    temperature: float = 0.0  # 0: greedy, the token of the highest logit
    top_p: float = 1.0  # below 1: draw from the likeliest tokens that together have this probability
    seed: int = 0
    index: int = 0  # of the draw, in its method


GREEDY = SamplingParams()


def sampling_params(
    config: MethodConfig, count: int, *, together: bool = False
) -> tuple[SamplingParams, ...]:
    """How `count` sequences draw, each with numbers of its own; or all with the same, as they choose
    together."""
    return tuple(
        SamplingParams(config.temperature, config.top_p, config.seed, 0 if together else index)
        for index in range(count)
    )


def choices(
    config: MethodConfig, scopes: Callable[[Prompt], tuple[AttentionScope, ...]], *, together: bool = False
) -> Callable[[Prompt], tuple[SamplingParams, ...]] | None:
    """The `sampling` of a method that draws with `do_sample` only; see `Method` and `sampling_params`."""
    if config.do_sample:
        return lambda prompt: sampling_params(config, len(scopes(prompt)), together=together)
    if unused := sorted({"temperature", "top_p", "seed"} & config.model_fields_set):
        raise ConfigError(f"methods: {config.kind} has no {', '.join(unused)} without `do_sample: true`")
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A shared prefix, and the sequences that continue it."""

    name: str
    """The `method` of each output row."""
    prefix: SharedPrefix
    scopes: Callable[[Prompt], tuple[AttentionScope, ...]]
    """One for each sequence of a prompt."""
    answers: Answers = "one"
    fusion: Fusion | None = None
    """None: each sequence chooses for itself."""
    sampling: Callable[[Prompt], tuple[SamplingParams, ...]] | None = None
    """One for each sequence. None: all are greedy."""
    weights: Callable[[Prompt], tuple[float, ...]] | None = None
    """Of the sequences in a fusion, which sum to 1 in each answer. None: equal."""
    groups: Callable[[Prompt], tuple[int, ...]] | None = None
    """Of each sequence in a fusion the answer that it makes with the others of the same number, from 0 on.
    None: all make one."""
    records_subsets: bool = False
    """Whether each answer says which paraphrases it is made from, in the order of its scopes."""
    needs_confidences: bool = False
    biased: bool = False
    """Whether a scope may have a bias."""
    attends_to_one: bool = False
    """Whether each scope names the one paraphrase that is attended to."""

    def answer_numbers(self, prompt: Prompt, count: int) -> tuple[int, ...]:
        """Of each of so many sequences the answer that it makes, alone or with others, from 0 on."""
        if self.fusion is None:
            return tuple(range(count))
        return self.groups(prompt) if self.groups else (0,) * count

    def weights_of(self, prompt: Prompt, answer_numbers: Sequence[int]) -> tuple[float, ...]:
        """The weight of each sequence in its answer."""
        if self.weights:
            return self.weights(prompt)
        if self.fusion is None:
            return (1.0,) * len(answer_numbers)
        sizes = Counter(answer_numbers)
        return tuple(1 / sizes[number] for number in answer_numbers)
