"""What the fields of a data set's records mean, as far as names and values tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flexray.data.record import MISSING, listed, lookup

IDS = ("id", "qid", "question_id", "uuid", "_id", "uid", "example_id", "idx", "index")
QUESTIONS = ("question", "query", "prompt", "input", "question_text", "text", "q", "title")
ANSWERS = (
    *("answers", "answer", "gold", "possible_answers", "answers.text", "answer.aliases", "accepted_answers"),
    *("gold_answers", "target", "targets", "output", "label", "a", "obj_label"),
)
RELATIONS = ("relation", "relation_id", "rel", "prop", "predicate", "category", "topic", "subject")
_PARAPHRASES = re.compile(r"paraphrase|rephras|reword|variant|alternative|question_forms", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)(\d+)$")
_MANUAL = re.compile(r"manual|human|hand", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """The value of a recipe's key, and why it was chosen."""

    value: Any
    why: str


def guess_fields(records: Sequence[dict[str, Any]]) -> dict[str, Guess]:
    """For each key of `data.fields` what it may be, in their order; `question` is missing if nothing will do.

    Args:
        records: some of the data set's, at least one.
    """
    paths = _paths(records)
    found: dict[str, Guess] = {}
    question = _named(paths, QUESTIONS) or _asking(records, paths)
    if question is None:
        return {}
    answers = _named([path for path in paths if path != question.value], ANSWERS)
    used = {question.value, answers.value if answers else None}
    found["id"] = _id(records, [path for path in paths if path not in used])
    found["question"] = question
    found["paraphrases"], manual = _paraphrases(records, [path for path in paths if path not in used])
    found["answers"] = answers or Guess(value=None, why="no field has the name of accepted answers")
    if manual:
        found["num_manual"] = manual
    relation = _named(paths, RELATIONS)
    if relation and relation.value not in used and _values_are(records, relation.value, str):
        found["relation"] = relation
    return found


def _paths(records: Sequence[dict[str, Any]]) -> list[str]:
    """The fields of the records, and those one level below, as dotted paths."""
    paths: dict[str, None] = {}
    for record in records:
        for key, value in record.items():
            paths[key] = None
            if isinstance(value, dict):
                paths |= {f"{key}.{inner}": None for inner in value}
    return list(paths)


def _named(paths: Sequence[str], names: Sequence[str]) -> Guess | None:
    """The field that has the first of these names."""
    by_name = {path.lower(): path for path in reversed(paths)}
    for name in names:
        if name in by_name and not any(path.startswith(f"{by_name[name]}.") for path in paths):
            return Guess(value=by_name[name], why="by its name")
    return None


def _asking(records: Sequence[dict[str, Any]], paths: Sequence[str]) -> Guess | None:
    """The field whose texts are most often questions, else the longest texts."""
    texts = {
        path: [v for r in records if isinstance(v := lookup(r, path), str) and v.strip()] for path in paths
    }
    texts = {path: values for path, values in texts.items() if 2 * len(values) > len(records)}
    for path, values in texts.items():
        asked = sum(value.rstrip().endswith("?") for value in values)
        if 2 * asked > len(values):
            return Guess(value=path, why=f"{asked} of {len(values)} of its texts end in a question mark")
    if not texts:
        return None
    longest = max(texts, key=lambda path: sum(map(len, texts[path])) / len(texts[path]))
    return Guess(value=longest, why="its texts are the longest ones")


def _id(records: Sequence[dict[str, Any]], paths: Sequence[str]) -> Guess:
    named = _named(paths, IDS)
    if named is None:
        return Guess(value=None, why="no field has the name of an id: ids are made from the content")
    values = [str(lookup(record, named.value)) for record in records]
    if len(set(values)) < len(values):
        return Guess(value=None, why=f"{named.value!r} has a value twice: ids are made from the content")
    return named


def _paraphrases(records: Sequence[dict[str, Any]], paths: Sequence[str]) -> tuple[Guess, Guess | None]:
    """The fields of the paraphrases, and the one of those that are manual."""
    lists = [path for path in paths if _values_are(records, path, list) and _PARAPHRASES.search(path)]
    lists.sort(key=lambda path: not _MANUAL.search(path))  # manual ones come first
    if lists:
        manual = len(lists) > 1 and _MANUAL.search(lists[0])
        value = lists if len(lists) > 1 else lists[0]
        return (
            Guess(value=value, why="lists of texts, by their names"),
            Guess(value=lists[0], why="its list is of manual ones") if manual else None,
        )
    numbered: dict[str, list[int]] = {}
    for path in paths:
        if (found := _NUMBERED.match(path)) and _PARAPHRASES.search(path):
            numbered.setdefault(found[1], []).append(int(found[2]))
    for stem, numbers in numbered.items():
        numbers.sort()
        if numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1:
            return Guess(value=f"{stem}{numbers[0]}..{numbers[-1]}", why="numbered fields"), None
    return Guess(value=None, why="no field has paraphrases: the question is asked alone"), None


def _values_are(records: Sequence[dict[str, Any]], path: str, kind: type) -> bool:
    """Whether most values are of a type; a list may be JSON in a text."""
    values = [value for record in records if (value := lookup(record, path)) not in (MISSING, None)]
    good = sum(isinstance(value, kind) or (kind is list and listed(value) is not None) for value in values)
    return 2 * good > len(values) > 0
