"""From texts to token ids, and the id of BOS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flexray.errors import ModelError, shown

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase


GUARDS = ("\n", "a", ".", "0", ":")
"""Texts that another one may be encoded after, the first that a tokenizer does not join with it."""


class UnencodableError(ModelError):
    """A text that the tokenizer refuses."""

    advice = "Leave out what it has no token for, or give it a token for what it does not know (unk_token)."

    def __init__(self, message: str, problem: str = ""):
        super().__init__(message)
        self.problem = problem


class TextPiece(NamedTuple):
    """A piece of a prompt's text."""

    text: str
    template: bool = False
    """Whether it comes from a chat template. Only there are special tokens encoded as such; in a user's text
    they are encoded as plain characters."""


def boundaries(left: str, right: str) -> Iterator[tuple[str, str]]:
    r"""The two texts with their boundary moved within the white space around it. The most likely place comes
    first: after the last newline, else before the last space, which tokenizers join with the next word.

    >>> list(boundaries("Answer.", "\nQ: "))
    [('Answer.\n', 'Q: '), ('Answer.', '\nQ: ')]
    """
    left_text, right_text = left.rstrip(), right.lstrip()
    here = len(left) - len(left_text)
    space = left[len(left_text) :] + right[: len(right) - len(right_text)]
    word = max(len(space) - 1, 0) if space.endswith(" ") else len(space)
    likely = space.rfind("\n") + 1 or word
    for place in dict.fromkeys((likely, here, word, len(space), 0)):
        yield left_text + space[:place], space[place:] + right_text


class TextEncoder:
    """Encodes texts without adding BOS or EOS."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._guards = [(guard, ids) for guard in GUARDS if (ids := self._ids_or_none(guard))]
        if not self._puts_space():
            self._guards = [(guard, ids) for guard, ids in self._guards if guard == GUARDS[0]]
        added = tokenizer.added_tokens_decoder.items()
        self._special = {i for i, token in added if token.special} | set(tokenizer.all_special_ids)

    def encode(self, *pieces: TextPiece, follows: bool = False) -> tuple[int, ...]:
        """Ids of the pieces as one text, or encoded separately if a user's text would become a special token.

        Args:
            follows: whether other text comes before these pieces.
        """
        template = any(piece.template for piece in pieces)
        ids = self._encode("".join(piece.text for piece in pieces), template, follows)
        if not template:
            return ids
        texts = [piece.text for piece in pieces]
        for i in range(1, len(texts)):
            texts[i - 1], texts[i] = next(boundaries(texts[i - 1], texts[i]))
        apart: tuple[int, ...] = ()
        for text, piece in zip(texts, pieces, strict=True):
            apart += self._encode(text, piece.template, follows)
            follows = follows or bool(text)
        return ids if self._specials(ids) == self._specials(apart) else apart

    def _encode(self, text: str, template: bool, follows: bool) -> tuple[int, ...]:
        """SentencePiece tokenizers put a space before a text. So a text that follows another is encoded after
        a newline, whose ids are removed again, or after another text if the tokenizer joins the two. One that
        puts no space needs no such help."""
        for guard, before in self._guards if follows else ():
            ids = self._ids(guard + text, template)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._ids(text, template)

    def _puts_space(self) -> bool:
        alone = self._ids_or_none("Q")
        for guard, before in self._guards[::-1]:  # a newline may be a space itself
            ids = self._ids_or_none(guard + "Q")
            if ids[: len(before)] == before:
                return ids[len(before) :] != alone
        return False

    def _ids_or_none(self, text: str) -> tuple[int, ...]:
        """() if the tokenizer refuses the text."""
        try:
            return self._ids(text, template=False)
        except UnencodableError:
            return ()

    def _ids(self, text: str, template: bool) -> tuple[int, ...]:
        if not text:
            return ()
        try:
            found = self._tokenizer(text, add_special_tokens=False, split_special_tokens=not template)
        except Exception as e:  # tokenizers raises a bare Exception, for a character without a token
            problem = f"the tokenizer cannot encode it ({e})"
            raise UnencodableError(f"{shown(text)}: {problem}. {UnencodableError.advice}", problem) from e
        return tuple(found["input_ids"])

    def _specials(self, ids: tuple[int, ...]) -> list[int]:
        return [i for i in ids if i in self._special]


def find_bos(tokenizer: PreTrainedTokenizerBase, vocab_size: int, named: int | None = None) -> int | None:
    """The id of BOS: the tokenizer's own, else the id that it puts before texts, else the one in config.json.

    For a folder with only a tokenizer.json, transformers knows no BOS, or one that the model does not have.

    Args:
        vocab_size: of the model.
        named: the BOS in config.json, which may be a default value: used only if it is a special token of the
            tokenizer.

    Returns:
        None if there is none.
    """
    try:
        with_special, without = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
        put_before = with_special[0] if with_special[1 : len(without) + 1] == without else None
    except Exception:  # it has no token for an "a"
        put_before = None
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = (tokenizer.bos_token_id, put_before, named if named in special else None)
    return next((i for i in found if i is not None and i < vocab_size), None)
