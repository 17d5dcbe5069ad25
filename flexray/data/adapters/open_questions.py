"""Adapters for more data sets of questions with answers: PopQA, Natural Questions (open), SQuAD."""

from __future__ import annotations

from typing import Any

from flexray.config.data import Fields
from flexray.data.adapters.adapter import OF_QUESTION, DatasetAdapter, FieldReader, distinct, id_of_question
from flexray.data.record import Record, found, listed
from flexray.data.required_fields import RequiredFields


class PopQA(DatasetAdapter):
    """{id, question, possible_answers, prop}: the TSV of its authors, or as on the hub. The answers are a
    JSON list in a string; the relation is prop."""

    required = RequiredFields((("id", "question", "possible_answers"),), also=("prop",), kind="popqa")

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        answers = reader.get("possible_answers")
        values: dict[str, Any] = {"num_manual": 0}
        if (texts := listed(answers)) is not None:
            values["possible_answers"] = texts
        elif not isinstance(answers, list):
            problem = f"a JSON list of strings is needed, not {found(answers)}"
            reader.fault("possible_answers", problem, 'Write it as ["...", "..."].')
        fields = Fields(
            paraphrases=None, answers="possible_answers", relation="prop", num_manual="num_manual"
        )
        return reader.row(fields, **values)


class NaturalQuestions(DatasetAdapter):
    """{question, answer}, answer a list of strings: Natural Questions open, of its authors or of the hub.

    There are no ids, so the id is the beginning of the question's sha256.
    """

    required = RequiredFields((("question", "answer"),), kind="nq_open")

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        values: dict[str, Any] = {**id_of_question(reader.text("question"))}
        if (texts := listed(reader.get("answer"))) is not None:  # of CSV
            values["answer"] = texts
        fields = Fields(id=OF_QUESTION, paraphrases=None, answers="answer", num_manual="num_manual")
        return reader.row(fields, num_manual=0, **values)


class SQuAD(DatasetAdapter):
    """SQuAD of its authors, one object whose data are articles of paragraphs of questions (a row is a
    question, counted through the file); or as on the hub, {id, question, answers {text}}.

    The question is asked without its paragraph. One that cannot be answered (SQuAD 2) has no answers and is
    not scored.
    """

    required = RequiredFields(
        (("id", "question", "answers"),), kind="squad", under="data", inside=("paragraphs", "qas")
    )

    def adapt(self, record: Record, file: str) -> Record:
        reader = FieldReader(record)
        value = reader.get("answers")
        texts: Any = None
        if isinstance(value, dict):
            texts = value.get("text")
        elif isinstance(value, list):
            texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in value]
        if not isinstance(texts, list):
            reader.fault("answers", f"answers with text are needed, not {found(value)}", "Give it text.")
        fields = Fields(paraphrases=None, answers="answers" if texts else None, num_manual="num_manual")
        return reader.row(fields, num_manual=0, **({"answers": distinct(texts)} if texts else {}))
