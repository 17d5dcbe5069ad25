"""What the families differ in, through the whole engine: every layout, method and precision."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    Phi3Config,
    SmolLM3Config,
)

from flexray.config import MethodConfig
from flexray.engine.kv_cache import KVCache
from flexray.engine.prefill_inputs import PrefillInputs, context_stream
from flexray.errors import ModelError
from flexray.masks.block_masks import BlockMaskCache
from flexray.masks.shared_context import SharedContext
from flexray.models import differences, llama
from flexray.models.checkpoint import check_checkpoint
from flexray.models.compat import rope_arguments
from flexray.models.families import splits
from tests.random_models import VOCAB, randomize, save_model
from tests.unit.engine.test_methods import make_rated_prompts, oracle_says, tokens  # noqa: F401
from tests.unit.models.test_quantization import quantize_by_hand

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.3,
    "max_position_embeddings": 4096,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024}
FACTORS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.4,
    "logits_scaling": 8.0,
}
CONFIGS = {
    "smollm3": SmolLM3Config(**SIZES, no_rope_layer_interval=2),
    "smollm3 yarn": SmolLM3Config(**SIZES, no_rope_layers=[0, 1, 0], **rope_arguments(YARN)),
    "granite": GraniteConfig(**SIZES, **FACTORS),
    "olmo2": Olmo2Config(**SIZES),
    "phi3": Phi3Config(**SIZES),
}
METHODS = [
    *(
        MethodConfig(layout=layout, positions=positions)
        for layout in ("shared_context", "full_prompt")
        for positions in ("restart", "continuous")
    ),
    MethodConfig(layout="myriadlama", cross_attention=True),
    MethodConfig(layout="full_prompt", positions="continuous", paraphrase_scale="-log N"),
    *(MethodConfig(kind=kind) for kind in ("per_prompt", "avg", "max")),
]
FP8_METHODS = [METHODS[0], METHODS[3]]


def make_model(name: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = type(CONFIGS[name])(**CONFIGS[name].to_dict())
        return randomize(AutoModelForCausalLM.from_config(config, attn_implementation="eager")).eval()


@pytest.fixture
def prompts(make_rated_prompts):  # noqa: F811
    """Whose paraphrases begin alike."""
    return [
        dataclasses.replace(p, segments=tuple((40, 41, *segment) for segment in p.segments))
        for p in make_rated_prompts(2, num_context=20, longest=12)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_all_methods_say_what_the_oracle_of_transformers_says(make_engine, prompts, name):
    engine = make_engine(make_model(name), methods=METHODS, max_new_tokens=3, backend="sdpa")
    found, plain = tokens(engine.generate(prompts)), make_model(name)
    stops = engine.stopping.stop_ids()
    for number, method in enumerate(METHODS):
        expected = [oracle_says(plain, p, method, stop_ids=stops, max_new_tokens=3) for p in prompts]
        assert [said[number] for said in found] == expected, method.name
    assert engine.stats.shared_tokens
    assert len({said[0] for said in found}) > 1, "the answers depend on the prompt"


@pytest.mark.parametrize("name", CONFIGS)
def test_in_fp8_the_quantised_oracle_says_the_same(make_engine, prompts, name):
    engine = make_engine(
        make_model(name), methods=FP8_METHODS, max_new_tokens=3, backend="sdpa", quantization="fp8"
    )
    found, plain = tokens(engine.generate(prompts)), quantize_by_hand(make_model(name))
    stops = engine.stopping.stop_ids()
    for number, method in enumerate(FP8_METHODS):
        expected = [oracle_says(plain, p, method, stop_ids=stops, max_new_tokens=3) for p in prompts]
        assert [said[number] for said in found] == expected, method.name


def logits_by(
    model: Any, ids: list[int], *, quantization: Any = None, backend: Any = "sdpa"
) -> tuple[torch.Tensor, KVCache]:
    """The logits of a context by our loop, [T, V], and the cache behind it."""
    patched = llama.patch(model, quantization)
    cache = KVCache(
        num_layers=3, num_kv_heads=2, head_dim=16, num_slots=256, max_requests=1, dtype=patched.dtype,
        device=patched.device,
    )  # fmt: skip
    context = SharedContext(tuple(ids))
    cache.allocate_context(context)
    calls = torch.zeros(1, dtype=torch.int64, device=patched.device)
    token_ids, positions, metadata = PrefillInputs(128, cache, bias=None).load(
        context_stream(context, cache), backend, BlockMaskCache(2**20), calls
    )
    with torch.no_grad():
        hidden = patched.forward(token_ids[None], positions[None], metadata, cache.keys, cache.values)
        return patched.logits(hidden[0, : len(ids)]), cache


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers_and_in_bfloat16_as_near_to_them_as_its_own(name):
    ids = list(range(40, 100))
    with torch.no_grad():
        exact = make_model(name)(torch.tensor([ids]), use_cache=False).logits[0]
        theirs = make_model(name).bfloat16()(torch.tensor([ids]), use_cache=False).logits[0].float()
    torch.testing.assert_close(logits_by(make_model(name), ids)[0], exact, rtol=1e-4, atol=1e-4)
    ours = logits_by(make_model(name).bfloat16(), ids)[0]
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).norm() < 1.5 * (theirs - exact).norm()


def test_a_layer_without_rope_has_keys_that_do_not_depend_on_the_position():
    ids = [50] * 9  # which all see the same, so only their positions differ
    model = make_model("smollm3 yarn")
    _, cache = logits_by(model, ids)
    rotations = llama.patch(model).offset_rotations(torch.tensor([7]))
    for keys, (cos, sin), is_rotated in zip(cache.keys, rotations, (False, True, False), strict=True):
        at = keys[:, cache.context_slots]
        assert torch.allclose(at, at[:, :1], atol=1e-5) != is_rotated
        assert (bool((cos == 1).all()) and not sin.any()) != is_rotated


def test_factors_and_layers_without_rope_are_of_the_family_that_knows_them():
    stray = LlamaConfig(**SIZES, **FACTORS, no_rope_layers=[0, 0, 0])
    assert differences.multipliers(stray) == (1, 1, 1)
    assert differences.multipliers(CONFIGS["granite"]) == (3.0, 0.4, 8.0)
    assert differences.rotated_layers(stray) == [True] * 3
    assert differences.rotated_layers(CONFIGS["smollm3"]) == [True, False, True]


def test_heads_can_be_split_unless_norms_or_weights_are_of_them_all():
    found = {name: splits(config) for name, config in CONFIGS.items()}
    assert [name for name, can_be in found.items() if not can_be] == ["olmo2", "phi3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, config) for name, config in CONFIGS.items()}


BAD_FACTOR = "it has to be a number above 0. Copy config.json"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        *(
            ("granite", {key: value}, rf"config\.json: {key} is {value!r}; {BAD_FACTOR}")
            for key in FACTORS
            for value in (0, -1.0, float("nan"), float("inf"), None, "2", True)
        ),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers is of 2 layers, and num_hidden_layers is 3"),
        (
            "smollm3",
            {"no_rope_layers": [1, 0, 2]},
            r"no_rope_layers is \[1, 0, 2\]; .* a 1 for each layer with",
        ),
        ("smollm3", {"no_rope_layers": [1, 0, None]}, "no_rope_layers is .* or null"),
        ("smollm3", {"no_rope_layers": 4}, "no_rope_layers is 4; it has to be a list"),
        (
            "smollm3",
            {"no_rope_layers": None, "no_rope_layer_interval": 0},
            "no_rope_layer_interval is 0; it has to be a whole number above 0",
        ),
        (
            "smollm3",
            {"use_sliding_window": True, "sliding_window": 512, "layer_types": None},
            "layers of type sliding_attention.*set use_sliding_window to false",
        ),
        ("phi3", {"sliding_window": 2047}, "set sliding_window to null and max_position_embeddings to 2047"),
        (
            "phi3",
            {
                "rope_parameters": None,
                "rope_scaling": {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.0] * 8},
            },
            "rope_type 'longrope' depends on how long a sequence is",
        ),
        (
            "phi3",
            {"rope_parameters": None, "partial_rotary_factor": 0.5},
            "it rotates 8 dimensions, and heads have 16",
        ),
        ("olmo2", {"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ("olmo2", {"num_key_value_heads": 4}, r"k_norm\.weight is \[32\], not \[64\]"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(folders, tmp_path, name, changes, message):
    for file in folders[name].iterdir():
        (tmp_path / file.name).symlink_to(file)
    tree = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(tree | changes))
    with pytest.raises(ModelError, match=message):
        check_checkpoint(tmp_path)


def test_a_window_that_smollm3_does_not_use_is_none(folders, tmp_path):
    config = SmolLM3Config(**SIZES, sliding_window=512, use_sliding_window=False)
    assert differences.window(check_checkpoint(save_model(tmp_path, config))) is None
