"""Deployments that Penstock does not serve itself: commands of the user's own, and the verdict of a health URL.

Intent recorded, process started, start recorded, ending read, result recorded, as migrations are: a command that lives
is adopted, one that nobody can tell of runs again, and never before nothing of it lives any more. What is known of a
release's commands stands in its `rollout`, oldest first.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.engine.commanding import followed, judged
from penstock.engine.contracts import Handle, ProcessSpec
from penstock.engine.installing import (
    StoppedRollout,
    Stopping,
    install,
    last_line,
    manifest_of,
    package_folder,
    variables_of,
)
from penstock.engine.serving import HEALTH_TIMEOUT, image_of, in_image, runtime_variables
from penstock.engine.world import World
from penstock.errors import PenstockError
from penstock.releases import is_hooked
from penstock.runs import EndReason
from penstock.store.contract import Release

HEALTHY = 3
"""So many answers of 200 in a row make a deployment healthy."""
NEVER: Stopping = lambda: None  # noqa: E731 - what nobody stops


class HookError(PenstockError):
    """A deployment whose command or health URL says no, or a way back that did not pass."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One execution: recorded with `owner`, by the command and package of `of`; `other` is the release beside it.

    `to` is the release that a rollback leads to, where a person asked for it.
    """

    kind: str
    owner: int
    of: Release
    other: Release | None
    command: str
    generation: int
    why: str | None = None
    to: int | None = None


@dataclass(frozen=True, slots=True)
class Back:
    """A way back whose command passed: to which release, by which command's generation, and why."""

    target: Release
    generation: int
    why: str


