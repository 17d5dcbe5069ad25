import numpy as np
import pytest

from flexray.masks.layout import ALL_PARAPHRASES, FIRST_ANSWER, AttentionScope, SharedPrefix, lay_out
from flexray.prompts.prompt import Prompt

PROMPT = Prompt(context=(10, 11), segments=((1,), (2, 3)), answer_prefix=(9, 8))
PREFIXES = {
    "restart": SharedPrefix(),
    "continuous": SharedPrefix(continuous=True),
    "copies": SharedPrefix(copies=True, continuous=True),
}


@pytest.mark.parametrize(
    ("prefix", "expected", "answer_position"),
    [
        ("restart", [2, 2, 3, 4, 5], 6),
        ("continuous", [2, 3, 4, 5, 6], 7),
        ("copies", [2, 5, 6, 7, 8], 9),
    ],
)
def test_positions_restart_after_the_context_or_run_on(prefix, expected, answer_position):
    layout = lay_out(PROMPT, PREFIXES[prefix], (AttentionScope(),), 4).layout
    assert layout.positions.tolist() == expected
    assert layout.answer_positions.tolist() == [answer_position]


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_token_ids_are_the_paraphrases_and_the_cue_in_order(prefix):
    sample = lay_out(PROMPT, prefix, (AttentionScope(),), 4)
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8]
    assert sample.layout.visible_segments.tolist() == [1, 2, 2, ALL_PARAPHRASES, ALL_PARAPHRASES]
    assert (np.diff(sample.layout.slots) > 0).all()
    assert sample.layout.logits_indices.tolist() == [4]


def test_copies_at_other_positions_belong_to_their_paraphrase_and_replace_the_shared_context():
    layout = lay_out(PROMPT, PREFIXES["copies"], (AttentionScope(),), 1).layout
    assert layout.copy_slots.tolist() == [0, 3]
    assert layout.slot_segments.tolist() == [1, 1, 1, 2, 2, 2, 2, *[FIRST_ANSWER] * 3]
    assert not layout.sees_context
    assert layout.first_causal_index == 0


def test_each_branch_has_its_cue_behind_the_trunk_and_its_answer_behind_its_cue():
    sample = lay_out(PROMPT, SharedPrefix(), (AttentionScope(), AttentionScope(0), AttentionScope(1)), 2)
    layout = sample.layout
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8, 9, 8, 9, 8]
    assert layout.visible_segments.tolist() == [1, 2, 2, ALL_PARAPHRASES, ALL_PARAPHRASES, 1, 1, 2, 2]
    # behind the longest paraphrase, and behind its own as if that had been asked alone
    assert layout.positions.tolist() == [2, 2, 3, 4, 5, 3, 4, 4, 5]
    assert layout.answer_positions.tolist() == [6, 5, 6]
    assert layout.answer_slots.tolist() == [5, 9, 13]
    assert layout.num_slots == 15


def test_manual_paraphrases_that_see_each_other_are_one_part():
    prompt = Prompt((10,), ((1,), (2, 3), (4,)), (9,), num_manual=2)
    assert lay_out(
        prompt, SharedPrefix(joined_manual=True), (AttentionScope(),), 1
    ).layout.visible_segments.tolist()[:4] == [
        1,
        1,
        1,
        3,
    ]
    assert lay_out(prompt, SharedPrefix(), (AttentionScope(),), 1).layout.visible_segments.tolist()[:4] == [
        1,
        2,
        2,
        3,
    ]


def test_the_layout_of_another_prompt_of_the_same_lengths_has_its_own_tokens():
    other = Prompt(context=(10, 11), segments=((4,), (5, 6)), answer_prefix=(9, 8))
    assert lay_out(PROMPT, SharedPrefix(), (AttentionScope(),), 1).token_ids.tolist() == [1, 2, 3, 9, 8]
    assert lay_out(other, SharedPrefix(), (AttentionScope(),), 1).token_ids.tolist() == [4, 5, 6, 9, 8]


def test_an_empty_context_leaves_the_paraphrases_to_themselves():
    layout = lay_out(Prompt((), ((1, 2), (3,)), (9,)), PREFIXES["copies"], (AttentionScope(),), 1).layout
    assert layout.positions.tolist() == [0, 1, 2, 3]
    assert layout.sees_context


def test_biases_are_those_of_each_answers_scope_and_paraphrases_have_none():
    scopes = (AttentionScope(context_bias=0.5, paraphrase_bias=-1.5), AttentionScope(0))
    layout = lay_out(PROMPT, SharedPrefix(), scopes, 1).layout
    assert layout.biases.tolist() == [[0, 0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, -1.5, -1.5, 0, 0]]
