"""Find the manifests: each in a file of its own, or many in a compact file.

_manifests/<shard_id>.json           one manifest; where a commit is written
_manifests/compact-<sha256>.jsonl    many: a sealed record a line, the name holds the digest of the bytes

Both hold the same records, and a record may stand in both: `compact` writes the new file before it
removes what it holds. Opening an output takes two listings, the compact files and what is not
compacted yet.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flexray.errors import OutputError
from flexray.sink.damage import DamageError
from flexray.sink.folder import OutputFolder
from flexray.sink.records import MANIFEST_FOLDER, SHARD_ID, Manifest, manifest_name

READERS = 16  # files read at once: object stores answer slowly, but many at a time
_LISTINGS = 5  # how often a reader follows a folder that is being compacted
_SINGLE = re.compile(rf"({SHARD_ID})\.json")
_COMPACT = re.compile(r"compact-([0-9a-f]{64})\.jsonl")


@dataclass(frozen=True, slots=True)
class Listing:
    """The names of the files that hold manifests, in order, relative to the output folder."""

    singles: tuple[str, ...]
    compacts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """What one file holds."""

    manifests: Sequence[Manifest]
    """Those that can be trusted."""
    damage: DamageError | None = None
    """Why the file is not as it was written."""


@dataclass
class Found:
    """What the manifest folder holds, by file name."""

    files: dict[str, ManifestFile] = field(default_factory=dict)

    @property
    def damage(self) -> dict[str, DamageError]:
        """What is wrong, by file name."""
        return {name: file.damage for name, file in self.files.items() if file.damage}

    def visible(self) -> dict[str, Manifest]:
        """The valid manifest of each shard, by shard id, in order of shard ids."""
        best: dict[str, Manifest] = {}
        for file in self.files.values():
            for manifest in file.manifests:
                other = best.get(manifest.shard_id)
                if other is None or manifest.rank < other.rank:
                    best[manifest.shard_id] = manifest
        return dict(sorted(best.items()))


def compact_name(data: bytes) -> str:
    """The name of a compact file of these bytes."""
    return f"{MANIFEST_FOLDER}/compact-{hashlib.sha256(data).hexdigest()}.jsonl"


def is_manifest_file(name: str) -> bool:
    """Whether a file of the manifest folder, by its name in there, holds manifests."""
    return bool(_SINGLE.fullmatch(name) or _COMPACT.fullmatch(name))


def shard_of_manifest(name: str) -> str | None:
    """The shard whose own manifest has this place in the output folder; None: it is of no one shard."""
    place, _, inner = name.partition("/")
    match = _SINGLE.fullmatch(inner) if place == MANIFEST_FOLDER else None
    return match and match[1]


def list_manifests(folder: OutputFolder) -> Listing:
    """The files that hold manifests. Raises OutputError if they cannot be listed."""
    try:
        names = list(folder.sizes(MANIFEST_FOLDER))
    except OSError as e:
        raise OutputError(f"{folder.where(MANIFEST_FOLDER)}: cannot be listed: {e}") from e
    return Listing(
        singles=tuple(f"{MANIFEST_FOLDER}/{name}" for name in names if _SINGLE.fullmatch(name)),
        compacts=tuple(f"{MANIFEST_FOLDER}/{name}" for name in names if _COMPACT.fullmatch(name)),
    )


def find_manifests(folder: OutputFolder, fingerprint: str | None) -> Found:
    """Read all manifests; what cannot be trusted is noted. `fingerprint` None: of whichever run.

    Others may commit and compact meanwhile. A file that is gone when it is read was compacted, so the
    folder is listed again, until no new compact file turns up. That is done once in any case: a
    listing takes time, and one that began before a compaction may lack both a manifest and the file
    that it went to.

    Raises:
        OutputError: the manifests cannot be listed, or change too fast to be read.
    """
    found = Found()
    gone: set[str] = set()
    listing = list_manifests(folder)
    for _ in range(_LISTINGS):
        names = [name for name in (*listing.compacts, *listing.singles) if name not in found.files]
        for name, file in zip(names, read_files(folder, names, fingerprint), strict=True):
            if file is None:
                gone.add(name)
            else:
                found.files[name] = file
        listing = list_manifests(folder)
        if all(name in found.files or name in gone for name in listing.compacts):
            break
    else:
        raise OutputError(f"{folder.where(MANIFEST_FOLDER)}: changes faster than it can be read. Try again.")
    shards = {manifest.shard_id for file in found.files.values() for manifest in file.manifests}
    for name in gone:
        # a compact file that is gone was merged into another, whose records cannot be told from it
        shard_id = shard_of_manifest(name)
        if shard_id is not None and shard_id not in shards:
            advice = "Try again; if it stays away, run again: its shard is computed again."
            damage = DamageError(folder.where(name), "vanished while it was read", advice, "unreadable")
            found.files[name] = ManifestFile((), damage)
    return found


def read_files(
    folder: OutputFolder, names: Sequence[str], fingerprint: str | None
) -> list[ManifestFile | None]:
    """The contents of files of manifests, one for one; None for a file that is not there."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda name: _read_file(folder, name, fingerprint), names))


