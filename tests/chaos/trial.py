"""One table to its end, however often it is killed on the way, and while its recipe grows."""

from __future__ import annotations

import io
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
from tests.chaos.kills import FILES, Kill
from tests.faulty_s3 import FaultyS3, Rule
from tests.ray.jobs import flexray_command, make_tree, question, write, write_config
from tests.runs import run_shards

ROWS = 24
SHARD_ROWS = 2
SHARDS = ROWS // SHARD_ROWS
"""Of a table whose rows are all planned at once; one that grows on the way has more."""
METHODS = ({"kind": "attention"}, {"kind": "origin"})
GROWTHS = (
    ((ROWS // 2, 1), (ROWS, 1), (ROWS, 2)),
    ((ROWS // 2, 1), (ROWS // 2, 2), (ROWS, 2)),
    ((ROWS // 2, 1), (ROWS, 2)),
)
"""Rows and methods that the recipe names from start to start: one that comes to its end, or dies, is followed
by one that names more."""
STARTS = 6  # more than kills that can hit the driver, one after another, and growth need
SECONDS = 1200  # of a start, on a machine that is busy with other work
USER_ERROR = 2  # the exit code of a start that a fault has ended, which it has told
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
    """The rows that each trial must have, planned at once and computed in this process, without Ray."""
    folder.mkdir()
    config = parse_config(make_job(folder, str(folder / "out"), model, *GROWTHS[0][-1]), source="undisturbed")
    run_shards(config, range(SHARDS))
    return read_rows(OutputFolder(config.output))


class Trial:
    """A job of its own on the cluster."""

    def __init__(
        self,
        cluster: LossyCluster,
        model: Path,
        folder: Path,
        rnd: random.Random,
        *,
        bucket: str = "",
        s3: FaultyS3 | None = None,
    ) -> None:
        """`bucket`: where the output is, behind `s3`. "": in the local folder."""
        self._cluster, self._folder, self._rnd, self._s3 = cluster, folder, rnd, s3
        folder.mkdir()
        self.output = OutputFolder(f"s3://{bucket}/{folder.name}" if bucket else str(folder / "out"))
        self.growth = rnd.choice(GROWTHS)
        ray = {"address": cluster.address, "num_cpus_per_actor": 0.5}
        self._recipes = []
        for step, (rows, methods) in enumerate(self.growth):
            recipe = folder / f"recipe-{step}"
            recipe.mkdir()
            tree = make_job(folder, self.output.url, model, rows, methods, ray=ray)
            self._recipes.append(write_config(recipe, tree))

    def run(self, kills: Sequence[Kill], expected: Rows) -> Outcome:
        """Run, with these kills, until a start of the last recipe comes to its end; then count."""
        outcome = Outcome()
        timed = sorted(
            (kill for kill in kills if kill.is_timed), key=lambda kill: (kill.shards, kill.seconds)
        )
        written = [kill for kill in kills if not kill.is_timed and not kill.is_storage]
        faults = [kill.fault(self._folder / "ledger") for kill in written]
        rules = [(kill, self._break(kill)) for kill in kills if kill.is_storage]
        step, last = 0, len(self._recipes) - 1
        for start in range(1, STARTS + len(kills) + 1):
            outcome.starts = start
            code = self._start(self._recipes[step], faults, timed, outcome)
            if code == 0 and step == last:
                break
            died = any(k.hits_driver for k in [*outcome.kills, *self._happened(written)])
            over = any(rule.happened for kill, rule in rules if kill.storage[1] is None)
            if not (code == 0 or (code == -signal.SIGKILL and died) or (code == USER_ERROR and over)):
                ended = f"start {start} ended with exit code {code}: {self._last_words()}"
                outcome.failure = outcome.failure or ended
                break
            for kill, rule in rules:
                if kill.storage[1] is None and rule.happened:  # the outage is over
                    rule.times = rule.happened
            step = min(step + 1, last)
        else:
            outcome.failure = f"is not at its end after {outcome.starts} starts: {self._last_words()}"
        if self._s3:
            self._s3.heal()
        outcome.kills += self._happened(written) + [kill for kill, rule in rules if rule.happened]
        self._count(outcome, expected)
        return outcome

    def _break(self, kill: Kill) -> Rule:
        """Let the storage fail as a kill says."""
        assert self._s3, "only of a run into a bucket"
        fault, times = kill.storage
        target = f"*/{self._folder.name}/{FILES[kill.file][0]}*"
        return self._s3.fail("PUT", target, fault, skip=kill.skip, times=times)

    def _start(self, recipe: Path, faults: list[dict[str, Any]], timed: list[Kill], outcome: Outcome) -> int:
        """One `flexray run`; its exit code. Kills that were done are moved from `timed` to the outcome."""
        with (self._folder / "log").open("a") as log:
            driver = subprocess.Popen(
                flexray_command(recipe),
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
                time.sleep(0.1 if self._s3 else 0.01)
                now = time.monotonic()
                if timed and (done := len(self.output.list("_manifests"))) != seen:
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
        try:
            report = verify(self.output)
        except OutputError as e:
            outcome.lost = len(expected)
            outcome.failure = outcome.failure or str(e)
            return
        outcome.lost = report.missing
        outcome.doubled = report.doubled
        if not report.ok and not outcome.failure:
            outcome.failure = "; ".join(str(finding) for finding in report.findings)
        names = [name for name in self.output.list("data") if name.endswith(".parquet")]
        files = (io.BytesIO(self.output.read_bytes(f"data/{name}")) for name in names)
        outcome.repeated = sum(pq.read_metadata(file).num_rows for file in files) - report.rows
        if report.damaged:  # then not all can be read
            return
        rows = read_rows(self.output)
        if rows != expected:
            wrong = sum(rows.get(key) != row for key, row in expected.items())
            outcome.lost = max(outcome.lost, wrong)
            outcome.failure = outcome.failure or f"{wrong} rows are not those of an undisturbed run"

    def _last_words(self) -> str:
        lines = [line for line in (self._folder / "log").read_text().splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-600:]


def make_job(
    folder: Path, output: str, model: Path, rows: int, methods: int, **sections: dict[str, Any]
) -> dict[str, Any]:
    """The configuration of a start that names the first of the rows, in one or two files, and of METHODS."""
    half = ROWS // 2
    files = [
        write(folder / f"questions-{first}.jsonl", [question(i) for i in range(first, first + half)])
        for first in range(0, rows, half)
    ]
    tree = make_tree(
        folder / "out",
        model,
        *files,
        data={"shard_rows": SHARD_ROWS},
        generation={"max_new_tokens": 24, "stop_at_newline": False},
        **sections,
    )
    return tree | {"output": output, "methods": list(METHODS[:methods])}


def read_rows(folder: OutputFolder) -> Rows:
    """What is compared of the committed rows."""
    found: Rows = {}
    for table in read_committed(folder):
        for row in table.to_pylist():
            key = row["method"], row["row_id"]
            assert key not in found, f"{key} is committed twice"
            found[key] = tuple(row[name] for name in _COMPARED)
    return found
