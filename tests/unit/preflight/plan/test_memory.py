"""The memory that is planned is the memory that is taken; larger GPUs are numbers."""

import json
import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flexray.config import EngineConfig
from flexray.data import scan
from flexray.engine.engine import Engine
from flexray.engine.scheduler_config import GIB, plan_scheduler, scheduler_config_for
from flexray.methods import make_methods
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.preflight.plan.devices import GPUS, Device
from flexray.preflight.plan.memory import count_parameters, engine_rows, least_cards, plan_memory
from flexray.preflight.plan.sample import take_sample
from tests.plans import make_plan
from tests.quantised_models import write_quantised
from tests.random_models import save_model
from tests.ray.jobs import question

CPU = Device(name="CPU", is_gpu=False, memory=None)
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
LLAMA_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
LLAMA_3B = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}


@pytest.fixture
def save_shape(tmp_path, tokenizer):
    """Saves a model of this shape whose weights are holes in a file: its header is all that is read."""

    def save(**shape):
        folder = tmp_path / "shape"
        config = LlamaConfig(
            vocab_size=128256, max_position_embeddings=8192, architectures=["LlamaForCausalLM"], **shape
        )
        with torch.device("meta"):
            weights = LlamaForCausalLM(config).state_dict()
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight")
        header, at = {}, 0
        for name, weight in weights.items():
            end = at + 2 * weight.numel()
            header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        with open(folder / "model.safetensors", "wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + at)
        return folder

    return save


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bytes_of_the_weights_are_those_of_the_loaded_model(config_of, smollm2, dtype):
    config = config_of(model={"path": str(smollm2), "dtype": dtype})
    model, _ = load_model(smollm2, dtype=dtype, device="cpu")
    loaded = sum(p.numel() * p.element_size() for p in model.parameters())
    assert make_plan(config).memory.weight_bytes == loaded


def test_quantised_weights_take_a_byte_on_a_gpu_but_first_they_must_be_loaded(config_of, save_shape):
    shape = save_shape(**LLAMA_3B)
    config = config_of(model={"path": str(shape), "quantization": "fp8"})
    memory = make_plan(config, gpu="H100 80GB").memory
    linear = 28 * (3072 * (3072 + 2 * 1024) + 3072 * 3072 + 3 * 3072 * 8192)
    assert memory.weight_bytes == 2 * (memory.parameters - linear) + linear
    assert memory.loading_bytes == 2 * memory.parameters
    (error,) = [p.what for p in make_plan(config, gpu_memory=5).problems if p.status == "fail"]
    assert error.startswith("6.0 GiB of weights (bfloat16) do not fit")


@pytest.mark.parametrize("kind", ["fp8, a block", "gptq"])
def test_weights_that_are_quantised_in_the_files_are_planned_as_they_are_held(config_of, tmp_path, kind):
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2}
    plain = save_model(tmp_path / "plain", LlamaConfig(vocab_size=256, **shape))
    memories = []
    for path in write_quantised(plain, tmp_path, kind):
        model = {"path": str(path), "dtype": "bfloat16"}
        loaded, _ = load_model(path, dtype="bfloat16", device="cpu")
        memory = make_plan(config_of(model=model)).memory
        assert memory.weight_bytes == sum(p.numel() * p.element_size() for p in loaded.parameters())
        fp8 = make_plan(config_of(model=model | {"quantization": "fp8"}), gpu="H100 80GB").memory
        memories.append((memory.weight_bytes, fp8.weight_bytes, fp8.loading_bytes))
    assert memories[0] == memories[1]
    assert memories[0][1] < memories[0][2]


def test_weights_in_several_files_are_counted_once(tmp_path, tiny_model, tokenizer):
    model, _ = load_model(tiny_model, dtype="float32", device="cpu")
    model.save_pretrained(tmp_path / "split", max_shard_size="200KB")
    tokenizer.save_pretrained(tmp_path / "split")
    (tmp_path / "split" / "consolidated.safetensors").write_bytes(b"of another format")
    assert (tmp_path / "split" / "model.safetensors.index.json").is_file()
    check_checkpoint(tmp_path / "split")
    assert count_parameters(tmp_path / "split") == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "methods",
    [
        ["attention"],
        ["attention", "per_prompt", {"layout": "full_prompt", "positions": "continuous"}],
    ],
)
def test_the_planned_cache_is_the_engines(config_of, methods):
    """Of one shard with all rows: to the byte."""
    records = [question(i, paraphrases=["word " * (i % 5 * 8 + 1)] * (1 + i % 7)) for i in range(36)]
    config = config_of(
        records, methods=methods, data={"shard_rows": 36}, prompt={"instruction": "word " * 80}
    )
    prompts = take_sample(scan(config.data), config, 36).prompts
    model, tokenizer = load_model(config.model.path, dtype="float32", device="cpu")
    engine = Engine(model, tokenizer, config.methods, config.generation, config.engine)
    engine.generate(prompts)
    pool = engine.runner.kv_cache
    taken = sum(tensor.nbytes for tensor in (*pool.keys, *pool.values))
    memory = make_plan(config).memory
    assert memory.cache_slots == pool.num_slots
    assert memory.cache_bytes == taken == pool.num_slots * memory.kv_bytes_per_token
    assert memory.questions_at_once == 32


def test_the_sizes_without_a_model_are_those_of_the_loaded_one(tiny_model):
    model, _ = load_model(tiny_model, dtype="bfloat16", device="cpu")
    config = EngineConfig(max_num_seqs=100)
    assert scheduler_config_for(check_checkpoint(tiny_model), 2, None, config) == plan_scheduler(
        model, config
    )


