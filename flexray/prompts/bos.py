"""The token that texts begin with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase


def find_bos(tokenizer: PreTrainedTokenizerBase, vocab_size: int, named: int | None = None) -> int | None:
    """The id of BOS: the tokenizer's own, else what it puts before texts, else what config.json names.

    A folder may have tokenizer.json alone, which says no more than what is put before texts; transformers
    then knows of no BOS, or of one that the model has not.

    Args:
        vocab_size: ids of the model are below it.
        named: taken only if it is one of the tokenizer's special tokens: config.json may name one by default.

    Returns:
        None: there is none.
    """
    with_special, without = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
    put_before = with_special[0] if with_special[1 : len(without) + 1] == without else None
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = (tokenizer.bos_token_id, put_before, named if named in special else None)
    return next((i for i in found if i is not None and i < vocab_size), None)
