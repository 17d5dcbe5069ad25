"""Prompts at the ends of what is asked for: long, many, one, none, ragged. And the memory that they need."""

import dataclasses
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flexray.config import GenerationConfig, MethodConfig
from flexray.engine.kv_cache import BLOCK_SIZE
from flexray.engine.scheduler_config import slot_bytes
from flexray.errors import RowFault
from flexray.models.compat import rope_arguments
from flexray.prompts import PromptBuilder
from flexray.prompts.prompt import Prompt
from tests import oracles
from tests.expected import oracle_answers, tokens
from tests.random_models import VOCAB
from tests.unit.prompts.test_builder import question

MODES = [("shared_context", "restart"), ("full_prompt", "continuous")]
LONG = 16 * 1024


def words(count: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(32, VOCAB, (count,), generator=generator).tolist())


def prompt_of(context: int, lengths: list[int], seed: int = 0) -> Prompt:
    segments = tuple(words(length, seed * 1000 + i) for i, length in enumerate(lengths))
    return Prompt(words(context, 999), segments, (65, 58))


ODD = {
    "64 paraphrases": [prompt_of(8, [2 + i % 7 for i in range(64)]), prompt_of(8, [9, 1], seed=1)],
    "one paraphrase": [prompt_of(40, [n], seed=n) for n in (1, 8, 31, 32, 33)],
    "no context": [prompt_of(0, [3, 9, 1], seed=n) for n in range(3)],
    "no context, one token": [prompt_of(0, [1])],
    "a batch of one": [prompt_of(70, [12, 3, 30])],
    "very ragged": [
        prompt_of(15, [1]),
        prompt_of(15, [300, 1, 1], seed=1),
        prompt_of(15, [2] * 30, seed=2),
        prompt_of(15, [150, 149, 1], seed=3),
    ],
}


@pytest.mark.parametrize(("layout", "positions"), MODES)
@pytest.mark.parametrize("prompts", ODD.values(), ids=ODD)
def test_odd_prompts_are_answered_as_the_oracle_does(make_model, make_engine, prompts, layout, positions):
    engine = make_engine(
        make_model(), backend="sdpa", layout=layout, positions=positions, max_num_batched_tokens=256
    )
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(), prompts, engine)


def long_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2 * LONG,
        initializer_range=0.3,
        eos_token_id=2,
        **rope_arguments({"rope_type": "default", "rope_theta": 500000.0}),
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("backend", ["sdpa", pytest.param("flex", marks=pytest.mark.slow)])
def test_a_context_of_16k_tokens_is_answered_as_the_oracle_does(make_engine, backend):
    prompts = [prompt_of(LONG, [12, 40, 3])]
    engine = make_engine(long_model(), backend=backend, max_new_tokens=4)
    answers = tokens(engine.generate(prompts))
    assert engine.stats.to_dict()["context_tokens"] == LONG
    model = long_model()
    for prompt, found in zip(prompts, answers, strict=True):
        stream = oracles.stream(prompt, "shared_context", "restart", found[:-1])
        with torch.no_grad():
            hidden = model.model(
                input_ids=torch.tensor([[t.id for t in stream]]),
                position_ids=torch.tensor([[t.position for t in stream]]),
                attention_mask=oracles.mask_of(stream)[None, None],
                use_cache=False,
            ).last_hidden_state[0, -len(found) :]
            assert found == tuple(model.lm_head(hidden).argmax(-1).tolist())


def bytes_of(tensors: list[torch.Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "prompts"),
    [
        ({"heads": 3, "kv_heads": 1, "head_dim": 64}, ODD["64 paraphrases"]),
        ({"heads": 6, "kv_heads": 2, "head_dim": 128}, ODD["very ragged"]),
        ({"heads": 4, "kv_heads": 4, "head_dim": 64}, [prompt_of(1000, [300] * 12)]),
    ],
    ids=["64 paraphrases", "very ragged", "large"],
)
def test_the_kv_cache_takes_the_bytes_that_were_reckoned_before(
    make_model, make_engine, shape, prompts, dtype
):
    model = make_model(**shape).to(dtype)
    engine = make_engine(model, backend="sdpa", max_new_tokens=2)
    needs = [oracles.num_distinct(p) + len(p.answer_prefix) + 2 for p in prompts]
    reckoned = engine.fallback.sizes.cache_slots(len(prompts[0].context), needs)
    engine.generate(prompts)
    cache = engine.runner.kv_cache
    assert cache.num_slots == reckoned
    assert bytes_of([*cache.keys, *cache.values]) == reckoned * slot_bytes(model.config, model.dtype.itemsize)
    keys = cache.tables
    tables = [keys.first, keys.last, keys.causal_index, keys.log_copies]
    assert bytes_of(tables) == 16 * reckoned, "beside them, next to nothing"


def test_a_row_is_refused_with_its_numbers_if_it_needs_one_block_more_than_the_memory_holds(
    make_model, make_engine
):
    prompt = prompt_of(100, [200, 50])
    new = 6
    blocks = 1 + -(-100 // BLOCK_SIZE) + -(-(200 + 50 + 2 + new) // BLOCK_SIZE)  # scratch, context, the row
    engine = make_engine(make_model(), backend="sdpa", max_new_tokens=new)

    def generate(max_num_slots: int) -> Any:
        engine.runner.reset()
        engine.fallback.full_sizes = dataclasses.replace(
            engine.fallback.full_sizes, max_num_slots=max_num_slots
        )
        (((generation,),),) = engine.generate([prompt])
        return generation

    fits = generate(blocks * BLOCK_SIZE)
    assert [fits.token_ids] == oracle_answers(make_model(), [prompt], engine)
    assert engine.runner.kv_cache.num_slots == blocks * BLOCK_SIZE
    refused = generate((blocks - 1) * BLOCK_SIZE)
    slots, room = blocks * BLOCK_SIZE, (blocks - 1) * BLOCK_SIZE
    assert refused.error == f"needs a KV cache of {slots} slots; the memory holds {room}"
    assert refused.attempts == 1
    assert engine.stats.to_dict()["attention_calls"]["sdpa"] > 0, "of the row that fitted"


def test_a_prompt_beyond_the_models_positions_is_refused_with_its_numbers(tokenizer, smollm2):
    from flexray.config import PromptConfig
    from flexray.models.checkpoint import check_checkpoint

    positions = check_checkpoint(smollm2).max_position_embeddings
    generation = GenerationConfig(max_new_tokens=16)
    size = len(tokenizer)
    builder = PromptBuilder(
        tokenizer, PromptConfig(), [MethodConfig()], generation, positions, vocab_size=size
    )
    with pytest.raises(RowFault, match=r"\d+ positions are needed \(answer included\), the model has 8192"):
        builder.build(question("word " * positions))
