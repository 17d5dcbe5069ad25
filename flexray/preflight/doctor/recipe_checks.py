"""The folders and files that a configuration names: model, data and output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem
from rich.filesize import decimal

from flexray.config import RunConfig
from flexray.data import list_files, scan
from flexray.engine.scheduler_config import GIB
from flexray.models.checkpoint import check_checkpoint, load_tokenizer, resolve_dtype
from flexray.models.remarks import remark
from flexray.models.tensor_parallel import local_config
from flexray.preflight.check_results import CheckResult, fail, passed, warn
from flexray.preflight.host import existing_folder, ram_bytes
from flexray.preflight.plan.devices import find_device
from flexray.preflight.plan.memory import ITEM_BYTES, count_parameters
from flexray.sink import OutputFolder
from flexray.sink.folder import is_leftover
from flexray.storage import connect, starting


def check_model(config: RunConfig | None) -> Iterator[CheckResult]:
    """Whether the checkpoint can be loaded, judging by its headers, and its tokenizer works."""
    if config is None:
        return
    shape = check_checkpoint(config.model.path)
    local_config(shape, config.engine.tensor_parallel)  # raises if it cannot be split
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    parameters = count_parameters(config.model.path, config.model.lora)
    ids = tokenizer("What is the capital of Finland?", add_special_tokens=False)["input_ids"]
    for odd in remark(config.model.path, tokenizer):
        yield warn(odd)
    what = (
        f"{config.model.path}: {parameters / 1e6:,.1f} million parameters, {shape.max_position_embeddings:,} "
        f"positions; the tokenizer knows {len(tokenizer):,} tokens"
    )
    if config.model.lora:
        what += f"; LoRA adapters to merge: {', '.join(config.model.lora)}"
    if not ids:
        yield fail(f"{what}, and makes none of a question", "Copy the tokenizer's files again.")
        return
    loaded = (
        parameters
        * ITEM_BYTES[resolve_dtype(config.model.dtype, on_gpu=find_device(config, None, None).is_gpu)]
    )
    if loaded > ram_bytes():
        yield warn(
            f"{what}; {decimal(loaded)} of weights pass through {ram_bytes() / GIB:.1f} GiB of RAM",
            "Take a machine with more.",
        )
    else:
        yield passed(what)


def check_data(config: RunConfig | None) -> Iterator[CheckResult]:
    """Whether all files are there and the first shard can be read."""
    if config is None:
        return
    with starting():
        files = list_files(config.data)
    rows = min(config.data.shard_rows, config.data.limit or config.data.shard_rows)
    found = scan(config.data.model_copy(update={"limit": rows}))
    faults = [error for error in found["error"].to_pylist() if error]
    what = f"files: {len(files)}; {found.num_rows} rows read, the first of {found['source_file'][0]}"
    if faults:
        yield warn(f"{what}, {len(faults)} of them faulty: {faults[0]}", "`flexray plan` says more.")
    else:
        yield passed(what)


def check_output(config: RunConfig | None) -> Iterator[CheckResult]:
    """Write, list and remove a probe file in the output folder, or above it if it is not there. A run that
    works there ignores it."""
    if config is None:
        return
    folder = OutputFolder(config.output)
    fs, path = connect(folder.url)
    is_local = isinstance(fs, LocalFileSystem)
    place = OutputFolder(str(existing_folder(path))) if is_local else folder
    was_there = fs.isdir(path)
    start = time.perf_counter()
    try:
        place.prepare()
        _probe(place)
    finally:
        if not is_local and not was_there and fs.isdir(path):  # never on object stores, which have no folders
            fs.rmdir(path)
    seconds = time.perf_counter() - start
    yield passed(f"{place}: a file was written, read, listed and removed ({seconds:.1f} s)")


def _probe(place: OutputFolder) -> None:
    """Raises OSError if a new file is not listed, or a removed one is."""
    name = f".probe-{uuid4().hex}"
    assert is_leftover(name)  # a run that starts now would refuse a folder with other files
    place.write_bytes(name, b"flexray")
    try:
        listed = name in place.list()
    finally:
        place.remove(name)
    if not listed:
        raise OSError(f"{place}: a file that was just written is not in the listing")
    if name in place.list():
        raise OSError(f"{place.where(name)}: is listed still, although it was removed")
