"""Decode attention that is split over the keys: the same answers, whatever part has how many of them."""

import dataclasses

import pytest
import torch

from flexray.config import MethodConfig
from flexray.engine.decode_inputs import _refresh
from flexray.models.flex import merge_splits
from flexray.models.llama import compiled
from tests.unit.engine.test_methods import tokens
from tests.unit.engine.test_shared_prefixes import attend_apart, logits_of

METHODS = [
    MethodConfig(),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="full_prompt", paraphrase_scale="-log N"),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="avg"),
    MethodConfig(kind="draws", draws=2, size=2),
    MethodConfig(kind="ape"),
]
NEW = 4
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def split(engine, programs):
    """As on a GPU that runs so many programs of attention at once."""
    sizes = dataclasses.replace(engine.fallback.sizes, attention_programs=programs)
    engine.fallback.full_sizes = engine.fallback.sizes = sizes
    return engine


def splits_of(engine):
    return {inputs.adaptive: inputs.splits for inputs in engine.runner._decodes.values()}


@pytest.fixture(scope="module")
def prompts(make_prompts):
    """Keys of a row end anywhere in a block, and one row has but one block."""
    found = make_prompts(4, longest=20)
    brief = dataclasses.replace(found[0], context=(), segments=((40, 41), (42,)))
    return [*found, dataclasses.replace(brief, row_id="brief")]


@pytest.fixture(scope="module")
def expected(make_model, make_engine, prompts):
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_new_tokens=NEW)
    return tokens(engine.generate(prompts))


@pytest.mark.parametrize("programs", [16, 64])
def test_all_methods_say_the_same(make_model, make_engine, prompts, expected, programs):
    engine = split(make_engine(make_model(), methods=METHODS, max_new_tokens=NEW), programs)
    assert tokens(engine.generate(prompts)) == expected
    assert splits_of(engine) == {False: programs // 8, True: 1}  # batches of 8, one key/value head
    assert engine.stats.calls["sdpa"] == 0


def test_beside_attention_to_the_context_apart_too(make_model, make_engine, make_prompts):
    prompts = make_prompts(2, num_context=70)
    expected = make_engine(make_model(), methods=METHODS[2:4], backend="sdpa", max_new_tokens=2)
    engine = make_engine(make_model(), methods=METHODS[2:4], max_new_tokens=2)
    engine = split(attend_apart(engine, 0), 32)
    assert tokens(engine.generate(prompts)) == tokens(expected.generate(prompts))
    assert engine.runner._apart_in_decode == (32, 96)
    assert splits_of(engine) == {False: 4}


def test_the_logits_are_those_of_one_part(make_model, make_engine, prompts):
    whole = make_engine(make_model(), max_new_tokens=NEW)
    parts = split(make_engine(make_model(), max_new_tokens=NEW), 32)
    for prompt in prompts:
        said, found = logits_of(parts, prompt)
        same, wanted = logits_of(whole, prompt)
        assert said == same
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_answers_of_a_deterministic_engine_still_depend_on_the_row_alone(make_model, make_engine, prompts):
    engine = split(make_engine(make_model().bfloat16(), methods=METHODS[:4], max_new_tokens=NEW), 64)
    together = tokens(engine.generate(prompts))
    assert splits_of(engine) == {False: 8}
    assert engine.rounding["key_splits"] == 8
    for index in (3, 0):
        assert tokens(engine.generate([prompts[index]])) == [together[index]]


def test_as_a_graph_a_step_s_inputs_are_refreshed_alike(make_model, make_engine, prompts):
    for programs in (0, 32):
        engine = split(make_engine(make_model(), max_new_tokens=NEW), programs)
        engine.generate(prompts)
        for inputs in engine.runner._decodes.values():
            slots, counts, causal_index = _refresh(inputs), inputs.block_counts, inputs.tables.causal_index
            expected = counts.clone(), causal_index.clone()
            counts.zero_()
            causal_index.zero_()
            assert torch.equal(compiled(_refresh, dynamic=True)(inputs), slots)
            assert torch.equal(counts, expected[0])
            assert torch.equal(causal_index, expected[1])
            assert counts.any()
            assert inputs.splits == max(1, programs // 8)


def test_few_sequences_are_split_and_many_are_not(make_model, make_engine):
    sizes = split(make_engine(make_model()), 256).fallback.sizes
    few = [sizes.key_splits(bucket, 8) for bucket in (8, 16, 32, 512)]
    assert few == [4, 2, 1, 1]
    assert (sizes.key_splits(8, 4), sizes.key_splits(8, 1)) == (8, 8)
    assert dataclasses.replace(sizes, attention_programs=0).key_splits(1, 1) == 1


def test_short_rows_are_not_split_unless_sizes_are_fixed(make_model, make_engine):
    fixed = split(make_engine(make_model()), 256).fallback.sizes
    free = dataclasses.replace(fixed, fixed=False)
    assert [free.key_splits(8, 4, blocks) for blocks in (1, 8, 16, 32, 512)] == [1, 1, 2, 4, 8]
    assert {fixed.key_splits(8, 4, blocks) for blocks in (1, 8, 16, 32, 512)} == {8}


def test_parts_are_merged_as_if_they_had_been_one():
    torch.manual_seed(0)
    rows, splits, heads, dim = 3, 4, 2, 5
    scores, values = torch.randn(rows, splits, heads, 6), torch.randn(rows, splits, heads, 6, dim)
    scores[0, 1:] = scores[1, :3] = scores[2] = -torch.inf  # parts, and a row, without keys
    lse = scores.logsumexp(-1)
    shares = torch.softmax(scores, -1).nan_to_num()  # as flex has it
    parts = torch.einsum("rshk,rshkd->rshd", shares, values)
    out, whole = merge_splits(parts.flatten(0, 1)[:, :, None], lse.flatten(0, 1)[:, :, None], splits)
    one = torch.softmax(scores.transpose(1, 2).flatten(2), -1).nan_to_num()
    expected = torch.einsum("rhk,rhkd->rhd", one, values.transpose(1, 2).flatten(2, 3))
    torch.testing.assert_close(out[:, :, 0], expected)
    torch.testing.assert_close(whole[:, :, 0], scores.transpose(1, 2).flatten(2).logsumexp(-1))
    assert not out.isnan().any()
