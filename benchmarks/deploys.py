"""Deploys a model server again and again under load, and counts what callers saw fail.

    python benchmarks/deploys.py [--deploys 5] [--requests 3000] [--streams 20] [--rate 300] [--only penstock]
    python benchmarks/deploys.py --deploys 50 --requests 100000 --streams 600

Each deploy is a commit with another model, taken to production by the real command through the real router. Beside it,
the same server with the same callers: stopped and started by hand, and under gunicorn that is told to reload (HUP).
Callers are two processes; half of them open a connection for each request, half keep theirs, nobody tries twice. What
is not 200 with a whole answer has failed; so has a refused or broken connection, and an answer that takes 10 seconds. A
kept connection that was closed before the request was sent is opened again, as every client does. Streams (SSE) begin
before the first deploy and must come to their end, so that deploy waits for them. Callers go at a steady rate, so that
failures measure the time without an answer. The exit code is 1 where Penstock failed a request or broke a stream.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from side_by_side import PENSTOCK, MissingError, environment, lay_out, program, repository, run, scratch

CALLERS = 8
"""Callers in each of the processes; half of them keep their connections."""
PROCESSES = 2
PATIENCE = 10.0
STREAMS = 4
GRACE = 10.0
"""Seconds that a server has to end when it is told to, as `docker stop` gives."""

APP = """\
import asyncio
import json
import math
from pathlib import Path
from urllib.parse import parse_qs

MODEL = json.loads(Path("model/model.json").read_text())


def predict(features):
    logits = [sum(w * x for w, x in zip(row, features)) for row in MODEL["weights"]]
    most = max(logits)
    weights = [math.exp(logit - most) for logit in logits]
    return [weight / sum(weights) for weight in weights]


async def body_of(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def answer(send, body, kind=b"application/json"):
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send, seconds):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(int(seconds * 2)):
        await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
        await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"data: end\\n\\n"})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/predict":
        shares = predict(json.loads(await body_of(receive)))
        found = {"digit": shares.index(max(shares)), "share": max(shares), "model": MODEL["number"]}
        await answer(send, json.dumps(found).encode())
    elif scope["path"] == "/stream":
        await stream(send, float(parse_qs(scope["query_string"].decode())["seconds"][0]))
    else:
        await answer(send, b"fine", b"text/plain")
"""

TRAIN = """\
import json
import os
import random

number = int(open("number.txt").read())
dice = random.Random(number)
weights = [[dice.gauss(0, 0.1) for _ in range(64)] for _ in range(10)]
os.makedirs("model", exist_ok=True)
with open("model/new.json", "w") as file:
    json.dump({"number": number, "weights": weights}, file)
os.replace("model/new.json", "model/model.json")
"""

UVICORN = "python -m uvicorn app:app --host 127.0.0.1 --port $PORT --log-level warning --no-access-log"
PIPELINE = f"""\
name: deploys
steps:
  train: {{run: python train.py, inputs: [train.py, number.txt], outputs: [model/]}}
package: {{model: model/, code: [app.py], serve: exec {UVICORN}}}
environments:
  production: {{port: PORT_OF_IT, drain: DRAIN_OF_IT}}
"""

FEATURES = json.dumps([0.5 + number % 3 for number in range(64)]).encode()
REQUEST = b"POST /predict HTTP/1.1\r\nhost: toys\r\ncontent-length: %d\r\n\r\n%s" % (len(FEATURES), FEATURES)


# --- callers -------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What callers saw: answers in milliseconds, failures by kind, the models that answered, how streams ended."""

    milliseconds: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    models: set[int] = field(default_factory=set)
    streams: list[str] = field(default_factory=list)

    def add(self, other: "Seen") -> None:
        self.milliseconds += other.milliseconds
        self.failed += other.failed
        self.models |= other.models
        self.streams += other.streams


