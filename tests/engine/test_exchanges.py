"""HTTP with a local server: whatever shape an answer has, it is read whole or its fault is told, and never hangs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from engine.builders import Server
from penstock.engine import exchanges
from penstock.engine.exchanges import Connection, encoded
from penstock.recordings import Recording, Reply

ASKED = Recording(1, "/predict", "POST", (("X-Key", "é"),), b'{"x":1}')
PLAIN = Recording(1, "/health")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def asked(speak: Speak, requests: Sequence[Recording], patience: float = 20.0) -> tuple[list[Reply], int]:
    """What a server that speaks so replies to requests over one connection, and how many connections it took."""
    begun = 0

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun += 1
        try:
            await speak(reader, writer)
        finally:
            writer.close()

    async def story() -> list[Reply]:
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server, Connection(server.sockets[0].getsockname()[1], patience) as connection:
            return [(await connection.ask(request))[0] for request in requests]

    return asyncio.run(story()), begun


def saying(*answers: bytes) -> Speak:
    """Each request over a connection gets the next of these answers; after the last one the connection ends."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
            await reader.readexactly(int(length[0].split()[1]) if length else 0)
            writer.write(answer)
            await writer.drain()

    return speak


def test_a_request_is_written_as_it_was_recorded() -> None:
    """Method, path, headers and body are the recording's; host and length are told, and no more than that."""
    assert encoded(ASKED, 80) == (
        b'POST /predict HTTP/1.1\r\nHost: 127.0.0.1:80\r\nX-Key: \xe9\r\nContent-Length: 7\r\n\r\n{"x":1}'
    )
    assert encoded(PLAIN, 80) == b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"
    assert encoded(Recording(1, "/", "PUT"), 80).endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "answer", "reply"),
    [
        ("GET", OK, Reply(200, b"ok")),
        ("GET", b"HTTP/1.1 500 \r\ncontent-length:0\r\n\r\n", Reply(500)),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\n\r\n" + OK, Reply(200, b"ok")),
        ("GET", CHUNKED + b"2;a=b\r\nok\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n", Reply(200, b"ok!")),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", Reply(200)),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", Reply(204)),
        ("GET", b"HTTP/1.1 304\r\nContent-Length: 9\r\n\r\n", Reply(304)),
    ],
)  # fmt: skip
def test_answers_whose_end_is_told_keep_the_connection(method: str, answer: bytes, reply: Reply) -> None:
    """By length, by chunks or without a body: two requests are answered over one connection."""
    request = Recording(1, "/", method)
    assert asked(saying(answer, answer), [request, request]) == ([reply, reply], 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_connections_that_end_are_made_again(answer: bytes) -> None:
    """An answer that ends with its connection is whole, and the next request takes another one."""
    assert asked(saying(answer), [PLAIN, PLAIN]) == ([Reply(200, b"ok")] * 2, 2)


def test_a_connection_that_was_closed_meanwhile_is_no_fault() -> None:
    """A server may end a connection after an answer without a word: the next request finds out before it is sent."""

    async def story() -> list[Reply]:
        closed = asyncio.Event()

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await saying(OK)(reader, writer)
            writer.close()
            closed.set()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        async with server, Connection(server.sockets[0].getsockname()[1]) as connection:
            replies = []
            for _ in range(3):
                replies.append((await connection.ask(PLAIN))[0])
                await closed.wait()
                streams = connection._streams
                assert streams is not None
                await streams[0].read()  # until the end has come
                closed.clear()
            return replies

    assert asyncio.run(story()) == [Reply(200, b"ok")] * 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent", "it broke off within the headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "it broke off within the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nok", "its Content-Length is no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nok", "its answer is longer than 64 MiB"),
        (CHUNKED + b"ok\r\n", "the length of a chunk is no number"),
        (CHUNKED + b"2\r\nok\r\n", "it broke off within the answer"),
        (CHUNKED + b"FFFFFFFF\r\nok\r\n", "its answer is longer than"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "it changed the protocol"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "it does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 18), "its headers never end"),
    ],
)
def test_what_is_no_whole_answer_is_told(answer: bytes, words: str) -> None:
    """Each fault has its words, and the next request is asked over another connection."""
    replies, connections = asked(saying(answer), [ASKED, ASKED])
    assert [reply.status for reply in replies] == [None, None]
    assert all(reply.fault.startswith("not answered: ") and words in reply.fault for reply in replies)
    assert connections == 2


def test_a_body_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that goes on until the connection ends has the same limit."""
    monkeypatch.setattr(exchanges, "MOST", 1000)
    replies, _ = asked(saying(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000), [PLAIN])
    assert "its answer is longer than" in replies[0].fault


def test_silence_is_bounded() -> None:
    """A server that takes a request and says nothing is given up, and the next request is asked anew."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    replies, connections = asked(silent, [PLAIN, PLAIN], patience=0.05)
    assert [reply.fault for reply in replies] == ["not answered within 0.05 s"] * 2
    assert connections == 2


def test_nothing_listens() -> None:
    """Where nobody serves, that is what is told."""
    port = Server(0, "x", {})
    number = port.server_address[1]
    port.close()

    async def story() -> Reply:
        async with Connection(int(number)) as connection:
            return (await connection.ask(PLAIN))[0]

    assert asyncio.run(story()) == Reply(None, fault="not answered: nothing listens")


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_of_the_standard_library_echoes_much() -> None:
    """Two MiB there and back over one kept connection, and the time that it took."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    async def story() -> list[tuple[Reply, float]]:
        async with Connection(int(server.server_address[1])) as connection:
            return [await connection.ask(Recording(1, "/", "POST", (), bytes([n]) * (2 << 20))) for n in range(3)]

    try:
        found = asyncio.run(story())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [(reply.status, reply.body) for reply, _ in found] == [(200, bytes([n]) * (2 << 20)) for n in range(3)]
    assert all(seconds > 0 for _, seconds in found)
