"""Commands without their start-up: one process that has imported everything forks for each of them.

Each command is a process of its own in a session of its own, and can be killed like any other; what is saved are the
imports, which take nine tenths of a short command. A command may be given a fault, which it does to itself or to what
it started when it passes a crash point.
"""

import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import penstock.cli.main
import penstock.cli.wiring

HUNT = 3.0
"""Seconds that a fault looks for something to kill."""

MARK = b"\0PENSTOCK_PROCESS="

READY = (
    "penstock.cli.answers",
    "penstock.cli.delivering",
    "penstock.cli.following",
    "penstock.cli.running",
    "penstock.engine.coordinator",
    "penstock.routers.envoy",
    "penstock.runners.process",
    "penstock.runtimes.uv",
    "penstock.sources.git",
    "penstock.store.secrets",
    "penstock.store.sql",
)
"""What the forks have without importing it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What to kill at which passing of a crash point: coordinator, shim or step; `record` only writes down the points.

    Without a `point` every passing counts. `file` is told what was killed, and when.
    """

    kind: str
    file: str
    point: str | None = None
    number: int = 1
    seed: int = 0


class Forked:
    """A command that was forked; the part of `subprocess.Popen` that tests use."""

    def __init__(self, forks: "Forks", pid: int) -> None:
        self.pid = pid
        self._forks = forks
        self._descriptor = os.pidfd_open(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code (minus the signal) where it has ended."""
        return self._ended(0)

    def wait(self, timeout: float) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._code is None:
                signal.pidfd_send_signal(self._descriptor, number)

    def _ended(self, timeout: float) -> int | None:
        if self._code is None and select.select([self._descriptor], [], [], timeout)[0]:
            self._code = int(self._forks.ask({"wait": self.pid}))
            os.close(self._descriptor)
        return self._code


class Forks:
    """The process that forks; to be used in a `with`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
        )

    def start(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: tuple[Path, Path],
        fault: Fault | None = None,
    ) -> Forked:
        """Type a command in a folder; stdout and stderr go to files."""
        wanted = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "streams": [str(stream) for stream in streams],
            "fault": None if fault is None else asdict(fault),
        }
        return Forked(self, int(self.ask(wanted)))

    def ask(self, wanted: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# --- the other side -----------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a command for each line that asks for one, and tell exit codes; until the end of the input."""
    for name in READY:
        importlib.import_module(name)
    for line in sys.stdin.buffer:
        wanted = json.loads(line)
        if "wait" in wanted:
            _, status = os.waitpid(wanted["wait"], 0)
            _tell(os.waitstatus_to_exitcode(status))
        elif pid := os.fork():
            _tell(pid)
        else:
            os._exit(_become(wanted))


def _tell(answer: int) -> None:
    os.write(1, f"{answer}\n".encode())


def _become(wanted: Mapping[str, Any]) -> int:
    """Be the command, in the child; returns its exit code."""
    os.setsid()
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(wanted["streams"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    if wanted["fault"] is not None:
        crash = _Crash(Fault(**wanted["fault"]), wanted["environment"]["PENSTOCK_HOME"])
        setattr(penstock.cli.wiring, "crasher", lambda _wanted: crash)  # noqa: B010 - mypy minds a method put anew
    code = penstock.cli.main.execute(wanted["arguments"])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return code


class _Crash:
    """Told of every crash point that the command passes."""

    def __init__(self, fault: Fault, home: str) -> None:
        self._fault = fault
        self._home = home
        self._left = fault.number
        self._dice = random.Random(fault.seed)  # noqa: S311 - a seeded order, no secret

    def __call__(self, point: str) -> None:
        if self._fault.kind == "record":
            self._note(point)
            return
        self._left -= self._fault.point in {None, point}
        if self._left == 0 and self._fault.point in {None, point}:
            if self._fault.kind == "coordinator":
                self._note(f"coordinator {point} {os.getpid()} {time.time()}")
                os.kill(os.getpid(), signal.SIGKILL)
            elif not self._hunted(point):
                threading.Thread(target=self._hunt, args=(point,), daemon=True).start()

    def _hunt(self, point: str) -> None:
        until = time.monotonic() + HUNT
        while time.monotonic() < until and not self._hunted(point):
            time.sleep(0.002)

    def _hunted(self, point: str) -> bool:
        """Kill one process of the wanted kind; False where there is none."""
        found = [(pid, name) for pid, name, leads in placed(self._home) if leads is (self._fault.kind == "shim")]
        if not found:
            return False
        pid, name = self._dice.choice(sorted(found))
        self._note(f"{self._fault.kind} {name} {pid} {time.time()} {point}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def _note(self, line: str) -> None:
        descriptor = os.open(self._fault.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


def placed(home: str) -> Iterator[tuple[int, str, bool]]:
    """The living processes that runners placed for a home: number, the id they were placed by, whether it is a shim."""
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with suppress(OSError, ValueError):
                name, _, record = _mark(place).partition("@")
                stat = (place / "stat").read_bytes().rpartition(b") ")[2].split()
                if record.startswith(home) and stat[0] not in {b"Z", b"X"}:
                    yield int(place.name), name, stat[3] == place.name.encode()


def _mark(place: Path) -> str:
    """The value of the marker in a process's environment. Raises ValueError where there is none."""
    data = b"\0" + (place / "environ").read_bytes()
    begin = data.index(MARK) + len(MARK)
    return os.fsdecode(data[begin : data.index(b"\0", begin)])


if __name__ == "__main__":
    serve()
