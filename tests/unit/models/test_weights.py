"""What a model's files hold is compared with its config.json before anything is loaded."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, Qwen3Config

from flexray.errors import ModelError
from flexray.models.checkpoint import check_checkpoint, load_model
from tests.random_models import save_model

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NORM = "model.layers.1.post_attention_layernorm.weight"
SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
Edit = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("small"), LlamaConfig(**SIZES))


@pytest.fixture
def folder(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "model"))


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder: Path, edit: Edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", True, None])
@pytest.mark.parametrize("key", [*SIZES, "max_position_embeddings"])
def test_a_size_that_is_no_whole_number_above_0_is_refused_by_its_key(folder, key, value):
    if value is None and key in ("num_key_value_heads", "head_dim"):
        return  # which then follow from the others
    edit_config(folder, **{key: value})
    with pytest.raises(ModelError, match=rf"config\.json: {key} is {value!r}; .* whole number above 0"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, "num_hidden_layers is 1, and the files hold 2 layers"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, and the files hold 2 layers"),
        (
            {"num_attention_heads": 3},
            "num_key_value_heads is 2, which does not divide num_attention_heads, 3",
        ),
        ({"num_attention_heads": 8}, r"q_proj\.weight is \[64, 32\], not \[128, 32\]"),
        ({"num_key_value_heads": 4}, r"k_proj\.weight is \[32, 32\], not \[64, 32\]"),
        ({"num_key_value_heads": None}, "do not fit"),
        ({"head_dim": 8}, r"do not fit .*head_dim 8.*layers\.0\.self_attn\.k_proj\.weight is \[32, 32\]"),
        ({"head_dim": None}, "do not fit"),
        ({"vocab_size": 257}, r"lm_head\.weight is \[256, 32\], not \[257, 32\]"),
        ({"hidden_size": 10**12}, "do not fit"),
        ({"attention_bias": True}, r"8 weight\(s\) are missing .*k_proj\.bias"),
        ({"mlp_bias": True}, r"6 weight\(s\) are missing .*down_proj\.bias"),
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"hidden_act": "no_such"}, "hidden_act .'no_such'"),
        ({"architectures": 3}, r"architectures \[3\]"),
    ],
)
def test_a_config_that_does_not_fit_the_files_is_refused(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=message):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 0},
        {"rope_theta": -1.0},
        {"rope_theta": "x"},
        {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear"}},
        {"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 0}},
        {"rope_theta": 1e4, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_theta": 1e4, "rope_scaling": "linear"},
    ],
)
def test_rope_that_turns_nothing_by_a_number_is_refused(folder, rope):
    tree = json.loads((folder / "config.json").read_text())
    tree.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps(tree | rope))
    with pytest.raises(ModelError, match=r"config\.json: .*(RoPE|rope_)"):
        check_checkpoint(folder)


def cut_a_row(weights: dict[str, torch.Tensor]) -> None:
    weights[EMBEDDINGS] = weights[EMBEDDINGS][:-1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop(NORM), rf"1 weight\(s\) are missing from the files: {NORM}"),
        (lambda w: w.pop(EMBEDDINGS), f"missing from the files: {EMBEDDINGS}"),
        (lambda w: w.pop(HEAD), f"missing from the files: {HEAD}.*set tie_word_embeddings to true"),
        (dict.clear, "the files hold 0 layers"),
        (cut_a_row, r"embed_tokens\.weight is \[255, 32\], not \[256, 32\]"),
        (lambda w: w.update({NORM: torch.tensor(1.0)}), r"is \[\], not \[32\]"),
        (lambda w: w.update({NORM: w[NORM].to(torch.int8)}), rf"quantised: {NORM} \(I8\)"),
        (lambda w: w.update({NORM: w[NORM].to(torch.float8_e4m3fn)}), rf"quantised: {NORM} \(F8_E4M3\)"),
        (lambda w: w.update({"lm_head.bias": torch.zeros(256)}), r"have no place .*: lm_head\.bias"),
        (lambda w: w.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}), "have no place"),
    ],
)
def test_weights_that_are_not_those_of_the_config_are_refused(folder, edit, message):
    edit_weights(folder, edit)
    with pytest.raises(ModelError, match=message):
        check_checkpoint(folder)


def test_heads_for_other_purposes_are_left_out(folder):
    edit_weights(folder, lambda w: w.update({"v_head.summary.weight": torch.zeros(1, 32)}))
    load_model(folder, device="cpu")


def test_the_norms_of_queries_and_keys_are_missed_where_the_family_has_them(tmp_path):
    folder = save_model(tmp_path, Qwen3Config(**SIZES))
    edit_weights(folder, lambda w: w.pop("model.layers.0.self_attn.q_norm.weight"))
    with pytest.raises(ModelError, match=r"1 weight\(s\) are missing .*q_norm"):
        check_checkpoint(folder)


def test_a_header_that_promises_more_than_the_file_holds_is_refused(folder):
    header = b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: "b.safetensors"}, rf"1 weight\(s\) are not in the files that it names: {NORM}"),
        ({NORM: None}, rf"1 weight\(s\) are not in the files that it names: {NORM}"),
        ({"model.more.weight": "a.safetensors"}, r"not in the files that it names: model\.more\.weight"),
        ({NORM: 7}, "1 of 3 weight files are missing: 7"),
    ],
)
def test_an_index_that_disagrees_with_its_files_is_refused(folder, changes, message):
    weights = load_file(folder / "model.safetensors")
    parts = {
        "a.safetensors": {n: w for n, w in weights.items() if n != HEAD},
        "b.safetensors": {HEAD: weights[HEAD]},
    }
    for file, part in parts.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    check_checkpoint(folder)
    named = {name: file for name, file in {**weight_map, **changes}.items() if file is not None}
    index.write_text(json.dumps({"metadata": {}, "weight_map": named}))
    with pytest.raises(ModelError, match=message):
        check_checkpoint(folder)


def test_a_weight_in_two_files_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({HEAD: weights[HEAD]}, folder / "b.safetensors")
    weight_map = dict.fromkeys(weights, "a.safetensors") | {HEAD: "b.safetensors"}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lm_head\.weight is in a\.safetensors and in b\.safetensors"):
        check_checkpoint(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_in_the_files_is_used_whatever_the_config_says_of_it(folder, tied):
    edit_config(folder, tie_word_embeddings=tied)
    weights = load_file(folder / "model.safetensors")
    model, _ = load_model(folder, device="cpu")
    assert torch.equal(model.lm_head.weight, weights[HEAD].float())
    assert torch.equal(model.model.embed_tokens.weight, weights[EMBEDDINGS].float())


def test_a_tied_head_that_is_in_no_file_is_the_embeddings(folder):
    edit_config(folder, tie_word_embeddings=True)
    edit_weights(folder, lambda w: w.pop(HEAD))
    model, _ = load_model(folder, device="cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [NORM, HEAD, "model.layers.0.mlp.up_proj.weight"])
def test_one_weight_that_is_not_finite_is_refused_by_name(folder, name, value):
    edit_weights(folder, lambda w: w[name].view(-1)[-1:].fill_(value))
    with pytest.raises(
        ModelError, match=rf"model\.safetensors: {name} has 1 of \d+ values that are not finite"
    ):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("name", [EMBEDDINGS, NORM, HEAD])
def test_a_needed_weight_of_zeros_is_refused_by_name(folder, name):
    edit_weights(folder, lambda w: w[name].zero_())
    with pytest.raises(ModelError, match=rf"model\.safetensors: {name} holds nothing but zeros.*Copy"):
        load_model(folder, device="cpu")


def test_a_layer_of_zeros_adds_nothing_and_is_no_fault(folder):
    edit_weights(folder, lambda w: w["model.layers.0.mlp.down_proj.weight"].zero_())
    load_model(folder, device="cpu")


def test_a_link_to_weights_that_are_not_there_is_told(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/abc")
    with pytest.raises(ModelError, match=r"is a link to \.\./\.\./blobs/abc, which is not there.*cp -rL"):
        load_model(folder, device="cpu")


def test_a_weight_that_is_finite_in_the_file_only_is_told_from_a_broken_one(folder):
    edit_weights(folder, lambda w: w[HEAD].view(-1)[:2].fill_(1e6))
    message = rf"in float16, {HEAD} has 2 of 8192 .* In the file they are finite.*model\.dtype: bfloat16"
    with pytest.raises(ModelError, match=message):
        load_model(folder, device="cpu", dtype="float16")
    load_model(folder, device="cpu", dtype="bfloat16")
