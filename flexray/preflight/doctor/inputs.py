"""What a configuration reads: the model folder and the data."""

from __future__ import annotations

from collections.abc import Iterator

from flexray.config import RunConfig
from flexray.data import list_files, read_shard, scan
from flexray.models.checkpoint import check_checkpoint, load_tokenizer
from flexray.models.remarks import remark
from flexray.preflight.doctor.examine import Finding
from flexray.preflight.plan.devices import GIB, find_device
from flexray.preflight.plan.machine import decimal, ram_bytes
from flexray.preflight.plan.memory import ITEM_BYTES, count_parameters, dtype_of
from flexray.storage import starting


def check_model(config: RunConfig | None) -> Iterator[Finding]:
    """The checkpoint can be loaded, as far as its headers tell, and its tokenizer works."""
    if config is None:
        return
    shape = check_checkpoint(config.model.path)
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    parameters = count_parameters(config.model.path)
    ids = tokenizer("What is the capital of Finland?", add_special_tokens=False)["input_ids"]
    for odd in remark(config.model.path, tokenizer):
        yield Finding("warn", odd)
    what = (
        f"{config.model.path}: {parameters / 1e6:,.1f} million parameters, {shape.max_position_embeddings:,} "
        f"positions; the tokenizer knows {len(tokenizer):,} tokens"
    )
    if not ids:
        yield Finding("fail", f"{what}, and makes none of a question", "Copy the tokenizer's files again.")
        return
    loaded = parameters * ITEM_BYTES[dtype_of(config, find_device(config, None, None))]
    if loaded > ram_bytes():
        yield Finding(
            "warn",
            f"{what}; {decimal(loaded)} of weights pass through {ram_bytes() / GIB:.1f} GiB of RAM",
            "Take a machine with more.",
        )
    else:
        yield Finding("pass", what)


def check_data(config: RunConfig | None) -> Iterator[Finding]:
    """All files are there, and the first shard can be read."""
    if config is None:
        return
    with starting():
        files = list_files(config.data)
    shard = scan(config.data.model_copy(update={"limit": config.data.shard_rows})).shards[0]
    questions = read_shard(shard, config.data)
    faults = [question.error for question in questions if question.error]
    what = f"files: {len(files)}; {len(questions)} rows read of {shard.file}"
    if faults:
        yield Finding(
            "warn", f"{what}, {len(faults)} of them faulty: {faults[0]}", "`flexray plan` says more."
        )
    else:
        yield Finding("pass", what)
