import pytest
import torch
from transformers.models.llama import modeling_llama

from flexray.engine.kv_cache import KVCache
from flexray.engine.prefill_inputs import PrefillInputs, context_stream
from flexray.masks.block_masks import BlockMaskCache
from flexray.masks.shared_context import SharedContext
from flexray.models import llama
from flexray.models.compat import rope_arguments
from flexray.models.decoder_layer import rotate

SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def prefill_context(model, ids, backend="sdpa"):
    patched = llama.patch(model)
    cache = KVCache(
        num_layers=2, num_kv_heads=1, head_dim=64, num_slots=8192, max_requests=8, dtype=torch.float32,
        device=torch.device("cpu"),
    )  # fmt: skip
    context = SharedContext(tuple(ids))
    cache.allocate_context(context)
    inputs = PrefillInputs(256, cache, bias=None)
    calls = torch.zeros(1, dtype=torch.int64)
    token_ids, positions, metadata = inputs.load(
        context_stream(context, cache), backend, BlockMaskCache(2**20), calls
    )
    with torch.no_grad():
        hidden = patched.forward(token_ids[None], positions[None], metadata, cache.keys, cache.values)
    return cache, patched.logits(hidden[0, : len(ids)])


@pytest.mark.parametrize("rope", [{}, rope_arguments(SCALED)], ids=["default", "llama3"])
@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_the_patched_model_computes_what_the_unpatched_one_does(make_model, rope, backend):
    ids = list(range(40, 140))
    with torch.no_grad():
        expected = make_model(**rope)(torch.tensor([ids])).logits[0]
        _, found = prefill_context(make_model(**rope), ids, backend)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rope", [{}, rope_arguments(SCALED)], ids=["default", "llama3"])
def test_keys_are_rotated_by_the_installed_transformers_standalone_function(make_model, rope):
    ids = list(range(40, 60))
    model = make_model(**rope)
    cache, _ = prefill_context(model, ids)
    keys_KCD = cache.keys[0][:, cache.context_slots]
    layer = model.model.layers[0]
    hidden = layer.input_layernorm(model.model.embed_tokens(torch.tensor([ids])))
    raw = layer.self_attn.k_proj(hidden).view(1, len(ids), 1, 64).transpose(1, 2)
    apply_rotary = modeling_llama.apply_rotary_pos_emb

    def rotated(start):
        cos, sin = model.model.rotary_emb(hidden, position_ids=torch.arange(start, start + len(ids))[None])
        return apply_rotary(raw, raw, cos, sin)[1][0]

    torch.testing.assert_close(keys_KCD, rotated(0), rtol=1e-5, atol=1e-5)
    # a copy of the context that starts at another position: rotated on, not computed again
    rotation, _ = llama.patch(model).offset_rotations(torch.tensor([7, 300]))
    moved_MKCD = rotate(keys_KCD[None], *rotation)
    torch.testing.assert_close(moved_MKCD[0], rotated(7), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved_MKCD[1], rotated(300), rtol=1e-4, atol=1e-4)
