"""What ends an answer: tokens, as a table over the vocabulary that is read on the device, and texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from flexray.engine.generation import FinishReason


@dataclass(frozen=True)
class StoppingCriteria:
    """bool [V] each: tokens that are EOS, and tokens whose text has a newline in it. And texts, for which the
    tokenizer is needed: they may begin and end within tokens."""

    eos: Tensor
    newline: Tensor
    texts: tuple[str, ...] = ()
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def any(self) -> Tensor:
        """bool [V], tokens after which nothing is generated."""
        return self.eos | self.newline

    @functools.cached_property
    def reasons(self) -> dict[int, FinishReason]:
        """The ids of `any`, and why an answer that ends in one of them ended."""
        found: dict[int, FinishReason] = dict.fromkeys(self.newline.nonzero().flatten().tolist(), "newline")
        return found | dict.fromkeys(self.eos.nonzero().flatten().tolist(), "eos")

    def reason(self, token_ids: Sequence[int]) -> FinishReason:
        """Why the answer of these tokens ended."""
        if self.find_end(token_ids):
            return "stop"
        return self.reasons.get(token_ids[-1], "length") if token_ids else "length"

    def find_end(self, token_ids: Sequence[int]) -> int:
        """The fewest of the tokens, from the first on, whose text has one of `texts` in it; 0: none do."""
        if not self.texts or not self._has_end(token_ids):
            return 0
        none, enough = 0, len(token_ids)
        while enough - none > 1:  # a longer beginning of the answer has it, too
            middle = (none + enough) // 2
            none, enough = (none, middle) if self._has_end(token_ids[:middle]) else (middle, enough)
        return enough

    def _has_end(self, token_ids: Sequence[int]) -> bool:
        assert self.tokenizer is not None
        text = decode(self.tokenizer, token_ids, skip_special_tokens=True)
        return any(end in text for end in self.texts)

    def stop_ids(self) -> set[int]:
        """The ids of `any`."""
        return set(self.reasons)


def make_stopping_criteria(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    *,
    at_newline: bool,
    texts: tuple[str, ...] = (),
) -> StoppingCriteria:
    """EOS ids of generation config, config and tokenizer together (instruct models name several), and,
    if asked, every token that decodes to text with a newline: "\\n", but also ".\\n" and "\\n\\n". And texts.

    An id that the vocabulary does not have never comes; -1 is one, which stands for none.
    """
    size = model.config.vocab_size
    eos = torch.zeros(size, dtype=torch.bool)
    generation = getattr(model, "generation_config", None)
    for owner in (generation, model.config, tokenizer):
        ids = getattr(owner, "eos_token_id", None)
        for i in [ids] if isinstance(ids, int) else ids or []:
            if 0 <= i < size:
                eos[i] = True
    newline = torch.zeros(size, dtype=torch.bool)
    if at_newline:
        known = range(min(size, len(tokenizer)))
        words = tokenizer.batch_decode([[i] for i in known], clean_up_tokenization_spaces=False)
        for i, word in zip(known, words, strict=True):
            newline[i] = "\n" in word
    return StoppingCriteria(eos, newline & ~eos, texts, tokenizer)


def decode(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], *, skip_special_tokens: bool = False
) -> str:
    """The text of the tokens as it is. A tokenizer may ask for spaces to be taken out of it, which only some
    releases of transformers do."""
    ids = list(token_ids)
    return str(
        tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
    )


def token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    """The text of one token in the midst of others: SentencePiece takes a space from a text's first."""
    written = tokenizer.convert_ids_to_tokens(token_id)
    if isinstance(written, str) and written.startswith("▁"):
        return written.replace("▁", " ")
    return decode(tokenizer, [token_id])


def answer_text(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    *,
    at_newline: bool,
    stop: Sequence[str] = (),
) -> str:
    """The answer: generated ids decoded, special tokens dropped, cut at the first newline or text of `stop`,
    trimmed."""
    text = decode(tokenizer, token_ids, skip_special_tokens=True)
    ends = ("\n", *stop) if at_newline else stop
    return text[: min((text.index(end) for end in ends if end in text), default=None)].strip()
