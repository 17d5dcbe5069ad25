"""WebQuestions: {qId, qText, answers}, or {url, question, answers} as the hub has it.

The latter has no ids (the url is that of a topic): the id is the beginning of the sha256 of the question.
"""

from __future__ import annotations

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import Checked, DatasetAdapter
from flexray.data.identity import short_digest
from flexray.data.records import Record
from flexray.data.required_fields import RequiredFields

_OF_QUESTION = "id (made from the question)"
_WITH_ID = Fields(id="qId", question="qText", paraphrases=None, num_manual="num_manual")
_WITHOUT = Fields(id=_OF_QUESTION, paraphrases=None, num_manual="num_manual")


class WebQuestions(DatasetAdapter):
    required = RequiredFields((("qId", "qText", "answers"), ("question", "answers")), kind="webqa")

    def __init__(self, config: DataConfig) -> None:
        del config

    def adapt(self, record: Record, file: str) -> Record:
        del file
        checked = Checked(record)
        if "qText" in (record.value or {}):
            return checked.row(_WITH_ID, num_manual=0)
        question = checked.text("question")
        if not question:  # its fault is noted, and there is nothing to make an id from
            return checked.row(_WITHOUT, num_manual=0)
        return checked.row(_WITHOUT, num_manual=0, **{_OF_QUESTION: short_digest(question.encode())})
