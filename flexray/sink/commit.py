"""Commit a shard, and read what is committed.

A commit is a manifest. It is written last, under the one name its shard has, so a shard is visible
whole and once, or not at all. Data files that no manifest names (a crash before the manifest, the
loser of two writers) are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pyarrow as pa

from flexray.sink.folder import OutputFolder
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    DamageError,
    Manifest,
    canonical_json,
    manifest_name,
    row_ids_digest,
)
from flexray.sink.rows import account, accounting_faults, from_parquet, row_faults, schema_fault, to_parquet
from flexray.sink.run import load_run, utc_now
from flexray.types import OutputError

READERS = 16  # files read at once: object stores answer slowly, but many at a time


class CommitError(RuntimeError):
    """Rows that are not what their shard promised. Nothing was committed."""


def commit_shard(
    folder: OutputFolder,
    *,
    shard_id: str,
    table: pa.Table,
    fingerprint: str,
    engine_stats: dict[str, Any],
    seconds: float,
    expected_row_ids: Sequence[str],
) -> Manifest:
    """Make a shard's rows visible, exactly once; a shard that is committed already stays as it is.

    `table` has ROW_SCHEMA and holds the rows of `expected_row_ids`, in order. Two writers of one
    shard may both get here: each writes a data file of its own, the later manifest is the valid
    one, and the other file is left as an orphan.

    Raises:
        CommitError: the rows, or the stats, are not what they must be.
        DamageError: there is a manifest of this shard that cannot be trusted.
        OSError: the folder cannot be written; then nothing is committed.
    """
    done = _committed(folder, shard_id, fingerprint, expected_row_ids)
    if done is not None:
        return done
    _check(table, shard_id, expected_row_ids)
    data = to_parquet(table)
    manifest = Manifest(
        shard_id=shard_id,
        fingerprint=fingerprint,
        file=f"{DATA_FOLDER}/{shard_id}-{uuid4().hex}.parquet",
        rows=table.num_rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        row_ids_sha256=row_ids_digest(expected_row_ids),
        accounting=account(table),
        engine_stats=_plain(engine_stats, shard_id),
        created=utc_now(),
        seconds=seconds,
    ).sealed()
    faults = accounting_faults(manifest.accounting)
    if faults:
        raise CommitError(f"shard {shard_id}: {'; '.join(faults)}")
    folder.write_bytes(manifest.file, data)
    # Look again: another writer may have been faster. What is left of the race is harmless, since
    # both manifests are whole and name whole files.
    done = _committed(folder, shard_id, fingerprint, expected_row_ids)
    if done is not None:
        return done
    folder.write_bytes(manifest_name(shard_id), manifest.to_bytes())
    return manifest


def committed_shards(folder: OutputFolder, fingerprint: str) -> dict[str, Manifest]:
    """The manifest of each committed shard, by shard id, in order of shard ids.

    Raises:
        DamageError: a manifest cannot be trusted, or belongs to another run.
        OutputError: the manifests cannot be listed.
    """
    names = manifest_names(folder)
    with ThreadPoolExecutor(READERS) as pool:
        manifests = list(pool.map(lambda name: load_manifest(folder, name, fingerprint), names))
    return {manifest.shard_id: manifest for manifest in sorted(manifests, key=lambda m: m.shard_id)}


def read_committed(folder: OutputFolder) -> Iterator[pa.Table]:
    """The committed rows, one table (ROW_SCHEMA) a shard, in order of shard ids; each file is checked.

    Raises:
        OutputError: the folder holds no run.
        DamageError: a manifest or data file cannot be trusted.
    """
    for manifest in committed_shards(folder, load_run(folder).fingerprint).values():
        yield load_shard(folder, manifest)


def manifest_names(folder: OutputFolder) -> list[str]:
    """Names of all manifests. Raises OutputError if they cannot be listed."""
    try:
        names = folder.list(MANIFEST_FOLDER)
    except OSError as e:
        raise OutputError(f"{folder.where(MANIFEST_FOLDER)}: cannot be listed: {e}") from e
    return [f"{MANIFEST_FOLDER}/{name}" for name in names if name.endswith(".json")]


def load_manifest(folder: OutputFolder, name: str, fingerprint: str | None) -> Manifest:
    """Read one manifest. `fingerprint` None: of whichever run.

    Raises:
        DamageError: it cannot be read or trusted, is another shard's or another run's.
    """
    path = folder.where(name)
    try:
        data = folder.read_bytes(name)
    except OSError as e:
        raise DamageError(path, f"cannot be read ({e})", "Check access to the storage and try again.") from e
    return _parse_manifest(folder, name, data, fingerprint)


def load_shard(folder: OutputFolder, manifest: Manifest) -> pa.Table:
    """The rows (ROW_SCHEMA) of one committed shard.

    Raises:
        DamageError: the data file is missing or not the file, schema or rows of the manifest.
    """
    path = folder.where(manifest.file)
    advice = (
        f"Delete {folder.where(manifest_name(manifest.shard_id))} and run again: the shard is computed again."
    )
    try:
        data = folder.read_bytes(manifest.file)
    except FileNotFoundError as e:
        raise DamageError(path, "is missing", advice) from e
    except OSError as e:
        raise DamageError(path, f"cannot be read ({e})", "Check access to the storage and try again.") from e
    if len(data) != manifest.bytes:
        raise DamageError(path, f"has {len(data)} bytes, but {manifest.bytes} were written", advice)
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        raise DamageError(path, "has other bytes than were written (its sha256 differs)", advice)
    try:
        table = from_parquet(data)
    except (pa.ArrowException, OSError) as e:
        raise DamageError(path, f"is no Parquet file ({e})", advice) from e
    fault = schema_fault(table.schema)
    if fault:
        raise DamageError(path, fault, advice)
    if (
        table.num_rows != manifest.rows
        or row_ids_digest(table["row_id"].to_pylist()) != manifest.row_ids_sha256
    ):
        raise DamageError(path, "holds other rows than its manifest says", advice)
    return table


def _parse_manifest(folder: OutputFolder, name: str, data: bytes, fingerprint: str | None) -> Manifest:
    path = folder.where(name)
    manifest = Manifest.parse(data, path)
    if name != manifest_name(manifest.shard_id):
        raise DamageError(path, f"is the manifest of shard {manifest.shard_id}", "Delete this copy.")
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        raise DamageError(path, "belongs to another run (its fingerprint differs)", Manifest.advice)
    return manifest


def _committed(
    folder: OutputFolder, shard_id: str, fingerprint: str, expected_row_ids: Sequence[str]
) -> Manifest | None:
    name = manifest_name(shard_id)
    data = folder.read_if_there(name)
    if data is None:
        return None
    manifest = _parse_manifest(folder, name, data, fingerprint)
    if manifest.row_ids_sha256 != row_ids_digest(expected_row_ids):
        raise CommitError(f"shard {shard_id}: is committed already, with other rows than are expected now")
    return manifest


def _check(table: pa.Table, shard_id: str, expected_row_ids: Sequence[str]) -> None:
    fault = schema_fault(table.schema)
    if fault:
        raise CommitError(f"shard {shard_id}: {fault}")
    found = table["row_id"].to_pylist()
    if found != list(expected_row_ids):
        at = next(
            (i for i, (a, b) in enumerate(zip(found, expected_row_ids, strict=False)) if a != b),
            min(len(found), len(expected_row_ids)),
        )
        raise CommitError(
            f"shard {shard_id}: its {len(found)} rows are not, in order, the {len(expected_row_ids)} "
            f"expected; they differ first at row {at + 1}"
        )
    faults = row_faults(table, shard_id)
    if faults:
        raise CommitError(f"shard {shard_id}: {'; '.join(faults)}")


def _plain(engine_stats: dict[str, Any], shard_id: str) -> dict[str, Any]:
    try:
        return json.loads(canonical_json(engine_stats))
    except (TypeError, ValueError) as e:
        raise CommitError(f"shard {shard_id}: engine_stats cannot be written as JSON: {e}") from e
