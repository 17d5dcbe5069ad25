"""The asked question has the ids that it has in the whole text, as the few-shots have, with the tokenizers of
all LLaMAs; where a template makes that impossible, it is seen."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.config import PromptConfig
from flexray.config.recipe import read_recipe
from flexray.prompts.encoding import boundaries
from tests.unit.prompts.test_builder import question
from tests.unit.prompts.test_special_tokens import make_builder
from tests.unit.prompts.tokenizers import TOKENIZERS, save_tokenizer

RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"
QUESTIONS = [
    *(
        "What is the capital of Finland?",
        "who wrote it",
        "Its capital is",
        "The author (of this)",
        "1 + 1 = ?",
    ),
    *(
        'He said: "who?"',
        "It's 10%...",
        "Année 1234",
        "a  b",
        "¿Quién?!",
        "日本の首都は？",
        "/etc/hosts",
        "x\u200b",
    ),
    *("- a\n- b", "\u0301a", "🙂", "[MASK] is the capital of Finland.", "…", "''", "A:", "Q: who?\nA: me"),
]
SHOTS = [{"question": "Who?", "answer": "I"}, {"question": "it is the", "answer": "2nd"}]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PLAIN = (  # no special tokens that would keep its text and a user's apart
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
    "{{ '### answer:\n' }}"
)


@pytest.fixture(scope="module", params=TOKENIZERS)
def any_tokenizer(request: Any, tmp_path_factory: Any) -> Any:
    return save_tokenizer(tmp_path_factory.mktemp(request.param), request.param)


def shipped() -> dict[str, dict[str, Any]]:
    """The prompt of each recipe that has one, few-shots that are drawn replaced by others."""
    files = sorted(RECIPES.rglob("*.yaml"))
    found = {str(file.relative_to(RECIPES)): read_recipe([str(file)]).get("prompt") for file in files}
    return {
        name: {"few_shots": SHOTS, **{key: value for key, value in prompt.items() if key != "few_shot_data"}}
        for name, prompt in found.items()
        if prompt
    }


PROMPTS: dict[str, dict[str, Any]] = {
    **shipped(),
    "default": {},
    "instruction": {"instruction": "Answer."},
    "few-shots": {"instruction": "Answer.\n", "few_shots": SHOTS},
    "no BOS": {"few_shots": SHOTS, "add_bos": False},
    "blank lines": {
        "question_template": "\n\nQuestion:\n{question}",
        "answer_prefix": "\n\nAnswer:",
        "few_shots": SHOTS,
    },
    "indented": {"question_template": "\n  Q: {question} ", "answer_prefix": "\n  A:", "few_shots": SHOTS},
    "one line": {"question_template": " [{question}]", "answer_prefix": " =>", "few_shots": SHOTS},
    "tabs": {"question_template": "\tQ:\t{question}", "answer_prefix": "\r\nA:", "few_shots": SHOTS},
}


@pytest.mark.parametrize("name", PROMPTS)
def test_parts_have_the_ids_of_the_whole_text(any_tokenizer: Any, name: str) -> None:
    builder = make_builder(any_tokenizer, PromptConfig(**PROMPTS[name]).model_dump_json())
    for text in QUESTIONS:
        apart, whole = builder.apart_and_whole(text)
        assert apart == whole, text


def test_each_tokenizer_joins_or_adds_what_its_kind_does(any_tokenizer: Any) -> None:
    assert tuple(any_tokenizer.tokenize("A?\nA:")) in {
        ("A", "?Ċ", "A", ":"),  # Llama 3, Qwen
        ("A", "?", "Ċ", "A", ":"),  # SmolLM2
        ("▁A", "?", "<0x0A>", "A", ":"),  # Llama 2
    }


@pytest.mark.parametrize("name", ["default", "few-shots"])
def test_the_whole_text_is_tokenised_as_the_tokenizer_does_it(any_tokenizer: Any, name: str) -> None:
    config = PromptConfig(**PROMPTS[name])
    builder = make_builder(any_tokenizer, config.model_dump_json())
    shots = "".join(f"\nQ: {shot.question}\nA: {shot.answer}" for shot in config.few_shots)
    text = f"{config.instruction}{shots}\nQ: Who is it?\nA:"
    assert (
        list(builder.apart_and_whole("Who is it?")[0])
        == any_tokenizer(text, add_special_tokens=False).input_ids
    )


def test_a_newline_goes_to_the_part_before_it_only_where_a_tokenizer_joins_them(
    any_tokenizer: Any,
) -> None:
    config = PromptConfig(instruction="Answer.", few_shots=SHOTS[1:])
    builder = make_builder(any_tokenizer, config.model_dump_json())
    prompt = builder.build(question("A?"))
    segment, answer_prefix = builder.tokens(prompt.segments[0]), builder.tokens(builder.answer_prefix)
    newline = "Ċ" if "Ċ" in any_tokenizer.get_vocab() else "<0x0A>"
    if "?Ċ" in any_tokenizer.tokenize("A?\nA:"):
        assert (segment[-1], answer_prefix) == ("?Ċ", ["A", ":"])
    else:
        assert (segment[-1], answer_prefix) == ("?", [newline, "A", ":"])
    assert segment[:3] == [newline, "Q", ":"]
    assert builder.tokens(prompt.context[-1:])[0].endswith("d")


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=20) | st.text("aZ1 ?.\"'()-\n\t\r[]:/é\u00a0", max_size=20))
def test_any_question_has_the_ids_of_the_whole_text(any_tokenizer: Any, text: str) -> None:
    builder = make_builder(any_tokenizer, PromptConfig(few_shots=SHOTS).model_dump_json())
    apart, whole = builder.apart_and_whole(f"{text}.")
    assert apart == whole
    apart, whole = builder.apart_and_whole(f"a{text}")
    assert apart == whole


@pytest.mark.parametrize("template", [CHATML, INST, PLAIN], ids=["chatml", "inst", "plain"])
def test_turns_have_the_ids_of_the_whole_conversation(tmp_path: Path, template: str) -> None:
    tokenizers = {kind: save_tokenizer(tmp_path / kind, kind) for kind in TOKENIZERS}
    for (kind, tokenizer), (half, shots) in product(tokenizers.items(), enumerate(([], SHOTS))):
        tokenizer.chat_template = template
        builder = make_builder(tokenizer, PromptConfig(chat=True, few_shots=shots).model_dump_json())
        messages = [
            {"role": role, "content": text}
            for shot in shots
            for role, text in (("user", shot["question"]), ("assistant", shot["answer"]))
        ]
        for text in QUESTIONS[half::2]:  # each is a process
            turns = [*messages, {"role": "user", "content": text}]
            conversation = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            expected = tokenizer(conversation, add_special_tokens=False).input_ids
            assert list(builder.apart_and_whole(text)[0]) == expected, (kind, shots, text)


def test_a_template_that_joins_question_and_cue_is_seen(any_tokenizer: Any) -> None:
    builder = make_builder(
        any_tokenizer, PromptConfig(question_template="{question}", answer_prefix="r").model_dump_json()
    )
    apart, whole = builder.apart_and_whole("the autho")
    assert apart != whole
    assert any_tokenizer.decode(apart) == any_tokenizer.decode(whole) == "the author"


@pytest.mark.parametrize(
    ("left", "right", "first"),
    [
        ("Answer.", "\nQ: ", ("Answer.\n", "Q: ")),
        ("Answer.\n", " \n Q: ", ("Answer.\n \n", " Q: ")),
        ("?", " =>", ("?", " =>")),
        ("[INST] ", "", ("[INST]", " ")),
        ("a", "b", ("a", "b")),
        ("", "\n", ("\n", "")),
        ("", "", ("", "")),
    ],
)
def test_a_boundary_moves_behind_the_last_newline_or_before_the_last_space(left, right, first) -> None:
    found = list(boundaries(left, right))
    assert found[0] == first
    assert (left, right) in found
    assert {a + b for a, b in found} == {left + right}
