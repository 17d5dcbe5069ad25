"""TriviaQA as the hub has it (rc.nocontext): question_id, question, answer {value, aliases}.

The accepted answers are the value and its aliases. The test split hides them ("<unk>"): nothing is scored.
"""

from __future__ import annotations

from typing import Any

from flexray.data.kinds.kind import Checked, Kind, distinct, found
from flexray.data.records import MISSING, Record
from flexray.data.wanted import Wanted
from flexray.data_config import DataConfig, Fields

_ANSWERS = "answer.aliases"
_FIELDS = Fields(id="question_id", paraphrases=None, answers=_ANSWERS, num_manual="num_manual")
_UNSCORED = _FIELDS.model_copy(update={"answers": None})
_HIDDEN = "<unk>"


class TriviaQA(Kind):
    wanted = Wanted((("question_id", "question", "answer"),), kind="triviaqa")

    def __init__(self, config: DataConfig) -> None:
        del config

    def adapt(self, record: Record, file: str) -> Record:
        del file
        checked = Checked(record)
        answers = _answers(checked)
        if checked.faults or answers == [_HIDDEN]:
            return checked.row(_UNSCORED, num_manual=0)
        return checked.row(_FIELDS, num_manual=0, **{_ANSWERS: answers})


def _answers(checked: Checked) -> list[Any]:
    answer = checked.get("answer")
    if not isinstance(answer, dict):
        checked.fault("answer", f"an object is needed, not {found(answer)}", "Give it value and aliases.")
        return []
    value = checked.text("answer.value")
    aliases = checked.get(_ANSWERS)
    if aliases is MISSING or aliases is None:
        aliases = []
    if not isinstance(aliases, list):
        checked.fault(_ANSWERS, f"a list of strings is needed, not {found(aliases)}", "Write it as a list.")
        return []
    return distinct([value, *aliases])