def read_single(folder: OutputFolder, shard_id: str, fingerprint: str) -> Manifest | None:
    """The manifest of a shard that is not compacted yet, or None: one request.

    Raises:
        DamageError: it cannot be trusted, is another shard's or another run's.
        OSError: it cannot be read.
    """
    name = manifest_name(shard_id)
    data = folder.read_if_there(name)
    return None if data is None else _parse_single(folder, name, data, fingerprint)


def _read_file(folder: OutputFolder, name: str, fingerprint: str | None) -> ManifestFile | None:
    try:
        data = folder.read_bytes(name)
    except FileNotFoundError:
        return None
    except OSError as e:
        return ManifestFile((), DamageError.unreadable(folder.where(name), e))
    if not name.endswith(".json"):
        return _parse_compact(folder, name, data, fingerprint)
    try:
        return ManifestFile((_parse_single(folder, name, data, fingerprint),))
    except DamageError as e:
        return ManifestFile((), e)


def _parse_single(folder: OutputFolder, name: str, data: bytes, fingerprint: str | None) -> Manifest:
    path = folder.where(name)
    manifest = _parse(data, path, fingerprint)
    if name != manifest_name(manifest.shard_id):
        what = f"is the manifest of shard {manifest.shard_id}"
        raise DamageError(path, what, "`flexray repair` moves this copy aside.", "manifest_misplaced")
    return manifest


def _parse_compact(folder: OutputFolder, name: str, data: bytes, fingerprint: str | None) -> ManifestFile:
    path = folder.where(name)
    lines = data.splitlines()
    manifests, faults = [], []
    for number, line in enumerate(lines, 1):
        try:
            manifests.append(_parse(line, f"line {number}", fingerprint))
        except DamageError as e:
            faults.append(e)
    whats = []
    if compact_name(data) != name:
        whats.append("has other bytes than were written (its name is not that of their sha256)")
    if faults:
        first = faults[0]
        whats.append(
            f"holds {len(faults)} of {len(lines)} records that cannot be trusted ({first.path} {first.what})"
        )
    if not whats:
        return ManifestFile(manifests)
    # whole bytes are as they were written: then the run, or the version, is another one
    kind = faults[0].kind if faults and compact_name(data) == name else Manifest.damage
    advice = (
        "Use the version of flexray that wrote it."
        if kind == "other_version"
        else "`flexray repair` moves it aside and keeps its good records; then run again: the others' shards "
        "are computed again."
    )
    return ManifestFile(manifests, DamageError(path, ", and ".join(whats), advice, kind))


def _parse(data: bytes, path: str, fingerprint: str | None) -> Manifest:
    manifest = Manifest.parse(data, path)
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        what = "belongs to another run (its fingerprint differs)"
        raise DamageError(path, what, Manifest.advice, "manifest_of_another_run")
    return manifest
