"""Check a record and make its Question. The record's faults become the Question's error."""

from __future__ import annotations

from typing import Any

from flexray.config.data import DataConfig
from flexray.data.choice import choose, chooses
from flexray.data.identity import Identity, id_problem, text_problem
from flexray.data.question import Question
from flexray.data.record import (
    MISSING,
    Record,
    found,
    json_type,
    looks_like_data,
    lookup,
    paraphrases_path,
)
from flexray.errors import RowFault

_SHOWN_BYTES = 200
_SHOWN_FAULTS = 20  # a record may have very many, such as one for each element of a list


def to_question(record: Record, identity: Identity, config: DataConfig, file: str) -> Question:
    """Check one record. The Question's `error` lists all faults; its other fields have what could be read.

    Whether its row id is distinct in the data set is not known here; see `repeats`.

    Args:
        file: the file as messages name it.
    """
    check = _RowChecker(record, file, config)
    fields = record.fields
    question = ""
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] | None = None
    candidates: tuple[str, ...] | None = None
    relation, num_manual, confidences = "", 0, None
    if record.value is None:
        check.unreadable()
    else:
        check.id(fields.id)
        question = check.text(fields.question, "question")
        paraphrases = _paraphrases(check, question, config)
        answers = _answers(check, fields.answers)
        relation = _relation(check, fields.relation)
        num_manual = _num_manual(check, config, len(paraphrases))
        confidences = _confidences(check, config, len(paraphrases))
        candidates = _candidates(check, fields.candidates)
        if chooses(config) and not check.faults and not record.faults:
            asked, num_manual, lacking = choose(paraphrases, num_manual, identity.source_id, config)
            if lacking is not None:
                check.lacks(lacking, asked)
            elif not asked:
                check.no_choice()
            paraphrases = tuple(paraphrases[i] for i in asked)
            confidences = confidences and tuple(confidences[i] for i in asked)
        check.add_record_faults()
    return Question(
        row_id=identity.row_id,
        dataset=config.name,
        split=config.split,
        source_file=file,
        source_row=record.row,
        source_id=identity.source_id,
        question=question,
        paraphrases=paraphrases,
        answers=answers,
        relation=relation,
        num_manual=num_manual,
        confidences=confidences,
        candidates=candidates or None,
        error=_error(check.faults),
    )


def _error(faults: list[RowFault]) -> str:
    shown = [str(fault) for fault in faults[:_SHOWN_FAULTS]]
    more = len(faults) - len(shown)
    return " ".join([*shown, f"And {more} more fault(s)."] if more else shown)


def _paraphrases(check: _RowChecker, question: str, config: DataConfig) -> tuple[str, ...]:
    own = (question,) if config.include_question and question else ()
    path = paraphrases_path(check.fields)
    rest = () if path is None else check.texts(path, "Give each row at least one paraphrase.", "a paraphrase")
    return (own + rest)[: config.max_paraphrases]


