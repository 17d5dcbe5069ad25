"""Remarks about a model folder that is unusual, but can be run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flexray.errors import first_few
from flexray.models.checkpoint import GENERATION, check_checkpoint, read_eos
from flexray.models.families import read_json
from flexray.models.hub import model_folder

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import PreTrainedTokenizerBase

NO_TOKEN = -1
"""Means no token where an id is required."""
UNREAD: dict[str, tuple[object, ...]] = {
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "bad_words_ids": (None, []),
    "sequence_bias": (None, {}, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "repetition_penalty": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "min_new_tokens": (None, 0),
    "min_length": (None, 0),
    "num_beams": (None, 1),
    "guidance_scale": (None, 1),
}
"""Keys of generation_config.json that change a greedy answer, and the values with which they do not."""
FEW = 0.9
"""Share of the vocabulary: a tokenizer with fewer tokens may be another model's. Padding adds less."""


def remark(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Sentences that a user should read before a run with this model and tokenizer; none if all is usual.

    Raises:
        ModelError: as `check_checkpoint`.
    """
    folder = model_folder(path)
    config = check_checkpoint(folder)
    found = []
    if read_json(folder / "config.json").get("tie_word_embeddings") and not config.tie_word_embeddings:
        found.append(
            f"{folder}: config.json has tie_word_embeddings: true, but the files hold a head "
            "(lm_head.weight), and that is used. If it is not meant, remove it from the files."
        )
    found += _of_generation(folder)
    found += _of_eos(folder, tokenizer, config.vocab_size)
    found += _of_size(folder, tokenizer, config.vocab_size)
    return found


def _of_generation(folder: Path) -> list[str]:
    file = folder / GENERATION
    tree = read_json(file) if file.is_file() else {}
    unread = sorted(key for key, value in tree.items() if key in UNREAD and value not in UNREAD[key])
    if not unread:
        return []
    verb = "is" if len(unread) == 1 else "are"
    return [
        f"{file}: {', '.join(unread)} {verb} not applied: only EOS of it is read. What generation.* and "
        "methods offer can be set in the recipe."
    ]


def _of_eos(folder: Path, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    own = tokenizer.eos_token_id
    named = {**read_eos(folder), "the tokenizer": [] if own is None else [own]}
    found = []
    for i in sorted({i for ids in named.values() for i in ids if i != NO_TOKEN and not 0 <= i < vocabulary}):
        places = " and ".join(place for place, ids in named.items() if i in ids)
        found.append(
            f"{folder}: the EOS {i} ({places}) is none of the vocabulary's {vocabulary:,} tokens, which are "
            "counted from 0: it never comes."
        )
    if not any(0 <= i < vocabulary for ids in named.values() for i in ids):
        found.append(
            f"{folder}: no EOS is named that could come: an answer ends at generation.max_new_tokens, or "
            "with generation.stop_at_newline at its first line break."
        )
    return found


def _of_size(folder: Path, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    found = []
    known = tokenizer.get_vocab()
    if len(known) < FEW * vocabulary:
        found.append(
            f"{folder}: the tokenizer has {len(known):,} tokens, and the model {vocabulary:,}: is it another "
            "model's? Copy both from the same checkpoint."
        )
    beyond = sorted((i, token) for token, i in known.items() if i >= vocabulary)
    if beyond:
        shown = first_few(f"{token!r:.40} ({i})" for i, token in beyond)
        found.append(
            f"{folder}: {len(beyond)} of the tokenizer's {len(known):,} tokens are beyond the model's "
            f"{vocabulary:,} embeddings: {shown}. A row with one of them is an error row. Copy both from the "
            "same checkpoint."
        )
    return found
