"""What paraphrases begin with alike is computed once, and the answers are those of the definition."""

import dataclasses
import itertools
import math
import random

import pytest
import torch

from flexray.config import MethodConfig
from flexray.prompts.prompt import Prompt
from tests import oracles
from tests.unit.engine.test_methods import ALONE, LOGITS, tokens

FUSED = [
    MethodConfig(),
    MethodConfig(layout="full_prompt"),
    MethodConfig(paraphrase_scale="-log N"),
    MethodConfig(layout="full_prompt", paraphrase_scale="-log N"),
    MethodConfig(layout="full_prompt", paraphrase_scale=-0.5),
    MethodConfig(layout="myriadlama", paraphrase_scale=1.5),
]
METHODS = [*FUSED, *ALONE, *LOGITS]
UNMERGED = MethodConfig(layout="myriadlama", cross_attention=True)
MAX_NEW_TOKENS = 5
BRIEF = {"backend": "sdpa", "max_new_tokens": 3}


def words(rnd: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rnd.randrange(32, 256) for _ in range(count))


def random_paraphrases(seed: int) -> tuple[tuple[int, ...], ...]:
    """Of few different tokens, so that they share much."""
    rnd = random.Random(seed)
    return tuple(tuple(rnd.choices((50, 60, 70), k=rnd.randint(1, 9))) for _ in range(rnd.randint(2, 6)))


def make_paraphrases() -> dict[str, tuple[tuple[int, ...], ...]]:
    rnd = random.Random(0)
    a, b, c, d = (words(rnd, 7) for _ in range(4))
    long = words(rnd, 75)  # more than two blocks
    return {
        "a common head": ((40, *a), (40, *b), (40, *c)),
        "none in common": (a, b, c),
        "all equal": (a, a, a, a),
        "nested": ((*a, *b, *c), (*a, *b, *d), (*a, *d), c),
        "one a prefix of another": ((*a, *b), a, (*a, *b, *c), b),
        "a single one": (a,),
        "equal ones among others": (b, a, b, (*b, *a), a),
        "long": ((*long, *a), (*long, *b, *c), (*long[:40], *d), a),
        **{f"random {seed}": random_paraphrases(seed) for seed in range(5)},
    }


@pytest.fixture(scope="module")
def prompts():
    """A context of more than two blocks. The first paraphrase is not the most confident one."""
    rnd = random.Random(1)
    context, answer_prefix = words(rnd, 70), words(rnd, 2)
    found = []
    for segments in make_paraphrases().values():
        confidences = tuple(rnd.random() for _ in segments)
        found.append(Prompt(context, segments, answer_prefix, rnd.randint(0, len(segments)), confidences))
    return found


@pytest.fixture(scope="module")
def unshared(make_brief_model, make_engine):
    """Prompts to [prompt][method] -> tokens of each answer if nothing is shared."""
    engine = make_engine(
        make_brief_model(),
        methods=METHODS,
        max_new_tokens=MAX_NEW_TOKENS,
        backend="sdpa",
        share_prefixes=False,
    )
    return lambda prompts: tokens(engine.generate(prompts))


@pytest.fixture(scope="module")
def expected(unshared, prompts):
    return unshared(prompts)


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_all_methods_say_what_they_say_if_nothing_is_shared(
    make_brief_model, make_engine, prompts, expected, backend
):
    engine = make_engine(make_brief_model(), methods=METHODS, max_new_tokens=MAX_NEW_TOKENS, backend=backend)
    generations = engine.generate(prompts)
    assert tokens(generations) == expected
    assert {g.backend_used for said in generations for method in said for g in method} == {backend}
    assert engine.stats.shared_tokens > 0


def attend_apart(engine, in_prefill):
    """Of the context's 70 tokens the first 64, two whole blocks, are attended to apart, as on a GPU."""
    sizes = dataclasses.replace(engine.fallback.sizes, apart_in_prefill=in_prefill, apart_in_decode=1)
    engine.fallback.full_sizes = engine.fallback.sizes = sizes
    return engine


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("in_prefill", [0, 64])
def test_attending_to_the_context_apart_says_the_same(
    make_brief_model, make_engine, prompts, expected, in_prefill
):
    engine = attend_apart(
        make_engine(make_brief_model(), methods=METHODS, max_new_tokens=MAX_NEW_TOKENS), in_prefill
    )
    some = slice(0, 4 if in_prefill else 3)  # uncompiled flex is slow
    assert tokens(engine.generate(prompts[some])) == expected[some]
    assert (engine.runner._apart_in_prefill is None) == (not in_prefill)
    assert engine.runner._apart_in_decode == (32, 96)


def test_prompts_that_are_cut_into_several_passes_say_the_same(
    make_brief_model, make_engine, prompts, expected
):
    engine = make_engine(
        make_brief_model(),
        methods=METHODS,
        max_new_tokens=MAX_NEW_TOKENS,
        backend="sdpa",
        max_num_batched_tokens=256,
        max_num_seqs=32,
    )
    assert tokens(engine.generate(prompts)) == expected


def logits_of(engine, prompt):
    """The tokens of its answer to a prompt by itself, and the logits [T, V] that they were chosen from."""
    found, run = [], engine.runner.run

    def watch(batch):
        logits = run(batch)
        found.append(logits[0].clone())
        return logits

    engine.runner.run = watch
    ((generation,),) = engine.generate([prompt])[0]
    engine.runner.run = run
    return generation.token_ids, torch.stack(found[: len(generation.token_ids)])


