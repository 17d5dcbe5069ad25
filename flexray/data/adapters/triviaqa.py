"""TriviaQA as the hub has it (rc.nocontext): question_id, question, answer {value, aliases}; or as its
authors publish it, one object whose Data are {QuestionId, Question, Answer {Value, Aliases}}.

The accepted answers are the value and its aliases. Test splits hide them ("<unk>") or have none: nothing is
scored.
"""

from __future__ import annotations

from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.adapters.adapter import Checked, DatasetAdapter, distinct, found
from flexray.data.records import MISSING, Record
from flexray.data.required_fields import RequiredFields

_HIDDEN = "<unk>"


class TriviaQA(DatasetAdapter):
    required = RequiredFields(
        (("question_id", "question", "answer"), ("QuestionId", "Question")),
        also=("Answer",),
        kind="triviaqa",
        under="Data",
    )

    def __init__(self, config: DataConfig) -> None:
        del config

    def adapt(self, record: Record, file: str) -> Record:
        del file
        checked = Checked(record)
        if "QuestionId" in (record.value or {}):
            names = ("QuestionId", "Question", "Answer", "Value", "Aliases")
            hidden = checked.get("Answer") is MISSING
        else:
            names = ("question_id", "question", "answer", "value", "aliases")
            hidden = False
        id_, question, answer, value, aliases = names
        fields = Fields(id=id_, question=question, paraphrases=None, answers=None, num_manual="num_manual")
        answers = [] if hidden else _answers(checked, answer, f"{answer}.{value}", f"{answer}.{aliases}")
        if hidden or checked.faults or answers == [_HIDDEN]:
            return checked.row(fields, num_manual=0)
        fields = fields.model_copy(update={"answers": f"{answer}.{aliases}"})
        return checked.row(fields, num_manual=0, **{f"{answer}.{aliases}": answers})


def _answers(checked: Checked, answer: str, value: str, aliases: str) -> list[Any]:
    found_answer, found_aliases = checked.get(answer), checked.get(aliases)
    if not isinstance(found_answer, dict):
        names = f"{value.rpartition('.')[2]} and {aliases.rpartition('.')[2]}"
        checked.fault(answer, f"an object is needed, not {found(found_answer)}", f"Give it {names}.")
        return []
    text = checked.text(value)
    if found_aliases is MISSING or found_aliases is None:
        found_aliases = []
    if not isinstance(found_aliases, list):
        checked.fault(
            aliases, f"a list of strings is needed, not {found(found_aliases)}", "Write it as a list."
        )
        return []
    return distinct([text, *found_aliases])