def _answers(check: _RowChecker, path: str | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    if_none = "If the data set has no answers, set data.fields.answers to null."
    return check.texts(path, if_none, "an answer", alone=True)


def _relation(check: _RowChecker, path: str | None) -> str:
    value = None if path is None else lookup(check.value, path)
    if path is None or value is None or value is MISSING or (isinstance(value, str) and not value.strip()):
        return ""  # a row without a group
    return check.text(path, "relation")


def _num_manual(check: _RowChecker, config: DataConfig, num_paraphrases: int) -> int:
    """The number of manual paraphrases among those that are used."""
    path = check.fields.num_manual
    if path is None:
        return 0
    extra = bool(config.include_question)  # the question is the first paraphrase and counts as manual
    return min(check.count(path) + extra, num_paraphrases)


def _confidences(check: _RowChecker, config: DataConfig, num_paraphrases: int) -> tuple[float, ...] | None:
    path = check.fields.confidences
    if path is None:
        return None
    values = check.shares(path)[: config.max_paraphrases]
    if len(values) != num_paraphrases and not check.faults:
        check.mismatch(path, values, f"{len(values)} numbers for {num_paraphrases} paraphrases")
    return values


def _candidates(check: _RowChecker, path: str | None) -> tuple[str, ...] | None:
    return None if path is None else check.texts(path, "Give each row at least one.", "a candidate")


class _RowChecker:
    """Reads the fields of one record and collects its faults."""

    def __init__(self, record: Record, file: str, config: DataConfig) -> None:
        self._record = record
        self.value = record.value
        self._file = file
        self._configured = config.kind == "records"  # if False, messages do not mention data.fields
        self.fields = record.fields
        self.faults: list[RowFault] = []

    def unreadable(self) -> None:
        shown = self._record.raw[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        self._fault("(record)", shown, self._record.problem, self._record.advice)

    def add_record_faults(self) -> None:
        """Put the adapter's faults first, and drop later faults of the same fields.

        If there are any, missing fields are not reported, because the adapter could not fill them.
        """
        theirs = {fault.field for fault in self._record.faults}
        if theirs:
            mine = [f for f in self.faults if f.field not in theirs and f.value is not MISSING]
            self.faults = []
            for fault in self._record.faults:
                self._fault(fault.field, fault.value, fault.problem, fault.advice)
            self.faults += mine

    def id(self, path: str | None) -> None:
        value = None if path is None else lookup(self._record.value, path)
        if path is not None and (problem := id_problem(value)):
            null = ", or set data.fields.id to null, so that ids are made from the content"
            self._fault(path, value, problem, f"Give the row an id{null if self._configured else ''}.")

    def text(self, path: str, role: str) -> str:
        value = lookup(self._record.value, path)
        if not isinstance(value, str):
            problem = f"a string is needed, not {found(value)}"
        else:
            problem = text_problem(value, "the text")
        if problem:
            self._fault(path, value, problem, f"Give the row a {role}, as a string.")
            return ""
        return str(value)

    def lacks(self, index: int, left: list[int]) -> None:
        """There is no paraphrase of an index that the configuration names."""
        self._fault(
            paraphrases_path(self.fields) or "paraphrases",
            len(left),
            f"data.paraphrases names index {index}, but only indices 0 to {len(left) - 1} are there",
            "Give the row more paraphrases, or correct data.paraphrases.",
        )

    def no_choice(self) -> None:
        """No paraphrase is left."""
        self._fault(
            paraphrases_path(self.fields) or "paraphrases",
            0,
            "no paraphrase is left",
            "Raise data.max_manual or data.max_automatic.",
        )

    def count(self, path: str) -> int:
        value = lookup(self._record.value, path)
        if isinstance(value, list):
            return len(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            problem = f"a whole number of 0 or more, or a list, is needed, not {found(value)}"
            self._fault(path, value, problem, "Say how many of the paraphrases are manual.")
            return 0
        return value

    def shares(self, path: str) -> tuple[float, ...]:
        """A list of numbers in [0, 1]."""
        value = lookup(self._record.value, path)
        good = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in value
        )
        if not good:
            self._fault(
                path,
                value,
                "a list of numbers from 0 to 1 is needed",
                "Give one for each paraphrase, or set data.fields.confidences to null.",
            )
            return ()
        return tuple(map(float, value))

    def mismatch(self, path: str, value: Any, problem: str) -> None:
        self._fault(path, value, problem, "Give one for each paraphrase that is used.")

    def texts(self, path: str, if_none: str, role: str, *, alone: bool = False) -> tuple[str, ...]:
        """The usable elements of a list of strings. `alone`: a single string counts as a list of one."""
        if_none = if_none if self._configured else f"Give the row {role}."
        value = lookup(self._record.value, path)
        if isinstance(value, str) and looks_like_data(value):
            what = "a mapping" if value.lstrip()[0] == "{" else "a list"
            problem = f"the text looks like {what}, but is not a JSON list"
            self._fault(path, value, problem, 'Write it as a list of strings: ["...", "..."].')
            return ()
        if isinstance(value, str) and alone:
            value = [value]
        elif isinstance(value, str):
            self._fault(path, value, "a list of strings is needed, not a string", "Put it in a list: [...].")
            return ()
        if not isinstance(value, list):
            self._fault(path, value, f"a list of strings is needed, not {found(value)}", if_none)
            return ()
        if not value:
            self._fault(path, value, "the list is empty", if_none)
        good = []
        for number, element in enumerate(value, start=1):
            what = f"element {number} of {len(value)}"
            is_text = isinstance(element, str)
            problem = (
                text_problem(element, what)
                if is_text
                else f"{what} is not a string, but {json_type(element)}"
            )
            if problem:
                self._fault(path, element, problem, "Correct or remove this element.")
            else:
                good.append(element)
        return tuple(good)

    def _fault(self, field: str, value: Any, problem: str, advice: str) -> None:
        self.faults.append(RowFault(self._file, self._record.row, field, value, problem, advice))
