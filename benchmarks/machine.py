"""What a figure was measured on, and with: without these it means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parent.parent


def describe_machine() -> dict[str, str]:
    """Hardware and versions."""
    return {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "hardware": _gpu() if torch.cuda.is_available() else _cpu(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "triton")},
    }


def describe_commit() -> str:
    """The commit, `-dirty` behind it if tracked files differ from it. Where a copy of the tree has no
    .git, COMMIT in the environment may name it; else "unknown"."""
    if commit := os.environ.get("COMMIT"):
        return commit
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except OSError:  # no git
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.returncode else "")


def _gpu() -> str:
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"{torch.cuda.get_device_name(0)}, {memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _cpu() -> str:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].split(":", 1)[1].strip() if names else name
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
