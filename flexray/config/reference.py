"""docs/config.md: every key of a recipe, from the docstrings in `config/`.

python -m flexray.config.reference > docs/config.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flexray.config.load import RENAMED
from flexray.config.schema import RunConfig

_HEAD = """\
# Keys of a recipe

What each key means, and its default; written by `python -m flexray.config.reference` from the docstrings of
`flexray/config/`. `--set section.key=value` overrides any of them. An unknown key, a
wrong type or a value out of range is an error that names the key.
"""


def reference() -> str:
    """The page, as Markdown."""
    lines = [_HEAD]
    for name, section in _sections("", RunConfig):
        about = "" if section is RunConfig else f"{' '.join((section.__doc__ or '').split())}\n"
        lines += [
            f"## {name or 'Top level'}\n",
            *filter(None, [about]),
            "| key | default | |",
            "|---|---|---|",
        ]
        for key, info in section.model_fields.items():
            text = " ".join((info.description or "").split())
            lines.append(f"| `{key}` | {_default(info)} | {_escaped(text or _link(name, key, info))} |")
        lines.append("")
    lines += [
        "## Old keys\n",
        "They load with a warning, and are gone in 0.3.\n",
        "| old | new |",
        "|---|---|",
    ]
    lines += [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    return "\n".join(lines) + "\n"


def _sections(name: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The section and those within, with their dotted names."""
    yield name, section
    for key, info in section.model_fields.items():
        if inner := _section_in(info.annotation):
            yield from _sections(f"{name}.{key}".lstrip("."), inner)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section in a key's type: itself, one of several types, or that of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "needed"
    value = info.get_default(call_default_factory=True)
    values = value if isinstance(value, tuple) else (value,)
    if any(isinstance(v, BaseModel) for v in values):
        return ""
    return f"`{json.dumps(value)}`"


def _link(name: str, key: str, info: FieldInfo) -> str:
    return f"see {f'{name}.{key}'.lstrip('.')} below" if _section_in(info.annotation) else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(reference(), end="")
