"""Data sets of the Hugging Face hub, read through the Arrow files that `datasets` makes of them.

A data set at a commit lies in the hub's cache. `datasets` knows which of its files make a split of a
configuration, and writes their rows as Arrow into a cache of its own (HF_DATASETS_CACHE), once on each
machine. These Arrow files are one source file here, hf://datasets/OWNER/NAME@COMMIT/CONFIG/SPLIT, whose rows
are counted through all of them. Nothing is asked of the hub, and no code of a data set is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from flexray.config.data import HubDataSet
from flexray.data import arrow
from flexray.data.block import Block
from flexray.data.hub_builder import FILES, find, open_builder, quiet, reason_of, refuse_script
from flexray.data.record import Record
from flexray.data.required_fields import RequiredFields
from flexray.errors import ConfigError, DataError
from flexray.storage.hub import HubName, download

_PATH = re.compile(r"hf://datasets/(?P<name>[^@]+@[0-9a-f]{40})/(?P<config>[^/]+)/(?P<split>[^/]+)")


def folder_of(source: HubDataSet) -> str | None:
    """The absolute path of the folder that is named; None: it is a data set of the hub.

    Raises:
        ConfigError: a folder, with a revision or a configuration, of which it has none.
    """
    path = os.path.abspath(os.path.expanduser(source.name))
    if not os.path.isdir(path):
        return None
    for key in ("revision", "config"):
        if getattr(source, key) is not None:
            raise ConfigError(
                f"data.hub.{key}: {source.name} is a folder, which has none and is read as it is. Leave "
                f"{key} out, or start where there is no such folder."
            )
    return path


def pin_data_set(source: HubDataSet) -> HubDataSet:
    """The same with the commit in place of the revision, and the configuration that `datasets` chooses. A
    folder gets its absolute path.

    Raises:
        ConfigError: as `path_of`.
    """
    if (there := folder_of(source)) is not None:
        return source.model_copy(update={"name": there})
    name = _named(source)
    folder = find(name)
    builder = open_builder(name, folder, source.config)
    return source.model_copy(update={"revision": name.at(folder).revision, "config": builder.config.name})


def path_of(source: HubDataSet, split: str) -> str:
    """The name of the source file that holds the rows of a split.

    Raises:
        ConfigError: the cache does not have the data set, or not all of its files; it is made by code; it has
            no such configuration; or the package `datasets` is missing.
    """
    pinned = pin_data_set(source)
    return f"hf://datasets/{pinned.name}@{pinned.revision}/{pinned.config}/{split}"


def download_data_set(source: HubDataSet) -> None:
    """Bring a data set into the hub's cache: all of its configurations, but neither code nor pickles. Of a
    folder there is nothing to bring. Raises ConfigError as `download`, or for a data set that is made by
    code."""
    if folder_of(source) is not None:
        return
    name = _named(source)

    def choose(names: Sequence[str]) -> Sequence[str]:
        refuse_script(name, names)
        return FILES

    download(name, choose)


def read(path: str, required: RequiredFields) -> Iterator[Block]:
    """The records of a split, holding their required columns only; batch by batch.

    Raises:
        DataError: there is no such split, or its rows cannot be read or lack a required column.
        ConfigError: as `path_of`, of this machine's cache.
    """
    row = 1
    for file in _arrow_files(path):
        try:
            for block in arrow.read(file, required, first_row=row):
                yield replace(block, records=partial(_records, block, path))
                row += block.num_rows
        except DataError as e:
            raise DataError(f"{path}: {e}") from e


def size(path: str) -> int:
    """Bytes of a split's Arrow files. Raises as `read`."""
    return sum(map(os.path.getsize, _arrow_files(path)))


def _records(block: Block, path: str, indices: Sequence[int]) -> list[Record]:
    try:
        return block.records(indices)
    except DataError as e:
        raise DataError(f"{path}: {e}") from e


@lru_cache(maxsize=4)  # a data set, few-shots
def _arrow_files(path: str) -> tuple[str, ...]:
    """The Arrow files of a source file in their order. They are made now if this machine does not have them
    yet."""
    parts = _PATH.fullmatch(path)
    name = parts and HubName.parse(parts["name"], "dataset")
    assert parts is not None, path
    assert name is not None, path
    builder = open_builder(name, find(name), parts["config"])
    with quiet():
        try:
            builder.download_and_prepare()
            splits = list(builder.info.splits or ())
            if parts["split"] not in splits:
                raise DataError(
                    f"{path}: no split {parts['split']!r} in this data set; found: "
                    f"{', '.join(map(repr, splits))}. Correct data.hub.split or data.split."
                )
            files = [entry["filename"] for entry in builder.as_dataset(split=parts["split"]).cache_files]
        except DataError:
            raise
        except Exception as e:  # of `datasets`, of pyarrow and of the file system
            raise DataError(
                f"{path}: datasets cannot make Arrow files of it in {builder.cache_dir}: {reason_of(e)}"
            ) from e
    return tuple(files)


def _named(source: HubDataSet) -> HubName:
    name = HubName.parse(str(source), "dataset")
    if name is None:
        raise ConfigError(
            f"data.hub: {source}: no such folder, and no name of a data set of the Hugging Face hub. Give a "
            "folder that every node sees, or owner/name and a branch, tag or commit as revision."
        )
    return name
