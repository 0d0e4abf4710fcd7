"""The real engine under every misfortune keeps its promises, a seed replays it, and a planted bug is found."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from engine.books import BrokenError
from engine.builders import House, until
from engine.whole import Whole
from penstock.engine import turns
from penstock.engine.coordinator import Coordinator
from penstock.engine.scheduling import Capacity, Schedule
from penstock.runners.scripted import NEVER


@pytest.mark.parametrize("seed", [1, 7, 10])
def test_promises_hold(tmp_path: Path, database: Path, seed: int) -> None:
    """Through kills at crash points, lost and doubled pokes, dead followers, lost bytes and jumping clocks, runs end.

    Each once, each attempt once, nothing twice at a time, never over capacity, and in an order that respects needs.
    """
    home = Whole(tmp_path / "home", database, seed)
    home.play(12)
    assert home.seen["transitions"] > 100
    assert any(what.startswith("killed ") for what in home.seen)


def test_a_seed_replays(tmp_path: Path, database: Path) -> None:
    """The same seed tells the same story, transition by transition; another one tells another."""
    digests = []
    for number, seed in enumerate((3, 3, 4)):
        home = Whole(tmp_path / str(number), database, seed)
        home.play(4)
        digests.append(home.digest)
    assert digests[0] == digests[1] != digests[2]


class Generous(Schedule):
    """Has more of everything than the home."""

    def __init__(self, capacity: Capacity) -> None:
        super().__init__(replace(capacity, cpu=2 * capacity.cpu, memory=2 * capacity.memory))


def test_a_schedule_that_gives_too_much_is_found(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lives on the machine is counted, whatever the schedule believes."""
    monkeypatch.setattr(turns, "Schedule", Generous)
    with pytest.raises(BrokenError, match="never over capacity"):
        Whole(tmp_path / "home", database, 1).play(20)


def test_after_a_restart_what_lives_is_counted_first(house: House) -> None:
    """An older run's ready step does not get the room of a newer run's step that is found again after a restart."""
    whole = {"inputs": [], "cache": False, "resources": {"cpu": 2}}
    house.commit({"steps": {name: {"run": name, **whole} for name in ("first", "next", "last")}})
    house.machine.script.update({"first": NEVER, "next": NEVER, "last": NEVER})
    house.ask_run()

    async def story() -> None:
        coordinator = Coordinator(house.world)
        over = asyncio.create_task(coordinator.coordinate(lambda: house.machine.runs("2.first.1")))
        await house.machine.arrival("1.first.1")
        house.ask_run()
        waiting = coordinator._shared.turns._schedule.waiting
        await until(lambda: {(1, "next"), (1, "last"), (2, "first")} <= set(waiting))
        await house.machine.finish("1.first.1")
        await house.machine.finish("1.next.1")
        await over
        async with house.coordinating():
            await house.ended(house.ask("rerun", {"run": 1}))
            await house.ended(house.ask("rerun", {"run": 2}))
            assert not house.machine.runs("1.last.1")
            await house.machine.finish("2.first.1")

    house.play(story())
