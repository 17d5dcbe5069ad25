"""The second step of planning: the rows of a bucket are compared with each other and with what is committed.

What is committed is indexed by bucket as the sources are, from the plan files. Only what is not as expected
is told of a row: that it lacks other methods than all, replaces a committed row, or repeats another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexray.data.repeats import find_repeats
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.files import read_part, shard_tables
from flexray.sink.plan.scratch import Scratch, Slice
from flexray.sink.plan.staging import COMPARED, INDEX_SCHEMA, by_bucket, compared_columns
from flexray.sink.records import PlanPart

SHOWN_CHANGES = 5
KNOWN_SCHEMA = pa.schema([*COMPARED, pa.field("replaces", pa.bool_())])
CHANGES_SCHEMA = pa.schema(
    [
        pa.field("place", pa.int64()),  # in its piece
        pa.field("missing", pa.int64()),  # methods, as bits
        pa.field("replaces", pa.bool_()),
        # of a row that repeats another: its new id, and where the first one is; else null
        pa.field("new_id", pa.string()),
        pa.field("first_file", pa.string()),
        pa.field("first_row", pa.int64()),
    ]
)
Bits = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is compared."""

    number: int
    found: tuple[Slice, ...]
    """Of each piece, INDEX_SCHEMA."""
    known: tuple[Slice, ...]
    """Of each committed part, KNOWN_SCHEMA."""


@dataclass(frozen=True, slots=True)
class Rules:
    """By what rows are compared."""

    wanted: int
    """The methods of the recipe, as bits."""
    parts: tuple[int, ...]
    """The methods of each committed part, as bits."""
    replace_changed: bool


