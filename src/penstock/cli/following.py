"""Following a request to its end: waiting for the coordinator, or being it."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from penstock.engine.contracts import Handle
from penstock.engine.coordinator import Coordinator
from penstock.engine.followers import CoordinatorLock, myself, poke
from penstock.engine.world import World
from penstock.runs import AttemptStatus
from penstock.store.contract import Request

LOOK = 0.02
"""Seconds between two tries for the lock: a coordinator that died is replaced within that time."""
SHOW = 0.12
"""Seconds between two pictures, at least."""
SHARE = 40
"""A picture may take one part in so many of the time: a run of thousands of steps is shown less often."""


class Follower:
    """One command that asked for something and waits for it."""

    def __init__(self, world: World, actor: str, show: Callable[[Request], None]) -> None:
        self._world = world
        self._actor = actor
        self._show = show
        self._interrupts = 0
        self._interrupt_request: int | None = None
        self._hurry: list[asyncio.Future[None]] = []

    def ask(self, kind: str, payload: Mapping[str, Any]) -> Request:
        """Insert the request, then follow it to its end. Returns it as it ended.

        Ctrl-C (or TERM) interrupts a run: its processes end and `resume` can go on. A second one kills them without
        the time to end by themselves, a third one leaves at once.
        """
        with self._world.store.transaction():
            number = self._world.store.requests.add(kind, payload, myself(), self._actor)
        poke(self._world.home.fifo)
        return asyncio.run(self._follow(number))

    async def _follow(self, number: int) -> Request:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, self._interrupt, number)
        lock = CoordinatorLock(self._world.home.lock)
        request = self._world.store.requests.get(number)
        try:
            while not self._is_over(number):
                if lock.acquire():
                    await self._coordinate(number)
                else:
                    self._show(request)
                    await asyncio.sleep(LOOK)
        finally:
            lock.release()
            poke(self._world.home.fifo)
        request = self._world.store.requests.get(number)
        self._show(request)
        return request

    async def _coordinate(self, number: int) -> None:
        """Be the coordinator until our request is over.

        What was loaded until now stays: the collector need not look at it again, nor at every seventh hundred object.
        """
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        task = asyncio.create_task(Coordinator(self._world).coordinate(lambda: self._is_over(number)))
        try:
            request = self._world.store.requests.get(number)
            while not task.done():
                began = time.perf_counter()
                self._show(request)
                pause = max(SHOW, SHARE * (time.perf_counter() - began))
                await asyncio.wait({task}, timeout=pause)
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _is_over(self, number: int) -> bool:
        requests = self._world.store.requests
        asked = self._interrupt_request
        return not requests.is_open(number) or (asked is not None and not requests.is_open(asked))

    def _interrupt(self, number: int) -> None:
        self._interrupts += 1
        if self._interrupts > 2:
            os._exit(130)
        if self._interrupts > 1:
            self._hurry = [asyncio.ensure_future(self._world.runner.end(h, 0)) for h in self._live(number)]
            return
        payload = self._interrupted(number)
        with self._world.store.transaction():
            self._interrupt_request = self._world.store.requests.add("interrupt", payload, myself(), self._actor)
        poke(self._world.home.fifo)

    def _live(self, number: int) -> list[Handle]:
        """The processes that live for our request."""
        runs = self._world.store.runs
        wanted = self._interrupted(number).get("runs") or [run for run in [runs.number_of(number)] if run]
        attempts = [a for run in wanted for a in runs.attempts(run)]
        return [Handle(**a.handle) for a in attempts if a.handle and a.status is AttemptStatus.RUNNING]

    def _interrupted(self, number: int) -> dict[str, Any]:
        """Which runs Ctrl-C means: the request's own, the one that it approves, or those that `resume` took up."""
        request = self._world.store.requests.get(number)
        if request.kind == "approve":
            return {"runs": [int(request.payload["run"])]}
        if request.kind != "resume":
            return {"request": number}
        me = myself()
        return {"runs": [r.id for r in self._world.store.runs.open() if r.owner == me and r.status != "waiting"]}
