"""Addition and subtraction of the engine's counters, which are dicts of numbers and of further such dicts."""

from __future__ import annotations

from typing import Any


def difference(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """How much each counter has grown. Both have the same keys.

    >>> difference({"tokens": 5, "cache": {"hits": 2}}, {"tokens": 3, "cache": {"hits": 2}})
    {'tokens': 2, 'cache': {'hits': 0}}
    """
    return {
        key: difference(value, before[key]) if isinstance(value, dict) else round(value - before[key], 3)
        for key, value in now.items()
    }


def add(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """The sum of each counter; a missing counter is 0.

    >>> add({"tokens": 5}, {"tokens": 3, "cache": {"hits": 2}})
    {'tokens': 8, 'cache': {'hits': 2}}
    """
    both = {**right, **left}
    return {
        key: add(left.get(key, {}), right.get(key, {}))
        if isinstance(value, dict)
        else round(left.get(key, 0) + right.get(key, 0), 3)
        for key, value in both.items()
    }
