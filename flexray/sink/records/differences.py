"""List the leaves in which two JSON-like trees differ."""

from __future__ import annotations

import json
from typing import Any

_SHOWN = 80  # characters of a value; of a longer value, the part around the first difference is shown
_ABSENT = object()


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """One line for each leaf that differs; lists count as leaves.

    >>> differences({"prompt": {"answer_prefix": "A:"}, "k": 1}, {"prompt": {"answer_prefix": "B:"}, "k": 1})
    ['prompt.answer_prefix: "A:" -> "B:"']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            inner = f"{name}.{key}" if name else str(key)
            lines += differences(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
        return lines
    a, b = _text(old), _text(new)
    if a == b:
        return []
    start = 0
    if max(len(a), len(b)) > _SHOWN:
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        start = max(0, same - 20)
    return [f"{name}: {_excerpt(a, start)} -> {_excerpt(b, start)}"]


def _text(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _excerpt(text: str, start: int) -> str:
    head, tail = "..." if start else "", "..." if len(text) > start + _SHOWN else ""
    return f"{head}{text[start : start + _SHOWN]}{tail}"
