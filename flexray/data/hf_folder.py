"""Find the files of one split in the folder of a Hugging Face data set.

Two kinds of folders are supported: those that `datasets` writes (`save_to_disk` of a Dataset or a
DatasetDict), and those of the hub, with Parquet files named after their split, in the folder, in `data/` or
in a folder named after the split. The hub is not contacted unless the folder itself is an hf:// URL.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from flexray.errors import DataError, first_few
from flexray.storage import is_hidden, retry, type_of


def split_files(fs: Any, folder: str, split: str, url: str) -> list[str] | None:
    """The files in order, or None if the folder is of neither kind. `url` names the folder in messages.

    Raises:
        DataError: the data set has no such split, or its index cannot be read.
        OSError: the storage failed.
    """
    folder = folder.rstrip("/")
    if type_of(fs, f"{folder}/dataset_dict.json", url):
        splits = _listed(fs, f"{folder}/dataset_dict.json", url, lambda index: list(index["splits"]))
        if split not in splits:
            raise _no_split(folder, split, splits)
        folder = f"{folder}/{split}"
    if type_of(fs, f"{folder}/state.json", url):
        names = _listed(
            fs, f"{folder}/state.json", url, lambda index: [f["filename"] for f in index["_data_files"]]
        )
        return [f"{folder}/{name}" for name in names]
    return _parquet_files(fs, folder, split, url)


def _listed(fs: Any, path: str, url: str, names: Any) -> list[str]:
    try:
        found: list[str] = names(json.loads(retry(url, lambda: fs.cat_file(path))))
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"{path}: is not the index of a data set: {type(e).__name__}: {e}. Save the data set again."
        ) from e
    if not all(isinstance(name, str) and "/" not in name and name not in ("", ".", "..") for name in found):
        raise DataError(
            f"{path}: is not the index of a data set: it must contain names of files in its folder, but has "
            f"{found!r}. Save the data set again."
        )
    return found


def _parquet_files(fs: Any, folder: str, split: str, url: str) -> list[str] | None:
    named = re.compile(re.escape(split) + r"(-.*)?\.parquet")
    others: list[str] = []
    for place, everything in ((folder, False), (f"{folder}/data", False), (f"{folder}/{split}", True)):
        names = _parquet_in(fs, place, url) if type_of(fs, place, url) == "directory" else []
        found = [n for n in names if everything or named.fullmatch(posixpath.basename(n))]
        if found:
            _check_parts(folder, [posixpath.basename(name) for name in found])
            return sorted(found)
        others += [posixpath.basename(n) for n in names]
    if others:
        raise _no_split(folder, split, others)
    return None


def _check_parts(folder: str, names: list[str]) -> None:
    """Files that are numbered as parts of a whole, such as train-00001-of-00004.parquet, are all there."""
    parts: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if numbered := re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(-[0-9a-f]+)?\.parquet", name):
            parts.setdefault((numbered[1], numbered[3]), set()).add(int(numbered[2]))
    for (name, count), there in parts.items():
        if missing := sorted(set(range(int(count))) - there):
            lost = [f"{name}-{number:05}-of-{count}.parquet" for number in missing]
            raise DataError(
                f"{folder}: {len(missing)} of {int(count)} files are missing: {first_few(lost)}. Copy the "
                "data set again, or give a glob to read what is there."
            )


def _parquet_in(fs: Any, place: str, url: str) -> list[str]:
    entries = retry(url, lambda: fs.ls(place, detail=False))
    return [n for n in entries if n.endswith(".parquet") and not is_hidden(posixpath.basename(n))]


def _no_split(folder: str, split: str, found: list[str]) -> DataError:
    shown = ", ".join(map(repr, found[:20])) or "(none)"
    return DataError(
        f"{folder}: this data set has no split {split!r}; found: {shown}. Correct data.split, or "
        "give a glob if its files are not named after splits."
    )
