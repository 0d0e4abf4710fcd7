"""What the replicas of a release take of a home, from before their start until they have ended.

Who holds what follows from the store, so that a coordinator that takes over holds the same. A release that has another
one end first (`recreate`) takes that one's room, and what it needs beyond: neither is ever without a way to start.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from penstock.engine.contracts import ProcessSpec
from penstock.engine.installing import StoppedRollout, Stopping, rules_of
from penstock.engine.scheduling import Gpu, Key, Need, beyond, why_never
from penstock.engine.serving import HEALTH_INTERVAL
from penstock.engine.turns import Turns
from penstock.engine.world import World
from penstock.environments import Reserved
from penstock.errors import PenstockError
from penstock.releases import LIVE, MOVING, ReleaseStatus
from penstock.rollouts import terms_of
from penstock.store.contract import Release, Replica

_OVER = frozenset({ReleaseStatus.RETIRED, ReleaseStatus.ROLLED_BACK, ReleaseStatus.REJECTED})

NO_ROOM = "there is no room for its replicas"
"""How the reason of a release begins that found none: nothing is shown against it."""

log = logging.getLogger("penstock")


class NoRoomError(PenstockError):
    """A release whose replicas do not fit beside what serves."""


class Reserving:
    """The shares of releases among those of the steps. The caller has the turn of the environment.

    `end` ends the replicas of a release and gives its share back by `free`.
    """

    def __init__(self, world: World, turns: Turns, end: Callable[[int], Awaitable[None]]) -> None:
        self._world = world
        self._releases = world.store.releases
        self._turns = turns
        self._end = end
        self._locks: dict[int, asyncio.Lock] = {}
        self._heirs: dict[int, int] = {}

    # --- a release comes

    @asynccontextmanager
    async def bringing_up(self, release: int) -> AsyncIterator[None]:
        """Nobody ends this release to make room meanwhile."""
        async with self._lock(release):
            yield

    async def reserve(self, release: Release, stopping: Stopping) -> None:
        """Have room for a release's replicas. What is kept warm ends where that makes some; for steps it waits.

        Raises NoRoomError where what serves leaves too little, StoppedRollout where the rollout is stopped.
        """
        need = self._due(release)
        if need is None or self._has(release, need):
            return
        key = _key(release.id)
        if key in self._turns.held:  # a coordinator died before all replicas had their GPUs
            await self._end(release.id)
            self._turns.free(key)
        if need == Need(cpu=0.0):
            self._turns.hold(key, need)
            return
        never = why_never(_need(release) or need, self._turns.capacity)
        if never is not None:
            raise NoRoomError(f"{NO_ROOM}, ever: all together its environment {never}")
        waiting = asyncio.ensure_future(self._turns.acquire(key, need))
        try:
            await self._wait(waiting, release, need, stopping)
        except BaseException:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            self._turns.free(key)
            raise

    def hold(self, release: Release) -> None:
        """Hold what a release that serves is due, where it holds nothing, whether that fits or not."""
        need, key = self._due(release), _key(release.id)
        if need is not None and key not in self._turns.held:
            self._turns.hold(key, need, self._releases.last_gpus(release.id))

    async def take_over(self, release: Release, old: Release) -> None:
        """As `reserve`, for a release that starts when an old one, which serves now, has ended: its room is had too."""
        self._heirs[release.id] = old.id
        try:
            await self.reserve(release, lambda: None)
        except BaseException:
            del self._heirs[release.id]
            raise

    async def _wait(
        self, waiting: "asyncio.Future[tuple[int, ...]]", release: Release, need: Need, stopping: Stopping
    ) -> None:
        clock = self._world.clock
        due = clock.monotonic()
        while not (await asyncio.wait({waiting}, timeout=HEALTH_INTERVAL))[0]:
            if stopping() is not None:
                raise StoppedRollout
            if clock.monotonic() >= due:
                await self._make_room(release, need)
                due = clock.monotonic() + self._world.look
        await waiting

    async def _make_room(self, release: Release, need: Need) -> None:
        ending = self._ending(release, need)
        if ending is None:
            raise NoRoomError(self._refusal(release))
        for warm in ending:
            if self._is_warm(self._releases.get(warm.id)):
                await self._end_warm(warm, release)
        if not ending:
            self._tell(release, f"waiting for room: {self._lack(release, self._turns.held)}")

    async def _end_warm(self, warm: Release, release: Release) -> None:
        words = f"make room for {release.version} in {release.environment}"
        self._tell(release, f"ending {warm.version} of {warm.environment}, which is kept warm, to make room")
        await self._end_idle(warm, words)

    async def _end_idle(self, warm: Release, words: str) -> None:
        log.info("release %s (%s in %s) ends to %s", warm.id, warm.version, warm.environment, words)
        async with self._lock(warm.id):
            await self._end(warm.id)
            if warm.reason is None:
                self._releases.note(warm.id, reason=f"its warm replicas ended to {words}")

    def _ending(self, release: Release, need: Need) -> list[Release] | None:
        """Who is kept warm and ends first, oldest first, so that a need fits: at once, else when all steps have ended.

        None where it does not fit though all of these end.
        """
        holders = self._holders()
        warm = [r for r in self._warm(holders) if r.id != release.id]
        known = {r.id for r in warm}
        passing = {_key(r.id) for r in holders if r.status is not ReleaseStatus.SERVING and r.id not in known}
        before = self._before(release)
        if before is not None:
            passing.discard(_key(before.id))  # its room is taken over already
        passing |= {key for key in self._turns.held if key[0] > 0}
        for gone in (frozenset[Key](), passing):
            for count in range(len(warm) + 1):
                if self._would_fit(need, gone, warm[:count]):
                    return self._needed(need, gone, warm[:count])
        return None

    def _needed(self, need: Need, gone: Collection[Key], chosen: list[Release]) -> list[Release]:
        """Those of the chosen without whose end it does not fit; the newest are spared first."""
        for one in reversed(chosen):
            others = [r for r in chosen if r is not one]
            if self._would_fit(need, gone, others):
                chosen = others
        return chosen

    def _would_fit(self, need: Need, gone: Collection[Key], ending: Iterable[Release]) -> bool:
        return self._turns.would_fit(need, {*gone, *(_key(r.id) for r in ending)})

    async def yield_to_steps(self) -> None:
        """End what is kept warm, the oldest first and no more than needed, where a step could never start beside it."""
        steps = {key for key in self._turns.held if key[0] > 0}
        for need in self._turns.waiting:
            warm = self._warm(self._holders()) if self._turns.is_barred(need) else []
            counts = [n for n in range(1, len(warm) + 1) if self._would_fit(need, steps, warm[:n])]
            for release in self._needed(need, steps, warm[: counts[0]]) if counts else ():
                if self._is_warm(self._releases.get(release.id)):  # while another one ended it may have come to serve
                    await self._end_idle(release, "make room for a step that waits")

    def _holders(self) -> list[Release]:
        return [self._releases.get(-key[0]) for key in self._turns.held if key[0] < 0]

    def _warm(self, holders: Iterable[Release]) -> list[Release]:
        """Those that are only kept warm, the oldest first."""
        return sorted(filter(self._is_warm, holders), key=lambda r: (r.ended or 0.0, r.id))

    def _is_warm(self, release: Release) -> bool:
        """Whether a release serves nobody, and nobody is about to have it serve."""
        return (
            release.status in _OVER
            and _key(release.id) in self._turns.held
            and not self._lock(release.id).locked()
            and not self._is_awaited(release)
        )

    # --- in words

    def _tell(self, release: Release, phase: str) -> None:
        if self._releases.get(release.id).phase != phase:
            self._releases.note(release.id, phase=phase)

    def _refusal(self, release: Release) -> str:
        """Why there is no room, and the way out."""
        serving = [k for k in self._turns.held if k[0] < 0 and self._is_serving(k)]
        own, need = self._releases.serving(release.project, release.environment), _need(release)
        sentence = f"{NO_ROOM}: {self._lack(release, serving)}"
        rest = {k for k in self._turns.held if k not in serving}
        if own is not None and need is not None and self._turns.would_fit(need, {*rest, _key(own.id)}):
            way = self._way_out(release, own)
            return f"{sentence}. Both do not fit side by side: {way} first, at the price of a gap without answers"
        return f"{sentence}. Ask for less, or end what serves with penstock stop"

    def _way_out(self, release: Release, own: Release) -> str:
        if release.status in MOVING:
            return f"rollout: recreate ends {own.version}"
        place = release.environment
        return f"penstock stop {place}, then penstock deploy {release.version} {place}, ends {own.version}"

    def _is_serving(self, key: Key) -> bool:
        return self._releases.get(-key[0]).status is ReleaseStatus.SERVING

    def _lack(self, release: Release, holders: Iterable[Key]) -> str:
        """What is wanted and how much of it is left beside some who hold it, and who these are."""
        need, capacity = _need(release) or Need(), self._turns.capacity
        before = self._before(release)
        mine = set() if before is None else {_key(before.id)}
        counted = [k for k in holders if k not in mine]
        cpu, memory, gpus = self._turns.left([k for k in self._turns.held if k not in counted])
        suitable = [g for g in gpus if need.gpu_kind in {None, g.kind}]
        parts, short = [], set()
        if need.cpu > cpu:
            short.add("cpu")
            parts.append(f"{need.cpu:g} processors ({max(0.0, cpu):g} of {capacity.cpu:g} left)")
        if memory is not None and need.memory > memory:
            short.add("memory")
            left = f"{_size(max(0, memory))} of {_size(capacity.memory)} left"
            parts.append(f"{_size(need.memory)} of memory ({left})")
        if need.gpus > len(suitable):
            short.add("gpus")
            whole = sum(need.gpu_kind in {None, g.kind} for g in capacity.gpus)
            parts.append(f"{_gpus(need)} ({len(suitable)} of {whole} left)")
        names = [self._name(k, release) for k in counted if any(getattr(self._turns.held[k][0], s) for s in short)]
        wanted = " and ".join(parts) or "what others wait for longer"
        return f"they need {wanted}{f' beside {_listed(names)}' if names else ''}"

    def _name(self, key: Key, beside: Release) -> str:
        """Who holds a share, with it."""
        held = said_of(self._turns.held[key][0])
        if key[0] > 0:
            return f"step {key[1]} of run {key[0]} ({held})"
        release = self._releases.get(-key[0])
        names = {p.id: p.name for p in self._world.store.runs.projects()}
        of = "" if release.project == beside.project else f" of {names[release.project]}"
        return f"{release.version} in {release.environment}{of} ({held})"

    # --- what is due by the record

    def settle(self) -> None:
        """Shares follow the record: who took over from another holds its own, who is not waited for any more nothing.

        Nothing else starts in between.
        """
        changes: dict[Key, tuple[Need, tuple[int, ...]] | None] = {}
        for key, (held, _) in self._turns.held.items():
            if key[0] > 0:
                continue
            need = self._due(self._releases.get(-key[0]))
            if need is None:
                changes[key] = None
            elif need != held:
                changes[key] = (need, self._releases.last_gpus(-key[0]))
        if changes:
            self._turns.exchange(changes)

    def hold_live(self, lives: Callable[[Replica], bool]) -> None:
        """After a start, what serves or lives, or is waited for, holds its share before anything else starts."""
        coming = []
        for release in self._releases.of():
            need = self._due(release)
            if need is not None and self._is_there(release, lives):
                before = self._before(release)
                others = () if before is None else self._releases.last_gpus(before.id)
                gpus = tuple(i for i in self._releases.last_gpus(release.id) if i not in others)
                self._turns.hold(_key(release.id), need, gpus)
            elif release.status is ReleaseStatus.SERVING:
                coming.append(release)
        for release in coming:  # by a rollback that was switched: it starts on what nobody has
            need = self._due(release)
            if need is not None:
                self._turns.hold(_key(release.id), need)

    def _is_there(self, release: Release, lives: Callable[[Replica], bool]) -> bool:
        replicas = self._releases.replicas(release.id)
        return self._is_awaited(release) or bool(replicas and (release.status in LIVE or any(map(lives, replicas))))

    def _due(self, release: Release) -> Need | None:
        """What a release holds by the record, where it holds anything."""
        need = _need(release)
        if need is None or self._is_awaited(release):
            return need
        before = self._before(release)
        if before is not None and _key(before.id) in self._turns.held:
            return beyond(need, *self._turns.held[_key(before.id)])
        is_here = release.status in LIVE or self._lock(release.id).locked() or self._releases.replicas(release.id)
        return need if is_here else None

    def _before(self, release: Release) -> Release | None:
        """The release whose room this one takes over, where the file says `recreate`.

        That is so on its way, and where a rollback gave it its place back before it starts.
        """
        if release.id in self._heirs:
            return self._releases.get(self._heirs[release.id])
        if release.status is ReleaseStatus.SERVING and release.replaced is not None:
            return None if self._releases.replicas(release.id) else self._releases.get(release.replaced)
        if release.status not in MOVING or terms_of(rules_of(release)).strategy != "recreate":
            return None
        rollout = self._releases.get(release.id).rollout or {}
        if rollout.get("stopped"):
            return self._releases.get(int(rollout["stable"]))
        return self._releases.serving(release.project, release.environment)

    def _is_awaited(self, release: Release) -> bool:
        """Whether a release made way for one that is on its way, and serves again if that does not come."""
        if release.status in LIVE:
            return False
        others = (r for r in self._releases.of(release.project, release.environment) if r.status in MOVING)
        return any((r.rollout or {}).get("stopped") and r.rollout["stable"] == release.id for r in others if r.rollout)

    def _has(self, release: Release, need: Need) -> bool:
        held = self._turns.held.get(_key(release.id))
        return held is not None and held[0] == need and len(held[1]) == need.gpus

    def gpus(self, release: Release, number: int) -> tuple[int, ...]:
        """The indices of the GPUs of a replica: those that it had where they are its own still.

        Raises NoRoomError where the release holds too few.
        """
        resources = resources_of(release)
        if resources is None or not resources.gpu.count:
            return ()
        pool, count = self._pool(release), resources.gpu.count
        known = {r.number: tuple(r.gpus or ()) for r in self._releases.replicas(release.id)}
        own = known.pop(number, ())
        if len(own) == count and set(own) <= set(pool):
            return own
        taken = {index for found in known.values() for index in found}
        free = [index for index in pool if index not in taken]
        if len(free) < count:
            raise NoRoomError(
                f"replica {number + 1} needs {_gpus(Need(gpus=count))}, and its release holds {len(free)} for it here"
            )
        return tuple(free[:count])

    def _pool(self, release: Release) -> list[int]:
        """The GPUs that are for a release, its own first, then those of one that it takes over from."""
        need, before = _need(release) or Need(), self._before(release)
        found: list[Gpu] = []
        for one in (release, *(() if before is None else (before,))):
            found += self._turns.held.get(_key(one.id), (need, ()))[1]
        return [g.index for g in found if need.gpu_kind in {None, g.kind}]

    def free(self, release: int) -> None:
        """The replicas of a release have ended: its share is free, or waited for, or another takes it over."""
        found, key = self._releases.get(release), _key(release)
        self._heirs.pop(release, None)
        if key not in self._turns.held or self._is_awaited(found):
            return
        shares: dict[Key, tuple[Need, tuple[int, ...]] | None] = {key: None}
        heir = self._releases.serving(found.project, found.environment)
        if heir is not None and (before := self._before(heir)) is not None and before.id == release:
            self._heirs.pop(heir.id, None)
            if (need := _need(heir)) is not None and _key(heir.id) in self._turns.held:
                shares[_key(heir.id)] = (need, ())
        self._turns.exchange(shares)

    def _lock(self, release: int) -> asyncio.Lock:
        return self._locks.setdefault(release, asyncio.Lock())


def need_together(resources: Reserved, replicas: int) -> Need:
    """What all replicas of a release hold of their home."""
    gpu = resources.gpu
    return Need(resources.cpu * replicas, (resources.memory or 0) * replicas, gpu.count * replicas, gpu.type)


def resources_of(release: Release) -> Reserved | None:
    """What each replica of a release takes; None where the file says nothing."""
    found = release.spec.get("resources")
    return None if found is None else Reserved.model_validate(found)


def limited(spec: ProcessSpec, release: Release, gpus: tuple[int, ...]) -> ProcessSpec:
    """A replica's process, kept to its share; CUDA counts a container's own GPUs from 0."""
    resources = resources_of(release)
    if resources is None:
        return spec
    spec = replace(spec, memory=resources.memory, open_files=resources.open_files)
    if not gpus:
        return spec
    seen: Iterable[Any] = gpus if spec.image is None else range(len(gpus))
    variables = {**spec.variables, "CUDA_VISIBLE_DEVICES": ",".join(map(str, seen))}
    return replace(spec, variables=variables, gpus=gpus if spec.image is not None else ())


def said_of(need: Need) -> str:
    """A need in words."""
    parts = [f"{need.cpu:g} processor{'s' if need.cpu != 1 else ''}"] if need.cpu else []
    if need.memory:
        parts.append(f"{_size(need.memory)} of memory")
    if need.gpus:
        parts.append(_gpus(need))
    return ", ".join(parts)


def reserved(release: Release) -> str | None:
    """What all replicas of a release hold, in words; None where they hold nothing."""
    need = _need(release)
    return None if need is None else said_of(need)


def _size(memory: int) -> str:
    return f"{memory / 2**30:.1f} GiB" if memory >= 1 << 30 else f"{memory / 2**20:.0f} MiB"


def _gpus(need: Need) -> str:
    return f"{need.gpus} GPU{'s' if need.gpus > 1 else ''}{f' of kind {need.gpu_kind}' if need.gpu_kind else ''}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _key(release: int) -> Key:
    """A release beside the runs, whose numbers are above 0."""
    return (-release, "replicas")


def _need(release: Release) -> Need | None:
    resources = resources_of(release)
    return None if resources is None else need_together(resources, int(release.spec["replicas"]))
