"""Paraphrases that are asked alone: the first one, each one, the most confident one."""

from __future__ import annotations

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.methods.method import Method, choices
from flexray.prompts.prompt import Prompt


def origin(config: MethodConfig) -> Method:
    """The first paraphrase only."""

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return (AttentionScope(0),)

    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=scopes,
        sampling=choices(config, scopes),
        attends_to_one=True,
    )


def per_prompt(config: MethodConfig) -> Method:
    """Each paraphrase by itself, an answer each."""
    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=each_alone,
        sampling=choices(config, each_alone),
        attends_to_one=True,
        answers="paraphrases",
    )


def most_confident(config: MethodConfig) -> Method:
    """weighted_max: the paraphrase of the highest confidence, the first of equals."""

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        assert prompt.confidences is not None
        return (AttentionScope(max(range(len(prompt.segments)), key=prompt.confidences.__getitem__)),)

    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=scopes,
        sampling=choices(config, scopes),
        attends_to_one=True,
        needs_confidences=True,
    )


def each_alone(prompt: Prompt) -> tuple[AttentionScope, ...]:
    """A sequence for each paraphrase."""
    return tuple(AttentionScope(i) for i in range(len(prompt.segments)))
