"""Commit a shard, and replace a committed shard's error rows.

A commit is a manifest. It is written last, under the one name its shard has, so a shard is visible
whole and once, or not at all. Data files that no manifest names (a crash before the manifest, the
loser of two writers, a revision that was replaced) are never read.

Whether a shard is committed already is asked of that one name: one request, however many shards
there are. So no shard is to be committed that was compacted. None is: only shards without a manifest
are planned, and `compact` runs only while nobody commits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from flexray.sink.committed import load_shard
from flexray.sink.folder import OutputFolder
from flexray.sink.manifests import read_single
from flexray.sink.records import (
    CODE_OF_0_1,
    DATA_FOLDER,
    CodeVersion,
    Manifest,
    keys_digest,
    manifest_name,
)
from flexray.sink.row_table import (
    account,
    expected_keys,
    keys_of,
    row_faults,
    schema_fault,
    to_parquet,
)
from flexray.sink.sealed import canonical_json
from flexray.sink.start import utc_now


class CommitError(RuntimeError):
    """Rows that are not what their shard promised. Nothing was committed."""


def commit_shard(
    folder: OutputFolder,
    *,
    shard_id: str,
    table: pa.Table,
    fingerprint: str,
    methods: Sequence[str],
    engine_stats: dict[str, Any],
    seconds: float,
    expected_row_ids: Sequence[str],
    code: CodeVersion | None = None,
) -> Manifest:
    """Make a shard's rows visible, exactly once; a shard that is committed already stays as it is.

    `table` has ROW_SCHEMA and holds, for each of the run's methods in order, the rows of
    `expected_row_ids` in order. Two writers of one shard may both get here: each writes a data file of
    its own, the later manifest is the valid one, and the other file is left as an orphan.

    Raises:
        CommitError: the rows, or the stats, are not what they must be.
        DamageError: there is a manifest of this shard that cannot be trusted.
        OSError: the folder cannot be written; then nothing is committed.
    """
    expected = expected_keys(methods, expected_row_ids)
    keys = keys_digest(expected)

    def committed() -> Manifest | None:
        manifest = read_single(folder, shard_id, fingerprint)
        if manifest is not None and manifest.keys_sha256 != keys:
            raise CommitError(
                f"shard {shard_id}: is committed already, with other rows than are expected now"
            )
        return manifest

    if done := committed():
        return done
    _check(table, shard_id, expected)
    manifest, data = _describe(
        table,
        shard_id=shard_id,
        fingerprint=fingerprint,
        engine_stats=engine_stats,
        seconds=seconds,
        code=(code,) if code else (),
    )
    folder.write_bytes(manifest.file, data)
    # Look again: another writer may have been faster. What is left of the race is harmless, since
    # both manifests are whole and name whole files.
    if done := committed():
        return done
    folder.write_bytes(manifest_name(shard_id), manifest.to_bytes())
    return manifest


def recommit_shard(
    folder: OutputFolder,
    old: Manifest,
    table: pa.Table,
    *,
    engine_stats: dict[str, Any],
    seconds: float,
    code: CodeVersion | None = None,
) -> Manifest:
    """Replace error rows of a committed shard, whose valid manifest is `old`, by better ones.

    `table` holds all rows of the shard, in the same order. Only rows that have an error in `old` may
    differ; so no good row is lost, and none is computed twice. The old data file is left as an orphan.
    A repeated call finds the revision of the first one and returns it.

    Raises:
        CommitError: a good row differs, the rows are others or break the rules, the shard is at
            another revision.
        DamageError: the manifest or the old data file cannot be trusted.
        OSError: the folder cannot be written; then the old rows stay.
    """
    shard_id = old.shard_id

    def recommitted() -> Manifest | None:
        manifest = read_single(folder, shard_id, old.fingerprint)
        if manifest is None or manifest.digest == old.digest:  # none: `old` is compacted
            return None
        if manifest.replaces != old.digest:
            raise CommitError(
                f"shard {shard_id}: is at revision {manifest.revision}, which does not replace the given one"
            )
        return manifest

    if done := recommitted():
        return done
    before = load_shard(folder, old)
    _check(table, shard_id, keys_of(before))
    good = pc.equal(before["error"], "")
    if not table.filter(good).equals(before.filter(good)):
        raise CommitError(f"shard {shard_id}: rows that were good already differ")
    if table.equals(before):
        return old
    codes = old.code or (CODE_OF_0_1,)
    manifest, data = _describe(
        table,
        shard_id=shard_id,
        fingerprint=old.fingerprint,
        engine_stats=engine_stats,
        seconds=seconds,
        code=codes if code is None or code in codes else (*codes, code),
        revision=old.revision + 1,
        replaces=old.digest,
    )
    folder.write_bytes(manifest.file, data)
    if done := recommitted():
        return done
    folder.write_bytes(manifest_name(shard_id), manifest.to_bytes())
    return manifest


def _describe(
    table: pa.Table,
    *,
    shard_id: str,
    fingerprint: str,
    engine_stats: dict[str, Any],
    seconds: float,
    code: tuple[CodeVersion, ...],
    revision: int = 0,
    replaces: str = "",
) -> tuple[Manifest, bytes]:
    """The manifest of a checked table, and its data file."""
    data = to_parquet(table)
    manifest = Manifest(
        shard_id=shard_id,
        fingerprint=fingerprint,
        file=f"{DATA_FOLDER}/{shard_id}-{uuid4().hex}.parquet",
        rows=table.num_rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        keys_sha256=keys_digest(keys_of(table)),
        accounting=account(table),
        engine_stats=_plain(engine_stats, shard_id),
        code=code,
        created=utc_now(),
        seconds=seconds,
        revision=revision,
        replaces=replaces,
    ).sealed()
    return manifest, data


def _check(table: pa.Table, shard_id: str, expected: list[tuple[str, str]]) -> None:
    fault = schema_fault(table.schema)
    if fault:
        raise CommitError(f"shard {shard_id}: {fault}")
    found = keys_of(table)
    if found != expected:
        at = next(
            (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
            min(len(found), len(expected)),
        )
        raise CommitError(
            f"shard {shard_id}: its {len(found)} rows are not, in order, the {len(expected)} "
            f"expected; they differ first at row {at + 1}"
        )
    faults = row_faults(table, shard_id)
    if faults:
        raise CommitError(f"shard {shard_id}: {'; '.join(faults)}")


def _plain(engine_stats: dict[str, Any], shard_id: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(canonical_json(engine_stats))
        return plain
    except (TypeError, ValueError) as e:
        raise CommitError(f"shard {shard_id}: engine_stats cannot be written as JSON: {e}") from e
