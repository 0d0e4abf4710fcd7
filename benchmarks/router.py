"""What the router adds to a request, and what one look at its counters costs.

    python benchmarks/router.py [--rounds 9] [--requests 2000] [--releases 8]

The same replica, a process of its own that answers at once, is asked directly and through Envoy in turns, one request
after the other on a kept connection; figures are medians of the rounds. Then the counters are read while that many
releases are known, and Envoy is killed with -9 and asked until it answers again. No timing fails anything.
"""

import argparse
import asyncio
import multiprocessing
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

from penstock.engine.contracts import Backend, Route, Sticky
from penstock.routers.envoy import EnvoyRouter
from penstock.runners.process import ProcessRunner
from switch_under_load import envoys

_REQUEST = b"GET / HTTP/1.1\r\nhost: toys\r\nx-user: somebody\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_LOOKS = 100
_KILLS = 5


def serve(told: Connection) -> None:
    """Answer every request at once; the port goes to whoever started this."""
    asyncio.run(_serve(told))


async def _serve(told: Connection) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    told.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def ask_often(port: int, requests: int) -> list[float]:
    """Milliseconds of each of so many requests on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for _ in range(requests):
        begin = time.perf_counter()
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        taken.append((time.perf_counter() - begin) * 1000)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no good answer: {head!r}")
    writer.close()
    return taken


async def compare(ports: tuple[int, int], rounds: int, requests: int) -> None:
    """Direct and routed in turns: medians over the rounds of p50 and p99, and what the router adds."""
    found: dict[tuple[int, int], list[float]] = {}
    for turn in range(rounds):
        for port in ports if turn % 2 else ports[::-1]:
            cuts = statistics.quantiles(await ask_often(port, requests), n=100)
            found.setdefault((port, 50), []).append(cuts[49])
            found.setdefault((port, 99), []).append(cuts[98])
    for part in (50, 99):
        direct, routed = (statistics.median(found[port, part]) for port in ports)
        added = statistics.median(b - a for a, b in zip(found[ports[0], part], found[ports[1], part], strict=True))
        print(f"p{part}: direct {direct:6.3f} ms, routed {routed:6.3f} ms, added {added:6.3f} ms")


async def look(router: EnvoyRouter, releases: list[str]) -> None:
    """What reading the counters of two releases costs."""
    taken = []
    for _ in range(_LOOKS):
        begin = time.perf_counter()
        await router.counted(releases[:2])
        taken.append((time.perf_counter() - begin) * 1000)
    worst = max(taken)
    print(f"a look at the counters, {len(releases)} releases: {statistics.median(taken):.1f} ms (worst {worst:.1f})")


async def kill_and_wait(folder: Path, port: int) -> float:
    """Seconds from a kill -9 of Envoy to its next good answer."""
    for process in envoys(folder):
        process.send_signal(signal.SIGKILL)
    begin = time.perf_counter()
    while not await _answers(lambda: ask_often(port, 1)):
        await asyncio.sleep(0.005)
    return time.perf_counter() - begin


async def _answers(attempt: Callable[[], Awaitable[object]]) -> bool:
    try:
        await attempt()
    except (OSError, asyncio.IncompleteReadError):
        return False
    return True


async def run(folder: Path, replica: int, asked: argparse.Namespace) -> float:
    """The measurements, one after the other, on one Envoy; seconds until it is back after its death."""
    router, port = EnvoyRouter(folder, ProcessRunner()), random.randint(15_000, 32_000)  # noqa: S311 - no secret
    releases = [str(number) for number in range(max(asked.releases, 3))]
    weights = {"0": 2_500, "1": 7_500}
    backends = (Backend(r, f"{r}.0", (replica,), "/", weights.get(r, 0), 10_000 if r == "2" else 0) for r in releases)
    try:
        await router.apply([Route("production", port, (Backend("0", "0.0", (replica,), "/", 10_000),))])
        if asked.rounds:
            await compare((replica, port), asked.rounds, asked.requests)
        await router.apply([Route("production", port, tuple(backends), Sticky("header", "x-user"))])
        if asked.rounds:
            await look(router, releases)
        return await kill_and_wait(folder, port)
    finally:
        await router.stop()


def main() -> int:
    """0, whatever was measured."""
    parser = argparse.ArgumentParser(description="What the router adds, and what a look at its counters costs.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--releases", type=int, default=8)
    asked = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    replica, back = ours.recv(), []
    for _ in range(_KILLS):
        with tempfile.TemporaryDirectory() as folder:
            back.append(asyncio.run(run(Path(folder), replica, asked)))
        asked.rounds = 0
    print(f"back after kill -9: median {statistics.median(back):.2f} s, worst {max(back):.2f} s")
    server.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
