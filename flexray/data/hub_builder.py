"""A data set of the Hugging Face hub in the cache, as `datasets` understands it: refused, or opened.

No code of a repository is run, nothing is unpickled, and no file outside of it is read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from flexray.errors import ConfigError, shown
from flexray.storage import redact
from flexray.storage.hub import HubName, find_snapshot, not_there

KINDS = ("arrow", "csv", "json", "parquet", "text")
"""The kinds of data files that are read, as `datasets` calls them; others may unpickle what they find."""
FILES = (
    "README.md",
    ".huggingface.yaml",
    "*.zip",
    *(
        f"*.{extension}{packed}"
        for extension in ("arrow", "csv", "json", "jsonl", "ndjson", "parquet", "tsv", "txt")
        for packed in ("", ".bz2", ".gz", ".lz4", ".xz", ".zst")
    ),
)
"""What is brought of a data set."""
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")  # of a split in several files


def find(name: HubName) -> Path:
    """The data set's folder in the cache.

    Raises:
        ConfigError: the cache does not have it, or not all of its files; or it is made by code.
    """
    folder = find_snapshot(name, FILES)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    refuse_script(name, names)
    parts: dict[tuple[str, str], set[str]] = {}
    for part in filter(None, map(_PART.fullmatch, names)):
        parts.setdefault((part[1], part[3]), set()).add(part[2])
    if any(len(found) < int(total) for (_, total), found in parts.items()):
        raise not_there(name, incomplete=True)
    return folder


def refuse_script(name: HubName, names: Sequence[str]) -> None:
    """Raise ConfigError if there is a script among the files of a data set that makes its rows."""
    script = f"{name.repo.partition('/')[2]}.py"
    if script in names:
        raise ConfigError(
            f"data.hub: {name}: its rows are made by code, {script}, which is not run. Name a revision that "
            "has them as files, such as refs/convert/parquet, or save them to a folder where you trust the "
            "code, and give that."
        )


def open_builder(name: HubName, folder: Path, config: str | None) -> Any:
    """The `DatasetBuilder` of a configuration; None: of the default one.

    Raises:
        ConfigError: there is no such configuration, or not one alone; its files are not there, elsewhere or
            of kinds that are not read; or the package `datasets` is missing.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ConfigError(
            "data.hub: the package datasets is needed to read a data set of the hub. Install it, on every "
            "node: pip install 'flexray[hub]'."
        )
    import datasets

    with quiet():
        try:
            _refuse_urls(name, folder)
            builder = datasets.load_dataset_builder(str(folder), config)
        except ConfigError:
            raise
        except FileNotFoundError as e:
            raise not_there(name, incomplete=True) from e
        except Exception as e:  # ValueError for most, and those of YAML for a broken README.md
            raise ConfigError(f"data.hub: {name}, config {config or '(none)'}: {reason_of(e)}") from e
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in KINDS:
        raise ConfigError(
            f"data.hub: {name}: its files are of the kind {kind}; read are {', '.join(KINDS)}. Convert it."
        )
    root = folder.resolve()
    for files in (builder.config.data_files or {}).values():
        for file in map(os.path.normpath, files):
            if not Path(file).is_relative_to(root):
                raise _elsewhere(name, file)
    return builder


def _refuse_urls(name: HubName, folder: Path) -> None:
    """`datasets` would ask for files that a card names by a URL, as soon as it reads the card."""
    from huggingface_hub import metadata_load

    readme, more = folder / "README.md", folder / ".huggingface.yaml"
    cards = [metadata_load(readme) if readme.is_file() else None]
    cards += [yaml.safe_load(more.read_bytes()) if more.is_file() else None]
    for card in filter(None, cards):
        if url := re.search(r"[\w+.-]+://[^\s'\"]*", str(card.get("configs"))):
            raise _elsewhere(name, url[0])


def _elsewhere(name: HubName, file: str) -> ConfigError:
    return ConfigError(
        f"data.hub: {name}: its README.md names {shown(redact(file))}, which is not a file of the repository "
        "and is not read. If you trust it, save the data set to a folder and give that."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which fill a worker's log."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()


def reason_of(error: Exception) -> str:
    """What `datasets` says, in one line."""
    cause = error.__cause__ or error  # DatasetGenerationError only says that it happened
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
