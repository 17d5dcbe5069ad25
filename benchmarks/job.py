"""Whole jobs on this machine's GPUs, an actor a GPU, against the bare engine: `python -m benchmarks.job`.

For each shape and precision, a checkpoint of random weights is written, and a bare engine on one GPU answers
W1 rows in a process of its own. Then `flexray run` answers enough of them for `--seconds` of steady state, on
1, 2, 4, .. GPUs: a process with a Ray of its own, through plan, pipeline and sink. Efficiency is its speed
against the bare engine's times the number of actors. With --kill an actor is killed once that was measured,
or with --tensor-parallel a rank. With --bare-rate the bare engine is not measured.

A line is printed as soon as it is known; a table, and a picture in OUT, come last. Without GPUs, for trying:
`python -m benchmarks.job --shape tiny --device cpu --seconds 10 --gpus 1,2`, where actors are processes.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.checkpoint import save_checkpoint
from benchmarks.job_bare import bare_engine
from benchmarks.job_rate import calls_of, lanes_of, loss, steady
from benchmarks.job_run import Kill, run_job
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.plot import draw_jobs
from benchmarks.questions import recipe, write_questions
from benchmarks.work import SHAPES
from flexray.config import parse_config
from flexray.pipeline.actors import CALL_BATCHES
from flexray.sink import OutputFolder, committed_shards, load_run, verify

DTYPES = {"bf16": None, "fp8": "fp8"}
AFTER_KILL = 1.5
"""Of --seconds: how long the job goes on after a kill."""
CPU_ROWS = 8
"""Of a shard, and of an engine's batch, on CPUs; 512 on GPUs."""
COLUMNS = {
    "shape": "shape",
    "GPUs": "gpus",
    "actors": "actors",
    "bare rows/s": "bare_rows_per_second",
    "job rows/s": "rows_per_second",
    "efficiency": "efficiency",
    "steady s": "steady_seconds",
    "in calls": "busy",
    "driver, cores": "driver_cores",
    "driver, MiB": "driver_mib",
    "all CPUs, cores": "cores",
    "object store, MiB": "object_store_mib",
    "commits/s": "commits_per_second",
    "commit lag, s": "commit_lag",
}
KILL_COLUMNS = {
    "shape": "shape",
    "GPUs": "gpus",
    "actors": "actors",
    "killed": "killed",
    "verify": "verify",
    "a new actor's first answers after, s": "until_answers",
    "lost, s of an actor": "lost_actor_seconds",
}


def measure_job(
    tree: dict[str, Any], place: Path, actors: int, cards: int, bare: float, seconds: float, kill: bool
) -> dict[str, Any]:
    """Run a recipe with enough rows, check its output, and say how fast it was.

    Args:
        bare: rows a second of an engine.
    """
    config = parse_config(tree, source="benchmark")
    shard_rows, ranks = config.data.shard_rows, config.engine.tensor_parallel
    at_once = CALL_BATCHES * shard_rows
    calls = 3 + math.ceil(seconds * bare / at_once)  # the first ones and the last one do not count
    more = math.ceil(AFTER_KILL * seconds * bare / at_once) if kill else 0
    rows = actors * (calls + more) * at_once
    write_questions(place / "questions.jsonl", rows)
    file = place / "job.json"
    file.write_text(json.dumps(tree), encoding="utf-8")
    plan = Kill(actors * calls * at_once, at_once / bare / 2, rank=ranks > 1) if kill else None
    watched = run_job(file, config.output, cards, plan)
    folder = OutputFolder(config.output)
    report = verify(folder)
    record = load_run(folder)
    assert record is not None
    manifests = committed_shards(folder, record)
    tokens = sum(manifest.engine_stats["generated_tokens"] for manifest in manifests.values())
    process, when = watched.killed or ("", float("inf"))
    every = calls_of(manifests.values())
    lanes = lanes_of(every, when)
    found = steady(lanes, actors)
    used = watched.processes.used()
    cores = watched.processes.cores(found.start, found.end)
    lags = [
        watched.commits[shard_id] - answered
        for shard_id, manifest in manifests.items()
        if found.start <= (answered := manifest.engine_stats["answered_at"]) <= found.end
    ]
    result = {
        "rows": rows,
        "generated_tokens_a_row": tokens / rows,
        "verify": report.summary_line(),
        "rows_per_second": found.rows_per_second,
        "efficiency": found.rows_per_second / (actors * bare),
        "steady_seconds": found.seconds,
        "busy": found.busy,
        "driver_cores": cores.get("driver"),
        "driver_cpu_seconds": used["driver"].cpu_seconds,
        "driver_mib": used["driver"].rss / 2**20,
        "cores": sum(cores.values()) if cores else None,
        "cores_by_kind": cores,
        "object_store_mib": watched.processes.object_store / 2**20,
        "commits_per_second": found.rows_per_second / shard_rows,
        "commit_lag": statistics.median(lags) if lags else None,
        "commit_lag_max": max(lags, default=None),
        "job_seconds": watched.seconds,
    }
    if not report.ok:
        raise SystemExit(f"rows are lost or doubled: {report.summary_line()}")
    if kill:
        assert watched.killed is not None, "the run had ended before the kill"
        cost = loss(every, lanes, process, when)
        result |= {
            "killed": f"rank {ranks - 1} of {ranks}" if ranks > 1 else "actor",
            "until_answers": cost.until_answers,
            "lost_actor_seconds": cost.actor_seconds,
        }
    return result


