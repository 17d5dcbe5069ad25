"""Quantised checkpoints as they are published: what is loaded is what their tensors stand for."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, Qwen2Config

from flexray.errors import ModelError
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.models.loader import WeightReader
from flexray.preflight.plan.memory import count_parameters
from tests.expected import tokens
from tests.lora_adapters import save_adapter
from tests.quantised_models import GPTQ, PUBLISHED, compressed, edit_config, write_quantised
from tests.random_models import save_model

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.3,
    "eos_token_id": 2,
}
ONE_OF_EACH = ["fp8, a block", "compressed-tensors, a channel", "awq", "gptq, desc_act", "pack-quantized"]
UP = "model.layers.1.mlp.up_proj"
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Qwen2Config(**SIZES, tie_word_embeddings=True)  # with biases in quantised layers
    return save_model(tmp_path_factory.mktemp("plain"), config)


@pytest.fixture(scope="module")
def written(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folders of a checkpoint, quantised and dequantised; written once."""
    folders: dict[str, tuple[Path, Path]] = {}

    def written(kind: str) -> tuple[Path, Path]:
        if kind not in folders:
            folders[kind] = write_quantised(plain, tmp_path_factory.mktemp("written"), kind)
        return folders[kind]

    return written


@pytest.fixture
def folder(plain: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_quantised(plain, tmp_path, getattr(request, "param", "gptq"))[0]


def state(folder: Path, **kwargs: Any) -> dict[str, Tensor]:
    return load_model(folder, device="cpu", **kwargs)[0].state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def edit_tensors(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_quantised_checkpoint_is_loaded_as_what_its_tensors_stand_for(written, plain, kind):
    quantised, dequantised = written(kind)
    model, _ = load_model(quantised, device="cpu")
    assert_same(model.state_dict(), state(dequantised))
    published = load_file(plain / "model.safetensors")[f"{UP}.weight"].float()
    assert not torch.equal(model.model.layers[1].mlp.up_proj.weight, published)
    assert not hasattr(model.config, "quantization_config")
    assert count_parameters(quantised) == count_parameters(dequantised)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_no_more_than_a_strip_of_a_weight_is_dequantised_at_once(written, monkeypatch, kind, ranks):
    sizes = []
    read = WeightReader.read

    def spy(self, name, region=None):
        part = read(self, name, region)
        if self.is_quantised(name):
            sizes.append(part.numel())
        return part

    quantised, dequantised = written(kind)
    monkeypatch.setattr(WeightReader, "read", spy)
    monkeypatch.setattr("flexray.models.loader.STRIP", 5 * 96)  # not by eights, as numbers are packed
    parts = [state(folder, rank=ranks - 1, ranks=ranks) for folder in (quantised, dequantised)]
    assert_same(*parts)
    assert len(sizes) > 50
    assert max(sizes) <= 5 * 96


@pytest.mark.parametrize(
    ("kind", "quantization"), [("awq", None), ("gptq, desc_act", None), ("fp8, a block", "fp8")]
)
def test_answers_are_those_of_the_dequantised_model(written, make_engine, make_prompts, kind, quantization):
    prompts = make_prompts(3)
    found = []
    for folder in written(kind):
        model, _ = load_model(folder, dtype="float32", device="cpu")
        engine = make_engine(model, backend="sdpa", quantization=quantization)
        found.append(tokens(engine.generate(prompts)))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [*ONE_OF_EACH, "compressed-tensors, a tensor"])
def test_a_rank_has_its_slice_of_what_the_tensors_stand_for(written, kind):
    quantised, dequantised = written(kind)
    parts = [state(folder, dtype="bfloat16", rank=1, ranks=2) for folder in (quantised, dequantised)]
    assert_same(*parts)
    assert parts[0][f"{UP}.weight"].shape == (48, 64)


@pytest.mark.parametrize("kind", ["fp8, a block", "awq"])
def test_adapters_are_merged_into_what_the_tensors_stand_for(written, plain, tmp_path, kind):
    targets = ["q_proj", "down_proj"]
    lora = [save_adapter(tmp_path, plain, target_modules=targets, use_dora=True)]
    quantised, dequantised = written(kind)
    assert_same(state(quantised, lora=lora), state(dequantised, lora=lora))
    parts = [state(folder, lora=lora, rank=1, ranks=2) for folder in (quantised, dequantised)]
    assert_same(*parts)
    untouched = state(quantised, rank=1, ranks=2)
    assert not torch.equal(parts[0][DOWN], untouched[DOWN])


def test_a_published_head_that_is_not_tied_is_loaded(tmp_path):
    plain = save_model(tmp_path / "plain", LlamaConfig(**SIZES, tie_word_embeddings=False))
    quantised, dequantised = write_quantised(plain, tmp_path, "compressed-tensors, a channel")
    assert_same(state(quantised), state(dequantised))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes', which is not known"),
        ({"quant_method": "hqq"}, "'hqq', which is not known"),
        ({"quant_method": "mxfp4"}, "'mxfp4', which is not known"),
        ({"quant_method": ["gptq"]}, r"\['gptq'\], which is not known"),
        ({"bits": 4}, "'unknown', which is not known"),
        ("gptq", "'unknown', which is not known"),
        (GPTQ | {"bits": 8}, "'gptq', bits is 8"),
        (GPTQ | {"checkpoint_format": "marlin"}, "'gptq', checkpoint_format is 'marlin'"),
        (GPTQ | {"group_size": 0}, "'gptq', group_size is 0"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'awq', version is 'gemv'"),
        ({"quant_method": "awq", "bits": 4, "zero_point": False}, "'awq', zero_point is False"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "'fp8', fmt is 'e5m2'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"'fp8', blocks of \[128\]"),
        (
            compressed("int-quantized", num_bits=8, type="int", strategy="channel"),
            "format 'int-quantized' with weights of 8 bits, 'int', 'channel'",
        ),
        (
            compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group"),
            "format 'nvfp4-pack-quantized' with weights of 4 bits",
        ),
        (
            compressed("pack-quantized", num_bits=8, type="int", strategy="channel"),
            "format 'pack-quantized' with weights of 8 bits",
        ),
    ],
)
def test_any_other_way_is_refused_by_name_with_what_to_do(plain, tmp_path, config, why):
    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    edit_config(folder, quantization_config=config)
    advice = r".* Give the unquantised checkpoint, dequantise it first, or take one in compressed-tensors"
    with pytest.raises(ModelError, match=rf"config\.json: the weights are quantised .*{why}{advice}"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    ("folder", "edit", "message"),
    [
        (
            "gptq",
            lambda t: t.update({f"{UP}.qweight": t[f"{UP}.qweight"][:-1]}),
            rf"model\.safetensors: {UP}\.qweight is \[7, 96\] I32, not \[8, 96\] I32",
        ),
        (
            "awq",
            lambda t: t.update({f"{UP}.scales": t[f"{UP}.scales"][:2]}),
            rf"quantised by awq do not fit .*: {UP}\.scales is \[2, 96\] F16, not \[4, 96\]",
        ),
        (
            "gptq, desc_act",
            lambda t: t.pop(f"{UP}.g_idx"),
            rf"1 tensor\(s\) of weights quantised by gptq are missing .*: {UP}\.g_idx",
        ),
        (
            "gptq",
            lambda t: t.pop(f"{UP}.qweight"),
            rf"quantised otherwise than config.json says: {UP}\.g_idx",
        ),
        ("fp8, a block", lambda t: t.pop(f"{UP}.weight_scale_inv"), rf"missing .*: {UP}\.weight_scale_inv"),
        (
            "fp8, a block",
            lambda t: t.update({f"{UP}.weight_scale_inv": torch.ones(3, 2)}),
            rf"{UP}\.weight_scale_inv is \[3, 2\] F32, not \[3, 3\] or \[96, 1\]",
        ),
        (
            "fbgemm_fp8",
            lambda t: t.update({f"{UP}.weight_scale": torch.ones(95, 1)}),
            rf"{UP}\.weight_scale is \[95, 1\] F32, not \[96, 1\]",
        ),
        (
            "pack-quantized",
            lambda t: t.update({f"{UP}.weight_packed": t[f"{UP}.weight_packed"].short()}),
            rf"{UP}\.weight_packed is \[96, 8\] I16, not \[96, 8\] I32",
        ),
        (
            "fbgemm_fp8",
            lambda t: t.update({f"{UP}.weight": t[f"{UP}.weight"].to(torch.float8_e5m2)}),
            rf"otherwise than config.json says: {UP}\.weight \(F8_E5M2\)",
        ),
    ],
    indirect=["folder"],
)
def test_tensors_that_do_not_fit_are_refused_from_headers_alone(folder, edit, message):
    check_checkpoint(folder)
    edit_tensors(folder, edit)
    with pytest.raises(ModelError, match=message):
        check_checkpoint(folder)


def test_packed_weights_without_a_word_in_the_config_are_refused(folder):
    tree = json.loads((folder / "config.json").read_text())
    del tree["quantization_config"]
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ModelError, match=r"\d+ weight\(s\) are quantised: .*Give the unquantised checkpoint"):
        check_checkpoint(folder)


