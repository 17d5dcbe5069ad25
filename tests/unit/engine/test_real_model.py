"""SmolLM2-135M on real questions: the engine's tokens are the oracle's, in float32, in all modes.

The default is what CI can afford: a part of the questions, one of the four modes (the others are slow tests;
on random models each mode is compared with the oracle in test_attention.py), and one number of rows at once.
FLEXRAY_ALL_QUESTIONS=1 takes all 72 questions of the demo and, where datasets/ has them, all 189 of the
WebQuestions devtest; every third at 1 and 3 rows at once too.
"""

import json
import os

import pytest
import torch

from flexray.config import (
    DataConfig,
    EngineConfig,
    FewShot,
    GenerationConfig,
    MethodConfig,
    PromptConfig,
)
from flexray.config.data import Fields
from flexray.data import scan, to_questions
from flexray.engine.engine import Engine
from flexray.models.checkpoint import load_model
from flexray.prompts import PromptBuilder
from tests import oracles
from tests.conftest import DATA, PROJECT

ALL = os.environ.get("FLEXRAY_ALL_QUESTIONS") == "1"
WEBQUESTIONS = DATA / "webqa" / "devtest.json"
PROMPT = PromptConfig(
    instruction="Answer with a short phrase.",
    few_shots=(FewShot(question="What is the capital of Finland?", answer="Helsinki"),),
)
MODES = [  # and the rows at once
    ("shared_context", "restart", 8),
    pytest.param("shared_context", "continuous", 3, marks=pytest.mark.slow),
    pytest.param("full_prompt", "restart", 8, marks=pytest.mark.slow),
    pytest.param("full_prompt", "continuous", 3, marks=pytest.mark.slow),
]


def reword(question):
    """Rule-based paraphrases of ragged lengths, up to five: WebQuestions comes without any."""
    text = question.rstrip("? ").strip()
    words = text.split()
    forms = [f"{text}?", f"{text.capitalize()}?", f"Tell me, {text}?", f"I would like to know: {text}."]
    if words[0].lower() in {"what", "who", "where", "when"}:
        forms.append(f"Do you know {text}?")
    return forms[: 2 + len(words) % 4]


@pytest.fixture(scope="module")
def models(smollm2):
    patched, tokenizer = load_model(smollm2, dtype="float32", device="cpu")
    plain, _ = load_model(smollm2, dtype="float32", device="cpu", attn_implementation="eager")
    torch.set_num_threads(os.cpu_count() or 1)
    return patched, plain, tokenizer


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    config = DataConfig(name="demo", files=[str(PROJECT / "jobs" / "data" / "demo.jsonl")])
    found = to_questions(scan(config), dataset="demo", split="test")[:: 1 if ALL else 18]
    if WEBQUESTIONS.exists():
        records = json.loads(WEBQUESTIONS.read_text())
        for record in records:
            record["paraphrases"] = reword(record["qText"])
        path = tmp_path_factory.mktemp("webqa") / "devtest.json"
        path.write_text(json.dumps(records))
        fields = Fields(id="qId", question="qText")
        config = DataConfig(name="webqa", files=[str(path)], fields=fields)
        found += to_questions(scan(config), dataset="webqa", split="test")[:: 1 if ALL else 48]
    assert not [q.error for q in found if q.error]
    return found


@pytest.mark.timeout(7200 if ALL else 900)
@pytest.mark.parametrize(("layout", "positions", "rows_at_once"), MODES)
def test_the_engine_generates_the_oracles_tokens_on_real_questions(
    models, questions, layout, positions, rows_at_once
):
    patched, plain, tokenizer = models
    methods = [MethodConfig(layout=layout, positions=positions)]
    generation = GenerationConfig(max_new_tokens=8)
    prompts = [
        PromptBuilder(tokenizer, PROMPT, methods, generation, 8192, vocab_size=49_152).build(q)
        for q in questions
    ]
    said: dict[int, list[int]] = {}  # by the number of the question; the oracle need be asked but once
    for max_num_seqs in (8, 3, 1) if ALL else (rows_at_once,):
        engine = Engine(
            patched, tokenizer, methods, generation, EngineConfig(strict=True, max_num_seqs=max_num_seqs)
        )
        stops = engine.stopping.stop_ids()
        some = range(0, len(prompts), 3 if said else 1)
        for i, ((answer,),) in zip(some, engine.generate([prompts[i] for i in some]), strict=True):
            token_ids = list(answer.token_ids)
            if i not in said:
                oracle = oracles.greedy_along(
                    plain, prompts[i], token_ids, layout=layout, positions=positions
                )
                assert token_ids == oracle.token_ids, f"{questions[i].row_id}: gaps {oracle.gaps}"
                assert token_ids[-1] in stops or len(token_ids) == 8
                assert not set(token_ids[:-1]) & stops
            assert said.setdefault(i, token_ids) == token_ids, max_num_seqs


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_adaptive_parallel_encoding_generates_the_oracles_tokens_on_real_questions(
    models, questions, backend
):
    patched, plain, tokenizer = models
    strong = MethodConfig(kind="ape", attention_temperature=0.5, attention_scale=0.5)
    methods, generation = [MethodConfig(kind="ape"), strong], GenerationConfig(max_new_tokens=8)
    builder = PromptBuilder(tokenizer, PROMPT, methods, generation, 8192, vocab_size=49_152)
    prompts = [builder.build(q) for q in questions]
    config = EngineConfig(strict=True, max_num_seqs=8, backend=backend)
    generations = Engine(patched, tokenizer, methods, generation, config).generate(prompts)
    for prompt, said in zip(prompts, generations, strict=True):
        for method, (answer,) in zip(methods, said, strict=True):
            stream = oracles.stream(prompt, "shared_context", "restart", answer.token_ids[:-1])
            settings = {"temperature": method.attention_temperature, "scale": method.attention_scale}
            logits = oracles.ape_logits(plain, stream, **settings)[-len(answer.token_ids) :]
            assert list(answer.token_ids) == logits.argmax(-1).tolist(), method.name
    assert any(mild.token_ids != strong.token_ids for ((mild,), (strong,)) in generations)
