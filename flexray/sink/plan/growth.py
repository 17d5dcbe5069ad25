"""What a start has to add to the plan: the (row, method) pairs that its recipe names and no commit has.

What is not committed is only planned, so a start that finds anything else to do than the plan says plans all
of that anew: shards without a commit are withdrawn, and their questions come again in new parts, by the
methods that are wanted now. Committed rows stay as they are, whether the recipe names them or not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from flexray.data.plan_rows import VALUES
from flexray.errors import DataError, OutputError, shown
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.compare import SHOWN_CHANGES, Bucket, Compared, Rules, compare, index_part
from flexray.sink.plan.files import next_number, read_part
from flexray.sink.plan.staging import Staged
from flexray.sink.plan.writer import (
    Compiled,
    FileTask,
    cut_files,
    read_piece,
    shard_sizes,
    write_file,
    write_ids,
)
from flexray.sink.records import PlanPart, RunRecord, Selection

MAX_METHODS = 62
"""Of a table: sets of methods are the bits of a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """The plan of a table after a start."""

    plan: tuple[PlanPart, ...]
    selection: Selection
    next_shard: int


def grow(
    folder: OutputFolder,
    run: RunRecord | None,
    data: Staged,
    *,
    methods: Sequence[str],
    sources: str,
    committed: Collection[str],
    shard_rows: int,
    fingerprint: str,
    first_shard: int,
    replace_changed: bool = False,
) -> Growth:
    """Compare what a recipe names with what is committed, and write the plan files of what is missing. No
    row is looked at here: tasks do that, where `data.site` says.

    Args:
        run: the table's record. None: there is no table yet.
        data: the data set.
        methods, sources: of the recipe; see Selection.
        committed: ids of the committed shards.
        first_shard: the number of the first shard that is planned now.
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
    rules = Rules(wanted, tuple(sum(bit[name] for name in part.methods) for part in kept), replace_changed)
    found = _compare(folder, kept, data, rules)
    pieces = [
        Compiled(piece.rows, tuple(bucket.changes[number] for bucket in found if number in bucket.changes))
        for number, piece in enumerate(data.pieces)
    ]
    if any(bucket.refused for bucket in found):
        raise _changed(folder, kept, found, data, pieces, wanted)
    tasks: list[FileTask] = []
    number, next_shard = next_number(run), first_shard
    for mask, counts in sorted(_counts(data, found, wanted).items()):
        for takes in cut_files(counts, shard_rows):
            task = FileTask(
                number=number + len(tasks),
                first_shard=next_shard,
                shard_rows=shard_rows,
                missing=mask,
                methods=tuple(name for name in methods if bit[name] & mask),
                takes=tuple((pieces[take.piece], take) for take in takes),
            )
            tasks.append(task)
            next_shard += len(shard_sizes(sum(map(len, takes)), shard_rows))
    site = data.site
    write = partial(write_file, folder, site.scratch, fingerprint, wanted, data.id_field)
    parts = list(site.map(write, tasks))
    left_out = [bucket.left_out for bucket in found if bucket.left_out is not None]
    write_others = partial(write_ids, folder, site.scratch, number + len(tasks))
    others = list(site.map(write_others, [left_out] if left_out else []))
    return Growth(
        plan=(*kept, *parts),
        selection=Selection(methods=tuple(methods), sources=sources, left_out=others[0] if others else None),
        next_shard=next_shard,
    )


def _compare(folder: OutputFolder, kept: Sequence[PlanPart], data: Staged, rules: Rules) -> list[Compared]:
    """What was found out about each bucket."""
    site = data.site
    known = list(site.map(partial(index_part, folder, site.scratch, data.buckets), kept))
    buckets = [
        Bucket(
            number,
            tuple(piece.index[number] for piece in data.pieces),
            tuple(of_part[number] for of_part in known),
        )
        for number in range(data.buckets)
    ]
    return list(site.map(partial(compare, site.scratch, rules), buckets))


def _counts(data: Staged, found: Sequence[Compared], wanted: int) -> dict[int, dict[int, int]]:
    """By missing methods, as bits: how many rows of each piece lack them; none is left out."""
    counts: dict[int, dict[int, int]] = {}
    for number, piece in enumerate(data.pieces):
        counts.setdefault(wanted, {})[number] = piece.num_rows
    for bucket in found:
        for (number, mask), count in bucket.counts.items():
            of_mask = counts.setdefault(mask, {})
            of_mask[number] = of_mask.get(number, 0) + count
            counts[wanted][number] -= count
    return {
        mask: {number: of_mask[number] for number in sorted(of_mask) if of_mask[number]}
        for mask, of_mask in counts.items()
        if mask
    }


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
    folder: OutputFolder,
    kept: Sequence[PlanPart],
    found: Sequence[Compared],
    data: Staged,
    pieces: Sequence[Compiled],
    wanted: int,
) -> DataError:
    lines: list[str] = []
    for row in sorted(row for bucket in found for row in bucket.examples)[:SHOWN_CHANGES]:
        (old,) = read_part(folder, kept[-row.part]).slice(row.place, 1).to_pylist()
        now, *_ = read_piece(data.site.scratch, pieces[row.piece], wanted, data.id_field)
        (new,) = now.slice(row.place_now, 1).to_pylist()
        where = f"{new['source_file']}, row {new['source_row']}"
        if new["error"]:
            lines.append(f"{where} (id {new['row_id']}): has a fault now: {new['error']}")
            continue
        field = next((name for name in VALUES if old[name] != new[name]), VALUES[0])
        values = f"{shown(old[field])} -> {shown(new[field])}"
        lines.append(f"{where} (id {new['row_id']}), field {field!r}: {values}")
    count = sum(bucket.refused for bucket in found)
    if count > len(lines):
        lines.append(f"and {count - len(lines)} more")
    return DataError(
        f"{count} rows that {folder} has answers to ask something else now:\n  "
        + "\n  ".join(lines)
        + "\nGive changed questions new ids; or compute these rows again with --replace-changed, which keeps "
        "their old answers in the data files, but shows them no more."
    )