def test_a_shard_is_as_large_as_its_rows_not_as_the_sample(config_of):
    records = [question(i, paraphrases=[f"{p} " + "a " * 50 for p in range(5)]) for i in range(512)]
    config = config_of(records, data={"shard_rows": 512})
    whole, part = (
        make_plan(config, sample_rows=512, gpu="H100"),
        make_plan(config, sample_rows=50, gpu="H100"),
    )
    assert whole.memory.cache_slots == part.memory.cache_slots == 2**18
    assert part.memory.questions_at_once == 512


def test_a_large_model_on_gpus_that_are_not_here(config_of, save_shape):
    config = config_of(model={"path": str(save_shape(**LLAMA_8B))}, data={"shard_rows": 512})
    plan = make_plan(config, gpu="H100 80GB")
    memory = plan.memory
    assert plan.ready
    assert plan.device.name == "H100-80GB"
    assert (memory.dtype, memory.parameters) == ("bfloat16", 8_030_261_248)
    assert memory.weight_bytes == 2 * memory.parameters
    assert memory.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2
    assert memory.needed < plan.device.memory
    (rough,) = plan.estimates
    assert rough.rough
    assert "40% of the 989 TFLOP/s of H100-80GB" in rough.basis
    work = plan.work.prefill_tokens + plan.work.answer_tokens
    seconds = 8 * 2 * memory.parameters * work / (0.4 * 989e12)
    assert rough.seconds == pytest.approx(seconds)
    assert rough.gpu_hours == pytest.approx(seconds / 3600)

    small = make_plan(config, gpu="T4")
    assert not small.ready
    (error,) = [problem.what for problem in small.problems if problem.status == "fail"]
    assert error.startswith("15.0 GiB of weights (bfloat16) do not fit: T4-16GB has 14.6 GiB")
    assert "no room for a KV cache" in make_plan(config, gpu_memory=16).problems[-1].what


def test_the_plan_says_what_each_card_has_to_hold_and_how_many_are_needed(config_of, save_shape):
    model = {"path": str(save_shape(**LLAMA_70B))}
    plan = make_plan(config_of(model=model), gpu="H100 80GB")
    whole = 2 * 128256 * 8192 + (2 * 80 + 1) * 8192  # embeddings, head and norms, which each card has
    assert {(c.quantization or c.dtype, c.ranks) for c in plan.cards} == {
        (numbers, n) for numbers in ("bfloat16", "fp8") for n in (1, 2, 4, 8)
    }
    for card in plan.cards:
        layers = (plan.memory.parameters - whole) // card.ranks
        assert card.weight_bytes == 2 * whole + layers * (1 if card.quantization else 2)
    assert least_cards(plan.cards, None) == 2
    assert least_cards(plan.cards, "fp8") in (1, 2)  # one, if they are quantised as they are loaded
    assert least_cards(make_plan(config_of(model=model), gpu="A100 40GB").cards, None) == 4
    (error,) = [p.what for p in plan.problems if p.status == "fail"]
    assert "Set engine.tensor_parallel to 2, or more. Or take a larger GPU" in error
    split = make_plan(config_of(model=model, engine={"tensor_parallel": 2}), gpu="H100 80GB")
    assert split.ready
    assert split.memory.kv_bytes_per_token == plan.memory.kv_bytes_per_token // 2
    assert split.memory.weight_bytes == plan.cards[1].weight_bytes
    assert split.to_dict()["cards"][1]["fits"] is True


def test_a_gpu_of_unknown_memory_is_told_what_it_would_need(config_of, save_shape):
    config = config_of(model={"path": str(save_shape(**LLAMA_3B))}, ray={"address": "ray://head:10001"})
    plan = make_plan(config)
    assert (plan.device.name, plan.device.memory, plan.memory.dtype) == ("a GPU", None, "bfloat16")
    assert plan.memory.kv_bytes_per_token == 114_688
    assert 2 * 3.21e9 < plan.memory.needed < 20 * GIB
    assert plan.estimates == ()


def test_the_batch_shrinks_with_the_memory_and_what_does_not_fit_is_said(config_of, save_shape):
    records = [question(i, paraphrases=[f"{p} " + "word " * 400 for p in range(8)]) for i in range(9)]
    records.append(question(9, paraphrases=[f"{p} " + "word " * 400 for p in range(60)]))
    config = config_of(
        records, model={"path": str(save_shape(**LLAMA_3B))}, data={"shard_rows": 512}, methods=["attention"]
    )
    prompts = take_sample(scan(config.data), config, len(records)).prompts
    rows = engine_rows(config, make_methods(config.methods), prompts)
    shape = check_checkpoint(config.model.path)
    sizes = {}
    for name in ("H100-80GB", "L40S-48GB", "A10-24GB"):
        gpu = GPUS[name]
        device = Device(name=name, is_gpu=True, memory=int(gpu.memory_gib * GIB), gpu=gpu)
        sizes[name] = plan_memory(config, shape, device, rows, 512)
    batch = [memory.questions_at_once for memory in sizes.values()]
    assert batch == sorted(batch, reverse=True)
    assert 0 < batch[-1] < batch[0] < 512
    for memory in sizes.values():
        assert memory.cache_slots == memory.most_slots  # all that there is
        mean = math.fsum(row.num_slots for row in rows[0]) / len(rows[0])
        assert memory.questions_at_once <= memory.most_slots / mean
    tight = make_plan(config, gpu_memory=9)
    assert "the largest sampled row needs a KV cache of" in tight.problems[-1].what
