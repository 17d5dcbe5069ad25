"""Join paraphrases from other files (`data.paraphrase_files`) to the rows by id.

A record is {id, paraphrases} or {id, paraphrases, confidences}; a list may be JSON in a text. Its paraphrases
are added after the row's own ones, if it has any (and after the question, if it is included), without those
that the row already has. If the record has confidences, each of the row's own paraphrases gets its confidence
from the record, or 1 if it is not in it.
Each process that reads rows reads these files completely, and keeps them in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress
from typing import Any

from flexray.config.data import DataConfig
from flexray.data.identity import id_problem
from flexray.data.readers import FileVersions, find_versions, read_whole, record_error
from flexray.data.record import MISSING, FieldFault, Record, lookup, paraphrases_path, unpacked
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import redact

_KEY = "data.paraphrase_files"
_SHOWN = 3
_REQUIRED = RequiredFields((("id", "paraphrases"),), also=("confidences",), named=_KEY)


@dataclass(frozen=True, slots=True)
class _Entry:
    place: str  # file and row
    paraphrases: Any
    confidences: Any  # MISSING, None or "" if there are none
    again: str = ""  # file and row that repeat the id

    def without(self, known: list[Any]) -> tuple[Any, Any, dict[str, Any]]:
        """The paraphrases that are not known texts, their confidences, and the confidences of known texts."""
        texts, numbers = self.paraphrases, self.confidences
        rated = isinstance(numbers, list)
        if not isinstance(texts, list) or (rated and len(numbers) != len(texts)):
            return texts, numbers, {}  # the check of the row reports this
        there = {text for text in known if isinstance(text, str)}
        new = [not isinstance(text, str) or text not in there for text in texts]
        theirs: dict[str, Any] = {}
        if rated:
            rows = zip(texts, numbers, new, strict=True)
            theirs = {text: number for text, number, is_new in rows if not is_new}
            numbers = list(compress(numbers, new))
        return list(compress(texts, new)), numbers, theirs


@dataclass(frozen=True, slots=True)
class JoinCount:
    """How many rows of a part of the data set have an id in the files."""

    hits: int
    misses: tuple[str, ...]  # the first few ids that the files do not have
    known: tuple[str, ...]  # the first few ids of the files


def check_joined(counts: Sequence[JoinCount], config: DataConfig) -> None:
    """Raises DataError if the files had paraphrases for none of the rows of all parts."""
    misses = [source_id for count in counts for source_id in count.misses][:_SHOWN]
    if not misses or any(count.hits for count in counts):
        return
    theirs = ", ".join(map(repr, counts[0].known)) or "(none)"
    raise DataError(
        f"{redact(', '.join(config.paraphrase_files))}: has none of the rows' ids. The rows have "
        f"{', '.join(map(repr, misses))}; the file has {theirs}. Correct {_KEY}."
    )


class Join:
    """The paraphrases of all ids. Counts the rows that have an id in the files."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._entries = _load(find_versions(config.paraphrase_files, _KEY))
        self.hits = 0
        self.misses: list[str] = []  # the first few

    def join(self, record: Record, source_id: str) -> Record:
        """The record with its joined paraphrases, or with a fault that says why it has none."""
        assert record.value is not None
        entry = self._entries.get(source_id)
        if entry is None:
            self.misses += [source_id] if len(self.misses) < _SHOWN else []
            return record if self._can_do_without(record) else self._lacking(record, source_id)
        self.hits += 1
        if entry.again:
            problem, advice = f"has the same id as {entry.place}", "Remove one of them."
            fault = FieldFault(f"id of {entry.again}", source_id, problem, advice)
            return replace(record, faults=(*record.faults, fault))
        own_path, place = paraphrases_path(record.fields), entry.place
        own = [] if own_path is None else lookup(record.value, own_path)
        own = [] if own in (MISSING, None, "") else own  # all of them are in the files
        if not isinstance(own, list):
            return record  # the check of the row reports this
        question = lookup(record.value, record.fields.question)
        known = [question] * self._config.include_question + own
        further, confidences, theirs = entry.without(known)
        texts = f"paraphrases of {place}"
        values = {texts: own + further if isinstance(further, list) else further}
        numbers = None
        if confidences not in (MISSING, None, ""):
            numbers = f"confidences of {place}"
            of_known = [theirs.get(text, 1.0) if isinstance(text, str) else 1.0 for text in known]
            values[numbers] = of_known + confidences if isinstance(confidences, list) else confidences
        only_known = entry.paraphrases and not values[texts]  # only the question, which is asked in any case
        changes = {"paraphrases": None if only_known else texts, "confidences": numbers}
        fields = record.fields.model_copy(update=changes)
        return replace(record, value=record.value | values, fields=fields)

    def _can_do_without(self, record: Record) -> bool:
        return self._config.include_question or record.fields.paraphrases is not None

    def _lacking(self, record: Record, source_id: str) -> Record:
        files = redact(", ".join(self._config.paraphrase_files))
        fault = FieldFault(
            f"paraphrases of {files}",
            source_id,
            "the files have none for this id",
            "Add them, or set data.include_question to true.",
        )
        return replace(record, faults=(*record.faults, fault))

    def count(self) -> JoinCount:
        """What was counted so far."""
        return JoinCount(self.hits, tuple(self.misses), tuple(list(self._entries)[:_SHOWN]))


@lru_cache(maxsize=2)
def _load(versions: FileVersions) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for file, record in read_whole(versions, _REQUIRED):
        value = record.value
        if record.faults:
            raise record_error(file, record, record.faults[0])
        key = lookup(value, "id")
        if key is MISSING or (problem := id_problem(key)):
            problem = "a missing field" if key is MISSING else problem
            raise record_error(file, record, FieldFault("id", key, problem, "Give it the id of a row."))
        place = f"{redact(file)}, row {record.row}"
        if first := entries.get(str(key)):
            entries[str(key)] = replace(first, again=first.again or place)
            continue
        texts, numbers = (unpacked(lookup(value, path)) for path in ("paraphrases", "confidences"))
        entries[str(key)] = _Entry(place, texts, numbers)
    return entries
