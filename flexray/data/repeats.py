"""Rows that repeat the id of an earlier row: each gets an id of its own, and a fault that names the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexray.errors import DataError, RowFault

MOST = 999_999
"""Of rows with one id. More are no slip, but ids that are none."""
_NUMBERS = r"(#[0-9]{1,6})+$"  # of a family, as many digits as MOST
_SAME = re.compile(r"has the same (?:id|content) as (.+?), row (\d+)")


@dataclass(frozen=True, slots=True)
class Repeat:
    """A row whose id an earlier row has."""

    index: int  # of the row, in the data set
    first: int  # index of the first row with this id
    row_id: str  # its new id, distinct in the data set


def find_repeats(row_ids: pa.Array | pa.ChunkedArray) -> list[Repeat]:
    """The rows that repeat an id, in order. Each is renamed to `id#2`, `id#3`, ..., but never to an id that
    is already used.

    Args:
        row_ids: of the whole data set, in order (string); or of some whole families.

    Raises:
        DataError: more than MOST rows have one id.
    """
    row_ids = pa.chunked_array([row_ids]) if isinstance(row_ids, pa.Array) else row_ids
    if pc.count_distinct(row_ids).as_py() == len(row_ids):
        return []
    # a dictionary has the values in the order in which they first occur, so the first row of each raises the
    # highest index so far
    codes = pc.cast(row_ids, pa.large_string()).dictionary_encode().combine_chunks()
    indices = np.concatenate([chunk.indices.to_numpy() for chunk in _chunks(codes)])
    highest = np.maximum.accumulate(indices)
    is_first = np.ones(len(indices), bool)
    is_first[1:] = highest[1:] > highest[:-1]
    first = np.flatnonzero(is_first)
    again = np.flatnonzero(~is_first)
    # new names end in #NUMBER, so only ids with a # can be in their way
    taken = set(pc.filter(row_ids, pc.match_substring(row_ids, "#")).to_pylist())
    count: dict[str, int] = {}
    repeats = []
    for index, row_id in zip(again.tolist(), row_ids.take(pa.array(again)).to_pylist(), strict=True):
        number = count.get(row_id, 1) + 1
        while f"{row_id}#{number}" in taken:
            number += 1
        if number > MOST:
            raise DataError(
                f"more than {MOST:,} rows have the id {row_id!r}. Name the field that has ids in "
                "data.fields.id, or set it to null, so that ids are made from the content."
            )
        count[row_id] = number
        taken.add(f"{row_id}#{number}")
        repeats.append(Repeat(index, int(first[indices[index]]), f"{row_id}#{number}"))
    return repeats


def family_of(row_ids: pa.Array) -> pa.Array:
    """What each id is without the numbers that `find_repeats` adds. An id and all new names of rows that
    repeat it are of one family, so families can be looked at by themselves."""
    if not pc.any(pc.match_substring(row_ids, "#")).as_py():
        return row_ids
    return pc.replace_substring_regex(row_ids, _NUMBERS, "")


def _chunks(array: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return array.chunks if isinstance(array, pa.ChunkedArray) else [array]


def mark_repeats(
    table: pa.Table,
    repeats: Sequence[Repeat],
    places: Sequence[tuple[str, int]],
    id_field: str | None,
    *,
    offset: int = 0,
) -> pa.Table:
    """The rows with the new ids of the repeats among them, and with the fault of each in its `error`.

    Args:
        table: rows of PLAN_SCHEMA.
        repeats: those within the table, in order.
        places: `source_file` and `source_row` of the first row of each repeat.
        id_field: `Summary.id_field`.
        offset: index in the data set of the table's first row.
    """
    if not repeats:
        return table
    rows = np.array([repeat.index - offset for repeat in repeats], np.int64)
    columns = ["row_id", "source_id", "source_file", "source_row", "error"]
    found = zip(table.select(columns).take(pa.array(rows)).to_pylist(), places, strict=True)
    errors = [f"{_fault(row, place, id_field)} {row['error']}".rstrip(" ") for row, place in found]
    is_repeat = np.zeros(len(table), bool)
    is_repeat[rows] = True
    for name, values in (("row_id", [repeat.row_id for repeat in repeats]), ("error", errors)):
        replaced = pc.replace_with_mask(table[name], pa.array(is_repeat), pa.array(values, pa.string()))
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), replaced)
    return table


def first_of(error: str) -> str | None:
    """Where the first row is that a row repeats, from its `error`; None: it repeats none.

    >>> first_of("b.jsonl, row 4, field 'id': has the same id as a.jsonl, row 2; found 'q1'.")
    'a.jsonl, row 2'
    """
    same = _SAME.search(error)
    return same and f"{same[1]}, row {same[2]}"


def _fault(row: dict[str, str], first: tuple[str, int], id_field: str | None) -> RowFault:
    what = "id" if row["source_id"] and id_field is not None else "content"
    return RowFault(
        row["source_file"],
        int(row["source_row"]),
        id_field or "(record)",
        row["source_id"] or row["row_id"],
        f"has the same {what} as {first[0]}, row {first[1]}",
        "Remove the repeated row, or give it another id.",
    )
