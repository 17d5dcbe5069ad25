"""Read what is committed: the valid manifest of each shard, and the rows that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from flexray.sink.damage import REPAIR_SHARD, DamageError
from flexray.sink.folder import OutputFolder
from flexray.sink.manifests import find_manifests
from flexray.sink.records import Manifest, keys_digest
from flexray.sink.rows import from_parquet, keys_of, schema_fault
from flexray.sink.run import load_run


def committed_shards(folder: OutputFolder, fingerprint: str) -> dict[str, Manifest]:
    """The manifest of each committed shard, by shard id, in order of shard ids.

    Raises:
        DamageError: a manifest cannot be trusted, or belongs to another run.
        OutputError: the manifests cannot be listed.
    """
    found = find_manifests(folder, fingerprint)
    for damage in found.damage.values():
        raise damage
    return found.visible()


def read_committed(folder: OutputFolder) -> Iterator[pa.Table]:
    """The committed rows, one table (ROW_SCHEMA) a shard, in order of shard ids; each file is checked.

    Raises:
        OutputError: the folder holds no run.
        DamageError: a manifest or data file cannot be trusted.
    """
    for manifest in committed_shards(folder, load_run(folder).fingerprint).values():
        yield load_shard(folder, manifest)


def load_shard(folder: OutputFolder, manifest: Manifest) -> pa.Table:
    """The rows (ROW_SCHEMA) of one committed shard.

    Raises:
        DamageError: the data file is missing or not the file, schema or rows of the manifest.
    """
    path = folder.where(manifest.file)
    try:
        data = folder.read_bytes(manifest.file)
    except FileNotFoundError as e:
        raise DamageError(path, "is missing", REPAIR_SHARD, "data_missing") from e
    except OSError as e:
        raise DamageError.unreadable(path, e) from e
    if len(data) != manifest.bytes:
        what = f"has {len(data)} bytes, but {manifest.bytes} were written"
        raise DamageError(path, what, REPAIR_SHARD, "data_damaged")
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        what = "has other bytes than were written (its sha256 differs)"
        raise DamageError(path, what, REPAIR_SHARD, "data_damaged")
    try:
        table = from_parquet(data)
    except (pa.ArrowException, OSError) as e:
        raise DamageError(path, f"is no Parquet file ({e})", REPAIR_SHARD, "data_damaged") from e
    fault = schema_fault(table.schema)
    if fault:
        raise DamageError(path, fault, REPAIR_SHARD, "data_schema")
    if table.num_rows != manifest.rows or keys_digest(keys_of(table)) != manifest.keys_sha256:
        raise DamageError(path, "holds other rows than its manifest says", REPAIR_SHARD, "data_damaged")
    return table
