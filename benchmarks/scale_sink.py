"""An output folder of very many shards: what a start, a listing, a compaction and a reader take of it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from flexray.data.plan_rows import to_table as to_plan_table
from flexray.data.question import Question
from flexray.engine.generation import Generation
from flexray.evaluation import to_table
from flexray.pipeline.shards import AnsweredShard, answer_lists, question_table
from flexray.sink import (
    Manifest,
    OutputFolder,
    RunRecord,
    checked_specs,
    commit_shard,
    committed_shards,
    compact,
    specs_of,
    whole_shards,
)
from flexray.sink.commit.manifests import list_manifests
from flexray.sink.plan.files import write_part
from flexray.sink.plan.growth import Growth
from flexray.sink.records.names import MANIFEST_FOLDER, manifest_name
from flexray.sink.records.run import PlanPart, Selection, fingerprint
from flexray.sink.run.existing import load_run
from flexray.sink.run.start import write_run

METHOD = "attention/shared_context/restart"
PARTS: dict[str, Any] = {"data": {"name": "bench", "split": "all"}}
SHARDS_A_FILE = 195
"""In a plan file, as a run of shards of 512 questions has them."""
COUNTERS = {
    "attention_calls": {"flex": 476, "sdpa": 0, "eager": 0},
    "context_tokens": 0,
    "prefill_tokens": 62976,
    "shared_tokens": 0,
    "generated_tokens": 8192,
    "decode_steps": 15,
    "prefill_seconds": 0.412,
    "decode_seconds": 0.371,
    "mask_cache": {"hits": 16, "misses": 0},
    "counted_in": "",
    "process": "gpu-node-0001:123456",
    "device": "NVIDIA H100 80GB HBM3",
    "dtype": "bfloat16",
    "rounding": {"backend": "flex", "device": "NVIDIA H100 80GB HBM3", "torch": "2.13.0", "rows": 512},
    "seconds": 0.783,
    "answered_at": 1795000000.0,
}


def _question(number: int, dataset: str = "bench") -> Question:
    wordings = tuple(f"Paraphrase {n} of question {number}: which number has it?" for n in range(5))
    return Question(
        dataset=dataset,
        split="all",
        row_id=f"{number:032x}",
        source_file="s3://bucket/questions.jsonl",
        source_row=number + 1,
        source_id=f"q{number}",
        question=wordings[0],
        paraphrases=wordings,
        answers=(str(number),),
    )


def make_part(folder: OutputFolder, number: int, first: int, shards: int) -> PlanPart:
    """Write a plan file of so many shards of one question."""
    return write_part(
        folder,
        number,
        to_plan_table([_question(first + i) for i in range(shards)]),
        shards=[1] * shards,
        first_shard=first,
        methods=[METHOD],
        fingerprint=fingerprint(PARTS),
        replaces=pa.array([False] * shards),
    )


def write_folder(folder: OutputFolder, shards: int) -> RunRecord:
    """A finished run of so many shards of one question: plan files, record, and a real manifest of each. The
    data files have the size that the manifests say, and nothing in them."""
    parts, done = [], 0
    while done < shards:
        parts.append(make_part(folder, len(parts), done, min(SHARDS_A_FILE, shards - done)))
        done += min(SHARDS_A_FILE, shards - done)
    growth = Growth(plan=tuple(parts), selection=Selection(methods=(METHOD,), sources=""), next_shard=done)
    record = write_run(folder, None, growth, parts=PARTS, config={}, provenance={}, code=None)
    some = _commit_one(folder, record)
    root = Path(folder.local_path or "")
    for shard_id in record.shards():
        if shard_id == some.shard_id:
            continue
        file = some.file.replace(some.shard_id, shard_id)
        manifest = some.model_copy(update={"shard_id": shard_id, "file": file}).sealed()
        (root / manifest_name(shard_id)).write_bytes(manifest.to_bytes())
        with (root / file).open("wb") as stream:
            stream.truncate(manifest.bytes)
    return record


def _commit_one(folder: OutputFolder, record: RunRecord) -> Manifest:
    spec = next(iter(specs_of(folder, record).values()))
    said = Generation(
        token_ids=tuple(range(16)), finish_reason="length", backend_requested="flex", backend_used="flex"
    )
    shard = AnsweredShard(
        spec,
        question_table([_question(0)]),
        [138],
        answer_lists([((said,),)], [(("an answer",),)]),
        COUNTERS,
        1.0,
    )
    return commit_shard(
        folder,
        shard_id=spec.shard_id,
        table=to_table(shard, (METHOD,)),
        fingerprint=record.fingerprint,
        methods=(METHOD,),
        engine_stats=COUNTERS,
        seconds=1.0,
        expected_row_ids=[f"{0:032x}"],
    )


LISTING, MANIFESTS, START, COMPACTION = (
    "the list of manifests",
    "all manifests (evaluate, report, export)",
    "a start that finds all committed",
    "compaction",
)
STEPS: dict[str, Callable[[OutputFolder, RunRecord], Any]] = {
    "the record": lambda folder, record: load_run(folder),
    LISTING: lambda folder, record: list_manifests(folder),
    MANIFESTS: committed_shards,
    START: whole_shards,
    "the plan of all shards, each file checked": lambda folder, record: checked_specs(
        folder, record, record.shards().keys()
    ),
    COMPACTION: lambda folder, record: compact(folder, record.fingerprint),
}


AGAIN = (LISTING, MANIFESTS, START)
"""To be measured once more after the compaction."""


def measure_step(folder: OutputFolder, name: str) -> dict[str, float]:
    """Seconds, seconds of CPU and growth of this process's memory in MiB; call it in a new process."""
    record = load_run(folder)
    assert isinstance(record, RunRecord)
    before, cpu, start = _peak(), time.process_time(), time.perf_counter()
    STEPS[name](folder, record)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "mib": _peak() - before,
    }


def sizes(folder: OutputFolder) -> dict[str, int]:
    """Bytes of the record, of the plan files, and of the files of manifests."""
    root = Path(folder.local_path or "")
    return {
        "_run.json": (root / "_run.json").stat().st_size,
        **{
            name: sum(entry.stat().st_size for entry in os.scandir(root / name))
            for name in ("plan", MANIFEST_FOLDER)
        },
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