def table(results: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """In Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(_cell(key, result.get(key)) for key in columns.values()) + " |"
        for result in results
    ]
    return "\n".join(lines)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    digits = {"efficiency": 3, "busy": 3, "driver_cores": 3, "commits_per_second": 2, "commit_lag": 2}.get(
        key, 1
    )
    return f"{value:,.{digits}f}"


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}, by commas.")] = "3b,8b",
    dtype: Annotated[str, typer.Option(help="Of bf16 (float32 on CPUs) and fp8, by commas.")] = "bf16,fp8",
    gpus: Annotated[str, typer.Option(help="By commas. All: 1, 2, 4, .. as far as there are.")] = "",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs of an actor.")] = 1,
    seconds: Annotated[float, typer.Option(help="Of steady state, at least.")] = 60.0,
    kill: Annotated[bool, typer.Option(help="Kill an actor, or a rank, in the middle.")] = False,
    bare_rate: Annotated[
        float | None, typer.Option(help="Of one case: its bare engine's rows/s, which then is not measured.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda"
    if torch.cuda.is_available()
    else "cpu",
    folder: Annotated[Path | None, typer.Option(help="On a fast disk: checkpoint, rows and output.")] = None,
    out: Annotated[Path, typer.Option(envvar="OUT", help="For results as JSON, and the picture.")] = Path(
        "out/bench"
    ),
) -> None:
    """Measure all cases, and print a table."""
    on_gpu = device == "cuda"
    numbers = [int(number) for number in gpus.split(",") if number]
    if not numbers:
        most = torch.cuda.device_count() if on_gpu else 1
        numbers = [2**i for i in range(10) if tensor_parallel <= 2**i <= most]
    if on_gpu and max(numbers) > torch.cuda.device_count():
        raise typer.BadParameter(f"--gpus: torch finds {torch.cuda.device_count()}")
    if odd := [number for number in numbers if number % tensor_parallel]:
        raise typer.BadParameter(f"--gpus: {odd} are no actors of {tensor_parallel} GPUs each")
    if bare_rate and "," in shape + dtype:
        raise typer.BadParameter("--bare-rate is of one shape and dtype")
    out.mkdir(parents=True, exist_ok=True)
    head = {"machine": describe_machine(), "commit": describe_commit()}
    print(head, flush=True)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        for name in shape.split(","):
            model = save_checkpoint(place, name, device)
            for kind in dtype.split(","):
                tree = recipe(place, model, 512 if on_gpu else CPU_ROWS)
                tree["model"] |= {"device": device, "quantization": DTYPES[kind]}
                tree["engine"] |= {"tensor_parallel": tensor_parallel}
                tree["engine"] |= {} if on_gpu else {"max_num_seqs": CPU_ROWS}
                bare = (
                    {"rows_per_second": bare_rate, "is_measured": False} if bare_rate else _bare(tree, place)
                )
                print(f"{name} {kind}: bare engine {bare}", flush=True)
                for number in numbers:
                    actors = number // tensor_parallel
                    tree["ray"] = _ray(actors, tensor_parallel, on_gpu)
                    found = measure_job(
                        tree, place, actors, number if on_gpu else 0, bare["rows_per_second"], seconds, kill
                    )
                    shutil.rmtree(tree["output"])
                    case = {"shape": f"{name} {kind}", "gpus": number, "actors": actors}
                    case |= {f"bare_{key}": value for key, value in bare.items()}
                    results.append(head | {"command": _command()} | case | found)
                    path = out / f"job-{name}-{kind}-{number}-{tensor_parallel}.json"
                    path.write_text(json.dumps(results[-1], indent=1) + "\n", encoding="utf-8")
                    print(json.dumps(case | found), flush=True)
            if model.is_relative_to(place):
                shutil.rmtree(model)
    draw_jobs(results, out / "job.png")
    print(f"{head['machine']}\ncommit {head['commit']}: {_command()}\n\n{table(results, COLUMNS)}")
    if kill:
        print(f"\n{table(results, KILL_COLUMNS)}")


def _bare(tree: dict[str, Any], place: Path) -> dict[str, Any]:
    at_once = CALL_BATCHES * tree["data"]["shard_rows"]
    write_questions(place / "questions.jsonl", at_once)
    file = place / "bare.json"
    file.write_text(json.dumps(tree), encoding="utf-8")
    return bare_engine(file, at_once)


def _ray(actors: int, ranks: int, on_gpu: bool) -> dict[str, Any]:
    """So many actors, and on CPUs few CPUs for each, so that some are left for the stages beside them."""
    needs: dict[str, Any] = {} if on_gpu else {"num_gpus_per_actor": 0, "num_cpus_per_actor": 0.1}
    return {"min_actors": actors, "max_actors": actors, **needs}


def _command() -> str:
    import sys

    return " ".join(["python -m benchmarks.job", *sys.argv[1:]])


if __name__ == "__main__":
    typer.run(main)
