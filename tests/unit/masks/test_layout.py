import math
import random

import numpy as np
import pytest

from flexray.masks.layout import ALL_PARAPHRASES, FIRST_ANSWER, AttentionScope, SharedPrefix, lay_out
from flexray.masks.runs import FIRST, LAST, POSITION, SLOT, VISIBLE_FIRST, VISIBLE_LAST, expand
from flexray.prompts.prompt import Prompt
from tests import oracles

PROMPT = Prompt(context=(10, 11), segments=((1,), (2, 3)), answer_prefix=(9, 8))
ALL_OF_IT = (AttentionScope(),)
PREFIXES = {
    "restart": SharedPrefix(),
    "continuous": SharedPrefix(continuous=True),
    "copies": SharedPrefix(copies=True, continuous=True),
}


def visible(layout):
    """The range of paraphrases that each own token sees."""
    return list(map(tuple, layout.tokens[:, [VISIBLE_FIRST, VISIBLE_LAST]].tolist()))


@pytest.mark.parametrize(
    ("prefix", "expected", "answer_position"),
    [
        ("restart", [2, 2, 3, 4, 5], 6),
        ("continuous", [2, 3, 4, 5, 6], 7),
        ("copies", [2, 5, 6, 7, 8], 9),
    ],
)
def test_positions_restart_after_the_context_or_run_on(prefix, expected, answer_position):
    layout = lay_out(PROMPT, PREFIXES[prefix], ALL_OF_IT, 4).layout
    assert layout.tokens[:, POSITION].tolist() == expected
    assert layout.answer_positions == (answer_position,)


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_token_ids_are_the_paraphrases_and_the_cue_in_order(prefix):
    sample = lay_out(PROMPT, prefix, ALL_OF_IT, 4)
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8]
    assert visible(sample.layout) == [(1, 1), (2, 2), (2, 2), ALL_PARAPHRASES, ALL_PARAPHRASES]
    assert (np.diff(sample.layout.tokens[:, SLOT]) > 0).all()
    assert sample.layout.logits_indices == (4,)


def test_copies_at_other_positions_belong_to_their_paraphrase_and_replace_the_shared_context():
    layout = lay_out(PROMPT, PREFIXES["copies"], ALL_OF_IT, 1).layout
    assert layout.copy_slots.tolist() == [0, 3]
    assert expand(layout.runs)[:, FIRST].tolist() == [1, 1, 1, 2, 2, 2, 2, *[FIRST_ANSWER] * 3]
    assert not layout.sees_context
    assert layout.first_causal_index == 0


def test_each_branch_has_its_cue_behind_the_trunk_and_its_answer_behind_its_cue():
    sample = lay_out(PROMPT, SharedPrefix(), (AttentionScope(), AttentionScope(0), AttentionScope(1)), 2)
    layout = sample.layout
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8, 9, 8, 9, 8]
    assert visible(layout) == [
        *[(1, 1), (2, 2), (2, 2)],
        *[ALL_PARAPHRASES] * 2,
        *[(1, 1)] * 2,
        *[(2, 2)] * 2,
    ]
    # behind the longest paraphrase, and behind its own as if that had been asked alone
    assert layout.tokens[:, POSITION].tolist() == [2, 2, 3, 4, 5, 3, 4, 4, 5]
    assert layout.answer_positions == (6, 5, 6)
    assert layout.answer_slots == (5, 9, 13)
    assert layout.num_slots == 15


def test_manual_paraphrases_that_see_each_other_are_one_part():
    prompt = Prompt((10,), ((1,), (2, 3), (4,)), (9,), num_manual=2)
    for prefix, expected in (
        (SharedPrefix(joined_manual=True), [1, 1, 1, 3]),
        (SharedPrefix(), [1, 2, 2, 3]),
    ):
        seen = visible(lay_out(prompt, prefix, ALL_OF_IT, 1).layout)[:4]
        assert seen == [(segment, segment) for segment in expected]


