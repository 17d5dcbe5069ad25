"""Turns a Question into a Prompt: [BOS + instruction + few-shots] [P1] .. [PN] [cue].

With `prompt.chat` the same in turns: [system message, few-shots, header] [P1] .. [PN] [header of the answer].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flexray.config import GenerationConfig, MethodConfig, PromptConfig
from flexray.prompts import chat
from flexray.prompts.encoding import encode, encode_behind
from flexray.types import MAX_PARAPHRASES, ConfigError, Prompt, Question, RowFault

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase


class PromptBuilder:
    """Builds prompts for one run.

    Args:
        max_positions: the model's context window, in tokens.

    Raises:
        ConfigError: a cue that has no tokens, or a chat template that cannot be used.

    Every text is tokenised on its own, as text: a special token that a user's text spells out is
    encoded as the characters it is written with.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: PromptConfig,
        methods: Sequence[MethodConfig],
        generation: GenerationConfig,
        max_positions: int,
    ):
        self._tokenizer, self._prompt = tokenizer, prompt
        self._methods, self._generation = tuple(methods), generation
        self._max_positions = max_positions
        if prompt.chat:
            shots = [(self._question(shot.question), shot.answer.strip()) for shot in prompt.few_shots]
            frame = chat.make_frame(tokenizer, prompt.instruction.strip(), shots)
            self.context, self._lead, self.cue = frame.context, frame.lead, frame.cue
            return
        self._lead = ""
        bos = tokenizer.bos_token_id if prompt.add_bos else None
        texts = [
            self._question(shot.question) + prompt.cue + " " + shot.answer.strip()
            for shot in prompt.few_shots
        ]
        context = encode(tokenizer, prompt.instruction + "".join(texts))
        self.context = context if bos is None else (bos, *context)
        self.cue = encode(tokenizer, prompt.cue)
        if not self.cue:
            raise ConfigError(
                f"prompt.cue: {prompt.cue!r} has no tokens in this model's vocabulary. Change it."
            )

    def build(self, question: Question) -> Prompt:
        """The prompt of one good row.

        Raises:
            RowFault: a paraphrase that has no tokens, or a prompt that leaves the model no room for
                `max_new_tokens` (the message says by how much).
        """
        if (count := len(question.paraphrases)) > MAX_PARAPHRASES:
            problem = f"{count} paraphrases, but at most {MAX_PARAPHRASES} can be told apart"
            raise self._fault(question, question.paraphrases, problem, "Set data.max_paraphrases.")
        segments: list[tuple[int, ...]] = []
        for text in question.paraphrases:
            segments.append(self._segment(self._question(text)))
            if not segments[-1]:
                raise self._fault(question, text, "the paraphrase has no tokens", "Write it out.")
        prompt = Prompt(
            self.context,
            tuple(segments),
            self.cue,
            question.num_manual,
            question.confidences,
            question.row_id,
        )
        needed = max(self._positions_needed(prompt, method) for method in self._methods)
        if needed > self._max_positions:
            raise self._fault(
                question,
                question.paraphrases,
                f"the prompt is longer than the context: {needed} positions are needed (answer included), "
                f"the model has {self._max_positions}",
                "Shorten the paraphrases or the few-shots, lower max_new_tokens, or set positions: restart.",
            )
        return prompt

    def _positions_needed(self, prompt: Prompt, method: MethodConfig) -> int:
        lengths = [len(s) for s in prompt.segments]
        contexts = len(lengths) if method.copies_context else 1
        continuous = method.kind == "attention" and method.positions == "continuous"
        paraphrases = sum(lengths) if continuous else max(lengths)
        new = self._generation.max_new_tokens
        return contexts * len(prompt.context) + paraphrases + len(prompt.cue) + new

    def _question(self, text: str) -> str:
        question = self._prompt.question_template.replace("{question}", text.strip())
        return question.strip() if self._prompt.chat else question  # many templates trim what they are given

    def _segment(self, text: str) -> tuple[int, ...]:
        behind = self._prompt.chat and bool(self.context)
        return (encode_behind if behind else encode)(self._tokenizer, self._lead + text)

    @staticmethod
    def _fault(question: Question, value: str | Sequence[str], problem: str, advice: str) -> RowFault:
        return RowFault(question.source_file, question.source_row, "paraphrases", value, problem, advice)
