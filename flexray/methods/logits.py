"""Fusion of logits: each paraphrase is asked alone, and all choose each token together."""

from __future__ import annotations

from collections.abc import Callable

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.methods.method import Fusion, Method, choices
from flexray.methods.single import each_alone
from flexray.prompts.prompt import Prompt


def average(config: MethodConfig) -> Method:
    """avg: the mean of the raw logits."""
    return _fused(config, "mean")


def maximum(config: MethodConfig) -> Method:
    """max: softmax each, then the elementwise maximum."""
    return _fused(config, "max")


def weighted_average(config: MethodConfig) -> Method:
    """weighted_avg: the mean of the raw logits, weighted by confidence (equal weights if all are 0)."""

    def weights(prompt: Prompt) -> tuple[float, ...]:
        assert prompt.confidences is not None
        total = sum(prompt.confidences)
        if not total:
            return (1 / len(prompt.segments),) * len(prompt.segments)
        return tuple(c / total for c in prompt.confidences)

    return _fused(config, "mean", by_confidence=weights)


def mean_prob(config: MethodConfig) -> Method:
    """mean_prob: softmax each, then the mean."""
    return _fused(config, "mean_prob")


def _fused(
    config: MethodConfig,
    fusion: Fusion,
    *,
    by_confidence: Callable[[Prompt], tuple[float, ...]] | None = None,
) -> Method:
    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=each_alone,
        sampling=choices(config, each_alone, together=True),
        attends_to_one=True,
        fusion=fusion,
        weights=by_confidence,
        needs_confidences=by_confidence is not None,
    )


def nbce(config: MethodConfig) -> Method:
    """Naive Bayes-based context extension (Su 2023): of the paraphrase of least entropy the log probabilities
    times 1 + beta, less beta times those without any paraphrase."""

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return (*each_alone(prompt), AttentionScope(subset=()))

    def weights(prompt: Prompt) -> tuple[float, ...]:
        return (*(1 + config.beta for _ in prompt.segments), -config.beta)

    return Method(
        name=config.name,
        prefix=SharedPrefix(apart=True),
        scopes=scopes,
        sampling=choices(config, scopes, together=True),
        fusion="nbce",
        weights=weights,
    )
