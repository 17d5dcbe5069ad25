"""Files that are moved aside: copied, checked, and only then deleted where they were.

_quarantine/<utc time>-<random>/reason.json     what was found
_quarantine/<utc time>-<random>/<name>          a file, under the name that it had
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from uuid import uuid4

from flexray import __version__
from flexray.config.fault_injection import reach
from flexray.sink.damage import Finding
from flexray.sink.folder import OutputFolder
from flexray.sink.records import QUARANTINE_FOLDER
from flexray.storage import connect, redact, retry


class Quarantine:
    """One folder of things moved aside, made by the first of them."""

    def __init__(self, folder: OutputFolder, findings: Sequence[Finding]) -> None:
        now = datetime.now(UTC)
        self.name = f"{QUARANTINE_FOLDER}/{now:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
        self._folder = folder
        self._findings = findings
        self._created = now.isoformat(timespec="seconds")
        self._empty = True

    def keep(self, name: str, data: bytes) -> None:
        """Put a copy of a file here and check it. Raises OSError if that fails."""
        if self._empty:  # the reason first: a folder that was left half filled explains itself
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
        """Put a copy of a file of the output here, if there is such a file."""
        data = self._folder.read_if_there(name)
        if data is not None:
            self.keep(name, data)


def age(folder: OutputFolder, name: str) -> float:
    """Seconds since a file was written. Raises OSError if the storage does not say."""
    fs, root = connect(folder.url)
    written = retry(folder.where(name), lambda: fs.modified(f"{root.rstrip('/')}/{name}"))
    if written.tzinfo is None:
        written = written.replace(tzinfo=UTC)
    return float((datetime.now(UTC) - written).total_seconds())