@dataclass(frozen=True)
class Duty:
    """What a process of callers is to do; the counter and the events are shared with who began it."""

    port: int
    rate: float
    streams: int
    seconds: float
    counter: "Synchronized[int]"
    streaming: "Synchronized[int]"
    over: Event


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def callers(duty: Duty, found: "Queue[Seen]") -> None:
    """A process of callers, until it is over and its streams have ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen = Seen()
    asyncio.run(_call_all(duty, seen))
    found.put(seen)


async def _call_all(duty: Duty, seen: Seen) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(duty.streams):
            group.create_task(_follow(duty, seen))
        for number in range(CALLERS):
            group.create_task(_call(duty, seen, keep=number % 2 == 0, place=number / CALLERS))


async def _call(duty: Duty, seen: Seen, *, keep: bool, place: float) -> None:
    """Ask at a steady rate, on one connection or each time on a new one."""
    kept: Streams | None = None
    interval = CALLERS / duty.rate
    due = time.monotonic() + place * interval
    while not duty.over.is_set():
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due = max(due + interval, time.monotonic() - 1.0)
        kept = await _ask(duty, seen, kept, keep=keep)
    if kept is not None:
        kept[1].close()


async def _ask(duty: Duty, seen: Seen, kept: Streams | None, *, keep: bool) -> Streams | None:
    """One request; returns the connection where it can be used again."""
    if kept is not None and kept[0].at_eof():
        kept[1].close()
        kept = None
    streams, again = kept, False
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            streams = streams or await asyncio.open_connection("127.0.0.1", duty.port)
            model, again = await _answer(*streams)
    except (OSError, EOFError, ValueError) as error:
        seen.failed[type(error).__name__ if not isinstance(error, ValueError) else str(error)] += 1
    else:
        seen.models.add(model)
        seen.milliseconds.append((time.perf_counter() - begin) * 1000)
    with duty.counter.get_lock():
        duty.counter.value += 1
    if streams is not None and not (keep and again):
        streams[1].close()
        return None
    return streams


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
    """The number of the model that answered, and whether the connection stays. Raises ValueError for another answer."""
    writer.write(REQUEST)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    if not head.startswith(b"http/1.1 200"):
        raise ValueError(f"status {head[9:12].decode(errors='replace')}")
    return int(json.loads(body)["model"]), b"connection: close" not in head


async def _follow(duty: Duty, seen: Seen) -> None:
    """Follow one stream to its end: every event must come, in order."""
    came = b""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", duty.port)
        writer.write(
            f"GET /stream?seconds={duty.seconds:g} HTTP/1.1\r\nhost: toys\r\nconnection: close\r\n\r\n".encode()
        )
        while piece := await reader.read(4096):
            if b"data: 0\n" in came + piece and b"data: 0\n" not in came:
                with duty.streaming.get_lock():
                    duty.streaming.value += 1
            came += piece
        writer.close()
    events = re.findall(rb"data: (\w+)\n", came)
    wanted = [*(str(number).encode() for number in range(int(duty.seconds * 2))), b"end"]
    seen.streams.append("whole" if events == wanted else f"broke after {len(events)} of {len(wanted)} events")


# --- who serves ----------------------------------------------------------------------------------------------------


class Contender(ABC):
    """A way to serve the model and to replace it. `name` is for the table."""

    name: str

    def __init__(self, place: Path, drain: float) -> None:
        self.port = free_port()
        self.folder = place / "server"
        self.drain = drain
        self.variables = environment(place / "home", PORT=str(self.port))
        self.variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.variables['PATH']}"

    @abstractmethod
    def start(self) -> None:
        """Have model 0 serve."""

    @abstractmethod
    def deploy(self, number: int) -> None:
        """Have another model serve; returns when it does."""

    @abstractmethod
    def stop(self) -> None:
        """End all of it."""

    def train(self, number: int) -> None:
        (self.folder / "number.txt").write_text(str(number))
        run((sys.executable, "train.py"), self.folder, self.variables)


class Penstock(Contender):
    """Each deploy is a commit that `penstock run` takes to production."""

    name = "penstock run"

    def start(self) -> None:
        drain = f"{self.drain:.0f}s"
        file = PIPELINE.replace("PORT_OF_IT", str(self.port)).replace("DRAIN_OF_IT", drain)
        files = {"app.py": APP, "train.py": TRAIN, "number.txt": "0", "penstock.yaml": file}
        repository(self.folder, files)
        self._run()

    def deploy(self, number: int) -> None:
        (self.folder / "number.txt").write_text(str(number))
        run(("git", "commit", "-qam", f"model {number}"), self.folder, self.variables)
        self._run()

    def _run(self) -> None:
        run((*PENSTOCK, "run"), self.folder, self.variables)

    def stop(self) -> None:
        run((*PENSTOCK, "stop"), self.folder, self.variables)


class ByHand(Contender):
    """The server is stopped, the model replaced, the server started."""

    name = "stop and start"

    def start(self) -> None:
        lay_out(self.folder, {"app.py": APP, "train.py": TRAIN})
        self.train(0)
        self._begin()

    def _begin(self) -> None:
        command = [sys.executable, *UVICORN.replace("$PORT", str(self.port)).split()[1:]]
        self._process = subprocess.Popen(command, cwd=self.folder, env=self.variables, stderr=subprocess.DEVNULL)
        until(lambda: answering(self.port) is not None)

    def deploy(self, number: int) -> None:
        self.train(number)
        self.stop()
        self._begin()

    def stop(self) -> None:
        end(self._process)


class Reload(Contender):
    """gunicorn with one worker of its asgi class, reloaded by HUP: a new worker starts, the old one finishes."""

    name = "gunicorn, HUP"

    def start(self) -> None:
        lay_out(self.folder, {"app.py": APP, "train.py": TRAIN})
        self.train(0)
        grace = ("--graceful-timeout", f"{self.drain:.0f}", "--timeout", "0", "--log-level", "critical")
        bound = ("--bind", f"127.0.0.1:{self.port}", "--workers", "1", "--worker-class", "asgi")
        command = (program("gunicorn"), *bound, *grace, "app:app")
        self._process = subprocess.Popen(command, cwd=self.folder, env=self.variables, stderr=subprocess.DEVNULL)
        until(lambda: answering(self.port) is not None)

    def deploy(self, number: int) -> None:
        self.train(number)
        self._process.send_signal(signal.SIGHUP)
        until(lambda: all(answering(self.port) == number for _ in range(5)), self.drain + 60)

    def stop(self) -> None:
        end(self._process)


CONTENDERS: tuple[type[Contender], ...] = (Penstock, ByHand, Reload)


def end(process: "subprocess.Popen[bytes]") -> None:
    """TERM, and KILL where that does not do."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answering(port: int) -> int | None:
    """The number of the model that answers now; None where none does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/predict", data=FEATURES, timeout=PATIENCE) as answer:
            return int(json.load(answer)["model"])
    except OSError:
        return None


def free_port() -> int:
    """A port on which nothing listens, below those that the kernel gives to connections."""
    while True:
        port = random.SystemRandom().randint(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds:g} s in vain"
        time.sleep(0.02)


# --- measuring -----------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """What one contender did: seconds of its deploys, seconds of all, and what the callers saw."""

    name: str
    deploys: list[float]
    seconds: float
    seen: Seen

    @property
    def requests(self) -> int:
        return len(self.seen.milliseconds) + self.seen.failed.total()

    @property
    def broken(self) -> int:
        return sum(stream != "whole" for stream in self.seen.streams)


def measured(contender: Contender, asked: argparse.Namespace) -> Figures:
    """Deploys spread over the requests, until there were enough of both."""
    contender.start()
    try:
        context = multiprocessing.get_context("spawn")
        return _under_load(contender, asked, context)
    finally:
        contender.stop()


def _under_load(contender: Contender, asked: argparse.Namespace, context: SpawnContext) -> Figures:
    counter, streaming = context.Value("i", 0), context.Value("i", 0)
    over, found = context.Event(), context.Queue()
    each = STREAMS // PROCESSES if asked.streams else 0
    duty = Duty(contender.port, asked.rate / PROCESSES, each, asked.streams, counter, streaming, over)
    processes = [context.Process(target=callers, args=(duty, found)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    begin = time.perf_counter()
    try:
        until(lambda: counter.value > 0 and streaming.value == each * PROCESSES)
        deploys = list(_deployed(contender, asked, counter))
        until(lambda: counter.value >= asked.requests, 3600)
    finally:
        over.set()
    seconds, seen = time.perf_counter() - begin, Seen()
    for _ in processes:
        seen.add(found.get(timeout=asked.streams + 2 * PATIENCE))
    for process in processes:
        process.join()
    return Figures(contender.name, deploys, seconds, seen)


def _deployed(contender: Contender, asked: argparse.Namespace, counter: "Synchronized[int]") -> Iterator[float]:
    """Each deploy when its part of the requests has been; yields how long it took."""
    for number in range(1, asked.deploys + 1):
        due = asked.requests * number // (asked.deploys + 1)
        until(lambda due=due: counter.value >= due, 3600)  # type: ignore[misc] # mypy cannot infer a lambda's default
        begin = time.perf_counter()
        contender.deploy(number)
        yield time.perf_counter() - begin
        if sys.stderr.isatty():
            print(f"\r{contender.name}: deploy {number} of {asked.deploys} ", end="", file=sys.stderr, flush=True)


def told(figures: Figures) -> None:
    """The figures of one contender, as lines."""
    seen = figures.seen
    times = sorted(seen.milliseconds) or [0.0]
    p50, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    print(f"\n{figures.name}: {len(figures.deploys)} deploys, {statistics.median(figures.deploys):.2f} s each (median)")
    rate = figures.requests / figures.seconds
    print(f"  {figures.requests:,} requests at {rate:.0f}/s, {seen.failed.total():,} failed; {len(seen.models)} models")
    for kind, count in seen.failed.most_common():
        print(f"    {count:,} {kind}")
    print(f"  p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {times[-1]:.0f} ms")
    for kind, count in Counter(seen.streams).items():
        print(f"  streams: {count} {kind}")


def main() -> int:
    """0 where Penstock failed nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deploys", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000, help="at least so many, for each contender")
    parser.add_argument("--streams", type=float, default=20.0, help="seconds that four streams last; 0: none")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second of all callers together")
    parser.add_argument("--only", help="penstock, stop or gunicorn")
    asked = parser.parse_args()
    chosen = [c for c in CONTENDERS if not asked.only or c.name.startswith(asked.only)]
    found = []
    for contender in chosen:
        with scratch() as place:
            try:
                found.append(measured(contender(place, asked.streams + 10), asked))
            except MissingError as error:
                print(f"{contender.name} left out: {error}", file=sys.stderr)
                continue
        told(found[-1])
    ours = [f for f in found if f.name == Penstock.name]
    return 1 if any(f.seen.failed.total() or f.broken for f in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
