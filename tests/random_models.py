"""Random-weight models of real head shapes, and random prompts, on the CPU in float32."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.engine import Engine
from flexray.prompts.prompt import Prompt

VOCAB = 256


class ByteTokenizer:
    """What the engine asks of a tokenizer, for models whose 256 tokens are bytes: 10 is the newline."""

    eos_token_id = 2

    def __len__(self):
        return VOCAB

    def decode(self, ids, *, skip_special_tokens, clean_up_tokenization_spaces):
        return bytes(i for i in ids if i != self.eos_token_id or not skip_special_tokens).decode("latin-1")

    def batch_decode(self, ids, *, clean_up_tokenization_spaces):
        return [bytes(i).decode("latin-1") for i in ids]


def randomize(model: Any) -> Any:
    """The model with random biases and norms: transformers starts them so that they do nothing."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.normal_(0.0 if name.endswith("bias") else 1.0, 0.2)
    return model


def save_model(folder: Path, config: Any, *, seed: int = 0, shard_size: str = "50GB") -> Path:
    """Save a model in bfloat16, as models are published, with a tokenizer whose 256 tokens are bytes. Every
    weight is random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))  # which it would change
        randomize(model)
    model.bfloat16().save_pretrained(folder, max_shard_size=shard_size)
    shown = [b for b in range(256) if chr(b).isprintable() and chr(b) not in " \xad"]
    hidden = [
        b for b in range(256) if b not in shown
    ]  # which byte-level BPE writes as characters from 256 on
    vocab = {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.decoder = decoders.ByteLevel()
    eos = next(token for token, b in vocab.items() if b == ByteTokenizer.eos_token_id)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_model():
    def make(heads=3, kv_heads=1, head_dim=64, seed=0, **kwargs):
        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=heads * 32,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=4096,
            initializer_range=0.2,
            eos_token_id=2,
            attn_implementation="eager",
            **kwargs,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def make_brief_model(make_model):
    """Makes a model that says the newline often, so that branches end at different times."""

    def make():
        model = make_model()
        with torch.no_grad():
            model.lm_head.weight[10] *= 2
        return model

    return make


@pytest.fixture(scope="session")
def make_engine():
    def make(
        model,
        *,
        layout="shared_context",
        positions="restart",
        methods=None,
        max_new_tokens=6,
        quantization=None,
        generation=None,
        **engine,
    ):
        engine = {"backend": "flex", "strict": True, "max_num_seqs": 8, **engine}
        if model.device.type == "cpu":  # the sizes of all tests, so that FlexAttention is compiled but once
            engine = {"max_num_batched_tokens": 256, **engine}
        if methods is None:
            methods = [MethodConfig(layout=layout, positions=positions)]
        generation = GenerationConfig(max_new_tokens=max_new_tokens, **(generation or {}))
        return Engine(model, ByteTokenizer(), methods, generation, EngineConfig(**engine), quantization)

    return make


@pytest.fixture(scope="session")
def make_prompts():
    def make(count, *, num_context=70, longest=30, seed=0):
        rnd = random.Random(seed)

        def words(n):
            return tuple(rnd.randrange(32, VOCAB) for _ in range(n))

        context = words(num_context)
        return [
            Prompt(
                context,
                tuple(words(rnd.randint(1, longest)) for _ in range(rnd.randint(1, 6))),
                words(2),
            )
            for _ in range(count)
        ]

    return make
