"""Hosts with addresses of their own on this machine, as containers are made: by namespaces of Linux.

    with Network() as network:
        host = network.add_host("one")
        host.run("hostname")

A host has its network card, its processes, its mounts (of /tmp/ray and /dev/shm, too) and its name. All other
folders it shares with this machine and with the other hosts. Nothing of it has a name outside, so it is gone
as soon as its first process is, which dies with the thread that made the network, even if that is killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

PREFIX = "10.77.0"
PRIVATE = ("/tmp/ray", "/dev/shm")
"""Folders that each host has for itself, in memory."""
TOOLS = ("ip", "mount", "nsenter", "setpriv", "unshare")


def why_not() -> str:
    """Why no hosts can be made here; "" if they can."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"hosts in namespaces need {', '.join(missing)} (iproute2, util-linux)"
    if os.geteuid() != 0:
        return "hosts in namespaces need root"
    try:
        with Network() as network:
            network.add_host("probe")
    except subprocess.CalledProcessError as e:
        return f"hosts in namespaces cannot be made: {(e.stderr or e.stdout or str(e)).strip()}"
    return ""


class _Namespaces:
    """Namespaces that a process of their own holds, of pids among them: all that runs inside ends with it."""

    def __init__(self, *entered: str) -> None:
        """`entered`: the kinds that commands inside get; for others they are outside."""
        kinds = dict.fromkeys(["pid", *entered])
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *(f"--{kind}" for kind in kinds)]
        # `wait` reaps the processes whose parents have died
        command += ["--mount-proc", "--fork", "--kill-child", "sh", "-c", "echo made; sleep infinity & wait"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        said, wrong = self._process.stdout, self._process.stderr
        assert said is not None
        assert wrong is not None
        with said, wrong:
            if said.readline() != "made\n":
                raise subprocess.CalledProcessError(self._process.wait(), command, stderr=wrong.read())
        (self._first,) = psutil.Process(self._process.pid).children()
        self.pid = self._first.pid
        self._enter = ["nsenter", f"--target={self.pid}", *(f"--{kind}" for kind in entered)]

    def command(self, *command: str) -> list[str]:
        """A command line that runs another one inside."""
        return [*self._enter, "--", *command]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command inside, to its end."""
        options = {"check": True, "capture_output": True, "text": True, "timeout": 60} | options
        try:
            return subprocess.run(self.command(*command), **options)
        except subprocess.CalledProcessError as e:
            e.add_note(f"{e.stdout}{e.stderr}")
            raise

    def end(self) -> None:
        """Kill the first process, and so all others; returns when they are dead."""
        if self._first.is_running():
            self._first.kill()
        self._process.wait()


class Host:
    """A host of a network."""

    def __init__(self, name: str, address: str, switch: _Namespaces) -> None:
        self.name, self.address = name, address
        self._switch, self._port = switch, "to-" + address.rpartition(".")[2]
        self._inside = _Namespaces("pid", "mount", "net", "uts")
        try:
            self.run("hostname", name)
            for folder in PRIVATE:
                Path(folder).mkdir(exist_ok=True)
                self.run("mount", "-t", "tmpfs", "none", folder)
            card = ["type", "veth", "peer", "name", "eth0", "netns", str(self._inside.pid)]
            switch.run("ip", "link", "add", self._port, *card)
            switch.run("ip", "link", "set", self._port, "master", "switch", "up")
            self.run("ip", "link", "set", "lo", "up")
            self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            self.run("ip", "link", "set", "eth0", "up")
            self.run("ip", "route", "add", "default", "dev", "eth0")  # Ray takes its own address from there
        except BaseException:
            self._inside.end()
            raise

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command on the host, to its end. Raises CalledProcessError unless `check` is False."""
        return self._inside.run(*command, **options)

    def start(self, *command: str, log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        """A command on the host that goes on; it ends at the latest with the host."""
        with log.open("ab") as file:
            return subprocess.Popen(
                self._inside.command(*command), env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def processes(self) -> Sequence[psutil.Process]:
        """All that runs there."""
        try:
            return psutil.Process(self._inside.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    @contextmanager
    def shows(self, folder: Path, instead: Path | None = None) -> Iterator[None]:
        """Meanwhile the host has another folder in this place; None: an empty one."""
        what = ["-t", "tmpfs", "none"] if instead is None else ["--bind", str(instead)]
        self.run("mount", *what, str(folder))
        try:
            yield
        finally:
            self.run("umount", "--lazy", str(folder))

    def unplug(self) -> None:
        """Cut it off the network: nobody is told, and its processes live on."""
        self._switch.run("ip", "link", "set", self._port, "down")

    def lose_power(self) -> None:
        """End it as a machine ends: off the network first, so that no connection is closed, then dead."""
        self.unplug()
        self.end()

    def end(self) -> None:
        """Kill all of its processes. Its network card and its mounts go with them."""
        self._inside.end()


class Network:
    """A switch, and the hosts on it."""

    def __enter__(self) -> Self:
        self._numbers = itertools.count(1)
        with ExitStack() as stack:
            self._switch = _Namespaces("net")
            stack.callback(self._switch.end)
            self._switch.run("ip", "link", "add", "switch", "type", "bridge")
            self._switch.run("ip", "link", "set", "switch", "up")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add_host(self, name: str) -> Host:
        """A new host, with the next address of 10.77.0.1, 10.77.0.2, .."""
        host = Host(name, f"{PREFIX}.{next(self._numbers)}", self._switch)
        self._stack.callback(host.end)
        return host
