"""Every method against its oracle: alone, and all of them in one engine."""

import dataclasses
import random

import pytest

from flexray.config import MethodConfig
from flexray.methods.draws import subsets_of
from tests import oracles

ATTENTION = [
    MethodConfig(),
    MethodConfig(layout="full_prompt"),
    MethodConfig(positions="continuous"),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="myriadlama", cross_attention=True),
    MethodConfig(layout="myriadlama", cross_attention=True, positions="continuous"),
    MethodConfig(layout="myriadlama", cross_attention=True, paraphrase_scale="-log N"),
    MethodConfig(paraphrase_scale="-log N"),
    MethodConfig(layout="full_prompt", paraphrase_scale="-log N"),
    MethodConfig(layout="full_prompt", positions="continuous", paraphrase_scale="-log N"),
    MethodConfig(positions="continuous", paraphrase_scale=1.5),
]
ALONE = [MethodConfig(kind="origin"), MethodConfig(kind="per_prompt"), MethodConfig(kind="weighted_max")]
LOGITS = [MethodConfig(kind=kind) for kind in ("avg", "max", "mean_prob", "nbce", "weighted_avg")]
LOGITS += [MethodConfig(kind="nbce", beta=0.0), MethodConfig(kind="nbce", beta=2.0)]
DRAWS = [
    MethodConfig(kind="draws", draws=3, size=2),
    MethodConfig(kind="draws", draws="leave_one_out"),
    MethodConfig(kind="draws", draws=2, size=3, fusion="avg", seed=1),
    MethodConfig(kind="draws", draws=2, size=2, fusion="max"),
]
OTHERS = [MethodConfig(kind="concat"), MethodConfig(kind="vote")]
APE = [
    MethodConfig(kind="ape"),
    MethodConfig(kind="ape", attention_temperature=0.5, attention_scale=1.2),
    MethodConfig(kind="ape", attention_temperature=1.5, attention_scale=0.4),
]
ALL = [*ATTENTION, *APE, *ALONE, *LOGITS, *DRAWS, *OTHERS]
MAX_NEW_TOKENS = 8


@pytest.fixture(scope="session")
def make_rated_prompts(make_prompts):
    """Prompts with manual templates and confidences: one with none above 0, one with equal ones."""

    def make(count, **kwargs):
        rnd = random.Random(7)
        rated = []
        for i, prompt in enumerate(make_prompts(count, **kwargs)):
            n = len(prompt.segments)
            confidences = [rnd.random() for _ in range(n)]
            if i < 2:
                confidences = [[0.0, 0.5][i]] * n
            rated.append(
                dataclasses.replace(
                    prompt,
                    num_manual=rnd.randint(0, n),
                    confidences=tuple(confidences),
                    row_id=f"qa/test/{i}",
                )
            )
        return rated

    return make


def oracle_says(model, prompt, method, *, stop_ids, max_new_tokens=MAX_NEW_TOKENS):
    """Tokens of each answer of a method to a prompt."""
    rules = {"max_new_tokens": max_new_tokens, "stop_ids": stop_ids}
    number_of = range(len(prompt.segments))
    if method.kind == "attention":
        settings = method.model_dump(include={"layout", "positions", "cross_attention", "paraphrase_scale"})
        found = [oracles.answer(model, prompt, **settings, **rules)]
    elif method.kind == "ape":
        settings = {"temperature": method.attention_temperature, "scale": method.attention_scale}
        found = [oracles.ape(model, prompt, **settings, **rules)]
    elif method.kind == "origin":
        found = [oracles.alone(model, prompt, 0, **rules)]
    elif method.kind == "concat":
        found = [oracles.concat(model, prompt, **rules)]
    elif method.kind == "draws":
        settings = (method.draws, method.size, method.seed)
        subsets = subsets_of(prompt.row_id, len(prompt.segments), *settings)
        asked = [oracles.of_subset(prompt, subset) for subset in subsets]
        if method.fusion == "attention":
            found = [oracles.answer(model, some, **rules) for some in asked]
        else:
            found = [oracles.fused(model, some, method.fusion, **rules) for some in asked]
    elif method.kind in ("per_prompt", "vote"):
        found = [oracles.alone(model, prompt, i, **rules) for i in number_of]
    elif method.kind == "weighted_max":
        found = [oracles.alone(model, prompt, oracles.most_confident(prompt), **rules)]
    else:
        found = [oracles.fused(model, prompt, method.kind, beta=method.beta, **rules)]
    return tuple(tuple(answer.token_ids) for answer in found)


def tokens(generations):
    """[prompt][method] -> tokens of each answer."""
    return [tuple(tuple(g.token_ids for g in said) for said in by_method) for by_method in generations]


@pytest.fixture(scope="module")
def prompts(make_rated_prompts):
    return make_rated_prompts(7)


@pytest.fixture(scope="module")
def expected(make_brief_model, prompts):
    """[method's name][prompt] -> tokens of each answer."""
    model = make_brief_model()
    return {m.name: [oracle_says(model, p, m, stop_ids={2, 10}) for p in prompts] for m in ALL}


