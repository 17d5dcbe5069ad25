"""Inputs and outputs of small jobs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from typer.testing import CliRunner

from flexray.cli import app
from flexray.config import RunConfig, parse_config
from flexray.config.fault_injection import VARIABLE
from flexray.sink import OutputFolder, read_committed, verify

NAMES = ["France", "Japan", "Peru", "Norway", "Kenya", "Chile", "India", "Egypt", "Cuba", "Nepal"]


def question(i: int, **changes: Any) -> dict[str, Any]:
    """A good record; a change to ... removes the field."""
    name = NAMES[i % len(NAMES)]
    good = {
        "id": f"q{i}",
        "question": f"What is the capital of {name}, number {i}?",
        "paraphrases": [f"Which city is number {i}, the capital of {name}?", f"{name}'s capital ({i})?"],
        "answers": [name],
    }
    return {key: value for key, value in (good | changes).items() if value is not ...}


def write(path: Path, records: list[Any]) -> Path:
    """Write records in the format of the extension."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, indent=1))
    else:
        pq.write_table(pa.Table.from_pylist(records), path)
    return path


def make_tree(output: Path, model: Path, *files: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a quick job; `sections` are merged into it."""
    tree: dict[str, Any] = {
        "output": str(output),
        "data": {"name": "qa", "files": [str(f) for f in files], "shard_rows": 3},
        "model": {"path": str(model)},
        "prompt": {"instruction": "Answer.", "few_shots": [{"question": "1 + 1?", "answer": "2"}]},
        "generation": {"max_new_tokens": 4},
        "limits": {"max_error_share": 0.5},  # some rows are bad on purpose
        "engine": {"backend": "sdpa"},
        "ray": {"num_cpus": 2, "object_store_mb": 100},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return tree


def make_config(*args: Any, **sections: dict[str, Any]) -> RunConfig:
    """The same, checked."""
    return parse_config(make_tree(*args, **sections), source="test")


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    """The committed rows by row id; fails if one is there twice."""
    rows = [row for table in read_committed(OutputFolder(str(output))) for row in table.to_pylist()]
    by_id = {row["row_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def assert_whole(output: Path, num_rows: int) -> None:
    """Every row is there exactly once, as it was written."""
    report = verify(OutputFolder(str(output)))
    assert report.ok, [str(finding) for finding in report.findings]
    assert report.rows == report.planned_rows == num_rows


def manifests(output: Path) -> dict[str, Path]:
    """The manifest files by shard id."""
    return {path.stem: path for path in (output / "_manifests").glob("*.json")}


def write_config(folder: Path, tree: dict[str, Any]) -> Path:
    """The configuration as a YAML file."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def flexray_command(config: Path, command: str = "run") -> list[str]:
    """A command of flexray, for a process of its own."""
    return [sys.executable, "-m", "flexray.cli", command, "--config", str(config)]


def flexray_run(
    config: Path, *, command: str = "run", faults: Sequence[dict[str, Any]] = ()
) -> subprocess.CompletedProcess[str]:
    """A command of flexray in a process and a Ray of its own, to its end, with these faults."""
    return subprocess.run(
        flexray_command(config, command),
        env=os.environ | ({VARIABLE: json.dumps(faults)} if faults else {}),
        capture_output=True,
        text=True,
        timeout=300,
    )


def flexray_here(*arguments: Any) -> tuple[int, str, str]:
    """A command of flexray in this process, with its Ray: exit code, what it says, what it says of errors."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def contents(output: Path) -> dict[Path, bytes]:
    """All files of a folder."""
    return {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}


def kill(processes: Sequence[psutil.Process], seconds: float = 30) -> None:
    """Kill just these, none that has got the pid of one meanwhile, and wait until they are dead."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    end = time.monotonic() + seconds
    while any(map(_lives, processes)):
        assert time.monotonic() < end, "processes outlive SIGKILL"
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:  # a zombie is dead: it may stay if nobody asks for it
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
