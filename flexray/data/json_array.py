"""Read JSON files: one array of objects, or one object with this array under a key that the adapter names.

The records are parsed one after the other; the file is never in memory as a whole.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

from flexray.data.block import BLOCK_ROWS, Block, of_records
from flexray.data.record import Record, json_type, parse_json, parse_json_at, to_record
from flexray.data.text import MAX_RECORD_BYTES, open_text, too_long
from flexray.errors import DataError, first_few, shown
from flexray.storage import redact

_KINDS = {"Data": "triviaqa", "data": "squad"}  # data sets whose files are an object with this key
_MOST_KEYS = 20  # of an object, for a message
_READ_BYTES = 2**20
_LONGEST_NUMBER = 400  # one at the end of what is read may go on; a longer one is not told from two
_WHITE = " \t\n\r"
_BAD_BYTE = re.compile("[\udc80-\udcff]")


def read(path: str, under: str = "", inside: Sequence[str] = ()) -> Iterator[Block]:
    """All records.

    Args:
        under: the key that may have the array.
        inside: keys of lists, one in the other, of which the innermost has the records; an object without the
            first of them is a record itself.

    Raises:
        DataError: while iterating, if the file is not JSON, or has no array.
    """
    with open_text(path) as stream:
        values = _Parser(path, stream, bad_bytes="strict" if inside else "surrogateescape").records(under)
        if inside:
            values = (record for value in values for record in _unfolded(value, inside))
        row = 1
        while chunk := list(islice(values, BLOCK_ROWS)):
            yield of_records([_record(i, value) for i, value in enumerate(chunk, start=row)], row)
            row += len(chunk)


class _NotUTF8(bytes):
    """A record in which bytes are not UTF-8."""


def _record(row: int, value: Any) -> Record:
    if isinstance(value, _NotUTF8):
        return Record(row, None, "the record is not UTF-8", value)
    return to_record(row, value)


def _unfolded(value: Any, inside: Sequence[str]) -> Iterator[Any]:
    if not inside or not isinstance(value, dict) or not isinstance(value.get(inside[0], 0), list | None):
        yield value
        return
    for element in value[inside[0]] or ():
        yield from _unfolded(element, inside[1:])


class _Parser:
    """Parses a JSON text of which only a part is in memory.

    Args:
        bad_bytes: what a codec does with bytes that are not UTF-8: "strict", or with "surrogateescape" the
            values that have some are `_NotUTF8`.
    """

    def __init__(self, path: str, stream: BinaryIO, *, bad_bytes: str) -> None:
        self._path, self._stream = redact(path), stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(bad_bytes)
        self._text, self._at = "", 0
        self._ended, self._size, self._bytes = False, _READ_BYTES, 0
        self._row = 1  # of the record that is being read

    def records(self, under: str) -> Iterator[Any]:
        first = self._peek()
        if _BAD_BYTE.match(first):
            raise self._not_utf8(self._at + 1)
        if first == "{":
            self._refuse_lines()
            yield from self._of_object(under)
        elif first == "[":
            yield from self._elements()
        else:
            raise self._no_array(self._value())
        if self._peek():
            raise self._not_json("more follows after its end")

    def _of_object(self, under: str) -> Iterator[Any]:
        self._take("{")
        there = False
        keys: list[str] = []
        while self._peek() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._not_json("a key is not a string")
            self._take(":")
            if len(keys) < _MOST_KEYS:
                keys.append(key)
            if key == under and there:
                raise DataError(f"{self._path}: the key {under!r} is repeated. Keep only one of them.")
            if self._peek() != "[":
                self._value()
            elif key == under:
                there = True
                yield from self._elements()
            elif not under:
                raise self._no_array({key: []})
            else:
                self._value()
            if self._peek() != "}":
                self._take(",")
        self._take("}")
        if not there:
            raise self._no_array({}) if not under else self._no_key(under, keys)

    def _elements(self) -> Iterator[Any]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        while True:
            yield self._value()
            self._row += 1
            if self._peek() == "]":
                self._take("]")
                return
            self._take(",")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = parse_json_at(self._text, self._at)
            except RecursionError as e:
                raise DataError(
                    f"{self._path}: record {self._row} is nested too deeply to be parsed. Flatten it."
                ) from e
            except ValueError as e:  # it may be that only its end is missing
                if self._ended:
                    raise self._not_json(str(e).partition(": line ")[0]) from e
            else:
                whole = isinstance(value, dict | list | str) or end + _LONGEST_NUMBER < len(self._text)
                if whole or self._ended:
                    if _BAD_BYTE.search(self._text, self._at, end):
                        value = _NotUTF8(self._text[self._at : end].encode("utf-8", "surrogateescape"))
                    self._at, self._size = end, _READ_BYTES
                    return value
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                raise too_long(self._path, self._row)
            self._read()
            self._size *= 2

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read()

    def _take(self, char: str) -> None:
        if (there := self._peek()) != char:
            raise self._not_json(f"{char!r} is expected, not {there!r}" if there else "it ends too early")
        self._at += 1

    def _read(self) -> None:
        data = self._stream.read(self._size)
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as e:
            raise self._not_utf8(self._bytes - pending + e.start + 1) from e
        self._bytes += len(data)
        self._ended = not data
        self._text, self._at = self._text[self._at :] + text, 0

    def _not_utf8(self, byte: int) -> DataError:
        return DataError(f"{self._path}: is not UTF-8 (byte {byte}). Convert the file to UTF-8.")

    def _refuse_lines(self) -> None:
        """Raises DataError if the first line is an object and more follow."""
        line, _, rest = self._text[self._at :].partition("\n")
        try:
            is_object = isinstance(parse_json(line), dict)
        except (ValueError, RecursionError):
            return
        if is_object and rest.strip():
            raise DataError(
                f"{self._path}: was read as one JSON array, but contains JSON lines (one object per line). "
                "Set data.format: jsonl, or name the file .jsonl."
            )

    def _not_json(self, problem: str) -> DataError:
        return DataError(
            f"{self._path}: is not JSON at record {self._row}: {problem}. One array of objects is expected."
        )

    def _no_key(self, under: str, keys: list[str]) -> DataError:
        kinds = [f" (if its form is {_KINDS[k]}'s, set data.kind: {_KINDS[k]})" for k in keys if k in _KINDS]
        names = first_few(map(shown, keys), 5) or "none"
        return DataError(
            f"{self._path}: an object whose key {under!r} has an array is expected, found the keys {names}"
            f"{''.join(kinds[:1])}. Correct data.kind, or the file."
        )

    def _no_array(self, value: Any) -> DataError:
        """With a hint about the array that may contain the records."""
        hint = ""
        if isinstance(value, dict) and value:
            key = next(iter(value))
            kind = f" (if its form is {_KINDS[key]}'s, set data.kind: {_KINDS[key]})" if key in _KINDS else ""
            hint = f" whose key {shown(key)} has an array{kind}"
        return DataError(
            f"{self._path}: one JSON array of objects is expected, found {json_type(value)}{hint}. "
            "Write the records as one array, or one object per line with data.format: jsonl."
        )
