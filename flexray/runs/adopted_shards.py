"""Shards of a table that come of the committed shards of earlier runs: planned, and committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from flexray.sink import Lock, Manifest, OutputFolder, RunRecord, commit_shard
from flexray.sink.plan.files import next_number, write_part
from flexray.sink.read.committed import load_shard
from flexray.sink.records import CODE_OF_0_1, PlanPart

_NOT_COUNTERS = ("process", "device", "dtype", "rounding")
"""Of a manifest's engine_stats: how rows were computed, not how much was done for them."""
_COUNTS_OF = "counts_of"
"""In engine_stats: `keys_sha256` of the old shard whose counters these are. Of the shards that come of an old
one only one takes them over, so that sums over shards stay right, also after a kill."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of an old shard that become a shard of the table."""

    folder: OutputFolder
    manifest: Manifest
    row_ids: pa.Array


@dataclass(slots=True)
class Part:
    """A part of the plan in the making: its questions, and where each of its shards comes from."""

    questions: list[pa.Table] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


def write_parts(
    to: OutputFolder, run: RunRecord | None, new: Mapping[tuple[str, ...], Part], fingerprint: str
) -> list[tuple[PlanPart, Part]]:
    """Write the plan files of the new parts; `new`: by the methods that have answered them."""
    number, next_shard = next_number(run), run.next_shard if run else 0
    written: list[tuple[PlanPart, Part]] = []
    for methods, part in new.items():
        rows = pa.concat_tables(part.questions)
        plan = write_part(
            to,
            number + len(written),
            rows,
            shards=[table.num_rows for table in part.questions],
            first_shard=next_shard,
            methods=methods,
            fingerprint=fingerprint,
            replaces=pa.array([False] * rows.num_rows),
        )
        written.append((plan, part))
        next_shard += len(part.questions)
    return written


def commit_parts(
    to: OutputFolder,
    run: RunRecord,
    written: Sequence[tuple[PlanPart, Part]],
    *,
    committed: Mapping[str, Manifest],
    keys: Mapping[tuple[str, str], str],
    lock: Lock,
) -> None:
    """Commit the shards of new parts.

    Args:
        committed: the shards that the table had before.
        keys: `keys_sha256` of each shard of the earlier runs, by folder and shard id.

    Raises:
        DamageError: an old shard was changed since it was read for the plan.
        OSError: the folder cannot be written.
    """
    placed = [
        (plan, source, run.shard_id(plan.file.first_shard + number))
        for plan, part in written
        for number, source in enumerate(part.sources)
    ]
    counts = {
        manifest.engine_stats[_COUNTS_OF]: shard_id
        for shard_id, manifest in committed.items()
        if _COUNTS_OF in manifest.engine_stats
    }
    for _, source, shard_id in placed:
        counts.setdefault(source.manifest.keys_sha256, shard_id)
    # first those that take over counters, which the others name
    for plan, source, shard_id in sorted(placed, key=lambda p: counts[p[1].manifest.keys_sha256] != p[2]):
        old = source.manifest
        table = load_shard(source.folder, old)
        rows = table.filter(
            pc.and_(
                pc.is_in(table["row_id"], source.row_ids), pc.is_in(table["method"], pa.array(plan.methods))
            )
        )
        at = rows.schema.get_field_index("shard_id")
        rows = rows.set_column(at, rows.schema.field(at), pa.array([shard_id] * rows.num_rows, pa.string()))
        stats, holder = dict(old.engine_stats), counts[old.keys_sha256]
        if holder == shard_id:
            elsewhere = keys.get((source.folder.url, stats.get("counted_in", "")), "")
            stats |= {"counted_in": counts.get(elsewhere, ""), _COUNTS_OF: old.keys_sha256}
        else:
            stats = {key: stats[key] for key in _NOT_COUNTERS if key in stats} | {"counted_in": holder}
        lock.check()
        commit_shard(
            to,
            shard_id=shard_id,
            table=rows,
            fingerprint=run.fingerprint,
            methods=plan.methods,
            engine_stats=stats,
            seconds=old.seconds if holder == shard_id else 0.0,
            expected_row_ids=source.row_ids.to_pylist(),
            codes=old.code or (CODE_OF_0_1,),
        )
