"""The whole job on Ray against the bare engine, same model and prompts, in one process and in turn:
`python -m benchmarks.job`. Its last line is `job_vs_engine=..`.

Every GPU of the machine gets an actor; the bare engine has one GPU, and the job is held against that times
their number. Only the second half of an actor's calls counts, as processes that start, import and compile
are nothing in a night; the bare engine is warmed up as well. The job's clock is that of its actors, from the
end of one call to the end of the last, with whatever they wait for in between. Commits are no clock: they
arrive in bunches.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import ray
import torch
import typer

from benchmarks.clock import seconds
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import SMOLLM2_FOLDER, free_memory, make_model
from benchmarks.work import SHAPES, SMOLLM2
from flexray.config import RunConfig, parse_config
from flexray.data import scan, to_questions
from flexray.engine.engine import Engine
from flexray.models.checkpoint import load_model
from flexray.pipeline.actors import CALL_BATCHES
from flexray.pipeline.prepare import prompt_builder
from flexray.pipeline.ray_connection import connect_ray
from flexray.pipeline.ray_data import answer_shards
from flexray.runs.commit import Commit
from flexray.runs.job import check_job, plan
from flexray.sink import OutputFolder, committed_shards, specs_of, verify

SHARDS_A_CALL = CALL_BATCHES  # as shards are as large as a batch
WORDS = [
    "which", "city", "river", "mountain", "king", "book", "song", "year", "language", "country", "people",
    "war", "film", "team", "name", "old", "new",
]  # fmt: skip


def write_questions(path: Path, rows: int) -> Path:
    """Made-up questions of five wordings, about 24 tokens each."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            wordings = [
                " ".join(WORDS[(i * 7 + k * 5 + j * (k + 3)) % len(WORDS)] for j in range(20)) + f" {i}?"
                for k in range(5)
            ]
            record = {"id": f"q{i}", "question": wordings[0], "paraphrases": wordings, "answers": ["x"]}
            file.write(json.dumps(record) + "\n")
    return path


def make_config(folder: Path, model: Path, rows: int, shard_rows: int) -> RunConfig:
    """W1 by words: a context of about 136 tokens, 16 new tokens, nothing stops an answer but EOS."""
    shots = [{"question": " ".join(WORDS), "answer": "an answer of some words"} for _ in range(4)]
    tree: dict[str, Any] = {
        "output": str(folder / "out"),
        "data": {"name": "bench", "files": str(folder / "questions.jsonl"), "shard_rows": shard_rows},
        "model": {"path": str(model)},
        "prompt": {"instruction": "Answer each question with a short phrase.", "few_shots": shots},
        "generation": {"max_new_tokens": 16, "stop_at_newline": False},
        "engine": {"strict": True},
        "ray": {"object_store_mb": 512},
    }
    write_questions(folder / "questions.jsonl", rows)
    return parse_config(tree, source="benchmark")


@dataclass(frozen=True)
class Rate:
    """What a job reached in the second half of its actors' calls of the engine."""

    rows_per_second: float
    """By each actor's clock, from the end of a call to the end of its last one; added up."""
    in_calls: float
    """Share of that time which an actor spent answering, on average."""
    commit_lag: float
    """Seconds from the last answer to the last commit."""


def measure_job(config: RunConfig, actors: int) -> Rate:
    """Run the job, check its output, and take its rate."""
    folder = OutputFolder(config.output)
    job = plan(check_job(config, folder), folder)
    record = job.record
    connect_ray(config.ray)
    commit = Commit(folder.url, record.fingerprint)
    for shard in answer_shards(list(specs_of(folder, record).values()), job.config, commit):
        print(f"  {shard['shard_id']}: {shard['rows']} rows, {shard['seconds']:.2f} s", flush=True)
    committed = time.time()
    ray.shutdown()
    report = verify(folder)
    assert report.ok, report.summary_line()
    answered = defaultdict(list)
    for manifest in committed_shards(folder, record).values():
        stats = manifest.engine_stats
        answered[stats["process"]].append((stats["answered_at"], manifest.rows, stats["seconds"]))
    assert len(answered) == actors, f"only {len(answered)} actors had anything to do"
    rates, shares, ends = [], [], []
    for shards in map(sorted, answered.values()):
        half = len(shards) // SHARDS_A_CALL // 2 * SHARDS_A_CALL
        taken = shards[-1][0] - shards[half - 1][0]
        rates.append(sum(rows for _, rows, _ in shards[half:]) / taken)
        shares.append(sum(seconds for *_, seconds in shards[half:]) / taken)
        ends.append(shards[-1][0])
    return Rate(sum(rates), statistics.mean(shares), commit_lag=committed - max(ends))


def measure_bare(config: RunConfig, at_once: int) -> float:
    """Rows per second of `Engine.generate` with the same prompts, so many at once."""
    model, tokenizer = load_model(config.model.path)
    engine = Engine(model, tokenizer, config.methods, config.generation, config.engine)
    builder = prompt_builder(config)
    data = config.data
    prompts = [builder.build(q) for q in to_questions(scan(data), dataset=data.name, split=data.split)]
    parts = [prompts[i : i + at_once] for i in range(0, len(prompts), at_once)]
    engine.generate(parts[0])  # compiles
    engine.generate(parts[0])
    taken = [seconds(lambda part=part: engine.generate(part)) for part in parts[:4]]
    return at_once / statistics.median(taken)


def save_model(folder: Path, name: str, device: str) -> Path:
    """A shape's model with random weights, and SmolLM2's tokenizer."""
    if name == SMOLLM2:
        return SMOLLM2_FOLDER
    torch.manual_seed(0)
    model = make_model(name, device)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SMOLLM2_FOLDER / file, folder / file)
    del model
    free_memory()
    return folder


def main(
    shape: Annotated[str, typer.Option(envvar="SHAPE", help=f"Of {', '.join(SHAPES)}.")] = "",
    calls: Annotated[int, typer.Option(min=4, help="Calls of the engine by each actor of the job.")] = 12,
    out: Annotated[Path, typer.Option(envvar="OUT", help="Folder for the JSON.")] = Path("out/bench"),
) -> None:
    """Measure both, and print the ratio."""
    on_gpu = torch.cuda.is_available()
    name = shape or ("3b" if on_gpu else SMOLLM2)
    shard_rows = 512 if on_gpu else 32
    at_once = SHARDS_A_CALL * shard_rows
    actors = max(1, torch.cuda.device_count())
    rows = actors * calls * at_once
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = save_model(folder / "model", name, "cuda" if on_gpu else "cpu")
        config = make_config(folder, model, rows, shard_rows)
        job = measure_job(config, actors)
        bare = measure_bare(config, at_once)
    result = {
        "machine": describe_machine(),
        "commit": describe_commit(),
        "command": f"python -m benchmarks.job --calls {calls}",
        "shape": SHAPES[name].title,
        "rows": rows,
        "actors": actors,
        "job_rows_per_second": job.rows_per_second,
        "job_in_calls": job.in_calls,
        "job_commit_lag": job.commit_lag,
        "engine_rows_per_second": bare,
        "job_vs_engine": job.rows_per_second / (actors * bare),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"job-{name}-{actors}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['machine']['hardware']}; {SHAPES[name].title}; commit {result['commit']}")
    print(f"bare engine {bare:.1f} rows/s, job with {actors} actors {job.rows_per_second:.1f} rows/s")
    print(f"an actor answers {job.in_calls:.1%} of its time; last commit {job.commit_lag:.1f} s after it")
    print(f"job_vs_engine={job.rows_per_second / (actors * bare):.3f}")


if __name__ == "__main__":
    typer.run(main)
