"""Merge many manifests into few files, so that reading an output of many shards takes few requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flexray.config.fault_injection import reach
from flexray.errors import OutputError
from flexray.sink.commit.manifests import READERS, Found, compact_name, list_manifests, read_files
from flexray.sink.folder import OutputFolder
from flexray.sink.records import Manifest

MAX_SINGLE_MANIFESTS = 1_000
MAX_COMPACT_FILES = 10


def compact(
    folder: OutputFolder,
    fingerprint: str,
    *,
    max_singles: int = MAX_SINGLE_MANIFESTS,
    max_files: int = MAX_COMPACT_FILES,
) -> int:
    """Merge the single manifests into one compact file if there are more than `max_singles`, and the compact
    files into one if there would be more than `max_files`.

    Must be called with the run's lock held and while nothing is being committed, because a writer looks only
    for its shard's single manifest. Readers may read at the same time. A crash leaves the new file and some
    of the merged files. Then some records exist twice, which is harmless, and the next call removes the rest.
    Files that cannot be trusted stay as they are.

    Returns:
        How many files were merged.

    Raises:
        OutputError: the folder cannot be listed, read or written.
    """
    listing = list_manifests(folder)
    names: list[str] = []
    if len(listing.singles) > max_singles:
        names += listing.singles
    if len(listing.compacts) + bool(names) > max_files:
        names += listing.compacts
    if not names:
        return 0
    found = Found()
    for name, file in zip(names, read_files(folder, names, fingerprint), strict=True):
        if file is not None and file.damage is None:
            found.files[name] = file
    try:
        replace_manifest_files(folder, list(found.files), found.visible().values())
    except OSError as e:
        raise OutputError(f"{folder}: the manifests cannot be compacted: {e}") from e
    return len(found.files)


def replace_manifest_files(
    folder: OutputFolder, names: Sequence[str], manifests: Iterable[Manifest]
) -> str | None:
    """Write a compact file of these manifests, and then remove the files `names`.

    Returns:
        The new file's name; None if there are no manifests.

    Raises:
        OSError: the new file cannot be written, or a file cannot be removed.
    """
    data = b"".join(manifest.to_line() for manifest in manifests)
    written = compact_name(data) if data else None
    if written is not None:
        folder.write_bytes(written, data)
        if folder.read_bytes(written) != data:
            raise OSError(f"{folder.where(written)}: reads back differently from what was written")
    with ThreadPoolExecutor(READERS) as pool:
        # The name depends only on the manifests, so a repeated merge writes the same file again. It must not
        # remove this file.
        for _ in pool.map(lambda name: _remove(folder, name), [n for n in names if n != written]):
            pass
    return written


def _remove(folder: OutputFolder, name: str) -> None:
    reach("sink.compact.remove", name=name)
    with contextlib.suppress(FileNotFoundError):  # an interrupted call may have removed it already
        folder.remove(name)
