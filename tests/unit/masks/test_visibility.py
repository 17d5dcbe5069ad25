import random

import numpy as np
import pytest
import torch

from flexray.masks.layout import ALL_PARAPHRASES, CONTEXT_ID, FIRST_ANSWER, SEGMENT_BITS
from flexray.masks.picture import draw_mask
from flexray.masks.visibility import (
    KeyTables,
    QueryTables,
    dense_biases,
    dense_mask,
    make_biases,
    make_visible,
)
from flexray.prompts.prompt import Prompt
from tests import oracles

LAYOUTS = ["shared_context", "full_prompt"]
POSITIONS = ["restart", "continuous"]


CONTEXT, ANSWER = CONTEXT_ID, FIRST_ANSWER


def tables(row, part, order, biases=(0.0, 0.0)):
    """Tables of tokens that are queries and keys: each row's number, part and order."""
    codes = [CONTEXT if p == CONTEXT else r << SEGMENT_BITS | p for r, p in zip(row, part, strict=True)]
    own = torch.tensor(codes, dtype=torch.int32)
    seen = [
        r << SEGMENT_BITS | ALL_PARAPHRASES if p == ANSWER else c
        for r, p, c in zip(row, part, codes, strict=True)
    ]
    order = torch.tensor(order, dtype=torch.int32)
    queries = QueryTables.zeros((1, len(codes)), own.device)
    queries.refresh(torch.tensor(seen), own, order, torch.tensor(biases)[:, None])
    return queries, KeyTables(own, order)


def random_prompt(rnd, num_context):
    segments = tuple(tuple(range(rnd.randint(1, 5))) for _ in range(rnd.randint(1, 5)))
    return Prompt(tuple(range(num_context)), segments, tuple(range(rnd.randint(1, 3))))


def test_one_hand_written_mask_row_of_each_region_in_shared_context():
    # context c c | P1 p | P2 q q | answer prefix a
    mask = draw_mask(Prompt((1, 2), ((3,), (4, 5)), (6,)), "shared_context", "restart", 1).mask.astype(int)
    assert mask[1].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert mask[2].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert mask[4].tolist() == [1, 1, 0, 1, 1, 0, 0]
    assert mask[5].tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert mask[6].tolist() == [1, 1, 1, 1, 1, 1, 1]


def test_one_hand_written_mask_row_of_each_region_in_full_prompt():
    # C1 c | P1 p | C2 c | P2 q q | answer prefix a
    mask = draw_mask(Prompt((1,), ((3,), (4, 5)), (6,)), "full_prompt", "restart").mask.astype(int)
    assert mask[1].tolist() == [1, 1, 0, 0, 0, 0]
    assert mask[2].tolist() == [0, 0, 1, 0, 0, 0]
    assert mask[4].tolist() == [0, 0, 1, 1, 1, 0]
    assert mask[5].tolist() == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("layout", "segments", "ids"),
    [
        ("shared_context", "context P1 P2 P2 answer answer", [1, 3, 4, 5, 6, -1]),
        ("full_prompt", "C1 P1 C2 P2 P2 answer answer", [1, 3, 1, 4, 5, 6, -1]),
    ],
)
def test_a_picture_names_the_segment_and_the_id_of_each_token(layout, segments, ids):
    picture = draw_mask(Prompt((1,), ((3,), (4, 5)), (6,)), layout, "restart", generated=1)
    assert picture.segments == segments.split()
    assert picture.token_ids.tolist() == ids


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_mask_and_positions_equal_the_definition_written_token_by_token(layout, positions):
    rnd = random.Random(0)
    for _ in range(25):
        prompt = random_prompt(rnd, rnd.randint(0, 4))
        picture = draw_mask(prompt, layout, positions, generated=2)
        stream = oracles.stream(prompt, layout, positions, generated=[0, 0])
        assert np.array_equal(picture.mask, oracles.mask_of(stream).numpy())
        assert picture.positions.tolist() == [token.position for token in stream]


def test_every_mask_function_returns_a_bool_tensor_under_vmap():
    queries, keys = tables([0, 0, 0], [CONTEXT, 1, ANSWER], [0, 1, 2])
    visible = make_visible(queries, keys)
    index = torch.arange(3)
    over_keys = torch.vmap(visible, in_dims=(None, None, None, 0))
    over_pairs = torch.vmap(over_keys, in_dims=(None, None, 0, None))
    zero = torch.tensor(0)
    out = over_pairs(zero, zero, index, index)
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.bool
    assert torch.equal(out, dense_mask(queries, keys, index[None])[0, 0])


def test_a_sample_sees_nothing_of_another_sample():
    queries, keys = tables([0, 0, 1, 1], [1, ANSWER, 1, ANSWER], [5, 6, 5, 6])
    mask = dense_mask(queries, keys, torch.arange(4)[None])[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_padding_is_seen_by_nobody_but_padding():
    queries, keys = tables([0, 0, 0, 9], [CONTEXT, 1, ANSWER, 1], [0, 1, 2, 0])
    mask = dense_mask(queries, keys, torch.arange(4)[None])[0, 0]
    assert not mask[:3, 3].any()
    assert mask[3, 3]


def test_each_bias_reaches_its_keys_only():
    queries, keys = tables([0, 0, 0], [CONTEXT, 1, ANSWER], [0, 1, 2], biases=(0.5, -0.25))
    bias = dense_biases(queries, keys, torch.arange(3)[None])[0, 0]
    assert bias[2].tolist() == [0.5, -0.25, 0.0]
    score = make_biases(queries, keys)(torch.tensor(1.0), *(torch.tensor(i) for i in (0, 0, 2, 0)))
    assert score.item() == 1.5


def test_a_branch_of_one_paraphrase_sees_neither_the_others_nor_another_branch():
    # P1 P2 | branch 0 looks at all, branch 1 at P2 only
    parts = [1, 2, FIRST_ANSWER, FIRST_ANSWER + 1]
    own = torch.tensor(parts, dtype=torch.int32)
    order = torch.arange(4, dtype=torch.int32)
    queries = QueryTables.zeros((1, 4), own.device)
    queries.refresh(torch.tensor([1, 2, ALL_PARAPHRASES, 2]), own, order, None)
    mask = dense_mask(queries, KeyTables(own, order), torch.arange(4)[None])[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]]
