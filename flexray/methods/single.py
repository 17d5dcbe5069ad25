"""Paraphrases that are asked alone: the first one, each one, the most confident one."""

from __future__ import annotations

from flexray.config import MethodConfig
from flexray.masks.layout import Trunk, View
from flexray.methods.method import Method
from flexray.types import Prompt


def origin(config: MethodConfig) -> Method:
    """The first paraphrase only."""
    return Method(name=config.name, trunk=Trunk(), views=lambda prompt: (View(0),))


def per_prompt(config: MethodConfig) -> Method:
    """Each paraphrase by itself, an answer each."""
    return Method(name=config.name, trunk=Trunk(), views=each_alone, answers="paraphrases")


def most_confident(config: MethodConfig) -> Method:
    """weighted_max: the paraphrase of the highest confidence, the first of equals."""

    def views(prompt: Prompt) -> tuple[View, ...]:
        assert prompt.confidences is not None
        return (View(max(range(len(prompt.segments)), key=prompt.confidences.__getitem__)),)

    return Method(name=config.name, trunk=Trunk(), views=views, needs_confidences=True)


def each_alone(prompt: Prompt) -> tuple[View, ...]:
    """A branch for each paraphrase."""
    return tuple(View(i) for i in range(len(prompt.segments)))
