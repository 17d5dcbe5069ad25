"""SmolLM2-135M on real questions: the engine's tokens are the oracle's, in float32, in all modes.

The default is a part of the questions, which CI can afford; FLEXRAY_ALL_QUESTIONS=1 takes all 72 of the
demo and, where FLEXRAY_DATA has them, all 189 of the WebQuestions devtest; every third at batch sizes 1
and 3 too.
"""

import json
import os

import pytest
import torch

from flexray.config import (
    DataConfig,
    EngineConfig,
    FewShot,
    Fields,
    GenerationConfig,
    MethodConfig,
    PromptConfig,
)
from flexray.data import read_shard, scan
from flexray.engine.checkpoint import load_model
from flexray.engine.engine import Engine
from flexray.prompts import PromptBuilder
from tests import oracles
from tests.conftest import PROJECT

ALL = os.environ.get("FLEXRAY_ALL_QUESTIONS") == "1"
DATA = os.environ.get("FLEXRAY_DATA", str(PROJECT.parent / "shared" / "data"))
WEBQUESTIONS = os.path.join(DATA, "webqa", "devtest.json")
PROMPT = PromptConfig(
    instruction="Answer with a short phrase.",
    few_shots=(FewShot(question="What is the capital of Finland?", answer="Helsinki"),),
)
MODES = [
    ("shared_context", "restart"),
    ("shared_context", "continuous"),
    ("full_prompt", "restart"),
    ("full_prompt", "continuous"),
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
    config = DataConfig(name="demo", files=[str(PROJECT / "jobs" / "data" / "demo.jsonl")], shard_rows=100)
    found = [q for shard in scan(config).shards for q in read_shard(shard, config)][:: 1 if ALL else 12]
    if os.path.exists(WEBQUESTIONS):
        with open(WEBQUESTIONS) as stream:
            records = json.load(stream)
        for record in records:
            record["paraphrases"] = reword(record["qText"])
        path = tmp_path_factory.mktemp("webqa") / "devtest.json"
        path.write_text(json.dumps(records))
        fields = Fields(id="qId", question="qText")
        config = DataConfig(name="webqa", files=[str(path)], fields=fields, shard_rows=200)
        found += [q for s in scan(config).shards for q in read_shard(s, config)][:: 1 if ALL else 32]
    assert not [q.error for q in found if q.error]
    return found


@pytest.mark.timeout(7200 if ALL else 900)
@pytest.mark.parametrize(("layout", "positions"), MODES)
def test_the_engine_generates_the_oracles_tokens_on_real_questions(models, questions, layout, positions):
    patched, plain, tokenizer = models
    methods = [MethodConfig(layout=layout, positions=positions)]
    generation = GenerationConfig(max_new_tokens=8)
    prompts = [PromptBuilder(tokenizer, PROMPT, methods, generation, 8192).build(q) for q in questions]
    by_batch = {}
    for max_rows in (1, 3, 8):
        engine = Engine(patched, tokenizer, methods, generation, EngineConfig(strict=True, max_rows=max_rows))
        some = prompts if max_rows == 8 else prompts[::3]
        by_batch[max_rows] = dict(zip(map(id, some), engine.generate(some), strict=True))
    stops = engine.stop_rule.stop_ids()
    for prompt, question in zip(prompts, questions, strict=True):
        token_ids = list(by_batch[8][id(prompt)][0][0].token_ids)
        oracle = oracles.greedy_along(plain, prompt, token_ids, layout=layout, positions=positions)
        assert token_ids == oracle.token_ids, f"{question.row_id}: gaps {oracle.gaps}"
        assert token_ids[-1] in stops or len(token_ids) == 8
        assert not set(token_ids[:-1]) & stops
        for max_rows in (1, 3):
            if id(prompt) in by_batch[max_rows]:
                assert list(by_batch[max_rows][id(prompt)][0][0].token_ids) == token_ids, max_rows


@pytest.mark.parametrize(("layout", "positions"), MODES)
def test_one_run_of_the_oracle_along_an_answer_is_its_run_token_by_token(
    models, questions, layout, positions
):
    _, plain, tokenizer = models
    methods = [MethodConfig(layout=layout, positions=positions)]
    builder = PromptBuilder(tokenizer, PROMPT, methods, GenerationConfig(max_new_tokens=5), 8192)
    mode = {"layout": layout, "positions": positions}
    for question in questions[::9]:
        prompt = builder.build(question)
        answer = oracles.answer(plain, prompt, max_new_tokens=5, **mode).token_ids
        assert oracles.greedy_along(plain, prompt, answer, **mode).token_ids == answer
