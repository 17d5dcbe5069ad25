"""A run on a real Ray: what Prometheus would scrape equals the accounting, and the logs tell the same."""

import contextlib
import json
import re
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from flexray.console.log import start_logging
from flexray.pipeline.metrics import METRICS
from flexray.sink import Manifest, OutputFolder, committed_shards, load_run
from tests.ray.jobs import flexray_here, make_tree, question, write, write_config

ROWS = 8  # in shards of three, by two methods


@dataclass(frozen=True)
class Watched:
    """A finished run, and what was seen of it."""

    fingerprint: str
    manifests: list[Manifest]
    seen: set[str]
    lines: list[str]
    driver_log: list[dict]
    actor_log: list[dict]

    def values(self, name: str, *labels: str) -> dict:
        """The metric's values by these labels, added up over workers."""
        found: dict = defaultdict(float)
        for line in self.lines:
            if line.startswith(f"ray_{name}{{"):
                tags = dict(re.findall(r'(\w+)="([^"]*)"', line))
                assert (tags["run"], tags["dataset"]) == (self.fingerprint[:12], "watched")
                found[tuple(tags[label] for label in labels)] += float(line.split()[-1])
        return dict(found)

    def counted(self, count: str) -> int:
        return sum(getattr(manifest.accounting, count) for manifest in self.manifests)


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]


class Scraper(threading.Thread):
    """Scrapes the node's agent as Prometheus would, again and again, for the series of one data set."""

    def __init__(self, dataset: str):
        super().__init__(daemon=True)
        (node,) = ray.nodes()
        self._url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        self._dataset = f'dataset="{dataset}"'
        self._ended = threading.Event()
        self._last: dict[str, str] = {}  # by series: a gauge that nobody sets again is not told for ever

    def run(self) -> None:
        while not self._ended.wait(0.5):
            with contextlib.suppress(OSError):
                text = urllib.request.urlopen(self._url, timeout=5).read().decode()
                for line in text.splitlines():
                    if line.startswith("ray_flexray_") and self._dataset in line:
                        self._last[line.rpartition(" ")[0]] = line

    @property
    def lines(self) -> list[str]:
        return list(self._last.values())

    def value(self, name: str) -> float:
        """The series of this name, added up."""
        return sum(float(line.split()[-1]) for line in self.lines if line.startswith(f"ray_{name}{{"))

    def end(self, finished: Callable[[], bool]) -> None:
        """Go on until all is exported."""
        end = time.monotonic() + 30
        while not finished() and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(1.5)  # another export, for what came in the meantime
        self._ended.set()
        self.join()


@pytest.fixture(scope="module")
def watched(local_ray, faults_file, tiny_model, tmp_path_factory):
    """One row is faulty; the second prefill fails in sdpa, so that rows fall back."""
    folder = tmp_path_factory.mktemp("watched")
    data = write(
        folder / "a.jsonl", [question(i, **({"question": ""} if i == 4 else {})) for i in range(ROWS)]
    )
    tree = make_tree(folder / "out", tiny_model, data, data={"name": "watched"})
    tree["methods"] = ["attention", "per_prompt"]
    fault = {"point": "engine.prefill", "action": "raise:NotImplementedError", "match": {"backend": "sdpa"}}
    faults_file.write_text(json.dumps([{**fault, "skip": 1, "times": 1, "ledger": str(folder / "ledger")}]))
    scraper = Scraper("watched")
    scraper.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEXRAY_LOG", "json")
        code, said, told = flexray_here("run", "--config", write_config(folder, tree))
    start_logging("off")
    faults_file.write_text("[]")
    assert code == 0, said + told
    output = OutputFolder(str(folder / "out"))
    run = load_run(output)
    fingerprint, manifests = run.fingerprint, list(committed_shards(output, run).values())
    scraper.end(
        lambda: (
            scraper.value("flexray_rows_total") == 2 * ROWS
            and scraper.value("flexray_batch_seconds_count") == len(manifests)
            and any(line.startswith("ray_flexray_rows_remaining{") for line in scraper.lines)
            and scraper.value("flexray_rows_remaining") == 0
        )
    )
    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs")
    return Watched(
        fingerprint=fingerprint,
        manifests=manifests,
        seen={line.partition("{")[0] for line in scraper.lines},
        lines=scraper.lines,
        driver_log=events(told),
        actor_log=[event for path in logs.glob("worker-*.err") for event in events(path.read_text())],
    )


