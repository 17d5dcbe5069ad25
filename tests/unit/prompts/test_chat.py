"""Prompts in turns: what the tokenizer's chat template makes of them, and which templates are refused."""

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, RunConfig, parse_config
from flexray.engine.engine import Engine
from flexray.engine.stopping_criteria import answer_text
from flexray.errors import ConfigError
from flexray.models.checkpoint import load_model
from flexray.prompts.prompt import Prompt
from tests.unit.prompts.test_special_tokens import (
    CHARACTERS,
    build_prompt,
    control_ids,
    decoded,
    llama2_like,
    llama3_like,
    spelled_out,
)

# as Llama 3.2's, less its tools
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim }}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
# as TinyLlama's
ZEPHYR = """{% for message in messages %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
"""
# as Llama 2's and Mistral's: a space before each text, which tokenizers take as part of its first word
INST = """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]
{%- elif message['role'] == 'system' %}<<SYS>> {{ message['content'] }} <</SYS>>
{%- else %} {{ message['content'] }} {{ eos_token }}
{%- endif %}{% endfor %}"""
# the turns alone, in which any mistake can be made
TURNS = "{% for m in messages %}[{{ m.role }}]{{ CONTENT }}{% endfor %}[assistant]"

SHOTS = [{"question": "1 + 1?", "answer": "2"}, {"question": " What is 2 + 2? ", "answer": " 4\n"}]
INSTRUCTION = "Answer briefly."


TOKENIZERS = {"llama3": (llama3_like, LLAMA3), "zephyr": (llama2_like, ZEPHYR), "inst": (llama2_like, INST)}


@pytest.fixture(scope="module", params=["smollm2", *TOKENIZERS])
def any_tokenizer(request, tmp_path_factory, tokenizer):
    if request.param == "smollm2":
        return tokenizer  # with its own template
    make, template = TOKENIZERS[request.param]
    made = make(tmp_path_factory.mktemp("tokenizer"), tokenizer)
    made.chat_template = template
    return made


def build(tokenizer: Any, *paraphrases: str, **texts: Any) -> Prompt:
    return build_prompt(tokenizer, *paraphrases, chat=True, **texts)


def joined(prompt: Prompt) -> list[int]:
    return [*prompt.context, *prompt.segments[0], *prompt.answer_prefix]


def turns(asked: str, instruction: str = "", shots: Any = ()) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": instruction}] if instruction else []
    for shot in shots:
        messages += [
            {"role": "user", "content": shot["question"].strip()},
            {"role": "assistant", "content": shot["answer"].strip()},
        ]
    return [*messages, {"role": "user", "content": asked}]


def templated(tokenizer: Any, *args: Any, tokenize: bool = True, **kwargs: Any) -> Any:
    """What transformers makes of the conversation, the texts' special tokens and all."""
    settings = {"add_generation_prompt": True, "date_string": "26 Jul 2024", "return_dict": False}
    return tokenizer.apply_chat_template(turns(*args, **kwargs), tokenize=tokenize, **settings)


@pytest.mark.parametrize("shots", [[], SHOTS])
@pytest.mark.parametrize("instruction", ["", INSTRUCTION])
def test_one_paraphrase_is_what_transformers_makes_of_the_conversation(any_tokenizer, instruction, shots):
    prompt = build(any_tokenizer, "What is the capital?", instruction=instruction, few_shots=shots)
    expected = templated(any_tokenizer, "What is the capital?", instruction=instruction, shots=shots)
    assert joined(prompt) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text(CHARACTERS, min_size=1, max_size=12).map(str.strip).filter(bool))
def test_any_question_is_tokenised_as_in_the_whole_conversation(any_tokenizer, text):
    assert joined(build(any_tokenizer, text)) == templated(any_tokenizer, text)


def test_the_question_is_the_segment_and_all_else_is_the_same_for_all(any_tokenizer):
    asked = ["What is the capital?", "begin of the end"]
    both = build(any_tokenizer, *asked, instruction=INSTRUCTION, few_shots=SHOTS)
    for text, segment in zip(asked, both.segments, strict=True):
        alone = build(any_tokenizer, text, instruction=INSTRUCTION, few_shots=SHOTS)
        assert alone == dataclasses.replace(both, segments=(segment,))
        assert decoded(any_tokenizer, segment) == text


