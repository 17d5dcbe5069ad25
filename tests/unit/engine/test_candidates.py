"""Answers that are chosen from candidates: each scored as the oracle scores it, after one prefill."""

import dataclasses
import math
import random

import pytest

from flexray.config import MethodConfig
from flexray.engine.request import Request
from flexray.masks.layout import MAX_ANSWERS
from flexray.methods.draws import subsets_of
from tests import oracles
from tests.unit.engine import test_generation_settings
from tests.unit.engine.test_generation_settings import NEW, next_logits, rated

METHODS = [
    *test_generation_settings.METHODS,
    MethodConfig(kind="draws", draws=2, size=2),
    MethodConfig(kind="draws", draws=2, size=2, fusion="avg", seed=1),
]
GIVEN = {"candidates": ("given", "to", "the", "builder")}  # whose tokens the prompts below have


def with_candidates(prompts):
    """With candidates of 1 to NEW tokens: some begin alike, some have tokens that end answers."""
    rnd, found = random.Random(3), []
    for i, prompt in enumerate(rated(prompts)):
        some = tuple(rnd.randrange(3, 200) for _ in range(NEW))
        candidates = (some[:1], some[:3], some, (some[0], 2, some[1]), (10,))
        found.append(dataclasses.replace(prompt, candidates=candidates[: 2 + i % 4]))
    return found


@pytest.fixture(scope="module")
def prompts(make_prompts):
    return with_candidates(make_prompts(4, num_context=20, longest=10))


def sums(model, prompt, method, paraphrase=0):
    """Of each candidate the sum of its tokens' log-probabilities, each from the whole sequence anew."""
    return [
        math.fsum(
            float(next_logits(model, prompt, method, paraphrase, ids[:i]).log_softmax(-1)[token])
            for i, token in enumerate(ids)
        )
        for ids in prompt.candidates
    ]


def oracle_says(model, prompt, method):
    """For each answer of a method the sums of its candidates."""
    if method.kind == "per_prompt":
        return [sums(model, prompt, method, i) for i in range(len(prompt.segments))]
    if method.kind == "draws":
        subsets = subsets_of(prompt.row_id, len(prompt.segments), method.draws, method.size, method.seed)
        kind = MethodConfig(kind=method.fusion)
        return [sums(model, oracles.of_subset(prompt, subset), kind) for subset in subsets]
    return [sums(model, prompt, method)]


@pytest.fixture(scope="module")
def expected(make_brief_model, prompts):
    model = make_brief_model()
    return [[oracle_says(model, prompt, method) for method in METHODS] for prompt in prompts]


