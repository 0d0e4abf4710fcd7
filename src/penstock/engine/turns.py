"""Waiting for one's turn: asyncio tasks on the pure `Schedule`."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from penstock.engine.scheduling import Capacity, Gpu, Key, Need, Schedule


class Turns:
    """Hands out shares of a home's capacity to the tasks of all its runs."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._schedule = Schedule(capacity)
        self._futures: dict[Key, asyncio.Future[tuple[int, ...]]] = {}

    @asynccontextmanager
    async def turn(self, key: Key, need: Need, priority: float = 0.0) -> AsyncIterator[tuple[int, ...]]:
        """Wait until the need fits and it is our turn; gives the indices of our GPUs.

        Raises EngineError where the need can never fit.
        """
        gpus = await self.acquire(key, need, priority)
        try:
            yield gpus
        finally:
            self._schedule.release(key)
            self._grant()

    async def acquire(self, key: Key, need: Need, priority: float = 0.0) -> tuple[int, ...]:
        """As `turn`, but the share is held until `free`."""
        future: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._schedule.ask(key, need, priority)
        self._futures[key] = future
        self._grant()
        try:
            return await future
        except BaseException:
            self._leave(key, future)
            raise

    def free(self, key: Key) -> None:
        """Give a share back; one that is not held is nothing to give back."""
        if self._schedule.holds(key):
            self._schedule.release(key)
            self._grant()

    @property
    def held(self) -> Mapping[Key, tuple[Need, tuple[Gpu, ...]]]:
        """What is held now, and by whom."""
        return self._schedule.held

    def left(self, ended: Collection[Key] = ()) -> tuple[float, int | None, tuple[Gpu, ...]]:
        """The processors, bytes of memory (None: nobody knows) and GPUs that nobody holds, once these have ended."""
        return self._schedule.left(ended)

    def would_fit(self, need: Need, ended: Collection[Key] = ()) -> bool:
        """Whether a need fits once these have ended."""
        return self._schedule.would_fit(need, ended)

    @property
    def waiting(self) -> tuple[Need, ...]:
        """The different needs of those that wait."""
        return tuple(self._schedule.needs)

    def is_barred(self, need: Need) -> bool:
        """Whether replicas leave too little for a need, whatever else ends."""
        return not self._schedule.would_fit(need, {key for key in self._schedule.held if key[0] > 0})

    def exchange(self, shares: Mapping[Key, tuple[Need, tuple[int, ...]] | None]) -> None:
        """What holds something holds that from now on, or nothing; nobody starts in between."""
        self._schedule.exchange(shares)
        self._grant()

    @asynccontextmanager
    async def taken(self, key: Key, need: Need, gpus: tuple[int, ...] = ()) -> AsyncIterator[tuple[int, ...]]:
        """Hold a share, and these GPUs, for what runs already."""
        self.hold(key, need, gpus)
        try:
            yield gpus
        finally:
            self._schedule.release(key)
            self._grant()

    def hold(self, key: Key, need: Need, gpus: tuple[int, ...] = ()) -> None:
        """What runs already holds its share from now on, before anything else starts; `taken` goes on with it."""
        if not self._schedule.holds(key):
            self._schedule.take(key, need, gpus)

    def drop(self, run: int) -> None:
        """Nothing drives this run any more: what it still holds is free."""
        for key in [key for key in self._schedule.held if key[0] == run]:
            self._schedule.release(key)
        self._grant()

    def _leave(self, key: Key, future: asyncio.Future[tuple[int, ...]]) -> None:
        """We do not wait any more; if our turn had just come, the next one gets it."""
        self._futures.pop(key, None)
        if future.done() and not future.cancelled():
            self._schedule.release(key)
        else:
            self._schedule.withdraw(key)
        self._grant()

    def _grant(self) -> None:
        for grant in self._schedule.grant():
            future = self._futures.pop(grant.key, None)
            if future is None or future.done():
                self._schedule.release(grant.key)
            else:
                future.set_result(grant.gpus)


class Flights:
    """What is being computed now, by key: two runs that need the same result at once compute it once."""

    def __init__(self) -> None:
        self._flying: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def alone(self, key: str | None) -> AsyncIterator[bool]:
        """Be the only one with this key (None: nobody else has it); gives whether somebody had it before us."""
        waited = False
        while key is not None and key in self._flying:
            waited = True
            await self._flying[key].wait()
        if key is None:
            yield waited
            return
        self._flying[key] = landed = asyncio.Event()
        try:
            yield waited
        finally:
            del self._flying[key]
            landed.set()


@dataclass(frozen=True, slots=True)
class Shared:
    """What all runs of a home share: its capacity, and what is being computed."""

    turns: Turns
    flights: Flights
