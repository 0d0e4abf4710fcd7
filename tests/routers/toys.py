"""Toy replicas and clients, all in the test's own event loop; nothing here tries a request twice."""

import asyncio
import json
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Self

import psutil

from penstock.engine.contracts import Handle

PATIENCE = 10.0


def free_port() -> int:
    """A free port below the range from which the system numbers outgoing connections, so that none takes it."""
    while True:
        port = random.randint(15_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fails the test after `PATIENCE` seconds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if asyncio.iscoroutine(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.005)


@dataclass
class Toy:
    """A replica that answers with its name, claims a forged release, and can be ill, deaf, broken or slow."""

    name: str
    port: int = 0
    well: bool = True
    deaf: bool = False
    broken: bool = False
    asked: int = 0
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.slow.set()
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await until(lambda: not self._writers)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await self._answer(head, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ", 2)[1]
        if path == "/health":
            return _reply(writer, "200 OK" if self.well else "500 Ill", b"")
        self.asked += 1
        if self.broken or path in _FAULTS:
            return _FAULTS["/broken" if self.broken else path](writer)
        if path == "/slow" or self.deaf:
            await self.slow.wait()
        if path == "/stream":
            return await self._stream(writer)
        if path == "/socket":
            return await _echo(reader, writer)
        body = await reader.readexactly(int(_headers(head).get("content-length", 0)))
        return _reply(writer, "200 OK", sha256(body).hexdigest().encode() if body else self.name.encode())

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        """One event at once, the other when `slow` is set."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"d\r\ndata: first\n\n\r\n")
        await writer.drain()
        await self.slow.wait()
        writer.write(b"e\r\ndata: second\n\n\r\n0\r\n\r\n")


def _reply(writer: asyncio.StreamWriter, status: str, body: bytes) -> None:
    head = f"HTTP/1.1 {status}\r\nx-penstock-release: forged\r\nserver: toy\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
    writer.close()


_FAULTS: dict[str, Callable[[asyncio.StreamWriter], None]] = {
    "/missing": lambda writer: _reply(writer, "404 Missing", b""),
    "/broken": lambda writer: _reply(writer, "500 Broken", b""),
    "/garbage": lambda writer: writer.write(b"no HTTP\r\n\r\n"),
    "/reset": lambda writer: writer.transport.abort(),
    "/half": _break_off,
}


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    while data := await reader.read(1024):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


def _headers(head: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
    return {name.lower(): value.strip() for name, value in pairs}


@dataclass(frozen=True)
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def release(self) -> str | None:
        return self.headers.get("x-penstock-release")


@dataclass
class Client:
    """One connection at a time, kept while the server keeps it; a request is sent once and never again."""

    port: int
    tls: ssl.SSLContext | None = None
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str = "/", body: bytes = b"", headers: str = "") -> Reply:
        length = f"content-length: {len(body)}\r\n" if body else ""
        return await self.send("POST" if body else "GET", path, length + headers, body)

    async def send(self, verb: str, path: str, headers: str, body: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
        reader, writer = self._streams
        writer.write(f"{verb} {path} HTTP/1.1\r\nhost: toys\r\n{headers}\r\n".encode() + body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = _headers(head)
        content = await reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close":
            await self.close()
        return Reply(int(head.split(" ", 2)[1]), fields, content)

    @property
    def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self._streams is not None
        return self._streams

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()
        self._streams = None


async def ask(port: int, path: str = "/", body: bytes = b"", headers: str = "") -> Reply:
    """One request on a connection of its own."""
    client = Client(port)
    try:
        return await client.ask(path, body, headers)
    finally:
        await client.close()


def listens(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def recorded(folder: Path) -> Handle:
    return Handle(**json.loads((folder / "router.json").read_text())["handle"])


def envoys(folder: Path) -> list[psutil.Process]:
    """The Envoy under the shim, if it runs just now."""
    family = psutil.Process(recorded(folder).pid).children(recursive=True)
    return [process for process in family if process.name() == "envoy"]