@pytest.mark.parametrize("backend", ["flex", "sdpa"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_each_candidate_is_scored_as_by_the_oracle_and_the_best_is_the_answer(
    make_brief_model, make_engine, prompts, expected, backend, length_penalty
):
    settings = GIVEN | {"length_penalty": length_penalty}
    engine = make_engine(
        make_brief_model(), methods=METHODS, max_new_tokens=NEW, backend=backend, generation=settings
    )
    chosen = set()
    for prompt, said, ours in zip(prompts, engine.generate(prompts), expected, strict=True):
        lengths = [len(ids) ** length_penalty for ids in prompt.candidates]
        for method, answers, oracle in zip(METHODS, said, ours, strict=True):
            for answer, totals in zip(answers, oracle, strict=True):
                scores = [total / length for total, length in zip(totals, lengths, strict=True)]
                assert answer.candidate_scores == pytest.approx(scores, abs=1e-4), method.name
                best = scores.index(max(scores))
                assert answer.candidate == best
                assert answer.token_ids == prompt.candidates[best]
                assert answer.finish_reason == "candidate"
                assert answer.logprobs is None
                chosen.add(best)
    assert len(chosen) > 1 or not length_penalty  # the sum is highest for short ones


def test_candidates_share_one_prefill_and_one_pass_of_the_context(make_brief_model, make_engine, prompts):
    one = [dataclasses.replace(prompt, candidates=prompt.candidates[:1]) for prompt in prompts]

    def prefilled(asked):
        engine = make_engine(
            make_brief_model(), methods=METHODS[:1], max_new_tokens=NEW, backend="sdpa", generation=GIVEN
        )
        engine.generate(asked)
        return engine.stats.to_dict()["prefill_tokens"]

    more = sum(len(prompt.candidates) - 1 for prompt in prompts)
    assert prefilled(prompts) - prefilled(one) == more * len(prompts[0].answer_prefix)


def test_scores_do_not_depend_on_what_is_beside_a_row(make_brief_model, make_engine, prompts):
    def scores(asked, **engine):
        made = make_engine(
            make_brief_model(),
            methods=METHODS,
            max_new_tokens=NEW,
            backend="flex",
            generation=GIVEN,
            deterministic=True,
            **engine,
        )
        return [[[g.candidate_scores for g in said] for said in row] for row in made.generate(asked)]

    together = scores(prompts)
    assert [scores([prompt])[0] for prompt in prompts[:2]] == together[:2]
    assert scores(prompts[::-1])[::-1] == together


def test_the_log_probabilities_of_the_chosen_candidate_are_told_if_asked_for(
    make_brief_model, make_engine, prompts
):
    engine = make_engine(
        make_brief_model(),
        methods=METHODS[:1],
        max_new_tokens=NEW,
        backend="sdpa",
        generation=GIVEN | {"logprobs": 1, "length_penalty": 0.0},
    )
    for ((answer,),) in engine.generate(prompts):
        assert math.fsum(answer.logprobs.chosen) == answer.candidate_scores[answer.candidate]
        assert len(answer.logprobs.top) == len(answer.token_ids)


def test_more_candidates_than_the_mask_can_tell_apart_are_the_error_of_their_row(
    make_brief_model, make_engine, prompts
):
    engine = make_engine(
        make_brief_model(), methods=METHODS[:1], max_new_tokens=NEW, backend="sdpa", generation=GIVEN
    )
    many = dataclasses.replace(prompts[0], candidates=((5,),) * (MAX_ANSWERS + 1))
    ((bad,),), ((good,),) = engine.generate([many, prompts[1]])
    assert f"at most {MAX_ANSWERS} of a question" in bad.error
    assert good.finish_reason == "candidate"


def test_a_row_needs_slots_for_its_longest_candidate_only(make_brief_model, make_engine, prompts):
    short = [dataclasses.replace(prompt, candidates=((5,), (6, 7))) for prompt in prompts]
    engine = make_engine(
        make_brief_model(), methods=METHODS[:1], max_new_tokens=64, backend="sdpa", generation=GIVEN
    )
    model = make_brief_model()
    for prompt, ((answer,),) in zip(short, engine.generate(short), strict=True):
        one, two = sums(model, prompt, METHODS[0])
        expected = [one, two / 2]
        assert answer.candidate_scores == pytest.approx(expected, abs=1e-4)
    needed = [Request(0, prompt, engine.groups[0], 64).most_slots for prompt in (short[0], prompts[0])]
    plain = dataclasses.replace(prompts[0], candidates=())
    segments = sum(map(len, plain.segments))
    prefix = len(plain.answer_prefix)
    assert needed == [segments + 2 * (prefix + 2), segments + 2 * (prefix + 3)]


def test_the_table_has_no_more_rows_than_the_kv_cache_has_answers(make_brief_model, make_engine, prompts):
    many = [dataclasses.replace(prompt, candidates=((5, 6, 7),) * 200) for prompt in prompts * 3]
    engine = make_engine(
        make_brief_model(), methods=METHODS[:1], max_new_tokens=NEW, backend="sdpa", generation=GIVEN
    )
    for (answer,), *_ in engine.generate(many):
        assert answer.candidate_scores == pytest.approx(answer.candidate_scores[:1] * 200, abs=1e-4)
    runner = engine.runner
    assert runner.table.max_sequences <= runner.kv_cache.num_slots // 3
