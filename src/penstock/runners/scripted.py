"""A runner that places nothing: processes behave as a script says, in memory, at once.

For tests of what stands on the `Runner` contract, and for trying out a pipeline without executing it. One object is
one machine: it outlives the coordinators that are given it, as real processes would.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.errors import NotFoundError
from penstock.runners import shim


@dataclass(frozen=True, slots=True)
class Act:
    """What a process does: writes `output` to its log and `files` into its workspace, then ends, or never does.

    `exit_code` None means that it is lost. `files` are texts by path. `oom` says that its memory limit ended it.
    One that lives some `seconds` (of the event loop in which it was started) writes and ends after these. One that is
    `deaf` to TERM ends only by KILL, after the grace.
    """

    exit_code: int | None = 0
    ends: bool = True
    output: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    oom: bool = False
    seconds: float = 0.0
    deaf: bool = False


NEVER = Act(ends=False)
LOST = Act(exit_code=None)


@dataclass(slots=True)
class _Process:
    spec: ProcessSpec
    handle: Handle
    act: Act
    starts: int = 1
    last_exit: int | None = None
    ending: Ending | None = None
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)


class ScriptedRunner:
    """The `Runner` contract in memory.

    The script is asked for the process's id, then for the first of its keys that is part of the command; an exit code
    stands for an `Act` that does nothing else. What it does not name ends with 0, and a kept process never ends.
    """

    def __init__(self, script: Mapping[str, Act | int] | None = None) -> None:
        self.script: dict[str, Act | int] = dict(script or {})
        self._processes: dict[str, _Process] = {}
        self._arrivals: list[asyncio.Future[None]] = []

    @property
    def started(self) -> tuple[ProcessSpec, ...]:
        """Every process so far, in the order of their starts."""
        return tuple(process.spec for process in self._processes.values())

    def start(self, spec: ProcessSpec) -> Handle:
        """Play the process. Raises EngineError for the same specs as a real runner."""
        shim.check(spec)
        spec.log.touch()
        placed = shim.place(spec, spec.log.stat().st_size)
        handle = Handle(
            id=spec.id,
            pid=len(self._processes) + 1,
            start_time=1,
            boot_id="scripted",
            log=placed.log,
            log_start=placed.log_start,
            record=str(spec.record.absolute()),
            kept=placed.kept,
            folder=placed.folder,
        )
        act = self._act(spec)
        process = self._processes[spec.id] = _Process(spec, handle, act)
        _wake(self._arrivals)
        if act.seconds:
            asyncio.get_running_loop().call_later(act.seconds, self._play, process)
        else:
            self._play(process)
        return handle

    def find(self, spec_id: str, record: Path) -> Handle | None:
        """The handle of a process that was started with this record, ended or not."""
        process = self._processes.get(spec_id)
        return process.handle if process and process.handle.record == str(record.absolute()) else None

    def alive(self, handle: Handle) -> bool:
        """Whether it was started here and has not ended."""
        process = self._processes.get(handle.id)
        return process is not None and process.handle == handle and process.ending is None

    def starts(self, handle: Handle) -> int:
        """How often it was started: 1, and one more for each `crash`."""
        return self._process(handle.id).starts

    def last_exit(self, handle: Handle) -> int | None:
        """The exit code of the start that ended last, or None before the first."""
        return self._process(handle.id).last_exit

    async def wait(self, handle: Handle) -> Ending:
        """Wait until the script, `finish` or `end` has ended it; one that is unknown here is lost."""
        process = self._processes.get(handle.id)
        if process is None or process.handle != handle:
            return Ending(None, handle.log_start)
        while process.ending is None:
            await _turn(process.waiters)
        return process.ending

    async def end(self, handle: Handle, grace: float) -> None:
        """End it as a TERM would, with exit code -15; one that is deaf is killed after the grace, with -9."""
        shim.ask_to_stop(handle.folder)
        process = self._processes.get(handle.id)
        if process is None or process.handle != handle:
            return
        if process.act.deaf and process.ending is None:
            await asyncio.sleep(grace)
        self._close(process, -9 if process.act.deaf else -15)

    # --- the strings of the puppets -------------------------------------------------------------------------------

    async def arrival(self, spec_id: str) -> ProcessSpec:
        """Wait until a process with this id was started, and say what it was started with."""
        while spec_id not in self._processes:
            await _turn(self._arrivals)
        return self._processes[spec_id].spec

    async def finish(self, spec_id: str, code: int | None = 0, output: str = "") -> None:
        """End a process that the script lets run, once it was started; code None loses it."""
        await self.arrival(spec_id)
        process = self._process(spec_id)
        _write(process, Act(output=output))
        self._close(process, code)

    def crash(self, spec_id: str, code: int) -> None:
        """End one start of a kept process with this code; its shim starts it again."""
        process = self._process(spec_id)
        process.last_exit = code
        process.starts += 1

    def _process(self, spec_id: str) -> _Process:
        try:
            return self._processes[spec_id]
        except KeyError:
            raise NotFoundError(f"no process {spec_id} was started here: start it first") from None

    def _act(self, spec: ProcessSpec) -> Act:
        part = next((key for key in self.script if key in spec.command), None)
        act = self.script.get(spec.id, self.script[part] if part is not None else Act(ends=not spec.kept))
        return Act(exit_code=act) if isinstance(act, int) else act

    def _play(self, process: _Process) -> None:
        act = process.act
        if process.ending is not None:
            return
        _write(process, act)
        if act.ends:
            self._close(process, act.exit_code, oom=act.oom)

    def _close(self, process: _Process, code: int | None, *, oom: bool = False) -> None:
        if process.ending is None:
            process.last_exit = code
            process.ending = Ending(code, process.spec.log.stat().st_size, oom=oom)
            _wake(process.waiters)


def _write(process: _Process, act: Act) -> None:
    with process.spec.log.open("a") as log:
        log.write(act.output)
    for path, text in act.files.items():
        file = process.spec.workspace / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


async def _turn(waiters: "list[asyncio.Future[None]]") -> None:
    """Wait for the next `_wake`. A future per call, so that a runner may outlive an event loop."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.append(turn)
    try:
        await turn
    finally:
        if turn in waiters:
            waiters.remove(turn)


def _wake(waiters: "list[asyncio.Future[None]]") -> None:
    for turn in waiters:
        if not turn.done():
            turn.set_result(None)
    waiters.clear()