def test_the_oracles_tell_the_methods_apart_and_answers_end_at_different_times(expected):
    # scaled by -log N the N copies of full_prompt weigh as one: restarting, that is shared_context
    assert expected[ATTENTION[7].name] == expected[ATTENTION[8].name]
    assert expected["vote"] == expected["per_prompt"]
    assert len({tuple(answers) for answers in expected.values()}) == len(ALL) - 2
    assert len({len(answer) for said in expected["per_prompt"] for answer in said}) > 3


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_each_method_alone_says_what_its_oracle_says(
    make_brief_model, make_engine, prompts, expected, method
):
    engine = make_engine(
        make_brief_model(),
        methods=[method],
        max_new_tokens=MAX_NEW_TOKENS,
        backend="sdpa",
        share_prefixes=False,
    )
    assert [said for (said,) in tokens(engine.generate(prompts))] == expected[method.name]


@pytest.mark.parametrize(("backend", "max_num_seqs"), [("flex", 8), ("sdpa", 3), ("sdpa", 16)])
def test_all_methods_in_one_engine_say_what_their_oracles_say(
    make_brief_model, make_engine, prompts, expected, backend, max_num_seqs
):
    engine = make_engine(
        make_brief_model(),
        methods=ALL,
        max_new_tokens=MAX_NEW_TOKENS,
        backend=backend,
        max_num_seqs=max_num_seqs,
    )
    assert engine.stopping.stop_ids() == {2, 10}
    generations = engine.generate(prompts)
    found = tokens(generations)
    for number, method in enumerate(ALL):
        assert [said[number] for said in found] == expected[method.name], method.name
    assert {g.backend_used for by_method in generations for said in by_method for g in said} == {backend}
    assert engine.runner.kv_cache.num_held == 0
    assert engine.runner.table.num_free == engine.runner.table.max_sequences


def test_the_methods_of_a_trunk_share_one_prefill_of_the_paraphrases(make_model, make_engine, prompts):
    others = ("ape", "concat", "draws", "nbce")
    one_trunk = [
        m for m in ALL if m.positions == "restart" and not m.cross_attention and m.kind not in others
    ]
    engine = make_engine(make_model(), methods=one_trunk, backend="sdpa")
    engine.generate(prompts)
    cues = {"attention": 1, "origin": 1, "weighted_max": 1}  # the others have one for each paraphrase
    assert engine.stats.prefill_tokens == sum(
        oracles.num_distinct(p)
        + len(p.answer_prefix) * sum(cues.get(m.kind, len(p.segments)) for m in one_trunk)
        for p in prompts
    )
    assert engine.stats.context_tokens == len(prompts[0].context)


def test_draws_share_one_prefill_of_the_paraphrases(make_model, make_engine, make_prompts):
    segments = [segment for p in make_prompts(40) for segment in p.segments]
    prompts = [
        dataclasses.replace(p, segments=tuple(segments[20 * i : 20 * i + 20]))
        for i, p in enumerate(make_prompts(3))
    ]
    drawn = MethodConfig(kind="draws", draws=8, size=5)
    engine = make_engine(make_model(), methods=[drawn], backend="sdpa")
    engine.generate(prompts)
    assert engine.stats.prefill_tokens == sum(
        sum(map(len, p.segments)) + 8 * len(p.answer_prefix) for p in prompts
    )


def test_each_trunk_prefills_the_paraphrases_once(make_model, make_engine, prompts):
    methods = [m for m in ATTENTION if not m.paraphrase_scale]
    whole = 4  # the two layouts that restart have the same, in which paraphrases share tokens
    engine = make_engine(make_model(), methods=methods, backend="sdpa")
    engine.generate(prompts)
    assert engine.stats.prefill_tokens == sum(
        whole * sum(map(len, p.segments)) + oracles.num_distinct(p) + len(methods) * len(p.answer_prefix)
        for p in prompts
    )
    assert engine.stats.context_tokens == len(prompts[0].context)


def test_to_one_paraphrase_all_methods_say_the_same(make_brief_model, make_engine, prompts):
    single = [
        dataclasses.replace(p, segments=p.segments[:1], num_manual=1, confidences=(0.3,)) for p in prompts
    ]
    methods = [
        m
        for m in ALL
        if not (isinstance(m.paraphrase_scale, float) and m.paraphrase_scale)
        and m.kind not in ("ape", "draws", "nbce")
    ]
    engine = make_engine(make_brief_model(), methods=methods, max_new_tokens=MAX_NEW_TOKENS, backend="sdpa")
    origin = [m.kind for m in methods].index("origin")
    for said in tokens(engine.generate(single)):
        assert set(said) == {said[origin]}


@pytest.mark.parametrize("layout", ["shared_context", "full_prompt"])
def test_scaled_by_minus_log_n_equal_paraphrases_weigh_as_one(make_brief_model, make_engine, prompts, layout):
    single = [dataclasses.replace(p, segments=p.segments[:1]) for p in prompts]
    same = [dataclasses.replace(p, segments=p.segments[:1] * 5) for p in prompts]

    def log(asked, scale):
        methods = [MethodConfig(layout=layout, paraphrase_scale=scale)]
        engine = make_engine(
            make_brief_model(), methods=methods, max_new_tokens=MAX_NEW_TOKENS, backend="sdpa"
        )
        return tokens(engine.generate(asked))

    assert log(same, "-log N") == log(single, 0.0)
    assert log(same, 0.0) != log(single, 0.0)
