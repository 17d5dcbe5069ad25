"""What `generation` asks for beside a length: against the oracle for every method, and against transformers'
generate for prompts of one paraphrase."""

import dataclasses
import itertools
import math

import pytest
import torch
from transformers import StopStringCriteria

from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.engine import Engine
from flexray.engine.sampler import uniform_numbers
from flexray.methods import SamplingParams
from tests import oracles
from tests.random_models import ByteTokenizer, save_model

NEW = 6
STOPS = [2, 10]
METHODS = [
    MethodConfig(),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="myriadlama", cross_attention=True, paraphrase_scale="-log N"),
    MethodConfig(kind="origin"),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="avg"),
    MethodConfig(kind="max"),
    MethodConfig(kind="weighted_avg"),
    MethodConfig(kind="mean_prob"),
]
SETTINGS = {"min_new_tokens": 4, "repetition_penalty": 1.7, "logprobs": 3}


def rated(prompts):
    """With confidences and manual templates, so that all methods can answer them."""
    return [
        dataclasses.replace(
            prompt,
            row_id=f"qa/test/{i}",
            num_manual=1,
            confidences=tuple(1 / (1 + n) for n in range(len(prompt.segments))),
        )
        for i, prompt in enumerate(prompts)
    ]


@pytest.fixture(scope="module")
def prompts(make_prompts):
    """Of different lengths and numbers of paraphrases."""
    return rated(make_prompts(4, num_context=20, longest=10))


@torch.no_grad()
def next_logits(model, prompt, method, paraphrase, generated):
    """float32 [V]: their softmax is what a method's sequence, or its fused ones, choose from."""
    if method.kind == "attention":
        tokens = oracles.stream(prompt, method.layout, method.positions, generated)
        scale = -math.log(len(prompt.segments)) if method.paraphrase_scale else 0.0
        joined = prompt.num_manual if method.cross_attention else 0
        mask, scales = oracles.mask_of(tokens, joined), oracles.scales_of(tokens, scale)
        return oracles.logits_of(model, tokens, mask, scales)[-1].float()
    if method.kind in ("origin", "per_prompt"):
        return oracles.logits_alone(model, prompt, paraphrase, generated)
    each = [oracles.logits_alone(model, prompt, i, generated) for i in range(len(prompt.segments))]
    if method.kind == "max":
        highest = torch.stack([logits.softmax(-1) for logits in each]).amax(0)
        return (highest / highest.sum()).log()
    if method.kind == "mean_prob":
        return torch.stack([logits.softmax(-1) for logits in each]).mean(0).log()
    weights = prompt.confidences if method.kind == "weighted_avg" else [1.0] * len(each)
    return sum(w / sum(weights) * logits for w, logits in zip(weights, each, strict=True))


def prompt_tokens(prompt, method, paraphrase):
    """All that a sequence, or its group together, sees of the prompt."""
    alone = method.kind in ("origin", "per_prompt")
    segments = [prompt.segments[paraphrase]] if alone else prompt.segments
    return {*prompt.context, *prompt.answer_prefix, *itertools.chain(*segments)}


def oracle_says(model, prompt, method, paraphrase, *, penalty=1.0, least=0):
    """(token ids, log-probability of each, the best 3 of each place)."""
    generated, chosen, best = [], [], []
    while len(generated) < NEW:
        logits = next_logits(model, prompt, method, paraphrase, generated)
        logprobs = logits.log_softmax(-1)
        for token in prompt_tokens(prompt, method, paraphrase) | set(generated):
            logits[token] = logits[token] * penalty if logits[token] < 0 else logits[token] / penalty
        if len(generated) < least:
            logits[STOPS] = -torch.inf
        token = int(logits.argmax())
        generated.append(token)
        chosen.append(float(logprobs[token]))
        best.append(logprobs.topk(3))
        if token in STOPS:
            break
    return generated, chosen, best


@pytest.mark.parametrize("settings", [{"logprobs": 3}, SETTINGS], ids=["logprobs", "all"])
def test_tokens_and_log_probabilities_of_each_method_are_those_of_the_oracle(
    make_brief_model, make_engine, prompts, settings
):
    engine = make_engine(
        make_brief_model(), methods=METHODS, max_new_tokens=NEW, backend="sdpa", generation=settings
    )
    model = make_brief_model()
    rules = {"penalty": settings.get("repetition_penalty", 1.0), "least": settings.get("min_new_tokens", 0)}
    for prompt, said in zip(prompts, engine.generate(prompts), strict=True):
        for method, answers in zip(METHODS, said, strict=True):
            for paraphrase, answer in enumerate(answers):
                ids, chosen, best = oracle_says(model, prompt, method, paraphrase, **rules)
                assert list(answer.token_ids) == ids, method.name
                assert answer.logprobs.chosen == pytest.approx(chosen, abs=1e-4)
                for top_ids, top, expected in zip(
                    answer.logprobs.top_token_ids, answer.logprobs.top, best, strict=True
                ):
                    assert list(top_ids) == expected.indices.tolist()
                    assert list(top) == pytest.approx(expected.values.tolist(), abs=1e-4)


