"""What ends an answer, and the text that is left of it."""

import json
import shutil
from types import SimpleNamespace

import pytest
from transformers import PreTrainedTokenizerFast

from flexray.engine.stopping_criteria import answer_text, make_stopping_criteria, token_text
from tests.random_models import ByteTokenizer
from tests.unit.prompts.tokenizers import TOKENIZERS, save_tokenizer


def rule(*, at_newline=True, generation=None, config=None, tokenizer=2):
    """Of a model of 300 tokens with these ids of EOS, and a tokenizer that knows 256 bytes."""
    model = SimpleNamespace(
        config=SimpleNamespace(vocab_size=300, eos_token_id=config),
        generation_config=SimpleNamespace(eos_token_id=generation),
    )
    bytes_ = ByteTokenizer()
    bytes_.eos_token_id = tokenizer
    return make_stopping_criteria(model, bytes_, at_newline=at_newline)


def test_the_eos_of_model_generation_and_tokenizer_all_stop():
    found = rule(at_newline=False, generation=[5, 6], config=7, tokenizer=2)
    assert found.stop_ids() == {2, 5, 6, 7}
    assert [found.reason([i]) for i in (5, 7, 10)] == ["eos", "eos", "length"]


def test_an_eos_that_the_vocabulary_does_not_have_never_comes():
    assert rule(at_newline=False, generation=[-1, 300, 5], config=-1, tokenizer=10**9).stop_ids() == {5}


def test_a_token_with_a_newline_stops_only_if_asked_and_tokens_of_no_text_never():
    found = rule()
    assert found.stop_ids() == {2, 10}
    assert found.reason([10]) == "newline"
    assert found.any.shape == (300,)
    assert rule(at_newline=False).stop_ids() == {2}


def test_a_newline_that_is_eos_is_called_eos():
    assert rule(tokenizer=10).reason([10]) == "eos"


@pytest.mark.parametrize(("at_newline", "text"), [(True, "Rome"), (False, "Rome\nIt is")])
def test_the_text_is_cut_at_the_first_newline_if_asked_without_special_tokens(tokenizer, at_newline, text):
    ids = [*tokenizer.encode(" Rome\nIt is"), tokenizer.eos_token_id]
    assert answer_text(tokenizer, ids, at_newline=at_newline) == text


def test_a_text_keeps_its_spaces_though_the_tokenizer_would_have_them_cleaned_up(smollm2, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(smollm2 / name, tmp_path)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    told["clean_up_tokenization_spaces"] = True
    told["clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"] = True
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    cleaning = PreTrainedTokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    text = "x != y , z . do n't"
    ids = cleaning.encode(text, add_special_tokens=False)
    assert cleaning.decode(ids) != text
    assert answer_text(cleaning, ids, at_newline=True) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_texts_of_tokens_one_by_one_are_the_text(kind, tmp_path):
    sentence = save_tokenizer(tmp_path, kind)
    ids = sentence.encode("Who is  it?\nA: the author", add_special_tokens=False)
    assert "".join(token_text(sentence, i) for i in ids).lstrip(" ") == "Who is  it?\nA: the author"
