"""The stream stands where the definition says, and sees what the definition lets it see."""

import random

import numpy as np
import pytest

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.masks.picture import draw_mask
from flexray.methods import make_methods
from flexray.prompts.prompt import Prompt
from flexray.report.explain.stream import make_stream

PROMPT = Prompt(context=(1, 2), segments=((3,), (4, 5), (6,)), answer_prefix=(7, 8), num_manual=2)


def random_prompt(rnd):
    segments = tuple(tuple(range(rnd.randint(1, 5))) for _ in range(rnd.randint(1, 5)))
    answer_prefix = tuple(range(rnd.randint(1, 3)))
    return Prompt(
        tuple(range(rnd.randint(1, 4))), segments, answer_prefix, num_manual=rnd.randint(0, len(segments))
    )


@pytest.mark.parametrize(
    "method",
    [
        MethodConfig(),
        MethodConfig(positions="continuous"),
        MethodConfig(layout="full_prompt", positions="continuous"),
        MethodConfig(layout="myriadlama", cross_attention=True),
        MethodConfig(layout="myriadlama", cross_attention=True, positions="continuous"),
    ],
    ids=lambda method: method.name,
)
def test_mask_positions_and_tokens_are_those_of_the_definition(method):
    rnd = random.Random(0)
    (planned,) = make_methods([method])
    for _ in range(20):
        prompt = random_prompt(rnd)
        found = make_stream(prompt, planned.prefix, planned.scopes(prompt), [(-1, -1)]).picture()
        expected = draw_mask(
            prompt, method.layout, method.positions, 2, cross_attention=method.cross_attention
        )
        assert np.array_equal(found.mask, expected.mask)
        assert found.positions.tolist() == expected.positions.tolist()
        assert found.token_ids.tolist() == expected.token_ids.tolist()
        assert found.segments == expected.segments


def test_a_branch_of_one_paraphrase_sees_that_one_and_itself_only():
    stream = make_stream(PROMPT, SharedPrefix(), (AttentionScope(0), AttentionScope(1)), [(9,), (9, 9)])
    picture = stream.picture()
    sees = {}
    for query, name in enumerate(picture.segments):
        sees.setdefault(name, set()).update(np.array(picture.segments)[picture.mask[query]].tolist())
    assert sees["answer 1"] == {"context", "P1", "answer 1"}
    assert sees["answer 2"] == {"context", "P2", "answer 2"}
    # right behind its own paraphrase, as if that had been asked alone
    starts = {name: picture.segments.index(name) for name in ("answer 1", "answer 2")}
    assert [int(picture.positions[start]) for start in starts.values()] == [3, 4]


def test_queries_are_the_end_of_the_cue_and_each_generated_token():
    stream = make_stream(PROMPT, SharedPrefix(), (AttentionScope(),), [(9, 10)])
    assert stream.ids[stream.queries[0]].tolist() == [8, 9, 10]
    stream = make_stream(PROMPT, SharedPrefix(), (AttentionScope(0), AttentionScope(2)), [(), (9,)])
    assert [stream.ids[queries].tolist() for queries in stream.queries] == [[8], [8, 9]]


def test_regions_cover_the_stream_once_and_in_order():
    stream = make_stream(PROMPT, SharedPrefix(continuous=True, copies=True), (AttentionScope(),), [(9,)])
    names = [region.name for region in stream.regions]
    assert names == ["C1", "P1", "C2", "P2", "C3", "P3", "answer_prefix", "answer"]
    borders = [stream.regions[0].start, *(region.stop for region in stream.regions)]
    assert borders == sorted(borders)
    assert (borders[0], borders[-1]) == (0, len(stream))
    assert (np.diff(stream.order) > 0).all()
