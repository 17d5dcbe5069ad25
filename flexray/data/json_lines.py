"""JSON lines: one object a line, UTF-8. A line of nothing but white space is no record."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from flexray.data.record import Record, parse_json, to_record
from flexray.errors import DataError
from flexray.storage import open_file, read_range

_BOM = b"\xef\xbb\xbf"


def read_records(path: str) -> Iterator[Record]:
    """Every record, each with the byte span of its line.

    Raises:
        DataError: the file begins like a JSON array of objects.
    """
    with open_file(path) as stream:
        for record in _parse(stream, offset=0, row=1):
            if record.row == 1:
                _check_not_an_array(path, record)
            yield record


def read_slice(path: str, byte_range: tuple[int, int], first_row: int) -> list[Record]:
    """The records in bytes [start, end) of the file; the first has the number `first_row`."""
    start, end = byte_range
    data = read_range(path, start, end)  # one request, not the read-ahead of an open file
    return list(_parse(io.BytesIO(data), offset=start, row=first_row))


def _parse(lines: Iterable[bytes], *, offset: int, row: int) -> Iterator[Record]:
    for line in lines:
        start, offset = offset, offset + len(line)
        text = line.removeprefix(_BOM) if start == 0 else line
        if text.strip():
            yield _parse_line(row, text.strip(), (start, offset))
            row += 1


def _parse_line(row: int, line: bytes, span: tuple[int, int]) -> Record:
    try:
        return to_record(row, parse_json(line.decode("utf-8")), span)
    except UnicodeDecodeError as e:
        problem = f"the line is not UTF-8 (byte {e.start + 1} of it)"
    except RecursionError:
        problem = "the record is nested too deeply"
    except ValueError as e:  # JSONDecodeError, or a number of thousands of digits
        problem = f"the line is not JSON: {e}"
    return Record(row, None, problem, line, span)


def _check_not_an_array(path: str, first: Record) -> None:
    # A pretty-printed array has lines that happen to be objects: without this check most rows
    # would be reported as broken and some would be read.
    if first.raw[:1] == b"[" and first.raw[1:].lstrip()[:1] in (b"", b"{"):
        raise DataError(
            f"{path}: read as JSON lines, but it begins like one JSON array of objects. "
            "Set data.format: json, or name the file .json."
        )
