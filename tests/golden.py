"""Prompts and answers of a small model, as they were when VALUES_VERSION was last bumped.

    PYTHONPATH=. python -m tests.golden      # writes tests/golden_answers.json again

Weights come from numpy's RandomState, whose numbers never change, and answers are kept only if weights that
differ a little give the same ones: so no version of torch or transformers changes them.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flexray.config import EngineConfig, FewShot, GenerationConfig, MethodConfig, PromptConfig
from flexray.data.question import Question
from flexray.engine.engine import Engine
from flexray.engine.values import VALUES_VERSION
from flexray.methods import METHODS
from flexray.prompts import PromptBuilder
from flexray.prompts.prompt import Prompt

FILE = Path(__file__).with_name("golden_answers.json")
RENEW = (
    "bump VALUES_VERSION in flexray/engine/values.py and renew the golden answers by "
    "`PYTHONPATH=. python -m tests.golden`"
)
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("e", "r"), ("w", "h"), ("Ġ", "w"), ("Ġ", "c")]
SEED = 0
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
SHOTS = (FewShot(question="What is the capital of Finland?", answer="Helsinki"),)
PROMPTS = {
    "plain": PromptConfig(instruction="Answer briefly.", few_shots=SHOTS),
    "chat": PromptConfig(instruction="Answer briefly.", few_shots=SHOTS, chat=True),
}
METHOD_CONFIGS = (
    MethodConfig(),
    MethodConfig(layout="full_prompt"),
    MethodConfig(positions="continuous"),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="myriadlama", cross_attention=True),
    MethodConfig(
        layout="myriadlama", cross_attention=True, positions="continuous", paraphrase_scale="-log N"
    ),
    MethodConfig(paraphrase_scale=1.5),
    *(MethodConfig(kind=kind) for kind in METHODS if kind not in ("attention", "sampled", "confidence")),
    MethodConfig(kind="sampled", samples=3, temperature=0.7, top_p=0.9),
    MethodConfig(kind="confidence", samples=2),
)
TEXTS = [
    ["Who wrote Emma?", "Emma is by whom?", "the writer of Emma is"],
    ["Which city is the capital of Norway?", "Norway's capital:"],
    ["Où coule la Seine ?", "Where is the Seine?", "The Seine flows through", "  In which city is it? "],
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges, a BOS, an EOS and a chat template."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *letters, *("".join(pair) for pair in MERGES)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(vocab_size: int, noise: float = 0.0) -> LlamaForCausalLM:
    """A model in float32; `noise` is the share by which each weight differs from the golden one."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).float().eval()
    weights, changes = np.random.RandomState(SEED), np.random.RandomState(1)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            shape = tuple(weight.shape)
            values = weights.standard_normal(shape) * 0.3 + (weight.ndim == 1)
            weight.copy_(torch.from_numpy(values * (1 + noise * changes.standard_normal(shape))))
    return model


def make_prompts(tokenizer: PreTrainedTokenizerFast) -> dict[str, list[Prompt]]:
    """The prompts of all questions, by the name of their PromptConfig."""
    questions = [
        Question(
            row_id=f"golden/test/{number}",
            dataset="golden",
            split="test",
            source_file="golden.jsonl",
            source_row=number,
            source_id=str(number),
            question=texts[0],
            paraphrases=tuple(texts),
            num_manual=len(texts) - 1,
            confidences=tuple(0.3 + 0.2 * place for place in range(len(texts))),
        )
        for number, texts in enumerate(TEXTS, start=1)
    ]
    generation = GenerationConfig()
    found = {}
    for name, prompt in PROMPTS.items():
        builder = PromptBuilder(
            tokenizer, prompt, METHOD_CONFIGS, generation, 1024, vocab_size=len(tokenizer), named_bos=0
        )
        found[name] = [builder.build(question) for question in questions]
    return found


def compute(noise: float = 0.0) -> dict[str, Any]:
    """What is to stay the same: token ids of the prompts, and of each method's answers to the plain ones.

    A prompt is a list of its context, its segments and its answer prefix."""
    tokenizer = make_tokenizer()
    prompts = make_prompts(tokenizer)
    engine = Engine(
        make_model(len(tokenizer), noise),
        tokenizer,
        METHOD_CONFIGS,
        GenerationConfig(max_new_tokens=5),
        EngineConfig(backend="sdpa", strict=True, max_num_seqs=8),
    )
    answers = engine.generate(prompts["plain"])
    return {
        "prompts": {
            name: [[list(p.context), *map(list, p.segments), list(p.answer_prefix)] for p in some]
            for name, some in prompts.items()
        },
        "answers": {
            method.name: [[list(said.token_ids) for said in by_method[number]] for by_method in answers]
            for number, method in enumerate(METHOD_CONFIGS)
        },
    }


def complaint(golden: dict[str, Any], found: dict[str, Any], values_version: int) -> str:
    """What is to be done, if anything changed; "" if nothing has."""
    changed = [
        f"{kind} of {name}"
        for kind in ("prompts", "answers")
        for name in found[kind] | golden[kind]
        if found[kind].get(name) != golden[kind].get(name)
    ]
    if changed and golden["values_version"] == values_version:
        return f"values have changed ({', '.join(changed)}), but VALUES_VERSION has not: {RENEW}"
    if changed or golden["values_version"] != values_version:
        kept = golden["values_version"]
        return f"VALUES_VERSION is {values_version}, the golden answers are of {kept}: {RENEW}"
    return ""


if __name__ == "__main__":
    values = compute()
    if any(compute(noise) != values for noise in (4e-5, -4e-5)):
        raise SystemExit(
            "an answer changes with little noise: choose other TEXTS, or another seed of the weights"
        )
    tree = {"values_version": VALUES_VERSION, **values}
    lines = json.dumps(tree, indent=1)
    FILE.write_text(
        re.sub(r"\n *(?=\d)|(?<=\d)\n *(?=\])", "", lines) + "\n"
    )  # a line for each list of tokens
