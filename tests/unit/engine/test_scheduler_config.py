"""Sizes never grow when they are halved, and a memory that holds nothing is named at the start."""

import dataclasses

import pytest

from flexray.config import EngineConfig
from flexray.engine.scheduler_config import (
    MIN_CACHE_SLOTS,
    activation_bytes,
    check_room,
    scheduler_config_for,
    slot_bytes,
)
from flexray.errors import ConfigError

GIB = 2**30


@pytest.fixture
def sizes_of(make_model):
    """What is planned for a GPU that has this many bytes free beside the weights, if it is not refused."""
    shape = make_model().config

    def sizes_of(free, **settings):
        config = EngineConfig(**settings)
        sizes = scheduler_config_for(shape, 4, free, config)
        check_room(sizes, shape, 4, free, config)
        return sizes

    return sizes_of


@pytest.mark.parametrize("slots", [0, 64, MIN_CACHE_SLOTS - 32, MIN_CACHE_SLOTS, 2**20])
def test_no_size_grows_when_it_is_halved(make_model, slots):
    whole = scheduler_config_for(make_model().config, 2, None, EngineConfig())
    sizes = dataclasses.replace(whole, max_num_slots=slots)
    while sizes.max_num_seqs > 1:
        half = sizes.halved()
        for size in dataclasses.fields(half):
            assert getattr(half, size.name) <= getattr(sizes, size.name), size.name
        sizes = half
    assert sizes.max_num_slots == min(slots, max(MIN_CACHE_SLOTS, slots >> 5))


def test_a_memory_that_the_weights_fill_holds_no_slots(make_model):
    assert scheduler_config_for(make_model().config, 2, -GIB, EngineConfig()).max_num_slots == 0


def test_a_gpu_that_holds_no_row_is_refused_with_the_numbers_and_what_to_do(sizes_of):
    with pytest.raises(ConfigError) as caught:
        sizes_of(GIB // 4, max_num_batched_tokens=2**20)
    message = str(caught.value)
    assert "0.2 GiB are free beside the weights" in message
    assert "prefill passes of 1048576 tokens take " in message
    assert "Lower engine.max_num_batched_tokens" in message


def test_a_gpu_that_holds_a_single_row_is_not_refused(sizes_of, make_model):
    shape = make_model().config
    room = activation_bytes(shape, 4) * 256 + 2 * 32 * slot_bytes(shape, 4)
    settings = {"max_num_batched_tokens": 256, "gpu_memory_utilization": 1.0}
    assert sizes_of(room, **settings).max_num_slots == 64
    with pytest.raises(ConfigError):
        sizes_of(room - 1, **settings)
