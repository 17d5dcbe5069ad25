"""Answers drawn at random: to write paraphrases with, and to learn how sure the model is."""

from __future__ import annotations

from flexray.config import MethodConfig
from flexray.masks.layout import Trunk, View
from flexray.methods.method import Choice, Draw, Method
from flexray.types import Prompt


def sampled(config: MethodConfig) -> Method:
    """So many answers to the first paraphrase; the most frequent one counts (self-consistency, Wang et al.
    2022, arXiv:2203.11171)."""
    draws = _draws(config, config.samples)
    return Method(
        name=config.name,
        trunk=Trunk(),
        views=lambda prompt: (View(0),) * config.samples,
        answers="samples",
        choice=_choice(config),
        draws=lambda prompt: draws,
    )


def confidence(config: MethodConfig) -> Method:
    """Of each paraphrase alone the greedy answer, and so many drawn ones behind it: the share of those that
    match the greedy one is its confidence."""

    def views(prompt: Prompt) -> tuple[View, ...]:
        return tuple(View(i) for i in range(len(prompt.segments)) for _ in range(1 + config.samples))

    def draws(prompt: Prompt) -> tuple[Draw, ...]:
        drawn = iter(_draws(config, len(prompt.segments) * config.samples))
        each = [(Draw(0), *(next(drawn) for _ in range(config.samples))) for _ in prompt.segments]
        return tuple(draw for group in each for draw in group)

    return Method(
        name=config.name, trunk=Trunk(), views=views, answers="rated", choice=_choice(config), draws=draws
    )


def _choice(config: MethodConfig) -> Choice:
    return "nucleus" if config.top_p < 1 else "sample"


def _draws(config: MethodConfig, count: int) -> tuple[Draw, ...]:
    return tuple(Draw(number, config.temperature, config.top_p, config.seed) for number in range(count))
