"""Read a data set, once: each record becomes a checked row of PLAN_SCHEMA.

In one process, `scan` does all of it. In several, `list_ranges` cuts the data set, `read_range` reads a part
in any process. Where all parts are read, `check_summaries` judges what no part can by itself, `last_asked`
and `up_to` leave out what `data.sample_rows` does not ask, `find_repeats` and `mark_repeats` make the row ids
distinct.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby

import numpy as np
import pyarrow as pa

from flexray.config.data import DataConfig
from flexray.data.files import list_files, reading, with_version
from flexray.data.join import JoinCount, check_joined
from flexray.data.plan_rows import PLAN_SCHEMA
from flexray.data.ranges import Range, list_ranges
from flexray.data.readers import find_versions
from flexray.data.repeats import find_repeats, mark_repeats
from flexray.data.required_fields import FieldCheck
from flexray.data.selection import Places, check_ids, id_versions, last_place, up_to
from flexray.data.source import Source
from flexray.errors import DataError
from flexray.storage import redact, starting


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a part of the data set contributes to the judgement of whole files and of the whole data set."""

    num_rows: int
    checks: tuple[FieldCheck, ...]  # of each file
    joined: JoinCount | None  # None: nothing is joined
    num_read: int  # rows, also those that are not selected
    ids: frozenset[str]  # those of data.ids that its rows have
    id_field: str | None  # the field of the ids; None: they are made from the content
    places: Places = field(compare=False)  # as Selection.places


class RangeReader:
    """The rows of a part of a data set, as tables of PLAN_SCHEMA of some thousand rows. Iterate once; after
    the last table there is a summary.

    Row ids are not yet distinct; see `find_repeats`.
    """

    def __init__(self, config: DataConfig, part: Range) -> None:
        self._config = config
        self._part = part
        self._summary: Summary | None = None

    @property
    def summary(self) -> Summary:
        assert self._summary is not None, "it is made once all rows are read"
        return self._summary

    def __iter__(self) -> Iterator[pa.Table]:
        """Raises DataError as `scan`, except for what `check_summaries` finds."""
        part = self._part
        source = Source(self._config)
        rows = 0
        for table in source.read(part):
            rows += len(table)
            yield table
        if part.most is None and part.num_rows not in (None, source.num_read):
            raise DataError(
                f"{redact(part.files[0].path)}: was changed while it was read: it had {part.num_rows} rows "
                f"from row {part.first_row}, and now {source.num_read}. Start again."
            )
        chosen = source.selection
        joined = None if source.joined is None else source.joined.count()
        self._summary = Summary(
            num_rows=rows,
            num_read=source.num_read,
            ids=frozenset(chosen.found) if chosen else frozenset(),
            places=chosen.places if chosen else np.array([], np.uint64),
            checks=tuple(source.checks.values()),
            joined=joined,
            id_field=source.id_field,
        )


def read_range(config: DataConfig, part: Range) -> RangeReader:
    """Read and check the rows of a part of a data set, which `list_ranges` made of the same configuration."""
    return RangeReader(config, part)


def check_files(summaries: Sequence[Summary]) -> None:
    """Judge whole files.

    Args:
        summaries: of all parts of some files, in order.

    Raises:
        DataError: no record of a file is an object, or none has a required field.
    """
    checks: dict[str, FieldCheck] = {}
    for summary in summaries:
        for check in summary.checks:
            if check.path in checks:
                checks[check.path] = checks[check.path].merged(check)
            else:
                checks[check.path] = check
    for check in checks.values():
        check.check()


def check_summaries(config: DataConfig, summaries: Sequence[Summary]) -> None:
    """Judge the whole data set.

    Args:
        summaries: of all of its parts, in order.

    Raises:
        DataError: as `check_files`; or there are no rows, or joined files have none of their ids.
    """
    check_files(summaries)
    read = sum(summary.num_read for summary in summaries)
    if read:
        check_ids(config, [summary.ids for summary in summaries])
        if not any(summary.num_rows for summary in summaries):
            raise DataError(
                f"{', '.join(config.sources)}: no rows are left of {read}. Raise data.sample, or remove it."
            )
    else:
        raise DataError(f"{', '.join(config.sources)}: no rows in any file. Correct data.files.")
    check_joined([summary.joined for summary in summaries if summary.joined is not None], config)


def last_asked(config: DataConfig, summaries: Sequence[Summary]) -> int | None:
    """Up to which place rows are asked (see `up_to`), where all parts are read. None: all that were kept."""
    return last_place(config, [summary.places for summary in summaries])


def scan(config: DataConfig) -> pa.Table:
    """Read the whole data set in this process. All of it is in memory.

    Returns:
        PLAN_SCHEMA: the rows in order of file and row, with distinct row ids. A faulty row has its faults in
        `error`, and what could be read in the other columns.

    Raises:
        DataError: a file cannot be read, no record of a file has a required field, or there are no rows.
    """
    tables: list[pa.Table] = []
    summaries: list[Summary] = []
    for _, parts in groupby(list_ranges(config), key=lambda part: part.files):
        before = len(summaries)
        for part in parts:
            reader = read_range(config, part)
            tables += reader
            summaries.append(reader.summary)
        check_files(summaries[before:])
    check_summaries(config, summaries)
    table = pa.concat_tables(tables) if tables else PLAN_SCHEMA.empty_table()
    table = up_to(table, config, last_asked(config, summaries))
    repeats = find_repeats(table["row_id"])
    first = pa.array([repeat.first for repeat in repeats], pa.int64())
    files, rows = (table[name].take(first).to_pylist() for name in ("source_file", "source_row"))
    places = list(zip(files, rows, strict=True))
    return mark_repeats(table, repeats, places, summaries[0].id_field)


def source_versions(config: DataConfig) -> str:
    """A digest (64 hex digits) of the configuration of the data and of the versions of all its files, without
    reading any. If it is equal, reading the data set would give the same rows.

    Raises:
        DataError: as `list_files`, or the storage does not tell the version of a file.
        ConfigError: as `list_files`.
    """
    with starting(), reading(", ".join(config.sources)):
        versions = [
            *map(with_version, list_files(config)),
            *find_versions(config.template_files, "data.template_files"),
            *find_versions(config.paraphrase_files, "data.paraphrase_files"),
            *id_versions(config),
        ]
    files = [[file.path, file.format, version] for file, version in versions]
    text = json.dumps([config.model_dump(mode="json"), files], sort_keys=True)
    return sha256(text.encode()).hexdigest()
