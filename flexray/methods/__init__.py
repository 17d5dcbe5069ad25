"""The ways to answer a question from its paraphrases, all by the same engine.

A method is a function from its configuration to a `Method`, registered under its kind. The built-in ones
stand in the file of their like: those that attend to all paraphrases at once, single ones, fused logits,
some of the paraphrases, drawn answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flexray.config import MethodConfig
from flexray.config.plugins import load_entry_points
from flexray.errors import ConfigError
from flexray.methods.draws import draws
from flexray.methods.fused_attention import ape, attention, concat
from flexray.methods.logits import average, maximum, mean_prob, nbce, weighted_average
from flexray.methods.method import GREEDY, Answers, Fusion, Method, SamplingParams
from flexray.methods.sampled import confidence, sampled
from flexray.methods.single import most_confident, origin, per_prompt

MakeMethod = Callable[[MethodConfig], Method]

METHODS: dict[str, MakeMethod] = {}
"""By kind, as recipes name them."""
_SETTINGS: dict[str, tuple[str, ...]] = {}  # the keys of MethodConfig that a kind has besides `kind`


def register_method(kind: str, make: MakeMethod, settings: Sequence[str] = ()) -> None:
    """Make a method known under a kind, for recipes and for `LLM.answer`.

    Args:
        kind: how recipes name it; no slash.
        make: from a method's configuration to the method. Its `name` must be the configuration's.
        settings: the keys of MethodConfig that it reads; others are refused.

    Raises:
        ConfigError: another method has this kind, or a setting is no key of MethodConfig.
    """
    if METHODS.get(kind, make) is not make:
        raise ConfigError(f"method {kind!r} is registered already. Give yours another kind.")
    if "/" in kind or not kind:
        raise ConfigError(f"method {kind!r}: a kind is a name without a slash.")
    if unknown := set(settings) - set(MethodConfig.model_fields):
        raise ConfigError(f"method {kind!r}: MethodConfig has no {', '.join(sorted(unknown))}.")
    METHODS[kind], _SETTINGS[kind] = make, tuple(settings)


_ATTENTION = ("layout", "positions", "cross_attention", "paraphrase_scale")
_DRAWN = ("temperature", "top_p", "seed")
_SAMPLING = ("samples", *_DRAWN)
_CHOICE = ("do_sample", *_DRAWN)  # greedy, or drawn
_DRAWS = ("draws", "size", "fusion", "seed")
_NBCE = ("beta",)
_APE = ("attention_temperature", "attention_scale")
register_method("attention", attention, (*_ATTENTION, *_CHOICE))
register_method("ape", ape, (*_APE, *_CHOICE))
register_method("concat", concat, _CHOICE)
register_method("origin", origin, _CHOICE)
register_method("per_prompt", per_prompt, _CHOICE)
register_method("vote", per_prompt, ("ties", *_CHOICE))
register_method("avg", average, _CHOICE)
register_method("max", maximum, _CHOICE)
register_method("mean_prob", mean_prob, _CHOICE)
register_method("nbce", nbce, (*_NBCE, *_CHOICE))
register_method("weighted_avg", weighted_average, _CHOICE)
register_method("weighted_max", most_confident, _CHOICE)
register_method("draws", draws, _DRAWS)
register_method("sampled", sampled, _SAMPLING)
register_method("confidence", confidence, (*_SAMPLING, "match"))


def make_methods(configs: Sequence[MethodConfig]) -> tuple[Method, ...]:
    """The methods of a run, in order.

    Raises:
        ConfigError: an unknown kind, a setting that its kind does not have, or a method twice.
    """
    methods: dict[str, Method] = {}
    for config in configs:
        make = _find(config.kind)
        foreign = config.model_fields_set - {"kind", *_SETTINGS[config.kind]}
        extra = [name for name in MethodConfig.model_fields if name in foreign]
        if extra:
            have = [kind for kind, settings in _SETTINGS.items() if extra[0] in settings]
            who = f"only {' and '.join(have)} {'has' if len(have) == 1 else 'have'}"
            raise ConfigError(f"methods: {config.kind} has no {', '.join(extra)}; {who}")
        method = make(config)
        if method.name in methods:
            raise ConfigError(f"methods: {method.name} stands there twice. Remove one.")
        methods[method.name] = method
    return tuple(methods.values())


def answers_of(name: str) -> Answers:
    """What the sequences of a method are, by the `method` of its rows."""
    kind = name.partition("/")[0]
    return _find(kind)(MethodConfig(kind=kind)).answers


def _find(kind: str) -> MakeMethod:
    if kind not in METHODS:
        load_entry_points("methods", register_method)
    if kind not in METHODS:
        raise ConfigError(f"methods: unknown kind {kind!r}; known: {', '.join(METHODS)}")
    return METHODS[kind]


__all__ = [
    "GREEDY",
    "METHODS",
    "Answers",
    "Fusion",
    "Method",
    "SamplingParams",
    "answers_of",
    "make_methods",
    "register_method",
]
