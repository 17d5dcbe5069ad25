import numpy as np
import pytest

from flexray.masks.layout import ALL, FIRST_BRANCH, Trunk, View, lay_out
from flexray.types import Prompt

PROMPT = Prompt(context=(10, 11), segments=((1,), (2, 3)), cue=(9, 8))
TRUNKS = {
    "restart": Trunk(),
    "continuous": Trunk(continuous=True),
    "copies": Trunk(copies=True, continuous=True),
}


@pytest.mark.parametrize(
    ("trunk", "expected", "answer_position"),
    [
        ("restart", [2, 2, 3, 4, 5], 6),
        ("continuous", [2, 3, 4, 5, 6], 7),
        ("copies", [2, 5, 6, 7, 8], 9),
    ],
)
def test_positions_restart_after_the_context_or_run_on(trunk, expected, answer_position):
    shape = lay_out(PROMPT, TRUNKS[trunk], (View(),), 4).shape
    assert shape.positions.tolist() == expected
    assert shape.answer_positions.tolist() == [answer_position]


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_token_ids_are_the_paraphrases_and_the_cue_in_order(trunk):
    sample = lay_out(PROMPT, trunk, (View(),), 4)
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8]
    assert sample.shape.seen_parts.tolist() == [1, 2, 2, ALL, ALL]
    assert (np.diff(sample.shape.slots) > 0).all()
    assert sample.shape.cue_ends.tolist() == [4]


def test_copies_at_other_positions_belong_to_their_paraphrase_and_replace_the_shared_context():
    shape = lay_out(PROMPT, TRUNKS["copies"], (View(),), 1).shape
    assert shape.copy_slots.tolist() == [0, 3]
    assert shape.slot_parts.tolist() == [1, 1, 1, 2, 2, 2, 2, *[FIRST_BRANCH] * 3]
    assert not shape.sees_context
    assert shape.first_order == 0


def test_each_branch_has_its_cue_behind_the_trunk_and_its_answer_behind_its_cue():
    sample = lay_out(PROMPT, Trunk(), (View(), View(0), View(1)), 2)
    shape = sample.shape
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8, 9, 8, 9, 8]
    assert shape.seen_parts.tolist() == [1, 2, 2, ALL, ALL, 1, 1, 2, 2]
    # behind the longest paraphrase, and behind its own as if that had been asked alone
    assert shape.positions.tolist() == [2, 2, 3, 4, 5, 3, 4, 4, 5]
    assert shape.answer_positions.tolist() == [6, 5, 6]
    assert shape.answer_slots.tolist() == [5, 9, 13]
    assert shape.num_slots == 15


def test_manual_paraphrases_that_see_each_other_are_one_part():
    prompt = Prompt((10,), ((1,), (2, 3), (4,)), (9,), num_manual=2)
    assert lay_out(prompt, Trunk(joined_manual=True), (View(),), 1).shape.seen_parts.tolist()[:4] == [
        1,
        1,
        1,
        3,
    ]
    assert lay_out(prompt, Trunk(), (View(),), 1).shape.seen_parts.tolist()[:4] == [1, 2, 2, 3]


def test_the_layout_of_another_prompt_of_the_same_lengths_has_its_own_tokens():
    other = Prompt(context=(10, 11), segments=((4,), (5, 6)), cue=(9, 8))
    assert lay_out(PROMPT, Trunk(), (View(),), 1).token_ids.tolist() == [1, 2, 3, 9, 8]
    assert lay_out(other, Trunk(), (View(),), 1).token_ids.tolist() == [4, 5, 6, 9, 8]


def test_an_empty_context_leaves_the_paraphrases_to_themselves():
    shape = lay_out(Prompt((), ((1, 2), (3,)), (9,)), TRUNKS["copies"], (View(),), 1).shape
    assert shape.positions.tolist() == [0, 1, 2, 3]
    assert shape.sees_context
