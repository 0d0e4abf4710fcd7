"""Invented time: an event loop whose clock leaps to the next timer, and clocks and followers to go with it.

Everything happens in one thread, in an order that depends on nothing outside: threads are calls, waits are leaps.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from penstock.engine import followers


class Leaping(selectors.SelectSelector):
    """Looks at its files, and where none is ready, time leaps to when the next timer is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("everybody waits, and nothing will ever happen")
            self.now += timeout
        return ready


class InventedLoop(asyncio.SelectorEventLoop):
    """An event loop in invented time, from 0 on. What is given to a thread happens at once."""

    def __init__(self) -> None:
        self._leaping = Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - a thread hands over whatever was raised
            future.set_exception(error)
        return future


def play(story: Coroutine[Any, Any, Any]) -> Any:
    """Let a story happen in invented time; gives what it gives."""
    with asyncio.Runner(loop_factory=InventedLoop) as runner:
        return runner.run(story)


class InventedClock:
    """The engine's `Clock` over a loop's time; the wall clock may `jump`."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._offset = start

    def now(self) -> float:
        return self.monotonic() + self._offset

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def jump(self, seconds: float) -> None:
        self._offset += seconds


@contextmanager
def invented_machine(clock: InventedClock, living: set[int]) -> Iterator[None]:
    """The machine's own time is the clock's, and of all processes these live; each began when its number says."""
    real = time.time

    def now() -> float:
        try:
            return clock.now()
        except RuntimeError:  # between two loops
            return real()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", now)
        patch.setattr(followers, "start_time", lambda pid: pid if pid in living else None)
        yield
