"""Row ids, made from data set, split and source id, so that the order of rows and shards does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flexray.config.data import DataConfig
from flexray.data.record import Record, canonical, json_type, mapped


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of a record; the same in the scan and in each worker."""

    source_id: str  # "" if the record has no usable id
    row_id: str  # duplicates still have the same row id
    digest: bytes  # digest of row id and mapped content


def identify(record: Record, config: DataConfig) -> Identity:
    """The record's ids. Never raises: the row id of a record without a usable id is made from its content."""
    source_id = ""
    if record.value is None:
        content: Any = record.raw.hex()
        name = f"!{short_digest(record.raw)}"
    else:
        content = mapped(record.value, record.fields)
        if record.fields.id is None:
            source_id = name = short_digest(canonical(content).encode())
        elif "id" not in content or id_problem(content["id"]):
            name = f"!{short_digest(canonical(content).encode())}"
        else:
            source_id = name = str(content["id"])
    row_id = f"{config.name}/{config.split}/{name}"
    return Identity(source_id, row_id, sha256(canonical([row_id, content]).encode()).digest())


def id_problem(value: Any) -> str:
    """Why a value cannot be an id; "" if it can."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return f"an id must be a string or a whole number, but is {json_type(value)}"
    if isinstance(value, str):
        return text_problem(value, "the id")
    return ""


def text_problem(value: str, what: str) -> str:
    """Why a string is not usable text; "" if it is."""
    if not value.strip():
        return f"{what} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as e:
        return f"{what} has half of a surrogate pair at character {e.start + 1}, which is not valid text"
    return ""


def make_distinct(row_ids: Sequence[str]) -> tuple[list[str], dict[int, int]]:
    """Rename each repeated id to `id#2`, `id#3`, ..., but never to an id that is already used.

    Returns:
        The distinct ids in order, and for the index of each renamed id the index of its first occurrence.
    """
    taken = set(row_ids)
    first: dict[str, int] = {}
    count: dict[str, int] = {}
    distinct: list[str] = []
    duplicate_of: dict[int, int] = {}
    for index, row_id in enumerate(row_ids):
        if first.setdefault(row_id, index) == index:
            distinct.append(row_id)
            continue
        number = count.get(row_id, 1) + 1
        while f"{row_id}#{number}" in taken:
            number += 1
        count[row_id] = number
        taken.add(f"{row_id}#{number}")
        distinct.append(f"{row_id}#{number}")
        duplicate_of[index] = first[row_id]
    return distinct, duplicate_of


def short_digest(content: bytes) -> str:
    """The first 16 hex digits of the sha256."""
    return sha256(content).hexdigest()[:16]
