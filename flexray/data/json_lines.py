"""Read JSON lines: one object per line, in UTF-8. Lines with only white space are skipped."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from flexray.data.block import Block, without_collector
from flexray.data.record import MAX_DEPTH, Record, parse_json, to_record
from flexray.data.text import MAX_RECORD_BYTES, open_text, too_long
from flexray.errors import DataError
from flexray.storage import open_file, read_range

_BOM = b"\xef\xbb\xbf"
_MAY_BE_BLANK = re.compile(rb"\n[ \t\n\r\x0b\x0c]")
_READ_BYTES = 2**20


def read(path: str, start: int = 0, stop: int | None = None, first_row: int = 1) -> Iterator[Block]:
    """The records in bytes [start, stop) of the file, which begin and end at line ends. None: to the end.

    Args:
        first_row: number of the first of these records in the file.

    Raises:
        DataError: the file begins like a JSON array of objects.
    """
    for lines in _lines(path, start, stop, first_row):
        if first_row == 1:
            _check_not_an_array(path, lines[0])
        yield _block(lines, first_row)
        first_row += len(lines)


def cut(path: str, target_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Byte ranges [start, stop) of at least `target_bytes` that end at line ends, and the rows in each.
    Ranges without rows are left out."""
    with open_file(path) as stream:
        start, row = 0, 1
        while data := stream.read(target_bytes):
            data += stream.readline(MAX_RECORD_BYTES)
            if len(data) >= MAX_RECORD_BYTES and data[-1:] != b"\n":
                raise too_long(path, row)
            if rows := _count(data.removeprefix(_BOM) if start == 0 else data):
                yield start, start + len(data), rows
                row += rows
            start += len(data)


def _count(data: bytes) -> int:
    """Lines with more than white space."""
    if data[:1].isspace() or _MAY_BE_BLANK.search(data):
        return sum(1 for line in data.split(b"\n") if line.strip())
    return data.count(b"\n") + (data[-1:] not in (b"\n", b""))


def _lines(path: str, start: int, stop: int | None, row: int) -> Iterator[list[bytes]]:
    """Lines with more than white space, without the white space around them; never an empty list."""
    # a range is read in one request; an open file would read ahead
    stream = open_text(path) if stop is None else io.BytesIO(read_range(path, start, stop))
    with stream:
        at_start, rest, size = start == 0, b"", _READ_BYTES
        while True:
            data = stream.read(size)
            whole = rest + data
            end = whole.rfind(b"\n") + 1 if data else len(whole)
            whole, rest = whole[:end], whole[end:]
            if at_start and whole:
                whole, at_start = whole.removeprefix(_BOM), False
            if lines := [line for line in map(bytes.strip, whole.split(b"\n")) if line]:
                yield lines
                row += len(lines)
            if not data:
                return
            if len(rest) > MAX_RECORD_BYTES:
                raise too_long(path, row)
            size = _READ_BYTES if end else 2 * size  # a line may be very long


def _block(lines: list[bytes], first_row: int) -> Block:
    with without_collector():
        values = _parse(lines)

    def record(i: int) -> Record:
        value = values[i]
        return _parse_line(first_row + i, lines[i]) if value is None else Record(first_row + i, value)

    return Block(
        first_row=first_row,
        num_rows=len(lines),
        records=lambda indices: [record(i) for i in indices],
        values=values,
    )


def _parse(lines: list[bytes]) -> list[dict[str, Any] | None]:
    """The object of each line; None if it is not a plain one, which `_parse_line` then tells in detail."""
    repeats = False

    def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeats
        value = dict(pairs)
        if len(value) != len(pairs):
            repeats = True
        return value

    parse = json.JSONDecoder(object_pairs_hook=to_object).raw_decode
    values: list[dict[str, Any] | None] = []
    for line in lines:
        repeats = False
        try:
            text = line.decode()
            value, end = parse(text)
        except (ValueError, RecursionError):
            values.append(None)
            continue
        plain = type(value) is dict and end == len(text) and not repeats
        if plain and text.count("[") + text.count("{") > MAX_DEPTH:  # it may be nested too deeply
            plain = to_record(0, value).value is not None
        values.append(value if plain else None)
    return values


def _parse_line(row: int, line: bytes) -> Record:
    try:
        return to_record(row, parse_json(line.decode("utf-8")))
    except UnicodeDecodeError as e:
        problem = f"the line is not UTF-8 (byte {e.start + 1} of it)"
    except RecursionError:
        problem = "the record is nested too deeply"
    except ValueError as e:  # JSONDecodeError, or a number with thousands of digits
        problem = f"the line is not JSON: {e}"
    return Record(row, None, problem, line)


def _check_not_an_array(path: str, line: bytes) -> None:
    # Some lines of a pretty-printed array are objects. Without this check, these would be read as rows and
    # all other lines reported as faulty.
    if line[:1] != b"[":
        return
    first = _parse_line(1, line)
    if first.raw[:1] == b"[" and first.raw[1:].lstrip()[:1] in (b"", b"{"):
        raise DataError(
            f"{path}: was read as JSON lines, but begins like one JSON array of objects. "
            "Set data.format: json, or name the file .json."
        )
