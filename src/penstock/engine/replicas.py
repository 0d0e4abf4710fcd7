"""The processes that serve a release: started on their ports, healthy by a real request, ended with all they began."""

import asyncio
from dataclasses import asdict, replace
from pathlib import Path

from penstock.engine.configuring import forget_configs
from penstock.engine.contracts import Handle, ProcessSpec
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
from penstock.engine.reserving import NoRoomError, Reserving, limited
from penstock.engine.routing import Routing
from penstock.engine.serving import (
    HEALTH_INTERVAL,
    answers,
    free_port,
    image_of,
    in_image,
    serve_variables,
)
from penstock.engine.turns import Turns
from penstock.engine.world import World
from penstock.errors import PenstockError
from penstock.packages import Manifest
from penstock.pipelines import interpolate
from penstock.releases import LIVE
from penstock.store.contract import Release, Replica

CRASHES = 3
"""A server that ended this often before it was healthy will not become so."""


class UnhealthyError(PenstockError):
    """A release whose replicas did not become healthy; it is rejected with this sentence."""


class Replicas:
    """The replicas of a home's releases. The caller has the turn of the environment."""

    def __init__(self, world: World, routing: Routing, turns: Turns | None = None) -> None:
        self._world = world
        self._releases = world.store.releases
        self._routing = routing
        self._images = ReleaseImages(world)
        self._forgiven: dict[str, int] = {}
        self._reserving = Reserving(world, turns or Turns(world.capacity), self.end)

    async def bring_up(self, release: Release, stopping: Stopping) -> None:
        """Replicas started, each answering its health path, all found healthy by the router too."""
        self.refuse_taken_port(release)
        async with self._reserving.bringing_up(release.id):
            await self.reserve(release, stopping)
            await self._bring_up(release, stopping)

    async def _bring_up(self, release: Release, stopping: Stopping) -> None:
        count = int(release.spec["replicas"])
        if release.since is not None:
            self._forgive(release)
        self._releases.note(release.id, phase=f"starting {count} replica{'s' if count > 1 else ''}")
        await asyncio.to_thread(install, self._world, release)
        manifest = manifest_of(self._world, release)
        if is_container(release):
            await self._make_image(release, stopping)
        await self.start(release, manifest)
        await self.become_healthy(release, manifest, stopping)
        self._releases.note(release.id, phase="joining the router")
        self._routing.joining.add(release.id)
        await self._routing.follow(release)
        limit = self._world.clock.monotonic() + self._world.drain
        while await self._world.router.healthy(str(release.id)) < count:
            if self._world.clock.monotonic() > limit:
                raise UnhealthyError("the router did not find its replicas healthy")
            await asyncio.sleep(HEALTH_INTERVAL)

    async def start_again(self, release: Release) -> None:
        """Start what is missing of a release that should serve.

        It may be stopped or replaced while its image is made: then nothing of it starts again.
        """
        if not self.all_live(release):
            await self._images.make(release, lambda: None)
        if self._releases.get(release.id).status in LIVE:
            self._reserving.hold(release)
            await self.start(release, manifest_of(self._world, release))

    async def reserve(self, release: Release, stopping: Stopping) -> None:
        """Have room for the replicas before anything of the release begins. Raises UnhealthyError, StoppedRollout."""
        try:
            await self._reserving.reserve(release, stopping)
        except NoRoomError as error:
            raise UnhealthyError(str(error)) from error

    async def take_over(self, release: Release, old: Release) -> None:
        """Have room for a release that starts when an old one has ended: that one's, and what it needs beyond."""
        try:
            await self._reserving.take_over(release, old)
        except NoRoomError as error:
            raise UnhealthyError(str(error)) from error

    def begun(self, release: Release) -> bool:
        """Whether any replica of a release was started, and not ended."""
        return bool(self._releases.replicas(release.id))

    async def yield_to_steps(self) -> None:
        """What is kept warm makes room for steps that could never start beside it."""
        await self._reserving.yield_to_steps()

    def settle(self) -> None:
        """What releases hold follows what is recorded of them."""
        self._reserving.settle()

    def hold_live(self) -> None:
        """What lives holds its share again after a start, before anything else starts."""
        self._reserving.hold_live(self._lives_unrecorded)

    def _lives_unrecorded(self, replica: Replica) -> bool:
        handle = self._handle(replica)
        return handle is not None and self._world.runner.alive(handle)

    async def _make_image(self, release: Release, stopping: Stopping) -> None:
        phase = self._releases.get(release.id).phase
        self._releases.note(release.id, phase="making its image")
        await self._images.make(release, stopping)
        if stopping() is not None:
            raise StoppedRollout
        self._releases.note(release.id, phase=phase)

    def refuse_taken_port(self, release: Release) -> None:
        if release.spec["port"] is None:
            return
        for other in self._releases.of():
            taken = other.status in LIVE and other.spec["port"] == release.spec["port"]
            if taken and (other.project, other.environment) != (release.project, release.environment):
                owner = next(p.name for p in self._world.store.runs.projects() if p.id == other.project)
                raise UnhealthyError(
                    f"port {release.spec['port']} belongs to {other.environment} of {owner}: "
                    "give one of them another port"
                )

    def all_live(self, release: Release) -> bool:
        """Whether a release has all its replicas, and each lives."""
        found = self._releases.replicas(release.id)
        return len(found) >= int(release.spec["replicas"]) and all(self.lives(r) for r in found)

    def lives(self, replica: Replica) -> bool:
        return replica.handle is not None and self._world.runner.alive(Handle(**replica.handle))

    async def start(self, release: Release, manifest: Manifest) -> None:
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
                gpus = self._reserving.gpus(release, number)
                if replica is not None:
                    self._releases.note_replica(replica.id, status="ended")
                replica = self._releases.add_replica(release.id, number, port, gpus)
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
            placed = replace(spec, image=self._images.of(release), whole=True)
        else:
            placed = in_image(spec, image_of(self._world, manifest))
        return limited(placed, release, tuple(replica.gpus or ()))

    async def become_healthy(self, release: Release, manifest: Manifest, stopping: Stopping) -> None:
        clock = self._world.clock
        limit = clock.monotonic() + manifest.start_timeout
        waiting = list(self._releases.replicas(release.id))
        while waiting:
            if stopping() is not None:
                raise StoppedRollout
            waiting = [r for r in waiting if await answers(r.port, manifest.health) != 200]
            for replica in waiting:
                self.refuse_crashed(replica)
            if any(r.handle is not None and not self.lives(r) for r in waiting):
                await self.start(release, manifest)  # killed with its shim, which nothing else starts again
                numbers = {r.number for r in waiting}
                waiting = [r for r in self._releases.replicas(release.id) if r.number in numbers]
            if waiting and clock.monotonic() > limit:
                raise UnhealthyError(
                    f"replica {waiting[0].number + 1} of {release.spec['replicas']} did not answer {manifest.health} "
                    f"with 200 within {manifest.start_timeout:g} s{self._tail(waiting[0])}"
                )
            if waiting:
                await asyncio.sleep(HEALTH_INTERVAL)

    def refuse_crashed(self, replica: Replica) -> None:
        """Raise UnhealthyError for a replica that ended too often before it was healthy."""
        times = self._crashes(replica)
        if times >= CRASHES:
            raise UnhealthyError(f"its server ended {times} times before it was healthy, {self._last(replica)}")

    def crashed(self, release: Release) -> str | None:
        """Why a release is not fit to serve: a replica that ended too often since it was started; None where none."""
        for replica in self._releases.replicas(release.id):
            times = self._crashes(replica)
            if times >= CRASHES:
                return f"replica {replica.number + 1} ended {times} times, {self._last(replica)}"
        return None

    def _crashes(self, replica: Replica) -> int:
        if replica.handle is None:
            return 0
        return self._world.runner.starts(Handle(**replica.handle)) - 1 - self._forgiven.get(replica.id, 0)

    def _forgive(self, release: Release) -> None:
        """How often replicas ended in their life before, which says nothing of whether they become healthy now."""
        for replica in self._releases.replicas(release.id):
            if replica.handle is not None:
                self._forgiven[replica.id] = self._world.runner.starts(Handle(**replica.handle)) - 1

    def _last(self, replica: Replica) -> str:
        code = self._world.runner.last_exit(Handle(**(replica.handle or {})))
        return f"last with exit code {code}{self._tail(replica)}"

    def _tail(self, replica: Replica) -> str:
        return last_line(self._replica_folder(replica) / "log")

    async def end(self, release: int) -> None:
        for replica in self._releases.replicas(release):
            handle = self._handle(replica)
            if handle is not None:
                await self._world.runner.end(handle, self._world.grace)
            self._world.crash("replica.end:after_effect")
            with self._world.store.transaction():
                self._releases.note_replica(replica.id, status="ended")
            self._world.crash("replica.end:after_recorded")
        self._reserving.free(release)
        forget_configs(self._world, release)
