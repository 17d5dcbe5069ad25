"""Few-shots in several paraphrases have the ids that they have when one of these is asked alone."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from flexray.config import GenerationConfig, MethodConfig, PromptConfig
from flexray.errors import ConfigError, RowFault
from flexray.prompts import PromptBuilder
from flexray.prompts.prompt import Prompt
from tests.unit.prompts.test_boundaries import INST, PLAIN
from tests.unit.prompts.test_builder import question
from tests.unit.prompts.test_special_tokens import build_prompt, make_builder
from tests.unit.prompts.tokenizers import save_tokenizer

PLAIN_SHOT = {"question": "Which?", "answer": "This."}
SHOTS = [
    {"question": "Who?", "answer": "I", "paraphrases": ["it is by"]},
    PLAIN_SHOT,
    {"question": "it is the", "answer": "2nd", "paraphrases": ["Which (of these)?", " which one: ", "..."]},
    {"question": "Is it?", "answer": "Yes.", "paraphrases": ["1 + 1"]},
]
PROMPTS: dict[str, dict[str, Any]] = {
    "instruction": {"instruction": "Answer."},
    "blank lines": {
        "instruction": "Answer.\n",
        "question_template": "\n\nQuestion:\n{question}",
        "answer_prefix": "\n\nAnswer:",
    },
    "one line": {"question_template": " [{question}]", "answer_prefix": " =>", "add_bos": False},
}


@pytest.fixture(scope="module", params=["real", "llama2", "llama3"])
def any_tokenizer(request: Any, tmp_path_factory: Any, tokenizer: Any) -> Any:
    if request.param == "real":
        return tokenizer
    return save_tokenizer(tmp_path_factory.mktemp(request.param), request.param)


def texts_of(shot: dict[str, Any]) -> list[str]:
    return [shot["question"], *shot.get("paraphrases", [])]


def alone(shots: list[dict[str, Any]], chosen: tuple[int, ...]) -> list[dict[str, Any]]:
    """The few-shots, each asked in one of its paraphrases."""
    return [
        {"question": texts_of(shot)[number], "answer": shot["answer"]}
        for shot, number in zip(shots, chosen, strict=True)
    ]


def of_one_each(prompt: Prompt, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """The ids of the context with one paraphrase of each few-shot that has several."""
    ids, end = (), 0
    for bounds, number in zip(prompt.few_shots, chosen, strict=True):
        ids += prompt.context[end : bounds[0]] + prompt.context[slice(*list(pairwise(bounds))[number])]
        end = bounds[-1]
    return ids + prompt.context[end:]


def check(tokenizer: Any, shots: list[dict[str, Any]], **keys: Any) -> None:
    prompt = build_prompt(tokenizer, "Where?", few_shots=shots, **keys)
    several = [i for i, shot in enumerate(shots) if "paraphrases" in shot]
    assert [len(bounds) - 1 for bounds in prompt.few_shots] == [len(texts_of(shots[i])) for i in several]
    for number in range(max(len(texts_of(shot)) for shot in shots)):
        chosen = tuple(number % len(texts_of(shot)) for shot in shots)
        expected = build_prompt(tokenizer, "Where?", few_shots=alone(shots, chosen), **keys)
        assert of_one_each(prompt, tuple(chosen[i] for i in several)) == expected.context, chosen
    assert (prompt.segments, prompt.answer_prefix) == (expected.segments, expected.answer_prefix)


@pytest.mark.parametrize("name", PROMPTS)
def test_each_paraphrase_has_the_ids_that_it_has_alone(any_tokenizer: Any, name: str) -> None:
    check(any_tokenizer, SHOTS, **PROMPTS[name])
    apart, whole = make_builder(
        any_tokenizer, PromptConfig(few_shots=SHOTS, **PROMPTS[name]).model_dump_json()
    ).apart_and_whole("Where is it?")
    assert apart == whole


@pytest.mark.parametrize("template", [None, INST, PLAIN], ids=["own", "inst", "plain"])
def test_each_paraphrase_has_the_ids_that_it_has_alone_in_turns(
    tmp_path: Path, tokenizer: Any, template: str | None
) -> None:
    tokenizers = [tokenizer] if template is None else []
    for kind in ("llama2", "llama3") if template else ():
        tokenizers.append(save_tokenizer(tmp_path / kind, kind))
        tokenizers[-1].chat_template = template
    for one in tokenizers:
        check(one, [SHOTS[0], PLAIN_SHOT, SHOTS[3]], chat=True)


def test_in_turns_what_the_template_writes_is_the_context_s(tokenizer: Any) -> None:
    prompt = build_prompt(tokenizer, "Where?", few_shots=SHOTS[:1], chat=True)
    ((start, middle, stop),) = prompt.few_shots
    assert tokenizer.decode(prompt.context[:start]).endswith("<|im_start|>user\n")
    assert tokenizer.decode(prompt.context[start:middle]) == "Who?"
    assert tokenizer.decode(prompt.context[middle:stop]) == "it is by"
    assert tokenizer.decode(prompt.context[stop:]).startswith(
        "<|im_end|>\n<|im_start|>assistant\nI<|im_end|>"
    )


def test_the_boundaries_are_those_of_a_row(tokenizer: Any) -> None:
    prompt = build_prompt(tokenizer, "Who?", "it is by", few_shots=SHOTS[:1], instruction="Answer.")
    assert [tuple(prompt.context[a:b]) for a, b in pairwise(prompt.few_shots[0])] == [*prompt.segments]
    answer = prompt.context[prompt.few_shots[0][-1] :]
    assert answer[: len(prompt.answer_prefix)] == prompt.answer_prefix


def test_a_template_that_moves_turns_is_refused_for_paraphrases_only(tokenizer: Any, tmp_path: Path) -> None:
    moved = save_tokenizer(tmp_path / "smollm2", "smollm2")
    moved.chat_template = (
        "{% for role in ('assistant', 'user') %}{% for m in messages if m.role == role %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}{% endfor %}[assistant]"
    )
    build_prompt(moved, "Where?", few_shots=[PLAIN_SHOT], chat=True)
    with pytest.raises(ConfigError, match="template moves turns, but a few-shot must be answered behind its"):
        build_prompt(moved, "Where?", few_shots=SHOTS[:1], chat=True)


def test_an_empty_paraphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither the question nor one of them may be empty"):
        PromptConfig(few_shots=[{"question": "a", "answer": "b", "paraphrases": [" "]}])
    deaf = save_tokenizer(tmp_path / "smollm2", "smollm2")
    deaf.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    shots = [{"question": "a", "answer": "b", "paraphrases": ["~"]}]
    with pytest.raises(ConfigError, match=r"the paraphrase '~' of 'a' has no tokens\. Write it out"):
        build_prompt(deaf, "Where?", few_shots=shots, question_template="{question}")


@pytest.mark.parametrize("positions", ["restart", "continuous"])
def test_paraphrases_side_by_side_take_the_positions_of_the_longest(tokenizer: Any, positions: str) -> None:
    config = PromptConfig(few_shots=SHOTS)
    made = build_prompt(tokenizer, "Where?", few_shots=SHOTS)
    needed = made.num_tokens + 1
    if positions == "restart":
        assert made.num_beside == sum(
            sum(lengths) - max(lengths)
            for lengths in ([b - a for a, b in pairwise(bounds)] for bounds in made.few_shots)
        )
        needed -= made.num_beside

    def build(max_positions: int) -> Prompt:
        methods = [MethodConfig(positions=positions)]
        builder = PromptBuilder(
            tokenizer,
            config,
            methods,
            GenerationConfig(max_new_tokens=1),
            max_positions,
            vocab_size=len(tokenizer),
        )
        return builder.build(question("Where?"))

    assert build(needed) == made
    with pytest.raises(RowFault, match=f"{needed} positions are needed"):
        build(needed - 1)
