"""vLLM beside flexray on the same tokens, where vLLM is installed: the part `vllm` of `make bench`.

- one prompt: vLLM gets context, all paraphrases and answer prefix as one plain prompt: the tokens of a fused
  answer, but causal attention isolates nothing. vLLM's best case, and another algorithm.
- per_prompt: each paraphrase a prompt of its own, 5 answers a sample; the same work for both.

Random weights, greedy, no token stops an answer, prefix caching on. Each engine and precision has a process
of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.work import SHAPES, W1, Work

ONE_PROMPT, PER_PROMPT = "one prompt", "per_prompt"
FLEXRAY = {ONE_PROMPT: "attention", PER_PROMPT: "per_prompt"}
"""The work of `benchmarks.compare` that answers with the same tokens."""
PRECISIONS = {"bfloat16": "deterministic", "fp8": "fp8"}
"""And its mode."""
SAMPLES, WARM_UPS, REPEATS = 2048, 2, 3
SIZES = {"max_num_seqs": 1024, "max_num_batched_tokens": 32768, "gpu_memory_utilization": 0.85}


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmResult:
    version: str
    rows: list[dict[str, Any]]
    """precision, work, flexray and vllm in samples a second."""


def is_installed() -> bool:
    """Whether vLLM can be imported."""
    return importlib.util.find_spec("vllm") is not None


def measure_beside_vllm(shape: str) -> VllmResult:
    """Both engines, both works, both precisions, one after the other."""
    from benchmarks.compare import HERE, in_process

    rows, version = [], ""
    for precision, mode in PRECISIONS.items():
        ours = in_process(HERE, shape, mode, ",".join(FLEXRAY.values()))
        theirs = _vllm_in_process(shape, precision)
        version = theirs["version"]
        rows += [
            {
                "precision": precision,
                "work": work,
                "flexray": ours[FLEXRAY[work]]["rate"],
                "vllm": theirs[work],
            }
            for work in FLEXRAY
        ]
    return VllmResult(version=version, rows=rows)


def _vllm_in_process(shape: str, precision: str) -> dict[str, Any]:
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "-m", "benchmarks.vllm", shape, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"vLLM, {shape}, {precision}: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _measure(shape: str, precision: str) -> None:
    """Print samples per second by vLLM, in this process: a line of JSON after each work, with all so far."""
    import vllm

    from benchmarks.clock import seconds

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(_config(shape)))
        llm = vllm.LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="bfloat16",
            quantization=None if precision == "bfloat16" else precision,
            max_model_len=2048,
            enable_prefix_caching=True,
            seed=0,
            disable_log_stats=True,
            **SIZES,
        )
    params = vllm.SamplingParams(
        temperature=0.0,
        max_tokens=W1.new_tokens,
        min_tokens=W1.new_tokens,
        ignore_eos=True,
        detokenize=False,
    )

    def answer(prompts: list[dict[str, list[int]]]) -> None:
        for answered in llm.generate(prompts, params, use_tqdm=False):
            assert len(answered.outputs[0].token_ids) == W1.new_tokens

    found: dict[str, Any] = {"version": vllm.__version__}
    for work in FLEXRAY:
        calls = [_prompts(W1, work, SHAPES[shape].vocab, seed) for seed in range(WARM_UPS + REPEATS)]
        taken = [seconds(lambda prompts=prompts: answer(prompts)) for prompts in calls]  # type: ignore[misc]
        found[work] = SAMPLES / statistics.median(taken[WARM_UPS:])
        print(json.dumps(found), flush=True)


def _prompts(work: Work, kind: str, vocab_size: int, seed: int) -> list[dict[str, list[int]]]:
    """The same token ids as flexray's."""
    found = []
    for sample in work.prompts(SAMPLES, vocab_size, seed):
        paraphrases = list(sample.segments)
        together = [[token for text in paraphrases for token in text]]
        texts = together if kind == ONE_PROMPT else [list(text) for text in paraphrases]
        found += [{"prompt_token_ids": [*sample.context, *text, *sample.answer_prefix]} for text in texts]
    return found


def _config(name: str) -> dict[str, Any]:
    shape = SHAPES[name]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": None,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One precision of vLLM, as JSON.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("precision", choices=PRECISIONS)
    arguments = parser.parse_args()
    _measure(arguments.shape, arguments.precision)
