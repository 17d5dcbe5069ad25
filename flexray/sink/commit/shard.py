"""Commit a shard, and replace the error rows of a committed shard.

A commit is a manifest. It is written last, and each shard has only one manifest name. So a shard is visible
completely and once, or not at all. Data files that no manifest names are never read: those of a crash before
the manifest was written, of the slower of two writers, and of a replaced revision.

To find out whether a shard is already committed, only this one name is requested, however many shards there
are. This is correct only if no shard is committed whose manifest was compacted. That cannot happen, because a
run commits only shards without a manifest, and `compact` runs only while nothing is being committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from flexray.sink.commit.manifests import read_single
from flexray.sink.folder import OutputFolder
from flexray.sink.read.committed import load_shard
from flexray.sink.records import (
    CODE_OF_0_1,
    DATA_FOLDER,
    CodeVersion,
    Manifest,
    keys_digest,
    manifest_name,
    utc_now,
)
from flexray.sink.records.rows import (
    account,
    expected_keys,
    keys_of,
    row_faults,
    schema_fault,
    to_parquet,
)
from flexray.sink.records.sealed import canonical_json


class CommitError(RuntimeError):
    """The rows are not those that were planned for their shard. Nothing was committed."""


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
    codes: Sequence[CodeVersion] = (),
) -> Manifest:
    """Make a shard's rows visible, exactly once. A shard that is already committed stays as it is.

    `table` has ROW_SCHEMA and holds, for each of the shard's methods in order, the rows of `expected_row_ids`
    in order. Two writers may commit the same shard at the same time. Then each writes its own data file, the
    later manifest is the valid one, and the other data file becomes an orphan.

    Raises:
        CommitError: the rows or the engine's counters are not as expected.
        DamageError: this shard has a manifest that cannot be trusted.
        OSError: the folder cannot be written; then nothing is committed.
    """
    expected = expected_keys(methods, expected_row_ids)
    keys = keys_digest(expected)

    def committed() -> Manifest | None:
        manifest = read_single(folder, shard_id, fingerprint)
        if manifest is not None and manifest.keys_sha256 != keys:
            raise CommitError(
                f"shard {shard_id}: is already committed, but with other rows than are expected now"
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
        code=tuple(codes),
    )
    folder.write_bytes(manifest.file, data)
    # Check again, because another writer may have been faster. If both still write a manifest, this is
    # harmless: both manifests are complete and name complete files.
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
    """Replace error rows of a committed shard, whose valid manifest is `old`.

    `table` holds all rows of the shard, in the same order. Only rows that are error rows in `old` may differ,
    so no good row is lost or computed twice. The old data file becomes an orphan. If the call is repeated, it
    finds the revision that the first call wrote and returns it.

    Raises:
        CommitError: a good row differs, the table has other rows or invalid rows, or the shard is at another
            revision.
        DamageError: the manifest or the old data file cannot be trusted.
        OSError: the folder cannot be written; then the old rows stay valid.
    """
    shard_id = old.shard_id

    def recommitted() -> Manifest | None:
        manifest = read_single(folder, shard_id, old.fingerprint)
        if manifest is None or manifest.digest == old.digest:  # None: `old` was compacted
            return None
        if manifest.replaces != old.digest:
            raise CommitError(
                f"shard {shard_id}: is at revision {manifest.revision}, which does not replace the given "
                "manifest"
            )
        return manifest

    if done := recommitted():
        return done
    before = load_shard(folder, old)
    _check(table, shard_id, keys_of(before))
    good = pc.equal(before["error"], "")
    if not table.filter(good).equals(before.filter(good)):
        raise CommitError(f"shard {shard_id}: rows without an error differ from the committed ones")
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
    """The manifest of a checked table, and the bytes of its data file."""
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
            f"shard {shard_id}: its {len(found)} rows are not the {len(expected)} expected rows in the "
            f"expected order; the first difference is at row {at + 1}"
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