class Hooks:
    """The deployments of a home by commands. The caller has the turn of the environment."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._releases = world.store.releases

    async def deploy(self, release: Release, previous: Release | None, stopping: Stopping, waiting: Stopping) -> None:
        """Run a release's command once, and have its health URL answer 200; `previous` is what was deployed before.

        `stopping` ends the command, `waiting` only the wait for health. A command that an earlier coordinator began is
        gone on with; one that failed for this release is not tried again. Raises HookError or StoppedRollout.
        """
        await self._take_over(release.id, stopping)
        back = self._last(release.id, "rollback")
        if back is not None:
            raise HookError(str(back["why"]))
        done = self._last(release.id, "run")
        if done is not None and done["status"] == "failed":
            raise self._failed(release.id, done)
        if done is None or done["status"] == "lost":
            self._releases.note(release.id, phase="deploying")
            command = str(release.spec["deploy"]["run"])
            await self._execute(_Wanted("run", release.id, release, previous, command, release.generation), stopping)
        await self._become_healthy(release, waiting)

    async def undo(self, release: Release, previous: Release | None, why: str) -> str:
        """Go back from what a release that is not to serve has begun; the reason, with what became of the way back.

        Nothing is done for one that has begun nothing, and what is on its way is ended before.
        """
        if not is_hooked(release.spec):
            return why
        with suppress(StoppedRollout):
            await self._take_over(release.id, lambda: why if self._is_deploying(release.id) else None)
        if self._last(release.id, "run") is None:
            return why
        back, command = self._last(release.id, "rollback"), release.spec["deploy"]["rollback"]
        if command is None:
            return f"{why}; its file names no rollback, so what it left stays"
        if back is None or back["status"] == "lost":
            wanted = _Wanted("rollback", release.id, release, previous, str(command), release.generation, why)
            self._releases.note(release.id, phase="rolling back")
            try:
                await self._execute(wanted, NEVER)
            except (PenstockError, OSError) as error:
                return f"{why}; {error}"
            back = self._last(release.id, "rollback")
        if back is not None and back["status"] == "failed":
            return f"{why}; {self._failed(release.id, back)}"
        return f"{why}; its rollback passed"

    async def roll_back(self, release: Release, target: Release, generation: int, why: str) -> None:
        """Go back from a release that serves to one that served before. Raises HookError; nothing is switched.

        By the rollback command of the release that serves; where its file names none, the target is deployed again.
        """
        await self._take_over(release.id, NEVER)
        command = release.spec.get("deploy", {}).get("rollback")
        of, other = (target, release) if command is None else (release, target)
        text = str(target.spec["deploy"]["run"] if command is None else command)
        self._releases.note(release.id, phase=f"rolling back to {target.version}")
        try:
            await self._execute(_Wanted("rollback", release.id, of, other, text, generation, why, target.id), NEVER)
            await self._arrive(release.id, target)
        finally:
            self._releases.note(release.id, phase=None)

    async def _arrive(self, owner: int, target: Release) -> None:
        """Where a way back leads to is healthy, or the way is recorded as failed. Raises HookError."""
        try:
            await self._become_healthy(target, NEVER, owner)
        except HookError as error:
            number = int((self._last(owner, "rollback") or {})["number"])
            with self._world.store.transaction(durable=True):
                self._note(owner, number, status="failed", reason=str(error))
            raise

    async def going_back(self, release: Release) -> Back | None:
        """The way back of a serving release that an earlier coordinator began and nobody finished.

        Returns once its command passed and its target is healthy; None where there is none, or it did not pass.
        """
        back = self._last(release.id, "rollback")
        if back is None or back["to"] is None or back["status"] not in {"running", "passed"}:
            return None
        target = self._releases.get(int(back["to"]))
        try:
            await self._take_over(release.id, NEVER)
            back = self._last(release.id, "rollback") or {}
            if back["status"] == "failed":
                raise self._failed(release.id, back)
            if back["status"] == "passed":
                await self._arrive(release.id, target)
                return Back(target, int(back["generation"]), str(back["why"]))
        except PenstockError as error:
            self._releases.note(release.id, phase=f"could not go back: {error}")
        return None

    async def end(self, release: Release) -> None:
        """End what lives of a release's commands."""
        with suppress(StoppedRollout, HookError):
            await self._take_over(release.id, lambda: "stopped")

    # --- what is known of the commands

    def _commands(self, release: int) -> list[dict[str, Any]]:
        return commands_of(self._releases.get(release))

    def _last(self, release: int, kind: str) -> dict[str, Any] | None:
        found = [c for c in self._commands(release) if c["kind"] == kind and c["status"] != "unstarted"]
        return found[-1] if found else None

    def _is_deploying(self, release: int) -> bool:
        return any(c["status"] == "running" and c["kind"] == "run" for c in self._commands(release))

    def _note(self, release: int, number: int, **values: Any) -> None:
        """What became of a command, in the caller's transaction."""
        commands = [{**c, **values} if c["number"] == number else c for c in self._commands(release)]
        rollout = {**(self._releases.get(release).rollout or {}), "commands": commands}
        self._releases.note(release, rollout=rollout)

    # --- one execution

    async def _take_over(self, release: int, stopping: Stopping) -> None:
        """See what runs for a release to its end, whoever began it; how it ended is recorded."""
        for command in self._commands(release):
            if command["status"] == "running":
                with suppress(HookError):
                    await self._watch(release, command, stopping)

    async def _execute(self, wanted: _Wanted, stopping: Stopping) -> None:
        world = self._world
        for one in (wanted.of, wanted.other):
            if one is not None:
                await asyncio.to_thread(install, world, one)
        if stopping() is not None:
            raise StoppedRollout
        command = self._intend(wanted)
        number = int(command["number"])
        try:
            handle = world.runner.start(self._spec(wanted, command))
        except (PenstockError, OSError) as error:
            with world.store.transaction():
                self._note(wanted.owner, number, status="unstarted", reason=str(error))
            raise
        world.crash("hook.start:after_effect")
        with world.store.transaction():
            self._note(wanted.owner, number, handle=asdict(handle))
        world.crash("hook.start:after_recorded")
        await self._watch(wanted.owner, {**command, "handle": asdict(handle)}, stopping)

    def _intend(self, wanted: _Wanted) -> dict[str, Any]:
        """Record the intent, fenced: a newer command that was there first keeps an older one out."""
        release = wanted.of
        with self._world.store.transaction(durable=True):
            if wanted.generation < self._releases.generation(release.project, release.environment):
                raise HookError("a newer release was there first")
            known = self._commands(wanted.owner)
            stem = self._world.home.release(wanted.owner) / f"deploy-{len(known) + 1}"
            command = {
                "number": len(known) + 1,
                "kind": wanted.kind,
                "status": "running",
                "reason": None,
                "log": f"{stem}.log",
                "record": f"{stem}.record",
                "handle": None,
                "timeout": float(release.spec["deploy"]["timeout"]),
                "began": self._world.clock.monotonic(),
                "at": self._world.clock.now(),
                "generation": wanted.generation,
                "why": wanted.why,
                "to": wanted.to,
            }
            rollout = {"strategy": "hook", **(self._releases.get(wanted.owner).rollout or {})}
            self._releases.note(wanted.owner, rollout={**rollout, "commands": [*known, command]})
            return command

    def _spec(self, wanted: _Wanted, command: Mapping[str, Any]) -> ProcessSpec:
        """In the package's folder, with its runtime and the environment's variables and secrets."""
        world, release, other = self._world, wanted.of, wanted.other
        manifest, folder = manifest_of(world, release), package_folder(world, release)
        variables = {
            **variables_of(world, release, manifest, own_image=False),
            "PENSTOCK_COMMIT": str(release.spec["commit"]),
            "PENSTOCK_PREVIOUS_VERSION": "" if other is None else other.version,
            "PENSTOCK_PREVIOUS_PACKAGE": "" if other is None else str(package_folder(world, other)),
        }
        spec = ProcessSpec(
            id=_process(wanted.owner, command),
            command=wanted.command,
            workspace=folder,
            variables=runtime_variables(world, manifest, folder, variables),
            log=Path(command["log"]),
            record=Path(command["record"]),
            contain=world.contain,
            secrets=tuple(release.spec.get("secrets", ())),
        )
        return in_image(spec, image_of(world, manifest))

    async def _watch(self, release: int, command: Mapping[str, Any], stopping: Stopping) -> None:
        """Follow a command to its end, recorded. Raises HookError or StoppedRollout where it did not pass."""
        world, number = self._world, int(command["number"])
        found = command["handle"]
        handle = Handle(**found) if found else world.runner.find(_process(release, command), Path(command["record"]))
        if handle is None:
            with world.store.transaction():
                self._note(release, number, status="unstarted", reason="it was never started")
            return
        timeout = float(command["timeout"])
        reason, ending = await followed(world, handle, float(command["began"]) + timeout, stopping)
        world.crash("hook.end:after_effect")
        event, words = judged(reason, ending, timeout)
        with world.store.transaction(durable=True):
            self._note(release, number, status=_STATUS[event], reason=words)
        if reason is EndReason.CANCELED:
            raise StoppedRollout
        if event != "pass":
            raise self._failed(release, {**command, "reason": words})

    def _failed(self, release: int, command: Mapping[str, Any]) -> HookError:
        found = self._releases.get(release)
        what = "its deploy command" if command["kind"] == "run" else "its rollback"
        where = f"penstock logs {found.run} deploy.{found.environment} shows it"
        return HookError(f"{what} did not pass ({command['reason']}): {where}{last_line(Path(command['log']))}")

    # --- health

    async def _become_healthy(self, release: Release, stopping: Stopping, told: int | None = None) -> None:
        """Ask the health URL until it answers 200 some times in a row; its time begins now.

        Raises HookError when that time is over, StoppedRollout. `told` is the release whose phase says so, else it.
        """
        clock, wanted = self._world.clock, release.spec["deploy"]
        self._releases.note(told or release.id, phase=f"waiting for {wanted['health']}")
        limit, healthy, last = clock.monotonic() + float(wanted["timeout"]), 0, "nothing"
        while healthy < HEALTHY:
            if stopping() is not None:
                raise StoppedRollout
            last = await asked(str(wanted["health"]))
            healthy = healthy + 1 if last == "200" else 0
            if healthy < HEALTHY and clock.monotonic() > limit:
                sentence = f"{wanted['health']} did not answer 200 {HEALTHY} times in a row within"
                raise HookError(f"{sentence} {wanted['timeout']:g} s: last it answered {last}")
            await asyncio.sleep(self._world.look if healthy < HEALTHY else 0)
        self._world.crash("hook.healthy:after_effect")


_STATUS: Mapping[str, str] = {"pass": "passed", "fail": "failed", "lose": "lost"}


def commands_of(release: Release) -> list[dict[str, Any]]:
    """What is known of the commands that deployed a release, or went back from it, oldest first."""
    return [dict(command) for command in (release.rollout or {}).get("commands", ())]


def _process(release: int, command: Mapping[str, Any]) -> str:
    """What the runner knows a command's process by."""
    return f"release-{release}/deploy.{command['number']}"


async def asked(url: str) -> str:
    """What one real GET request is answered, redirects not followed: the status, or why there is none, in words."""
    import httpx  # noqa: PLC0415 - takes a quarter of a second, and few deploy elsewhere

    try:
        async with (
            asyncio.timeout(HEALTH_TIMEOUT),
            httpx.AsyncClient(trust_env=False, timeout=HEALTH_TIMEOUT) as client,
            client.stream("GET", url) as answer,
        ):
            return str(answer.status_code)
    except TimeoutError:
        return f"nothing within {HEALTH_TIMEOUT:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return f"nothing ({str(error) or type(error).__name__})"
