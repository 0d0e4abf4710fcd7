"""Executing one step: its process from intent to ending, and what is made of it.

The order is always the same, so that a death at any point leaves a state from which the next coordinator goes on:
intent recorded, workspace laid out, process started, start recorded, ending read, result recorded.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.engine import logfiles
from penstock.engine.context import RunContext
from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.errors import EngineError
from penstock.pipelines import Step
from penstock.runs import AttemptStatus, EndReason, StepStatus
from penstock.store.contract import Attempt

SOON = 0.05
"""Seconds after which a process that still lives has its handle recorded; one that ended sooner never needs it."""

LEAST_FREE = 256 << 20
"""Bytes of a large disk that must be free before an attempt begins; of a small one a twentieth."""

Prepare = Callable[[Attempt, Path], Awaitable[ProcessSpec]]


@dataclass(frozen=True, slots=True)
class Done:
    """How a step's process ended. `workspace` is what it left behind."""

    attempt: Attempt
    reason: EndReason
    exit_code: int | None
    log_end: int | None
    workspace: Path

    @property
    def succeeded(self) -> bool:
        return self.reason is EndReason.EXIT and self.exit_code == 0

    @property
    def untold(self) -> bool:
        """Whether nobody can tell how the command fared: an error and no failure."""
        return self.reason in {EndReason.LOST, EndReason.INFRASTRUCTURE}


class Execution:
    """The processes of one run."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._world = context.world
        self._unrecorded: dict[str, tuple[Attempt, Handle]] = {}
        self._started: dict[str, Attempt] = {}
        self._homes: set[str] = set()

    def open_attempt(self, step: str) -> Attempt | None:
        """The attempt of a step that was begun and has not ended, from an earlier coordinator."""
        attempts = self._world.store.runs.attempts(self._context.run.id, step)
        return attempts[-1] if attempts and attempts[-1].status is not AttemptStatus.ENDED else None

    async def place(
        self,
        step: str,
        prepare: Prepare,
        timeout: float | None,
        start: Mapping[str, Any] | None = None,
        gpus: tuple[int, ...] = (),
    ) -> Done:
        """Run a step's process to its end, or go on with the one that an earlier coordinator placed.

        `start` are the columns that change as a queued step starts. The attempt stays open in the store: the caller
        ends it in the same transaction as the step. Errors of `prepare` and of the runner are raised after the attempt
        was ended as infrastructure.
        """
        attempt, handle = await self._begin(step, prepare, start or {}, gpus)
        self._context.live[step] = handle
        try:
            reason, ending = await self._until_end(attempt, handle, timeout)
            if ending.log_end - handle.log_start > self._world.log_limit:
                await asyncio.to_thread(logfiles.cap, Path(handle.log), handle.log_start, self._world.log_limit)
        finally:
            self._context.live.pop(step, None)
        self._world.crash("process.end:after_effect")
        return Done(attempt, reason, ending.exit_code, ending.log_end, Path(attempt.detail["workspace"]))

    async def _begin(
        self, step: str, prepare: Prepare, start: Mapping[str, Any], gpus: tuple[int, ...]
    ) -> tuple[Attempt, Handle]:
        """The step's live process: the one found again, else a new one."""
        found = self._adopt(step)
        if found is not None:
            self._context.slots.add(int(found[0].detail["slot"]))
            return found
        _refuse_full_disk(self._context.folder)
        slot = self._context.claim_slot()
        attempt = self._intend(step, slot, start, gpus)
        try:
            spec = await prepare(attempt, Path(attempt.detail["workspace"]))
            self._world.crash("workspace.lay_out:after_effect")
            handle = self._world.runner.start(spec)
            self._world.crash("process.start:after_effect")
        except BaseException:
            with self._world.store.transaction():
                self._world.store.runs.end_attempt(attempt, EndReason.INFRASTRUCTURE, None, None)
            self._context.slots.discard(slot)
            raise
        self._unrecorded[attempt.id] = (attempt, handle)
        asyncio.get_running_loop().call_later(SOON, self._record_start, attempt.id)
        return attempt, handle

    def _intend(self, step: str, slot: int, start: Mapping[str, Any], gpus: tuple[int, ...]) -> Attempt:
        """The step starts and its attempt is intended, in one transaction."""
        folder = self._context.folder
        detail = {
            "slot": slot,
            "log": f"{folder}/{slot}.log",
            "record": f"{folder}/{slot}.record",
            "workspace": f"{folder}/work/{slot}",
            "began": self._world.clock.monotonic(),  # a timeout goes by a clock that nobody sets
            **({"gpus": list(gpus)} if gpus else {}),
        }
        with self._world.store.transaction():
            if self._context.step(step).status is StepStatus.QUEUED:
                self._context.move(step, "start", **start)
            number = self._context.count_attempt(step)
            return self._world.store.runs.begin_attempt(self._context.run.id, step, detail, number)

    def _record_start(self, attempt: str) -> None:
        """Remember the handle of a process that lives a while; until then `find` would lead back to it.

        One that has ended is recorded with its end, and one that we left by whoever finds it.
        """
        found = self._unrecorded.get(attempt)
        if found is not None and self._context.live.get(found[0].step) == found[1]:
            del self._unrecorded[attempt]
            with self._world.store.transaction():
                self._started[attempt] = self._world.store.runs.attempt_started(found[0], _values(found[1]))
            self._world.crash("process.start:after_recorded")

    def _adopt(self, step: str) -> tuple[Attempt, Handle] | None:
        """The process of an open attempt; an attempt whose process never started is ended as infrastructure."""
        if not self._context.attempts.get(step):
            return None
        attempt = self.open_attempt(step)
        if attempt is None:
            return None
        runs = self._world.store.runs
        if attempt.handle is not None:
            return attempt, Handle(**attempt.handle)
        handle = self._world.runner.find(attempt.id, Path(attempt.detail["record"]))
        with self._world.store.transaction():
            if handle is None:
                runs.end_attempt(attempt, EndReason.INFRASTRUCTURE, None, None)
                return None
            return runs.attempt_started(attempt, _values(handle)), handle

    async def _until_end(self, attempt: Attempt, handle: Handle, timeout: float | None) -> tuple[EndReason, Ending]:
        runner = self._world.runner
        if self._context.why_end(attempt.step) is not None:
            await runner.end(handle, self._world.grace)
        left = None
        if timeout is not None and runner.alive(handle):  # what ended while nobody watched did not time out
            left = max(0.0, attempt.detail["began"] + timeout - self._world.clock.monotonic())
        try:
            ending = await asyncio.wait_for(runner.wait(handle), left)
        except TimeoutError:
            await runner.end(handle, self._world.grace)
            return EndReason.TIMEOUT, await runner.wait(handle)
        why = self._context.why_end(attempt.step)
        if why is not None:
            return EndReason(why), ending
        if ending.oom:
            return EndReason.OOM, ending
        if ending.unplaced:
            return EndReason.INFRASTRUCTURE, ending
        return (EndReason.LOST if ending.lost else EndReason.EXIT), ending

    def spec(
        self, attempt: Attempt, workspace: Path, command: str, variables: Mapping[str, str], step: Step | None = None
    ) -> ProcessSpec:
        """The process of an attempt in its slot's log and record; its HOME exists.

        A `step` of the file says which shell it is, under which limits, and what must not reach its log.
        """
        if variables["HOME"] not in self._homes:
            Path(variables["HOME"]).mkdir(parents=True, exist_ok=True)
            self._homes.add(variables["HOME"])
        return ProcessSpec(
            id=attempt.id,
            command=command,
            workspace=workspace,
            variables=variables,
            log=Path(attempt.detail["log"]),
            record=Path(attempt.detail["record"]),
            shell=step.shell if step else "sh",
            contain=self._world.contain,
            memory=step.resources.memory if step else None,
            open_files=step.resources.open_files if step else None,
            secrets=step.secrets if step else (),
        )

    def finish(self, done: Done, event: str, **values: Any) -> None:
        """End the attempt and move its step, in the caller's transaction."""
        self.end(done)
        self._context.move(done.attempt.step, event, **values)

    def end(self, done: Done) -> None:
        """End the attempt, in the caller's transaction; its step may have another one."""
        number = done.attempt.id
        _, handle = self._unrecorded.pop(number, (None, None))
        attempt = self._started.pop(number, done.attempt)
        started = None if handle is None else _values(handle)
        self._world.store.runs.end_attempt(attempt, done.reason, done.exit_code, done.log_end, started)
        self._context.slots.discard(int(done.attempt.detail["slot"]))

    def stopped(self, done: Done) -> bool:
        """Record the end of a process that was ended on request; False where it ended by itself."""
        events = {EndReason.CANCELED: "cancel", EndReason.INTERRUPTED: "interrupt", EndReason.SUPERSEDED: "cancel"}
        event = events.get(done.reason)
        if event is None:
            return False
        reason = self._context.ending.get(done.attempt.step, f"{done.reason} while it ran")
        with self._world.store.transaction():
            self.finish(done, event, reason=reason)
        return True


