"""The rows of a data set: the records of its files, adapted, grouped and joined with other paraphrases."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from flexray.config.data import DataConfig
from flexray.data.adapters import open_adapter
from flexray.data.adapters.adapter import PARTS, Grouping
from flexray.data.files import SourceFile, list_files, with_version
from flexray.data.identity import id_problem, identify
from flexray.data.join import Join
from flexray.data.question import ShardSpec
from flexray.data.readers import COLUMNAR, FileVersions, in_auxiliary_file, read_records, read_slice
from flexray.data.record import MISSING, Record, lookup
from flexray.data.required_fields import FieldCheck, RequiredFields
from flexray.errors import DataError


class Source:
    """Reads the rows of a data set's files, or of one shard. The files are listed once.

    Raises:
        DataError: an auxiliary file (templates, joined paraphrases) cannot be used.
        ConfigError: there is no adapter of the name `data.kind`.
        OSError: the storage failed.
    """

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._adapter = open_adapter(config)
        self._joined = Join(config) if config.paraphrase_files else None

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files of the data set. Raises DataError as `list_files` does."""
        return list_files(self._config)

    @property
    def has_spans(self) -> bool:
        """Whether the rows of a shard are consecutive records of its file."""
        return self._adapter.grouping is None

    def read(self, file: SourceFile, most: int | None) -> Iterator[Record]:
        """The first `most` rows of a file; None: all.

        Raises:
            DataError: while iterating, if the file lacks a required field or has another format.
        """
        if self._adapter.grouping is None:
            records = _checked(file, self._adapter.required, most)
        else:
            records = islice(self._grouped.get(file.path, ()), most)
        for record in records:
            yield self._adapt(record, file.path)

    def read_slice(self, spec: ShardSpec) -> list[Record]:
        """The rows of a shard; their number differs from the planned one if a file has changed."""
        if self._adapter.grouping is None:
            records = read_slice(spec, self._adapter.required)
        else:
            rows = self._grouped.get(spec.file, [])
            first = bisect_left(rows, spec.first_row, key=lambda record: record.row)
            records = rows[first : first + spec.num_rows]
        return [self._adapt(record, spec.file) for record in records]

    def check_joined(self) -> None:
        """Raises DataError if no row that was read has joined paraphrases."""
        if self._joined is not None and (problem := self._joined.mismatch()):
            raise DataError(problem)

    def _adapt(self, record: Record, file: str) -> Record:
        if record.value is None:
            return record
        record = self._adapter.adapt(record, file)
        if self._joined is None:
            return record
        return self._joined.join(record, identify(record, self._config).source_id)

    @cached_property
    def _grouped(self) -> dict[str, list[Record]]:
        assert self._adapter.grouping is not None
        versions = tuple(with_version(file) for file in self.files)
        return _group_by(versions, self._adapter.required, self._adapter.grouping)


@lru_cache(maxsize=1)  # it may be large
def _group_by(
    versions: FileVersions, required: RequiredFields, grouping: Grouping
) -> dict[str, list[Record]]:
    records = ((file.path, record) for file, _ in versions for record in _checked(file, required, None))
    return group_by(records, grouping)


def _checked(file: SourceFile, required: RequiredFields, most: int | None) -> Iterator[Record]:
    """The records of a file. At its end, the required fields are checked."""
    check = FieldCheck(file.path, required)
    for record in islice(read_records(file, required), most):
        if file.format not in COLUMNAR:  # these are checked by their schema
            check.add(record)
        yield record
    check.check()


def group_by(records: Iterable[tuple[str, Record]], grouping: Grouping) -> dict[str, list[Record]]:
    """Group the records of all files by a key. The result maps each file to its rows in order.

    A row has the position of its first record. A record without a usable key becomes a separate row.
    """
    rows: dict[str, list[Record]] = {}
    parts: dict[str, list[tuple[Any, ...]]] = {}
    first: dict[str, tuple[list[Record], int]] = {}  # key -> position of the row
    shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # equal parts share one object, to save memory
    for file, record in records:
        mine = rows.setdefault(file, [])
        if record.value is None:
            mine.append(record)
            continue
        values = tuple(lookup(record.value, path) for path in grouping.part)
        if all(isinstance(v, str | bool) for v in values):
            values = shared.setdefault(values, values)
        key = lookup(record.value, grouping.by)
        if key is not MISSING and not id_problem(key):
            known = parts.setdefault(str(key), [])
            known.append(values)
            theirs, place = first.setdefault(str(key), (mine, len(mine)))
            if len(known) > 1:
                if record.faults:
                    faults = (*theirs[place].faults, *in_auxiliary_file(file, record, record.faults))
                    theirs[place] = replace(theirs[place], faults=faults)
                continue
        else:
            known = [values]
        mine.append(replace(record, value=record.value | {PARTS: known}))
    return rows
