"""Read JSON lines: one object per line, in UTF-8. Lines with only white space are skipped."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from flexray.data.record import Record, parse_json, to_record
from flexray.errors import DataError
from flexray.storage import open_file, read_range

_BOM = b"\xef\xbb\xbf"


def read_records(path: str) -> Iterator[Record]:
    """All records, each with the byte span of its line.

    Raises:
        DataError: the file begins like a JSON array of objects.
    """
    with open_file(path) as stream:
        for record in _parse(stream, offset=0, row=1):
            if record.row == 1:
                _check_not_an_array(path, record)
            yield record


def read_slice(path: str, byte_range: tuple[int, int], first_row: int) -> list[Record]:
    """The records in bytes [start, end) of the file; the first one has the row number `first_row`."""
    start, end = byte_range
    data = read_range(path, start, end)  # one request; an open file would read ahead
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
    except ValueError as e:  # JSONDecodeError, or a number with thousands of digits
        problem = f"the line is not JSON: {e}"
    return Record(row, None, problem, line, span)


def _check_not_an_array(path: str, first: Record) -> None:
    # Some lines of a pretty-printed array are objects. Without this check, these would be read as rows and
    # all other lines reported as faulty.
    if first.raw[:1] == b"[" and first.raw[1:].lstrip()[:1] in (b"", b"{"):
        raise DataError(
            f"{path}: was read as JSON lines, but begins like one JSON array of objects. "
            "Set data.format: json, or name the file .json."
        )
