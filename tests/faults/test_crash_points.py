"""Kill -9 at crash points: nothing lost, nothing doubled, nothing stuck (FAULTS 1, in a sample).

The sample is the same each time; `CRASH_SEED=7 pytest …` takes another. `benchmarks/crash_matrix.py` plays all of it.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.crashes import Case, Workshop, cases
from penstock.cli.wiring import crasher

SEED = os.environ.get("CRASH_SEED", "1")
ROLLOUTS = ("canary", "canary", "shadow", "recreate")
SAMPLE = ("steps",) * 14 + ("serve",) * 5 + ("cancel",) * 2 + ("replace", "rollback", "alone", *ROLLOUTS)


class Points:
    """A workshop, and its points looked up once."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self._known: dict[str, list[tuple[str, int]]] = {}

    def of(self, scenario: str) -> list[tuple[str, int]]:
        if scenario not in self._known:
            self._known[scenario] = self.workshop.points(scenario)
        return self._known[scenario]

    def case(self, scenario: str, dice: random.Random) -> Case:
        return dice.choice(cases([(scenario, *point) for point in self.of(scenario)], [dice.randrange(1, 4)]))


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Points]:
    with Workshop(tmp_path_factory.mktemp("crashes")) as workshop:
        yield Points(workshop)


@pytest.mark.parametrize("number", range(len(SAMPLE)))
def test_a_kill_at_a_crash_point(points: Points, number: int) -> None:
    """After kill -9 of the coordinator, a shim or a step, and the next command: all is as if nothing had happened."""
    case = points.case(SAMPLE[number], random.Random(f"{SEED} {number}"))  # noqa: S311 - a seeded order, no secret
    found = points.workshop.play(case)
    assert found.sound, f"{case}, killed {found.killed}: {[*found.lost, *found.doubled, *found.stuck]}"


def test_every_transition_and_effect_is_a_point(points: Points) -> None:
    """The points are each transition before and after its commit, and each effect after it and after its record."""
    passed = {point for scenario in ("steps", "serve", "replace") for point, _ in points.of(scenario)}
    for kind, event in (("step", "start"), ("step", "pass"), ("attempt", "started"), ("release", "promote")):
        assert {f"{kind}.{event}:before_commit", f"{kind}.{event}:after_commit"} <= passed
    for effect in ("workspace.lay_out", "process.start", "process.end", "outputs.collect", "router.apply"):
        assert f"{effect}:after_effect" in passed
    assert {"process.start:after_recorded", "replica.start:after_recorded"} <= passed
    assert sum(len(points.of(scenario)) for scenario in ("steps", "serve", "replace")) > 100


def test_no_crash_without_being_asked() -> None:
    """Where PENSTOCK_CRASH is not set there is no crash point, and another point than the named one kills nobody."""
    assert crasher(None) is None
    crash = crasher("step.pass:after_commit#2")
    assert crash is not None
    crash("step.pass:after_commit")
    crash("step.start:after_commit")


def test_the_named_point_kills(points: Points, tmp_path: Path) -> None:
    """PENSTOCK_CRASH=POINT#N kills the real command with -9 at that passing, and only there."""
    place = points.workshop.place("steps", contain=False)
    environment = {**place.environment, "PENSTOCK_CRASH": "step.pass:after_commit#2"}
    command = points.workshop.forks.start(
        ("run",), place.repo.folder, environment, (tmp_path / "out", tmp_path / "err")
    )
    assert command.wait(30) == -9
    assert place.rows("SELECT count(*) FROM steps WHERE status = 'passed'") == [(2,)]
    place.type("resume").ends()
    place.gone()
