import math
import random

import numpy as np
import pytest
import torch

from flexray.masks.layout import (
    ALL_PARAPHRASES,
    FIRST_ANSWER,
    NUM_BIASES,
    SEGMENT_BITS,
    AttentionScope,
    SharedPrefix,
)
from flexray.masks.shared_context import CONTEXT_ID, HEAD_ID
from flexray.masks.stream import make_stream
from flexray.masks.visibility import (
    KeyTables,
    QueryTables,
    dense_biases,
    dense_mask,
    make_score_mod,
    make_visible,
)
from flexray.prompts.prompt import Prompt
from tests import oracles

LAYOUTS = ["shared_context", "full_prompt"]
POSITIONS = ["restart", "continuous"]


CONTEXT, HEAD, ANSWER = CONTEXT_ID, HEAD_ID, FIRST_ANSWER


def tables(row, part, order, biases=(0.0,) * NUM_BIASES):
    """Tables of tokens that are queries and keys: each row's number, part and order."""
    codes = [p if p in (CONTEXT, HEAD) else r << SEGMENT_BITS | p for r, p in zip(row, part, strict=True)]
    own = torch.tensor(codes, dtype=torch.int32)
    seen = [
        [r << SEGMENT_BITS | end if p == ANSWER else c for r, p, c in zip(row, part, codes, strict=True)]
        for end in ALL_PARAPHRASES
    ]
    order = torch.tensor(order, dtype=torch.int32)
    queries = QueryTables.zeros((1, len(codes)), own.device)
    queries.refresh(torch.tensor(seen), own, order, torch.tensor(biases)[:, None])
    return queries, KeyTables.of(own, own, order)


def random_prompt(rnd, num_context):
    segments = tuple(tuple(range(rnd.randint(1, 5))) for _ in range(rnd.randint(1, 5)))
    return Prompt(tuple(range(num_context)), segments, tuple(range(rnd.randint(1, 3))))


def stream_of(prompt, layout, positions, generated):
    """The stream with copies of the context written out, and tokens of the answer that are not known yet."""
    prefix = SharedPrefix(copies=layout == "full_prompt", continuous=positions == "continuous")
    return make_stream(prompt, prefix, (AttentionScope(),), [(-1,) * generated])


def test_one_hand_written_mask_row_of_each_segment_in_shared_context():
    # context c c | P1 p | P2 q q | answer prefix a
    mask = stream_of(Prompt((1, 2), ((3,), (4, 5)), (6,)), "shared_context", "restart", 1).mask().astype(int)
    assert mask[1].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert mask[2].tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert mask[4].tolist() == [1, 1, 0, 1, 1, 0, 0]
    assert mask[5].tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert mask[6].tolist() == [1, 1, 1, 1, 1, 1, 1]


def test_one_hand_written_mask_row_of_each_segment_in_full_prompt():
    # C1 c | P1 p | C2 c | P2 q q | answer prefix a
    mask = stream_of(Prompt((1,), ((3,), (4, 5)), (6,)), "full_prompt", "restart", 0).mask().astype(int)
    assert mask[1].tolist() == [1, 1, 0, 0, 0, 0]
    assert mask[2].tolist() == [0, 0, 1, 0, 0, 0]
    assert mask[4].tolist() == [0, 0, 1, 1, 1, 0]
    assert mask[5].tolist() == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("layout", "segments", "ids"),
    [
        ("shared_context", "context P1 P2 answer_prefix answer", [1, 3, 4, 5, 6, -1]),
        ("full_prompt", "C1 P1 C2 P2 answer_prefix answer", [1, 3, 1, 4, 5, 6, -1]),
    ],
)
def test_a_stream_names_its_segments_and_has_the_id_of_each_token(layout, segments, ids):
    stream = stream_of(Prompt((1,), ((3,), (4, 5)), (6,)), layout, "restart", 1)
    assert [segment.name for segment in stream.segments] == segments.split()
    assert stream.token_ids.tolist() == ids


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_mask_and_positions_equal_the_definition_written_token_by_token(layout, positions):
    rnd = random.Random(0)
    for _ in range(25):
        prompt = random_prompt(rnd, rnd.randint(0, 4))
        found = stream_of(prompt, layout, positions, generated=2)
        stream = oracles.stream(prompt, layout, positions, generated=[0, 0])
        assert np.array_equal(found.mask(), oracles.mask_of(stream).numpy())
        assert found.positions.tolist() == [token.position for token in stream]


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
    parts = [CONTEXT, HEAD, 1, ANSWER]
    queries, keys = tables([0] * 4, parts, [0, 1, 2, 3], biases=(0.5, 0.125, -0.25, 0.0, 0.0))
    bias = dense_biases(queries, keys, torch.arange(4)[None], "all")[0, 0]
    # the head is part of all paraphrases, and weighs as much as so many copies
    assert bias[3].tolist() == [0.5, 0.125 - 0.25, -0.25, 0.0]
    at = [torch.tensor(i) for i in (0, 0, 3, 0)]
    assert make_score_mod(queries, keys, "all")(torch.tensor(1.0), *at).item() == 1.5
    assert make_score_mod(queries, keys, "copies")(torch.tensor(1.0), *at).item() == 1.0


def test_a_sequence_of_one_paraphrase_sees_neither_the_others_nor_another_sequence():
    # P1 P2 | sequence 0 sees all, sequence 1 P2 only
    parts = [1, 2, FIRST_ANSWER, FIRST_ANSWER + 1]
    own = torch.tensor(parts, dtype=torch.int32)
    order = torch.arange(4, dtype=torch.int32)
    queries = QueryTables.zeros((1, 4), own.device)
    first, last = ALL_PARAPHRASES
    queries.refresh(torch.tensor([[1, 2, first, 2], [1, 2, last, 2]]), own, order, None)
    mask = dense_mask(queries, KeyTables.of(own, own, order), torch.arange(4)[None])[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]]


def test_a_token_that_paraphrases_share_is_seen_by_those_and_by_no_other():
    # P1 P2 begin with s, P3 has its own | p q r | branch 0 looks at all, branch 1 at P2
    first = torch.tensor([1, 1, 2, 3, ANSWER, ANSWER + 1], dtype=torch.int32)
    last = torch.tensor([2, 1, 2, 3, ANSWER, ANSWER + 1], dtype=torch.int32)
    low, high = ALL_PARAPHRASES
    order = torch.arange(6, dtype=torch.int32)
    queries = QueryTables.zeros((1, 6), first.device)
    biases = torch.zeros(NUM_BIASES, 6)
    biases[1, 4] = math.log(3)
    queries.refresh(torch.tensor([[1, 1, 2, 3, low, 2], [1, 1, 2, 3, high, 2]]), first, order, biases)
    keys = KeyTables.of(first, last, order)
    assert dense_mask(queries, keys, torch.arange(6)[None])[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 0, 1, 0, 0, 1],
    ]
    # it weighs twice for who sees all
    for bias in ("copies", "all"):
        weights = dense_biases(queries, keys, torch.arange(6)[None], bias)[0, 0].exp().round().int()
        assert weights.tolist() == [[2 if (q, k) == (4, 0) else 1 for k in range(6)] for q in range(6)]
