"""One run to its end, however often it is killed on the way."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flexray.config import parse_config
from flexray.errors import OutputError
from flexray.sink import OutputFolder, read_committed, verify
from tests.chaos.cluster import LossyCluster
from tests.chaos.kills import Kill
from tests.ray.jobs import flexray_command, make_tree, manifests, question, write, write_config
from tests.runs import run_shards

ROWS = 24
SHARD_ROWS = 2
SHARDS = ROWS // SHARD_ROWS
STARTS = 4  # more than kills that can hit the driver, one after another, need
SECONDS = 400  # of a start, on a machine that is busy with other work
_COMPARED = ("prediction", "token_ids", "finish_reason")

Rows = dict[tuple[str, str], tuple[Any, ...]]


@dataclass(slots=True)
class Outcome:
    """What a trial came to."""

    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    """Rows that were written to a file which no manifest names: computed, and computed again."""
    failure: str = ""
    """What went on otherwise than it must, though it harmed no row."""


def answer_undisturbed(model: Path, folder: Path) -> Rows:
    """The rows that each trial must have, computed in this process, without Ray."""
    config = parse_config(_make_job(folder, model), source="undisturbed")
    run_shards(config, range(SHARDS))
    return _read_rows(OutputFolder(config.output))


class Trial:
    """A job of its own on the cluster."""

    def __init__(self, cluster: LossyCluster, model: Path, folder: Path, rnd: random.Random) -> None:
        self._cluster = cluster
        self._folder = folder
        self._rnd = rnd
        self.output = folder / "out"
        tree = _make_job(folder, model, ray={"address": cluster.address, "num_cpus_per_actor": 0.5})
        self._config = write_config(folder, tree)

    def run(self, kills: Sequence[Kill], expected: Rows) -> Outcome:
        """Run, with these kills, until a start comes to its end; then count."""
        outcome = Outcome()
        timed = sorted(
            (kill for kill in kills if kill.is_timed), key=lambda kill: (kill.shards, kill.seconds)
        )
        written = [kill for kill in kills if not kill.is_timed]
        faults = [kill.fault(self._folder / "ledger") for kill in written]
        for start in range(1, STARTS + len(kills) + 1):
            outcome.starts = start
            code = self._start(faults, timed, outcome)
            if code == 0:
                break
            died = [k for k in [*outcome.kills, *self._happened(written)] if k.hits_driver]
            if code != -signal.SIGKILL or not died:
                outcome.failure = f"start {start} ended with exit code {code}: {self._last_words()}"
                break
        outcome.kills += self._happened(written)
        self._count(outcome, expected)
        return outcome

    def _start(self, faults: list[dict[str, Any]], timed: list[Kill], outcome: Outcome) -> int:
        """One `flexray run`; its exit code. Kills that were done are moved from `timed` to the outcome."""
        with (self._folder / "log").open("a") as log:
            driver = subprocess.Popen(
                flexray_command(self._config),
                env=self._cluster.environment(faults),
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        started = time.monotonic()
        seen = 0
        reached: dict[int, float] = {0: started}  # shards -> when so many were seen first
        try:
            while driver.poll() is None:
                time.sleep(0.01)
                now = time.monotonic()
                if (done := len(manifests(self.output))) != seen:
                    reached |= dict.fromkeys(range(seen + 1, done + 1), now)
                    seen = done
                is_due = timed and now >= reached.get(timed[0].shards, math.inf) + timed[0].seconds
                if is_due and self._do(timed[0], driver):
                    outcome.kills.append(timed.pop(0))
                if now - started > SECONDS:
                    outcome.failure = f"does not end within {SECONDS} s"
                    return 1
            return driver.returncode
        finally:
            driver.kill()
            driver.wait()

    def _do(self, kill: Kill, driver: subprocess.Popen[bytes]) -> bool:
        """Whether there was something to kill."""
        if kill.kind == "driver":
            driver.kill()
            driver.wait()
        elif kill.kind == "node":
            self._cluster.lose_node(self._rnd)
            self._cluster.add_node()
        else:
            engines = self._cluster.engines()
            if not engines:
                time.sleep(0.1)  # to look is not cheap
                return False
            engines[0].kill()
        return True

    def _happened(self, written: Sequence[Kill]) -> list[Kill]:
        ledger = self._folder / "ledger"
        return [k for number, k in enumerate(written) if (ledger / f"{number}-{k.skip}").exists()]

    def _count(self, outcome: Outcome, expected: Rows) -> None:
        folder = OutputFolder(str(self.output))
        try:
            report = verify(folder)
        except OutputError as e:
            outcome.lost = ROWS
            outcome.failure = outcome.failure or str(e)
            return
        outcome.lost = report.missing
        outcome.doubled = report.doubled
        if not report.ok and not outcome.failure:
            outcome.failure = "; ".join(str(finding) for finding in report.findings)
        files = (self.output / "data").glob("*.parquet")
        outcome.repeated = sum(pq.read_metadata(file).num_rows for file in files) - report.rows
        if report.damaged:  # then not all can be read
            return
        rows = _read_rows(folder)
        if rows != expected:
            wrong = sum(rows.get(key) != row for key, row in expected.items())
            outcome.lost = max(outcome.lost, wrong)
            outcome.failure = outcome.failure or f"{wrong} rows are not those of an undisturbed run"

    def _last_words(self) -> str:
        lines = [line for line in (self._folder / "log").read_text().splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-600:]


def _make_job(folder: Path, model: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a trial, whose folder is made."""
    folder.mkdir()
    return make_tree(
        folder / "out",
        model,
        write(folder / "questions.jsonl", [question(i) for i in range(ROWS)]),
        data={"shard_rows": SHARD_ROWS},
        generation={"max_new_tokens": 24, "stop_at_newline": False},
        **sections,
    )


def _read_rows(folder: OutputFolder) -> Rows:
    rows = (row for table in read_committed(folder) for row in table.to_pylist())
    return {(row["method"], row["row_id"]): tuple(row[name] for name in _COMPARED) for row in rows}
