"""Asks a served package its recorded requests and measures it: a program that a runner places, as it does any step.

It stands apart from the coordinator, so that nothing which that does meanwhile counts as the server's time. A first
pass over all requests warms the server up and finds out how much memory it takes; the passes after it are timed, and
nothing else is done during a request.
"""

import asyncio
import gc
import json
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.engine.exchanges import Connection
from penstock.errors import ReportError
from penstock.recordings import Outcome, Recording, Reply, judged, measured, parse_recordings, summary, told

LOOK = 0.02
"""Seconds between two looks at the server's memory."""
SILENT = 10
"""After so many requests in a row that nothing answered the others are not asked."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is to be measured: the requests of `file` at a `port`, `repeat` times after the first.

    `pid` is the process whose tree serves, None where its memory cannot be told. What was found is written to `result`.
    """

    file: str
    port: int
    tolerance: float
    repeat: int
    pid: int | None
    result: str

    @property
    def command(self) -> str:
        """The shell text that measures it."""
        return shlex.join([sys.executable, "-P", "-m", __name__, json.dumps(asdict(self))])


def main(arguments: Sequence[str]) -> int:
    """Measure, tell the log what was wrong, and leave the result; 1 where the file holds no requests."""
    wanted = Measurement(**json.loads(arguments[0]))
    try:
        recordings = parse_recordings(Path(wanted.file).read_bytes(), wanted.file)
    except ReportError as error:
        _say(str(error))
        _leave(wanted, {"fault": str(error)})
        return 1
    gc.freeze()  # the requests stay; to look through them again and again would take some answers' time
    replay = Replay(recordings, wanted)
    asyncio.run(replay.play())
    metrics = measured(replay.outcomes, [1000 * s for s in replay.seconds], replay.mib)
    _report(replay, metrics)
    _leave(wanted, {"metrics": metrics, "note": replay.note})
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _leave(wanted: Measurement, found: Any) -> None:
    Path(wanted.result).write_text(json.dumps(found), encoding="utf-8")


def _report(replay: "Replay", metrics: dict[str, float]) -> None:
    times = replay.wanted.repeat + 1
    _say(f"{len(replay.outcomes)} recorded requests, each asked {times} times, the first time to warm up")
    for line in told(replay.outcomes):
        _say(line)
    for name, value in metrics.items():
        _say(f"{name} {value:.6g}")
    if replay.note:
        _say(replay.note)


class Replay:
    """Recorded requests that are asked, and what came of them: outcomes in their order, seconds of timed answers."""

    def __init__(self, recordings: Sequence[Recording], wanted: Measurement) -> None:
        self.wanted = wanted
        self.outcomes: list[Outcome] = [Outcome(recording) for recording in recordings]
        self.seconds: list[float] = []
        self._silent = 0
        self._memory = Memory(wanted.pid)

    async def play(self) -> None:
        """Ask all of them, once to warm up and then as often as wanted."""
        async with Connection(self.wanted.port) as connection:
            async with self._memory.watched():
                await self._all(connection)
            for _ in range(self.wanted.repeat):
                self.seconds += await self._all(connection)
                self._memory.look()

    async def _all(self, connection: Connection) -> list[float]:
        """Ask each once; the seconds that those took which were answered."""
        seconds = []
        for place, known in enumerate(self.outcomes):
            reply, took = await self._ask(connection, known.recording)
            self.outcomes[place] = known.joined(judged(known.recording, reply, self.wanted.tolerance))
            if reply.status is not None:
                seconds.append(took)
        return seconds

    async def _ask(self, connection: Connection, recording: Recording) -> tuple[Reply, float]:
        if self._silent >= SILENT:
            return Reply(None, fault=f"not asked: nothing answered the {SILENT} requests before"), 0.0
        reply, took = await connection.ask(recording)
        self._silent = 0 if reply.status is not None else self._silent + 1
        return reply, took

    @property
    def mib(self) -> float | None:
        """MiB that the server took at most; None where that could not be told."""
        return None if self._memory.most is None else self._memory.most / (1 << 20)

    @property
    def note(self) -> str | None:
        """What there is to say for people."""
        unmeasured = "memory is not measured in a container" if self.wanted.pid is None else "memory could not be read"
        words = [summary(self.outcomes), unmeasured if self.mib is None else None]
        return "; ".join(filter(None, words)) or None


# --- memory --------------------------------------------------------------------------------------------------------


class Memory:
    """How much memory a tree of processes took at most, as far as it was looked at; `most` is in bytes."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.most: int | None = None

    def look(self) -> None:
        """Take notice of what it takes now."""
        found = None if self._pid is None else taken(self._pid)
        if found is not None:
            self.most = max(self.most or 0, found)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look again and again meanwhile, beside what goes on, and once at the end."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self.look()

    async def _watch(self) -> None:
        while self._pid is not None:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK)


def taken(pid: int) -> int | None:
    """Bytes that a process takes with all that descend from it; None where nothing tells.

    What processes share by forking is counted once, and mapped files (programs, libraries, a mapped model) as of the
    process that holds most of them. So it does not depend on who else on the machine maps the same files.
    """
    import psutil  # noqa: PLC0415 (not where memory is not measured)

    try:
        first = psutil.Process(pid)
        pids = [first.pid, *(child.pid for child in first.children(recursive=True))]
    except psutil.Error:
        return None
    found = [held for held in map(_held, pids) if held is not None]
    return sum(own for own, _ in found) + max(mapped for _, mapped in found) if found else None


def _held(pid: int) -> tuple[int, int] | None:
    """A process's part of its own memory, and the files that it has mapped and read, in bytes."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    rows = [line.split() for line in text.splitlines()]
    sizes = {row[0]: int(row[1]) << 10 for row in rows if len(row) == 3 and row[2] == "kB"}
    if "Rss:" not in sizes:
        return None
    anonymous = sizes.get("Anonymous:", sizes["Rss:"])
    return sizes.get("Pss_Anon:", anonymous), sizes["Rss:"] - anonymous


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
