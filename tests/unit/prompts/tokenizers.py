"""Small tokenizers that split and join text as those of the LLaMAs do, trained on a text of their own."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TEXT = [
    f"Answer each question.\n\n{cue}: {start} the {thing} of it{end}\n{answer}: It is the {thing}{end}\n"
    for cue, answer in (
        ("Q", "A"),
        ("Question", "Answer"),
        ("Sentence", "[MASK] is"),
        ("Question", "In words"),
    )
    for start in ("What is", "who was", "1 + 1 or", '"Where" is', "(it's)")
    for thing in ("capital", "author", "symbol 10%", "main language")
    for end in ("?", ".", '"', "?)", "", "...", " 1234", "!")
]
BOS = "<|begin_of_text|>"
# as published with the models
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def llama3() -> Tokenizer:
    """Joins a newline with punctuation before it."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    backend.pre_tokenizer = _split_by(LLAMA3)
    return _trained(backend)


def qwen2() -> Tokenizer:
    """As Llama 3, with single digits and composed characters."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _split_by(QWEN2)
    return _trained(backend)


def smollm2() -> Tokenizer:
    """Single digits, and GPT-2's rule, which joins a newline with white space only."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return _trained(backend)


def llama2() -> Tokenizer:
    """SentencePiece, as published at first: a space before each text, which is not split at all."""
    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _trained_as_sentencepiece(backend)


def llama2_not_legacy() -> Tokenizer:
    """SentencePiece, as published later: a space before the first piece of a text."""
    backend = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _trained_as_sentencepiece(backend)


TOKENIZERS = {make.__name__: make for make in (llama3, qwen2, smollm2, llama2, llama2_not_legacy)}


def save_tokenizer(folder: Path, kind: str) -> Any:
    """Save a tokenizer as a model's folder has it, and load it."""
    backend = TOKENIZERS[kind]()
    special = [BOS, "</s>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    saved = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token="</s>")
    saved.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _trained(backend: Tokenizer) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _trained_as_sentencepiece(backend: Tokenizer) -> Tokenizer:
    """Without newlines, which SentencePiece sees as ends of its texts: they are bytes of the vocabulary."""
    known = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = [line for text in TEXT for line in text.splitlines()]
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    words.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=600, special_tokens=known, show_progress=False)
    )
    backend.model = models.BPE(
        words.get_vocab(),
        [tuple(merge) for merge in _merges(words)],
        byte_fallback=True,
        fuse_unk=True,
        unk_token="<unk>",
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


def _merges(backend: Tokenizer) -> list[list[str]]:
    return json.loads(backend.to_str())["model"]["merges"]
