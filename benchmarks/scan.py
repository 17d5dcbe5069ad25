"""Rows per second from source files to checked plan rows: `python -m benchmarks.scan [--old OLD]`.

OLD is another checkout, such as `git worktree add ../old COMMIT`, whose `scan` is timed too, in one process.
Before sources were read once, it found ids and shards only; rows were checked when they were read again.

Each figure is the median of some runs, the first of which is left out. A run in several processes goes on
until all rows have distinct ids in this process; their other columns stay in the process that made them. CPU
time is that of all processes: on a machine that others use too, it tells more than rows per second.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # an older checkout need not have these
    import pyarrow as pa

    from flexray.config.data import DataConfig
    from flexray.data import Range, Summary

HERE = Path(__file__).resolve().parent.parent


def record(i: int) -> dict[str, Any]:
    """The same for each number, some 400 bytes: an id, a question, 5 paraphrases and 2 answers."""
    return {
        "id": f"q{i}",
        "question": f"What is the number of question {i}?",
        "paraphrases": [f"Paraphrase {n} of question {i}: which number has it?" for n in range(5)],
        "answers": [str(i), f"number {i}"],
    }


def make_files(folder: Path, rows: int) -> list[Path]:
    """The same rows in each format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = list(map(record, range(rows)))
    lines, columns = folder / "rows.jsonl", folder / "rows.parquet"
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist(records), columns, row_group_size=10_000)
    return [lines, columns]


Taken = tuple[float, float]
"""Seconds of a run, and seconds of CPU."""


def measure(path: str, repeats: str) -> list[Taken]:
    """`scan` in this process, by the checkout that this process imports."""
    from flexray.config import DataConfig
    from flexray.data import scan

    config = DataConfig(name="bench", files=(path,))

    def run() -> float:
        scan(config)
        return 0.0

    return _timed(run, int(repeats))


def measure_pool(path: Path, rows: int, repeats: int, processes: int) -> list[Taken]:
    """The same in so many processes."""
    from flexray.config import DataConfig
    from flexray.data import check_summaries, find_repeats, list_ranges

    config = DataConfig(name="bench", files=(str(path),))

    def scan_in(pool: ProcessPoolExecutor) -> float:
        import pyarrow as pa

        parts = list_ranges(config, max(1, min(2**24, path.stat().st_size // (4 * processes))))
        found = list(pool.map(partial(read_part, config), parts))
        check_summaries(config, [summary for _, summary, _ in found])
        ids = pa.chunked_array([chunk for column, *_ in found for chunk in column.chunks])
        assert (len(ids), find_repeats(ids)) == (rows, [])
        return sum(cpu for *_, cpu in found)

    with ProcessPoolExecutor(processes) as pool:
        return _timed(lambda: scan_in(pool), repeats)


def read_part(config: DataConfig, part: Range) -> tuple[pa.ChunkedArray, Summary, float]:
    """Row ids and summary of a part, and seconds of CPU."""
    import pyarrow as pa

    from flexray.data import read_range

    start = time.process_time()
    reader = read_range(config, part)
    ids = pa.concat_tables(reader)["row_id"]
    return ids, reader.summary, time.process_time() - start


def _timed(call: Callable[[], float], repeats: int) -> list[Taken]:
    """`call` returns the seconds of CPU that other processes took."""
    taken = []
    for _ in range(repeats + 1):
        start, cpu = time.perf_counter(), time.process_time()
        others = call()
        taken.append((time.perf_counter() - start, time.process_time() - cpu + others))
    return taken[1:]


def in_process(tree: Path, *arguments: Any) -> list[Taken]:
    """What `measure` gives in a process that imports from `tree`."""
    code = "import json, runpy, sys; sys.path.insert(0, sys.argv[1]); "
    code += "print(json.dumps(runpy.run_path(sys.argv[2])['measure'](*sys.argv[3:])))"
    command = [sys.executable, "-c", code, str(tree.resolve()), __file__, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-2000:]}")
    taken: list[Taken] = json.loads(done.stdout.strip().splitlines()[-1])
    return taken


def main(
    old: Annotated[Path | None, typer.Option(help="A checkout of the older code.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of each file.")] = 200_000,
    processes: Annotated[int, typer.Option(help="At most, for the last line of each file.")] = 2,
    repeats: int = 3,
) -> None:
    """Print a table: rows per second, and how many times the older code's."""
    from benchmarks.machine import describe_commit, describe_machine

    print(f"{describe_machine()}\nnew: {describe_commit()}; old: {old.resolve().name if old else 'none'}")
    print(f"{rows} rows, median of {repeats}\n| file | code | processes | rows/s | new/old | CPU us/row |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in make_files(Path(folder), rows):
            kinds: list[tuple[str, int]] = [("old", 1)] if old else []
            before = 0.0
            for code, count in [*kinds, *(("new", count) for count in sorted({1, processes}))]:
                if count > 1:
                    taken = measure_pool(path, rows, repeats, count)
                else:
                    taken = in_process(old if old and code == "old" else HERE, path, repeats)
                seconds, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
                before = seconds if code == "old" else before
                ratio = f"{before / seconds:.1f}" if before and code == "new" else ""
                cells = [path.suffix[1:], code, str(count), f"{rows / seconds:,.0f}", ratio]
                print("| " + " | ".join([*cells, f"{cpu * 1e6 / rows:.1f}"]) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)
