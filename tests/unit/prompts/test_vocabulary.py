"""BOS is found wherever a folder names it, and no token that the model does not know reaches it."""

import dataclasses
import json
import string
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from flexray.config import GenerationConfig, MethodConfig, PromptConfig, parse_config
from flexray.errors import ConfigError, ModelError, RowFault
from flexray.pipeline.prepare import prompt_builder
from flexray.prompts import PromptBuilder
from tests.tiny_model import save_tiny_model
from tests.unit.prompts.test_builder import question
from tests.unit.prompts.tokenizers import BOS, save_tokenizer

CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[answer]"


@pytest.fixture
def folder(tmp_path: Any) -> Any:
    """A model with a tokenizer of Llama 3's kind, and its BOS."""
    saved = save_tokenizer(tmp_path, "llama3")
    return save_tiny_model(tmp_path, saved)


def builder_of(folder: Any, **prompt: Any) -> PromptBuilder:
    tree = {"output": "o", "model": {"path": str(folder)}, "data": {"name": "d", "files": "d.jsonl"}}
    return prompt_builder(parse_config({**tree, "prompt": prompt}, source="test"))


def edit(file: Any, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def leave_tokenizer_json_alone(folder: Any) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):  # the latter by transformers 4
        (folder / name).unlink(missing_ok=True)


def begin(builder: PromptBuilder) -> str:
    return builder.tokens(builder.context[:1])[0]


def put_before_texts(folder: Any, token: str) -> None:
    """Let tokenizer.json's post-processor do it."""
    text = (folder / "tokenizer.json").read_text()
    (token_id,) = [added["id"] for added in json.loads(text)["added_tokens"] if added["content"] == token]
    template = processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])
    edit(folder / "tokenizer.json", post_processor=json.loads(template.__getstate__()))


def test_bos_is_the_one_that_tokenizer_json_puts_before_texts(folder):
    put_before_texts(folder, BOS)
    leave_tokenizer_json_alone(folder)
    edit(folder / "config.json", bos_token_id=None)
    builder = builder_of(folder, instruction="Answer.")
    assert begin(builder) == BOS
    assert not builder.lacks_bos


def test_bos_is_the_one_that_config_json_names_where_the_tokenizer_says_nothing(folder):
    leave_tokenizer_json_alone(folder)
    assert begin(builder_of(folder, instruction="Answer.")) == BOS


def test_a_bos_that_config_json_names_is_not_taken_from_a_tokenizer_that_says_it_has_none(folder):
    edit(folder / "tokenizer_config.json", bos_token=None)
    builder = builder_of(folder, instruction="Answer.")
    assert begin(builder) != BOS
    assert builder.lacks_bos


def test_a_bos_of_config_json_that_is_an_ordinary_token_is_not_taken(folder):
    leave_tokenizer_json_alone(folder)
    edit(folder / "config.json", bos_token_id=5)
    assert builder_of(folder, instruction="Answer.").lacks_bos


def test_a_chat_template_writes_the_bos_that_was_found(folder):
    leave_tokenizer_json_alone(folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    builder = builder_of(folder, chat=True)
    assert begin(builder) == BOS
    assert builder.context.count(builder.context[0]) == 1


def test_a_tokenizer_without_bos_gives_none(folder):
    edit(folder / "tokenizer_config.json", bos_token=None)
    builder = builder_of(folder, question_template="{question}")
    assert builder.context == ()
    assert not builder_of(folder, add_bos=False).lacks_bos


UNKNOWN = "<think>"


@pytest.fixture
def builder_with_unknown(folder: Any) -> Any:
    """Makes a builder for a model that has no embedding of the tokenizer's last token."""
    tokenizer = save_tokenizer(folder, "llama3")
    size = len(tokenizer)
    tokenizer.add_tokens([UNKNOWN])
    assert tokenizer.convert_tokens_to_ids(UNKNOWN) == size

    def make(template: str | None = None, **prompt: Any) -> PromptBuilder:
        tokenizer.chat_template = template
        texts, methods, generation = PromptConfig(**prompt), [MethodConfig()], GenerationConfig()
        return PromptBuilder(tokenizer, texts, methods, generation, 2048, vocab_size=size)

    return make


def test_a_token_that_the_model_does_not_know_is_a_fault_of_its_row(builder_with_unknown):
    builder = builder_with_unknown()
    builder.build(question("Who?"))
    with pytest.raises(RowFault) as fault:
        builder.build(question("Who?", f"Who {UNKNOWN} else?"))
    message = str(fault.value)
    assert message.startswith("a.jsonl, row 7, field 'paraphrases': the token '<think>' (id ")
    assert "is unknown to the model, whose vocabulary has " in message
    assert "Who <think> else?" in message


def refusing() -> PreTrainedTokenizerFast:
    """A tokenizer that raises for a character without a token."""
    pieces = sorted({*string.printable, "▁"})
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=None))
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_a_text_that_the_tokenizer_refuses_is_a_fault_of_its_row():
    tokenizer = refusing()
    texts, methods, generation = PromptConfig(), [MethodConfig()], GenerationConfig(candidates="row")
    builder = PromptBuilder(tokenizer, texts, methods, generation, 2048, vocab_size=len(tokenizer))
    good = dataclasses.replace(question("Who?", "Where?"), candidates=("I",))
    assert builder.build(good)
    for bad, field in (
        ({"paraphrases": ("Who?", "東京?")}, "paraphrases"),
        ({"candidates": ("東",)}, "candidates"),
    ):
        with pytest.raises(RowFault) as fault:
            builder.build(dataclasses.replace(good, **bad))
        message = str(fault.value)
        assert message.startswith(f"a.jsonl, row 7, field '{field}': the tokenizer cannot encode it (")
        assert "東" in message
        assert "unk_token" in message


def test_what_all_prompts_share_must_be_encodable():
    tokenizer = refusing()
    texts = PromptConfig(instruction="東京")
    with pytest.raises(ModelError, match=r"'東京.*: the tokenizer cannot encode it"):
        PromptBuilder(tokenizer, texts, [MethodConfig()], GenerationConfig(), 2048, vocab_size=len(tokenizer))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("instruction", f"Answer {UNKNOWN}."),
        ("few_shots", [{"question": f"Who{UNKNOWN}?", "answer": "I"}]),
        ("few_shots", [{"question": "Who?", "answer": UNKNOWN}]),
        ("question_template", f"\n{UNKNOWN}Q: {{question}}"),
        ("answer_prefix", f"\nA:{UNKNOWN}"),
    ],
)
def test_such_a_token_in_what_all_prompts_share_is_refused(builder_with_unknown, key, value):
    with pytest.raises(ConfigError, match=rf"prompt\.{key}: the token '<think>' .* is unknown to the model"):
        builder_with_unknown(**{key: value})


def test_such_a_token_in_a_chat_template_is_refused(builder_with_unknown):
    builder_with_unknown(CHAT, chat=True)
    with pytest.raises(ConfigError, match=r"prompt\.chat: the token '<think>' .* is unknown to the model"):
        builder_with_unknown(CHAT + UNKNOWN, chat=True)
