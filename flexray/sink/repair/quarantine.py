"""Move files aside: they are copied, the copies are checked, and only then the originals are deleted.

_quarantine/<utc time>-<random>/reason.json     why the files were moved
_quarantine/<utc time>-<random>/<name>          a file, under its original name
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import uuid4

from flexray import __version__
from flexray.config.fault_injection import reach
from flexray.sink.folder import OutputFolder
from flexray.sink.records import QUARANTINE_FOLDER
from flexray.sink.records.damage import Finding
from flexray.storage import connect, redact, retry


class Quarantine:
    """One folder for files that are moved aside. It is created for the first file."""

    def __init__(self, folder: OutputFolder, findings: Sequence[Finding]) -> None:
        now = datetime.now(UTC)
        self.name = f"{QUARANTINE_FOLDER}/{now:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
        self._folder = folder
        self._findings = findings
        self._created = now.isoformat(timespec="seconds")
        self._empty = True

    def keep(self, name: str, data: bytes) -> None:
        """Write a copy of a file and check it. Raises OSError if this fails."""
        if self._empty:  # reason.json first, so that it is there even if the repair is interrupted
            reason = {
                "created": self._created,
                "flexray": __version__,
                "findings": [redact(asdict(finding)) for finding in self._findings],
            }
            text = json.dumps(reason, indent=2, ensure_ascii=False) + "\n"
            self._folder.write_bytes(f"{self.name}/reason.json", text.encode())
            self._empty = False
        copy = f"{self.name}/{name}"
        self._folder.write_bytes(copy, data)
        if self._folder.read_bytes(copy) != data:
            raise OSError(f"{self._folder.where(copy)}: reads back differently from what was written")
        reach("sink.quarantine.kept", name=name)

    def keep_file(self, name: str) -> None:
        """Copy a file of the output folder, if it exists."""
        data = self._folder.read_if_there(name)
        if data is not None:
            self.keep(name, data)


def age(folder: OutputFolder, name: str) -> float:
    """Seconds since a file was written. Raises OSError if the storage cannot tell."""
    fs, root = connect(folder.url)
    written = retry(folder.where(name), lambda: fs.modified(f"{root.rstrip('/')}/{name}"))
    if written.tzinfo is None:
        written = written.replace(tzinfo=UTC)
    return float((datetime.now(UTC) - written).total_seconds())