def compare_logits(model, engine, prompts, method):
    for prompt in prompts:
        said, found = logits_of(engine, prompt)
        stream = oracles.stream(prompt, method.layout, "restart", said[:-1])
        scale = method.paraphrase_scale
        scales = oracles.scales_of(stream, -math.log(len(prompt.segments)) if scale == "-log N" else scale)
        expected = oracles.logits_of(model, stream, scales=scales)[-len(said) :]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", FUSED, ids=lambda method: method.name)
def test_the_logits_are_those_of_the_oracle(make_model, make_engine, prompts, method):
    compare_logits(make_model(), make_engine(make_model(), methods=[method], **BRIEF), prompts, method)


def test_the_tokens_that_are_prefilled_are_those_of_the_trie(make_model, make_engine, prompts):
    whole = [sum(map(len, p.segments)) for p in prompts]
    for share, paraphrases in ((True, list(map(oracles.num_distinct, prompts))), (False, whole)):
        engine = make_engine(make_model(), backend="sdpa", max_new_tokens=1, share_prefixes=share)
        engine.generate(prompts)
        prefixes = sum(len(p.answer_prefix) for p in prompts)
        assert engine.stats.prefill_tokens == sum(paraphrases) + prefixes
        assert engine.stats.to_dict()["shared_tokens"] == sum(whole) - sum(paraphrases)
        assert engine.stats.context_tokens == 70


@pytest.mark.parametrize(
    "method",
    [
        MethodConfig(positions="continuous"),
        MethodConfig(layout="full_prompt", positions="continuous"),
        UNMERGED,
    ],
    ids=lambda method: method.name,
)
def test_paraphrases_that_differ_in_what_they_see_or_where_they_stand_share_nothing(
    make_model, make_engine, prompts, method
):
    engine = make_engine(make_model(), methods=[method], backend="sdpa", max_new_tokens=1)
    engine.generate(prompts)
    assert engine.stats.shared_tokens == 0
    assert engine.stats.prefill_tokens == sum(sum(map(len, p.segments)) + 2 for p in prompts)


def test_scores_are_changed_only_if_a_method_attends_to_all_paraphrases_or_has_a_bias(
    make_model, make_engine
):
    def is_biased(share, *methods):
        engine = make_engine(make_model(), methods=methods, share_prefixes=share)
        return any(group.bias for group in engine.groups)

    drawn = [MethodConfig(kind="sampled"), MethodConfig(kind="confidence")]
    assert not is_biased(True, *ALONE, *LOGITS, *drawn)
    assert is_biased(True, *ALONE, MethodConfig())
    assert not is_biased(False, *ALONE, MethodConfig())
    assert is_biased(False, MethodConfig(layout="full_prompt"))
    assert not is_biased(True, MethodConfig(positions="continuous"))


def test_a_row_that_is_not_finite_leaves_its_neighbours_alone(
    make_brief_model, make_engine, prompts, expected
):
    used = {t for p in prompts for t in itertools.chain(p.context, *p.segments, p.answer_prefix)}
    used |= {token for said in expected for answers in said for answer in answers for token in answer}
    unused = max(set(range(256)) - used)
    model = make_brief_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[unused] = float("nan")
    bad = dataclasses.replace(prompts[0], segments=((40, 41), (40, unused), (40, 41, 42)))
    engine = make_engine(model, methods=METHODS, max_new_tokens=MAX_NEW_TOKENS, backend="sdpa", strict=False)
    generations = engine.generate([prompts[0], bad, *prompts[1:]])
    assert all(said[0].error for said in generations.pop(1)[: len(FUSED)])
    assert tokens(generations) == expected


HEAD = (90, 91, 92)


@pytest.fixture(scope="module")
def headed(prompts):
    """The prompts with a head before all their paraphrases; it is the context's, but for one row."""
    found = [
        dataclasses.replace(p, segments=tuple((*HEAD, *s) for s in p.segments), num_head=len(HEAD))
        for p in prompts
    ]
    found[3] = dataclasses.replace(found[3], num_head=0)
    return found


@pytest.fixture(scope="module")
def expected_of_headed(unshared, headed):
    return unshared(headed)


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_with_the_template_s_head_in_the_context_all_methods_say_the_same(
    make_brief_model, make_engine, headed, expected_of_headed, backend
):
    engine = make_engine(make_brief_model(), methods=METHODS, max_new_tokens=MAX_NEW_TOKENS, backend=backend)
    assert tokens(engine.generate(headed)) == expected_of_headed
    stats = engine.stats
    assert stats.context_tokens == 70 + len(HEAD) + 70
    paraphrases = sum(oracles.num_distinct(p) - p.num_head for p in headed)
    assert stats.shared_tokens == sum(len(s) for p in headed for s in p.segments) - paraphrases


@pytest.mark.parametrize("method", FUSED, ids=lambda method: method.name)
def test_with_the_head_in_the_context_the_logits_are_those_of_the_oracle(
    make_model, make_engine, headed, method
):
    compare_logits(make_model(), make_engine(make_model(), methods=[method], **BRIEF), headed, method)


def test_a_method_that_can_not_share_has_the_same_context_without_the_head(make_model, make_engine, headed):
    engine = make_engine(make_model(), methods=[MethodConfig(), UNMERGED], backend="sdpa", max_new_tokens=1)
    engine.generate(headed)
    assert engine.stats.context_tokens == 70 + len(HEAD) + 70
    assert engine.stats.prefill_tokens == sum(
        oracles.num_distinct(p) - p.num_head + sum(map(len, p.segments)) + 4 for p in headed
    )
