"""The sealed record of a run: which table of rows x methods an output folder holds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from flexray.sink.records.code import CodeVersion
from flexray.sink.records.damage import DamageKind
from flexray.sink.records.names import Sha256
from flexray.sink.records.sealed import Frozen, Sealed, canonical_json, is_old


class IdsFile(Frozen):
    """A Parquet file of row ids, in the plan's folder."""

    file: str
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256


class PlanFile(Frozen):
    """A Parquet file of planned questions; each of its row groups is a shard."""

    file: str
    """Relative to the output folder."""
    first_shard: NonNegativeInt
    """The number of its first shard; the others follow."""
    shards: tuple[tuple[PositiveInt, PositiveInt], ...]
    """Runs of shards of one size: the rows of each, and how many such shards."""
    bytes: NonNegativeInt
    sha256: Sha256
    """Digest of the file's bytes."""

    @property
    def sizes(self) -> list[int]:
        """The rows of each shard."""
        return [rows for rows, count in self.shards for _ in range(count)]


class PlanPart(Frozen):
    """Questions, and the methods that answer each of them. A start that finds more to do adds parts."""

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    """In order; each gives one output row for each question."""
    file: PlanFile
    withdrawn: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = ()
    """Shards that are no longer planned, as ranges of numbers, ends included: they were not committed when
    more was planned, and their questions are in later parts."""
    replaced: NonNegativeInt = 0
    """How many rows of its file replace rows of earlier parts, which asked something else under the same
    id. The rows of withdrawn shards replace nothing."""

    @property
    def shards(self) -> dict[int, int]:
        """The rows of each shard, by number, without those that were withdrawn."""
        gone = {number for first, last in self.withdrawn for number in range(first, last + 1)}
        numbered = enumerate(self.file.sizes, self.file.first_shard)
        return {number: rows for number, rows in numbered if number not in gone}


class Selection(Frozen):
    """What the recipe of the last start names, of all that the table holds."""

    methods: tuple[str, ...]
    sources: str
    """Digest of the data's configuration and of the version of each source file; "": not known."""
    left_out: IdsFile | None = None
    """Rows that it does not name. None: it names all."""


class OldPlan(Frozen):
    """The plan of a folder of schema version 3 or 4, a file of (shard_id, row_id)."""

    file: str
    shards: NonNegativeInt
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    pairs_sha256: Sha256


class OldRunRecord(Sealed):
    """`_run.json` of a folder whose run could not grow, as flexray 0.1 wrote it. It is read, verified and
    repaired, and `flexray adopt` brings its rows into a table."""

    advice: ClassVar[str] = "Restore it from a copy."
    damage: ClassVar[DamageKind] = "run_record_damaged"

    created: str
    fingerprint: Sha256
    parts: dict[str, Any]
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    config: dict[str, Any]
    provenance: dict[str, Any]
    code: CodeVersion | None = None
    row_schema: dict[str, str]
    plan: OldPlan
    rebuilt: str = ""

    @property
    def planned_rows(self) -> int:
        """As that of a RunRecord."""
        return self.plan.rows * len(self.methods)

    @property
    def planned_shards(self) -> int:
        """As that of a RunRecord."""
        return self.plan.shards

    @property
    def selection(self) -> Selection:
        """All of it."""
        return Selection(methods=self.methods, sources="")


class RunRecord(Sealed):
    """`_run.json`: the table that the folder holds, of rows x methods. Written after the plan, and again when
    it grows."""

    advice: ClassVar[str] = (
        "Run the same recipe again: a run with the same configuration writes it again and computes no row "
        "twice. Or restore it from a copy."
    )
    damage: ClassVar[DamageKind] = "run_record_damaged"

    created: str
    """UTC, ISO 8601."""
    fingerprint: Sha256
    parts: dict[str, Any]
    """What the fingerprint is computed from, without credentials in URLs."""
    config: dict[str, Any]
    """The whole configuration of the last start that changed the table, without credentials in URLs."""
    provenance: dict[str, Any]
    """Of the same start."""
    code: CodeVersion | None = None
    """The code of the first start; None: flexray 0.1."""
    row_schema: dict[str, str]
    """Column -> Arrow type, in order."""
    plan: tuple[PlanPart, ...]
    next_shard: NonNegativeInt
    """The number of the next shard that is planned; none is used twice."""
    selection: Selection
    rebuilt: str = ""
    """When a lost record was written again, as UTC in ISO 8601; "": never."""

    @property
    def methods(self) -> tuple[str, ...]:
        """All methods of the table, in the order in which they came."""
        return tuple(dict.fromkeys(method for part in self.plan for method in part.methods))

    @property
    def planned_rows(self) -> int:
        """The number of rows of the finished output: one for each planned row and method."""
        return sum(sum(part.shards.values()) * len(part.methods) for part in self.plan)

    @property
    def planned_shards(self) -> int:
        """The number of shards of the finished output."""
        return sum(len(part.shards) for part in self.plan)

    def shard_id(self, number: int) -> str:
        """The name of a shard."""
        return f"{_prefix(self.parts)}{number:06d}"

    def shards(self) -> Mapping[str, tuple[PlanPart, int]]:
        """The part and the number of each planned shard, by shard id, in order."""
        return _shards(self.plan, _prefix(self.parts))


AnyRecord = RunRecord | OldRunRecord


def number_in(shard_id: str, parts: dict[str, Any]) -> int | None:
    """The number in the name of a shard; None: it is no shard of a table of these `parts`."""
    prefix = _prefix(parts)
    number = shard_id.removeprefix(prefix)
    named = shard_id.startswith(prefix) and number.isascii() and number.isdecimal()
    return int(number) if named and shard_id == f"{prefix}{int(number):06d}" else None


def _prefix(parts: dict[str, Any]) -> str:
    return f"{parts['data']['name']}-{parts['data']['split']}-"


@functools.lru_cache(maxsize=4)  # the same record is asked often
def _shards(plan: tuple[PlanPart, ...], prefix: str) -> Mapping[str, tuple[PlanPart, int]]:
    return MappingProxyType(
        {f"{prefix}{number:06d}": (part, number) for part in plan for number in part.shards}
    )


def parse_run(data: bytes, path: str) -> AnyRecord:
    """The run record in the bytes of `_run.json`. Raises DamageError as `Sealed.parse`."""
    return (OldRunRecord if is_old(data) else RunRecord).parse(data, path)


def fingerprint(parts: dict[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of what determines the rows: model, prompt, data, methods."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def utc_now() -> str:
    """The current time in UTC as the records contain it: ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
