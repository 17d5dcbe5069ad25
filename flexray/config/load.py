"""From a recipe to a checked configuration, with a message that has a line for each fault.

Keys that had other names in 0.1 load for one version more, with one warning that names the new ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from flexray.config.data import Section
from flexray.config.evaluation import EvaluationConfig
from flexray.config.recipe import read_recipe
from flexray.config.schema import RunConfig
from flexray.errors import ConfigError, shown

S = TypeVar("S", bound=Section)
RENAMED = {
    "prompt.cue": "prompt.answer_prefix",
    "data.template_seed": "data.paraphrase_seed",
    "engine.max_rows": "engine.max_num_seqs",
    "engine.max_prefill_tokens": "engine.max_num_batched_tokens",
    "engine.memory_fraction": "engine.gpu_memory_utilization",
}
"""The old key, and the new one in the same section."""
MAX_FAULTS = 50  # that are listed
MAX_NAME = 100  # characters of a part of a key


def load_config(path: str | Sequence[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a recipe, or several, of which later ones override earlier ones; see `config/recipe.py`.

    Raises:
        ConfigError: a file is missing or no YAML mapping, an override has no `=`, or a key is
            unknown, of the wrong type or out of range. The message names file and key.
    """
    paths = [path] if isinstance(path, str) else path
    return parse_config(read_recipe(paths, overrides), source=", ".join(paths))


def parse_config(tree: dict[str, Any], *, source: str) -> RunConfig:
    """Check a configuration tree. Raises ConfigError with one line for each fault."""
    renewed, renamed = rename_keys(tree)
    if renamed:
        message = f"{source}: {'; '.join(renamed)}. The old names are gone in 0.3."
        warnings.warn(message, FutureWarning, stacklevel=2)
    return _checked(RunConfig, renewed, source)


def parse_evaluation(recorded: Mapping[str, Any], overrides: Sequence[str]) -> EvaluationConfig:
    """How a run's answers are scored: the section `evaluation` of its record, but for overrides
    (`evaluation.key=value`). Raises ConfigError."""
    tree = read_recipe([], overrides)
    if others := [key for key in tree if key != "evaluation"]:
        raise ConfigError(f"--set {others[0]}: only keys of the section evaluation can be set here.")
    changed = tree.get("evaluation", {})
    section = {**recorded, **changed} if isinstance(changed, dict) else changed
    return _checked(EvaluationConfig, section, "evaluation", ("evaluation",))


def _checked(kind: type[S], tree: Any, source: str, place: tuple[str, ...] = ()) -> S:
    """The tree as a section, which is at a place of the configuration."""
    try:
        return kind.model_validate(tree)
    except ValidationError as e:
        faults = e.errors(include_url=False, include_context=False)
    # items with a fault do not count, so their list may seem too short
    inside = {fault["loc"][:end] for fault in faults for end in range(len(fault["loc"]))}
    faults = [fault for fault in faults if fault["type"] != "too_short" or fault["loc"] not in inside]
    lines = [f"  {_describe({**fault, 'loc': place + fault['loc']})}" for fault in faults[:MAX_FAULTS]]
    lines += [f"  and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    # without the cause, whose text may be without end
    raise ConfigError("\n".join([f"{source}: {len(faults)} fault(s) in the configuration", *lines]))


def rename_keys(tree: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The tree with old keys replaced by new ones, and a phrase for each key that was renamed.

    >>> rename_keys({"engine": {"max_rows": 8}})
    ({'engine': {'max_num_seqs': 8}}, ['engine.max_rows is now engine.max_num_seqs'])
    """
    renewed, said = dict(tree), []
    for old, new in RENAMED.items():
        section, key = old.split(".")
        values = renewed.get(section)
        # a section that has both is left alone: the old key is then an unknown one
        if isinstance(values, dict) and key in values and (name := new.partition(".")[2]) not in values:
            renewed[section] = {name if k == key else k: value for k, value in values.items()}
            said.append(f"{old} is now {new}")
    return renewed, said


def _describe(fault: Any) -> str:
    """A fault as pydantic reports it: its key, what is wrong, and the value or what to do."""
    key = ".".join(str(part)[:MAX_NAME] for part in fault["loc"]) or "(top level)"
    problem = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{key}: {problem}. Add this key."
    if fault["type"] == "extra_forbidden":
        section: Any = RunConfig
        for part in fault["loc"][:-1]:  # a number is the place in a tuple
            section = section.model_fields[part].annotation if isinstance(part, str) else section
            if not isinstance(section, type):  # tuple[Section, ...] or Section | None
                section = get_args(section)[0]
        known = sorted(section.model_fields)
        alike = get_close_matches(str(fault["loc"][-1]), known, n=1)
        meant = f" (did you mean {alike[0]}?)" if alike else ""
        return f"{key}: {problem}. Unknown key{meant}; known here: {', '.join(known)}"
    quotes = ""
    if fault["type"] == "string_type" and not isinstance(fault["input"], dict | list | None):
        quotes = ". YAML reads it as another type: put it in quotes"
    return f"{key}: {problem} (value: {shown(fault['input'])}){quotes}"
