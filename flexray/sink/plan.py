"""The plan: which rows will be computed, and in which shard."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexray.data.question import ShardSpec
from flexray.sink.damage import DamageError, DamageKind
from flexray.sink.folder import OutputFolder
from flexray.sink.records import PLAN_FILE, RUN_FILE, SHARD_ID, PlanRecord, RunRecord, keys_digest
from flexray.sink.row_table import from_parquet, to_parquet

PLAN_SCHEMA = pa.schema(
    [pa.field("shard_id", pa.string(), nullable=False), pa.field("row_id", pa.string(), nullable=False)]
)
_PART = 10_000  # rows of a plan that are converted to Python objects at a time


class Plan:
    """The row ids of each shard, kept as an Arrow table: Python lists would need ten times the memory."""

    def __init__(self, table: pa.Table) -> None:
        """`table` is a result of `plan_table`: the rows of a shard are consecutive."""
        self._table = table
        self._spans: dict[str, tuple[int, int]] = {}  # shard id -> first row, number of rows
        start = 0
        for chunk in table["shard_id"].chunks:
            runs = pc.run_end_encode(chunk)
            first = 0
            for shard_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                known, rows = self._spans.get(shard_id, (start + first, 0))
                self._spans[shard_id] = known, rows + end - first
                first = end
            start += len(chunk)

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __contains__(self, shard_id: str) -> bool:
        return shard_id in self._spans

    def row_ids(self, shard_id: str) -> list[str]:
        """The rows of a shard, in order. Raises KeyError if the shard is not planned."""
        found: list[str] = self._table["row_id"].slice(*self._spans[shard_id]).to_pylist()
        return found

    def shards_of(self, row_ids: Sequence[str]) -> dict[str, str]:
        """The shard id of each of these rows, without the rows that are not planned."""
        here = self._table.filter(pc.is_in(self._table["row_id"], pa.array(row_ids, pa.string())))
        return dict(zip(here["row_id"].to_pylist(), here["shard_id"].to_pylist(), strict=True))


def plan_table(shards: Sequence[ShardSpec]) -> pa.Table:
    """One row (shard_id, row_id) for each planned row. Raises ValueError if a shard or row is planned
    twice."""
    shard_ids: list[str] = []
    row_ids: list[str] = []
    known_shards: set[str] = set()
    known_rows: set[str] = set()
    for shard in shards:
        if not re.fullmatch(SHARD_ID, shard.shard_id):
            raise ValueError(f"shard id {shard.shard_id!r} cannot be used in a file name")
        if shard.shard_id in known_shards:
            raise ValueError(f"shard {shard.shard_id} is planned twice")
        if len(shard.row_ids) != shard.num_rows:
            raise ValueError(
                f"shard {shard.shard_id} has {shard.num_rows} rows, but {len(shard.row_ids)} row ids"
            )
        known_shards.add(shard.shard_id)
        for row_id in shard.row_ids:
            if row_id in known_rows:
                raise ValueError(f"row {row_id} is planned twice, the second time in shard {shard.shard_id}")
            known_rows.add(row_id)
        shard_ids += [shard.shard_id] * shard.num_rows
        row_ids += shard.row_ids
    return pa.table({"shard_id": shard_ids, "row_id": row_ids}, schema=PLAN_SCHEMA)


def write_plan(folder: OutputFolder, plan: pa.Table, shards: int) -> PlanRecord:
    """Write the plan file. Raises OSError if it cannot be written."""
    data = to_parquet(plan)
    folder.write_bytes(PLAN_FILE, data)
    return PlanRecord(
        shards=shards,
        rows=plan.num_rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        pairs_sha256=plan_digest(plan),
    )


def load_plan(folder: OutputFolder, run: RunRecord) -> pa.Table:
    """The planned rows: a table of `shard_id` and `row_id`, in order.

    Raises:
        DamageError: the plan is missing, unreadable or not the one that the run record names.
    """
    advice = "Run again with the same configuration: the plan is written again if the data are the same."

    def damage(what: str, kind: DamageKind = "plan_damaged") -> DamageError:
        return DamageError(folder.where(PLAN_FILE), what, advice, kind)

    try:
        data = folder.read_bytes(PLAN_FILE)
    except FileNotFoundError as e:
        raise damage("is missing", "plan_missing") from e
    except OSError as e:
        raise DamageError.unreadable(folder.where(PLAN_FILE), e) from e
    if hashlib.sha256(data).hexdigest() != run.plan.sha256:
        raise damage(f"is not the plan that {RUN_FILE} names (its sha256 differs)")
    try:
        table = from_parquet(data)
    except (pa.ArrowException, OSError) as e:
        raise damage(f"is not a Parquet file ({e})") from e
    if not table.schema.equals(PLAN_SCHEMA) or table.num_rows != run.plan.rows:
        raise damage("has other columns or rows than a plan of this run")
    return table


def plan_digest(plan: pa.Table) -> str:
    """Digest of the planned rows. Unlike the file's digest, it does not depend on the version of pyarrow."""
    return keys_digest(
        pair
        for start in range(0, plan.num_rows, _PART)
        for pair in zip(*(column.to_pylist() for column in plan.slice(start, _PART).columns), strict=True)
    )