def test_the_layout_of_another_prompt_of_the_same_lengths_has_its_own_tokens():
    other = Prompt(context=(10, 11), segments=((4,), (5, 6)), answer_prefix=(9, 8))
    assert lay_out(PROMPT, SharedPrefix(), ALL_OF_IT, 1).token_ids.tolist() == [1, 2, 3, 9, 8]
    assert lay_out(other, SharedPrefix(), ALL_OF_IT, 1).token_ids.tolist() == [4, 5, 6, 9, 8]


def test_an_empty_context_leaves_the_paraphrases_to_themselves():
    layout = lay_out(Prompt((), ((1, 2), (3,)), (9,)), PREFIXES["copies"], ALL_OF_IT, 1).layout
    assert layout.tokens[:, POSITION].tolist() == [0, 1, 2, 3]
    assert layout.sees_context


def test_what_paraphrases_begin_with_alike_is_there_once_before_what_differs():
    prompt = Prompt((10, 11), ((1, 2, 3), (4,), (1, 2), (1, 5), (4,)), (9, 8))
    sample = lay_out(prompt, SharedPrefix(merged=True), (AttentionScope(), AttentionScope(3)), 4)
    layout, tokens = sample.layout, sample.layout.tokens
    assert layout.paraphrase_segments == (2, 4, 1, 3, 5)
    assert sample.token_ids.tolist() == [1, 2, 3, 5, 4, 9, 8, 9, 8]
    assert sample.num_shared == 9 - 5
    # behind the longest paraphrase, and behind the fourth
    assert tokens[:, POSITION].tolist() == [2, 3, 4, 3, 2, 5, 6, 4, 5]
    assert tokens[:5, FIRST].tolist() == [1, 1, 2, 3, 4]
    assert tokens[:5, LAST].tolist() == [3, 2, 2, 3, 5]
    assert visible(layout) == [(1, 1), (1, 1), (2, 2), (3, 3), (4, 4), *[ALL_PARAPHRASES] * 2, *[(3, 3)] * 2]


@pytest.mark.parametrize("seed", range(20))
def test_merged_paraphrases_have_the_tokens_and_positions_that_they_had(seed):
    rnd = random.Random(seed)
    segments = tuple(tuple(rnd.choices((1, 2), k=rnd.randint(1, 6))) for _ in range(rnd.randint(1, 7)))
    sample = lay_out(Prompt((10,), segments, (9,)), SharedPrefix(merged=True), ALL_OF_IT, 1)
    tokens, own = sample.layout.tokens, sample.token_ids
    assert sample.num_tokens == oracles.num_distinct(Prompt((), segments, (9,))) + 1
    assert sample.num_tokens + sample.num_shared == sum(map(len, segments)) + 1
    for segment, text in zip(sample.layout.paraphrase_segments, segments, strict=True):
        held = (tokens[:, FIRST] <= segment) & (segment <= tokens[:, LAST])
        assert tuple(own[held].tolist()) == text
        assert tokens[held, POSITION].tolist() == list(range(1, 1 + len(text)))


def test_biases_are_those_of_each_answers_scope_with_how_many_paraphrases_it_sees():
    scopes = (AttentionScope(context_bias=0.5, paraphrase_bias=-1.5), AttentionScope(0))
    layout = lay_out(PROMPT, SharedPrefix(), scopes, 1).layout
    assert layout.biases == ((0.5, math.log(2), -1.5, 0, 0), (0, 0, 0, 0, 0))


def test_a_temperature_and_a_scale_are_of_adaptive_prefixes_only():
    scopes = (AttentionScope(temperature=0.5, scale=0.75),)
    layout = lay_out(PROMPT, SharedPrefix(adaptive=True), scopes, 1).layout
    assert layout.biases == ((0, math.log(2), 0, 1 / 0.5 - 1, 0.75 * 0.5 - 1),)
    with pytest.raises(AssertionError):
        lay_out(PROMPT, SharedPrefix(), scopes, 1)
