"""The first records of data that a user names, whatever they are: a file, a glob, a folder, a hub name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from flexray.config.data import HubDataSet
from flexray.data import hub
from flexray.data.adapters import ADAPTERS
from flexray.data.files import SourceFile, find_files, reading
from flexray.data.readers import read_records
from flexray.data.record import MISSING, lookup
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import starting
from flexray.storage.hub import HubName

RECORDS = 200
_WITH_TEMPLATES = {
    "myriadlama": ("uuid", "rel_uri", "template"),
    "pararel": ("relation", "template", "subject", "object"),
}
"""The fields of kinds whose records have a template each, if no `template_files` are named."""
SPLITS = ("test", "validation", "dev", "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class Peek:
    """Some records, and the keys of `data` that lead to them."""

    source: dict[str, Any]
    records: list[dict[str, Any]]
    kind: str = "records"


def peek(data: str) -> Peek:
    """Find out what was named, and read its first records.

    Args:
        data: a path, a URL or a glob of files, the folder of a data set, or owner/name of the hub.

    Raises:
        DataError: nothing is there, it cannot be read, or it has no record.
        ConfigError: the cache does not have the data set of the hub.
    """
    if os.path.isdir(os.path.join(data, "facts")) and os.path.isdir(os.path.join(data, "patterns")):
        return Peek(source={"files": data}, records=[], kind="pararel")
    with starting():
        source, files = _files(data)
        kinds = {
            kind: required for kind, cls in ADAPTERS.items() if (required := getattr(cls, "required", None))
        }
        records, problem = _first(files, RequiredFields(((),)))
        kind = ""
        for name, required in kinds.items():
            if not records and required.under and files[0].format == "json":
                found, _ = _first(files, required)
                if found and any(_has(found[0], form) for form in required.forms):
                    records, kind = found, name
    if not records:
        raise DataError(f"{files[0].path}: has no record that is an object. {problem}".rstrip())
    return Peek(source=source, records=records, kind=kind or _kind(records, kinds))


def _files(data: str) -> tuple[dict[str, Any], list[SourceFile]]:
    if not os.path.exists(data) and HubName.parse(data, "dataset") and "://" not in data:
        wanted = HubDataSet.model_validate(data)

        def of_hub(split: str) -> list[SourceFile]:
            file = SourceFile(hub.path_of(wanted, split), "hub")
            next(iter(read_records(file, RequiredFields(((),), everything=True))), None)
            return [file]

        split, files = _first_split(of_hub)
        return {"hub": data, "split": split}, files
    if not os.path.isdir(data):
        return {"files": data}, find_files((data,), "DATA")
    split, files = _first_split(lambda split: find_files((data,), "DATA", split=split))
    return {"files": data, "split": split}, files


def _first_split(files_of: Callable[[str], list[SourceFile]]) -> tuple[str, list[SourceFile]]:
    """The first of SPLITS that is there, and its files. Raises what was raised for the first one if none
    is."""
    errors: list[DataError] = []
    for split in SPLITS:
        try:
            return split, files_of(split)
        except DataError as e:
            errors.append(e)
    raise errors[0]


def _first(files: list[SourceFile], within: RequiredFields) -> tuple[list[dict[str, Any]], str]:
    """Some records of the first files that have any, and the problem of the first that is none.

    Args:
        within: says where in a JSON file the records are.
    """
    found: list[dict[str, Any]] = []
    problem = ""

    def read() -> Iterator[Any]:
        for file in files:
            with reading(file.path):
                yield from read_records(file, replace(within, forms=((),), everything=True))

    try:
        for record in islice(read(), RECORDS):
            if record.value is None:
                problem = problem or record.problem
            else:
                found.append(record.value)
    except DataError as e:
        if files[0].format != "json":
            raise
        problem = str(e)
    return found, problem


def _kind(records: list[dict[str, Any]], kinds: dict[str, RequiredFields]) -> str:
    """The data set that the records are of, as it is published; records: none that is known."""
    for kind, paths in _WITH_TEMPLATES.items():
        if _has(records[0], paths):
            return kind
    for kind, required in kinds.items():
        for form in required.forms:
            usual = {"question", "answers", "answer", "id"}
            if set(form) <= usual or not _has(records[0], form):
                continue  # any data set may have fields of these names
            return kind
    return "records"


def _has(record: dict[str, Any], paths: Sequence[str]) -> bool:
    return all(lookup(record, path) is not MISSING for path in paths)
