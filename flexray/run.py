"""The job: check everything, plan, answer what is not committed yet, commit, sum up.

This is where the stages are joined; each of them knows only those before it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any

import pyarrow as pa

from flexray import __version__
from flexray.config import RunConfig
from flexray.data import Scan, scan
from flexray.engine.checkpoint import check_checkpoint
from flexray.engine.model_digest import checkpoint_digest
from flexray.evaluation import exact_match
from flexray.pipeline import AnsweredShard, answer_shards, connect
from flexray.sink import Manifest, OutputFolder, commit_shard, committed_shards, discard_run, start_run
from flexray.types import ROW_SCHEMA

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a run left behind."""

    manifests: dict[str, Manifest]  # of all committed shards, by shard id
    rows_before: int  # committed before this start
    rows_now: int  # committed by this start
    seconds: float  # of this start, with start-up and compilation


def run(config: RunConfig, *, fresh: bool = False, say: Say = print) -> RunResult:
    """Run, or resume, a job.

    Args:
        fresh: discard what the output folder holds of an earlier run.
        say: is told, line by line, what happens.

    Raises:
        UserError: something the user can put right; raised before any model is loaded, where it can be.
    """
    start = time.perf_counter()
    folder = OutputFolder(config.output)
    folder.prepare()
    check_checkpoint(config.model.path)
    found = scan(config.data)
    discarded = fresh and discard_run(folder)  # not before it is known that this start can go on
    record = start_run(
        folder,
        known=discarded,
        parts=fingerprint_parts(config, found),
        config=config.model_dump(mode="json"),
        provenance=provenance(),
        shards=found.shards,
    )
    before = committed_shards(folder, record.fingerprint)
    rows_before = sum(m.rows for m in before.values())
    todo = [s for s in found.shards if s.shard_id not in before]
    say(
        f"{config.data.name}/{config.data.split}: {found.num_rows} rows in {len(found.shards)} shards, "
        f"{rows_before} rows in {len(before)} shards committed already -> {folder}"
    )
    if not todo:
        say("everything is committed: nothing to do")
    else:
        connect(config.ray)
        rows_todo = found.num_rows - rows_before
        done = 0
        for shard in answer_shards(todo, config, Commit(folder.url, record.fingerprint, config.method.name)):
            done += shard["rows"]
            say(
                f"  {shard['shard_id']}: {shard['rows']} rows, {shard['errors']} errors, "
                f"{shard['seconds']:.1f} s [{done}/{rows_todo} rows, {time.perf_counter() - start:.0f} s]"
            )
    after = committed_shards(folder, record.fingerprint)
    if lost := [s.shard_id for s in found.shards if s.shard_id not in after]:
        raise RuntimeError(
            f"{folder}: {len(lost)} shards are not committed ({', '.join(lost[:5])}); run again to redo them"
        )
    rows_now = sum(m.rows for m in after.values()) - rows_before
    return RunResult(
        manifests=after, rows_before=rows_before, rows_now=rows_now, seconds=time.perf_counter() - start
    )


@dataclass(frozen=True, slots=True)
class Commit:
    """Scores a shard's answers and commits them; travels to Ray's workers."""

    output: str
    fingerprint: str
    method: str

    def __call__(self, shard: AnsweredShard) -> dict[str, Any]:
        """Commit, and say what: shard_id, rows, errors, seconds."""
        manifest = commit_shard(
            OutputFolder(self.output),
            shard_id=shard.spec.shard_id,
            table=to_table(shard, self.method),
            fingerprint=self.fingerprint,
            engine_stats=shard.engine_stats,
            seconds=round(shard.seconds, 3),
            expected_row_ids=shard.spec.row_ids,
        )
        return {
            "shard_id": manifest.shard_id,
            "rows": manifest.rows,
            "errors": manifest.accounting.errors,
            "seconds": manifest.seconds,
        }


def to_table(shard: AnsweredShard, method: str) -> pa.Table:
    """A shard's output rows, ROW_SCHEMA, one for one with its questions."""
    rows = []
    columns = (shard.questions, shard.generations, shard.texts, shard.prompt_tokens)
    for question, generation, text, prompt_tokens in zip(*columns, strict=True):
        scored = not generation.error and question.answers is not None
        rows.append(
            {
                **dataclasses.asdict(question),
                **dataclasses.asdict(generation),
                "shard_id": shard.spec.shard_id,
                "method": method,
                "prediction": text,
                "paraphrase_predictions": [],
                "correct": exact_match(text, question.answers or ()) if scored else None,
                "prompt_tokens": prompt_tokens,
                "error": generation.error,
            }
        )
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def fingerprint_parts(config: RunConfig, found: Scan) -> dict[str, Any]:
    """What determines the rows. Where files lie, how many run at once and which backend do not."""
    return {
        "data": {
            "name": config.data.name,
            "split": config.data.split,
            "digest": found.data_digest,
            "rows": found.num_rows,
            "include_question": config.data.include_question,
            "max_paraphrases": config.data.max_paraphrases,
        },
        "model": {"digest": checkpoint_digest(config.model.path), "dtype": config.model.dtype},
        "prompt": config.prompt.model_dump(mode="json"),
        "method": config.method.model_dump(mode="json"),
    }


def provenance() -> dict[str, Any]:
    """Versions of what computes the rows."""
    packages = ("torch", "transformers", "tokenizers", "ray", "pyarrow", "safetensors", "numpy")
    return {"flexray": __version__, "python": python_version(), **{name: version(name) for name in packages}}
