"""The settings that say how answers are scored."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from flexray.config.data import Section


class EvaluationConfig(Section):
    """How answers are scored. No answer depends on it: `flexray evaluate` scores a run anew by other settings
    (`--set evaluation.headline=contains`)."""

    metrics: tuple[str, ...] | None = None
    """exact_match, f1, contains (an accepted answer stands in the prediction as whole words), first_line
    (exact match of the first line), first_word_match, lemma_match (as contains, of lemmas), lemma_either
    (also a prediction that stands in an answer), numeric, extract, or those that plug-ins register. null:
    exact_match, f1, contains, lemma_match, first_word_match, extract if it is set, and all that plug-ins
    register."""
    headline: str = "exact_match"
    """The metric by which methods are compared; it is always among the metrics."""
    extract: str | None = Field(default=None, min_length=1)
    """Of the metric extract: a regular expression that is searched in the prediction, such as
    "answer is (.+)". Its first group, or all that it matches, must be an accepted answer."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Of the metric numeric: how far a number may be from the accepted one, as a share of that."""

    @field_validator("metrics", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("extract")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except (re.error, RecursionError, OverflowError) as e:
                raise ValueError(f"is no regular expression: {e}") from e
        return value

    @model_validator(mode="after")
    def _has_its_pattern(self) -> EvaluationConfig:
        if self.extract is None and "extract" in (self.headline, *(self.metrics or ())):
            raise ValueError("the metric extract needs the regular expression `extract`. Set it")
        return self
