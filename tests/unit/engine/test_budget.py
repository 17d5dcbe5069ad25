"""Sizes never grow when they are halved, and a memory that holds nothing is named at the start."""

import dataclasses

import pytest

from flexray.config import EngineConfig
from flexray.engine.budget import LEAST_POOL_SLOTS, activation_bytes, budget_for, check_room, slot_bytes
from flexray.types import ConfigError

GIB = 2**30


@pytest.fixture
def sizes_of(make_model):
    """What is planned for a GPU that has this many bytes free beside the weights, if it is not refused."""
    shape = make_model().config

    def sizes_of(free, **settings):
        config = EngineConfig(**settings)
        budget = budget_for(shape, 4, free, config)
        check_room(budget, shape, 4, free, config)
        return budget

    return sizes_of


@pytest.mark.parametrize("slots", [0, 64, LEAST_POOL_SLOTS - 32, LEAST_POOL_SLOTS, 2**20])
def test_no_size_grows_when_it_is_halved(make_model, slots):
    whole = budget_for(make_model().config, 2, None, EngineConfig())
    budget = dataclasses.replace(whole, max_slots=slots)
    while budget.max_rows > 1:
        half = budget.halved()
        for size in dataclasses.fields(half):
            assert getattr(half, size.name) <= getattr(budget, size.name), size.name
        budget = half
    assert budget.max_slots == min(slots, max(LEAST_POOL_SLOTS, slots >> 5))


def test_a_memory_that_the_weights_fill_holds_no_slots(make_model):
    assert budget_for(make_model().config, 2, -GIB, EngineConfig()).max_slots == 0


def test_a_gpu_that_holds_no_row_is_refused_with_the_numbers_and_what_to_do(sizes_of):
    with pytest.raises(ConfigError) as caught:
        sizes_of(GIB // 4, max_prefill_tokens=2**20)
    message = str(caught.value)
    assert "0.2 GiB are free beside the weights" in message
    assert "prefill passes of 1048576 tokens take " in message
    assert "Lower engine.max_prefill_tokens" in message


def test_a_gpu_that_holds_a_single_row_is_not_refused(sizes_of, make_model):
    shape = make_model().config
    room = activation_bytes(shape, 4) * 256 + 2 * 32 * slot_bytes(shape, 4)
    settings = {"max_prefill_tokens": 256, "memory_fraction": 1.0}
    assert sizes_of(room, **settings).max_slots == 64
    with pytest.raises(ConfigError):
        sizes_of(room - 1, **settings)
