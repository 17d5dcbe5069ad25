"""The cache's books: who has which blocks, that nobody shares one, and that all come back."""

import random

import numpy as np
import pytest
import torch

from flexray.engine.block_lists import prompt_blocks, sequence_blocks
from flexray.engine.kv_cache import BLOCK_SIZE, FREE_ID, PADDING_ID, BlockTable, KVCache, blocks_for
from flexray.masks.block_masks import NO_BLOCKS, BlockLists
from flexray.masks.layout import (
    FIRST_ANSWER,
    SEGMENT_BITS,
    AttentionScope,
    SharedPrefix,
    lay_out,
)
from flexray.masks.runs import FIRST, LAST, VISIBLE_FIRST, VISIBLE_LAST, expand
from flexray.masks.shared_context import CONTEXT_ID, HEAD_ID, SharedContext
from flexray.prompts.prompt import Prompt

BLOCKS = 24
ALL_OF_IT, SHARED, MERGED = (AttentionScope(),), SharedPrefix(), SharedPrefix(merged=True)


def empty_cache():
    return KVCache(
        num_layers=2,
        num_kv_heads=1,
        head_dim=8,
        num_slots=BLOCKS * BLOCK_SIZE,
        max_requests=5,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


@pytest.fixture
def cache():
    """With a context of two blocks, the second one half full."""
    cache = empty_cache()
    cache.allocate_context(SharedContext((1,) * (BLOCK_SIZE + BLOCK_SIZE // 2)))
    return cache


def prompt(*lengths, new=4, scopes=ALL_OF_IT, prefix=SHARED):
    return lay_out(Prompt((1,) * 48, tuple((3,) * n for n in lengths), (9,)), prefix, scopes, new)


def owners(cache):
    """The first segment id of each block's slots, as sets."""
    return [set(block.tolist()) for block in cache.tables.first.reshape(-1, BLOCK_SIZE)]


def test_a_new_cache_has_scratch_the_context_and_free_blocks(cache):
    found = owners(cache)
    assert PADDING_ID != FREE_ID  # or padding would see free slots
    assert found[0] == {PADDING_ID}
    assert found[1] == {CONTEXT_ID}
    assert found[2] == {CONTEXT_ID, FREE_ID}
    assert set().union(*found[3:]) == {FREE_ID}
    lists = cache.context_lists(head=True)
    assert (lists.full.tolist(), lists.partial.tolist()) == ([1], [2])
    assert cache.tables.causal_index[cache.context_slots].tolist() == list(range(48))


def test_a_request_gets_whole_blocks_that_say_whose_slots_they_are_and_in_which_order(cache):
    (one, two) = cache.allocate([prompt(20, 30), prompt(5)])
    layout = prompt(20, 30).layout
    assert len(one.blocks) == blocks_for(layout.num_slots) == 2
    assert len(one.slots) == layout.num_slots == 55
    codes = cache.tables.first[one.slots]
    assert {code >> SEGMENT_BITS for code in codes.tolist()} == {one.request}
    assert [code & (1 << SEGMENT_BITS) - 1 for code in codes.tolist()] == [1] * 20 + [2] * 30 + [
        FIRST_ANSWER
    ] * 5
    assert cache.tables.causal_index[one.slots].tolist() == list(range(48, 48 + 55))
    assert one.request != two.request
    assert not set(one.blocks) & set(two.blocks)


def test_as_many_requests_get_blocks_as_there_is_room_for(cache):
    few_requests = cache.allocate([prompt(5)] * 9)
    assert len(few_requests) == cache.max_requests
    assert cache.allocate([prompt(5)]) == []
    cache.free(few_requests)
    few_blocks = cache.allocate([prompt(9 * BLOCK_SIZE)] * 5)
    assert len(few_blocks) == 2
    assert cache.allocate([prompt(9 * BLOCK_SIZE)]) == []
    assert len(cache.allocate([prompt(5)])) == 1


def test_blocks_and_requests_are_never_of_two_and_all_come_back(cache):
    rnd, alive = random.Random(0), []
    for _ in range(300):
        if alive and rnd.random() < 0.5:
            cache.free([alive.pop(rnd.randrange(len(alive))) for _ in range(rnd.randint(1, len(alive)))])
        else:
            alive += cache.allocate([prompt(rnd.randint(1, 90)) for _ in range(rnd.randint(1, 3))])
        blocks = np.concatenate([np.zeros(0, dtype=np.int64), *(p.blocks for p in alive)])
        assert len(set(blocks.tolist())) == len(blocks)
        assert set(blocks.tolist()).isdisjoint({0, 1, 2})
        assert len({p.request for p in alive}) == len(alive) <= cache.max_requests
    cache.free(alive)
    (whole,) = cache.allocate([prompt((BLOCKS - 3) * BLOCK_SIZE - 5)])
    assert whole.blocks.tolist() == list(range(3, BLOCKS)), "side by side again"


def test_zeroing_a_request_overwrites_its_blocks_in_all_layers_and_no_others(cache):
    one, *_ = cache.allocate([prompt(20, 30), prompt(5)])
    for layer in (*cache.keys, *cache.values):
        layer.fill_(torch.nan)
    cache.zero([one])
    mine = torch.zeros(cache.num_blocks, dtype=torch.bool)
    mine[one.blocks.tolist()] = True
    for layer in (*cache.keys, *cache.values):
        blocks = layer[0].reshape(cache.num_blocks, -1)
        assert (blocks[mine] == 0).all()
        assert blocks[~mine].isnan().all()


def test_the_head_begins_a_block_so_that_requests_can_leave_it_out():
    cache = empty_cache()
    cache.allocate_context(SharedContext((1,) * (2 * BLOCK_SIZE + 8), num_head=BLOCK_SIZE + 3))
    found = owners(cache)
    assert found[1:5] == [{CONTEXT_ID}, {CONTEXT_ID, FREE_ID}, {HEAD_ID}, {HEAD_ID, FREE_ID}]
    assert cache.tables.causal_index[cache.context_slots].tolist() == list(range(2 * BLOCK_SIZE + 8))
    without, whole = cache.context_lists(head=False), cache.context_lists(head=True)
    assert (without.full.tolist(), without.partial.tolist()) == ([1], [2])
    assert (whole.full.tolist(), whole.partial.tolist()) == ([1, 3], [2, 4])
    apart = cache.context_lists(head=True, apart=cache.plain_context)
    assert (apart.full.tolist(), apart.partial.tolist()) == ([3], [2, 4])


def test_a_context_has_one_place(cache):
    with pytest.raises(AssertionError, match="has its blocks already"):
        cache.allocate_context(SharedContext((1,) * 3))


def test_slots_say_which_paraphrases_share_them(cache):
    shared = lay_out(Prompt((1,) * 48, ((3, 4, 5), (3, 6), (3, 4)), (9,)), MERGED, ALL_OF_IT, 1)
    (table,) = cache.allocate([shared])
    ids = torch.stack([cache.tables.first, cache.tables.last])[:, table.slots]
    first, last = ids - (table.request << SEGMENT_BITS)
    # in order: 3 4, 3 4 5, 3 6
    assert first.tolist() == [1, 1, 2, 3, FIRST_ANSWER, FIRST_ANSWER]
    assert last.tolist() == [3, 2, 2, 3, FIRST_ANSWER, FIRST_ANSWER]
    assert cache.tables.log_copies[table.slots].exp().round().tolist() == [3, 2, 1, 1, 1, 1]
    assert cache.tables.log_copies[cache.context_slots].tolist() == [0] * 48


def tables_of(layouts):
    """Block tables that have each layout's blocks behind those of the last one, the first one at 100."""
    found, start = [], 100
    for number, layout in enumerate(layouts):
        blocks = np.arange(start, start + blocks_for(layout.num_slots))
        found.append(BlockTable(number, blocks, np.zeros(layout.num_slots, dtype=np.int64)))
        start += len(blocks)
    return found


@pytest.mark.parametrize(
    "context", [NO_BLOCKS, BlockLists(np.array([1, 2]), np.array([3]))], ids=["alone", "context"]
)
@pytest.mark.parametrize(
    "prefix", [SharedPrefix(), SharedPrefix(copies=True), MERGED], ids=["shared", "copies", "merged"]
)
@pytest.mark.parametrize(
    "scopes",
    [(AttentionScope(),), (AttentionScope(0), AttentionScope(1)), (AttentionScope(), AttentionScope(1))],
    ids=len,
)
def test_a_sequence_looks_at_the_blocks_of_what_it_sees_and_at_those_of_its_answer(prefix, scopes, context):
    new = 40
    prompts = [
        prompt(*lengths, new=new, scopes=scopes, prefix=prefix) for lengths in ((70, 33), (1, 1), (64, 96))
    ]
    layouts = [found.layout for found in prompts]
    tables = tables_of(layouts)
    blocks, (in_prompt, up_to) = sequence_blocks(layouts, tables, context), prompt_blocks(layouts, tables)
    shared = context if layouts[0].sees_context else NO_BLOCKS
    number = 0
    for layout, table, held, reach in zip(layouts, tables, in_prompt, up_to, strict=True):
        tokens = expand(layout.runs)
        to_come = np.zeros(len(tokens), dtype=bool)
        for first in layout.answer_slots:
            to_come[first : first + new] = True
        assert held.tolist() == [
            block for i, block in enumerate(table.blocks) if not to_come[i * BLOCK_SIZE :][:BLOCK_SIZE].all()
        ]
        for i, block in enumerate(table.blocks):
            if block in held:
                assert held[: reach[i]].tolist()[-1] == block
        for b in range(len(scopes)):
            low, high = layout.runs[len(layout.runs) - 2 * (len(scopes) - b)][[VISIBLE_FIRST, VISIBLE_LAST]]
            own = tokens[:, FIRST] == FIRST_ANSWER + b
            seen = (tokens[:, FIRST] <= high) & (low <= tokens[:, LAST]) | own
            full = blocks.indices[1, number, : blocks.num_full[number]].tolist()
            other = blocks.indices[0, number, : blocks.num_other[number]].tolist()
            first = layout.answer_slots[b]
            answer = table.blocks[first // BLOCK_SIZE : (first + new - 1) // BLOCK_SIZE + 1].tolist()
            assert blocks.indices[0, number, len(other) :][: len(answer)].tolist() == answer
            assert full[: len(shared.full)] == shared.full.tolist()
            assert other[: len(shared.partial)] == shared.partial.tolist()
            full, other = full[len(shared.full) :], other[len(shared.partial) :]
            by_block = [seen[i * BLOCK_SIZE :][:BLOCK_SIZE] for i in range(len(table.blocks))]
            assert {*full, *other, *answer} == {
                block for block, slots in zip(table.blocks, by_block, strict=True) if slots.any()
            }
            whole = [
                block
                for i, block in enumerate(table.blocks)
                if by_block[i].sum() == BLOCK_SIZE and not to_come[i * BLOCK_SIZE :][:BLOCK_SIZE].any()
            ]
            assert full == whole
            assert not set(full) & set(other) | set(other) & set(answer)
            number += 1
    assert len(blocks.num_full) == number
