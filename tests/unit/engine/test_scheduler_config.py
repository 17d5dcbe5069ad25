"""Sizes never grow when they are halved, and a memory that holds nothing is named at the start."""

import dataclasses

import pytest
from transformers import LlamaConfig

from flexray.config import EngineConfig
from flexray.engine.kv_cache import BLOCK_SIZE
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


@pytest.mark.parametrize("slots", [0, 64, MIN_CACHE_SLOTS - 32, MIN_CACHE_SLOTS, 2**19 + 32, 2**20])
def test_no_size_grows_when_it_is_halved(make_model, slots):
    whole = scheduler_config_for(make_model().config, 2, None, EngineConfig())
    sizes = dataclasses.replace(whole, max_num_slots=slots)
    while sizes.max_num_seqs > 1:
        half = sizes.halved(64)
        assert half.max_num_slots % BLOCK_SIZE == 0
        for size in dataclasses.fields(half):
            assert getattr(half, size.name) <= getattr(sizes, size.name), size.name
        sizes = half
    assert sizes.max_num_slots == min(slots, max(MIN_CACHE_SLOTS, (slots >> 5) & -BLOCK_SIZE))


def test_a_memory_that_the_weights_fill_holds_no_slots(make_model):
    assert scheduler_config_for(make_model().config, 2, -GIB, EngineConfig()).max_num_slots == 0


def test_prefill_passes_have_few_sizes_and_leave_little_padding(make_model):
    config = EngineConfig(max_num_batched_tokens=8192, deterministic=False)
    sizes = scheduler_config_for(make_model().config, 4, None, config)
    assert {sizes.prefill_bucket(n) for n in range(1, 8193)} == {256, 512, 1024, 2048, 4096, 8192}
    passes, left = [], 20_000
    while left:
        passes.append(sizes.prefill_pass(left))
        left -= passes[-1]
    assert passes == [8192, 8192, 2048, 1024, 512, 32]


def test_a_deterministic_engine_has_one_size_of_pass_and_one_of_decode_batch(make_model):
    config = EngineConfig(max_num_batched_tokens=1024, max_num_seqs=16)
    sizes = scheduler_config_for(make_model().config, 4, None, config)
    assert {sizes.prefill_bucket(n) for n in range(1, 1025)} == {1024}
    assert [sizes.prefill_pass(n) for n in (3000, 1024, 7)] == [1024, 1024, 7]
    assert {sizes.decode_bucket(n) for n in range(1, 17)} == {16}
    assert sizes.decode_bucket(17) == 32  # of sequences that choose together and are more


def test_on_a_gpu_the_host_works_ahead_and_looks_seldom_on_a_cpu_it_does_neither(make_model):
    shape, config = make_model().config, EngineConfig(max_num_seqs=8)
    cpu, gpu = (scheduler_config_for(shape, 4, free, config) for free in (None, 80 * GIB))
    assert (cpu.max_num_seqs, cpu.lookahead, cpu.num_scheduler_steps) == (8, 0, 1)
    assert (gpu.max_num_seqs, gpu.lookahead) == (8, 8)
    assert gpu.num_scheduler_steps > 1


def test_what_a_prefilled_token_and_a_slot_take_of_the_memory_in_llama_3_2_3b():
    shape = LlamaConfig(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
    )
    assert activation_bytes(shape, 2) * 32768 == 3 * GIB
    assert slot_bytes(shape, 2) == 112 * 2**10


def test_a_gpu_that_holds_no_row_is_refused_with_the_numbers_and_what_to_do(sizes_of):
    with pytest.raises(ConfigError) as caught:
        sizes_of(GIB // 4, max_num_batched_tokens=2**20)
    message = str(caught.value)
    assert "0.2 GiB are free beside the weights" in message
    assert "prefill passes of 1048576 tokens take " in message
    assert "Lower engine.max_num_batched_tokens" in message


def test_a_gpu_that_holds_a_single_row_is_not_refused(sizes_of, make_model):
    shape = make_model().config
    room = activation_bytes(shape, 4) * 2 * 256 + 2 * 32 * slot_bytes(shape, 4)  # a pass, and its graph
    settings = {"max_num_batched_tokens": 256, "gpu_memory_utilization": 1.0}
    assert sizes_of(room, **settings).max_num_slots == 64
    with pytest.raises(ConfigError):
        sizes_of(room - 1, **settings)


def test_a_layer_s_keys_are_no_more_than_flex_attention_can_number(make_model):
    shape = make_model(heads=24, kv_heads=8, head_dim=128).config
    sizes = scheduler_config_for(shape, 2, 2000 * GIB, EngineConfig())
    assert 2**31 - 2**16 < sizes.max_num_slots * 8 * 128 < 2**31
