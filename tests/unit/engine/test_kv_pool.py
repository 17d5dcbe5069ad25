"""The pool's books: who has which blocks, that nobody shares one, and that all come back."""

import random

import numpy as np
import pytest
import torch

from flexray.engine.kv_pool import BLOCK_SIZE, FREE_CODE, PADDING_CODE, KVPool, blocks_for, row_blocks
from flexray.masks.layout import CONTEXT_CODE, FIRST_BRANCH, PART_BITS, Trunk, View, lay_out
from flexray.types import Prompt

BLOCKS = 24
ALL_OF_IT, SHARED = (View(),), Trunk()


@pytest.fixture
def pool():
    """With a context of two blocks, the second one half full."""
    pool = KVPool(
        num_layers=2,
        num_kv_heads=1,
        head_dim=8,
        num_slots=BLOCKS * BLOCK_SIZE,
        max_rows=5,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    pool.place_context(BLOCK_SIZE + BLOCK_SIZE // 2)
    return pool


def sample(*lengths, new=4, views=ALL_OF_IT, trunk=SHARED):
    return lay_out(Prompt((1,) * 48, tuple((3,) * n for n in lengths), (9,)), trunk, views, new)


def owners(pool):
    """The code of each block's slots, as sets."""
    return [set(block.tolist()) for block in pool.tables.code.reshape(-1, BLOCK_SIZE)]


def test_a_new_pool_has_scratch_the_context_and_free_blocks(pool):
    found = owners(pool)
    assert found[0] == {PADDING_CODE}
    assert found[1] == {CONTEXT_CODE}
    assert found[2] == {CONTEXT_CODE, FREE_CODE}
    assert set().union(*found[3:]) == {FREE_CODE}
    lists = pool.context_lists
    assert (lists.full.tolist(), lists.partial.tolist()) == ([1], [2])
    assert pool.tables.order[pool.context_slots].tolist() == list(range(48))


def test_a_row_gets_whole_blocks_that_say_whose_slots_they_are_and_in_which_order(pool):
    (one, two) = pool.place([sample(20, 30), sample(5)])
    shape = sample(20, 30).shape
    assert len(one.blocks) == blocks_for(shape.num_slots) == 2
    assert len(one.slots) == shape.num_slots == 55
    codes = pool.tables.code[one.slots]
    assert {code >> PART_BITS for code in codes.tolist()} == {one.row}
    assert [code & (1 << PART_BITS) - 1 for code in codes.tolist()] == [1] * 20 + [2] * 30 + [
        FIRST_BRANCH
    ] * 5
    assert pool.tables.order[one.slots].tolist() == list(range(48, 48 + 55))
    assert one.row != two.row
    assert not set(one.blocks) & set(two.blocks)


def test_as_many_rows_are_placed_as_there_is_room_for(pool):
    few_rows = pool.place([sample(5)] * 9)
    assert len(few_rows) == pool.max_rows
    assert pool.place([sample(5)]) == []
    pool.release(few_rows)
    few_blocks = pool.place([sample(9 * BLOCK_SIZE)] * 5)
    assert len(few_blocks) == 2
    assert pool.place([sample(9 * BLOCK_SIZE)]) == []
    assert len(pool.place([sample(5)])) == 1


def test_blocks_and_rows_are_never_of_two_and_all_come_back(pool):
    rnd, alive = random.Random(0), []
    for _ in range(300):
        if alive and rnd.random() < 0.5:
            pool.release([alive.pop(rnd.randrange(len(alive))) for _ in range(rnd.randint(1, len(alive)))])
        else:
            alive += pool.place([sample(rnd.randint(1, 90)) for _ in range(rnd.randint(1, 3))])
        blocks = np.concatenate([np.zeros(0, dtype=np.int64), *(p.blocks for p in alive)])
        assert len(set(blocks.tolist())) == len(blocks)
        assert set(blocks.tolist()).isdisjoint({0, 1, 2})
        assert len({p.row for p in alive}) == len(alive) <= pool.max_rows
    pool.release(alive)
    (whole,) = pool.place([sample((BLOCKS - 3) * BLOCK_SIZE - 5)])
    assert whole.blocks.tolist() == list(range(3, BLOCKS)), "side by side again"


def test_a_context_has_one_place(pool):
    with pytest.raises(AssertionError, match="has a place already"):
        pool.place_context(3)


@pytest.mark.parametrize("trunk", [Trunk(), Trunk(copies=True)], ids=["shared", "copies"])
@pytest.mark.parametrize("views", [(View(),), (View(0), View(1)), (View(), View(1))], ids=len)
def test_a_branch_looks_at_the_blocks_of_what_it_sees_and_at_those_of_its_answer(trunk, views):
    new = 40
    shape = sample(70, 33, new=new, views=views, trunk=trunk).shape
    found = row_blocks(shape, new)
    for number, view in enumerate(views):
        parts = {FIRST_BRANCH + number}
        parts |= {1, 2} if view.paraphrase is None else {shape.paraphrase_parts[view.paraphrase]}
        seen = {slot // BLOCK_SIZE for slot, part in enumerate(shape.slot_parts) if part in parts}
        lists = found.branches[number]
        assert set(lists.full) | set(lists.partial) == seen
        assert not set(lists.full) & set(lists.partial)
        for block in lists.full:
            assert set(shape.slot_parts[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE]) <= parts
        first = shape.answer_slots[number]
        answer = list(range(first // BLOCK_SIZE, (first + new - 1) // BLOCK_SIZE + 1))
        assert lists.partial[-found.answers[number] :].tolist() == answer
