"""What tests of real processes share: a bell that they ring, their output, and a starter that is killed."""

import asyncio
import json
import os
import select
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.runners.containment import SESSION, Containment
from penstock.runners.process import MASKER, ProcessRunner

PATIENCE = 30.0


class Bell:
    """A named pipe that processes ring with a line of text, so that tests wait for events and not for time."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._heard = b""

    def line(self) -> str:
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._descriptor], [], [], PATIENCE)
            assert ready, "nobody rang"
            self._heard += os.read(self._descriptor, 4096)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def pid(self) -> int:
        return int(self.line())

    def ring(self, times: int = 1) -> None:
        os.write(self._descriptor, b"\n" * times)

    def close(self) -> None:
        os.close(self._descriptor)


def run(runner: ProcessRunner, spec: ProcessSpec) -> tuple[int | None, str]:
    """The exit code and the output of a process, from start to end."""
    handle = runner.start(spec)
    end = asyncio.run(runner.wait(handle))
    return end.exit_code, output(handle, end)


def output(handle: Handle, end: Ending) -> str:
    return Path(handle.log).read_bytes()[handle.log_start : end.log_end].decode()


def gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(") ")[2][0] in "ZX"


def stop(runner: ProcessRunner, handle: Handle, grace: float = 5) -> Ending:
    async def both() -> Ending:
        await runner.end(handle, grace)
        return await runner.wait(handle)

    return asyncio.run(both())


STARTER = """
import json, os, sys
from dataclasses import asdict
from pathlib import Path
from penstock.engine.contracts import ProcessSpec
from penstock.runners.containment import Containment
from penstock.runners.process import ProcessRunner
values = json.loads(sys.argv[1])
values |= {key: Path(values[key]) for key in ("workspace", "log", "record", "folder")}
way = json.loads(sys.argv[2])
way |= {"prefix": tuple(way["prefix"]), "base": way["base"] and Path(way["base"])}
masker = json.loads(sys.argv[3])
values["secrets"] = tuple(values["secrets"])
runner = ProcessRunner(lambda: Containment(**way), masker=masker)
print(json.dumps(asdict(runner.start(ProcessSpec(**values)))), flush=True)
os.read(0, 1)
"""


def start_elsewhere(spec: ProcessSpec, way: Containment = SESSION, masker: tuple[str, ...] = MASKER) -> Handle:
    """Have another interpreter start the process, and kill that interpreter with -9."""
    values = [json.dumps(asdict(value), default=str) for value in (spec, way)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, *values, json.dumps(masker)], stdin=pipe, stdout=pipe
    ) as starter:
        assert starter.stdout is not None
        handle = Handle(**json.loads(starter.stdout.readline()))
        starter.kill()
    return handle


def children() -> set[int]:
    """Our children, zombies too: what a test leaves is what it finds at its end and not at its beginning."""
    return {child.pid for child in psutil.Process().children()}
