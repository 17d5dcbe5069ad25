"""Linters, stand-ins for programs, and command lines as their commands read them."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from ray.scripts.scripts import cli as ray_cli

from flexray.cli import app


def tool(name: str) -> str:
    """The path of a program of this environment or of PATH. The test is skipped where there is none, as on
    a platform for which it is not built."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make setup")
    return found


def parse(words: list[str]) -> dict[str, Any]:
    """The options of a `flexray` or `ray` command, as it reads them; raises for one it does not know."""
    command = typer.main.get_command(app) if words[0] == "flexray" else ray_cli
    while hasattr(command, "commands"):
        words = words[1:]
        command = command.commands[words[0]]
    return command.make_context(words[0], words[1:]).params


def stand_in(folder: Path, name: str, text: str) -> Path:
    """A program of this name, which notes its arguments in `told` first."""
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\nexport TOLD={folder}/told\necho "{name} $*" >> $TOLD\n{text}\n')
    path.chmod(0o700)
    return path


def waiting(then: str) -> str:
    """What a stand-in does that waits for SIGTERM."""
    return (
        f"trap 'kill $!; {then}' TERM\nsleep 60 > /dev/null 2>&1 &\n"
        'echo "${0##*/} is ready" >> $TOLD\nwait'
    )


def told(folder: Path) -> list[str]:
    """What the stand-ins have noted."""
    path = folder / "told"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