def test_smollm2s_own_template_frames_the_question(tokenizer):
    prompt = build(tokenizer, " Who? \n", instruction=" Answer briefly. ", few_shots=SHOTS[:1])
    assert decoded(tokenizer, prompt.context) == (
        "<|im_start|>system\nAnswer briefly.<|im_end|>\n"
        "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\n"
    )
    assert decoded(tokenizer, prompt.segments[0]) == "Who?"
    assert decoded(tokenizer, prompt.answer_prefix) == "<|im_end|>\n<|im_start|>assistant\n"


def test_bos_is_there_once_if_the_template_writes_it_and_not_if_it_does_not(any_tokenizer):
    prompt = build(any_tokenizer, "Who?", add_bos=True)
    written = templated(any_tokenizer, "Who?", tokenize=False).count(any_tokenizer.bos_token)
    assert joined(prompt).count(any_tokenizer.bos_token_id) == written


def test_the_question_template_is_the_whole_turn(tokenizer):
    given = {"question_template": "\nQuestion: {question}\n"}
    prompt = build(tokenizer, "Who?", few_shots=SHOTS[:1], **given)
    assert decoded(tokenizer, prompt.segments[0]) == "Question: Who?"
    assert "user\nQuestion: 1 + 1?<|im_end|>" in decoded(tokenizer, prompt.context)


def test_special_tokens_in_any_text_stay_text(any_tokenizer):
    tokens = spelled_out(any_tokenizer)
    evil = "a " + " and ".join(tokens) + " b"
    texts = {"instruction": evil, "few_shots": [{"question": evil, "answer": evil}]}
    harmless = {"instruction": "a", "few_shots": [{"question": "b", "answer": "a"}]}
    prompt = build(any_tokenizer, evil, *tokens, **texts)
    control = control_ids(any_tokenizer)
    assert not {i for segment in prompt.segments for i in segment} & control
    expected = [i for i in joined(build(any_tokenizer, "b", **harmless)) if i in control]
    assert [i for i in joined(prompt) if i in control] == expected
    assert decoded(any_tokenizer, prompt.segments[0]) == evil
    assert evil in decoded(any_tokenizer, prompt.context)


def test_texts_that_look_like_a_template_or_a_placeholder_stay_as_they_are(tokenizer):
    odd = ["{{ 7 * 7 }}", "{% raw %}", "Text1: Text0:", "[/INST] </s> <think>", "\\n \\u0041 &amp;"]
    for text in odd:
        prompt = build(tokenizer, text, instruction=text, few_shots=[{"question": text, "answer": text}])
        assert decoded(tokenizer, prompt.segments[0]) == text
        assert decoded(tokenizer, prompt.context).count(text) == 3


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        (LLAMA3, "Today Date: 26 Jul 2024\n"),
        ("{{ strftime_now('%B %d, %Y') }}" + TURNS.replace("CONTENT", "m.content"), "July 26, 2024"),
        ("{{ strftime_now('%A %-d/%-m/%y') }}" + TURNS.replace("CONTENT", "m.content"), "Friday 26/7/24"),
    ],
)
def test_a_template_that_writes_todays_date_writes_the_same_each_day(tokenizer, template, shown):
    with_date = with_template(tokenizer, template)
    assert shown in decoded(tokenizer, build(with_date, "Who?").context)


def test_a_template_begins_as_it_would_alone(tokenizer):
    for start in ("\n\n  x", "  {% if true %}y{% endif %}\n", "{#- note #}\n\nz"):
        template = start + TURNS.replace("CONTENT", "m.content")
        other = with_template(tokenizer, template)
        assert joined(build(other, "Who?")) == templated(other, "Who?")


