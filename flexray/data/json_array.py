"""Read JSON files: one array of objects, or one object with this array under a key that the adapter names.

The whole file is parsed at once, so large data sets should be JSON lines or Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flexray.data.block import BLOCK_ROWS, Block, of_records
from flexray.data.record import json_type, parse_json, to_record
from flexray.errors import DataError, shown
from flexray.storage import open_file

_TRIVIAQA = "Data"


def read(path: str, under: str = "") -> Iterator[Block]:
    """All records. `under` is the key that may have the array. Raises DataError if there is no JSON array."""
    values = _load(path, under)
    for start in range(0, len(values), BLOCK_ROWS):
        chunk = enumerate(values[start : start + BLOCK_ROWS], start=start + 1)
        yield of_records([to_record(row, value) for row, value in chunk], start + 1)


def _load(path: str, under: str) -> list[Any]:
    with open_file(path) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: is not UTF-8 (byte {e.start + 1}). Convert the file to UTF-8.") from e
    try:
        values = parse_json(text)
    except RecursionError as e:
        raise DataError(f"{path}: a record is nested too deeply to be parsed. Flatten it.") from e
    except ValueError as e:
        if _is_object(text.strip().partition("\n")[0]):
            raise DataError(
                f"{path}: was read as one JSON array, but contains JSON lines (one object per line). "
                "Set data.format: jsonl, or name the file .jsonl."
            ) from e
        raise DataError(f"{path}: is not JSON: {e}. One array of objects is expected.") from e
    if isinstance(values, dict) and isinstance(values.get(under), list):
        if under in getattr(values, "keys_again", ()):
            raise DataError(f"{path}: the key {under!r} is repeated. Keep only one of them.")
        found: list[Any] = values[under]
        return found
    if not isinstance(values, list):
        raise DataError(
            f"{path}: one JSON array of objects is expected, found {json_type(values)}{_arrays(values)}. "
            "Write the records as one array, or one object per line with data.format: jsonl."
        )
    return values


def _arrays(value: Any) -> str:
    """A hint about an array that may contain the records, for the message."""
    arrays = [k for k, v in value.items() if isinstance(v, list)] if isinstance(value, dict) else []
    if not arrays:
        return ""
    kind = " (as in TriviaQA: set data.kind: triviaqa)" if _TRIVIAQA in arrays else ""
    return f" whose key {shown(arrays[0])} has an array{kind}"


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except (ValueError, RecursionError):
        return False
