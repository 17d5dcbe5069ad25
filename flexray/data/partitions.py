"""Hive partitions: a folder `relation=P36` in a file's path gives each of its records the field `relation`,
if the record has none. A record's own value wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from flexray.data.block import Block
from flexray.data.record import Record
from flexray.data.required_fields import RequiredFields
from flexray.data.text import name_of

_NULL = "__HIVE_DEFAULT_PARTITION__"


def keys_of(path: str, required: RequiredFields) -> dict[str, str | None]:
    """The keys in a file's path that are fields which the data set needs, and their values."""
    parts = [part.partition("=") for part in name_of(path).parts[:-1]]
    found = {unquote(key): unquote(value) for key, equals, value in parts if key and equals}
    wanted = found if required.everything else required.paths()
    return {key: None if found[key] == _NULL else found[key] for key in wanted if key in found}


def without(required: RequiredFields, keys: dict[str, str | None]) -> RequiredFields:
    """The fields that the file itself must have."""
    forms = tuple(tuple(path for path in form if path not in keys) for form in required.forms)
    return replace(required, forms=forms, also=(*required.also, *keys))


def with_keys(block: Block, keys: dict[str, str | None]) -> Block:
    """The block with the keys as fields of its records."""

    def records(indices: Sequence[int]) -> list[Record]:
        return [
            record if record.value is None else replace(record, value=keys | record.value)
            for record in read(indices)
        ]

    read: Callable[[Sequence[int]], list[Record]] = block.records
    values, batch = block.values, block.batch
    if values is not None:
        values = [None if value is None else keys | value for value in values]
    if batch is not None:
        for key, text in keys.items():
            if key not in batch.schema.names:
                column = pa.array([text] * batch.num_rows, pa.string())
                batch = batch.append_column(key, column)
    return replace(block, records=records, values=values, batch=batch)
