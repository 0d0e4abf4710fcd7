"""Clocks that are set, and machines that sleep: no step is ended for it, none is tried too early (FAULTS 15)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from engine.builders import Clock, House
from penstock.runners.scripted import NEVER

HOUR = 3600.0


@dataclass
class Set(Clock):
    """A clock on the wall that is set; the other one, which nobody can set, stands still while the machine sleeps."""

    wall: float = 0.0

    def now(self) -> float:
        return super().now() + self.wall


@pytest.fixture
def home(tmp_path: Path, database: Path) -> Iterator[House]:
    made = House(tmp_path, database)
    yield made
    made.machine.close()
    made.store.close()


def slow(home: House, clock: Set) -> int:
    """A run with one step that has a minute, on this clock; its request."""
    home.world = replace(home.world, clock=clock)
    home.commit(
        {"steps": {"slow": {"run": "slow", "timeout": 60, "retry": {"max": 1, "on": ["exit"], "backoff": 0.01}}}}
    )
    home.machine.script["slow"] = NEVER
    return home.ask_run()


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 8 * HOUR, -400 * 24 * HOUR, 1.0, -1.0])
def test_a_jump_between_two_coordinators(home: House, jump: float) -> None:
    """The wall clock is set, or the machine slept, while nobody coordinated: the step is adopted, not ended."""
    clock = Set()
    request = slow(home, clock)

    async def story() -> None:
        async with home.coordinating():
            await home.machine.arrival("1.slow.1")
        clock.wall = jump
        async with home.coordinating():
            await home.machine.finish("1.slow.1")
            assert (await home.ended(request)).exit_code == 0

    home.play(story())
    assert [(a.number, a.reason) for a in home.store.runs.attempts(1, "slow")] == [(1, "exit")]
    assert all((it.seconds or 0.0) >= 0 for it in home.run_of(request).steps)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_while_a_step_runs(home: House, jump: float) -> None:
    """The wall clock is set while a step runs, and before its second attempt: both have their time."""
    clock = Set()
    request = slow(home, clock)

    async def story() -> None:
        async with home.coordinating():
            await home.machine.arrival("1.slow.1")
            clock.wall = jump
            await home.machine.finish("1.slow.1", 1)
            await home.machine.arrival("1.slow.2")
            clock.wall = -jump
            await home.machine.finish("1.slow.2")
            assert (await home.ended(request)).exit_code == 0

    home.play(story())
    assert [(a.number, a.reason) for a in home.store.runs.attempts(1, "slow")] == [(1, "exit"), (2, "exit")]


def test_time_that_passed_counts(home: House) -> None:
    """The time of a step does pass while nobody coordinates, however the wall clock is set back."""
    clock = Set()
    request = slow(home, clock)

    async def story() -> None:
        async with home.coordinating():
            await home.machine.arrival("1.slow.1")
        clock.ahead, clock.wall = 61.0, -HOUR
        assert (await home.carry_out(request)).exit_code == 1

    home.play(story())
    assert [a.reason for a in home.store.runs.attempts(1, "slow")] == ["timeout"]
