"""A Ray cluster of several hosts, of which the last one can be lost."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from flexray.config.fault_injection import VARIABLE
from tests.chaos.cluster import command_of
from tests.conftest import PROJECT
from tests.hosts.network import Host, Network
from tests.s3 import SECRET

RAY = str(Path(sys.executable).with_name("ray"))
GCS_PORT, S3_PORT = 6379, 9000
HOSTS = ("head", "storage", "worker")
BUCKET = "answers"
START_ATTEMPTS = 4
PATIENCE = 2400
"""Seconds of a test, on a machine that is busy with other work."""
# A host that does not answer is given up after about 20 seconds, not after more than a minute.
RAY_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
}
WAIT = """
import socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.2)
"""


class HostsCluster:
    """Hosts of one CPU: the head, where drivers start; the storage, with an S3 server too; the worker."""

    def __init__(self, network: Network, folder: Path) -> None:
        """`folder`: for logs, and the faults of all workers."""
        self._network, self._folder = network, folder
        self._faults = folder / "faults.json"
        self._faults.write_text("[]")
        self._env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
        self._env |= RAY_SETTINGS | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "PYTHONPATH": str(PROJECT),
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            VARIABLE: f"@{self._faults}",
        }
        self.head, self.storage, self.worker = (network.add_host(f"fx-{name}") for name in HOSTS)
        self.address = f"{self.head.address}:{GCS_PORT}"
        self._env["AWS_ENDPOINT_URL"] = f"http://{self.storage.address}:{S3_PORT}"
        self._start_s3()
        self._start_ray(self.head, "--head", f"--port={GCS_PORT}", "--include-dashboard=false")
        for host in (self.storage, self.worker):
            self._start_ray(host, f"--address={self.address}")

    def replace_worker(self) -> None:
        """Another worker, with an address of its own, in the place of one that was lost."""
        self.worker.end()
        self.worker = self._network.add_host("fx-worker")
        self._start_ray(self.worker, f"--address={self.address}")

    @contextmanager
    def faults(self, *happen: dict[str, Any]) -> Iterator[None]:
        """Faults that meanwhile happen in all processes of flexray."""
        self._faults.write_text(json.dumps(happen))
        try:
            yield
        finally:
            self._faults.write_text("[]")

    def actors(self, host: Host, name: str) -> list[psutil.Process]:
        """The processes there that are actors of a class."""
        return [process for process in host.processes() if name in command_of(process)]

    def flexray(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of flexray on the head, to its end, whatever its exit code."""
        options = {"check": False, "timeout": PATIENCE, "env": self._env} | options
        return self.head.run(sys.executable, "-m", "flexray.cli", *map(str, arguments), **options)

    def start_flexray(self, *arguments: object, log: Path) -> subprocess.Popen[bytes]:
        """A command of flexray on the head, which goes on."""
        return self.head.start(
            sys.executable, "-m", "flexray.cli", *map(str, arguments), log=log, env=self._env
        )

    def python(self, script: str, *arguments: str) -> str:
        """What a script prints, run on the head."""
        return self.head.run(sys.executable, "-c", script, *arguments, env=self._env, timeout=300).stdout

    def _start_ray(self, host: Host, *options: str) -> None:
        command = [RAY, "start", f"--node-ip-address={host.address}", "--num-cpus=1", *options]
        command += [f"--object-store-memory={80 * 2**20}", "--disable-usage-stats", "--log-color=false"]
        for attempt in range(START_ATTEMPTS):  # Ray waits for 30 seconds, which a busy machine may exceed
            started = host.run(*command, env=self._env, timeout=300, check=attempt == START_ATTEMPTS - 1)
            if started.returncode == 0:
                break
            host.run(RAY, "stop", "--force", env=self._env, timeout=300)

    def _start_s3(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", self.storage.address, "-p", str(S3_PORT)]
        server = self.storage.start(*command, log=self._folder / "s3.log", env=self._env)
        self.storage.run(sys.executable, "-c", WAIT, self.storage.address, str(S3_PORT), timeout=120)
        assert server.poll() is None
        self.python("import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])", BUCKET)
