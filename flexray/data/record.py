"""A source record: as it was read, and with what its dataset adapter adds."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from flexray.config.data import Fields

_BY_NAME = Fields()
MAX_DEPTH = 100  # Python's own limit depends on the depth of the call stack


class Missing:
    """The type of MISSING, the value of a field that a record does not have. (JSON null is None.)"""

    def __repr__(self) -> str:
        return "(no such field)"


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class FieldFault:
    """A fault of one field, without the file and row."""

    field: str
    value: Any
    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source file: an object, or the problem because of which it is not an object.

    `fields` and `faults` are set by the adapter (see flexray.data.adapters).
    """

    row: int  # 1-based record number in the file
    value: dict[str, Any] | None  # None if there is a problem
    problem: str = ""
    raw: bytes = b""  # what was found instead of an object
    fields: Fields = _BY_NAME  # the path of each field in `value`
    faults: tuple[FieldFault, ...] = ()
    advice: str = "Write the row as one JSON object in UTF-8."  # against the problem


class Repeating(dict[str, Any]):
    """A JSON object with a repeated key. It has the last value of the key."""

    keys_again: tuple[str, ...] = ()


def parse_json(text: str) -> Any:
    """The value of a JSON text. An object with a repeated key becomes a Repeating.

    Raises:
        ValueError: the text is not JSON, or has a number with thousands of digits.
        RecursionError: the value is nested too deeply.
    """
    return _DECODER.decode(text)


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """As `parse_json`, of the value that begins at a character. The second is where it ends."""
    return _DECODER.raw_decode(text, start)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    repeating = Repeating(value)
    counts = Counter(key for key, _ in pairs)
    repeating.keys_again = tuple(key for key, count in counts.items() if count > 1)
    return repeating


_DECODER = json.JSONDecoder(object_pairs_hook=_object)  # made once; json.loads would make one for each text


def to_record(row: int, value: Any) -> Record:
    """The record of a parsed JSON value. If it is not an object, or is nested too deeply, the record has a
    problem."""
    again: list[tuple[str, Any]] = []
    if _deeper_than(value, MAX_DEPTH, again):
        problem = f"the record is nested more than {MAX_DEPTH} levels deep"
        return Record(row, None, problem, b"(nested too deeply)")
    if not isinstance(value, dict):
        problem = f"a record must be a JSON object, not {json_type(value)}"
        return Record(row, None, problem, canonical(value).encode())
    problem = "the key is repeated"
    faults = tuple(FieldFault(key, last, problem, "Keep only one of them.") for key, last in again)
    return Record(row, value, faults=faults)


def json_type(value: Any) -> str:
    """The JSON type of a value, for messages."""
    if value is MISSING:
        return "missing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, dict):
        return "an object"
    names = {str: "a string", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def found(value: Any) -> str:
    """What was found instead of the expected value, for messages."""
    return "a missing field" if value is MISSING else json_type(value)


def canonical(value: Any) -> str:
    """The same ASCII text for the same value, independent of file format, spacing and key order."""
    # repr, because Parquet has types that JSON lacks (dates, decimals, bytes)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def lookup(value: Any, path: str) -> Any:
    """The value at a dotted path, or MISSING. A key that equals the whole path has priority."""
    if isinstance(value, dict) and path in value:
        return value[path]
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def listed(value: Any) -> list[Any] | None:
    """The list in a text with a JSON list, such as the answers of PopQA; None for other values."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) else None


_DATA = re.compile(
    r"""\s*(\[.*\]|\[\s*['"].*|\{\s*['"].*\}|\(\s*['"].*(['"]|,)\s*\)|array\(\s*\[.*\))\s*""", re.DOTALL
)


def looks_like_data(text: str) -> bool:
    """Whether a text is written as a list, a mapping or a tuple is in Python or JSON, or the beginning of
    such a list.

    >>> looks_like_data("['a', 'b']"), looks_like_data('{"text": ["a"]}'), looks_like_data("(a)")
    (True, True, False)
    """
    return text.lstrip()[:1] in ("[", "{", "(", "a") and _DATA.fullmatch(text) is not None


def unpacked(value: Any) -> Any:
    """The list in a text with a JSON list; any other value as it is.

    >>> unpacked('["a"]'), unpacked("a")
    (['a'], 'a')
    """
    texts = listed(value)
    return value if texts is None else texts


def paraphrases_path(fields: Fields) -> str | None:
    """The path of the paraphrases; if they are in several fields, a name for all of these together."""
    paths = fields.paraphrases
    return ", ".join(paths) if isinstance(paths, tuple) else paths


def field_paths(fields: Fields) -> dict[str, str]:
    """Role -> dotted path, for the roles that are mapped."""
    roles = {
        "id": fields.id,
        "question": fields.question,
        "paraphrases": paraphrases_path(fields),
        "answers": fields.answers,
        "relation": fields.relation,
        "num_manual": fields.num_manual,
        "confidences": fields.confidences,
        "candidates": fields.candidates,
    }
    return {role: path for role, path in roles.items() if path is not None}


def mapped(value: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Role -> value, for the mapped fields that the record has."""
    found = {role: lookup(value, path) for role, path in field_paths(fields).items()}
    return {role: v for role, v in found.items() if v is not MISSING}


def _deeper_than(value: Any, limit: int, again: list[tuple[str, Any]]) -> bool:
    """Whether a value is nested deeper than `limit`. Adds repeated keys with their last values to `again`."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for v in level:
            if isinstance(v, dict):
                inner += v.values()
                if isinstance(v, Repeating):
                    again += [(key, v[key]) for key in v.keys_again]
            elif isinstance(v, list):
                inner += v
        level = inner
        if not level:
            return False
    return any(isinstance(v, dict | list) for v in level)
