"""A checkpoint of a shape with random weights, written a layer at a time: a card need not hold the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from benchmarks.models import SMOLLM2_FOLDER, shape_config
from benchmarks.parts import fill
from benchmarks.work import SHAPES, SMOLLM2
from flexray.models.weights import HEAD, INDEX

WRITERS = 4
"""Files that are written at once; the host holds one layer for each."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def save_checkpoint(folder: Path, name: str, device: str) -> Path:
    """Write a shape's model, in bfloat16 if the device is "cuda", else float32, and SmolLM2's tokenizer, into
    `folder/name`, in a process of its own, so that nothing stays on the device. SmolLM2 has one."""
    if name == SMOLLM2:
        return SMOLLM2_FOLDER
    code = "import sys; from benchmarks.checkpoint import write; write(*sys.argv[1:])"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(folder / name), name, device], check=True)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in (folder / name).iterdir()) / 1e9
    print(f"{SHAPES[name].title}: {size:.1f} GB written in {seconds:.1f} s", file=sys.stderr, flush=True)
    return folder / name


def write(place: str, name: str, kind: str) -> None:
    """What `save_checkpoint` does in its process."""
    folder, device = Path(place), torch.device(kind)
    folder.mkdir(parents=True)
    config = shape_config(SHAPES[name])
    before = torch.get_default_dtype()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    for file in TOKENIZER:
        shutil.copy(SMOLLM2_FOLDER / file, folder / file)
    parts: dict[str, nn.Module] = {
        "model.embed_tokens": model.model.embed_tokens,
        "model.norm": model.model.norm,
    }
    if not config.tie_word_embeddings:
        parts[HEAD.removesuffix(".weight")] = model.lm_head
    parts |= {f"model.layers.{i}": layer for i, layer in enumerate(model.model.layers)}
    files: dict[str, str] = {}
    size = 0
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(WRITERS) as threads:
        for number, (prefix, part) in enumerate(parts.items()):
            fill(part, device, seed=number)
            weights = {f"{prefix}.{key}": weight.cpu() for key, weight in part.state_dict().items()}
            part.to("meta")
            file = f"model-{number:05}.safetensors"
            files |= dict.fromkeys(weights, file)
            size += sum(weight.nbytes for weight in weights.values())
            waiting.append(threads.submit(_save, weights, folder / file))
            if len(waiting) >= WRITERS:
                waiting.pop(0).result()
        for future in waiting:
            future.result()
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _save(weights: dict[str, Tensor], path: Path) -> None:
    save_file(weights, path, metadata={"format": "pt"})
