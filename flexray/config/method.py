"""The settings of a method, and its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from flexray.config.data import Section


class MethodConfig(Section):
    LATER = ("do_sample", "match", "ties", "attention_temperature", "attention_scale")
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
    paraphrase_scale: Annotated[float, Field(allow_inf_nan=False)] | Literal["-log N"] = 0.0
    """Added to the attention scores of the answer for the paraphrases; "-log N" gives all N the weight of
    one."""
    samples: int = Field(default=8, ge=1, le=1000)
    """Answers drawn. sampled: for the first paraphrase; confidence: for each."""
    do_sample: bool = False
    """Draw each token instead of taking the most likely one. sampled and confidence do without."""
    temperature: float = Field(default=1.0, ge=1e-6, allow_inf_nan=False)
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
    attention_temperature: float = Field(default=0.9, gt=0, allow_inf_nan=False)
    """ape: T, which divides the answer's attention scores against the paraphrases; below 1 it looks at fewer
    of their tokens."""
    attention_scale: float = Field(default=0.9, gt=0)
    """ape: S, by which what the paraphrases weigh together is scaled. With 1 for both, ape is attention."""

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
