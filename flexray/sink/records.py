"""The two sealed JSON records of an output folder, the run and a shard's manifest; names of its files."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, model_validator

from flexray.sink.damage import DamageKind
from flexray.sink.sealed import Frozen, Sealed, canonical_json, spell

RUN_FILE = "_run.json"
PLAN_FILE = "_plan.parquet"
DATA_FOLDER = "data"
MANIFEST_FOLDER = "_manifests"
QUARANTINE_FOLDER = "_quarantine"
OWN_NAMES = (RUN_FILE, PLAN_FILE, DATA_FOLDER, MANIFEST_FOLDER, QUARANTINE_FOLDER)  # and those of locks

SHARD_ID = r"[A-Za-z0-9_][A-Za-z0-9._-]*"  # it is part of file names
_DATA_FILE = re.compile(rf"({SHARD_ID})-[0-9a-f]{{32}}\.parquet")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShardId = Annotated[str, Field(pattern=rf"^{SHARD_ID}$")]
Counter = dict[str, NonNegativeInt]


class CodeVersion(Frozen):
    """Which code computed rows."""

    flexray: str
    """The release."""
    commit: str
    """Of git, with `-dirty` behind it if the files were others; "": unknown."""
    source_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    """Of the sources that decide on values; "": unknown."""
    values_version: int
    """Code of the same version gives the same answers (`flexray.engine.values`)."""


CODE_OF_0_1 = CodeVersion(flexray="0.1", commit="", source_sha256="", values_version=1)
"""What is known of code that did not write it down."""


class PlanRecord(Frozen):
    """What the plan file holds."""

    file: str = PLAN_FILE
    shards: NonNegativeInt
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    """Of the file's bytes."""
    pairs_sha256: Sha256
    """Of the canonical JSON list of the (shard_id, row_id) pairs, in order: of the content, however
    it is written as Parquet."""


class RunRecord(Sealed):
    """`_run.json`: what this folder is the output of. Written after the plan."""

    advice: ClassVar[str] = (
        "Run the same recipe again: a run with the same configuration writes it again and computes nothing "
        "twice. Or restore it from a copy."
    )
    damage: ClassVar[DamageKind] = "run_record_damaged"

    created: str
    """UTC, ISO 8601."""
    fingerprint: Sha256
    parts: dict[str, Any]
    """What the fingerprint is made of, less credentials in URLs."""
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    """How each question is answered, in order: one output row for each."""
    config: dict[str, Any]
    """The whole configuration of the first start, less credentials in URLs."""
    provenance: dict[str, Any]
    code: CodeVersion | None = None
    """That of the first start; None: of flexray 0.1."""
    row_schema: dict[str, str]
    """Column -> Arrow type, in order."""
    plan: PlanRecord
    rebuilt: str = ""
    """UTC, ISO 8601: when a lost record was written again; then `config` and `provenance` are of that
    start, not of the first one. "": never."""

    @property
    def planned_rows(self) -> int:
        """Rows that the finished output has: one for each planned row and method."""
        return self.plan.rows * len(self.methods)


class ShardStats(Frozen):
    """A shard's rows counted; each counter sums to `rows`."""

    rows: NonNegativeInt
    answered: NonNegativeInt
    errors: NonNegativeInt
    rows_by_method: Counter
    backend_requested: Counter
    backend_used: Counter
    """"" counts the rows that no backend answered."""
    fallback_reason: Counter
    """"" counts the rows without a fallback."""
    finish_reason: Counter
    scored: NonNegativeInt
    correct: NonNegativeInt
    prompt_tokens: NonNegativeInt
    generated_tokens: NonNegativeInt


class Manifest(Sealed):
    """The commit of one shard, in a file of its own or one line of many. Readers see what manifests name."""

    advice: ClassVar[str] = "`flexray repair` moves it aside; then run again: its shard is computed again."
    damage: ClassVar[DamageKind] = "manifest_damaged"

    shard_id: ShardId
    fingerprint: Sha256
    file: Annotated[str, Field(pattern=rf"^{DATA_FOLDER}/[A-Za-z0-9._-]+\.parquet$")]
    """Relative to the output folder."""
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    """Of the data file's bytes."""
    keys_sha256: Sha256
    """Of the canonical JSON list of the rows' (method, row_id) pairs, in order."""
    accounting: ShardStats
    engine_stats: dict[str, Any]
    code: tuple[CodeVersion, ...] = ()
    """What computed the rows: one, or several if error rows were computed again by other code; empty: flexray
    0.1."""
    created: str
    """UTC, ISO 8601."""
    seconds: Annotated[float, Field(ge=0)]
    """What the shard took, as the caller measured it."""
    revision: NonNegativeInt = 0
    """How often error rows of the shard were replaced; the manifest of the highest one is valid."""
    replaces: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """The digest of the manifest of the revision before."""

    @model_validator(mode="after")
    def _replaces_what_was_before(self) -> Self:
        if bool(self.revision) != bool(self.replaces):
            raise ValueError("a revision names what it replaces, and the first one replaces nothing")
        return self

    @property
    def rank(self) -> tuple[int, str, str]:
        """Of several manifests of a shard the one of the lowest rank is valid. Two of the same revision
        are of two writers at the same time: both are right, and all readers take the same one."""
        return -self.revision, self.created, self.digest


def fingerprint(parts: dict[str, Any]) -> str:
    """Hex sha256 over the canonical JSON of what determines the rows: model, prompt, data, method."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def keys_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Hex sha256 over the canonical JSON list of pairs of strings, in order; it is hashed in parts."""
    digest, before = hashlib.sha256(b"["), b""
    remaining = iter(pairs)
    while part := list(itertools.islice(remaining, 10_000)):
        digest.update(before + spell(part)[1:-1])
        before = b","
    digest.update(b"]")
    return digest.hexdigest()


def manifest_name(shard_id: str) -> str:
    """Where a shard's manifest is written; `compact` moves it into a file of many later."""
    return f"{MANIFEST_FOLDER}/{shard_id}.json"


def shard_of_data_file(name: str) -> str | None:
    """The shard that a data file, by its name in the data folder, was written for."""
    match = _DATA_FILE.fullmatch(name)
    return match and match[1]
