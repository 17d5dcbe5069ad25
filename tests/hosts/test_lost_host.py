"""A run on three hosts with a network between them, of which one is lost in the middle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.trial import METHODS, ROWS, SHARDS, answer_undisturbed, make_job
from tests.hosts.cluster import BUCKET, PATIENCE, HostsCluster
from tests.hosts.network import Host
from tests.ray.jobs import write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]
SLOW = {"point": "pipeline.answer", "action": "sleep:2", "times": None}
"""Each engine call takes that long, so that the lost host has work in hand."""
READ = """
import json, sys
from flexray.sink import OutputFolder, committed_shards, load_run
from tests.chaos.trial import read_rows
folder = OutputFolder(sys.argv[1])
hosts = [m.engine_stats["process"].split(":")[0] for m in committed_shards(folder, load_run(folder)).values()]
print(json.dumps({"rows": sorted(read_rows(folder).items()), "hosts": hosts}))
"""


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The rows, computed in this process without Ray, as JSON has them."""
    rows = answer_undisturbed(tiny_model, tmp_path_factory.mktemp("undisturbed") / "run")
    return json.loads(json.dumps(sorted(rows.items())))


@pytest.mark.parametrize(
    ("storage", "lose"),
    [
        pytest.param("folder", Host.lose_power, id="shared folder, power lost"),
        pytest.param("folder", Host.unplug, id="shared folder, network lost and the host writes on"),
        pytest.param("s3", Host.lose_power, id="S3 on another host, power lost"),
    ],
)
def test_a_run_outlives_a_host_and_every_row_is_there_once(
    cluster: HostsCluster,
    tiny_model: Path,
    undisturbed: list[Any],
    tmp_path: Path,
    storage: str,
    lose: Callable[[Host], None],
) -> None:
    output = f"s3://{BUCKET}/{tmp_path.name}" if storage == "s3" else str(tmp_path / "out")
    ray = {"address": cluster.address, "num_cpus_per_actor": 0.5, "min_actors": 3}
    recipe = write_config(tmp_path, make_job(tmp_path, output, tiny_model, ROWS, len(METHODS), ray=ray))
    log = tmp_path / "log"
    try:
        with cluster.faults(SLOW):
            driver = cluster.start_flexray("run", "--config", recipe, log=log)
            end = time.monotonic() + PATIENCE / 4
            while shards(log) < 3 or not cluster.actors(cluster.worker, "AnswerActor"):
                assert driver.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            assert cluster.actors(cluster.head, "JobTracker")  # beside the driver
            lose(cluster.worker)
            before = shards(log)
            code = driver.wait(timeout=PATIENCE / 4)
        assert code == 0, log.read_text()
        assert before < SHARDS
        checked = cluster.flexray("verify", output)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "missing=0" in checked.stdout
        found = json.loads(cluster.python(READ, output))
        assert found["rows"] == undisturbed
        assert {cluster.head.name, cluster.storage.name} <= {*found["hosts"]}
    finally:
        cluster.replace_worker()


def shards(log: Path) -> int:
    """How many the driver has told of."""
    return log.read_text().count(" 0 errors, ")
