"""The settings of answers: how long they are, what ends them, what is told of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from flexray.config.data import Section

MAX_LOGPROBS = 20
CHANGES_CHOICE = ("stop", "min_new_tokens", "repetition_penalty")
"""Keys of `generation` that say how tokens are chosen and when an answer ends."""


class GenerationConfig(Section):
    LATER = (*CHANGES_CHOICE, "logprobs", "candidates", "length_penalty")
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
    length_penalty: float = Field(default=1.0, ge=-10, le=10, allow_inf_nan=False)
    """A candidate's score is the sum of its tokens' log-probabilities, divided by their number to the power
    of this. 1: their mean; 0: their sum."""

    @property
    def num_logprobs(self) -> int | None:
        """`logprobs`; those of the tokens themselves are also what candidates are scored by."""
        return 0 if self.logprobs is None and self.candidates is not None else self.logprobs

    @field_validator("candidates")
    @classmethod
    def _some_candidates(cls, value: Any) -> Any:
        if value == {}:
            raise ValueError("a relation's list is needed. Give some, or leave the key out")
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
