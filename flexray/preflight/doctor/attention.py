"""The attention backend on this machine, against the same mask written out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flexray.config import EngineConfig, RunConfig
from flexray.errors import ModelError
from flexray.models.checkpoint import check_checkpoint
from flexray.preflight.doctor.examine import Finding
from flexray.preflight.doctor.machine import runs_on_gpu
from flexray.preflight.doctor.process import ProcessError, call_module

SECONDS = 900.0  # a busy machine compiles for minutes


def check_attention(config: RunConfig | None) -> Iterator[Finding]:
    """A tiny random model answers by the configured backend, strictly, and by `eager`, with the same tokens.

    In float32, where both must agree; and in 16 bits, if the run is in those, where it is seen to work.
    """
    engine = config.engine if config else EngineConfig()
    if engine.backend == "eager":
        yield Finding("pass", "eager is the yardstick itself")
        return
    for dtype in _dtypes(config):
        try:
            found = call_module(
                "flexray.preflight.doctor.attention_task", _task(config, engine, dtype), SECONDS
            )
        except ProcessError as e:
            yield Finding("fail", f"{engine.backend} in {dtype}: the process that tried it {e}")
            return
        finding = judge(found, engine, dtype)
        yield finding
        if finding.status != "pass":
            return


def judge(found: dict[str, Any], engine: EngineConfig, dtype: str) -> Finding:
    """What a comparison (see `attention_task.compare`) means for a run."""
    what = f"{engine.backend} on {found['device']} in {dtype} ({found['seconds']:.0f} s)"
    if error := found["error"]:
        if engine.strict or not found["falls_back"]:
            advice = "A run would stop. Set engine.backend to sdpa to do without it."
            return Finding("fail", f"{what}: {error}", advice)
        return Finding(
            "warn",
            f"{what}: {error}",
            "Rows will be answered by another backend, and say so. Setting engine.backend to sdpa saves the "
            "attempts.",
        )
    same = f"{found['same']} of {found['answers']} answers are those of eager"
    if dtype == "float32" and found["same"] < found["answers"]:
        return Finding("fail", f"{what}: only {same}", "Do not use this backend here: set engine.backend.")
    return Finding("pass", f"{what}: {same}")


def _dtypes(config: RunConfig | None) -> list[str]:
    wanted = config.model.dtype if config else "auto"
    if wanted == "auto":
        wanted = "bfloat16" if runs_on_gpu(config) else "float32"
    return list(dict.fromkeys(["float32", wanted]))


def _task(config: RunConfig | None, engine: EngineConfig, dtype: str) -> dict[str, Any]:
    """What the process is to do; with the shape of the configured model's heads, if it can be read."""
    heads, width = 3, 64
    if config is not None:
        try:
            shape = check_checkpoint(config.model.path)
        except ModelError:  # a check of its own
            pass
        else:
            heads = shape.num_attention_heads // (shape.num_key_value_heads or shape.num_attention_heads)
            width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    device = "cuda" if runs_on_gpu(config) else "cpu"
    return {"backend": engine.backend, "device": device, "dtype": dtype, "heads": heads, "width": width}
