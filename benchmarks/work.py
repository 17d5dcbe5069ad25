"""The work that is measured (W1), model shapes, and how much of it on which device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from flexray.prompts.prompt import Prompt

FIRST_ID = 10  # random ids start here: below are special tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One sample: paraphrases behind a context that all samples share. The defaults are W1."""

    paraphrases: int = 5
    context: int = 136
    segment: int = 24
    """Tokens of a paraphrase."""
    spread: int = 0
    """Paraphrases have `segment - spread` to `segment + spread` tokens."""
    answer_prefix: int = 3
    new_tokens: int = 16

    @property
    def own_tokens(self) -> int:
        """Tokens of a sample that must be prefilled if the context is there already."""
        return self.paraphrases * self.segment + self.answer_prefix

    def prompts(self, count: int, vocab_size: int, seed: int) -> list[Prompt]:
        """Samples of random token ids. The context is the same for every seed."""

        def draw(source: np.random.Generator, length: int) -> tuple[int, ...]:
            return tuple(source.integers(FIRST_ID, vocab_size, length).tolist())

        context = draw(np.random.default_rng(0), self.context)
        source = np.random.default_rng(1 + seed)
        low, high = self.segment - self.spread, self.segment + self.spread
        return [
            Prompt(
                context,
                tuple(draw(source, int(source.integers(low, high + 1))) for _ in range(self.paraphrases)),
                draw(source, self.answer_prefix),
            )
            for _ in range(count)
        ]


W1 = Work()
MIXED = dataclasses.replace(W1, spread=12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A LLaMA by its sizes."""

    title: str
    hidden: int
    inter: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool


SMOLLM2 = "smollm2"
"""The one shape that comes with real weights."""

SHAPES = {
    SMOLLM2: Shape(
        title="SmolLM2-135M-Instruct",
        hidden=576, inter=1536, layers=30, heads=9, kv_heads=3, head_dim=64, vocab=49152, tied=True,
    ),
    "1b": Shape(
        title="Llama-3.2-1B shape, random weights",
        hidden=2048, inter=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab=128256, tied=True,
    ),
    "3b": Shape(
        title="Llama-3.2-3B shape, random weights",
        hidden=3072, inter=8192, layers=28, heads=24, kv_heads=8, head_dim=128, vocab=128256, tied=True,
    ),
    "8b": Shape(
        title="Llama-3.1-8B shape, random weights",
        hidden=4096, inter=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=128256, tied=False,
    ),
    "70b": Shape(
        title="Llama-3.1-70B shape, random weights",
        hidden=8192, inter=28672, layers=80, heads=64, kv_heads=8, head_dim=128, vocab=128256, tied=False,
    ),
    "tiny": Shape(
        title="a tiny shape, random weights: only for trying",
        hidden=128, inter=256, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=49152, tied=False,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is measured."""

    samples: int
    """Samples of one run of the engine."""
    mixed: bool
    """Whether paraphrases of unequal lengths are measured too."""
    prompts: int
    """Prompts at once in `generate`."""
    gemm_tokens: int
    """Tokens of the limit's prefill."""
    rows: int
    """Rows of the limit's decode step; the engine decodes as many by default."""
    script_seconds: float
    """How long one sample of the script may take; if it took longer, fewer of its tokens are measured."""
    seconds: float
    """No further repeat once repeats have taken this long."""
    warm_ups: int
    """Runs of the engine before a figure is taken."""
    growth_samples: int
    axes: dict[str, tuple[int, ...]]
    """What grows: a field of Work, or `max_num_seqs`."""


GPU_AXES = {
    "paraphrases": (1, 2, 5, 10, 20),
    "context": (0, 128, 512, 2048, 4096),
    "new_tokens": (1, 4, 16, 64),
    "max_num_seqs": (1, 8, 64, 256, 512, 1024),
}
CPU_AXES = {
    "paraphrases": (1, 2, 5, 10),
    "context": (0, 128, 512),
    "new_tokens": (1, 4, 16),
    "max_num_seqs": (1, 8, 32),
}
QUICK_AXES: dict[str, tuple[int, ...]] = {
    "paraphrases": (1, 5),
    "context": (0, 128),
    "new_tokens": (1, 16),
    "max_num_seqs": (1, 8),
}

GPU = Sizes(
    samples=2048, mixed=True, prompts=256, gemm_tokens=32768, rows=512, script_seconds=20, seconds=30,
    warm_ups=2, growth_samples=1024, axes=GPU_AXES,
)  # fmt: skip
CPU = Sizes(
    samples=64, mixed=True, prompts=16, gemm_tokens=2048, rows=32, script_seconds=20, seconds=40,
    warm_ups=1, growth_samples=32, axes=CPU_AXES,
)  # fmt: skip
GPU_QUICK = dataclasses.replace(GPU, samples=1024, mixed=False, script_seconds=4, seconds=4, axes=QUICK_AXES)
CPU_QUICK = dataclasses.replace(
    CPU, samples=8, mixed=False, prompts=8, script_seconds=2, seconds=4, growth_samples=8, axes=QUICK_AXES
)


def sizes_for(device: str, *, quick: bool) -> Sizes:
    """How much to measure on "cuda" or "cpu"."""
    if device == "cuda":
        return GPU_QUICK if quick else GPU
    return CPU_QUICK if quick else CPU
