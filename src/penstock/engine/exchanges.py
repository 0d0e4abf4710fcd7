"""HTTP/1.1 with a server of this machine: one request after the other over a connection that is kept.

It does no more than asking and timing needs (RFC 9112: lengths, chunks, interim answers, connections that close), so
that the milliseconds are the server's and not the client's.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from penstock.recordings import Recording, Reply

PATIENCE = 30.0
"""Seconds that one answer may take."""
MOST = 64 << 20
"""Bytes: a longer answer is given up."""
_HEAD = 1 << 17
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: |\r?\n|$)")
_NO_BODY = frozenset({204, 304})


class _FaultError(Exception):
    """Why no whole answer came, in words."""


def encoded(recording: Recording, port: int) -> bytes:
    """The bytes of a request to a port of 127.0.0.1."""
    body = recording.body
    lines = [f"{recording.method} {recording.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in recording.headers]
    if body is not None or recording.method in {"POST", "PUT", "PATCH"}:
        lines.append(f"Content-Length: {len(body or b'')}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Connection:
    """One connection to a port of 127.0.0.1, made when it is needed and again after the server closed it.

    A request is sent once: what the server leaves unanswered is its fault, and never asked again in silence. With `tls`
    it speaks so; whose certificate the server shows does not matter, for it is on this machine.
    """

    def __init__(self, port: int, patience: float = PATIENCE, *, tls: bool = False) -> None:
        self._port = port
        self._patience = patience
        self._tls = _anybody() if tls else None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask(self, recording: Recording) -> tuple[Reply, float]:
        """The reply to a request, and the seconds from its first byte sent to the last one received."""
        await self._look()
        request = encoded(recording, self._port)
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience):
                reply, is_kept = await self._exchange(request, recording.method)
        except TimeoutError:
            reply, is_kept = Reply(None, fault=f"not answered within {self._patience:g} s"), False
        except (_FaultError, OSError) as error:
            reply, is_kept = Reply(None, fault=f"not answered: {_words(error)}"), False
        seconds = time.perf_counter() - start
        if not is_kept:
            await self.close()
        return reply, seconds

    async def _look(self) -> None:
        """Let go of a connection that the server has closed since the last answer."""
        await asyncio.sleep(0)
        if self._streams is not None and self._streams[0].at_eof():
            await self.close()

    async def _exchange(self, request: bytes, method: str) -> tuple[Reply, bool]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_HEAD, ssl=self._tls)
        reader, writer = self._streams
        writer.write(request)
        with suppress(ConnectionError):  # it may refuse a long body and still have said why
            await writer.drain()
        status, version, headers = await _head(reader)
        while status < 200:
            if status == 101:
                raise _FaultError("it changed the protocol")
            status, version, headers = await _head(reader)
        body, is_delimited = b"", True
        if method != "HEAD" and status not in _NO_BODY:
            body, is_delimited = await _body(reader, headers)
        said = headers.get("connection", "").lower()
        is_kept = is_delimited and "close" not in said and (version == 1 or "keep-alive" in said)
        return Reply(status, body), is_kept

    async def close(self) -> None:
        """Close what is open."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(OSError):
                await streams[1].wait_closed()


def _anybody() -> ssl.SSLContext:
    """TLS with whoever answers: a certificate is for the name by which people call, which is not 127.0.0.1."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens"
    return "it broke the connection" if isinstance(error, OSError) else str(error)


async def _head(reader: asyncio.StreamReader) -> tuple[int, int, Mapping[str, str]]:
    """Status, minor version and headers of an answer; headers by their names in small letters."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        what = "it broke off within the headers" if error.partial else "it closed the connection"
        raise _FaultError(what) from None
    except asyncio.LimitOverrunError:
        raise _FaultError("its headers never end") from None
    found = _STATUS.match(head)
    if found is None:
        raise _FaultError("it does not speak HTTP/1.1")
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    headers = {name.strip().lower().decode("latin-1"): value.strip().decode("latin-1") for name, _, value in pairs}
    return int(found[2]), int(found[1]), headers


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    """The body, and whether its end was told by anything but the connection's."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader), True
    length = headers.get("content-length")
    if length is None:
        return await _rest(reader), False
    if not length.isdecimal():
        raise _FaultError("its Content-Length is no number")
    return await _exactly(reader, int(length)), True


async def _rest(reader: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while part := await reader.read(1 << 16):
        size += len(part)
        _refuse_long(size)
        parts.append(part)
    return b"".join(parts)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while length := _length(await _line(reader)):
        size += length
        _refuse_long(size)
        parts.append(await _exactly(reader, length))
        await _line(reader)
    while await _line(reader):  # trailers
        pass
    return b"".join(parts)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\n")).strip()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise _FaultError("it broke off within the answer") from None


def _length(line: bytes) -> int:
    size = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size):
        raise _FaultError("the length of a chunk is no number")
    return int(size, 16)


async def _exactly(reader: asyncio.StreamReader, length: int) -> bytes:
    _refuse_long(length)
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise _FaultError("it broke off within the answer") from None


def _refuse_long(size: int) -> None:
    if size > MOST:
        raise _FaultError(f"its answer is longer than {MOST >> 20} MiB")
