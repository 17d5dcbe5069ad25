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
from flexray.sink.plan import part_rows
from flexray.sink.plan_files import next_number, read_part, write_left_out, write_part
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
    kept = committed_parts(run, committed) if run else []
    have = np.zeros(found.num_rows, np.int64)
    replaced, told = np.zeros((2, found.num_rows), bool)
    left_out = [pa.array([], pa.string())]
    refused: list[tuple[PlanPart, pa.Table, pa.Array]] = []
    ids = found["row_id"].combine_chunks()
    for of_part in part_rows(folder, kept, ["content", "error"]):
        known = of_part.live()
        at = pc.index_in(known["row_id"].combine_chunks(), ids)
        left_out.append(known["row_id"].combine_chunks().filter(at.is_null()))
        known, at = known.filter(at.is_valid()), at.drop_null()
        places, now = at.to_numpy(), found.select(["content", "error"]).take(at)
        was_faulty = pc.not_equal(known["error"], "").to_numpy()
        changed = pc.not_equal(known["content"], now["content"]).to_numpy()
        changed |= was_faulty & pc.equal(now["error"], "").to_numpy()
        if not replace_changed and (bad := changed & ~was_faulty & ~told[places]).any():
            told[places[bad]] = True  # another part may have the same question for other methods
            refused.append((of_part.part, known.filter(pa.array(bad)), at.filter(pa.array(bad))))
        have[places] |= sum(bit[name] for name in of_part.part.methods)
        replaced[places[changed]] = True
    if refused:
        raise _changed(folder, refused, found)
    have[replaced] = 0
    missing = wanted & ~have
    number, next_shard = next_number(run), run.next_shard if run else 0
    parts = []
    for mask in np.unique(missing[missing != 0]).tolist():
        rows = found.filter(pa.array(missing == mask))
        sizes = [min(shard_rows, rows.num_rows - start) for start in range(0, rows.num_rows, shard_rows)]
        by = [name for name in methods if bit[name] & mask]
        parts.append(
            write_part(
                folder,
                number,
                rows,
                shards=sizes,
                first_shard=next_shard,
                methods=by,
                fingerprint=fingerprint,
                replaces=pa.array(replaced[missing == mask]),
            )
        )
        number, next_shard = number + 1, next_shard + len(sizes)
    others = pa.concat_arrays(left_out).unique()
    return Growth(
        plan=(*kept, *parts),
        selection=Selection(
            methods=tuple(methods), sources=sources, left_out=write_left_out(folder, number, others)
        ),
        next_shard=next_shard,
    )


def committed_parts(run: RunRecord, committed: Collection[str]) -> list[PlanPart]:
    """The parts of the plan without the shards that are not committed."""
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


def _changed(
    folder: OutputFolder, refused: Sequence[tuple[PlanPart, pa.Table, pa.Array]], found: pa.Table
) -> DataError:
    """`refused`: of a part, the rows that were planned, with their places in its file, and the places in
    `found` of what they are now."""
    lines: list[str] = []
    for part, known, at in refused:
        more = SHOWN_CHANGES - len(lines)
        before = read_part(folder, part).take(known["place"].slice(0, more)).to_pylist()
        for old, new in zip(before, found.take(at.slice(0, more)).to_pylist(), strict=True):
            where = f"{new['source_file']}, row {new['source_row']}"
            if new["error"]:
                lines.append(f"{where} (id {new['row_id']}): has a fault now: {new['error']}")
                continue
            field = next((name for name in VALUES if old[name] != new[name]), VALUES[0])
            values = f"{shown(old[field])} -> {shown(new[field])}"
            lines.append(f"{where} (id {new['row_id']}), field {field!r}: {values}")
    count = sum(len(at) for _, _, at in refused)
    if count > len(lines):
        lines.append(f"and {count - len(lines)} more")
    return DataError(
        f"{count} rows that {folder} has answers to ask something else now:\n  "
        + "\n  ".join(lines)
        + "\nGive changed questions new ids; or compute these rows again with --replace-changed, which keeps "
        "their old answers in the data files, but shows them no more."
    )
