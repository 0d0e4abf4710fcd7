"""The traffic of an environment changes hands: all to one release, back from one that was tried, aside for one to come.

The store is written before the router; what a release has begun to answer it may finish.
"""

import asyncio
from typing import Any

from penstock.engine.installing import rules_of
from penstock.engine.migrating import MigrationError
from penstock.engine.replicas import Replicas
from penstock.engine.routing import Routing
from penstock.engine.serving import HEALTH_INTERVAL
from penstock.engine.world import World
from penstock.errors import EngineError
from penstock.releases import MOVING, ReleaseStatus, is_hooked
from penstock.rollouts import cold, terms_of
from penstock.store.contract import Release
from penstock.watches import anew


class Switching:
    """Switches of a home. The caller has the turn of the environment."""

    def __init__(self, world: World, routing: Routing, replicas: Replicas) -> None:
        self._world = world
        self._releases = world.store.releases
        self._routing = routing
        self._replicas = replicas

    async def switch(self, release: Release, generation: int, fate: str, reason: str | None) -> bool:
        """All traffic to the release, then the old one drains; False where a newer generation was there first."""
        with self._world.store.transaction(durable=True):
            if not self._releases.advance(release.project, release.environment, generation):
                return False
            old = self._releases.serving(release.project, release.environment)
            if old is not None:
                self._releases.move(old.id, "replace", fate=fate, reason=reason)
            values = {"generation": generation, "replaced": old.id if old else None, "reason": None}
            if release.status in MOVING:
                self._releases.move(release.id, "promote", **values)
            else:
                self._releases.move(release.id, "restore", watch=anew(release.watch), **values)
        self._replicas.settle()
        self._releases.note(release.id, phase="switching")
        await self._routing.follow(release)
        if old is not None:
            self._releases.note(release.id, phase=f"draining {old.version}")
            await self.drain(old.id)
        self._releases.note(release.id, phase=None)
        return True

    async def drain(self, release: int) -> None:
        """Let a release finish what it began, take it out of the route, keep it warm, end what was warm before.

        One that has not finished by its limit ends: no router can end a stream as it should end, its server can.
        """
        clock = self._world.clock
        if is_hooked(self._releases.get(release).spec):
            await self._leave(release)
            return
        await asyncio.sleep(self._world.settle)
        limit = clock.monotonic() + float(self._releases.get(release).spec.get("drain", self._world.drain))
        while await self._is_answering(release, unknown=True) and clock.monotonic() < limit:
            await asyncio.sleep(HEALTH_INTERVAL)
        old = self._releases.get(release)
        self.move(release, old.fate or "retire", reason=old.reason)
        await self._routing.follow(old)
        await asyncio.sleep(self._world.settle)
        if await self._is_answering(release, unknown=False):
            await self._replicas.end(release)
        await self.cool(old.project, old.environment)

    async def cool(self, project: str, environment: str) -> None:
        """End the replicas of what serves no more, but for those that are kept warm."""
        serving = self._releases.serving(project, environment)
        keep = 1 if serving is None else int(serving.spec.get("keep", 1))
        for number in cold(self._routing.placed(project, environment), keep):
            await self._replicas.end(number)

    async def _is_answering(self, release: int, *, unknown: bool) -> bool:
        """Whether a release has requests that it has not answered; `unknown` where the router does not tell."""
        try:
            return await self._world.router.in_flight(str(release)) > 0
        except EngineError:
            return unknown

    async def _leave(self, release: int) -> None:
        """What a command deployed elsewhere has no request of ours to finish."""
        old = self._releases.get(release)
        self.move(release, old.fate or "retire", reason=old.reason)
        await self._replicas.end(release)

    async def withdraw(self, release: Release, reason: str) -> None:
        """No new request to a release that was tried; then it finishes what it began, and ends."""
        self.move(release.id, "withdraw", fate="roll_back", reason=reason)
        await self._routing.follow(release)
        await self.drain(release.id)

    async def step_aside(self, release: Release) -> None:
        """Where the file says `recreate`, what serves ends before the new release starts."""
        old = self._releases.serving(release.project, release.environment)
        if old is None or not self.is_alone(release):
            return
        if not self.is_newest(release):
            raise MigrationError("a newer release was there first")
        with self._world.store.transaction(durable=True):
            self._releases.note(release.id, rollout={"strategy": "recreate", "stable": old.id, "stopped": True})
            self._releases.move(old.id, "replace", fate="retire", reason=None)
        self._releases.note(release.id, phase=f"ending {old.version}")
        await self._routing.follow(release)
        await self.drain(old.id)
        await self._replicas.end(old.id)

    async def finish_first(self, old: Release) -> None:
        """What may not run beside the release that took its place, and starts now, ends before."""
        if not is_hooked(old.spec) and self.is_alone(old):
            if old.status is ReleaseStatus.DRAINING:
                await self.drain(old.id)
            await self._replicas.end(old.id)

    def is_alone(self, release: Release) -> bool:
        """Whether the file says that no two releases of its environment may run at once."""
        return terms_of(rules_of(release)).strategy == "recreate"

    def is_newest(self, release: Release) -> bool:
        """Whether no newer command has put a release in force in its environment."""
        return release.generation >= self._releases.generation(release.project, release.environment)

    async def put_back(self, release: Release) -> None:
        """What made way for a release that does not come serves again."""
        rollout = self._releases.get(release.id).rollout or {}
        if not rollout.get("stopped"):
            return
        await self._replicas.end(release.id)
        old = self._releases.get(int(rollout["stable"]))
        if old.status is ReleaseStatus.DRAINING:
            self.move(old.id, "retire", reason=None)
            old = self._releases.get(old.id)
        if old.status is ReleaseStatus.RETIRED and self._releases.serving(old.project, old.environment) is None:
            await self._replicas.bring_up(old, lambda: None)
            with self._world.store.transaction(durable=True):
                self._releases.move(old.id, "restore", watch=anew(old.watch), reason=None)
                self._releases.note(release.id, rollout={**rollout, "stopped": False})
            self._routing.joining.discard(old.id)
            await self._routing.apply(old)

    def move(self, release: int, event: str, **values: Any) -> None:
        """One transition of a release, on the disk before anything follows from it."""
        with self._world.store.transaction(durable=True):
            self._releases.move(release, event, **values)
