"""A model folder is refused with a reason before anything expensive starts, and loaded as data only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flexray.errors import ModelError
from flexray.models.checkpoint import check_checkpoint, load_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    vocab = {word: i for i, word in enumerate(["<s>", "</s>", "<unk>", "a", "b"])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def shard(folder: Path) -> list[str]:
    """Split model.safetensors in two files with an index, as large checkpoints are."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: files[i % 2] for i, name in enumerate(names)}
    for file in files:
        part = {n: weights[n] for n in names if weight_map[n] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return files


def test_a_good_folder_gives_its_configuration_anew_each_time(folder):
    first, second = check_checkpoint(folder), check_checkpoint(str(folder))
    assert isinstance(first, LlamaConfig)
    assert first.num_key_value_heads == 1
    assert first is not second


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere: no such model folder.*or the name of a model of"):
        check_checkpoint(tmp_path / "nowhere")


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "a JSON object is expected, found list"),
        ("\udcff", "cannot be read as JSON"),
        ("{}", "no model_type"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "hidden_size is 'wide'"),
    ],
)
def test_a_broken_config_is_refused(folder, content, reason):
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=reason):
        check_checkpoint(folder)


def test_another_architecture_is_named(folder):
    edit_config(folder, model_type="gpt2")
    with pytest.raises(ModelError, match=r"model_type 'gpt2'.*LLaMA and models with its layers"):
        check_checkpoint(folder)


def test_a_llama_without_language_model_head_is_refused(folder):
    edit_config(folder, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(ModelError, match=r"LlamaForSequenceClassification.*language-model head"):
        check_checkpoint(folder)


def test_quantised_weights_are_refused(folder):
    edit_config(folder, quantization_config={"quant_method": "bitsandbytes", "bits": 4})
    with pytest.raises(ModelError, match=r"quantised.*'bitsandbytes'"):
        check_checkpoint(folder)


def test_pickled_weights_are_refused_with_a_way_to_convert(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"pickled weights.*Convert them once.*use_safetensors=False"):
        check_checkpoint(folder)


def test_weights_under_another_name_are_named(folder):
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    with pytest.raises(ModelError, match=r"has no weights.*found only consolidated\.safetensors"):
        check_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_a_file_that_is_no_safetensors_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_checkpoint(folder)


def test_a_weight_file_cut_short_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"not a whole safetensors file.*cut short"):
        check_checkpoint(folder)


def test_missing_shards_are_named(folder):
    _, second = shard(folder)
    check_checkpoint(folder)
    (folder / second).unlink()
    with pytest.raises(ModelError, match=f"1 of 2 weight files are missing: {second}"):
        check_checkpoint(folder)


def test_an_index_without_map_is_refused(folder):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="has no weight_map"):
        check_checkpoint(folder)


def test_a_folder_without_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        check_checkpoint(folder)


def test_loading_gives_an_evaluating_float32_model_on_the_cpu(folder):
    model, tokenizer = load_model(folder, device="cpu")
    assert not model.training
    assert model.dtype == torch.float32
    assert model.device.type == "cpu"
    assert model.config._attn_implementation == "eager"
    assert tokenizer("a b").input_ids == [3, 4]


def test_sharded_weights_load_as_the_single_file_does(folder, tiny):
    shard(folder)
    sharded, whole = load_model(folder, device="cpu")[0], load_model(tiny, device="cpu")[0]
    ids = torch.tensor([[0, 3, 4]])
    assert torch.equal(sharded(ids).logits, whole(ids).logits)


def test_two_models_keep_their_own_attention_and_dtype(folder):
    eager, _ = load_model(folder, device="cpu")
    sdpa, _ = load_model(folder, dtype="bfloat16", device="cpu", attn_implementation="sdpa")
    assert (eager.config._attn_implementation, sdpa.config._attn_implementation) == ("eager", "sdpa")
    assert (eager.dtype, sdpa.dtype) == (torch.float32, torch.bfloat16)


def test_a_weight_absent_from_the_files_is_never_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weight\(s\) are missing.*layers\.1\.mlp\.up_proj"):
        check_checkpoint(folder)


def test_weights_of_another_shape_are_refused(folder):
    edit_config(folder, intermediate_size=32)
    message = (
        r"do not fit config\.json \(.*intermediate_size 32.*\): 6 have another shape: "
        r"model\.layers\.0\.mlp\.down_proj\.weight is \[16, 16\], not \[16, 32\], "
    )
    with pytest.raises(ModelError, match=message):
        check_checkpoint(folder)


def test_a_broken_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        load_model(folder, device="cpu")


def test_a_tokenizer_that_needs_code_names_the_key_that_allows_it(folder):
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}})
    )
    with pytest.raises(ModelError, match=r"auto_map.*set model\.trust_remote_code: true"):
        load_model(folder, device="cpu")


def test_code_in_the_folder_never_runs(folder, tmp_path):
    trace = tmp_path / "trace"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    edit_config(
        folder, auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilForCausalLM"}
    )
    check_checkpoint(folder)
    load_model(folder, device="cpu")
    load_model(folder, device="cpu", trust_remote_code=True)  # the tokenizer has no code of its own
    assert not trace.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_on_a_machine_without_it_is_refused(folder):
    with pytest.raises(ModelError, match="finds no CUDA device"):
        load_model(folder, device="cuda")
