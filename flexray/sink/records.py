"""The two sealed JSON records of an output folder: the run and a shard's manifest.

Sealed: a record holds the digest of its own content, so that an edited one is told from a true one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from flexray.types import OutputError

SCHEMA_VERSION = 1

RUN_FILE = "_run.json"
PLAN_FILE = "_plan.parquet"
DATA_FOLDER = "data"
MANIFEST_FOLDER = "_manifests"

SHARD_ID = r"[A-Za-z0-9_][A-Za-z0-9._-]*"  # it is part of file names

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShardId = Annotated[str, Field(pattern=rf"^{SHARD_ID}$")]
Counter = dict[str, NonNegativeInt]


class DamageError(OutputError):
    """A file of the output folder that cannot be trusted: which, why, and what to do."""

    def __init__(self, path: str, what: str, advice: str) -> None:
        super().__init__(f"{path}: {what}. {advice} `flexray verify` checks the whole folder.")
        self.path, self.what, self.advice = path, what, advice

    def __reduce__(self) -> tuple[type[DamageError], tuple[str, str, str]]:
        return DamageError, (self.path, self.what, self.advice)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Sealed(_Frozen):
    advice: ClassVar[str]

    schema_version: int = SCHEMA_VERSION
    digest: str = ""
    """sha256 of the canonical JSON of all other fields."""

    def sealed(self) -> Self:
        """The same record with its digest."""
        return self.model_copy(update={"digest": _seal(self.model_dump(mode="json"))})

    def to_bytes(self) -> bytes:
        """JSON for people and programs, one key a line."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes, path: str) -> Self:
        """Read a record back.

        Raises:
            DamageError: it is no such record, of another schema version, or edited.
        """
        try:
            tree = json.loads(data)
        except ValueError as e:
            raise DamageError(path, f"is no JSON ({e})", cls.advice) from e
        if not isinstance(tree, dict):
            raise DamageError(path, "is no record of flexray", cls.advice)
        if tree.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            what = (
                f"has schema version {tree['schema_version']!r}; this flexray reads version {SCHEMA_VERSION}"
            )
            raise DamageError(path, what, "Use the version of flexray that wrote it.")
        if _seal(tree) != tree.get("digest"):
            raise DamageError(path, "was changed after it was written (its digest does not fit)", cls.advice)
        try:
            return cls.model_validate(tree)
        except ValidationError as e:
            faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors())
            raise DamageError(path, f"is no valid record ({faults})", cls.advice) from e


class PlanRecord(_Frozen):
    """What the plan file holds."""

    file: str = PLAN_FILE
    shards: NonNegativeInt
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256


class RunRecord(_Sealed):
    """`_run.json`: what this folder is the output of. Written once, after the plan."""

    advice: ClassVar[str] = "Restore it from a copy, or use another output folder."

    created: str
    """UTC, ISO 8601."""
    fingerprint: Sha256
    parts: dict[str, Any]
    """What the fingerprint is made of, less credentials in URLs."""
    config: dict[str, Any]
    """The whole configuration of the first start, less credentials in URLs."""
    provenance: dict[str, Any]
    row_schema: dict[str, str]
    """Column -> Arrow type, in order."""
    plan: PlanRecord


class Accounting(_Frozen):
    """A shard's rows counted; each counter sums to `rows`."""

    rows: NonNegativeInt
    answered: NonNegativeInt
    errors: NonNegativeInt
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


class Manifest(_Sealed):
    """`_manifests/<shard_id>.json`: the commit of one shard. Readers see what manifests name."""

    advice: ClassVar[str] = "Delete this manifest and run again: the shard is computed again."

    shard_id: ShardId
    fingerprint: Sha256
    file: Annotated[str, Field(pattern=rf"^{DATA_FOLDER}/[A-Za-z0-9._-]+\.parquet$")]
    """Relative to the output folder."""
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: Sha256
    """Of the data file's bytes."""
    row_ids_sha256: Sha256
    """Of the canonical JSON list of the row ids, in order."""
    accounting: Accounting
    engine_stats: dict[str, Any]
    created: str
    """UTC, ISO 8601."""
    seconds: Annotated[float, Field(ge=0)]
    """What the shard took, as the caller measured it."""


def canonical_json(value: Any) -> bytes:
    """One spelling for equal values. Raises ValueError or TypeError for what is no JSON (NaN too)."""
    # The round trip makes all keys strings first: sorting then agrees with that of the parsed file.
    plain = json.loads(json.dumps(value, allow_nan=False))
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(parts: dict[str, Any]) -> str:
    """Hex sha256 over the canonical JSON of what determines the rows: model, prompt, data, method."""
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def row_ids_digest(row_ids: Sequence[str]) -> str:
    """Hex sha256 over the row ids in order."""
    return hashlib.sha256(canonical_json(list(row_ids))).hexdigest()


def manifest_name(shard_id: str) -> str:
    """Where a shard's manifest stands in the output folder."""
    return f"{MANIFEST_FOLDER}/{shard_id}.json"


def _seal(tree: dict[str, Any]) -> str:
    content = {key: value for key, value in tree.items() if key != "digest"}
    return hashlib.sha256(canonical_json(content)).hexdigest()
