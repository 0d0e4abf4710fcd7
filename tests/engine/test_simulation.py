"""A home under every misfortune keeps its promises, a seed replays it, and a planted bug is found."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.books import BrokenError
from engine.mind import Rules
from engine.simulation import Simulation
from penstock.engine.scheduling import Capacity, Gpu, Need, Schedule
from penstock.runs import Frontier, StepState

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "simulation.py"


@pytest.mark.parametrize("seed", range(1, 7))
def test_promises_hold(seed: int) -> None:
    """Through crashes, lost, late and doubled messages and jumping clocks every promise holds, and every run ends."""
    home = Simulation(seed)
    home.play(5000)
    home.settle()
    assert not home.facts.runs
    assert len(home.facts.ended) > 100
    assert {"killed at a point", "room kept", "starts", "barred"} >= home.seen.keys()


def test_a_seed_replays() -> None:
    """The same seed deals the same events with the same ends, in any process; another seed deals others."""
    digests = []
    for seed, hashes in ((3, "1"), (3, "2"), (4, "1")):
        command = [sys.executable, str(BENCHMARK), "--events", "1500", "--seed", str(seed)]
        shown = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, check=True)
        digests.append(shown.stdout.split(b"digest")[1])
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


class Generous(Schedule):
    """Has one processor more than the home."""

    def __init__(self, capacity: Capacity) -> None:
        super().__init__(replace(capacity, cpu=capacity.cpu + 1))


class Sharing(Schedule):
    """Gives out accelerators that somebody has."""

    def _choose(self, need: Need) -> tuple[Gpu, ...]:
        return tuple(g for g in self._capacity.gpus if need.gpu_kind in {None, g.kind})[: need.gpus]


class Idle(Schedule):
    """Lets one start where two could."""

    _left = 1

    def _next(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        self._left = 1 - self._left
        return None if self._left else super()._next()


class Careless(Schedule):
    """Keeps room, and gives it to others."""

    def _leaves_enough(self, need: Need) -> bool:  # noqa: ARG002
        return True


class Forgetful(Frontier):
    """Does not take back what was put off."""

    def requeue(self, name: str) -> None: ...


class Hasty(Frontier):
    """Opens a step again and does not tell those that need it."""

    def reopen(self, before: StepState) -> None:
        self.requeue(before.name)


@pytest.mark.parametrize(
    ("rules", "promise"),
    [
        (Rules(schedule=Generous), "never over capacity"),
        (Rules(schedule=Sharing), "an accelerator belongs to one step at a time"),
        (Rules(schedule=Idle), "nothing is idle while something fits"),
        (Rules(schedule=Careless), "the one for whom room is kept starts"),
        (Rules(frontier=Forgetful), "what is ready waits for its turn"),
        (Rules(frontier=Hasty), "needs|ends"),
    ],
    ids=["generous", "sharing", "idle", "careless", "forgetful", "hasty"],
)
def test_a_planted_bug_is_found(rules: Rules, promise: str) -> None:
    """Each worse part breaks the promise that it should, within some thousand events."""
    home = Simulation(1, rules)
    with pytest.raises(BrokenError, match=promise):
        home.play(20_000)
