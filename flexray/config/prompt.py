"""The settings of a prompt."""

from __future__ import annotations

from typing import Any

from pydantic import (
    ValidationInfo,
    field_validator,
    model_validator,
)

from flexray.config.data import FewShotData, Section


class FewShot(Section):
    LATER = ("paraphrases",)
    question: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    """Other wordings of the question. With some, the few-shot is asked as a row is: the question, its first
    paraphrase, and these are isolated from each other, and the answer looks at all of them."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The question and its paraphrases."""
        return (self.question, *self.paraphrases)

    @model_validator(mode="after")
    def _some_text(self) -> FewShot:
        if self.paraphrases and not all(text.strip() for text in self.asked):
            raise ValueError("paraphrases: neither the question nor one of them may be empty. Leave it out")
        return self


class PromptConfig(Section):
    LATER = ("few_shot_sets",)
    chat: bool = False
    """For instruct models: use the tokenizer's chat template. The instruction is the system message,
    few-shots are user and assistant turns, the question is the last user turn. Templates that write a date
    get 26 July 2024; thinking is off in templates that have a switch for it."""
    instruction: str = ""
    """The beginning of the context."""
    few_shots: tuple[FewShot, ...] = ()
    """Questions with answers, which follow the instruction in this order."""
    few_shot_data: FewShotData | None = None
    """Instead of few_shots: draw them from other rows."""
    few_shot_sets: tuple[tuple[FewShot, ...], ...] = ()
    """Instead of few_shots, for `flexray paraphrase`: samples are drawn with each of these sets, in a run of
    its own in the folder `set-0`, `set-1` and so on of the output."""
    question_template: str = "\nQ: {question}"
    """The text of a paraphrase, in a segment and in a few-shot. docs/algorithm.md, Boundaries, says where its
    tokens begin and end. With chat: the whole turn, by default "{question}"."""
    answer_prefix: str = "\nA:"
    """The text that an answer follows, also in a few-shot. With chat: none."""
    add_bos: bool = True
    """Begin the context with BOS, if the model's folder names one. With chat the template decides."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_chat(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("chat") is True:
            return {"question_template": "{question}", "answer_prefix": "", **tree}
        return tree

    @field_validator("answer_prefix")
    @classmethod
    def _opens_the_answer(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("chat"):
            if value:
                raise ValueError(
                    'with prompt.chat the template opens the answer. Leave answer_prefix out, or set it to ""'
                )
        elif not value:
            raise ValueError("must not be empty without prompt.chat")
        return value

    @field_validator("question_template")
    @classmethod
    def _has_slot(cls, value: str) -> str:
        if value.count("{question}") != 1:
            raise ValueError("needs the slot {question} exactly once")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> PromptConfig:
        sources = {key: getattr(self, key) for key in ("few_shots", "few_shot_data", "few_shot_sets")}
        given = [key for key, value in sources.items() if value not in ((), None)]
        if len(given) > 1:
            one, other = given[:2]
            raise ValueError(f"{one} and {other}: give one of them, and set the other to [] or null")
        return self