@dataclass(frozen=True, order=True, slots=True)
class Refused:
    """A committed row that asks something else now."""

    part: int
    """The negative of its number, as the last part comes first."""
    place: int
    piece: int
    place_now: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found out about a bucket."""

    changes: dict[int, Slice]
    """Of each piece that has any: CHANGES_SCHEMA, in order of places."""
    counts: dict[tuple[int, int], int]
    """How many of them there are, by piece and missing methods."""
    left_out: Slice | None
    """Committed rows that are not found (`row_id`)."""
    refused: int
    examples: list[Refused]
    """Of those, the first SHOWN_CHANGES."""


def asks_otherwise(
    content: pa.Array, was_faulty: pa.Array, content_now: pa.Array, is_faulty: pa.Array
) -> pa.Array:
    """For each row, whether its committed answers are not those of what it asks now: its content has changed,
    or it had a fault, and has none now."""
    mended = pc.and_(was_faulty, pc.invert(is_faulty))
    return pc.or_(pc.not_equal(content, content_now), mended)


def index_part(folder: OutputFolder, scratch: Scratch, buckets: int, part: PlanPart) -> list[Slice]:
    """Index the rows of a part, without those of its withdrawn shards; KNOWN_SCHEMA, by bucket. Raises
    DamageError as `read_part`."""
    table = read_part(folder, part, ["row_id", "content", "error", "replaces"])
    table = pa.table(compared_columns(table) | {"replaces": table["replaces"]}, schema=KNOWN_SCHEMA)
    rows = pa.concat_tables([table.slice(0, 0), *shard_tables(part, table).values()]).combine_chunks()
    return scratch.put(f"part-{part.file.first_shard}", by_bucket(rows, buckets))


def compare(scratch: Scratch, rules: Rules, bucket: Bucket) -> Compared:
    """Compare a bucket. Raises DataError as `find_repeats`; OSError."""
    found, piece = _read(scratch, bucket.found, INDEX_SCHEMA)
    known, part = _read(scratch, bucket.known, KNOWN_SCHEMA)
    ids, faulty = found["row_id"].combine_chunks(), found["faulty"].to_numpy()
    repeats = find_repeats(ids)
    new_id = np.full(len(ids), None, object)
    first = np.full(len(ids), -1)
    for repeat in repeats:
        new_id[repeat.index], first[repeat.index] = repeat.row_id, repeat.first
    again = first >= 0
    if repeats:
        faulty = faulty | again
        ids = pc.if_else(pa.array(again), pa.array(new_id, pa.string()), ids)
    live = _live(known, part)
    known, part = known.filter(pa.array(live)), part[live]
    at = pc.index_in(known["row_id"].combine_chunks(), ids)
    left_out = known["row_id"].filter(at.is_null()).unique()
    here = at.is_valid().to_numpy(zero_copy_only=False)
    known, part, places = known.filter(pa.array(here)), part[here], at.drop_null().to_numpy()
    changed = asks_otherwise(
        known["content"], known["faulty"], found["content"].take(pa.array(places)), pa.array(faulty[places])
    ).to_numpy(zero_copy_only=False)
    have: Bits = np.zeros(len(ids), np.int64)
    np.bitwise_or.at(have, places, np.array(rules.parts, np.int64)[part])
    replaces = np.zeros(len(ids), bool)
    replaces[places[changed]] = True
    have[replaces] = 0
    missing = rules.wanted & ~have
    told = np.flatnonzero(replaces | again | (missing != rules.wanted))
    changes = pa.table(
        {
            "place": found["place"].take(pa.array(told)),
            "missing": missing[told],
            "replaces": replaces[told],
            "new_id": pa.array(new_id[told], pa.string()),
            "first_file": found["source_file"].cast(pa.string()).take(_or_null(first[told])),
            "first_row": found["source_row"].take(_or_null(first[told])),
        },
        schema=CHANGES_SCHEMA,
    )
    of_piece, counts = _by_piece(changes, piece[told], missing[told])
    tables = [*of_piece.values(), pa.table([left_out], ["row_id"])]
    kept = scratch.put(f"changes-{bucket.number:05d}", tables)
    refused: Bits = np.zeros(0, np.int64)
    if not rules.replace_changed:
        refused = np.flatnonzero(changed & ~known["faulty"].to_numpy())
        refused = refused[np.lexsort((known["place"].to_numpy()[refused], -part[refused]))]
        # another part may have the same question for other methods
        refused = refused[np.sort(np.unique(places[refused], return_index=True)[1])]
    of_known, of_found = known["place"].to_numpy(), found["place"].to_numpy()
    examples = [
        Refused(-int(part[i]), int(of_known[i]), int(piece[places[i]]), int(of_found[places[i]]))
        for i in refused[:SHOWN_CHANGES].tolist()
    ]
    return Compared(
        changes=dict(zip(of_piece, kept, strict=False)),
        counts=counts,
        left_out=kept[-1] if len(left_out) else None,
        refused=len(refused),
        examples=examples,
    )


def _read(scratch: Scratch, slices: Sequence[Slice], schema: pa.Schema) -> tuple[pa.Table, Bits]:
    """The tables as one, and the number of the table that each row is of."""
    tables = scratch.get(slices)
    numbers = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    return pa.concat_tables([schema.empty_table(), *tables]).unify_dictionaries().combine_chunks(), numbers


def _live(known: pa.Table, part: Bits) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """For each committed row, whether no later part replaces it."""
    replaces = known["replaces"].to_numpy()
    if not replaces.any():
        return np.ones(len(part), bool)
    codes = known["row_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    last = np.full(codes.max() + 1, -1)
    np.maximum.at(last, codes[replaces], part[replaces])
    return np.asarray(part >= last[codes])


def _or_null(indices: Bits) -> pa.Array:
    return pa.array(indices, mask=indices < 0)


def _by_piece(
    changes: pa.Table, piece: Bits, missing: Bits
) -> tuple[dict[int, pa.Table], dict[tuple[int, int], int]]:
    """The changes of each piece, and their counts. `piece` is in order."""
    numbers, starts = np.unique(piece, return_index=True)
    ends = np.append(starts, len(piece))[1:]
    found: dict[int, pa.Table] = {}
    counts: dict[tuple[int, int], int] = {}
    for number, start, stop in zip(numbers.tolist(), starts, ends, strict=True):
        found[number] = changes.slice(start, stop - start)
        masks, often = np.unique(missing[start:stop], return_counts=True)
        counts |= {(number, mask): count for mask, count in zip(masks.tolist(), often.tolist(), strict=True)}
    return found, counts
