"""An output folder that is only read: nothing is written to it or removed from it."""

from __future__ import annotations

import contextlib

from flexray.preflight.host import check_writable
from flexray.sink import OutputFolder
from flexray.sink.records import RUN_FILE
from flexray.storage import retry

PATIENCE = 15.0  # seconds: a person is waiting for the plan


class DryFolder(OutputFolder):
    """An output folder for a run's own start checks: what is written stays in this object, and nothing is
    removed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._written: dict[str, bytes] = {}

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system of this machine."""
        return self._local

    def _try_out(self) -> None:
        """Look, without writing, whether a local folder can be written, or a remote one read."""
        if self.is_local:
            check_writable(self.url)
            return
        with contextlib.suppress(FileNotFoundError):  # no run yet
            retry(self.url, lambda: self._fs.cat_file(self._path(RUN_FILE)), patience=PATIENCE)

    def read_bytes(self, name: str) -> bytes:
        """The file, or what this object was asked to write there."""
        return self._written[name] if name in self._written else super().read_bytes(name)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Nothing is written."""
        self._written[name] = data

    def remove(self, name: str) -> None:
        """Nothing is removed."""

    def remove_folder(self, name: str) -> None:
        """Nothing is removed."""
