"""What the oracle says to the prompts of an engine, each asked once in a session."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from transformers import LlamaForCausalLM

from flexray.engine.engine import Answers, Engine
from flexray.prompts.prompt import Prompt
from tests import oracles

Tokens = tuple[int, ...]

_said: dict[Hashable, Tokens] = {}


def oracle_answers(model: LlamaForCausalLM, prompts: Iterable[Prompt], engine: Engine) -> list[Tokens]:
    """For an engine of one attention method; the model must be an unpatched one with eager attention."""
    (method,) = engine.methods
    _, layout, positions = method.name.split("/")
    new, stops = engine.generation.max_new_tokens, frozenset(engine.stopping.stop_ids())
    who = _fingerprint(model)
    found = []
    for prompt in prompts:
        key = (who, prompt, layout, positions, new, stops)
        if key not in _said:
            rules = {"layout": layout, "positions": positions, "max_new_tokens": new, "stop_ids": stops}
            _said[key] = tuple(oracles.answer(model, prompt, **rules).token_ids)
        found.append(_said[key])
    return found


def tokens(generations: Sequence[tuple[Answers, ...]]) -> list[Tokens]:
    """Of engines of one method with one answer a prompt."""
    return [g.token_ids for ((g,),) in generations]


def _fingerprint(model: LlamaForCausalLM) -> Hashable:
    """Equal for models of equal weights; tests make the same small ones again and again."""
    sums = tuple(float(weight.detach().double().sum()) for weight in model.parameters())
    return str(model.config), str(model.device), str(model.dtype), sums
