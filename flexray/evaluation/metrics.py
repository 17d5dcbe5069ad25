"""The metrics by name: those that are built in, and those that `register_metric` adds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from flexray.config import EvaluationConfig
from flexray.config.plugins import load_entry_points
from flexray.errors import ConfigError
from flexray.evaluation.answer_metrics import (
    Lemmatizer,
    contains,
    exact_match,
    extracted_match,
    find_lemmatizer,
    first_line_match,
    first_word_match,
    lemma_either,
    lemma_match,
    token_f1,
)
from flexray.evaluation.numeric import numeric_match

Metric = Callable[[str, Sequence[str]], float]
"""From a prediction and its accepted answers to a number from 0 to 1; NaN where the metric does not apply."""

EXACT_MATCH = "exact_match"
DEFAULT = (EXACT_MATCH, "f1", "contains", "lemma_match", "first_word_match")
TITLES = {
    EXACT_MATCH: "exact match",
    "f1": "F1",
    "lemma_match": "lemmas",
    "lemma_either": "lemmas either",
    "first_word_match": "first word",
    "first_line": "first line",
}
_BUILT_IN: dict[str, Callable[[EvaluationConfig, Lemmatizer], Metric]] = {
    EXACT_MATCH: lambda config, lemmatizer: exact_match,
    "f1": lambda config, lemmatizer: token_f1,
    "contains": lambda config, lemmatizer: contains,
    "first_line": lambda config, lemmatizer: first_line_match,
    "first_word_match": lambda config, lemmatizer: _or_nan(first_word_match),
    "lemma_match": lambda config, lemmatizer: partial(lemma_match, lemmatizer=lemmatizer),
    "lemma_either": lambda config, lemmatizer: partial(lemma_either, lemmatizer=lemmatizer),
    "numeric": lambda config, lemmatizer: _or_nan(partial(numeric_match, tolerance=config.tolerance)),
    "extract": lambda config, lemmatizer: partial(extracted_match, pattern=re.compile(config.extract or "")),
}
FLAGS = frozenset(_BUILT_IN) - {"f1"}
"""Metrics that are 0, 1 or NaN."""
_REGISTERED: dict[str, Metric] = {}


def register_metric(name: str, function: Metric) -> None:
    """Have `evaluate` print, compare and write another metric.

    Raises:
        ConfigError: there is a metric of this name.
    """
    if name in _BUILT_IN or name in _REGISTERED:
        raise ConfigError(f"metric {name!r}: there is one of this name already. Register it by another one.")
    _REGISTERED[name] = function


@lru_cache(maxsize=1)
def _load_installed() -> None:
    """Register the metrics of installed packages, by their entry points; once in a process."""
    load_entry_points("metrics", register_metric)


def make_metrics(config: EvaluationConfig, lemmatizer: Lemmatizer) -> dict[str, Metric]:
    """The chosen metrics by name, the headline metric first. Each checks what it gives: it raises ConfigError
    if that is no number from 0 to 1, nor NaN.

    Raises:
        ConfigError: there is no metric of a name.
    """
    _load_installed()
    names = config.metrics
    if names is None:
        names = (*DEFAULT, *(["extract"] if config.extract else []), *_REGISTERED)
    found: dict[str, Metric] = {}
    for name in dict.fromkeys((config.headline, *names)):
        if name in _BUILT_IN:
            found[name] = _BUILT_IN[name](config, lemmatizer)
        elif name in _REGISTERED:
            found[name] = partial(_checked, name, _REGISTERED[name])
        else:
            key = "headline" if name == config.headline else "metrics"
            raise ConfigError(
                f"evaluation.{key}: there is no metric {name!r}. There are: "
                f"{', '.join((*_BUILT_IN, *_REGISTERED))}. One of a plug-in's is there if the recipe names "
                "the plug-in under `plugins`; for `flexray evaluate`, --plugin."
            )
    return found


@lru_cache(maxsize=16)
def find_metric(name: str) -> Metric:
    """One metric, with the settings that it has by default. It checks what it gives as those of
    `make_metrics` do.

    Raises:
        ConfigError: there is none of this name, or it has no default settings.
    """
    _load_installed()
    known = [metric for metric in (*_BUILT_IN, *_REGISTERED) if metric != "extract"]
    if name not in known:
        raise ConfigError(f"metric {name!r} is unknown. Known: {', '.join(known)}.")
    return make_metrics(EvaluationConfig(metrics=(name,), headline=name), find_lemmatizer())[name]


def title(metric: str) -> str:
    """Its name as it is printed."""
    return TITLES.get(metric, metric)


def _or_nan(function: Callable[[str, Sequence[str]], bool | None]) -> Metric:
    def metric(prediction: str, answers: Sequence[str]) -> float:
        found = function(prediction, answers)
        return math.nan if found is None else found

    return metric


def _checked(name: str, function: Metric, prediction: str, answers: Sequence[str]) -> float:
    found = function(prediction, answers)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if value < 0 or value > 1:
        raise ConfigError(
            f"metric {name!r}: gives {str(found)[:80]!r} for the prediction {prediction[:80]!r}. It must "
            "give a number from 0 to 1, or NaN where it does not apply."
        )
    return value
