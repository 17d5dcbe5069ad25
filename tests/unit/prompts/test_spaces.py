"""A text that follows another gets no space before it, whatever the tokenizer does with line breaks."""

import string

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from flexray.prompts.encoding import TextEncoder, TextPiece

SPACES = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
FIRST = {
    "line breaks have no token": SPACES,
    "texts are stripped": [normalizers.Strip(), *SPACES],
    "a line break is a space": [normalizers.Replace(Regex(r"\s+"), " "), *SPACES],
    "line breaks are joined": SPACES,
}


def tokenizer_of(steps: list[normalizers.Normalizer], *more: str) -> PreTrainedTokenizerFast:
    """A token for each letter and sign, and tokens of two of them."""
    pieces = [*string.ascii_letters, *string.digits, *string.punctuation, "▁", *more]
    merges = [(pair[0], pair[1]) for pair in more if len(pair) == 2]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    backend.normalizer = normalizers.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("kind", FIRST)
def test_no_space_is_put_before_what_follows(kind):
    more = ["\n", "\n\n"] if kind == "line breaks are joined" else []
    tokenizer = tokenizer_of(FIRST[kind], *more, "▁Q")
    encoder = TextEncoder(tokenizer)
    first = tokenizer.convert_ids_to_tokens(encoder.encode(TextPiece("Q: a"), follows=False))
    assert first == ["▁Q", ":", "▁", "a"]
    said = tokenizer.convert_ids_to_tokens(encoder.encode(TextPiece("\nQ: a"), follows=True))
    begin = {"a line break is a space": ["▁Q"], "line breaks are joined": ["\n", "Q"]}.get(kind, ["Q"])
    if kind == "texts are stripped":  # within a text a line break is no end
        said = [token for token in said if token != "\n"]
    assert said == [*begin, ":", "▁", "a"]
    whole = tokenizer("A.\nQ: a")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(whole)[-len(said) :] == said
