"""Releases in time: start, healthy, join the router, switch, settle, drain, keep warm.

The store is written before the router: where traffic goes is derived from the releases' statuses alone, so a
coordinator that dies at any point is followed by one that derives the same routes and goes on.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from penstock.engine.contracts import Backend, Handle, ProcessSpec, Route
from penstock.engine.images import ReleaseImages, is_container
from penstock.engine.installing import (
    StoppedRollout,
    Stopping,
    install,
    last_line,
    manifest_of,
    package_folder,
    variables_of,
)
from penstock.engine.migrating import Migrating, MigrationError
from penstock.engine.serving import (
    HEALTH_INTERVAL,
    answers,
    free_port,
    image_of,
    in_image,
    serve_variables,
)
from penstock.engine.world import World
from penstock.errors import EngineError, PenstockError, StateError
from penstock.migrations import Migration, why_not_back
from penstock.packages import Manifest
from penstock.pipelines import interpolate
from penstock.releases import LIVE, ReleaseStatus
from penstock.rollouts import Placed, cold, weights
from penstock.runs import RequestStatus
from penstock.store.contract import Release, Replica

CRASHES = 3
"""A server that ended this often before it was healthy will not become so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be released: a package of a version, where, and for which request.

    `spec` holds port, number of replicas, variables and what of the person's environment is passed on; `force` has a
    package go back across a migration that is marked `contract`.
    """

    project: str
    environment: str
    generation: int
    request: int
    run: int
    version: str
    package: str
    spec: Mapping[str, Any]
    actor: str
    force: bool = False


class UnhealthyError(PenstockError):
    """A release whose replicas did not become healthy; it is rejected with this sentence."""


class FrozenError(StateError):
    """An environment that takes no release at the moment: who froze it, and why."""


class Delivery:
    """All releases of a home. One rollout at a time per environment."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._releases = world.store.releases
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        self._recovered = asyncio.Event()
        self._recovered.set()
        self._joining: set[int] = set()
        self._images = ReleaseImages(world)
        self._migrating = Migrating(world)

    @property
    def watches(self) -> list[asyncio.Task[None]]:
        """What goes on beside the verbs, to be canceled by who leaves."""
        return self._migrating.watches

    def _turn(self, project: str, environment: str) -> asyncio.Lock:
        return self._turns.setdefault((project, environment), asyncio.Lock())

    # --- verbs

    async def release(self, wanted: Wanted, stopping: Stopping) -> Release:
        """Bring a package to an environment; returns the release as it ended: serving, or rejected with a reason.

        One that serves already is returned as it is. A release that an earlier coordinator began is gone on with.
        """
        await self._recovered.wait()
        async with self._turn(wanted.project, wanted.environment):
            serving = self._releases.serving(wanted.project, wanted.environment)
            if serving is not None and self._is_same(serving, wanted):
                with self._world.store.transaction(durable=True):
                    self._releases.advance(wanted.project, wanted.environment, wanted.generation)
                await self._drop_begun(serving, wanted.request, f"release {serving.id} serves the same")
                return serving
            await self._refuse_frozen(wanted)
            release = self._begun(wanted)
            try:
                return await self._roll(release, stopping, force=wanted.force)
            finally:
                self._joining.discard(release.id)

    async def _refuse_frozen(self, wanted: Wanted) -> None:
        """Raise FrozenError where the environment takes no release; what an earlier coordinator began there ends."""
        frozen = self._releases.frozen(wanted.project, wanted.environment)
        if frozen is not None:
            reason = frozen.sentence(wanted.environment)
            await self._drop_begun(wanted, wanted.request, reason)
            raise FrozenError(reason)

    def _is_same(self, release: Release, wanted: Wanted) -> bool:
        """Whether a release is what is wanted; the person's own PATH and language make no other release."""
        both = [{k: v for k, v in spec.items() if k != "person"} for spec in (release.spec, wanted.spec)]
        same = (release.version, release.package) == (wanted.version, wanted.package) and both[0] == both[1]
        return same and all(self._lives(r) for r in self._releases.replicas(release.id))

    def _begun(self, wanted: Wanted) -> Release:
        """The release of this request that is starting already, else a new one."""
        for release in self._releases.of(wanted.project, wanted.environment):
            if release.request == wanted.request and release.status is ReleaseStatus.STARTING:
                return release
        with self._world.store.transaction(durable=True):
            values = asdict(wanted)
            del values["force"]
            return self._releases.add(values)

    async def rollback(
        self,
        project: str,
        environment: str,
        request: int,
        actor: str,
        *,
        force: bool = False,
        down: bool = False,
        why: str | None = None,
    ) -> Release:
        """Give the traffic back to the release that served before; without a rebuild, and without a start if warm.

        Going back across a migration that is marked `contract` takes `force`, or `down`: then the way back of each
        migration that is crossed runs too, before the switch where older code could not work otherwise, else after it.
        """
        await self._recovered.wait()
        async with self._turn(project, environment):
            serving = self._releases.serving(project, environment)
            served = [
                r for r in self._releases.of(project, environment) if r.status is ReleaseStatus.RETIRED and r.since
            ]
            if serving is None or not served:
                raise StateError(f"{environment} has no earlier release to go back to")
            target = max(served, key=lambda r: (r.since or 0.0, r.id))
            reason = f"rolled back to {target.version} by {actor}{f': {why}' if why else ''}"
            crossing = self._migrating.crossing(target)
            self._refuse_rollback(environment, crossing, force=force, down=down)
            first = down and any(m.contract for m in crossing)
            try:
                if first:
                    await self._migrating.down(crossing, request, actor)
                await self._bring_up(target, lambda: None)
                if not await self._switch(target, request, fate="roll_back", reason=reason):
                    raise StateError(f"{environment} was given to a newer command meanwhile: see penstock status")
                if down and not first:
                    await self._migrating.down(crossing, request, actor)
            finally:
                self._joining.discard(target.id)
                self._releases.note(target.id, phase=None)
            return self._releases.get(target.id)

    def _refuse_rollback(self, environment: str, crossing: list[Migration], *, force: bool, down: bool) -> None:
        if down:
            self._migrating.insist_on_way_down(crossing)
            return
        way = f"penstock rollback {environment} --migrate-down undoes it first where the file names a way, --force "
        reason = why_not_back(environment, crossing, f"{way}goes back all the same")
        if reason is not None and not force:
            raise StateError(reason)

    async def stop(self, project: str | None, environment: str | None) -> list[str]:
        """End what a home, a project or an environment serves; returns what was stopped, in words.

        A rollout that is going on is waited for.
        """
        found = {(r.project, r.environment) for r in self._releases.of(project, environment)}
        stopped = [line for place in sorted(found) for line in await self._stop_one(*place)]
        await self.apply()
        return stopped

    async def _stop_one(self, project: str, environment: str) -> list[str]:
        async with self._turn(project, environment):
            ended = []
            await self._migrating.end(project, environment)
            for release in self._releases.of(project, environment):
                if release.status is ReleaseStatus.SERVING:
                    self._move(release.id, "stop", reason="stopped")
                    ended.append(f"{environment} {release.version}")
                elif release.status is ReleaseStatus.STARTING:
                    self._move(release.id, "reject", reason="stopped")
                elif release.status is ReleaseStatus.DRAINING:
                    self._move(release.id, release.fate or "retire", reason=release.reason)
            await self.apply()
            for release in self._releases.of(project, environment):
                await self._end_replicas(release.id)
            return ended

    async def give_up(self, request: int) -> None:
        """What a canceled request began to release, perhaps under an earlier coordinator, is ended and rejected."""
        for release in self._releases.of():
            if release.request == request and release.status is ReleaseStatus.STARTING:
                async with self._turn(release.project, release.environment):
                    await self._drop_begun(release, request, "canceled")

    async def _drop_begun(self, beside: Release | Wanted, request: int, reason: str) -> None:
        """End and reject what a request began to release in an environment, whose turn the caller has."""
        for release in self._releases.of(beside.project, beside.environment):
            if release.request == request and release.status is ReleaseStatus.STARTING:
                await self._end_replicas(release.id)
                await self._reject(release.id, reason)

    async def recover(self) -> None:
        """After a start: what should serve serves again, drains are finished, the router has its state.

        A release that a person asked for by hand is rejected where the command died before the switch; one of a run
        goes on with the run. The verbs wait until what should serve serves, and by environment for its drain.
        """
        self._recovered.clear()
        try:
            self._migrating.recover()
            await self._serve_again()
            drains = [self._finish(r) for r in self._releases.of() if r.status is ReleaseStatus.DRAINING]
            finishing = asyncio.gather(*drains)
        finally:
            self._recovered.set()
        await finishing

    async def _finish(self, release: Release) -> None:
        """The drain that an earlier coordinator began."""
        async with self._turn(release.project, release.environment):
            if self._releases.get(release.id).status is ReleaseStatus.DRAINING:
                await self._drain(release.id)

    async def _serve_again(self) -> None:
        for release in self._releases.of():
            if release.status is ReleaseStatus.STARTING and self._is_orphan(release):
                await self._end_replicas(release.id)
                self._move(release.id, "reject", reason="the command that asked for it died")
        for release in self._releases.of():
            if release.status is ReleaseStatus.SERVING:
                async with self._turn(release.project, release.environment):
                    await asyncio.to_thread(install, self._world, release)
                    await self._start_again(release)
        if self._routes():
            await self.apply()

    async def _start_again(self, release: Release) -> None:
        """Start what is missing of a release that should serve; what cannot be started is told, and hinders nobody."""
        try:
            if not all(self._lives(r) for r in self._releases.replicas(release.id)):
                await self._images.make(release, lambda: None)
            # It may have been stopped or replaced while we waited: then nothing of it starts again.
            if self._releases.get(release.id).status is ReleaseStatus.SERVING:
                await self._start(release, manifest_of(self._world, release))
        except EngineError as error:
            self._releases.note(release.id, phase=f"cannot start again: {error}")

    def _is_orphan(self, release: Release) -> bool:
        request = self._world.store.requests.get(release.request)
        return request.status is not RequestStatus.OPEN

    # --- one rollout

    async def _roll(self, release: Release, stopping: Stopping, *, force: bool) -> Release:
        try:
            self._refuse_way_back(release, force=force)
            self._refuse_taken_port(release)
            await self._migrating.up(release, stopping)
            await self._bring_up(release, stopping)
        except (UnhealthyError, MigrationError, EngineError) as error:
            await self._end_replicas(release.id)
            route = f"{release.project}-{release.environment}"
            await self._reject(release.id, str(error).replace(route, release.environment))
            return self._releases.get(release.id)
        except StoppedRollout:
            await self._end_replicas(release.id)
            why = stopping()
            if why in {"canceled", "superseded"}:
                await self._reject(release.id, why)
            return self._releases.get(release.id)
        except (PenstockError, OSError) as error:
            await self._end_replicas(release.id)
            await self._reject(release.id, str(error))
            raise
        if not await self._switch(release, release.generation, fate="retire", reason=None):
            await self._end_replicas(release.id)
            await self._reject(release.id, "a newer release was there first")
        return self._releases.get(release.id)

    async def _reject(self, release: int, reason: str) -> None:
        self._joining.discard(release)
        self._move(release, "reject", reason=reason)
        if self._routes():
            await self.apply()

    async def _bring_up(self, release: Release, stopping: Stopping) -> None:
        """Replicas started, each answering its health path, all found healthy by the router too."""
        self._refuse_taken_port(release)
        count = int(release.spec["replicas"])
        self._releases.note(release.id, phase=f"starting {count} replica{'s' if count > 1 else ''}")
        await asyncio.to_thread(install, self._world, release)
        manifest = manifest_of(self._world, release)
        if is_container(release):
            await self._make_image(release, stopping)
        await self._start(release, manifest)
        await self._become_healthy(release, manifest, stopping)
        self._releases.note(release.id, phase="joining the router")
        self._joining.add(release.id)
        await self.apply()
        limit = self._world.clock.monotonic() + self._world.drain
        while await self._world.router.healthy(str(release.id)) < count:
            if self._world.clock.monotonic() > limit:
                raise UnhealthyError("the router did not find its replicas healthy")
            await asyncio.sleep(HEALTH_INTERVAL)

    async def _make_image(self, release: Release, stopping: Stopping) -> None:
        phase = self._releases.get(release.id).phase
        self._releases.note(release.id, phase="making its image")
        await self._images.make(release, stopping)
        if stopping() is not None:
            raise StoppedRollout
        self._releases.note(release.id, phase=phase)

    def _refuse_way_back(self, release: Release, *, force: bool) -> None:
        way = f"penstock deploy {release.version} {release.environment} --force goes back all the same"
        reason = why_not_back(release.environment, self._migrating.crossing(release), way)
        if reason is not None and not force:
            raise MigrationError(reason)

    def _refuse_taken_port(self, release: Release) -> None:
        for other in self._releases.of():
            taken = other.status in LIVE and other.spec["port"] == release.spec["port"]
            if taken and (other.project, other.environment) != (release.project, release.environment):
                owner = next(p.name for p in self._world.store.runs.projects() if p.id == other.project)
                raise UnhealthyError(
                    f"port {release.spec['port']} belongs to {other.environment} of {owner}: "
                    "give one of them another port"
                )

    async def _switch(self, release: Release, generation: int, fate: str, reason: str | None) -> bool:
        """All traffic to the release, then the old one drains; False where a newer generation was there first."""
        with self._world.store.transaction(durable=True):
            if not self._releases.advance(release.project, release.environment, generation):
                return False
            old = self._releases.serving(release.project, release.environment)
            if old is not None:
                self._releases.move(old.id, "replace", fate=fate, reason=reason)
            event = "promote" if release.status is ReleaseStatus.STARTING else "restore"
            replaced = old.id if old else None
            self._releases.move(release.id, event, generation=generation, replaced=replaced, reason=None)
        self._releases.note(release.id, phase="switching")
        await self.apply()
        if old is not None:
            self._releases.note(release.id, phase=f"draining {old.version}")
            await self._drain(old.id)
        self._releases.note(release.id, phase=None)
        return True

    async def _drain(self, release: int) -> None:
        """Let a release finish what it began, take it out of the route, keep it warm, end what was warm before."""
        router, clock = self._world.router, self._world.clock
        await asyncio.sleep(self._world.settle)
        limit = clock.monotonic() + self._world.drain
        while await router.in_flight(str(release)) and clock.monotonic() < limit:
            await asyncio.sleep(HEALTH_INTERVAL)
        old = self._releases.get(release)
        self._move(release, old.fate or "retire", reason=old.reason)
        await self.apply()
        await asyncio.sleep(self._world.settle)
        for number in cold(self._placed(old.project, old.environment)):
            await self._end_replicas(number)

    def _move(self, release: int, event: str, **values: Any) -> None:
        with self._world.store.transaction(durable=True):
            self._releases.move(release, event, **values)

    # --- routes

    def _placed(self, project: str, environment: str) -> list[Placed]:
        found = self._releases.of(project, environment)
        return [Placed(r.id, r.status, r.since) for r in found if self._releases.replicas(r.id)]

    def _routes(self) -> list[Route]:
        """The whole wanted state of the router, from the releases' statuses.

        A release that is starting is in the route once its replicas are healthy and it is joining.
        """
        routes = []
        everything = self._releases.of()
        for project, environment in sorted({(r.project, r.environment) for r in everything}):
            own = {r.id: r for r in everything if (r.project, r.environment) == (project, environment)}
            parts = weights(self._placed(project, environment))
            joining = self._joining & own.keys()
            parts = {n: w for n, w in parts.items() if w or n in joining or own[n].status is ReleaseStatus.DRAINING}
            parts = {**dict.fromkeys(joining, 0), **parts}
            if parts:
                first = max(parts, key=lambda n: (parts[n], n))
                backends = tuple(self._backend(own[n], weight) for n, weight in sorted(parts.items()))
                routes.append(Route(f"{project}-{environment}", int(own[first].spec["port"]), backends))
        return routes

    def _backend(self, release: Release, weight: int) -> Backend:
        ports = tuple(r.port for r in self._releases.replicas(release.id))
        return Backend(str(release.id), release.version, ports, manifest_of(self._world, release).health, weight)

    async def apply(self) -> None:
        """Put the wanted routes in force; a home that serves nothing has no router."""
        routes = self._routes()
        if routes:
            await self._world.router.apply(routes)
            self._world.crash("router.apply:after_effect")
        else:
            await self._world.router.stop()
            self._world.crash("router.stop:after_effect")

    # --- replicas

    def _lives(self, replica: Replica) -> bool:
        return replica.handle is not None and self._world.runner.alive(Handle(**replica.handle))

    async def _start(self, release: Release, manifest: Manifest) -> None:
        """Have as many live replicas as wanted: those that live stay, the others are started on their own port.

        A server that outlived its shim would hold that port, and answer in the name of the new one: it goes first.
        """
        store = self._world.store
        for number in range(int(release.spec["replicas"])):
            replica = next((r for r in self._releases.replicas(release.id) if r.number == number), None)
            if replica is not None and self._found(replica):
                continue
            if replica is not None and replica.handle is not None:
                await self._world.runner.end(Handle(**replica.handle), self._world.grace)
            with store.transaction():
                port = replica.port if replica else free_port({r.port for r in self._releases.all_replicas()})
                if replica is not None:
                    self._releases.note_replica(replica.id, status="ended")
                replica = self._releases.add_replica(release.id, number, port)
            handle = self._world.runner.start(self._spec(release, replica, manifest))
            self._world.crash("replica.start:after_effect")
            with store.transaction():
                self._releases.note_replica(replica.id, handle=asdict(handle), status="running")
            self._world.crash("replica.start:after_recorded")

    def _found(self, replica: Replica) -> bool:
        """Whether the replica lives; a start that was not recorded is recorded now."""
        handle = self._handle(replica)
        if handle is None or not self._world.runner.alive(handle):
            return False
        if replica.handle is None:
            self._releases.note_replica(replica.id, handle=asdict(handle), status="running")
        return True

    def _handle(self, replica: Replica) -> Handle | None:
        """The process of a replica, found again where its start was not recorded; None where it never started."""
        if replica.handle is not None:
            return Handle(**replica.handle)
        return self._world.runner.find(replica.id, self._replica_folder(replica) / "record")

    def _replica_folder(self, replica: Replica) -> Path:
        return self._world.home.release(replica.release) / replica.id

    def _spec(self, release: Release, replica: Replica, manifest: Manifest) -> ProcessSpec:
        package, folder = package_folder(self._world, release), self._replica_folder(replica)
        folder.mkdir(parents=True, exist_ok=True)
        own = is_container(release)
        variables = variables_of(self._world, release, manifest, own_image=own)
        spec = ProcessSpec(
            id=replica.id,
            command=interpolate(
                manifest.serve or "", release.spec["declared"], release.version, release.spec["commit"]
            ),
            workspace=package,
            variables={**variables, "PORT": str(replica.port)}
            if own
            else serve_variables(self._world, manifest, package, replica.port, variables),
            log=folder / "log",
            record=folder / "record",
            kept=True,
            folder=folder,
            secrets=tuple(release.spec.get("secrets", ())),
        )
        if own:
            return replace(spec, image=self._images.of(release), whole=True)
        return in_image(spec, image_of(self._world, manifest))

    async def _become_healthy(self, release: Release, manifest: Manifest, stopping: Stopping) -> None:
        clock = self._world.clock
        limit = clock.monotonic() + manifest.start_timeout
        waiting = list(self._releases.replicas(release.id))
        while waiting:
            if stopping() is not None:
                raise StoppedRollout
            waiting = [r for r in waiting if await answers(r.port, manifest.health) != 200]
            for replica in waiting:
                self._refuse_crashed(replica)
            if any(r.handle is not None and not self._lives(r) for r in waiting):
                await self._start(release, manifest)  # killed with its shim, which nothing else starts again
                numbers = {r.number for r in waiting}
                waiting = [r for r in self._releases.replicas(release.id) if r.number in numbers]
            if waiting and clock.monotonic() > limit:
                raise UnhealthyError(
                    f"replica {waiting[0].number + 1} of {release.spec['replicas']} did not answer {manifest.health} "
                    f"with 200 within {manifest.start_timeout:g} s{self._tail(waiting[0])}"
                )
            if waiting:
                await asyncio.sleep(HEALTH_INTERVAL)

    def _refuse_crashed(self, replica: Replica) -> None:
        if replica.handle is None:
            return
        handle = Handle(**replica.handle)
        starts, code = self._world.runner.starts(handle), self._world.runner.last_exit(handle)
        if starts > CRASHES:
            raise UnhealthyError(
                f"its server ended {starts - 1} times before it was healthy, last with exit code {code}"
                f"{self._tail(replica)}"
            )

    def _tail(self, replica: Replica) -> str:
        return last_line(self._replica_folder(replica) / "log")

    async def _end_replicas(self, release: int) -> None:
        for replica in self._releases.replicas(release):
            handle = self._handle(replica)
            if handle is not None:
                await self._world.runner.end(handle, self._world.grace)
            self._world.crash("replica.end:after_effect")
            with self._world.store.transaction():
                self._releases.note_replica(replica.id, status="ended")
            self._world.crash("replica.end:after_recorded")
