"""Holding a home for good: its coordinator, its triggers and its page in one process, until it is told to end."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import tzinfo

import uvicorn

from penstock.engine.coordinator import TICK, Coordinator
from penstock.engine.followers import CoordinatorLock, poke
from penstock.engine.sampling import Sampling
from penstock.engine.triggers import Adopter, Reader, Watch
from penstock.engine.world import World
from penstock.runs import StepStatus
from penstock.server.app import create_app
from penstock.server.states import ServeState, States

LOOK = 0.05
"""Seconds between two tries for the lock, as other followers have it."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What one `serve` does beside coordinating.

    `zone` is the clock of schedules, `period` the seconds between two looks at a repository, `listener` the bound
    socket of the page. `say` is given lines for a person.
    """

    readers: Sequence[Reader]
    zone: tzinfo
    actor: str
    period: float
    listener: socket.socket
    say: Callable[[str], None]


def hold(world: World, duty: Duty) -> None:
    """Hold the home until a signal says to end. What serves goes on serving, and running steps are left running."""
    asyncio.run(_Holder(world, duty).hold())


class _Holder:
    def __init__(self, world: World, duty: Duty) -> None:
        self._world = world
        self._duty = duty
        self._since = world.clock.now()
        self._stop = asyncio.Event()
        self._coordinates = False
        self._watches = [Watch(world, reader, duty.zone, duty.actor, duty.say) for reader in duty.readers]
        self._pokes = [asyncio.Event() for _ in self._watches]

    async def hold(self) -> None:
        """Begin everything, wait for a signal (or a defect), and leave everything as it lives."""
        port = self._duty.listener.getsockname()[1]
        self._duty.say(f"penstock serve (pid {os.getpid()}): http://127.0.0.1:{port}")
        with self._signals(), self._pushes():
            watching = [w.watch(p, self._duty.period) for w, p in zip(self._watches, self._pokes, strict=True)]
            drift = Sampling(self._world, self._duty.say).watch()
            page = _Page(self._states()).show(self._duty.listener)
            parts = [self._coordinate(), self._adopt(), drift, page, *watching]
            tasks = [asyncio.create_task(part) for part in parts]
            try:
                ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()
        self._say_what_is_left()

    # --- the coordinator

    async def _coordinate(self) -> None:
        """Wait for the lock, behind the command that has it, and coordinate until it is time to end."""
        lock = CoordinatorLock(self._world.home.lock)
        try:
            if not await self._acquire(lock):
                return
            self._coordinates = True
            await Coordinator(self._world).coordinate(self._stop.is_set)
        finally:
            self._coordinates = False
            lock.release()

    async def _acquire(self, lock: CoordinatorLock) -> bool:
        """True where we hold the lock, False where it is time to end."""
        told = False
        while not self._stop.is_set():
            if lock.acquire():
                return True
            if not told:
                self._duty.say("another command coordinates this home just now: serve takes over when it has ended")
                told = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK)
        return False

    async def _adopt(self) -> None:
        adopter = Adopter(self._world, self._duty.actor)
        while True:
            for number in adopter.adopt():
                self._duty.say(f"run {number} goes on: the command that asked for it is gone")
            await asyncio.sleep(TICK)

    def _say_what_is_left(self) -> None:
        runs = self._world.store.runs
        running = {
            number: [s.name for s in runs.outline(number) if s.status is StepStatus.RUNNING]
            for number, _, _ in runs.owners()
        }
        left = ", ".join(f"run {number} ({', '.join(names)})" for number, names in running.items() if names)
        self._duty.say("ended; what serves goes on serving")
        if left:
            self._duty.say(f"left running: {left}; the next penstock serve or resume goes on with it")

    # --- the outside

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """TERM, INT and HUP (unless it is ignored, as under nohup) end us; a second one at once."""
        loop = asyncio.get_running_loop()
        names = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            names.append(signal.SIGHUP)
        for name in names:
            loop.add_signal_handler(name, self._end)
        try:
            yield
        finally:
            for name in names:
                loop.remove_signal_handler(name)

    def _end(self) -> None:
        if self._stop.is_set():
            os._exit(130)
        self._stop.set()
        poke(self._world.home.fifo)

    @contextmanager
    def _pushes(self) -> Iterator[None]:
        """Look at every repository when a Git hook writes into the FIFO."""
        with suppress(FileExistsError):
            os.mkfifo(self._world.home.pushed, 0o600)
        # For reading and writing: else a hook that closes it would be an end of file for ever.
        fifo = os.open(self._world.home.pushed, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        loop = asyncio.get_running_loop()
        loop.add_reader(fifo, self._pushed, fifo)
        try:
            yield
        finally:
            loop.remove_reader(fifo)
            os.close(fifo)

    def _pushed(self, fifo: int) -> None:
        os.read(fifo, 65536)
        for event in self._pokes:
            event.set()

    def _states(self) -> States:
        return States(
            self._world, self._watches, lambda: ServeState(os.getpid(), self._since, coordinates=self._coordinates)
        )


class _Page(uvicorn.Server):
    """The page's server, in our event loop; signals are ours, and what it has to tell goes to our log."""

    def __init__(self, states: States) -> None:
        logging.getLogger("uvicorn").handlers[:] = logging.getLogger("penstock").handlers
        logging.getLogger("uvicorn").propagate = False
        super().__init__(
            uvicorn.Config(
                create_app(states.now),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=64,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def show(self, listener: socket.socket) -> None:
        """Answer on a bound socket until cancelled."""
        await self.serve(sockets=[listener])
