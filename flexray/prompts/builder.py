"""Turns a Question into a Prompt: [BOS + instruction + few-shots] [P1] .. [PN] [answer prefix].

With `prompt.chat` the same in turns: [system message, few-shots, header] [P1] .. [PN] [header of the answer].
`flexray.prompts.frame` defines where exactly one segment ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from flexray.config import GenerationConfig, MethodConfig, PromptConfig
from flexray.data.question import Question
from flexray.errors import ConfigError, RowFault
from flexray.prompts.candidates import candidates_of
from flexray.prompts.chat import split_template
from flexray.prompts.context import make_context, plain_text
from flexray.prompts.encoding import TextEncoder, UnencodableError, find_bos
from flexray.prompts.prompt import MAX_PARAPHRASES, Prompt

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase

_NO_ANSWER_PREFIX = (
    "prompt.answer_prefix: {answer_prefix!r} has no tokens in this model's vocabulary. Change it."
)
_NO_ANSWER_PREFIX_IN_CHAT = (
    "prompt.chat: the tokenizer's chat template writes nothing behind the question that an answer could "
    "begin at. Set prompt.chat to false."
)


MOST_KNOWN = 10_000
"""Candidates whose token ids are kept."""


class PromptBuilder:
    """Builds prompts for one run.

    Args:
        max_positions: the model's context window, in tokens.
        vocab_size: how many tokens the model knows; ids below it.
        named_bos: the BOS that config.json names, where the tokenizer does not say whether it has one.

    Attributes:
        lacks_bos: whether prompts should begin with BOS, and no BOS was found.

    Raises:
        ConfigError: an answer prefix that has no tokens, a chat template that cannot be used, or a token
            that the model does not know in what all prompts share.

    Texts of the user's are tokenised as text: a special token that one spells out is encoded as the
    characters it is written with.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: PromptConfig,
        methods: Sequence[MethodConfig],
        generation: GenerationConfig,
        max_positions: int,
        *,
        vocab_size: int,
        named_bos: int | None = None,
    ):
        if prompt.few_shot_sets:
            raise ConfigError(
                "prompt.few_shot_sets is for `flexray paraphrase`. Give prompt.few_shots instead."
            )
        self._tokenizer, self._prompt = tokenizer, prompt
        self._methods, self._generation = tuple(methods), generation
        self._max_positions, self._vocab_size = max_positions, vocab_size
        encoder = TextEncoder(tokenizer)
        bos = find_bos(tokenizer, vocab_size, named_bos)
        prefix, _, suffix = prompt.question_template.partition("{question}")
        if prompt.chat:  # many templates trim what they are given
            prefix, suffix = prefix.lstrip(), suffix.rstrip()
            bos_token = None if bos is None else self._token(bos)
            before, after = split_template(tokenizer, prompt, prefix, suffix, bos_token)
            wants_bos = "bos_token" in str(tokenizer.chat_template)
        else:
            before, after = plain_text(prompt, prefix, suffix)
            wants_bos = prompt.add_bos
        self.lacks_bos = wants_bos and bos is None
        context = make_context(encoder, before, prefix, suffix, after)
        if context is None:
            raise ConfigError(
                _NO_ANSWER_PREFIX_IN_CHAT
                if prompt.chat
                else _NO_ANSWER_PREFIX.format(answer_prefix=prompt.answer_prefix)
            )
        self._frame, self._context = context.frame, context
        begin = (bos,) if prompt.add_bos and bos is not None and not prompt.chat else ()
        self.context, self.answer_prefix = begin + context.token_ids, context.frame.answer_prefix
        self._few_shots = tuple(
            tuple(bound + len(begin) for bound in few_shot) for few_shot in context.few_shots
        )
        self._gap = "" if prompt.chat else " "  # before an answer, as before those of few-shots
        self._known: dict[str, tuple[int, ...]] = {}  # candidates, which many rows have
        self._check_few_shots()
        self._check_shared_tokens()

    def build(self, question: Question) -> Prompt:
        """The prompt of one good row.

        Raises:
            RowFault: a paraphrase or candidate that has no tokens, or one that the model does not know, no
                candidates or too long ones, or a prompt that leaves the model no room for `max_new_tokens`
                (the message says by how much).
        """
        most = min(MAX_PARAPHRASES, *(method.max_paraphrases for method in self._methods))
        if (count := len(question.paraphrases)) > most:
            problem = f"{count} paraphrases, but at most {most} can be told apart by the methods of this run"
            raise self._fault(question, question.paraphrases, problem, "Set data.max_paraphrases.")
        segments = tuple(self._segment(question, text) for text in question.paraphrases)
        prompt = Prompt(
            self.context,
            segments,
            self.answer_prefix,
            question.num_manual,
            question.confidences,
            question.row_id,
            self._num_head(segments),
            self._few_shots,
            self._candidates(question),
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
        paraphrases = sum(lengths) if method.runs_on else max(lengths)
        context = len(prompt.context) - (0 if method.runs_on else prompt.num_beside)
        new = self._generation.max_new_tokens
        return contexts * context + paraphrases + len(prompt.answer_prefix) + new

    def apart_and_whole(self, paraphrase: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a prompt of one paraphrase, with the first of each few-shot's, and those of its text
        tokenised as one; both without the BOS of `add_bos`."""
        text = paraphrase.strip()
        apart = self._context.first_ids + self._frame.segment(text) + self.answer_prefix
        return apart, self._frame.whole(text, self._context.earlier)

    def text(self, paraphrase: str) -> str:
        """The text of a prompt of one paraphrase, with the first of each few-shot's, and without the BOS of
        `add_bos`."""
        frame = self._frame
        middle = frame.middle(paraphrase.strip())
        return "".join(p.text for p in (*self._context.earlier, *frame.before, middle, *frame.after))

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """Each as it is written in the vocabulary."""
        return [str(token) for token in self._tokenizer.convert_ids_to_tokens(list(token_ids))]

    def _segment(self, question: Question, paraphrase: str) -> tuple[int, ...]:
        try:
            ids = self._frame.segment(paraphrase.strip())
        except UnencodableError as e:
            raise self._fault(question, paraphrase, e.problem, e.advice) from e
        if not ids or ids == self._empty:
            raise self._fault(question, paraphrase, "the paraphrase has no tokens", "Write it out.")
        if (unknown := max(ids)) >= self._vocab_size:
            raise self._fault(question, paraphrase, self._is_unknown(unknown), "Leave the token out.")
        return ids

    def _candidates(self, question: Question) -> tuple[tuple[int, ...], ...]:
        given = self._generation.candidates
        if given is None:
            return ()
        texts = candidates_of(question.candidates, question.relation, self._generation)
        if not texts:
            problem = f"generation.candidates has no candidates for the relation {question.relation!r}"
            if given == "row":
                raise self._fault(question, None, "no candidates", "Give the row at least one.", "candidates")
            raise self._fault(question, question.relation, problem, "Give it some there.", "relation")
        return tuple(self._candidate(question, text) for text in texts)

    def _candidate(self, question: Question, text: str) -> tuple[int, ...]:
        if (ids := self._known.get(text)) is not None:
            return ids
        try:
            ids = self._frame.answer(self._gap + text.strip())
        except UnencodableError as e:
            raise self._fault(question, text, e.problem, e.advice, "candidates") from e
        most = self._generation.max_new_tokens
        problem, advice = "", "Change it."
        if not ids:
            problem = "the candidate has no tokens"
        elif max(ids) >= self._vocab_size:
            problem = self._is_unknown(max(ids))
        elif len(ids) > most:
            problem = f"the candidate has {len(ids)} tokens, but generation.max_new_tokens is {most}"
            advice = "Raise generation.max_new_tokens, or shorten it."
        if problem:
            raise self._fault(question, text, problem, advice, "candidates")
        if len(self._known) < MOST_KNOWN:
            self._known[text] = ids
        return ids

    def _num_head(self, segments: Sequence[tuple[int, ...]]) -> int:
        """How many tokens of the template every segment begins with: those of its head, or none if the
        tokenizer has joined that with a question."""
        head = self._frame.head
        n = len(head)
        return n if all(segment[:n] == head and len(segment) > n for segment in segments) else 0

    def _check_few_shots(self) -> None:
        shots = [shot for shot in self._prompt.few_shots if len(shot.asked) > 1]
        for shot, bounds in zip(shots, self._few_shots, strict=True):
            for text, (start, stop) in zip(shot.asked, pairwise(bounds), strict=True):
                if start == stop:
                    raise ConfigError(
                        f"prompt.few_shots: the paraphrase {text!r} of {shot.question!r} has no tokens. "
                        "Write it out, or leave it out."
                    )

    def _check_shared_tokens(self) -> None:
        self._empty = self._frame.segment("")
        shared = (*self.context, *self._empty, *self.answer_prefix)
        if (unknown := max(shared)) >= self._vocab_size:
            token = self._token(unknown)
            given = self._prompt.model_dump(exclude={"few_shot_data"})
            named = [f"prompt.{key}" for key, value in given.items() if token in str(value)]
            where = named[0] if named else "prompt.chat" if self._prompt.chat else "prompt"
            raise ConfigError(
                f"{where}: {self._is_unknown(unknown)}. Leave the token out, or take the tokenizer that "
                "belongs to the model."
            )

    def _is_unknown(self, token_id: int) -> str:
        return (
            f"the token {self._token(token_id)[:80]!r} (id {token_id}) is unknown to the model, whose "
            f"vocabulary has {self._vocab_size} tokens"
        )

    def _token(self, token_id: int) -> str:
        return self.tokens([token_id])[0]

    @staticmethod
    def _fault(
        question: Question,
        value: str | Sequence[str] | None,
        problem: str,
        advice: str,
        field: str = "paraphrases",
    ) -> RowFault:
        return RowFault(question.source_file, question.source_row, field, value, problem, advice)
