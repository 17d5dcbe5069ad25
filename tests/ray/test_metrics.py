"""A run on a real Ray: what Prometheus would scrape equals the accounting, and the logs tell the same."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from flexray.faults import VARIABLE
from flexray.pipeline.metrics import METRICS
from flexray.sink import Manifest, OutputFolder, committed_shards, load_run
from tests.ray.jobs import make_tree, question, write, write_config

# Runs the configuration as `flexray run` does, scrapes the node's agent meanwhile and until all is exported.
PROBE = """
import json, sys, threading, time, urllib.request
import ray
from flexray.cli import app
from flexray.config import load_config
from flexray.pipeline import connect

config, planned = load_config(sys.argv[1]), int(sys.argv[2])
connect(config.ray)
node = ray.nodes()[0]
url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
last = {}  # by series: a gauge that nobody sets again is not told for ever

def scrape():
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ray_flexray_")]
    last.update((line.rpartition(" ")[0], line) for line in lines)
    return list(last.values())

def values(name):
    return [float(line.split()[-1]) for line in scrape() if line.startswith(name)]

def watch():
    while True:
        try:
            scrape()
        except OSError:
            pass
        time.sleep(0.5)

threading.Thread(target=watch, daemon=True).start()
app(["run", "--config", sys.argv[1]], standalone_mode=False)
end = time.monotonic() + 20
while True:
    done = sum(values("ray_flexray_rows_total")) >= planned and values("ray_flexray_rows_remaining") == [0]
    if done or time.monotonic() > end:
        break
    time.sleep(0.5)
time.sleep(1.5)  # another export, for what came in the meantime
session = ray._private.worker._global_node.get_session_dir_path()
lines = scrape()
seen = sorted({line.partition("{")[0] for line in lines})
print(json.dumps({"seen": seen, "lines": lines, "session": session}))
"""
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


@pytest.fixture(scope="module")
def watched(tiny_model, tmp_path_factory):
    """One row is faulty; the second prefill fails in sdpa, so that rows fall back."""
    folder = tmp_path_factory.mktemp("watched")
    data = write(
        folder / "a.jsonl", [question(i, **({"question": ""} if i == 4 else {})) for i in range(ROWS)]
    )
    tree = make_tree(folder / "out", tiny_model, data, data={"name": "watched"})
    tree["methods"] = ["attention", "per_prompt"]
    fault = {"point": "engine.prefill", "action": "raise:NotImplementedError", "match": {"backend": "sdpa"}}
    environment = {
        VARIABLE: json.dumps([{**fault, "skip": 1, "times": 1, "ledger": str(folder / "ledger")}]),
        "RAY_metrics_report_interval_ms": "1000",
        "FLEXRAY_LOG": "json",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(write_config(folder, tree)), str(2 * ROWS)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    output = OutputFolder(str(folder / "out"))
    fingerprint = load_run(output).fingerprint
    actors = [path.read_text() for path in Path(found["session"], "logs").glob("worker-*.err")]
    return Watched(
        fingerprint=fingerprint,
        manifests=list(committed_shards(output, fingerprint).values()),
        seen=set(found["seen"]),
        lines=found["lines"],
        driver_log=events(done.stderr),
        actor_log=[event for text in actors for event in events(text)],
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
        assert event["fallbacks"] == accounting.rows - accounting.fallback_reason.get("", 0)
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
