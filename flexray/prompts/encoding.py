"""Texts to token ids, each on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, template: bool = False) -> tuple[int, ...]:
    """Ids of a text, without BOS.

    Args:
        template: the text is of a chat template, whose special tokens are meant. In a user's text they are
            the characters that they are written with.
    """
    if not text:
        return ()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=not template)["input_ids"]
    return tuple(ids)


def encode_behind(
    tokenizer: PreTrainedTokenizerBase, text: str, *, template: bool = False
) -> tuple[int, ...]:
    """The same, for a text that has another one before it.

    SentencePiece's tokenizers put a space before a text, as if it began a sentence. So it is encoded behind
    a newline, which is taken off again; if the two become one token, that is no such tokenizer.
    """
    newline = encode(tokenizer, "\n")
    ids = encode(tokenizer, "\n" + text, template=template)
    if newline and ids[: len(newline)] == newline:
        return ids[len(newline) :]
    return encode(tokenizer, text, template=template)
