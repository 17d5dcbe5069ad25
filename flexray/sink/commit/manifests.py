"""Find and read the manifests: each in its own file, or many in a compact file.

_manifests/<shard_id>.json           one manifest; a commit writes this file
_manifests/compact-<sha256>.jsonl    many manifests, one sealed record per line; the name has the bytes'
digest

Both kinds of file contain the same records. A record may be in both, because `compact` writes the new file
before it removes the merged ones. To open an output, the folder is listed twice, and the compact files and
the manifests that are not compacted yet are read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flexray.errors import OutputError
from flexray.sink.folder import OutputFolder
from flexray.sink.records import MANIFEST_FOLDER, SHARD_ID, Manifest, manifest_name
from flexray.sink.records.damage import DamageError

READERS = 16  # files read at the same time: object stores are slow but answer many requests at once
_LISTINGS = 5  # how often a reader lists a folder again that is being compacted
_SINGLE = re.compile(rf"({SHARD_ID})\.json")
_COMPACT = re.compile(r"compact-([0-9a-f]{64})\.jsonl")


@dataclass(frozen=True, slots=True)
class Listing:
    """The names of the files that hold manifests, in order, relative to the output folder."""

    singles: tuple[str, ...]
    compacts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """The content of one file of manifests."""

    manifests: Sequence[Manifest]
    """The manifests that can be trusted."""
    damage: DamageError | None = None
    """How the file differs from what was written."""


@dataclass
class Found:
    """The content of the manifest folder, by file name."""

    files: dict[str, ManifestFile] = field(default_factory=dict)

    @property
    def damage(self) -> dict[str, DamageError]:
        """The damage, by file name."""
        return {name: file.damage for name, file in self.files.items() if file.damage}

    def compacted(self) -> Iterator[tuple[str, Manifest]]:
        """The records of compact files; each is named as a single manifest in a folder of the file's name."""
        for name, file in self.files.items():
            if shard_of_manifest(name) is None:
                for manifest in file.manifests:
                    yield f"{name}/{manifest.shard_id}.json", manifest

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
    """The name of a compact file with these bytes."""
    return f"{MANIFEST_FOLDER}/compact-{hashlib.sha256(data).hexdigest()}.jsonl"


def is_manifest_file(name: str) -> bool:
    """Whether a file in the manifest folder contains manifests, by its name without the folder."""
    return bool(_SINGLE.fullmatch(name) or _COMPACT.fullmatch(name))


def shard_of_manifest(name: str) -> str | None:
    """The shard id of a single manifest, from its name relative to the output folder; None for other
    files."""
    place, _, inner = name.partition("/")
    match = _SINGLE.fullmatch(inner) if place == MANIFEST_FOLDER else None
    return match and match[1]


def list_manifests(folder: OutputFolder) -> Listing:
    """The files that contain manifests. Raises OutputError if they cannot be listed."""
    try:
        names = list(folder.sizes(MANIFEST_FOLDER))
    except OSError as e:
        raise OutputError(f"{folder.where(MANIFEST_FOLDER)}: cannot be listed: {e}") from e
    return Listing(
        singles=tuple(f"{MANIFEST_FOLDER}/{name}" for name in names if _SINGLE.fullmatch(name)),
        compacts=tuple(f"{MANIFEST_FOLDER}/{name}" for name in names if _COMPACT.fullmatch(name)),
    )


def find_manifests(folder: OutputFolder, fingerprint: str | None) -> Found:
    """Read all manifests, and record the damage of files that cannot be trusted. `fingerprint` None: accept
    the manifests of any run.

    Other processes may commit and compact at the same time. If a file no longer exists when it is read, it
    was compacted, so the folder is listed again until there is no new compact file. It is always listed at
    least twice: a listing takes time, and one that began before a compaction may contain neither a manifest
    nor the compact file that the manifest was moved to.

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
        # a missing compact file was merged into another one; the names do not show which records it had
        shard_id = shard_of_manifest(name)
        if shard_id is not None and shard_id not in shards:
            advice = "Try again. If it is still missing, run again: its shard is computed again."
            damage = DamageError(folder.where(name), "was removed while it was read", advice, "unreadable")
            found.files[name] = ManifestFile((), damage)
    return found


def read_files(
    folder: OutputFolder, names: Sequence[str], fingerprint: str | None
) -> list[ManifestFile | None]:
    """The contents of files of manifests, in the order of `names`; None for a file that does not exist."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda name: _read_file(folder, name, fingerprint), names))


def read_single(folder: OutputFolder, shard_id: str, fingerprint: str) -> Manifest | None:
    """The manifest of a shard that is not compacted yet, or None. This takes one request.

    Raises:
        DamageError: it cannot be trusted, or belongs to another shard or another run.
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
        whats.append("was changed after it was written (its name does not match its sha256)")
    if faults:
        first = faults[0]
        whats.append(
            f"has {len(faults)} of {len(lines)} records that cannot be trusted ({first.path} {first.what})"
        )
    if not whats:
        return ManifestFile(manifests)
    # if the bytes are as they were written, the records belong to another run or another version
    kind = faults[0].kind if faults and compact_name(data) == name else Manifest.damage
    advice = (
        "Use the version of flexray that wrote it."
        if kind == "other_version"
        else "`flexray repair` moves it aside and keeps its good records. Then run again: the shards of the "
        "other records are computed again."
    )
    return ManifestFile(manifests, DamageError(path, ", and ".join(whats), advice, kind))


def _parse(data: bytes, path: str, fingerprint: str | None) -> Manifest:
    manifest = Manifest.parse(data, path)
    if fingerprint is not None and manifest.fingerprint != fingerprint:
        what = "belongs to another run (its fingerprint differs)"
        raise DamageError(path, what, Manifest.advice, "manifest_of_another_run")
    return manifest
