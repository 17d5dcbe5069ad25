import math

import numpy as np
import pytest

from flexray.masks.layout import ANSWER, lay_out
from flexray.types import Prompt

PROMPT = Prompt(context=(10, 11), segments=((1,), (2, 3)), cue=(9, 8))


@pytest.mark.parametrize(
    ("layout", "positions", "expected", "answer_position"),
    [
        ("shared_context", "restart", [2, 2, 3, 4, 5], 6),
        ("shared_context", "continuous", [2, 3, 4, 5, 6], 7),
        ("full_prompt", "restart", [2, 2, 3, 4, 5], 6),
        ("full_prompt", "continuous", [2, 5, 6, 7, 8], 9),
    ],
)
def test_positions_restart_after_the_context_or_run_on(layout, positions, expected, answer_position):
    sample = lay_out(PROMPT, layout, positions)
    assert sample.positions.tolist() == expected
    assert sample.answer_position == answer_position


@pytest.mark.parametrize("layout", ["shared_context", "full_prompt"])
@pytest.mark.parametrize("positions", ["restart", "continuous"])
def test_token_ids_are_the_paraphrases_and_the_cue_in_order(layout, positions):
    sample = lay_out(PROMPT, layout, positions)
    assert sample.token_ids.tolist() == [1, 2, 3, 9, 8]
    assert sample.segments.tolist() == [1, 2, 2, ANSWER, ANSWER]
    assert (np.diff(sample.orders) > 0).all()


def test_n_copies_at_the_same_positions_are_one_copy_with_log_n():
    sample = lay_out(PROMPT, "full_prompt", "restart")
    assert sample.context_bias == pytest.approx(math.log(2))
    assert sample.sees_context
    assert len(sample.copy_offsets) == 0


def test_copies_at_other_positions_belong_to_their_segment_and_replace_the_shared_context():
    sample = lay_out(PROMPT, "full_prompt", "continuous")
    assert sample.copy_offsets.tolist() == [0, 3]
    assert sample.copy_segments.tolist() == [1, 2]
    assert not sample.sees_context
    assert sample.context_bias == 0


def test_the_layout_of_another_prompt_of_the_same_lengths_has_its_own_tokens():
    other = Prompt(context=(10, 11), segments=((4,), (5, 6)), cue=(9, 8))
    assert lay_out(PROMPT, "shared_context", "restart").token_ids.tolist() == [1, 2, 3, 9, 8]
    assert lay_out(other, "shared_context", "restart").token_ids.tolist() == [4, 5, 6, 9, 8]


def test_an_empty_context_leaves_the_paraphrases_to_themselves():
    sample = lay_out(Prompt((), ((1, 2), (3,)), (9,)), "full_prompt", "continuous")
    assert sample.positions.tolist() == [0, 1, 2, 3]
    assert len(sample.copy_offsets) == 0
