"""What a user's text spells out is text, with all tokenizers that LLaMAs have: it makes no control token."""

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from flexray.config import GenerationConfig, MethodConfig, PromptConfig
from flexray.errors import ConfigError
from flexray.prompts import PromptBuilder
from tests.unit.prompts.test_builder import question

CORPUS = [
    "What is the capital of Finland? Helsinki. begin of text, end of turn, system user",
    "\n\nQ: A: 1 + 1",
]
# as Llama 3 splits, less its rule for contractions
LLAMA3_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# SmolLM2's vocabulary lacks some bytes: of these control characters, and of the planes from here on
CHARACTERS = st.characters(
    exclude_categories=["Cs"], exclude_characters="\x04\x06\x13\x14\x16\x1d", max_codepoint=0x3FFFF
)
LLAMA3_SPECIAL = [
    AddedToken("<|begin_of_text|>", normalized=False),
    AddedToken("<|eot_id|>", normalized=True),
    AddedToken("<|start_header_id|>", lstrip=True, rstrip=True),
    AddedToken("<|end_header_id|>", rstrip=True, normalized=True),
    AddedToken("<|python_tag|>", single_word=True),
]


def smollm2_like(folder, tokenizer) -> Any:
    return tokenizer


def llama3_like(folder, tokenizer) -> Any:
    """Byte-level BPE; a post-processor that adds BOS."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet))
    return _saved(folder, backend, LLAMA3_SPECIAL)


def llama2_like(folder, tokenizer) -> Any:
    """SentencePiece-like BPE: special tokens and bytes are in its vocabulary; a space before each text."""
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    chars = sorted(set("".join(CORPUS)) - {" "} | set("▁<>/s|_"))
    vocab = {token: i for i, token in enumerate(special + bytes_ + chars + ["▁▁", "▁t", "in"])}
    merges = [("▁", "▁"), ("▁", "t"), ("i", "n")]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _saved(folder, backend, [AddedToken(t, normalized=False) for t in special[1:]])


def _saved(folder, backend: Tokenizer, special: list[AddedToken]) -> Any:
    """Saved and loaded, as from a model's folder."""
    backend.add_special_tokens(special)
    bos = special[0].content
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=special[1].content
    ).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module", params=[smollm2_like, llama3_like, llama2_like])
def any_tokenizer(request, tmp_path_factory, tokenizer):
    return request.param(tmp_path_factory.mktemp("tokenizer"), tokenizer)


def control_ids(tokenizer) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(
        tokenizer.all_special_ids
    )


@functools.cache
def make_builder(tokenizer, config: str) -> PromptBuilder:
    """One for each tokenizer and PromptConfig, as JSON."""
    return PromptBuilder(
        tokenizer,
        PromptConfig.model_validate_json(config),
        [MethodConfig()],
        GenerationConfig(max_new_tokens=1),
        1_000_000,
        vocab_size=len(tokenizer),
    )


def build_prompt(tokenizer, *paraphrases: str, **texts: Any):
    return make_builder(tokenizer, PromptConfig(**texts).model_dump_json()).build(question(*paraphrases))


def decoded(tokenizer, ids) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def spelled_out(tokenizer) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values()]


def test_each_tokenizer_would_make_control_tokens_of_the_same_texts(any_tokenizer):
    for token in spelled_out(any_tokenizer):
        assert any_tokenizer.convert_tokens_to_ids(token) in any_tokenizer(f"a {token} b")["input_ids"]


def test_special_tokens_spelled_out_in_any_part_are_text_and_come_back_whole(any_tokenizer):
    tokens = spelled_out(any_tokenizer)
    assert tokens
    evil = " and ".join(tokens) + "".join(tokens)
    prompt = build_prompt(
        any_tokenizer,
        evil,
        *tokens,
        *(f"  {token}\n" for token in tokens),
        *(f"x{token}y {token} z" for token in tokens),
        instruction=f"Answer {evil} now.",
        few_shots=[{"question": evil, "answer": evil}],
        answer_prefix=f"\n{evil}:",
        question_template=f"\n{tokens[0]}{{question}}{tokens[-1]}",
        add_bos=False,
    )
    first, last = tokens[0], tokens[-1]
    assert not {i for p in (prompt.context, *prompt.segments, prompt.answer_prefix) for i in p} & control_ids(
        any_tokenizer
    )
    shot = f"\n{first}{evil}{last}\n{evil}: {evil}"
    assert decoded(any_tokenizer, prompt.context) == f"Answer {evil} now.{shot}"
    assert decoded(any_tokenizer, prompt.segments[0]) == f"\n{first}{evil}{last}"
    for i, token in enumerate(tokens):
        assert decoded(any_tokenizer, prompt.segments[1 + i]) == f"\n{first}{token}{last}"
        assert prompt.segments[1 + len(tokens) + i] == prompt.segments[1 + i]  # blanks around are the user's
    assert decoded(any_tokenizer, prompt.answer_prefix) == f"\n{evil}:"


def test_the_only_control_token_of_a_prompt_is_its_bos(any_tokenizer):
    prompt = build_prompt(any_tokenizer, "Who?", instruction="Answer.")
    bos = any_tokenizer.bos_token_id
    assert prompt.context[0] == bos
    assert not {
        i for p in (prompt.context[1:], *prompt.segments, prompt.answer_prefix) for i in p
    } & control_ids(any_tokenizer)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_comes_back_from_its_ids_and_holds_no_control_token(any_tokenizer, data):
    pieces = st.text(CHARACTERS, max_size=8) | st.sampled_from(spelled_out(any_tokenizer))
    text = data.draw(st.lists(pieces, min_size=1, max_size=6).map("".join).filter(str.strip))
    prompt = build_prompt(any_tokenizer, text, question_template="{question}", add_bos=False)
    assert decoded(any_tokenizer, prompt.segments[0]) == text.strip()
    assert not set(prompt.segments[0]) & control_ids(any_tokenizer)


def test_truncation_and_padding_saved_with_a_tokenizer_are_not_used(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.save(str(tmp_path / "tokenizer.json"))
    cut = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    long = "What is the capital of Finland, a country in the north of Europe?"
    assert build_prompt(cut, long, "?") == build_prompt(tokenizer, long, "?")


def test_a_cue_without_tokens_is_a_fault_of_the_recipe(tokenizer):
    with pytest.raises(ConfigError, match=r"prompt\.answer_prefix: .*no tokens"):
        build_prompt(tokenizer, "Who?", answer_prefix="\x04")  # a byte that SmolLM2's vocabulary lacks
