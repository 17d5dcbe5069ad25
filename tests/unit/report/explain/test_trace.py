"""The dense pass against the engine, and its shares against transformers' own attention weights."""

import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from flexray.config import MethodConfig
from flexray.engine.generation import Generation
from flexray.report.explain import dense
from flexray.report.explain.trace import trace
from tests import oracles

ATTENTION = [
    MethodConfig(),
    MethodConfig(positions="continuous"),
    MethodConfig(layout="full_prompt"),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="full_prompt", paraphrase_scale=-0.7),
    MethodConfig(layout="full_prompt", positions="continuous", paraphrase_scale="-log N"),
    MethodConfig(layout="myriadlama", cross_attention=True),
    MethodConfig(layout="myriadlama", cross_attention=True, positions="continuous", paraphrase_scale=1.5),
    MethodConfig(paraphrase_scale="-log N"),
]
ALONE = [MethodConfig(kind="origin"), MethodConfig(kind="per_prompt"), MethodConfig(kind="weighted_max")]
LOGITS = [MethodConfig(kind=kind) for kind in ("avg", "max", "weighted_avg", "mean_prob", "nbce")]
DRAWN = [
    MethodConfig(kind="sampled", samples=3),
    MethodConfig(kind="confidence", samples=2),
    MethodConfig(kind="draws", draws=2, size=2),
    MethodConfig(kind="draws", draws=2, size=2, fusion="avg"),
]
ADAPTIVE = MethodConfig(kind="ape", attention_temperature=0.5, attention_scale=1.2)
ALL = [*ATTENTION, ADAPTIVE, *ALONE, *LOGITS, *DRAWN]


def named(method):
    return method.name


@pytest.fixture(scope="module")
def prompts(make_prompts):
    rnd = random.Random(3)
    return [
        dataclasses.replace(
            prompt,
            num_manual=rnd.randint(0, len(prompt.segments)),
            confidences=tuple(rnd.random() for _ in prompt.segments),
            row_id=str(i),
        )
        for i, prompt in enumerate(make_prompts(3, seed=5))
    ]


@dataclasses.dataclass
class Trace:
    segments: tuple
    answers: tuple

    @property
    def names(self):
        return (*(segment.name for segment in self.segments), "answer_prefix", "answer")


def follow(engine, number, prompt, generations, top=5):
    return Trace(
        *trace(
            engine.model,
            engine.methods[number],
            prompt,
            generations,
            top=top,
            text_of=lambda i: chr(i),
            texts=[bytes(g.token_ids).decode("latin-1").strip() for g in generations],
        )
    )


@pytest.fixture(scope="module")
def traces(make_brief_model, make_engine, prompts):
    """[method's name][prompt] -> its trace."""
    engine = make_engine(make_brief_model(), methods=ALL, backend="sdpa", max_num_seqs=64)
    said = engine.generate(prompts)
    return {
        method.name: [follow(engine, m, prompt, said[i][m]) for i, prompt in enumerate(prompts)]
        for m, method in enumerate(ALL)
    }


@pytest.mark.parametrize("method", ALL, ids=named)
def test_the_dense_pass_says_what_the_engine_says(traces, method):
    for found in traces[method.name]:
        assert found.answers
        for answer in found.answers:
            assert [step.id for step in answer.steps] == list(answer.generation.token_ids)
            assert answer.disagreements == []
            if answer.draw is None:
                for step in answer.steps:
                    assert (step.rank, step.gap, step.top[0].id) == (1, 0.0, step.id)
                    assert step.probability == step.top[0].probability


@pytest.mark.parametrize("method", ALL, ids=named)
def test_the_shares_of_each_layer_sum_to_1_and_candidates_are_in_order(traces, method):
    for found in traces[method.name]:
        for answer in found.answers:
            for sequence in answer.sequences:
                assert sequence.attention_by_layer.shape == (len(answer.steps), 2, len(found.names))
                assert np.allclose(sequence.attention_by_layer.sum(-1), 1, atol=1e-5)
                assert (
                    sequence.attention_by_layer[0, :, -1] == 0
                ).all()  # at the first step there is no answer
            for step in answer.steps:
                chances = [c.probability for c in step.top]
                assert chances == sorted(chances, reverse=True)
                assert len(step.top) == 5


@pytest.mark.parametrize(
    "method", [m for m in (*ALONE, *LOGITS, *DRAWN) if m.name != "draws/draws 2/size 2"], ids=named
)
def test_a_sequence_of_one_paraphrase_gives_the_others_exactly_nothing(traces, method):
    for found in traces[method.name]:
        for answer in found.answers:
            for sequence in answer.sequences:
                for number, name in enumerate(found.names):
                    given = sequence.attention_by_layer[:, :, number]
                    if name.startswith("P"):
                        assert (given > 0).all() == (name == f"P{sequence.paraphrase}")
                        assert (given == 0).all() == (name != f"P{sequence.paraphrase}")


