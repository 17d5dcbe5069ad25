"""Which rows are asked: those of listed ids (`data.ids`), a share of all (`data.sample`), or so many
(`data.sample_rows`).

An id and the seed give each row a place between 0 and 2**64, a hash. A share has the rows below a place, so
whether a row is in it depends on its id alone: each part of a data set is chosen from by itself, and a table
grows if the share or the list does. Of a number of rows each part keeps those that come first in it, and when
all parts are read, `last_place` says where the first of all end. A row that repeats an id has its place, too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flexray.config.data import DataConfig
from flexray.data.files import SourceFile, find_files, reading, with_version
from flexray.data.text import MAX_RECORD_BYTES, open_text, too_long
from flexray.errors import DataError, first_few
from flexray.storage import redact

_SHOWN = 5
_log = logging.getLogger(__name__)
Versions = tuple[tuple[SourceFile, str], ...]
Places = npt.NDArray[np.uint64]


class Selection:
    """Chooses rows of tables of PLAN_SCHEMA, and notes which of the listed ids there are.

    Raises:
        DataError: a file of ids cannot be read, or has none.
    """

    def __init__(self, config: DataConfig) -> None:
        self._share, self._rows, self._seed = config.sample, config.sample_rows, config.sample_seed
        self._ids = _load(id_versions(config)) if config.ids else None
        self.found: set[str] = set()
        self.places: Places = np.array([], np.uint64)
        """Of `sample_rows`, the places of the first so many ids that were seen, in order."""

    @classmethod
    def of_config(cls, config: DataConfig) -> Selection | None:
        """None: all rows are asked. Raises as the class."""
        if config.ids or config.sample is not None or config.sample_rows is not None:
            return cls(config)
        return None

    def of(self, table: pa.Table) -> pa.Table:
        """The chosen rows, in order. A row without a usable id is in no list."""
        if self._ids is not None:
            table = table.filter(pc.is_in(table["source_id"], self._ids))
            self.found.update(table["source_id"].to_pylist())
        if self._share is not None and self._share < 1:
            most = self._share * 2**64
            chosen = [_place(row_id, self._seed) < most for row_id in table["row_id"].to_pylist()]
            table = table.filter(pa.array(chosen, pa.bool_()))
        if self._rows is not None and len(table):
            places = _places(table, self._seed)
            self.places = np.unique(np.concatenate([self.places, places]))[: self._rows]
            table = table.filter(pa.array(places <= self.places[-1]))
        return table


def last_place(config: DataConfig, places: Sequence[Places]) -> int | None:
    """The place of the last row that `data.sample_rows` asks; None: all that were kept are asked. Of its
    beginning a part has kept rows behind this place, too.

    Args:
        places: `Selection.places` of each part of the data set.
    """
    if config.sample_rows is None:
        return None
    found = np.unique(np.concatenate(places))
    return int(found[config.sample_rows - 1]) if len(found) >= config.sample_rows else None


def up_to(table: pa.Table, config: DataConfig, last: int | None) -> pa.Table:
    """The rows of a table (PLAN_SCHEMA, row ids as they were read) up to a place, in order."""
    if last is None:
        return table
    return table.filter(pa.array(_places(table, config.sample_seed) <= np.uint64(last)))


def check_ids(config: DataConfig, found: Iterable[frozenset[str]]) -> None:
    """Tell of listed ids that no row has.

    Args:
        found: those that rows of each part of the data set have.

    Raises:
        DataError: no row has any of them.
    """
    if not config.ids:
        return
    known = set().union(*found)
    ids = _load(id_versions(config)).to_pylist()
    missing = [id_ for id_ in ids if id_ not in known]
    files = redact(", ".join(config.ids))
    if len(missing) == len(ids):
        raise DataError(
            f"{files}: no row has any of these ids, such as {first_few(map(repr, ids), _SHOWN)}. Correct "
            "data.ids; it holds the ids of the source, one a line."
        )
    if missing:
        _log.warning(
            "%s: %d of %d ids are those of no row: %s. Correct data.ids if they should be there.",
            *(files, len(missing), len(ids), first_few(map(repr, missing), _SHOWN)),
        )


def id_versions(config: DataConfig) -> Versions:
    """The files of ids and their versions. Raises DataError as `find_files`."""
    return tuple(with_version(file) for file in find_files(config.ids, "data.ids", form="jsonl"))


@lru_cache(maxsize=2)
def _load(versions: Versions) -> pa.Array:
    """The ids, each once, in order."""
    ids: dict[str, None] = {}
    for file, _ in versions:
        with reading(file.path), open_text(file.path) as stream:
            number = 0
            while line := stream.readline(MAX_RECORD_BYTES):
                number += 1
                if len(line) >= MAX_RECORD_BYTES:
                    raise too_long(file.path, number)
                try:
                    id_ = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as e:
                    raise DataError(
                        f"{redact(file.path)}, line {number}: is not UTF-8. Convert the file."
                    ) from e
                if id_:
                    ids[id_] = None
    if not ids:
        files = ", ".join(redact(file.path) for file, _ in versions)
        raise DataError(f"{files}: has no id. Write one a line, or remove data.ids.")
    return pa.array(ids, pa.string())


def _places(table: pa.Table, seed: int) -> Places:
    return np.array([_place(row_id, seed) for row_id in table["row_id"].to_pylist()], np.uint64)


def _place(row_id: str, seed: int) -> int:
    """A number below 2**64 that is drawn for the row."""
    return int.from_bytes(sha256(f"{seed}/{row_id}".encode()).digest()[:8], "big")
