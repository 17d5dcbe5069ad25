"""Adapters for data sets whose records contain the question: configured records, WebQuestions, TriviaQA."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import OF_QUESTION, DatasetAdapter, FieldReader, distinct, id_of_question
from flexray.data.record import MISSING, Record, found, listed, lookup, paraphrases_path, parse_json
from flexray.data.required_fields import RequiredFields, of_fields

_WITH_ID = Fields(id="qId", question="qText", paraphrases=None, num_manual="num_manual")
_WITHOUT_ID = Fields(id=OF_QUESTION, paraphrases=None, num_manual="num_manual")
_HIDDEN = "<unk>"


class Records(DatasetAdapter):
    """Any records. `data.fields` has the path of each value, or several of paraphrases. A list may also be a
    string with a JSON list."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self.required = of_fields(config.fields)

    def adapt(self, record: Record, file: str) -> Record:
        assert record.value is not None
        parsed: dict[str, Any] = {}
        fields = self.config.fields
        for path in (paraphrases_path(fields), fields.answers, fields.candidates):
            if path is not None and (texts := listed(lookup(record.value, path))) is not None:
                parsed[path] = texts
        if isinstance(fields.paraphrases, tuple):
            values = [lookup(record.value, path) for path in fields.paraphrases]
            there = [value for value in values if value not in (MISSING, None, "")]
            if there:
                texts = [value if isinstance(value, list) else listed(value) or [value] for value in there]
                parsed[", ".join(fields.paraphrases)] = [text for each in texts for text in each]
        for path in (fields.num_manual, fields.confidences):
            if path is not None and (number := _parsed(lookup(record.value, path))) is not None:
                parsed[path] = number
        value = record.value | parsed if parsed else record.value
        return replace(record, value=value, fields=fields)


def _parsed(value: Any) -> Any:
    """The number or list in a text, as CSV has them; None for other values."""
    try:
        return parse_json(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return None


class WebQuestions(DatasetAdapter):
    """{qId, qText, answers}, or {url, question, answers} as on the hub.

    The hub's records have no ids (the url is that of a topic), so the id is the beginning of the question's
    sha256.
    """

    required = RequiredFields((("qId", "qText", "answers"), ("question", "answers")), kind="webqa")

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        answers = {} if (texts := listed(reader.get("answers"))) is None else {"answers": texts}
        if "qText" in (record.value or {}):
            return reader.row(_WITH_ID, num_manual=0, **answers)
        question = reader.text("question")
        return reader.row(_WITHOUT_ID, num_manual=0, **answers, **id_of_question(question))


class TriviaQA(DatasetAdapter):
    """As on the hub (rc.nocontext), {question_id, question, answer {value, aliases}}; or as its authors
    publish it, one object whose Data is a list of {QuestionId, Question, Answer {Value, Aliases}}.

    The accepted answers are the value and its aliases. In test splits they are hidden ("<unk>") or missing;
    then nothing is scored.
    """

    required = RequiredFields(
        (("question_id", "question", "answer"), ("QuestionId", "Question")),
        also=("Answer",),
        kind="triviaqa",
        under="Data",
    )

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        if "QuestionId" in (record.value or {}):
            names = ("QuestionId", "Question", "Answer", "Value", "Aliases")
            hidden = reader.get("Answer") is MISSING
        else:
            names = ("question_id", "question", "answer", "value", "aliases")
            hidden = False
        id_, question, answer, value, aliases = names
        fields = Fields(id=id_, question=question, paraphrases=None, answers=None, num_manual="num_manual")
        answers = [] if hidden else _answers(reader, answer, f"{answer}.{value}", f"{answer}.{aliases}")
        if hidden or reader.faults or answers == [_HIDDEN]:
            return reader.row(fields, num_manual=0)
        fields = fields.model_copy(update={"answers": f"{answer}.{aliases}"})
        return reader.row(fields, num_manual=0, **{f"{answer}.{aliases}": answers})


def _answers(reader: FieldReader, answer: str, value: str, aliases: str) -> list[Any]:
    found_answer, found_aliases = reader.get(answer), reader.get(aliases)
    if not isinstance(found_answer, dict):
        names = f"{value.rpartition('.')[2]} and {aliases.rpartition('.')[2]}"
        reader.fault(answer, f"an object is needed, not {found(found_answer)}", f"Give it {names}.")
        return []
    text = reader.text(value)
    if found_aliases is MISSING or found_aliases is None:
        found_aliases = []
    if not isinstance(found_aliases, list):
        reader.fault(
            aliases, f"a list of strings is needed, not {found(found_aliases)}", "Write it as a list."
        )
        return []
    return distinct([text, *found_aliases])
