"""Some consecutive records of a source file, as its reader hands them on to be checked."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from flexray.data.record import Record

BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Records in one of two forms that are quick to check, and a way to get any of them as a Record."""

    first_row: int  # number of the first record in the file
    num_rows: int
    records: Callable[[Sequence[int]], list[Record]]
    """The records at these indices. Raises DataError if the file cannot be read."""
    values: Sequence[dict[str, Any] | None] | None = None
    """The objects of the records; None for a record that has a problem or a fault."""
    batch: pa.RecordBatch | None = None
    """The columns that contain required fields."""

    def head(self, most: int) -> Block:
        """At most so many of the first records."""
        if most >= self.num_rows:
            return self
        values = None if self.values is None else self.values[:most]
        batch = None if self.batch is None else self.batch.slice(0, most)
        return replace(self, num_rows=most, values=values, batch=batch)


@contextmanager
def without_collector() -> Iterator[None]:
    """While many objects are made that hold no cycles, such as parsed JSON: to look for cycles among them
    again and again would take a third of the time of a scan."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def of_records(records: Sequence[Record], first_row: int) -> Block:
    """A block of records that are already made."""
    values = [None if record.faults else record.value for record in records]
    return Block(
        first_row=first_row,
        num_rows=len(records),
        records=lambda indices: [records[i] for i in indices],
        values=values,
    )
