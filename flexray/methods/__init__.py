"""The ways to answer a question from its paraphrases, all by the same engine.

A method is a function here, from its configuration to a `Method`, and a line in METHODS. Its file is that of
its like: one that looks at all paraphrases at once, single ones, fused logits, drawn answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flexray.config import MethodConfig
from flexray.errors import ConfigError
from flexray.methods.fused_attention import attention
from flexray.methods.logits import average, maximum, weighted_average
from flexray.methods.method import GREEDY, Answers, Fusion, Method, SamplingParams
from flexray.methods.sampled import confidence, sampled
from flexray.methods.single import most_confident, origin, per_prompt

METHODS: dict[str, Callable[[MethodConfig], Method]] = {
    "attention": attention,
    "origin": origin,
    "per_prompt": per_prompt,
    "avg": average,
    "max": maximum,
    "weighted_avg": weighted_average,
    "weighted_max": most_confident,
    "sampled": sampled,
    "confidence": confidence,
}

_ATTENTION = ("layout", "positions", "cross_attention", "paraphrase_scale")
_SAMPLING = ("samples", "temperature", "top_p", "seed")


def make_methods(configs: Sequence[MethodConfig]) -> tuple[Method, ...]:
    """The methods of a run, in order.

    Raises:
        ConfigError: an unknown kind, a setting that its kind does not have, or a method twice.
    """
    methods: dict[str, Method] = {}
    for config in configs:
        if config.kind not in METHODS:
            raise ConfigError(f"methods: unknown kind {config.kind!r}; known: {', '.join(METHODS)}")
        samples = config.kind in ("sampled", "confidence")
        for settings, has_them, who in (
            (_ATTENTION, config.kind == "attention", "attention has"),
            (_SAMPLING, samples, "sampled and confidence have"),
        ):
            extra = [name for name in settings if name in config.model_fields_set]
            if extra and not has_them:
                raise ConfigError(f"methods: {config.kind} has no {', '.join(extra)}; only {who}")
        method = METHODS[config.kind](config)
        if method.name in methods:
            raise ConfigError(f"methods: {method.name} stands there twice. Remove one.")
        methods[method.name] = method
    return tuple(methods.values())


def answers_of(name: str) -> Answers:
    """What the sequences of a method are, by the `method` of its rows."""
    kind = name.partition("/")[0]
    return METHODS[kind](MethodConfig(kind=kind)).answers


__all__ = [
    "GREEDY",
    "METHODS",
    "Answers",
    "Fusion",
    "Method",
    "SamplingParams",
    "answers_of",
    "make_methods",
]
