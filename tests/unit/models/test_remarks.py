"""What is odd about a model folder that can be run is said, and what ends its answers is known."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import LlamaConfig

from flexray.engine.stopping_criteria import make_stopping_criteria
from flexray.errors import ModelError
from flexray.models.checkpoint import check_checkpoint, load_model, load_tokenizer
from flexray.models.remarks import remark
from tests.random_models import VOCAB, save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    def save(**changes):
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        return save_model(
            tmp_path_factory.mktemp("model"), LlamaConfig(**{"vocab_size": VOCAB, **sizes, **changes})
        )

    return save


@pytest.fixture(scope="module")
def plain(saved):
    return saved()


@pytest.fixture
def folder(plain, tmp_path):
    return Path(shutil.copytree(plain, tmp_path / "model"))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def remarks(folder):
    return remark(folder, load_tokenizer(folder))


def test_of_a_model_that_fits_its_tokenizer_there_is_nothing_to_say(plain):
    assert remarks(plain) == []


@pytest.mark.parametrize("eos", [VOCAB, -7, [VOCAB]])
def test_an_eos_beyond_the_vocabulary_is_named_with_its_file_and_never_comes(folder, eos):
    edit(folder / "generation_config.json", eos_token_id=eos)
    number = eos[0] if isinstance(eos, list) else eos
    (said,) = remarks(folder)
    assert f"the EOS {number} (generation_config.json) is none of the vocabulary's 256 tokens" in said
    model, tokenizer = load_model(folder, device="cpu")
    assert make_stopping_criteria(model, tokenizer, at_newline=False).stop_ids() == {2}  # those of the others


def test_what_is_not_applied_of_a_generation_config_is_told(folder):
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "suppress_tokens": None, "temperature": 0.6}
    edit(folder / "generation_config.json", **neutral)
    assert remarks(folder) == []
    edit(folder / "generation_config.json", repetition_penalty=1.1, suppress_tokens=[5])
    (said,) = remarks(folder)
    assert "generation_config.json: repetition_penalty, suppress_tokens are not applied" in said


@pytest.mark.parametrize("eos", [-1, None, [], [-1]])
def test_an_eos_that_stands_for_none_ends_nothing(folder, eos):
    edit(folder / "config.json", eos_token_id=eos)
    edit(folder / "generation_config.json", eos_token_id=eos)
    assert remarks(folder) == []  # the tokenizer names one
    edit(folder / "tokenizer_config.json", eos_token=None)
    (said,) = remarks(folder)
    assert "no EOS is named that could come" in said
    model, tokenizer = load_model(folder, device="cpu")
    assert make_stopping_criteria(model, tokenizer, at_newline=False).stop_ids() == set()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"eos_token_id": [1,', "cannot be read as JSON"),
        ("[2]", "a JSON object is expected, found list"),
        ('{"eos_token_id": "</s>"}', "eos_token_id is '</s>'; it has to be a token's id"),
        ('{"eos_token_id": true}', "eos_token_id is True"),
        ('{"eos_token_id": 2.0}', r"eos_token_id is 2\.0"),
        ('{"eos_token_id": [2, [3]]}', r"eos_token_id is \[2, \[3\]\]"),
    ],
)
def test_a_broken_generation_config_is_refused(folder, content, reason):
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ModelError, match=rf"generation_config\.json: .*{reason}"):
        check_checkpoint(folder)


def test_of_a_generation_config_only_the_eos_counts(folder):
    content = {
        "eos_token_id": [1, 4],
        "max_new_tokens": -1,
        "temperature": "hot",
        "cache_implementation": "x",
    }
    (folder / "generation_config.json").write_text(json.dumps(content))
    model, _ = load_model(folder, device="cpu")
    assert model.generation_config.eos_token_id == [1, 4]


@pytest.mark.parametrize("pad", [VOCAB, -1, -300])
def test_a_padding_token_is_not_asked_for(folder, pad):
    edit(folder / "config.json", pad_token_id=pad)
    load_model(folder, device="cpu")
    assert remarks(folder) == []


def test_a_tokenizer_of_another_vocabulary_is_told_with_both_numbers(saved):
    (few,) = remarks(saved(vocab_size=2 * VOCAB))
    assert "the tokenizer has 256 tokens, and the model 512" in few
    (many,) = remarks(saved(vocab_size=VOCAB - 2))
    assert "2 of the tokenizer's 256 tokens are beyond the model's 254 embeddings: " in many
    assert "(254)" in many
    assert "(255)" in many


def test_a_vocabulary_that_is_padded_is_nothing_odd(saved):
    assert remarks(saved(vocab_size=VOCAB + 16)) == []


def test_a_head_beside_a_config_that_ties_it_is_told(folder):
    edit(folder / "config.json", tie_word_embeddings=True)
    (said,) = remarks(folder)
    assert "tie_word_embeddings: true, but the files hold a head" in said
