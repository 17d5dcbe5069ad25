"""The folders and files that a configuration names: what only `doctor` looks at of model, data and output."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fsspec.implementations.local import LocalFileSystem
from rich.filesize import decimal

from flexray.console.checks import Finding, fail, passed, warn
from flexray.data import list_files, scan
from flexray.engine.scheduler_config import GIB
from flexray.models.checkpoint import resolve_dtype
from flexray.preflight.host import existing_folder, ram_bytes
from flexray.preflight.plan.dry_run import DryRun
from flexray.preflight.plan.memory import ITEM_BYTES, count_parameters
from flexray.sink import OutputFolder
from flexray.storage import connect, starting


def check_weights(run: DryRun) -> Iterator[Finding]:
    """Whether the tokenizer works, and the weights, which pass through this machine's memory, fit."""
    assert run.shape is not None
    assert run.tokenizer is not None
    model = run.config.model
    parameters = count_parameters(model.path, model.lora)
    what = (
        f"{model.path}: {parameters / 1e6:,.1f} million parameters, {run.shape.max_position_embeddings:,} "
        f"positions; the tokenizer knows {len(run.tokenizer):,} tokens"
    )
    if model.lora:
        what += f"; LoRA adapters to merge: {', '.join(model.lora)}"
    loaded = parameters * ITEM_BYTES[resolve_dtype(model.dtype, on_gpu=run.device.is_gpu)]
    if not run.tokenizer("What is the capital of Finland?", add_special_tokens=False)["input_ids"]:
        yield fail(f"{what}, and makes none of a question", "Copy the tokenizer's files again.")
    elif loaded > ram_bytes():
        yield warn(
            f"{what}; {decimal(loaded)} of weights pass through {ram_bytes() / GIB:.1f} GiB of RAM",
            "Take a machine with more.",
        )
    else:
        yield passed(what)


def check_first_shard(run: DryRun) -> Iterator[Finding]:
    """Whether all files are there and the first shard can be read."""
    data = run.config.data
    with starting():
        files = list_files(data)
    rows = min(data.shard_rows, data.limit or data.shard_rows)
    found = scan(data.model_copy(update={"limit": rows}))
    faults = [error for error in found["error"].to_pylist() if error]
    what = f"files: {len(files)}; {found.num_rows} rows read, the first of {found['source_file'][0]}"
    if faults:
        yield warn(f"{what}, {len(faults)} of them faulty: {faults[0]}", "`flexray plan` says more.")
    else:
        yield passed(what)


def check_output(run: DryRun) -> Iterator[Finding]:
    """Write, list and remove a probe file in the output folder, or above it if it is not there. A run that
    works there ignores it."""
    folder = OutputFolder(run.config.output)
    fs, path = connect(folder.url)
    is_local = isinstance(fs, LocalFileSystem)
    place = OutputFolder(str(existing_folder(path))) if is_local else folder
    was_there = fs.isdir(path)
    start = time.perf_counter()
    try:
        place.prepare()
    finally:
        if not is_local and not was_there and fs.isdir(path):  # never on object stores, which have no folders
            fs.rmdir(path)
    seconds = time.perf_counter() - start
    yield passed(f"{place}: a file was written, read, listed and removed ({seconds:.1f} s)")
