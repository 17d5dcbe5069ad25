"""The files that commands write where the user asks for them."""

from __future__ import annotations

from pathlib import Path

from flexray.errors import OutputError


def write_file(path: Path, content: str | bytes, option: str) -> None:
    """Write a file that the user asked for; its folder is made.

    Args:
        option: the command line option that names the file.

    Raises:
        OutputError: the folder cannot be made or the file not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as e:
        raise OutputError(f"{path}: cannot be written: {e}. Give another {option}.") from e
