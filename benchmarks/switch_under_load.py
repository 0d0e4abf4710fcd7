"""Switches releases under load through a real Envoy, and says what it cost.

    python benchmarks/switch_under_load.py [--switches 10] [--callers 8]

Toy replicas, callers and the deciding side share one process, so the request rate says little about Envoy; what
counts is: failed requests (must be 0; the exit code says so), seconds until new weights are in force, Envoy's start
and its return after a kill -9, and its memory. It ends by itself after the switches; nobody retries.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from penstock.engine.contracts import Backend, Route
from penstock.routers.envoy import EnvoyRouter
from penstock.runners.process import ProcessRunner

_MOST_REQUESTS = 200_000
_REQUEST = b"GET / HTTP/1.1\r\nhost: toys\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Load:
    """What the callers saw."""

    port: int
    over: bool = False
    good: int = 0
    failed: list[str] = field(default_factory=list)

    async def call(self, *, keep: bool) -> None:
        """Ask until it is over, on one connection or each time on a new one."""
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.over and self.good < _MOST_REQUESTS:
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
                await self._ask(*streams)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed.append(repr(error))
                keep_now = False
            else:
                keep_now = keep
            if streams is not None and not keep_now:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.split(b":")[1]))
        if head.startswith(b"http/1.1 200") and b"x-penstock-release: " in head:
            self.good += 1
        else:
            self.failed.append(f"{head!r} {body!r}")


async def serve() -> tuple[asyncio.Server, int]:
    """One toy replica; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(_ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    port: int = server.sockets[0].getsockname()[1]
    return server, port


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition, at most 30 s."""
    async with asyncio.timeout(30):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.005)


async def measured(work: Awaitable[None]) -> float:
    """How many seconds some work takes."""
    begin = time.perf_counter()
    await work
    return time.perf_counter() - begin


def backend(number: int, port: int, weight: int) -> Backend:
    """One toy release."""
    return Backend(str(number), f"{number}.0", (port,), "/health", weight)


async def switch(router: EnvoyRouter, port: int, number: int, ports: Sequence[int]) -> float:
    """From one release to the next; seconds until the new weights were in force."""
    old, new = ports[number], ports[number + 1]

    async def split(first: int, second: int) -> None:
        await router.apply([Route("p", port, (backend(number, old, first), backend(number + 1, new, second)))])

    async def well() -> bool:
        return await router.healthy(str(number + 1)) == 1

    async def drained() -> bool:
        return await router.in_flight(str(number)) == 0

    await split(10_000, 0)
    await until(well)
    seconds = await measured(split(0, 10_000))
    await until(drained)
    await router.apply([Route("p", port, (backend(number + 1, new, 10_000),))])
    return seconds


def envoys(folder: Path) -> list[psutil.Process]:
    """The Envoy of a router's folder, if it runs just now."""
    shim = psutil.Process(json.loads((folder / "router.json").read_text())["handle"]["pid"])
    return [process for process in shim.children(recursive=True) if process.name() == "envoy"]


async def killed_and_back(folder: Path, port: int) -> None:
    """Kill -9 Envoy, and return when it takes connections again."""
    killed = envoys(folder)
    killed[0].kill()

    async def back() -> bool:
        with socket.socket() as probe:
            return envoys(folder) not in ([], killed) and probe.connect_ex(("127.0.0.1", port)) == 0

    await until(back)


async def run(folder: Path, switches: int, callers: int) -> Load:
    """The whole measurement; prints one line per figure."""
    router, port = EnvoyRouter(folder, ProcessRunner()), random.randint(15_000, 32_000)  # noqa: S311 - no secret
    servers, ports = zip(*[await serve() for _ in range(switches + 1)], strict=True)
    load = Load(port)
    try:
        first = [Route("p", port, (backend(0, ports[0], 10_000),))]
        print(f"start to first state in force   {await measured(router.apply(first)):8.3f} s")
        print(f"the same state again            {await measured(router.apply(first)):8.3f} s")
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(load.call(keep=number % 2 == 0))
            seconds = [await switch(router, port, number, ports) for number in range(switches)]
            load.over = True
        rate = load.good / (time.perf_counter() - begin)
        print(f"new weights in force, median    {statistics.median(seconds):8.3f} s  (worst {max(seconds):.3f})")
        print(f"memory of Envoy                 {envoys(folder)[0].memory_info().rss / 2**20:8.1f} MiB")
        print(f"back after kill -9              {await measured(killed_and_back(folder, port)):8.3f} s")
        print(f"{switches} switches, {load.good} answers ({rate:.0f}/s), {len(load.failed)} failed")
    finally:
        await router.stop()
        for server in servers:
            server.close()
    return load


def main() -> int:
    """0 where no request failed."""
    parser = argparse.ArgumentParser(description="Switch releases under load through Envoy.")
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--callers", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = asyncio.run(run(Path(folder), asked.switches, asked.callers))
    for failure in load.failed[:5]:
        print(failure, file=sys.stderr)
    return 1 if load.failed else 0


if __name__ == "__main__":
    sys.exit(main())
