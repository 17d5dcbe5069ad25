"""The process of a check: a tiny random model answers by two backends, or Ray runs a task.

Reads a JSON object with the key `task` (attention or ray) from standard input, and prints a JSON object.
"""

from __future__ import annotations

import json
import platform
import random
import socket
import sys
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flexray.config import Backend, EngineConfig, GenerationConfig, MethodConfig, RayConfig
from flexray.engine.engine import Engine
from flexray.engine.fallback import describe_fault, handled_errors
from flexray.prompts.prompt import Prompt

VOCABULARY = 256
METHODS = (MethodConfig(), MethodConfig(kind="per_prompt"))  # fused, and each paraphrase by itself
CONTEXT, SEGMENT_SIZES = 45, ((2, 7, 12), (3, 9, 4), (12, 2, 5), (8, 8, 3))
"""Tokens: of a context longer than a block, and of each prompt's paraphrases."""


class Bytes:
    """The parts of a tokenizer that the engine uses; each token is a byte."""

    eos_token_id = 0

    def __len__(self) -> int:
        return VOCABULARY

    def batch_decode(self, ids: list[list[int]], *, clean_up_tokenization_spaces: bool) -> list[str]:
        return [bytes(i).decode("latin-1") for i in ids]


def compare_backends(task: dict[str, Any]) -> dict[str, Any]:
    """Answer prompts by `backend` and by eager.

    Args:
        task: backend, device, dtype; heads (query heads of a key/value head) and width (of a head).

    Returns:
        answers and how many of them are the same; or the backend's error, and whether a run would fall back
        from it. Also device and seconds.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    start = time.perf_counter()
    found: dict[str, Any] = {"error": "", "falls_back": False, "same": 0, "answers": 0}
    expected = _answers(task, "eager")
    try:
        got = _answers(task, task["backend"])
    except Exception as e:
        found |= {"error": describe_fault(task["backend"], e), "falls_back": isinstance(e, handled_errors())}
    else:
        found["answers"] = len(expected)
        found["same"] = sum(a == b for a, b in zip(got, expected, strict=True))
    found["device"] = torch.cuda.get_device_name() if task["device"] == "cuda" else "CPU"
    found["seconds"] = time.perf_counter() - start
    return found


def _answers(task: dict[str, Any], backend: Backend) -> list[tuple[int, ...]]:
    """The tokens of all answers; the model and the prompts are the same each time."""
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=task["heads"] * 32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=task["heads"],
        num_key_value_heads=1,
        head_dim=task["width"],
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    engine = Engine(
        LlamaForCausalLM(shape).eval().to(task["device"], getattr(torch, task["dtype"])),
        Bytes(),  # type: ignore[arg-type]
        METHODS,
        GenerationConfig(max_new_tokens=6, stop_at_newline=False),
        EngineConfig(backend=backend, strict=True, max_num_seqs=8, max_num_batched_tokens=256),
    )
    tokens = iter(random.Random(0).choices(range(1, VOCABULARY), k=1000))

    def words(count: int) -> tuple[int, ...]:
        return tuple(next(tokens) for _ in range(count))

    context, answer_prefix = words(CONTEXT), words(2)
    prompts = [Prompt(context, tuple(map(words, sizes)), answer_prefix) for sizes in SEGMENT_SIZES]
    answers = engine.generate(prompts)
    return [generation.token_ids for methods in answers for method in methods for generation in method]


def try_ray(task: dict[str, Any]) -> dict[str, Any]:
    """Connect as a run does, and run one task.

    Args:
        task: config (a RayConfig).

    Returns:
        host, python, version, nodes, resources, seconds.
    """
    import ray

    from flexray.pipeline.ray_connection import connect_ray

    start = time.perf_counter()
    connect_ray(RayConfig.model_validate(task["config"]))

    @ray.remote(num_cpus=1, max_retries=0)
    def who() -> tuple[str, str]:
        return socket.gethostname(), platform.python_version()

    host, python = ray.get(who.remote())
    found = {
        "host": host,
        "python": python,
        "version": ray.__version__,
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "resources": ray.cluster_resources(),
        "seconds": time.perf_counter() - start,
    }
    ray.shutdown()
    return found


if __name__ == "__main__":
    task = json.load(sys.stdin)
    print(json.dumps({"attention": compare_backends, "ray": try_ray}[task["task"]](task)))