def test_an_answer_that_fuses_gives_each_paraphrase_something(traces):
    for found in traces[MethodConfig().name]:
        ((sequence,),) = [answer.sequences for answer in found.answers]
        assert sequence.paraphrase is None
        assert (sequence.attention_by_layer[:, :, :-1] > 0).all()


@pytest.mark.parametrize("method", ATTENTION, ids=named)
def test_shares_are_those_of_transformers_own_weights_under_the_defined_mask(
    make_brief_model, prompts, traces, method
):
    model = make_brief_model()
    for prompt, found in zip(prompts, traces[method.name], strict=True):
        (answer,) = found.answers
        stream = oracles.stream(prompt, method.layout, method.positions, answer.generation.token_ids[:-1])
        scale = method.paraphrase_scale
        scale = -math.log(len(prompt.segments)) if scale == "-log N" else scale
        bias = oracles.scales_of(stream, scale).masked_fill(
            ~oracles.mask_of(stream, prompt.num_manual if method.cross_attention else 0),
            torch.finfo(torch.float32).min,
        )
        weights = attention_weights(model, stream, bias)
        expected = by_segment(weights, prompt, stream, found.names, len(answer.steps))
        assert np.allclose(answer.sequences[0].attention_by_layer, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["origin", "per_prompt", "avg"])
def test_shares_of_a_paraphrase_alone_are_those_of_its_own_prompt(make_brief_model, prompts, traces, kind):
    model = make_brief_model()
    for prompt, found in zip(prompts, traces[kind], strict=True):
        for answer in found.answers:
            for sequence in answer.sequences:
                own = prompt.segments[sequence.paraphrase - 1]
                alone = dataclasses.replace(prompt, segments=(own,))
                stream = oracles.stream(
                    alone, "shared_context", "continuous", answer.generation.token_ids[:-1]
                )
                bias = torch.zeros(len(stream), len(stream)).masked_fill(
                    ~torch.ones(len(stream), len(stream), dtype=torch.bool).tril(),
                    torch.finfo(torch.float32).min,
                )
                weights = attention_weights(model, stream, bias)
                names = ("context", "P1", "answer_prefix", "answer")
                expected = by_segment(weights, alone, stream, names, len(answer.steps))
                columns = [0, found.names.index(f"P{sequence.paraphrase}"), -2, -1]
                assert np.allclose(sequence.attention_by_layer[:, :, columns], expected, atol=2e-5)


@pytest.mark.parametrize("positions", ["restart", "continuous"])
def test_few_shots_in_several_paraphrases_are_segments_of_their_own(
    make_brief_model, make_engine, prompts, positions
):
    prompt = dataclasses.replace(prompts[0], few_shots=((10, 20, 26), (40, 45, 60, 61)))
    engine = make_engine(make_brief_model(), positions=positions, backend="sdpa")
    found = follow(engine, 0, prompt, engine.generate([prompt])[0][0])
    assert found.answers[0].disagreements == []
    assert found.names[:8] == ("context", "F1P1", "F1P2", "F1A", "F2P1", "F2P2", "F2P3", "F2A")
    begins = [segment.tokens[0].position for segment in found.segments[:8]]
    assert (
        begins == [[0, 10, 20, 26, 40, 45, 60, 61], [0, 10, 10, 20, 34, 34, 34, 49]][positions == "restart"]
    )
    assert (found.answers[0].sequences[0].attention_by_layer[:, :, :8] > 0).all()


@torch.no_grad()
def attention_weights(model, stream, bias):
    """[layers, L, L] of the unpatched model, the mean of its heads."""
    out = model(
        input_ids=torch.tensor([[token.id for token in stream]]),
        position_ids=torch.tensor([[token.position for token in stream]]),
        attention_mask=bias[None, None],
        use_cache=False,
        output_attentions=True,
    )
    return torch.stack([layer[0].mean(0) for layer in out.attentions])


def by_segment(weights, prompt, stream, names, steps):
    """[steps, layers, segments]: what each segment gets of the answer's last `steps` queries."""
    keys = []
    for name, size in sizes(prompt, stream):
        keys += [name] * size
    assert len(keys) == len(stream)
    copied = "C1" in names  # else the copies of the context are one segment
    shares = torch.zeros(weights.shape[0], steps, len(names))
    for key, name in enumerate(keys):
        column = name if copied or not name.startswith("C") else "context"
        shares[:, :, names.index(column)] += weights[:, -steps:, key]
    return shares.transpose(0, 1).numpy()


