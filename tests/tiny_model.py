"""A tiny LLaMA with random weights, in a folder as a run takes it."""

import json
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

VOCAB = 2048


def cut_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A BPE tokenizer with the first tokens only, in a copy. An engine takes seconds to read 49,152 and to
    look for a newline in each, and tests start many engines."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        file = Path(folder) / "tokenizer.json"
        tree = json.loads(file.read_text(encoding="utf-8"))
        vocab = tree["model"]["vocab"]
        tree["model"]["vocab"] = {token: i for token, i in vocab.items() if i < VOCAB}
        tree["model"]["merges"] = [
            merge
            for merge in tree["model"]["merges"]
            if vocab["".join(merge if isinstance(merge, list) else merge.split(" "))] < VOCAB
        ]
        file.write_text(json.dumps(tree), encoding="utf-8")
        for name in ("vocab.json", "merges.txt"):
            (Path(folder) / name).unlink(missing_ok=True)
        cut = type(tokenizer).from_pretrained(folder, local_files_only=True)
    assert len(cut) == VOCAB
    return cut


def save_tiny_model(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    max_positions: int = 2048,
    heads: int = 3,
    kv_heads: int = 1,
) -> Path:
    """Save a model of the given seed, context length and heads, with its tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16 * heads,  # a multiple of the heads, as transformers insists
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=64,
        max_position_embeddings=max_positions,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