def test_the_rows_that_are_scraped_are_those_of_the_accounting(watched):
    rows = watched.values("flexray_rows_total", "method", "outcome")
    by_method: Counter = Counter()
    for manifest in watched.manifests:
        by_method.update(manifest.accounting.rows_by_method)
    assert {m: sum(n for (name, _), n in rows.items() if name == m) for m in by_method} == dict(by_method)
    assert sum(n for (_, outcome), n in rows.items() if outcome == "error") == watched.counted("errors") == 2
    assert watched.values("flexray_rows_remaining") == {(): 0}


def test_fallbacks_are_counted_by_their_class(watched):
    fallbacks = sum(
        rows for m in watched.manifests for reason, rows in m.accounting.fallback_reason.items() if reason
    )
    assert fallbacks > 0
    assert watched.values("flexray_fallback_rows_total", "reason") == {("not_supported",): fallbacks}


def test_the_engines_counters_are_those_of_the_manifests(watched):
    stats = [manifest.engine_stats for manifest in watched.manifests]
    tokens = watched.values("flexray_tokens_total", "kind")
    for kind in ("context", "prefill", "generated"):
        assert tokens[kind,] == sum(s[f"{kind}_tokens"] for s in stats) > 0
    seconds = watched.values("flexray_engine_seconds_total", "phase")
    for phase in ("prefill", "decode"):
        assert seconds[phase,] == pytest.approx(sum(s[f"{phase}_seconds"] for s in stats))
    assert watched.values("flexray_commit_seconds_count") == {(): len(watched.manifests)}
    assert watched.values("flexray_batch_seconds_bucket", "le")["+Inf",] == len(watched.manifests)


def test_every_metric_is_served_but_those_of_a_gpu_and_of_flex(watched):
    endings = {"histogram": "_bucket"}
    expected = {f"ray_{spec.name}{endings.get(spec.kind, '')}" for spec in METRICS}
    assert expected - watched.seen == {"ray_flexray_gpu_memory_bytes", "ray_flexray_mask_cache_total"}


def test_the_drivers_log_tells_each_shard_and_the_end(watched):
    log = watched.driver_log
    assert [e["event"] for e in log] == ["run.started", *["shard.committed"] * 3, "run.finished"]
    (run,) = {e["run"] for e in log}
    assert re.fullmatch(rf"{watched.fingerprint[:12]}-\d{{8}}T\d{{6}}Z", run)
    shards = {e["shard_id"]: e for e in log if e["event"] == "shard.committed"}
    for manifest in watched.manifests:
        event, accounting = shards[manifest.shard_id], manifest.accounting
        assert (event["rows"], event["errors"]) == (accounting.rows, accounting.errors)
        assert event["fallbacks"] == accounting.fallbacks
    assert (log[-1]["rows"], log[-1]["errors"]) == (2 * ROWS, 2)


def test_the_actors_log_tells_the_same_in_rays_files(watched):
    (run,) = {e["run"] for e in watched.driver_log}
    log = [e for e in watched.actor_log if e["run"] == run]
    assert sorted(e["event"] for e in log) == ["actor.ready", *["shard.answered"] * 3]
    ((actor, node, pid),) = {(e["actor"], e["node"], e["pid"]) for e in log}
    assert actor
    assert node
    assert pid != watched.driver_log[0]["pid"]
    counts = ("rows", "errors", "fallbacks")
    told = {e["shard_id"]: [e[c] for c in counts] for e in log if "shard_id" in e}
    assert told == {e["shard_id"]: [e[c] for c in counts] for e in watched.driver_log if "shard_id" in e}
    assert {e["level"] for e in log if e.get("fallbacks")} == {"WARNING"}
