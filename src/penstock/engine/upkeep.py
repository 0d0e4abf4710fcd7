"""What should serve serves: after a start of the coordinator, and again and again while it works.

What the store says is put into the world: replicas and router that died are started, drains end, what is not kept warm
any more ends, canaries are judged. What cannot be done now is told, holds up no other environment, and is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from penstock.engine.hooking import Hooks, commands_of
from penstock.engine.installing import install
from penstock.engine.replicas import Replicas
from penstock.engine.routing import Routing, route_name
from penstock.engine.switching import Switching
from penstock.engine.world import World
from penstock.errors import PenstockError, RouteError
from penstock.releases import MOVING, ReleaseStatus, is_hooked
from penstock.runs import RequestStatus
from penstock.store.contract import Release

UNREACHED = "nobody reaches it"
"""How the phase of a release begins whose port cannot be had."""
EVERY = 5
"""Looks between two rounds."""
_SERVES = frozenset({ReleaseStatus.SERVING, ReleaseStatus.CANARY})

log = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True)
class Verbs:
    """What upkeep has done by others: the turn of an environment, judging a canary to its end, rejecting what began."""

    turn: Callable[[str, str], asyncio.Lock]
    judge: Callable[[Release], Awaitable[object]]
    reject: Callable[[Release, str], Awaitable[None]]


class Upkeep:
    """The upkeep of a home's releases."""

    def __init__(
        self, world: World, routing: Routing, replicas: Replicas, switching: Switching, hooks: Hooks, verbs: Verbs
    ) -> None:
        self._world = world
        self._releases = world.store.releases
        self._routing = routing
        self._replicas = replicas
        self._switching = switching
        self._hooks = hooks
        self._verbs = verbs
        self._running: set[asyncio.Task[None]] = set()
        self._faulty: set[str] = set()
        self._gone: set[int] = set()
        self._refusal = ""
        self.answered: set[int] = set()

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """What goes on, to be canceled by who leaves."""
        return tuple(self._running)

    def _begin(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def begin(self) -> None:
        """Keep up what should serve, from now on."""
        self._begin(self._keep_up())

    async def recover(self) -> Awaitable[object]:
        """Start what should serve; returns what waits for what an earlier coordinator left on its way.

        A release that a person asked for by hand is rejected where the command died before the switch; one of a run
        goes on with the run.
        """
        back = await self._serve_again()
        drains = [self._begin(self._finish(r)) for r in self._of(ReleaseStatus.DRAINING)]
        for release in self._of(ReleaseStatus.CANARY):
            self._begin(self._go_on(release))
        for release in self._of(ReleaseStatus.SERVING):
            if commands_of(release):
                self._begin(self._finish_back(release))
        return asyncio.gather(*back, *drains, return_exceptions=True)

    def _of(self, status: ReleaseStatus) -> list[Release]:
        return [r for r in self._releases.present() if r.status is status]

    async def _serve_again(self) -> list["asyncio.Task[None]"]:
        """Start what should serve; what gave its place to another one starts meanwhile, in tasks of its own."""
        back = []
        for release in [r for r in self._releases.present() if r.status in MOVING]:
            if self._is_orphan(release):
                async with self._verbs.turn(release.project, release.environment):
                    await self._told(release, self._drop)
            elif (release.rollout or {}).get("stopped"):
                back.append(self._begin(self._put_back(release)))
        for release in self._releases.present():
            if release.status in _SERVES:
                async with self._verbs.turn(release.project, release.environment):
                    await self._told(release, self._start_again)
        await self._follow()
        return back

    def _is_orphan(self, release: Release) -> bool:
        request = self._world.store.requests.get(release.request)
        return request.status is not RequestStatus.OPEN

    async def _drop(self, release: Release) -> None:
        await self._verbs.reject(release, "the command that asked for it died")

    async def _put_back(self, release: Release) -> None:
        """What made way for a release that is not there yet serves again, until it is."""
        async with self._verbs.turn(release.project, release.environment):
            release = self._releases.get(release.id)
            if release.status in MOVING:
                await self._told(release, self._switching.put_back)

    async def _told(self, release: Release, begin: Callable[[Release], Awaitable[None]]) -> None:
        """Do what a release needs; what cannot be done is told, and hinders nobody."""
        try:
            await begin(release)
        except (PenstockError, OSError) as error:
            phase = f"cannot start again: {error}"
            if self._releases.get(release.id).phase != phase:
                self._releases.note(release.id, phase=phase)
                log.warning("release %s (%s in %s) %s", release.id, release.version, release.environment, phase)

    async def _start_again(self, release: Release) -> None:
        if release.replaced is not None and not self._replicas.begun(release):
            await self._switching.finish_first(self._releases.get(release.replaced))
        await asyncio.to_thread(install, self._world, release)
        await self._replicas.start_again(release)

    async def _go_on(self, release: Release) -> None:
        """Go on judging what an earlier coordinator began to, whoever may still wait for it."""
        try:
            async with self._verbs.turn(release.project, release.environment):
                release = self._releases.get(release.id)
                if release.status is ReleaseStatus.CANARY:
                    await self._verbs.judge(release)
        except PenstockError as error:
            self._releases.note(release.id, phase=f"cannot go on: {error}")

    async def _finish_back(self, release: Release) -> None:
        """The way back by a command that an earlier coordinator began."""
        async with self._verbs.turn(release.project, release.environment):
            await self._told(self._releases.get(release.id), self._go_back)

    async def _go_back(self, release: Release) -> None:
        back = await self._hooks.going_back(release) if release.status is ReleaseStatus.SERVING else None
        if back is not None and await self._switching.switch(
            back.target, back.generation, fate="roll_back", reason=back.why
        ):
            place = {"project": release.project, "environment": release.environment}
            waiting = [r for r in self._world.store.requests.open() if r.kind == "rollback"]
            self.answered |= {r.id for r in waiting if place.items() <= r.payload.items()}

    async def _finish(self, release: Release) -> None:
        """The drain that an earlier coordinator began."""
        async with self._verbs.turn(release.project, release.environment):
            if self._releases.get(release.id).status is ReleaseStatus.DRAINING:
                await self._told(release, lambda r: self._switching.drain(r.id))

    # --- again and again

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(EVERY * self._world.look)
            await self._guarded("a home", self._whole)

    async def _whole(self) -> None:
        """One round: each environment by itself, so that none waits for another one."""
        for place in sorted({(r.project, r.environment) for r in self._releases.present()}):
            if not self._verbs.turn(*place).locked():
                self._begin(self._guarded(place[1], partial(self._round, place)))
        await self._replicas.yield_to_steps()
        await self._follow()

    async def _guarded(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """The loop's edge: one defect must not end the loop, nor stop the other environments."""
        try:
            await work()
            self._faulty.discard(what)
        except Exception:
            if what not in self._faulty:
                log.exception("upkeep of %s met a defect of Penstock", what)
            self._faulty.add(what)

    async def _round(self, place: tuple[str, str]) -> None:
        """One environment that nobody is busy with."""
        async with self._verbs.turn(*place):
            await self._tend(self._releases.present(*place))

    async def _tend(self, releases: Sequence[Release]) -> None:
        for release in releases:
            if release.status in _SERVES and not is_hooked(release.spec) and not self._replicas.all_live(release):
                await self._replace(release)
            if release.status in MOVING and release.status is not ReleaseStatus.CANARY and self._is_orphan(release):
                await self._told(release, self._drop)
            elif release.status is ReleaseStatus.DRAINING:
                await self._told(release, lambda r: self._switching.drain(r.id))
            elif release.status is ReleaseStatus.CANARY:
                self._begin(self._go_on(release))
        if releases:
            await self._switching.cool(releases[0].project, releases[0].environment)

    async def _replace(self, release: Release) -> None:
        """Start what is gone of a release that should serve; that it is gone is logged once."""
        if release.id not in self._gone:
            log.warning("%s in %s: replicas are gone, and start again", release.version, release.environment)
        self._gone.add(release.id)
        await self._told(release, self._start_again)
        if self._replicas.all_live(release):
            self._gone.discard(release.id)
            self._releases.note(release.id, phase=None)

    async def _follow(self) -> None:
        """Have the router follow what is recorded; where it does not, that is told once, and tried again."""
        refusal, unreached = "", tuple[str, ...]()
        try:
            if self._routing.routes():
                await self._routing.apply()
        except RouteError as error:
            refusal, unreached = str(error), error.environments
        except (PenstockError, OSError) as error:
            refusal = str(error)
        if refusal and refusal != self._refusal:
            log.warning("the router does not follow: %s", refusal)
        self._refusal = refusal
        for release in self._of(ReleaseStatus.SERVING):
            self._note_reach(release, f"{UNREACHED}: {refusal}" if route_name(release) in unreached else None)

    def _note_reach(self, release: Release, phase: str | None) -> None:
        """Say that a release cannot be reached, or no more that it could not."""
        was = (release.phase or "").startswith(UNREACHED)
        if phase != release.phase and (phase is not None or was):
            self._releases.note(release.id, phase=phase)
