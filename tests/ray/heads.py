"""A head of Ray that a test starts with `ray start --block`, and a proxy before its dashboard."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import psutil

from tests.ray.jobs import kill


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def wait_until_it_listens(port: int, starter: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end_time = time.monotonic() + seconds
    while True:
        assert starter.poll() is None, log.read_text()
        assert time.monotonic() < end_time, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)


def end(starter: subprocess.Popen) -> None:
    """End `ray start --block` and what it has started; `ray stop` would end every Ray of the machine."""
    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(starter.pid)
        processes = [parent, *parent.children(recursive=True)]
    kill(processes)
    starter.wait()


@contextlib.contextmanager
def late_to_say_so(dashboard: str, submitted: threading.Event) -> Iterator[str]:
    """The address of the dashboard behind a proxy, which holds back that it has accepted a job, and sets
    `submitted`."""

    class Proxy(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            asked = urllib.request.Request(dashboard + self.path, body, headers, method=self.command)
            try:
                answer = urllib.request.urlopen(asked, timeout=60)
            except HTTPError as e:
                answer = e
            said = answer.read()
            if (self.command, self.path) == ("POST", "/api/jobs/"):
                submitted.set()
                ended.wait(120)
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_PUT = do_POST = forward  # noqa: N815  names of the base class

        def log_message(self, *words: object) -> None:
            pass

    ended = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            ended.set()
            server.shutdown()
