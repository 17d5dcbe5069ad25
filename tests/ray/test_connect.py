"""A Ray that is started here is nobody else's."""

import json
import subprocess
import sys

LISTENERS = """
import contextlib, json, psutil, ray
from flexray.config import RayConfig
from flexray.pipeline.ray_connection import connect_ray
connect_ray(RayConfig(num_cpus=1, object_store_mb=80))
ray.get(ray.remote(lambda: 1).remote())
me = psutil.Process()
found = []
for p in [me, *me.children(recursive=True)]:
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):  # it has just ended
        found += [(p.name(), c) for c in p.net_connections()]
print(json.dumps([[name, c.laddr.ip] for name, c in found if c.status == psutil.CONN_LISTEN]))
"""


def test_every_process_of_a_ray_that_is_started_here_listens_on_loopback_only():
    command = [sys.executable, "-c", LISTENERS]
    told = subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=True).stdout
    found = json.loads(told)
    assert {"gcs_server", "raylet"} <= {name for name, _ in found}
    assert {address.removeprefix("::ffff:") for _, address in found} == {"127.0.0.1"}
