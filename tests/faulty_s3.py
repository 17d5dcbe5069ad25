"""A proxy in front of an S3 server that does to requests what networks and busy servers do.

    with FaultyS3(moto_url) as s3:
        s3.fail("PUT", "*/data/*", answer(503, "SlowDown"), times=2)

The program under test talks to `s3.url` and knows nothing of it.
"""

from __future__ import annotations

import asyncio
import fnmatch
import threading
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked: `head` is its first lines, `target` is path and query as they were sent."""

    method: str
    target: str
    head: bytes
    length: int

    @property
    def path(self) -> str:
        return urllib.parse.unquote(self.target.partition("?")[0])


@dataclass(slots=True)
class _Exchange:
    request: Request
    client: asyncio.StreamReader
    reply: asyncio.StreamWriter
    upstream: tuple[str, int]

    async def body(self) -> bytes:
        return await self.client.readexactly(self.request.length)

    async def ask(self, body: bytes) -> bytes:
        """The server's whole answer; less of the body than was announced makes it see a cut connection."""
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            writer.write(self.request.head + body)
            await writer.drain()
            if len(body) < self.request.length:
                writer.close()
                return b""
            return await reader.read()
        finally:
            writer.close()

    async def tell(self, data: bytes) -> None:
        self.reply.write(data)
        await self.reply.drain()

    def cut(self) -> None:
        self.reply.transport.abort()  # a reset, as by a host that went away


Fault = Callable[[_Exchange], Awaitable[None]]


def answer(status: int, code: str, message: str = "injected") -> Fault:
    """An S3 error; the request does not reach the server. HEAD has no body, so no code either."""

    async def happen(it: _Exchange) -> None:
        await it.body()
        body = b"" if it.request.method == "HEAD" else _error(code, message)
        await it.tell(
            f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    return happen


def delay(seconds: float) -> Fault:
    """The right answer, late."""

    async def happen(it: _Exchange) -> None:
        body = await it.body()
        await asyncio.sleep(seconds)
        await it.tell(await it.ask(body))

    return happen


async def stall(it: _Exchange) -> None:
    """The server neither reads nor answers, and keeps the connection."""
    await asyncio.sleep(3600)


async def cut_request(it: _Exchange) -> None:
    """The connection ends in the middle of what the client sends, for both sides."""
    part = await it.client.readexactly(it.request.length // 2)
    await it.ask(part)
    it.cut()


async def cut_response(it: _Exchange) -> None:
    """The connection ends in the middle of what the server answers."""
    data = await it.ask(await it.body())
    head, end, body = data.partition(b"\r\n\r\n")
    assert len(body) > 1, "there is no body to be cut"
    await it.tell(head + end + body[: len(body) // 2])
    it.reply.close()  # in order: what was sent does arrive


async def drop_answer(it: _Exchange) -> None:
    """The server does what it was asked, and the client never hears of it."""
    await it.ask(await it.body())
    it.cut()


@dataclass(slots=True)
class Rule:
    """A fault, and the requests that it happens to (see `FaultyS3.fail`)."""

    method: str
    target: str
    fault: Fault
    skip: int
    times: int | None
    happened: int = 0
    """How often it has happened."""

    def is_due(self, request: Request) -> bool:
        if request.method != self.method or not fnmatch.fnmatchcase(request.target, self.target):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.happened >= self.times:
            return False
        self.happened += 1
        return True


class FaultyS3:
    """The proxy, in a thread of its own, on a free port of loopback."""

    def __init__(self, upstream: str) -> None:
        parts = urllib.parse.urlsplit(upstream)
        self._upstream = parts.hostname or "", parts.port or 80
        self._rules: list[Rule] = []
        self.requests: list[Request] = []

    def fail(self, method: str, target: str, fault: Fault, *, skip: int = 0, times: int | None = 1) -> Rule:
        """Let a fault happen to requests whose path and query match a shell pattern, in order of arrival.

        Args:
            skip: matching requests to let pass first.
            times: how many of the following ones it happens to; None: to all.
        """
        rule = Rule(method, target, fault, skip, times)
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """From now on nothing fails, and `requests` is counted anew."""
        self._rules.clear()
        self.requests.clear()

    def count(self, method: str, target: str = "*") -> int:
        """How many such requests arrived."""
        return sum(
            request.method == method and fnmatch.fnmatchcase(request.target, target)
            for request in self.requests
        )

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
            started.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        started.wait()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, client: asyncio.StreamReader, reply: asyncio.StreamWriter) -> None:
        try:
            head = await client.readuntil(b"\r\n\r\n")
            request, waits = _parse(head)
            self.requests.append(request)
            if waits:
                reply.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            it = _Exchange(request, client, reply, self._upstream)
            rule = next((rule for rule in self._rules if rule.is_due(request)), None)
            await (rule.fault if rule else delay(0))(it)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the proxy is stopped
        finally:
            reply.close()


def _parse(head: bytes) -> tuple[Request, bool]:
    """The request as it goes on to the server, for one connection each; whether the client waits for a
    word before it sends the body."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    fields = [line.partition(":") for line in lines]
    length = next((int(value) for name, _, value in fields if name.lower() == "content-length"), 0)
    waits = any(name.lower() == "expect" for name, _, _ in fields)
    kept = [f"{n}:{v}" for n, _, v in fields if n.lower() not in ("expect", "connection")]
    sent = "\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1")
    return Request(method, target, sent, length), waits


def _error(code: str, message: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
