"""An output folder as the page reads it: what can be trusted is read, and what cannot is noted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from flexray.errors import OutputError
from flexray.sink import DamageError, Manifest, OutputFolder, RunRecord, load_run
from flexray.sink.committed import load_shard
from flexray.sink.lock import is_lock
from flexray.sink.lock_file import Owner
from flexray.sink.manifests import find_manifests


@dataclass
class RunFolder:
    """A run, in progress or finished."""

    folder: OutputFolder
    record: RunRecord
    manifests: dict[str, Manifest]
    """Of the committed shards, by shard id; a shard whose data turn out to be damaged leaves it."""
    damage: list[DamageError]
    owners: list[Owner] = field(default_factory=list)
    """Who holds the folder; a process that has certainly ended is left out."""

    @classmethod
    def open(cls, url: str) -> RunFolder:
        """Read the run record and all manifests.

        Raises:
            OutputError: the folder holds no run, or cannot be listed.
            DamageError: the run record cannot be trusted.
        """
        folder = OutputFolder(url)
        record = load_run(folder)
        found = find_manifests(folder, record.fingerprint)
        return cls(folder, record, found.visible(), list(found.damage.values()), _owners(folder))

    @property
    def data(self) -> str:
        """Data set and split, as configured."""
        data = self.record.config.get("data", {})
        return "/".join(data[key] for key in ("name", "split") if key in data)

    @property
    def model(self) -> str:
        """The model's folder, as configured."""
        return str(self.record.config.get("model", {}).get("path", ""))

    def tables(self) -> Iterator[pa.Table]:
        """The committed rows, a table (ROW_SCHEMA) a shard; each file is checked, one is held at a time."""
        for shard_id, manifest in list(self.manifests.items()):
            try:
                table = load_shard(self.folder, manifest)
            except DamageError as e:
                self.damage.append(e)
                del self.manifests[shard_id]
                continue
            yield table


def _owners(folder: OutputFolder) -> list[Owner]:
    try:
        files = [folder.read_if_there(name) for name in folder.list() if is_lock(name)]
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    owners = [Owner.parse(data) for data in files if data is not None]
    return [owner for owner in owners if owner is not None and not owner.is_dead()]
