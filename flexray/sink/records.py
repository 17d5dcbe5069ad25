"""The two sealed JSON records of an output folder (run record, manifest of a shard) and its file names."""

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
OWN_NAMES = (RUN_FILE, PLAN_FILE, DATA_FOLDER, MANIFEST_FOLDER, QUARANTINE_FOLDER)  # and lock files

SHARD_ID = r"[A-Za-z0-9_][A-Za-z0-9._-]*"  # a shard id is part of file names
_DATA_FILE = re.compile(rf"({SHARD_ID})-[0-9a-f]{{32}}\.parquet")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShardId = Annotated[str, Field(pattern=rf"^{SHARD_ID}$")]
Counter = dict[str, NonNegativeInt]


class CodeVersion(Frozen):
    """The version of the code that computed rows."""

    flexray: str
    """The release."""
    commit: str
    """The git commit, followed by `-dirty` if files were changed; "" if unknown."""
    source_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    """Digest of the source files that determine the answers; "" if unknown."""
    values_version: int
    """Code of the same values version gives the same answers (`flexray.engine.values`)."""


CODE_OF_0_1 = CodeVersion(flexray="0.1", commit="", source_sha256="", values_version=1)
"""The version of records that do not name one; flexray 0.1 wrote them."""


class PlanRecord(Frozen):
    """A description of the plan file."""

    file: str = PLAN_FILE
    shards: NonNegativeInt
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    """Digest of the file's bytes."""
    pairs_sha256: Sha256
    """Digest of the content: the canonical JSON list of the (shard_id, row_id) pairs, in order. It does not
    depend on how pyarrow writes the Parquet file."""


class RunRecord(Sealed):
    """`_run.json`: the run whose output the folder contains. Written after the plan."""

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
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    """The methods that answer each question, in order; each gives one output row."""
    config: dict[str, Any]
    """The whole configuration of the first start, without credentials in URLs."""
    provenance: dict[str, Any]
    code: CodeVersion | None = None
    """The code of the first start; None: flexray 0.1."""
    row_schema: dict[str, str]
    """Column -> Arrow type, in order."""
    plan: PlanRecord
    rebuilt: str = ""
    """When a lost record was written again, as UTC in ISO 8601; "": never. Then `config` and `provenance` are
    those of that start, not of the first one."""

    @property
    def planned_rows(self) -> int:
        """The number of rows of the finished output: one for each planned row and method."""
        return self.plan.rows * len(self.methods)


class ShardStats(Frozen):
    """The numbers of a shard's rows; the values of each counter sum to `rows`."""

    rows: NonNegativeInt
    answered: NonNegativeInt
    errors: NonNegativeInt
    rows_by_method: Counter
    backend_requested: Counter
    backend_used: Counter
    """The key "" counts the rows that no backend answered."""
    fallback_reason: Counter
    """The key "" counts the rows without a fallback."""
    finish_reason: Counter
    scored: NonNegativeInt
    correct: NonNegativeInt
    prompt_tokens: NonNegativeInt
    generated_tokens: NonNegativeInt

    @property
    def fallbacks(self) -> int:
        """The number of rows with a fallback."""
        return self.rows - self.fallback_reason.get("", 0)


class Manifest(Sealed):
    """The commit of one shard: its own file, or one line of a compact file. Readers see only rows that a
    manifest names."""

    advice: ClassVar[str] = "`flexray repair` moves it aside. Then run again: its shard is computed again."
    damage: ClassVar[DamageKind] = "manifest_damaged"

    shard_id: ShardId
    fingerprint: Sha256
    file: Annotated[str, Field(pattern=rf"^{DATA_FOLDER}/[A-Za-z0-9._-]+\.parquet$")]
    """Relative to the output folder."""
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    """Digest of the data file's bytes."""
    keys_sha256: Sha256
    """Digest of the canonical JSON list of the rows' (method, row_id) pairs, in order."""
    accounting: ShardStats
    engine_stats: dict[str, Any]
    code: tuple[CodeVersion, ...] = ()
    """The code that computed the rows: several versions if error rows were computed again by other code;
    empty for flexray 0.1."""
    created: str
    """UTC, ISO 8601."""
    seconds: Annotated[float, Field(ge=0)]
    """The time that the shard took, as the caller measured it."""
    revision: NonNegativeInt = 0
    """How often error rows of the shard were replaced; the manifest with the highest revision is valid."""
    replaces: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """The digest of the manifest of the previous revision."""

    @model_validator(mode="after")
    def _replaces_what_was_before(self) -> Self:
        if bool(self.revision) != bool(self.replaces):
            raise ValueError("revision 0 must not replace a manifest, and any other revision must")
        return self

    @property
    def rank(self) -> tuple[int, str, str]:
        """If a shard has several manifests, the one with the lowest rank is valid. Two manifests of the same
        revision come from two concurrent writers: both are correct, and all readers choose the same one."""
        return -self.revision, self.created, self.digest


def fingerprint(parts: dict[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of what determines the rows: model, prompt, data, methods."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def keys_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Hex sha256 of the canonical JSON list of pairs of strings, in order, computed part by part."""
    digest, before = hashlib.sha256(b"["), b""
    remaining = iter(pairs)
    while part := list(itertools.islice(remaining, 10_000)):
        digest.update(before + spell(part)[1:-1])
        before = b","
    digest.update(b"]")
    return digest.hexdigest()


def manifest_name(shard_id: str) -> str:
    """The name of a shard's single manifest; `compact` may later move its record into a compact file."""
    return f"{MANIFEST_FOLDER}/{shard_id}.json"


def shard_of_data_file(name: str) -> str | None:
    """The shard that a data file was written for, from its name without the folder; None for other files."""
    match = _DATA_FILE.fullmatch(name)
    return match and match[1]