def _refuse_full_disk(folder: Path) -> None:
    """Nothing new begins on a disk that is as good as full. Raises EngineError."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < min(disk.f_blocks * disk.f_frsize // 20, LEAST_FREE):
        left = disk.f_bavail * disk.f_frsize >> 20
        raise EngineError(f"not started, for the disk is as good as full ({left} MiB left): penstock gc, or make room")


def _values(handle: Handle) -> dict[str, Any]:
    """A handle as plain values; `dataclasses.asdict` takes ten times as long, at every step."""
    return {name: getattr(handle, name) for name in Handle.__slots__}


def end_sentence(done: Done, timeout: float | None) -> str:
    """Why a step's process that did not succeed ended, in words."""
    return ending_words(done.reason, done.exit_code, timeout)


def ending_words(reason: EndReason, exit_code: int | None, timeout: float | None) -> str:
    """Why a process that did not succeed ended, in words."""
    if reason is EndReason.TIMEOUT:
        return f"took longer than its timeout of {timeout:g} s"
    if reason is EndReason.OOM:
        return "ran out of memory"
    if reason is EndReason.INFRASTRUCTURE:
        return "its container could not be run (the log says why)"
    if reason is EndReason.LOST:
        return "its process vanished without an exit record (killed from outside, or the machine went down)"
    if exit_code is not None and exit_code < 0:
        return f"was killed by signal {-exit_code}"
    return f"exit code {exit_code}"
