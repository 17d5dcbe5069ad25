"""Messages for a faulty configuration: a line for each fault, with key and value."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from flexray.errors import shown

MAX_FAULTS = 50  # that are listed
MAX_NAME = 100  # characters of a part of a key


def describe_faults(error: ValidationError, root: type[BaseModel]) -> str:
    """The number of faults, and a line for each of the first. `root`: what was validated."""
    faults = error.errors(include_url=False, include_context=False)
    lines = [f"  {_key(fault)}: {_problem(fault)}{_hint(fault, root)}" for fault in faults[:MAX_FAULTS]]
    lines += [f"  and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    return f"{len(faults)} fault(s) in the configuration\n" + "\n".join(lines)


def _key(fault: Any) -> str:
    return ".".join(str(part)[:MAX_NAME] for part in fault["loc"]) or "(top level)"


def _problem(fault: Any) -> str:
    return str(fault["msg"]).removeprefix("Value error, ")


def _hint(fault: Any, root: type[BaseModel]) -> str:
    if fault["type"] == "missing":
        return ". Add this key."
    if fault["type"] == "extra_forbidden":
        section: Any = root
        for part in fault["loc"][:-1]:  # a number is the place in a tuple
            section = section.model_fields[part].annotation if isinstance(part, str) else section
            if not isinstance(section, type):  # tuple[Section, ...] or Section | None
                section = get_args(section)[0]
        return f". Unknown key; known here: {', '.join(sorted(section.model_fields))}"
    return f" (value: {shown(fault['input'])})"
