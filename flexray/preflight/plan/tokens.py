"""Whether a model is asked in the tokens in which its few-shots are written."""

from __future__ import annotations

import json
from collections.abc import Sequence

from flexray.config import RunConfig
from flexray.preflight.plan.problems import Problems
from flexray.preflight.plan.sample import Sample
from flexray.prompts import PromptBuilder

BEFORE = 4
"""Tokens that are shown before the first one that differs."""
SHOWN = 24
"""Tokens that are shown at most of each list."""


def check_tokens(builder: PromptBuilder, sample: Sample, config: RunConfig, problems: Problems) -> None:
    """Prompts without BOS, and those whose parts have other tokens than the whole text: of the first one both
    token lists are shown."""
    if builder.lacks_bos:
        if_not = "" if config.prompt.chat else "; if not, set prompt.add_bos to false"
        problems.warn(
            "prompt",
            f"{config.model.path}: the tokenizer has no BOS token, so prompts begin without one. If the "
            f"model was trained with one, copy its tokenizer_config.json into the folder{if_not}.",
        )
    texts = [text for question in sample.questions if not question.error for text in question.paraphrases]
    pairs = [builder.apart_and_whole(text) for text in texts]
    differing = [(apart, whole) for apart, whole in pairs if apart != whole]
    if differing:
        apart, whole = differing[0]
        same = next((i for i, (a, b) in enumerate(zip(apart, whole, strict=False)) if a != b), len(whole))
        start = max(0, same - BEFORE)
        problems.warn(
            "prompt",
            f"{len(differing)} of {len(pairs)} sampled paraphrases have other tokens in their prompts than "
            "the same text has as a whole, which is how few-shots are written: the tokenizer joins what "
            "stands around a boundary. Begin question_template and answer_prefix with a newline. The first: "
            "in parts "
            f"{_shown(builder, apart[start:])}, as a whole {_shown(builder, whole[start:])}.",
        )


def _shown(builder: PromptBuilder, token_ids: Sequence[int]) -> str:
    """The tokens as a JSON list, the end left out if there are many."""
    more = ", ..." if len(token_ids) > SHOWN else ""
    return json.dumps(builder.tokens(token_ids[:SHOWN]), ensure_ascii=False)[:-1] + more + "]"
