"""What a start has to add to the plan: the (row, method) pairs that its recipe names and no commit has.

What is not committed is only planned, so a start that finds anything else to do than the plan says plans all
of that anew: shards without a commit are withdrawn, and their questions come again in new parts, by the
methods that are wanted now. Committed rows stay as they are, whether the recipe names them or not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexray.data.plan_rows import VALUES
from flexray.errors import DataError, OutputError, shown
from flexray.sink.folder import OutputFolder
from flexray.sink.plan import (
    next_number,
    read_part,
    replaced_ids,
    shard_tables,
    write_left_out,
    write_part,
)
from flexray.sink.records import PlanPart, RunRecord, Selection

MAX_METHODS = 62
"""Of a table: sets of methods are the bits of a number."""
SHOWN_CHANGES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """The plan of a table after a start."""

    plan: tuple[PlanPart, ...]
    selection: Selection
    next_shard: int
    new_rows: int
    """Output rows that were not planned before, or not like this."""
    replaced: int
    """Committed questions that ask something else now."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The committed rows of a part: row_id, content, error, and their places in the part's file."""

    part: PlanPart
    rows: pa.Table


def grow(
    folder: OutputFolder,
    run: RunRecord | None,
    found: pa.Table,
    *,
    methods: Sequence[str],
    sources: str,
    committed: Collection[str],
    shard_rows: int,
    fingerprint: str,
    replace_changed: bool = False,
) -> Growth:
    """Compare what a recipe names with what is committed, and write the plan files of what is missing.

    Args:
        run: the table's record. None: there is no table yet.
        found: the data set (PLAN_SCHEMA), each row id once.
        methods, sources: of the recipe; see Selection.
        committed: ids of the committed shards.
        replace_changed: compute committed rows again whose question has changed. A row whose question had a
            fault is computed again in any case.

    Raises:
        DataError: committed rows ask something else now; names file, row and field.
        OutputError: more than MAX_METHODS methods.
        DamageError: a plan file cannot be trusted. OSError: the folder cannot be written.
    """
    names = list(dict.fromkeys([*(run.methods if run else ()), *methods]))
    if len(names) > MAX_METHODS:
        raise OutputError(
            f"{folder}: {len(names)} methods, of at most {MAX_METHODS} in a table. Use another output folder."
        )
    bit = {name: 1 << number for number, name in enumerate(names)}
    wanted = sum(bit[name] for name in methods)
    kept = _committed_parts(run, committed) if run else []
    have = np.zeros(found.num_rows, np.int64)
    replaced = np.zeros(found.num_rows, bool)
    left_out: list[pa.Array] = []
    ids = found["row_id"].combine_chunks()
    for known in _known_rows(folder, kept):
        places = pc.index_in(known.rows["row_id"].combine_chunks(), ids)
        left_out.append(known.rows["row_id"].combine_chunks().filter(places.is_null()))
        known_rows = known.rows.filter(places.is_valid())
        places = places.drop_null().to_numpy()
        now = found.select(["content", "error"]).take(places)
        changed = pc.not_equal(known_rows["content"], now["content"]).to_numpy()
        was_faulty = pc.not_equal(known_rows["error"], "").to_numpy()
        changed |= was_faulty & pc.equal(now["error"], "").to_numpy()
        if not replace_changed and (refused := changed & ~was_faulty).any():
            raise _changed(folder, known.part, known_rows.filter(refused), found.take(places[refused]))
        have[places] |= sum(bit[name] for name in known.part.methods)
        replaced[places[changed]] = True
    have[replaced] = 0
    missing = wanted & ~have
    number, next_shard = next_number(run), run.next_shard if run else 0
    parts, new_rows = [], 0
    for mask in sorted(set(missing[missing != 0].tolist())):
        rows = found.filter(pa.array(missing == mask))
        sizes = [min(shard_rows, rows.num_rows - start) for start in range(0, rows.num_rows, shard_rows)]
        of_part = [name for name in methods if bit[name] & mask]
        parts.append(
            write_part(
                folder,
                number,
                rows,
                shards=sizes,
                first_shard=next_shard,
                methods=of_part,
                fingerprint=fingerprint,
                replaces=pa.array(replaced[missing == mask]),
            )
        )
        number, next_shard, new_rows = (
            number + 1,
            next_shard + len(sizes),
            new_rows + rows.num_rows * len(of_part),
        )
    others = pa.concat_arrays(left_out).unique() if left_out else pa.array([], pa.string())
    return Growth(
        plan=(*kept, *parts),
        selection=Selection(
            methods=tuple(methods), sources=sources, left_out=write_left_out(folder, number, others)
        ),
        next_shard=next_shard,
        new_rows=new_rows,
        replaced=int(replaced.sum()),
    )


def _committed_parts(run: RunRecord, committed: Collection[str]) -> list[PlanPart]:
    numbers = {number for shard_id, (_, number) in run.shards().items() if shard_id in committed}
    return [kept for part in run.plan if (kept := committed_part(part, numbers))]


def committed_part(part: PlanPart, committed: Set[int]) -> PlanPart | None:
    """The part without its shards that are not committed; None: none is."""
    first = part.file.first_shard
    stays = committed & part.shards.keys()
    gone = (number for number in range(first, first + len(part.file.sizes)) if number not in stays)
    ranges = [[n for _, n in run] for _, run in groupby(enumerate(gone), lambda pair: pair[1] - pair[0])]
    withdrawn = tuple((found[0], found[-1]) for found in ranges)
    return part.model_copy(update={"withdrawn": withdrawn}) if stays else None


def _known_rows(folder: OutputFolder, parts: Sequence[PlanPart]) -> list[_Known]:
    """Of each part, without the rows that a later part has replaced."""
    known: list[_Known] = []
    gone = pa.array([], pa.string())
    for part in reversed(parts):
        table = read_part(folder, part, ["row_id", "content", "error"])
        table = table.append_column("place", pa.array(np.arange(table.num_rows)))
        rows = pa.concat_tables(shard_tables(part, table).values())
        known.append(_Known(part, rows.filter(pc.invert(pc.is_in(rows["row_id"], gone)))))
        gone = pa.concat_arrays([gone, replaced_ids(folder, part)])
    return known


def _changed(folder: OutputFolder, part: PlanPart, known: pa.Table, now: pa.Table) -> DataError:
    """`known` and `now`: the rows as they were planned, and as they are."""
    few = slice(SHOWN_CHANGES)
    before = read_part(folder, part).take(known["place"].slice(0, SHOWN_CHANGES)).to_pylist()
    lines = []
    for old, new in zip(before, now.slice(0, SHOWN_CHANGES).to_pylist()[few], strict=True):
        where = f"{new['source_file']}, row {new['source_row']}"
        if new["error"]:
            lines.append(f"{where}: has a fault now: {new['error']}")
            continue
        fields = [name for name in VALUES if old[name] != new[name]]
        lines += [
            f"{where}, field {name!r}: {shown(old[name])} -> {shown(new[name])} (row {new['row_id']})"
            for name in fields[:1]
        ]
    more = f"\n  and {known.num_rows - len(lines)} more" if known.num_rows > len(lines) else ""
    return DataError(
        f"{known.num_rows} rows that {folder} has answers to ask something else now:\n  "
        + "\n  ".join(lines)
        + more
        + "\nGive changed questions new ids; or compute these rows again with --replace-changed, which keeps "
        "their old answers in the data files, but shows them no more."
    )
