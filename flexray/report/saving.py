"""Files that a command is asked to write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from flexray.errors import OutputError


@contextlib.contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Make the folder of a file that is written within.

    Args:
        option: that the file is named by.

    Raises:
        OutputError: the folder cannot be made or the file not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        raise OutputError(f"{path}: cannot be written: {e}. Give another {option}.") from e
