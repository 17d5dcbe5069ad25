"""One sequence that attends to all paraphrases: fusion inside attention, and plain concatenation."""

from __future__ import annotations

import functools
import math

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.methods.method import Method, choices
from flexray.prompts.prompt import Prompt


def attention(config: MethodConfig) -> Method:
    """The layouts shared_context, full_prompt and myriadlama, positions, and the paraphrases' scale.

    In full_prompt with restarting positions the N equal copies of the context are one that weighs N times
    as much (see flexray.masks.layout).
    """
    copies = config.copies_context
    equal_copies = config.layout == "full_prompt" and not copies

    @functools.cache
    def scopes_of(count: int) -> tuple[AttentionScope, ...]:
        log_n = math.log(count)
        scale = -log_n if config.paraphrase_scale == "-log N" else config.paraphrase_scale
        # a segment of full_prompt is the whole prompt: what scales it scales its copy of the context
        context = log_n + scale if equal_copies else 0.0
        return (AttentionScope(None, context, scale),)

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return scopes_of(len(prompt.segments))

    return Method(
        name=config.name,
        prefix=SharedPrefix(
            copies=copies,
            continuous=config.positions == "continuous",
            joined_manual=config.cross_attention,
        ),
        scopes=scopes,
        sampling=choices(config, scopes),
        biased=equal_copies or bool(config.paraphrase_scale),
    )


def ape(config: MethodConfig) -> Method:
    """Adaptive parallel encoding (Yang et al. 2025, arXiv:2502.05431): `attention` whose answer's scores
    against the paraphrases are sharpened, and scaled together (see flexray.masks.adaptive)."""

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return (AttentionScope(temperature=config.attention_temperature, scale=config.attention_scale),)

    return Method(
        name=config.name,
        prefix=SharedPrefix(adaptive=True),
        scopes=scopes,
        sampling=choices(config, scopes),
    )


def concat(config: MethodConfig) -> Method:
    """All paraphrases in one prompt, one after the other, by plain causal attention: no isolation."""

    def scopes(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return (AttentionScope(),)

    return Method(
        name=config.name,
        prefix=SharedPrefix(continuous=True, joined=True),
        scopes=scopes,
        sampling=choices(config, scopes),
    )
