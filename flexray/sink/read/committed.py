"""Read what is committed: the valid manifest of each shard, and the rows in its data file."""

from __future__ import annotations

import hashlib
import shlex

import pyarrow as pa

from flexray.errors import OutputError, first_few
from flexray.sink.commit.manifests import find_manifests
from flexray.sink.folder import OutputFolder
from flexray.sink.records import DATA_FOLDER, AnyRecord, Manifest, OldRunRecord, keys_digest
from flexray.sink.records.damage import REPAIR_SHARD, DamageError
from flexray.sink.records.rows import from_parquet, keys_of, schema_fault


def planned_manifests(folder: OutputFolder, run: AnyRecord) -> dict[str, Manifest]:
    """As `committed_shards`, but leaves out what cannot be trusted."""
    return only_planned(find_manifests(folder, run.fingerprint).visible(), run)


def only_planned(manifests: dict[str, Manifest], run: AnyRecord) -> dict[str, Manifest]:
    """Without the shards that were withdrawn from the plan; a straggler may have committed one."""
    if isinstance(run, OldRunRecord):
        return manifests
    planned = run.shards()
    return {shard_id: manifest for shard_id, manifest in manifests.items() if shard_id in planned}


def committed_shards(folder: OutputFolder, run: AnyRecord) -> dict[str, Manifest]:
    """The manifest of each committed shard, by shard id, in order of shard ids.

    Raises:
        DamageError: a manifest cannot be trusted, or belongs to another run.
        OutputError: the manifests cannot be listed.
    """
    found = find_manifests(folder, run.fingerprint)
    for damage in found.damage.values():
        raise damage
    return only_planned(found.visible(), run)


def whole_shards(folder: OutputFolder, run: AnyRecord) -> dict[str, Manifest]:
    """As `committed_shards`, but also checks that each data file exists and has the size that its manifest
    says. This takes one listing; no data file is read.

    Raises:
        DamageError: as `committed_shards`, or data files are missing or have another size.
        OutputError: the manifests or the data files cannot be listed.
    """
    for _ in range(2):  # a repair or --fresh may have removed a manifest and its data file in between
        manifests = committed_shards(folder, run)
        lost = _lost_files(folder, manifests)
        if not lost:
            return manifests
    shown = first_few(lost, separator="; ")
    what = f"{len(lost)} of {len(manifests)} committed shards have lost their rows: {shown}"
    advice = (
        f"`flexray repair {shlex.quote(str(folder))}` moves these shards aside. Then run again: only these "
        "shards are computed again."
    )
    raise DamageError(folder.where(DATA_FOLDER), what, advice, "data_missing")


def _lost_files(folder: OutputFolder, manifests: dict[str, Manifest]) -> list[str]:
    """A text for each data file that is missing or does not have the size that was written."""
    try:
        there = {f"{DATA_FOLDER}/{name}": size for name, size in folder.sizes(DATA_FOLDER).items()}
    except OSError as e:
        raise OutputError(f"{folder.where(DATA_FOLDER)}: cannot be listed: {e}") from e
    lost = []
    for manifest in manifests.values():
        if manifest.file not in there:
            lost.append(f"{manifest.file} is missing")
        elif there[manifest.file] not in (manifest.bytes, None):
            size = there[manifest.file]
            lost.append(f"{manifest.file} has {size:,} bytes, but {manifest.bytes:,} were written")
    return lost


def load_shard(folder: OutputFolder, manifest: Manifest) -> pa.Table:
    """The rows (ROW_SCHEMA) of one committed shard.

    Raises:
        DamageError: the data file is missing, or its bytes, schema or rows do not match the manifest.
    """
    path = folder.where(manifest.file)
    try:
        data = folder.read_bytes(manifest.file)
    except FileNotFoundError as e:
        raise DamageError(path, "is missing", REPAIR_SHARD, "data_missing") from e
    except IsADirectoryError as e:
        raise DamageError(path, "is a folder, not a file", REPAIR_SHARD, "data_missing") from e
    except OSError as e:
        raise DamageError.unreadable(path, e) from e
    if len(data) != manifest.bytes:
        what = f"has {len(data)} bytes, but {manifest.bytes} were written"
        raise DamageError(path, what, REPAIR_SHARD, "data_damaged")
    if hashlib.sha256(data).hexdigest() != manifest.sha256:
        what = "was changed after it was written (its sha256 differs)"
        raise DamageError(path, what, REPAIR_SHARD, "data_damaged")
    try:
        table = from_parquet(data)
    except (pa.ArrowException, OSError) as e:
        raise DamageError(path, f"is not a Parquet file ({e})", REPAIR_SHARD, "data_damaged") from e
    fault = schema_fault(table.schema)
    if fault:
        raise DamageError(path, fault, REPAIR_SHARD, "data_schema")
    if table.num_rows != manifest.rows or keys_digest(keys_of(table)) != manifest.keys_sha256:
        raise DamageError(path, "contains other rows than its manifest says", REPAIR_SHARD, "data_damaged")
    return table
