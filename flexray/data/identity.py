"""Row ids, made from data set, split and source id, so that the order of rows and files does not matter."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flexray.config.data import DataConfig
from flexray.data.record import MISSING, Record, canonical, json_type, lookup, mapped


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of a record."""

    source_id: str  # "" if the record has no usable id
    row_id: str  # repeated rows still have the same row id


def identify(record: Record, config: DataConfig) -> Identity:
    """The record's ids. Never raises: the row id of a record without a usable id is made from its content."""
    source_id = ""
    if record.value is None:
        name = f"!{short_digest(record.raw)}"
    elif record.fields.id is None:
        source_id = name = _of_content(record.value, record)
    else:
        value = lookup(record.value, record.fields.id)
        if value is MISSING or id_problem(value):
            name = f"!{_of_content(record.value, record)}"
        else:
            source_id = name = str(value)
    return Identity(source_id, row_id_prefix(config) + name)


def row_id_prefix(config: DataConfig) -> str:
    """What the row ids of a data set begin with."""
    return f"{config.name}/{config.split}/"


def _of_content(value: dict[str, Any], record: Record) -> str:
    return short_digest(canonical(mapped(value, record.fields)).encode())


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


def short_digest(content: bytes) -> str:
    """The first 16 hex digits of the sha256."""
    return sha256(content).hexdigest()[:16]