def test_models_that_can_think_first_are_told_not_to(tokenizer):
    template = TURNS.replace("CONTENT", "m.content") + (
        "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    )
    assert decoded(tokenizer, build(with_template(tokenizer, template), "Who?").answer_prefix).endswith(
        "</think>"
    )


def test_an_instruction_may_stand_behind_the_question(tokenizer):
    template = "{{ messages[-1].content }} ({{ messages[0].content }}) ->"
    prompt = build(with_template(tokenizer, template), "Who?", instruction=INSTRUCTION)
    assert prompt.context == ()
    assert decoded(tokenizer, prompt.segments[0]) == "Who?"
    assert decoded(tokenizer, prompt.answer_prefix) == f" ({INSTRUCTION}) ->"


def with_template(tokenizer: Any, template: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    + TURNS.replace("CONTENT", "m.content")
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no chat template. Copy the instruct model's chat_template.jinja"),
        ({"tool_use": TURNS}, "chat template fails"),
        ("{% for m in %}", "chat template fails (TemplateSyntaxError"),
        ("{{ messages[0].content.missing.more }}", "chat template fails (UndefinedError"),
        ("{{ raise_exception('not today') }}", "chat template fails (TemplateError: not today)"),
        ("{{ ''.__class__.__mro__ }}", "chat template fails (SecurityError"),
        ("{{ messages.append(1) }}", "chat template fails (SecurityError"),
        (
            REFUSES_SYSTEM,
            "prompt.instruction: the tokenizer's chat template takes no system message (TemplateError: no",
        ),
        ("[user]{{ messages[-1].content }}[end]", "leaves out the text of prompt.instruction"),
        (
            TURNS.replace("CONTENT", "m.content if m.role != 'user' else 'hi'"),
            "leaves out the text of question of",
        ),
        (
            TURNS.replace("CONTENT", "m.content ~ m.content"),
            "repeats, 2 times, the text of prompt.instruction",
        ),
        (TURNS.replace("CONTENT", "m.content | upper"), "changes the text of prompt.instruction"),
        (TURNS.replace("CONTENT", "m.content | e"), "changes the text of prompt.instruction"),
        (TURNS.replace("CONTENT", "m.content | tojson"), "changes the text of prompt.instruction"),
        (TURNS.replace("CONTENT", "m.content[:20]"), "changes the text of prompt.instruction"),
        (
            TURNS.replace("CONTENT", "m.content | replace('\\n', ' ')"),
            "changes the text of prompt.instruction",
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "writes nothing behind the question"),
    ],
)
def test_a_template_that_cannot_be_used_is_a_fault_that_says_what_to_do(tokenizer, template, said):
    with pytest.raises(ConfigError) as error:
        build(with_template(tokenizer, template), "Who?", instruction=INSTRUCTION, few_shots=SHOTS)
    assert said in str(error.value)
    assert "set prompt.chat to false" in str(error.value).replace("Set", "set") or "question_template" in str(
        error.value
    )


def test_a_template_without_system_messages_serves_prompts_without_instruction(tokenizer):
    prompt = build(with_template(tokenizer, REFUSES_SYSTEM), "Who?", few_shots=SHOTS)
    assert (
        decoded(tokenizer, prompt.context) == "[user]1 + 1?[assistant]2[user]What is 2 + 2?[assistant]4[user]"
    )


def test_a_template_reaches_no_file(tokenizer, tmp_path):
    trace = tmp_path / "trace"
    reach = "{{ cycler.__init__.__globals__.os.mknod('" + str(trace) + "') }}"
    with pytest.raises(ConfigError, match="chat template fails"):
        build(with_template(tokenizer, reach + TURNS.replace("CONTENT", "m.content")), "Who?")
    assert not trace.exists()


def configured(**prompt: Any) -> RunConfig:
    data = {"name": "qa", "files": "a.jsonl"}
    return parse_config(
        {"output": "o", "data": data, "model": {"path": "m"}, "prompt": prompt}, source="test"
    )


def test_with_chat_the_question_is_the_turn_and_there_is_no_cue_unless_a_recipe_says_otherwise():
    config = configured(chat=True)
    assert (config.prompt.question_template, config.prompt.answer_prefix) == ("{question}", "")
    assert type(config).model_validate_json(config.model_dump_json()) == config
    assert (
        configured(chat=True, question_template="Q: {question}").prompt.question_template == "Q: {question}"
    )
    assert configured().prompt.answer_prefix == "\nA:"


def test_a_cue_goes_with_no_chat_and_no_cue_with_chat_only():
    with pytest.raises(ConfigError, match=r"prompt\.answer_prefix: .*template opens the answer"):
        configured(chat=True, answer_prefix="\nA:")
    with pytest.raises(ConfigError, match=r"prompt\.answer_prefix: .*must not be empty without prompt\.chat"):
        configured(chat=False, answer_prefix="")
    assert configured(chat=True, answer_prefix="").prompt.answer_prefix == ""


def test_the_instruct_model_answers_and_ends_its_turn(smollm2, tokenizer):
    model, _ = load_model(smollm2, device="cpu")
    generation = GenerationConfig(max_new_tokens=40, stop_at_newline=False)
    engine = Engine(model, tokenizer, [MethodConfig()], generation, EngineConfig(backend="sdpa"))
    asked = ["What is the capital of France?", "Name the capital of France."]
    (((answer,),),) = engine.generate([build(tokenizer, *asked, instruction="Answer in one sentence.")])
    assert answer.finish_reason == "eos"
    assert tokenizer.decode([answer.token_ids[-1]]) == "<|im_end|>"
    text = answer_text(tokenizer, answer.token_ids, at_newline=False)
    assert "Paris" in text
    assert "<|" not in text
