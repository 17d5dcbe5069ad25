"""The stream stands where the definition says, and sees what the definition lets it see."""

import random
from dataclasses import replace

import numpy as np
import pytest

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.masks.stream import make_stream
from flexray.methods import make_methods
from flexray.prompts.prompt import Prompt
from tests import oracles

PROMPT = Prompt(context=(1, 2), segments=((3,), (4, 5), (6,)), answer_prefix=(7, 8), num_manual=2)


def random_prompt(rnd, num_few_shots):
    bounds, end = [], rnd.randint(0, 3)
    for _ in range(num_few_shots):
        bounds.append([end])
        bounds[-1] += [end := end + rnd.randint(1, 4) for _ in range(rnd.randint(1, 4))]
        end += rnd.randint(1, 3)
    segments = tuple(tuple(range(rnd.randint(1, 5))) for _ in range(rnd.randint(1, 5)))
    answer_prefix = tuple(range(rnd.randint(1, 3)))
    return Prompt(
        tuple(range(end or 1)),
        segments,
        answer_prefix,
        num_manual=rnd.randint(0, len(segments)),
        few_shots=tuple(map(tuple, bounds)),
    )


def names_of(stream):
    """[S]: the segment of each token, an answer prefix being part of the answer."""
    several = len(stream.queries) > 1
    names = []
    for segment in stream.segments:
        answer = f"answer {segment.sequence + 1}" if several and segment.sequence is not None else "answer"
        names += [segment.name if segment.sequence is None else answer] * len(segment)
    return names


def part_of(name):
    """What the oracle calls a segment: a paraphrase and its copy of the context are one."""
    if name[0] == "F":
        return "context"
    return name if name in ("context", "answer") else int(name[1:].partition(".")[0])


@pytest.mark.parametrize(
    "method",
    [
        MethodConfig(),
        MethodConfig(positions="continuous"),
        MethodConfig(layout="full_prompt", positions="continuous"),
        MethodConfig(layout="full_prompt"),
        MethodConfig(layout="myriadlama", cross_attention=True),
        MethodConfig(layout="myriadlama", cross_attention=True, positions="continuous"),
    ],
    ids=lambda method: method.name,
)
def test_mask_positions_and_tokens_are_those_of_the_definition(method):
    rnd = random.Random(0)
    (planned,) = make_methods([method])
    for number in range(20):
        prompt = random_prompt(rnd, number % 4)
        prefix = replace(planned.prefix, copies=method.layout == "full_prompt")
        found = make_stream(prompt, prefix, planned.scopes(prompt), [(-1, -1)])
        expected = oracles.stream(prompt, method.layout, method.positions, generated=[-1, -1])
        joined = prompt.num_manual if method.cross_attention else 0
        assert np.array_equal(found.mask(), oracles.mask_of(expected, joined).numpy())
        assert found.positions.tolist() == [token.position for token in expected]
        assert found.token_ids.tolist() == [token.id for token in expected]
        assert [part_of(name) for name in names_of(found)] == [token.part for token in expected]


def test_a_sequence_of_one_paraphrase_sees_that_one_and_itself_only():
    stream = make_stream(PROMPT, SharedPrefix(), (AttentionScope(0), AttentionScope(1)), [(9,), (9, 9)])
    names, mask = names_of(stream), stream.mask()
    sees = {}
    for query, name in enumerate(names):
        sees.setdefault(name, set()).update(np.array(names)[mask[query]].tolist())
    assert sees["answer 1"] == {"context", "P1", "answer 1"}
    assert sees["answer 2"] == {"context", "P2", "answer 2"}
    # right behind its own paraphrase, as if that had been asked alone
    assert [int(stream.positions[names.index(name)]) for name in ("answer 1", "answer 2")] == [3, 4]


def test_queries_are_the_end_of_the_answer_prefix_and_each_generated_token_but_the_last():
    stream = make_stream(PROMPT, SharedPrefix(), (AttentionScope(),), [(9, 10, 11)])
    assert stream.token_ids[stream.queries[0]].tolist() == [8, 9, 10]
    stream = make_stream(PROMPT, SharedPrefix(), (AttentionScope(0), AttentionScope(2)), [(9,), (9, 10)])
    assert [stream.token_ids[queries].tolist() for queries in stream.queries] == [[8], [8, 9]]


def test_segments_cover_the_stream_once_and_in_order():
    stream = make_stream(PROMPT, SharedPrefix(continuous=True, copies=True), (AttentionScope(),), [(9,)])
    names = [segment.name for segment in stream.segments]
    assert names == ["C1", "P1", "C2", "P2", "C3", "P3", "answer_prefix", "answer"]
    borders = [stream.segments[0].start, *(segment.stop for segment in stream.segments)]
    assert borders == sorted(borders)
    assert (borders[0], borders[-1]) == (0, len(stream))
