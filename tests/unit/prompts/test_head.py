"""The head that the template puts before every paraphrase: the same tokens in all rows, or it is none."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from flexray.prompts.prompt import Prompt
from tests.unit.prompts.test_special_tokens import build_prompt
from tests.unit.prompts.tokenizers import TOKENIZERS, save_tokenizer

QUESTIONS = ["What is it?", "the author of", "1 + 1 = ?", "(this) is", "¿Quién?", "日本の首都は？", "🙂"]


@pytest.fixture(scope="module", params=TOKENIZERS)
def any_tokenizer(request: Any, tmp_path_factory: Any) -> Any:
    return save_tokenizer(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("shots", [(), ({"question": "Who?", "answer": "Me"},)], ids=["no shots", "shots"])
def test_with_every_tokenizer_it_is_the_template_s_text_before_the_question(any_tokenizer, shots):
    prompt = build_prompt(any_tokenizer, *QUESTIONS, few_shots=shots)
    heads = {segment[: prompt.num_head] for segment in prompt.segments}
    assert len(heads) == 1
    assert prompt.num_head >= 2
    assert any_tokenizer.decode(heads.pop()).strip() == "Q:"
    assert all(build_prompt(any_tokenizer, q, few_shots=shots).num_head == prompt.num_head for q in QUESTIONS)


def test_a_template_that_begins_with_the_question_has_none(any_tokenizer):
    assert build_prompt(any_tokenizer, *QUESTIONS, question_template="{question}\n").num_head == 0


def tokenizer_that_joins(*pair: str) -> PreTrainedTokenizerFast:
    """Bytes, and one token of two."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "".join(pair)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [pair]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_a_row_whose_question_the_tokenizer_joins_with_it_is_without():
    tokenizer, template = tokenizer_that_joins(":", "-"), {"question_template": "\nQ:{question}"}
    assert build_prompt(tokenizer, "Who?", "me", **template).num_head == 3
    assert build_prompt(tokenizer, "-1?", "me", **template).num_head == 0


def test_a_letter_that_the_tokenizer_joins_with_it_is_seen_before_any_row_is_read():
    tokenizer, template = tokenizer_that_joins(":", "("), {"question_template": "\nQ:{question}"}
    assert build_prompt(tokenizer, "Who?", "me", **template).num_head == 2


@pytest.mark.parametrize("segments", [((1, 2, 3), (1, 3, 3)), ((1, 2, 3), (1, 2))])
def test_a_prompt_refuses_a_head_that_is_not_before_all_paraphrases(segments):
    with pytest.raises(ValueError, match="begin with the same head"):
        Prompt((9,), segments, (8,), num_head=2)