def test_answers_are_no_others_for_telling_their_log_probabilities(make_brief_model, make_engine, prompts):
    def tokens(generation, **engine):
        made = make_engine(
            make_brief_model(),
            methods=METHODS,
            max_new_tokens=NEW,
            backend="sdpa",
            generation=generation,
            **engine,
        )
        return [[[g.token_ids for g in said] for said in row] for row in made.generate(prompts)], made

    plain, engine = tokens({})
    assert all(g.logprobs is None for row in engine.generate(prompts[:1]) for said in row for g in said)
    assert tokens({"logprobs": 0})[0] == plain
    assert tokens({"logprobs": 0}, max_num_seqs=2)[0] == plain


def test_with_one_paraphrase_transformers_generates_the_same(make_brief_model, make_engine, prompts):
    engine = make_engine(
        make_brief_model(),
        methods=[MethodConfig(kind="origin")],
        max_new_tokens=NEW,
        backend="sdpa",
        generation=SETTINGS,
    )
    model = make_brief_model()
    for prompt, ((answer,),) in zip(prompts, engine.generate(prompts), strict=True):
        ids = torch.tensor([[*prompt.context, *prompt.segments[0], *prompt.answer_prefix]])
        said = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            min_new_tokens=4,
            repetition_penalty=1.7,
            do_sample=False,
            eos_token_id=STOPS,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert list(answer.token_ids) == said.sequences[0, ids.shape[1] :].tolist()
        found = model.compute_transition_scores(said.sequences, said.logits, normalize_logits=True)[0]
        assert answer.logprobs.chosen == pytest.approx(found.tolist(), abs=1e-4)


def test_an_answer_ends_with_the_token_that_completes_a_stop_text_as_in_transformers(
    make_model, prompts, tmp_path
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_model(tmp_path, make_model().config))

    def answers(**settings):
        generation = GenerationConfig(max_new_tokens=24, stop_at_newline=False, **settings)
        config = EngineConfig(backend="sdpa", strict=True, max_num_seqs=4, max_num_batched_tokens=256)
        engine = Engine(make_model(), tokenizer, [MethodConfig(kind="per_prompt")], generation, config)
        return [answer for (said,) in engine.generate(prompts) for answer in said]

    whole = answers()
    pairs = (pair for answer in whole for pair in itertools.pairwise(answer.token_ids[:20]))
    text = bytes(
        next(pair for pair in pairs if min(pair) > 32 and max(pair) < 127)
    ).decode()  # across a border of tokens
    ended = answers(stop=text, logprobs=0)
    asked = [(p, i) for p in prompts for i in range(len(p.segments))]
    model, criteria = make_model(), StopStringCriteria(tokenizer, [text])
    for (prompt, i), answer, before in zip(asked, ended, whole, strict=True):
        assert answer.token_ids == before.token_ids[: len(answer.token_ids)]
        assert (answer.finish_reason == "stop") == (text in tokenizer.decode(before.token_ids))
        assert len(answer.logprobs.chosen) == len(answer.token_ids)
        ids = torch.tensor([[*prompt.context, *prompt.segments[i], *prompt.answer_prefix]])
        said = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=[2],
            pad_token_id=0,
            stopping_criteria=[criteria],
        )
        assert list(answer.token_ids) == said[0, ids.shape[1] :].tolist()
    assert {answer.finish_reason for answer in ended} >= {"stop", "length"}


def drawn_by_oracle(model, prompt, method, index, paraphrase):
    numbers = uniform_numbers(SamplingParams(seed=method.seed, index=index), prompt.row_id, NEW).tolist()
    generated = []
    for number in numbers:
        logits = next_logits(model, prompt, method, paraphrase, generated).double()
        token = oracles.draw(logits, number, temperature=method.temperature, top_p=method.top_p)
        generated.append(token)
        if token in STOPS:
            break
    return generated


def test_every_method_can_draw_and_sequences_that_choose_together_draw_the_same(
    make_brief_model, make_engine, prompts
):
    drawing = [
        m.model_copy(update={"do_sample": True, "temperature": 1.5, "top_p": 0.9, "seed": 3}) for m in METHODS
    ]
    drawing = [MethodConfig(**m.model_dump(exclude_defaults=True)) for m in drawing]
    engine = make_engine(make_brief_model(), methods=[*METHODS, *drawing], max_new_tokens=NEW, backend="sdpa")
    model, others = make_brief_model(), 0
    for prompt, said in zip(prompts, engine.generate(prompts), strict=True):
        greedy, drawn = said[: len(METHODS)], said[len(METHODS) :]
        for method, best, answers in zip(drawing, greedy, drawn, strict=True):
            assert len(answers) == len(best)
            for i, answer in enumerate(answers):
                assert list(answer.token_ids) == drawn_by_oracle(model, prompt, method, i, i), method.name
                others += answer.token_ids != best[i].token_ids
    assert others > 10


def test_a_text_over_several_tokens_ends_an_answer():
    from flexray.engine.stopping_criteria import StoppingCriteria, answer_text

    none = torch.zeros(256, dtype=torch.bool)
    rule = StoppingCriteria(none, none, ("END", "AEND"), ByteTokenizer())
    ids = list(b"Rome AENDING")
    assert rule.find_end(ids) == len(b"Rome AEND")
    assert rule.find_end(ids[:8]) == 0
    assert (rule.reason(ids[:9]), rule.reason(ids[:8])) == ("stop", "length")
    assert answer_text(ByteTokenizer(), ids, at_newline=True, stop=rule.texts) == "Rome"
