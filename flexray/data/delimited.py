"""Read CSV and TSV: a header with the names of the fields, then a record a row; all values are strings.

Cells are quoted as spreadsheets and pandas do: in double quotes if they contain the delimiter, a line end or
a double quote, which is then doubled. Empty lines are skipped. A quote that is not closed makes an error row
of its line alone: the lines that it took are read again, as rows of their own.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from flexray.data.block import BLOCK_ROWS, Block, of_records
from flexray.data.record import Record
from flexray.data.text import MAX_RECORD_BYTES, open_text, too_long
from flexray.errors import DataError, first_few, shown
from flexray.storage import redact

_BOM = b"\xef\xbb\xbf"
_DELIMITERS = ";\t|,"
_QUOTES = "Quote each cell that contains a delimiter or a double quote, and double the quotes in it."


def read(path: str, delimiter: str) -> Iterator[Block]:
    """All records. Rows are counted without the header.

    Args:
        delimiter: that of the format. A file whose header has none of it, but semicolons, tabs, bars or
            commas, as spreadsheets of other countries write, is read by these.

    Raises:
        DataError: the header cannot be used, or the file is damaged.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    with open_text(path) as stream:
        lines = _Lines(path, stream)
        cells = csv.reader(lines, delimiter=_delimiter(lines, delimiter), strict=True)
        names = _header(path, cells)
        found: list[Record] = []
        for record in _records(cells, names, lines):
            found.append(record)
            if len(found) == BLOCK_ROWS:
                yield of_records(found, found[0].row)
                found = []
        if found:
            yield of_records(found, found[0].row)


class _Lines:
    """The lines of a file as text. Bytes that are not UTF-8 become halves of surrogate pairs."""

    def __init__(self, path: str, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._at_start = True
        self._again: deque[bytes] = deque()
        self._size = 0
        self.row = 0  # of the record that is being read; 0: the header
        self.taken: list[bytes] = []  # its lines

    def begin(self, row: int) -> None:
        """The next line is the first one of a record."""
        self.row, self.taken, self._size = row, [], 0

    def read_again(self, taken: int) -> None:
        """Give the record's lines again, but for so many, which it keeps."""
        self._again.extendleft(reversed(self.taken[taken:]))
        del self.taken[taken:]
        self._size = sum(map(len, self.taken))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._stream.readline(MAX_RECORD_BYTES)
        if self._at_start:
            line, self._at_start = line.removeprefix(_BOM), False
        if not line:
            raise StopIteration
        self.taken.append(line)
        self._size += len(line)
        if self._size >= MAX_RECORD_BYTES:
            if len(self.taken) == 1:
                raise too_long(self._path, self.row)
            raise csv.Error("a quote is opened and not closed")
        return line.decode("utf-8", "surrogateescape")


def _delimiter(lines: _Lines, usual: str) -> str:
    header = next(lines, "")
    lines.read_again(0)
    others = {other: header.count(other) for other in _DELIMITERS if other in header}
    return usual if usual in header or not others else max(others, key=lambda other: others[other])


def _header(path: str, cells: Iterator[list[str]]) -> list[str]:
    shown_path = redact(path)
    try:
        names = next((row for row in cells if row), [])
    except csv.Error as e:
        raise DataError(f"{shown_path}: the header cannot be read: {e}. {_QUOTES}") from e
    if not all(map(_is_utf8, names)):
        raise DataError(f"{shown_path}: the header is not UTF-8. Convert the file to UTF-8.")
    if again := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(
            f"{shown_path}: the header has {shown(again[0])} more than once. The first line must name the "
            f"fields; it has: {first_few(map(repr, names), 20)}."
        )
    return names


def _records(cells: Iterator[list[str]], names: list[str], lines: _Lines) -> Iterator[Record]:
    row = 1
    while True:
        lines.begin(row)
        problem, advice, values = "", _QUOTES, [""]
        try:
            values = next(cells)
        except StopIteration:
            return
        except csv.Error as e:
            problem = f"the row cannot be split into cells: {e}"
            if (more := len(lines.taken) - 1) > 0:
                problem += f"; a quote took the next {more:,} line(s), which are read as rows of their own"
                lines.read_again(1)
        if not values:
            continue  # an empty line
        taken = b"".join(lines.taken)
        if not problem and len(values) != len(names):
            problem = f"the row has {len(values)} cells, but the header {len(names)}"
        if not problem and not taken.isascii() and not all(map(_is_utf8, values)):
            problem, advice = "the row is not UTF-8", "Convert the file to UTF-8."
        if problem:
            yield Record(row, None, problem, taken.rstrip(b"\r\n"), advice=advice)
        else:
            yield Record(row, dict(zip(names, values, strict=True)))
        row += 1


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
