"""Rows whose records are spread over many: they are read whole, and put together by a key.

Each process does so once, and keeps them. A row stands where its first record stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from flexray.data.auxiliary_files import in_side_file
from flexray.data.identity import id_problem
from flexray.data.records import MISSING, Record, lookup

PARTS = "(parts)"
"""The field of a gathered record that lists the parts of all its records, as tuples."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What holds the records of a row together."""

    by: str  # the field that is the same in all of them
    part: tuple[str, ...]  # the fields in which they differ; for the rest, the first speaks for all


def group_by(records: Iterable[tuple[str, Record]], grouping: Grouping) -> dict[str, list[Record]]:
    """File -> its rows in order, from file and record of all files.

    A record without a usable key is a row by itself.
    """
    rows: dict[str, list[Record]] = {}
    parts: dict[str, list[tuple[Any, ...]]] = {}
    first: dict[str, tuple[list[Record], int]] = {}  # where the row is
    shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # equal parts are one object: there are millions
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
                    faults = (*theirs[place].faults, *in_side_file(file, record, record.faults))
                    theirs[place] = replace(theirs[place], faults=faults)
                continue
        else:
            known = [values]
        mine.append(replace(record, value=record.value | {PARTS: known}))
    return rows