def sizes(prompt, stream):
    """Names and lengths of a stream's segments."""
    shared = any(token.part == oracles.CONTEXT for token in stream)
    if shared:
        yield "context", len(prompt.context)
    for number, segment in enumerate(prompt.segments, start=1):
        if not shared:
            yield f"C{number}", len(prompt.context)
        yield f"P{number}", len(segment)
    yield "answer_prefix", len(prompt.answer_prefix)
    yield "answer", sum(token.part == oracles.ANSWER for token in stream) - len(prompt.answer_prefix)


def test_probabilities_are_the_softmax_of_the_fused_scores(make_brief_model, prompts, traces):
    model, prompt = make_brief_model(), prompts[0]
    each = torch.stack([oracles.logits_alone(model, prompt, i, []) for i in range(len(prompt.segments))])
    weights = torch.tensor(prompt.confidences) / sum(prompt.confidences)
    expected = {
        "avg": each.mean(0).softmax(-1),
        "weighted_avg": (weights @ each).softmax(-1),
        "max": each.softmax(-1).amax(0),
    }
    for kind, chances in expected.items():
        first = traces[kind][0].answers[0].steps[0]
        for candidate in first.top:
            assert candidate.probability == pytest.approx(float(chances[candidate.id]), abs=1e-5)


def test_another_token_than_the_best_is_found_with_its_rank_and_gap(make_brief_model, make_engine, prompts):
    engine, prompt = make_engine(make_brief_model(), backend="sdpa"), prompts[1]
    ((said,),) = engine.generate([prompt])[0]
    scores = oracles.logits_of(make_brief_model(), oracles.stream(prompt, "shared_context", "restart"))[
        -1
    ].log_softmax(-1)
    second = int(scores.topk(2).indices[1])
    other = dataclasses.replace(said, token_ids=(second, *said.token_ids[1:]))
    (answer,) = follow(engine, 0, prompt, [other]).answers
    assert answer.disagreements[0] == 1
    step = answer.steps[0]
    assert (step.rank, step.top[0].id, step.top[1].id) == (2, said.token_ids[0], second)
    assert step.gap == pytest.approx(float(scores.max() - scores[second]), abs=1e-4)
    assert step.probability == pytest.approx(float(scores[second].exp()), abs=1e-5)


def test_segments_have_their_tokens_and_positions(traces, prompts):
    found, prompt = traces["per_prompt"][0], prompts[0]
    assert [segment.name for segment in found.segments] == [
        "context", *(f"P{i + 1}" for i in range(len(prompt.segments)))
    ]  # fmt: skip
    C = len(prompt.context)
    for segment, ids in zip(found.segments[1:], prompt.segments, strict=True):
        assert [token.id for token in segment.tokens] == list(ids)
        assert [token.position for token in segment.tokens] == list(range(C, C + len(ids)))
    for answer, ids in zip(found.answers, prompt.segments, strict=True):
        answer_prefix, said = answer.sequences[0].segments
        start = C + len(ids)
        assert [token.position for token in answer_prefix.tokens] == [start, start + 1]
        assert [token.id for token in said.tokens] == list(answer.generation.token_ids)
        assert said.tokens[0].position == start + 2


def test_a_pass_that_is_cut_into_pieces_gives_the_same(make_brief_model, make_engine, prompts, monkeypatch):
    engine = make_engine(make_brief_model(), backend="sdpa")
    prompt = prompts[2]
    (said,) = engine.generate([prompt])[0]
    whole = follow(engine, 0, prompt, said).answers[0]
    monkeypatch.setattr(dense, "QUERIES_AT_ONCE", 7)
    cut = follow(engine, 0, prompt, said).answers[0]
    assert np.allclose(whole.sequences[0].attention_by_layer, cut.sequences[0].attention_by_layer, atol=1e-6)
    assert [s.top[0].id for s in whole.steps] == [s.top[0].id for s in cut.steps]


def test_the_engine_answers_as_before_afterwards(make_brief_model, make_engine, prompts):
    engine = make_engine(make_brief_model(), backend="sdpa")
    before = engine.generate(prompts)
    follow(engine, 0, prompts[0], before[0][0])
    assert engine.generate(prompts) == before


def test_a_row_that_the_engine_could_not_answer_has_no_steps(make_brief_model, make_engine, prompts):
    engine = make_engine(make_brief_model(), methods=[MethodConfig(kind="per_prompt")], backend="sdpa")
    failed = Generation(finish_reason="error", backend_requested="sdpa", error="no backend")
    found = follow(engine, 0, prompts[0], [failed])
    (answer,) = found.answers
    assert (answer.steps, answer.sequences, answer.disagreements) == ((), (), [])
    assert len(found.segments) == 1 + len(prompts[0].segments)
