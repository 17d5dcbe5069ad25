"""What determines a run's rows: its data and settings, the model's files, the code that computes them."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import flexray
from flexray.config import RunConfig
from flexray.config.data import FewShotData
from flexray.config.plugins import plugin_digests
from flexray.engine.values import VALUES_VERSION
from flexray.models.hub import files_of, model_folder
from flexray.models.lora.adapter_config import CONFIG
from flexray.models.lora.adapter_files import TENSORS
from flexray.sink.records import CodeVersion
from flexray.sink.run.other_run import VALUES_KEY

PACKAGE = Path(flexray.__file__).parent
VALUE_PACKAGES = ("config", "engine", "masks", "methods", "models", "prompts")
"""The packages whose sources determine the answers."""
COMMIT_FILE = "COMMIT"
"""In the package, if a build has written the commit there."""
CHUNK_BYTES = 64 * 1024
CHUNKS = 64
TEMPLATES = "additional_chat_templates"
"""Where transformers looks for more templates than chat_template.jinja."""


def fingerprint_parts(config: RunConfig, drawn_from: FewShotData | None = None) -> dict[str, Any]:
    """The parts of a run's fingerprint: what determines a row's answers, beside the row and the method.
    Paths, batch sizes and backends do not.

    Args:
        config: with its few-shots drawn.
        drawn_from: what they were drawn from.
    """
    few_shot_data = drawn_from.model_dump(mode="json") if drawn_from else None
    return {
        "data": {
            "name": config.data.name,
            "split": config.data.split,
            "include_question": config.data.include_question,
            "max_paraphrases": config.data.max_paraphrases,
        },
        "model": {
            "digest": checkpoint_digest(model_folder(config.model.path), files_of(config.model.path)),
            **({"lora": [*map(adapter_digest, config.model.lora)]} if config.model.lora else {}),
            "dtype": config.model.dtype,
            **({"quantization": config.model.quantization} if config.model.quantization else {}),
        },
        "prompt": config.prompt.model_dump(mode="json") | {"few_shot_data": few_shot_data},
        "generation": config.generation.model_dump(mode="json"),
        VALUES_KEY: VALUES_VERSION,
        **({"plugins": plugin_digests(config.plugins)} if config.plugins else {}),
    }


def checkpoint_digest(folder: str | Path, only: Collection[str] | None = None) -> str:
    """Hex sha256 over a model folder: config and tokenizer files whole, chat templates and code
    too; of each safetensors file its size, its header and 64 chunks of 64 KiB spread evenly over it.

    A fine-tuned copy of a model has the same shapes but other weights everywhere. The chunks tell the two
    apart in a second, while reading 16 GB would take a minute. A change of a few weights between the chunks
    is not noticed.

    Args:
        only: names of the files that count, relative to the folder: a repository of the hub may hold others,
            of which the cache has some or none. None: all.
    """
    total = hashlib.sha256()
    for name, part in file_digests(folder, only).items():
        total.update(name.encode() + b"\0" + part)
    return total.hexdigest()


def file_digests(folder: str | Path, only: Collection[str] | None = None) -> dict[str, bytes]:
    """What `checkpoint_digest` takes of each file, by its name in the folder, in order."""
    root, found = Path(folder), {}
    for path in sorted(
        [*root.iterdir(), *(root / TEMPLATES).glob("*.jinja")], key=lambda p: p.relative_to(root).as_posix()
    ):
        name = path.relative_to(root).as_posix()
        if only is not None and name not in only:
            continue
        if path.suffix == ".safetensors":
            found[name] = _sampled(path)
        elif path.suffix in {".json", ".jinja", ".model", ".py", ".txt"}:
            found[name] = hashlib.sha256(path.read_bytes()).digest()
    return found


def adapter_digest(folder: str | Path) -> str:
    """Hex sha256 over the two files of a LoRA adapter, whole."""
    total = hashlib.sha256()
    for name in (CONFIG, TENSORS):
        with (Path(folder) / name).open("rb") as stream:
            total.update(name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        digest.update(stream.read(min(header, size)))
        for i in range(CHUNKS):
            stream.seek(i * max(0, size - CHUNK_BYTES) // (CHUNKS - 1))
            digest.update(stream.read(CHUNK_BYTES))
    return digest.digest()


def provenance() -> dict[str, Any]:
    """Versions of the packages that compute the rows."""
    packages = ("torch", "transformers", "tokenizers", "ray", "pyarrow", "safetensors", "numpy")
    return {
        "flexray": flexray.__version__,
        "python": python_version(),
        **{name: version(name) for name in packages},
    }


@functools.cache
def code_version() -> CodeVersion:
    """The code that this process has imported."""
    return CodeVersion(
        flexray=flexray.__version__,
        commit=find_commit(PACKAGE),
        source_sha256=source_digest(PACKAGE),
        values_version=VALUES_VERSION,
    )


def source_digest(package: Path) -> str:
    """Hex sha256 over the names and bytes of all Python files in VALUE_PACKAGES."""
    digest = hashlib.sha256()
    for name in VALUE_PACKAGES:
        for path in sorted((package / name).rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def find_commit(package: Path) -> str:
    """The commit that a build has written down, or that is checked out, followed by `-dirty` if tracked files
    were changed since; "" if neither is known."""
    written = package / COMMIT_FILE
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    git = ["git", "-C", str(package.parent)]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # nothing is written into the checkout
    try:
        top, commit = (
            subprocess.run([*git, *command], env=environment, capture_output=True, text=True, timeout=10)
            for command in (
                ["rev-parse", "--show-toplevel"],
                ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    # an installed package may lie inside a checkout of something else
    is_ours = not top.returncode and Path(top.stdout.strip()) == package.parent.resolve()
    return commit.stdout.strip() if is_ours and not commit.returncode else ""
