"""Answers drawn at random: to write paraphrases with, and to learn how sure the model is."""

from __future__ import annotations

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.methods.method import GREEDY, Method, SamplingParams, sampling_params
from flexray.prompts.prompt import Prompt


def sampled(config: MethodConfig) -> Method:
    """So many answers to the first paraphrase; the most frequent one counts (self-consistency, Wang et al.
    2022, arXiv:2203.11171)."""
    drawn = sampling_params(config, config.samples)
    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=lambda prompt: (AttentionScope(0),) * config.samples,
        attends_to_one=True,
        answers="samples",
        sampling=lambda prompt: drawn,
    )


def confidence(config: MethodConfig) -> Method:
    """Of each paraphrase alone the greedy answer, and so many drawn ones behind it: the share of those that
    match the greedy one is its confidence."""

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return tuple(
            AttentionScope(i) for i in range(len(prompt.segments)) for _ in range(1 + config.samples)
        )

    def sampling(prompt: Prompt) -> tuple[SamplingParams, ...]:
        drawn = iter(sampling_params(config, len(prompt.segments) * config.samples))
        each = [(GREEDY, *(next(drawn) for _ in range(config.samples))) for _ in prompt.segments]
        return tuple(params for of_paraphrase in each for params in of_paraphrase)

    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=scopes,
        attends_to_one=True,
        answers="rated",
        sampling=sampling,
    )
