"""The sealed record of a shard's commit."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, model_validator

from flexray.sink.records.code import CodeVersion
from flexray.sink.records.damage import DamageKind
from flexray.sink.records.names import DATA_FOLDER, Sha256, ShardId
from flexray.sink.records.sealed import Frozen, Sealed, spell

Counter = dict[str, NonNegativeInt]


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


def keys_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Hex sha256 of the canonical JSON list of pairs of strings, in order, computed part by part."""
    digest, before = hashlib.sha256(b"["), b""
    remaining = iter(pairs)
    while part := list(itertools.islice(remaining, 10_000)):
        digest.update(before + spell(part)[1:-1])
        before = b","
    digest.update(b"]")
    return digest.hexdigest()
