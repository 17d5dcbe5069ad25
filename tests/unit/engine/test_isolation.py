"""Paraphrases are isolated: bit for bit in one run, and up to rounding from physically separate runs."""

import dataclasses

import pytest
import torch

from flexray.masks.layout import FIRST_ANSWER, AttentionScope, lay_out
from flexray.masks.runs import FIRST

LAYOUTS = ["shared_context", "full_prompt"]
POSITIONS = ["restart", "continuous"]


def hidden_states(engine, prompts):
    """Outputs of every layer in the prefill of `prompts`, [num_layers, S, hidden]; all else as in a run."""
    engine.generate([dataclasses.replace(prompts[0], segments=((40,),))])  # the context is in the cache
    model, outputs = engine.model, []
    layer, prefill = model._layer, model.prefill

    def recorded(number, hidden, *args):
        hidden, update = layer(number, hidden, *args)
        outputs.append(hidden + update)
        return hidden, update

    def whole_prefill(ids, positions, metadata, keys, values):
        hidden, update = prefill(ids, positions, metadata, keys, values)
        uncounted = dataclasses.replace(metadata, calls=torch.zeros_like(metadata.calls))
        model.finish(hidden + update, positions, uncounted, keys, values)
        return hidden, update

    model._layer, model.prefill = recorded, whole_prefill
    try:
        engine.generate(prompts)
    finally:
        del model._layer, model.prefill
    return torch.stack([out[0] for out in outputs[: model.num_layers]])


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_changing_a_paraphrase_changes_no_other_segments_hidden_states_by_a_bit(
    make_model, make_engine, make_prompts, layout, positions
):
    prompts = sorted(make_prompts(5), key=lambda p: -sum(map(len, p.segments)))
    prompts = [p for p in prompts if len(p.segments) >= 3][:3]
    assert len(prompts) >= 2
    changed = list(prompts)
    old = prompts[0].segments
    changed[0] = dataclasses.replace(
        prompts[0], segments=(old[0], tuple(255 - t // 2 for t in old[1]), *old[2:])
    )
    engine = make_engine(
        make_model(), layout=layout, positions=positions, max_new_tokens=1, share_prefixes=False
    )
    before, after = hidden_states(engine, prompts), hidden_states(engine, changed)
    (prefix,) = [group.prefix for group in engine.groups]
    tokens = [lay_out(p, prefix, (AttentionScope(),), 1).layout.tokens for p in prompts]
    first = torch.from_numpy(tokens[0][:, FIRST])
    differs = (before != after).any(dim=-1)  # [num_layers, S]
    L = len(first)
    assert not differs[:, :L][:, (first != 2) & (first != FIRST_ANSWER)].any()
    assert not differs[:, L : sum(map(len, tokens))].any(), "another sample changed"
    assert differs[:, :L][:, first == 2].all()
    assert differs[-1, :L][first == FIRST_ANSWER].all(), "the answer must be fused from all paraphrases"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_segments_equal_physically_separate_sequences(make_model, make_engine, make_prompts, layout):
    prompts = sorted(make_prompts(4), key=lambda p: -sum(map(len, p.segments)))
    engine = make_engine(make_model(), layout=layout, max_new_tokens=1, share_prefixes=False)
    packed = hidden_states(engine, prompts)[-1]
    model = make_model()
    start = 0
    with torch.no_grad():
        for prompt in prompts:
            for segment in prompt.segments:
                ids = torch.tensor([[*prompt.context, *segment]])
                alone = model.model.layers[-1]  # its output is the last hidden state before the norm
                caught = []
                hook = alone.register_forward_hook(lambda _, __, out, caught=caught: caught.append(out))
                model(ids)
                hook.remove()
                expected = caught[0][0, len(prompt.context) :]
                torch.testing.assert_close(
                    packed[start : start + len(segment)], expected, rtol=1e-4, atol=1e-4
                )
                start += len(segment)
            start += len(prompt.answer_prefix)
