"""Where each sequence stands: slot, position and the blocks it looks at, token by token, to its end."""

import pytest
import torch

from flexray.config import MethodConfig
from flexray.engine.kv_cache import BLOCK_SIZE, KVCache
from flexray.engine.request import PrefixGroup, Request
from flexray.engine.sampler import SampledTokens
from flexray.engine.sequence_table import SequenceTable, _append
from flexray.masks.shared_context import SharedContext
from flexray.methods import make_methods
from flexray.models.llama import compiled
from flexray.prompts.prompt import Prompt

NEW = 40  # tokens of an answer, more than a block holds
STOP, OTHER = 2, 7
CONTEXT = 48  # tokens: a block and a half
METHODS = [MethodConfig(), MethodConfig(kind="per_prompt"), MethodConfig(positions="continuous")]


@pytest.fixture
def cache():
    cache = KVCache(
        num_layers=1,
        num_kv_heads=1,
        head_dim=8,
        num_slots=64 * BLOCK_SIZE,
        max_requests=8,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    cache.allocate_context(SharedContext((1,) * CONTEXT))
    return cache


@pytest.fixture
def table(cache):
    stop = torch.zeros(16, dtype=torch.bool)
    stop[STOP] = True
    return SequenceTable(cache, max_sequences=6, max_blocks=16, max_new_tokens=NEW, stop=stop)


def place(cache, *lengths, method=METHODS[0]):
    """A request of these paraphrases that has its blocks."""
    prompt = Prompt((1,) * CONTEXT, tuple((3,) * n for n in lengths), (9, 9))
    (made,) = make_methods([method])
    request = Request(0, prompt, PrefixGroup(made.prefix, ((0, made),)), NEW)
    (request.block_table,) = cache.allocate([request.packed])
    return request


def append(table, rows, *token_ids, finite=True):
    table.append(rows, SampledTokens(torch.tensor(token_ids), torch.full((len(token_ids),), finite)))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_each_token_goes_to_the_next_slot_and_position_of_its_sequence(cache, table, method):
    requests = [place(cache, 20, 30, method=method), place(cache, 5, 29, method=method)]
    rows = table.admit(requests, cache.context_lists(head=False))
    for number in range(NEW):
        append(table, rows, *[OTHER] * len(rows))
        i = 0
        for request in requests:
            layout = request.packed.layout
            for first, position in zip(layout.answer_slots, layout.answer_positions, strict=True):
                slot = table.slot_mapping(rows)[i].item()
                assert slot == request.block_table.slots[first + number]
                assert table.position[rows][i] == position + number
                assert table.causal_index[rows][i] == cache.tables.causal_index[slot]
                assert table.segment_ids[2, rows][i] == cache.tables.first[slot]
                i += 1


@pytest.mark.parametrize("answer_prefix_ends_at", [20, 24, 31, 32, 33])
def test_a_sequence_looks_at_the_blocks_of_all_it_sees_and_of_its_answer_up_to_the_next_token(
    cache, table, answer_prefix_ends_at
):
    request = place(cache, 10, answer_prefix_ends_at - 12)
    rows = table.admit([request], cache.context_lists(head=False))
    for number in range(NEW):
        append(table, rows, OTHER)
        seen = request.block_table.slots[: answer_prefix_ends_at + number + 1] // BLOCK_SIZE
        partial, full = table.block_counts(rows)[:, 0].tolist()
        row = rows.item()
        found = [
            *table.block_indices[0, row, :partial].tolist(),
            *table.block_indices[1, row, :full].tolist(),
        ]
        assert sorted(found) == sorted({*cache.context_blocks.tolist(), *seen.tolist()})


def test_a_sequence_ends_with_a_stop_token_a_number_that_is_not_finite_or_its_last_token(cache, table):
    requests = [place(cache, 5) for _ in range(3)]
    stopped, broken, whole = (request.sequences[0] for request in requests)
    rows = table.admit(requests, cache.context_lists(head=False))
    assert table.num_free == 3
    append(table, rows, OTHER, OTHER, OTHER)
    assert table.finished(table.snapshot([stopped, broken, whole], rows)) == []
    table.append(rows, SampledTokens(torch.tensor([STOP, OTHER, OTHER]), torch.tensor([True, False, True])))
    for _ in range(NEW - 3):
        append(table, rows, *[OTHER] * 3, finite=True)
    assert table.finished(table.snapshot([stopped, broken, whole], rows)) == [stopped, broken]
    assert stopped.token_ids == (OTHER, STOP)
    assert broken.token_ids == (OTHER, OTHER)
    assert (stopped.is_finite, broken.is_finite) == (True, False)
    assert table.num_free == 5
    append(table, rows, *[OTHER] * 3)
    assert table.finished(table.snapshot([whole], rows[2:])) == [whole]
    assert whole.token_ids == (OTHER,) * NEW
    assert whole.is_finite
    assert table.num_free == 6


def test_a_snapshot_holds_what_was_so_when_it_was_taken(cache, table):
    requests = [place(cache, 5) for _ in range(2)]
    early, late = (request.sequences[0] for request in requests)
    rows = table.admit(requests, cache.context_lists(head=False))
    append(table, rows, STOP, OTHER)
    padded = torch.cat([rows, torch.tensor([table.padding_row])])  # as those of a decode batch are
    snapshot = table.snapshot([early, late], padded)
    append(table, rows, OTHER, STOP)
    assert table.finished(snapshot) == [early]
    assert (early.token_ids, late.token_ids) == ((STOP,), None)
    assert table.finished(table.snapshot([late], rows[1:])) == [late]
    assert late.token_ids == (OTHER, STOP)


def test_a_row_of_a_sequence_that_has_finished_serves_the_next_one_from_its_start(cache, table):
    first = place(cache, 25)
    rows = table.admit([first], cache.context_lists(head=False))
    append(table, rows, OTHER)
    append(table, rows, STOP, finite=False)
    table.finished(table.snapshot(first.sequences, rows))
    cache.free([first.block_table])
    second = place(cache, 4)
    rows = table.admit([second], cache.context_lists(head=False))
    append(table, rows, STOP)
    assert table.finished(table.snapshot(second.sequences, rows)) == list(second.sequences)
    assert second.sequences[0].token_ids == (STOP,)
    assert second.sequences[0].is_finite


def test_as_a_graph_which_serves_all_sizes_appending_is_the_same(cache):
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for rows, count in ((6, 4), (9, 8)):
        stop = torch.arange(16) == STOP
        plain, other = (SequenceTable(cache, rows, 16, NEW, stop) for _ in range(2))
        for table in (plain, other):
            torch.manual_seed(rows)
            table.done[:rows] = torch.rand(rows) < 0.3
            table.produced.copy_(torch.randint(0, NEW, (rows + 1,)))
            table.token.copy_(torch.randint(0, 16, (rows + 1,)))
        padded = torch.cat([torch.randperm(rows)[: count - 2], torch.full((2,), plain.padding_row)])
        sampled = SampledTokens(torch.randint(0, 16, (count,)), torch.rand(count) < 0.8)
        _append(plain, padded, sampled)
        compiled(_append, dynamic=True)(other, padded, sampled)
        for name in ("done", "produced", "token", "output", "position", "causal_index", "not_finite"):
            assert torch.equal(getattr(plain, name), getattr(other, name)), name
        assert plain.done[-1], "padding is never under way"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1
