"""gRPC from end to end through a real Envoy: HTTP/2 to servers of gRPC, HTTP/1.1 to all others on the same port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import grpc.aio
import pytest

from penstock.engine.contracts import Backend, Route, Sticky
from penstock.routers.envoy import EnvoyRouter
from penstock.traffic import Arm
from routers.toys import Toy, ask, free_port, until

pytestmark = pytest.mark.anyio


async def _say(question: bytes, _: object) -> bytes:
    return b"answer to " + question


async def _count(question: bytes, _: object) -> AsyncIterator[bytes]:
    for number in range(int(question)):
        yield str(number).encode()


async def _fail(question: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
    await context.abort(grpc.StatusCode[question.decode()], "as you wish")
    raise AssertionError


@asynccontextmanager
async def replica(name: str) -> AsyncIterator[int]:
    """A server that speaks gRPC and HTTP/1.1 on one port, told apart by how a connection begins; its port."""
    server = grpc.aio.server()
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(_say),
        "Count": grpc.unary_stream_rpc_method_handler(_count),
        "Fail": grpc.unary_unary_rpc_method_handler(_fail),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("toy.Toy", handlers)])
    inner = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Toy(name).serving() as toy, _doorkeeper(inner, toy.port) as port:
        yield port
    await server.stop(None)


@asynccontextmanager
async def _doorkeeper(of_grpc: int, of_http: int) -> AsyncIterator[int]:
    open_pipes: set[asyncio.Task[None]] = set()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_pipes.add(task)
        first = await reader.read(3)
        there = await asyncio.open_connection("127.0.0.1", of_grpc if first == b"PRI" else of_http)
        there[1].write(first)
        try:
            await asyncio.gather(_pipe(reader, there[1]), _pipe(there[0], writer))
        finally:
            for side in (writer, there[1]):
                side.transport.abort()
            open_pipes.discard(task)

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in open_pipes:
        task.cancel()
    await until(lambda: not open_pipes)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def backend(release: str, port: int, weight: int) -> Backend:
    return Backend(release, f"{release}-version", (port,), "/health", weight)


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


async def test_calls_streams_and_plain_requests_pass_on_one_port(router: EnvoyRouter) -> None:
    """A call, a stream of answers and a request of HTTP/1.1 reach the same replica, and each names the release."""
    port = free_port()
    async with replica("one") as own, calling(port) as channel:
        await router.apply([Route("production", port, (backend("1", own, 10_000),))])
        call = channel.unary_unary("/toy.Toy/Say")(b"a question")
        assert await call == b"answer to a question"
        assert dict(await call.initial_metadata() or ())["x-penstock-release"] == "1-version"
        assert [part async for part in channel.unary_stream("/toy.Toy/Count")(b"3")] == [b"0", b"1", b"2"]
        assert (await ask(port)).release == "1-version"
        assert await router.healthy("1") == 1
        await until(lambda: _arm_is(router, Arm(3)))
        assert await router.in_flight("1") == 0


async def _arm_is(router: EnvoyRouter, wanted: Arm) -> bool:
    arm = (await router.counted(["1"])).arms["1"]
    return (arm.requests, arm.errors) == (wanted.requests, wanted.errors) and sum(arm.latencies) >= wanted.requests - 1


async def test_a_status_that_is_a_fault_is_an_error(router: EnvoyRouter) -> None:
    """Faults of the server are errors though HTTP calls them 200; what the caller does wrong is none."""
    port = free_port()
    async with replica("one") as own, calling(port) as channel:
        await router.apply([Route("production", port, (backend("1", own, 10_000),))])
        for status in ("NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL", "UNAVAILABLE", "UNKNOWN"):
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await channel.unary_unary("/toy.Toy/Fail")(status.encode())
            assert told.value.code() is grpc.StatusCode[status]
        await until(lambda: _arm_is(router, Arm(5, 3)))
    with pytest.raises(grpc.aio.AioRpcError):
        async with calling(port) as channel:
            await channel.unary_unary("/toy.Toy/Say")(b"anybody?")
    await until(lambda: _arm_is(router, Arm(6, 4)))


async def test_calls_are_split_and_sticky_as_requests_are(router: EnvoyRouter) -> None:
    """Users of gRPC stay with their release too, and it is the one that the same users of HTTP/1.1 have."""
    port, sticky = free_port(), Sticky("header", "x-user")
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(replica(name)) for name in "12"]
        halves = tuple(backend(name, own, 5_000) for name, own in zip("12", ports, strict=True))
        await router.apply([Route("production", port, halves, sticky)])
        channel, seen = await stack.enter_async_context(calling(port)), set()
        for user in (f"user{number}" for number in range(40)):
            call = channel.unary_unary("/toy.Toy/Say")(b"", metadata=(("x-user", user),))
            await call
            release = dict(await call.initial_metadata() or ())["x-penstock-release"]
            assert (await ask(port, headers=f"x-user: {user}\r\n")).release == release
            seen.add(release)
    assert seen == {"1-version", "2-version"}
