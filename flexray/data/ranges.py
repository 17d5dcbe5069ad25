"""The parts of a data set that are read by themselves, in any process and in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fsspec.implementations.local import LocalFileSystem

from flexray.config.data import DataConfig
from flexray.data import arrow, hub, json_lines, parquet
from flexray.data.adapters import open_adapter
from flexray.data.archives import is_member
from flexray.data.files import SourceFile, list_files, reading, reading_file
from flexray.data.readers import find_versions, read_blocks
from flexray.data.required_fields import RequiredFields
from flexray.data.text import is_compressed
from flexray.storage import connect, retry, starting

TARGET_BYTES = 16 * 2**20
_PACKED = 8
"""How many times smaller rows are in a Parquet or a compressed file, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A part of one file; or the whole data set, if its rows are spread over several records of any file."""

    files: tuple[SourceFile, ...]
    start: int = 0  # jsonl: first byte; Parquet: first row group; Arrow: first record batch; else 0
    stop: int | None = None  # one past the last; None: to the end of the file
    first_row: int = 1  # number in the file of its first row
    num_rows: int | None = None  # None: not known before it is read
    most: int | None = None  # read only so many of its rows; None: all
    bytes: int = 0  # about how many are read, uncompressed; 0: not known

    @property
    def is_whole_file(self) -> bool:
        """Whether it is all of one file."""
        return len(self.files) == 1 and (self.start, self.stop) == (0, None)


def list_ranges(config: DataConfig, target_bytes: int = TARGET_BYTES) -> list[Range]:
    """The parts of a data set, in order of file and row.

    A jsonl file of more than `target_bytes` is read here to find ends of lines and count the rows; of Parquet
    and local Arrow files, only the row groups or batches are counted. Files of json, CSV and TSV, compressed
    files, members of archives, splits of the hub and remote Arrow files are not cut.

    Args:
        target_bytes: files of more bytes are cut into parts of about so many.

    Raises:
        DataError: as `list_files`, or a file cannot be read, or an auxiliary file cannot be used.
        ConfigError: there is no adapter of the name `data.kind`; or as `list_files`.
    """
    with starting():
        with reading(", ".join((*config.template_files, *config.paraphrase_files))):
            adapter = open_adapter(config)
            find_versions(config.paraphrase_files, "data.paraphrase_files")  # whether they are there
        files = list_files(config)
    if adapter.grouping is not None:
        return [
            Range(
                files=tuple(files), most=config.limit, bytes=sum(_bytes(file, _size(file)) for file in files)
            )
        ]
    if config.limit is not None:
        return list(_first_rows(files, target_bytes, config.limit, adapter.required))
    return [part for file in files for part in _cut(file, target_bytes)]


def _first_rows(
    files: list[SourceFile], target_bytes: int, left: int, required: RequiredFields
) -> Iterator[Range]:
    """The parts that have the first `left` rows of the files."""
    for number, file in enumerate(files, start=1):
        for part in _cut(file, target_bytes):
            if part.num_rows is not None:
                rows = part.num_rows
            else:
                rows = left if number == len(files) else _count_rows(file, left, required)
            yield part if rows < left else replace(part, most=left)
            left -= rows
            if left <= 0:
                return


def _cut(file: SourceFile, target_bytes: int) -> Iterator[Range]:
    """The parts of a file, found while iterating."""
    with reading(file.path):
        size = _size(file)
        if size <= target_bytes or not _can_be_cut(file):
            yield Range(files=(file,), bytes=_bytes(file, size))
            return
        first_row = 1
        for start, stop, rows in _parts(file, size, target_bytes):
            yield Range(
                files=(file,),
                start=start,
                stop=stop,
                first_row=first_row,
                num_rows=rows,
                bytes=_bytes(file, min(size, target_bytes)),
            )
            first_row += rows


def _parts(file: SourceFile, size: int, target_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Start, stop and rows of each part."""
    if file.format == "jsonl":
        return json_lines.cut(file.path, target_bytes)
    counts = parquet.count_rows(file.path) if file.format == "parquet" else arrow.count_rows(file.path)
    return _runs(counts, sum(counts) * target_bytes // size)


def _size(file: SourceFile) -> int:
    """Bytes of a file; 0 if they are not known."""
    with reading(file.path):
        if file.format == "hub":
            return hub.size(file.path)
        fs, name = retry(file.path, lambda: connect(file.path))
        return retry(file.path, lambda: fs.info(name)).get("size") or 0


def _bytes(file: SourceFile, size: int) -> int:
    """About how many bytes so many of a file are when they are not compressed."""
    return size * (_PACKED if file.format == "parquet" or is_compressed(file.path) else 1)


def _can_be_cut(file: SourceFile) -> bool:
    if is_compressed(file.path) or is_member(file.path):
        return False  # each part would be unpacked from the beginning of the file
    local = isinstance(retry(file.path, lambda: connect(file.path))[0], LocalFileSystem)
    return file.format in ("jsonl", "parquet") or (file.format == "arrow" and local)


def _runs(counts: list[int], wanted: int) -> Iterator[tuple[int, int, int]]:
    """Cut groups of so many rows into runs of at least `wanted` rows: [start, stop) and the rows of each."""
    start = rows = 0
    for stop, count in enumerate(counts, start=1):
        rows += count
        if rows and (rows >= wanted or stop == len(counts)):
            yield start, stop, rows
            start, rows = stop, 0


def _count_rows(file: SourceFile, most: int, required: RequiredFields) -> int:
    """The rows of a file; if it has more than `most`, `most` or more."""
    rows = 0
    with reading_file(file):
        for block in read_blocks(file, required):
            rows += block.num_rows
            if rows >= most:
                break
    return rows