def test_a_group_that_is_not_there_is_refused_when_it_is_loaded(folder):
    edit_tensors(folder, lambda t: t[f"{UP}.g_idx"].fill_(4))
    message = rf"model\.safetensors: {UP}: g_idx names groups from 4 to 4, and there are 4"
    with pytest.raises(ModelError, match=message):
        load_model(folder, device="cpu")


def test_biases_that_the_model_does_not_have_are_passed_over_if_they_are_zeros(folder):
    """As AutoGPTQ has written them for every layer."""
    expected, bias = state(folder), f"{UP}.bias"
    edit_tensors(folder, lambda t: t.update({bias: torch.zeros(96, dtype=torch.float16)}))
    assert_same(state(folder), expected)
    edit_tensors(folder, lambda t: t[bias][-1:].fill_(1))
    with pytest.raises(ModelError, match=rf"{bias} is not zero, and config\.json's model has no such bias"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("folder", ["fp8, a tensor", "gptq"], indirect=True)
def test_a_scale_that_is_not_finite_is_refused_by_the_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    scale = f"{UP}.scales" if f"{UP}.scales" in tensors else f"{UP}.weight_scale"
    edit_tensors(folder, lambda t: t[scale].fill_(float("nan")))
    with pytest.raises(
        ModelError, match=re.escape(f"model.safetensors: {UP}.weight has 6144 of 6144 values")
    ):
        load_model(folder, device="cpu")
