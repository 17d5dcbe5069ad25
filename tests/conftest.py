"""A model folder that answers in milliseconds: SmolLM2's tokenizer, a tiny LLaMA with random weights."""

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SMOLLM2 = PROJECT / "models" / "smollm2-135m"


@pytest.fixture(scope="session")
def smollm2():
    """The embedded default model."""
    if not (SMOLLM2 / "tokenizer.json").is_file():
        pytest.skip(f"{SMOLLM2} is missing: run `make setup` first")
    return SMOLLM2


@pytest.fixture(scope="session")
def tokenizer(smollm2):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2, local_files_only=True)


@pytest.fixture(scope="session")
def save_tiny_model(tokenizer):
    """Saves a tiny model of the given seed and context length into a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def save(folder: Path, *, seed: int = 0, max_positions: int = 2048) -> Path:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,  # a multiple of the heads, as transformers insists
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
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

    return save


@pytest.fixture(scope="session")
def tiny_model(save_tiny_model, tmp_path_factory):
    """A model folder, shared by the whole session: do not change it."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))
