"""Runs, words, releases, ways back and time in any order: nothing is released without a word that was meant for it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import pytest

from engine.builders import Clock, House
from penstock.approvals import ApprovalStatus, Pinned
from penstock.engine.approving import UnapprovedError, decide, insist, sought, tend, use
from penstock.engine.followers import myself
from penstock.engine.world import World
from penstock.environments import ApprovalRules
from penstock.errors import StateError
from penstock.plans import PlannedStep, StepKind
from penstock.releases import ReleaseStatus
from penstock.runs import ENDED_RUN, RunStatus
from penstock.store.contract import Project, Run, Target

PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
HERE = ("p1", "production")
RULES = ApprovalRules(expires=10 * 3600.0)


@dataclass
class Desk:
    """One environment that needs approval, and runs that come to it; what a driver does is done by hand."""

    world: World
    clock: Clock

    def request(self, kind: str, **payload: object) -> int:
        return self.world.store.requests.add(kind, payload, myself(), "ada")

    def arrive(self) -> None:
        """A run is asked for; it comes to the environment later, or never."""
        store = self.world.store
        values = {"request": self.request("run"), "project": "p1", "owner": myself(), "version": "0.1", "commit": {}}
        more = {"change": [], "trigger": "manual", "mirror": "m", "pipeline": {"environments": {"production": {}}}}
        rest: dict[str, object] = {"options": {}, "notes": []}
        number = store.runs.add({**values, **more, **rest}, (PlannedStep("check", StepKind.CHECK, "build", ()),), ())
        store.runs.set_package(number, f"package {number}", 1)
        store.runs.move(number, "start")
        store.runs.set_target(Target(number, "production", 0, "queued", None, None))

    def pinned(self, run: Run) -> Pinned:
        newest = self.world.store.releases.newest_number(*HERE, run.request)
        return Pinned("production", str(run.package), run.version, "sha256:same", newest)

    def drive(self, run: Run) -> None:
        """What the driver of a run does next: ask, release or give up."""
        store = self.world.store
        (target,) = store.runs.targets(run.id)
        if run.status is RunStatus.QUEUED:
            store.runs.move(run.id, "start")
        elif run.status is not RunStatus.RUNNING:
            return
        try:
            asked = sought(self.world, run, target, self.pinned(run), RULES)
            if asked.status is ApprovalStatus.PENDING:
                store.runs.move(run.id, "wait")
                return
            insist(self.world, asked.id, self.pinned(run))
        except UnapprovedError as error:
            newer = "newer release" in str(error)
            store.runs.set_target(replace(target, status="unapproved", reason=str(error)))
            store.runs.move(run.id, "supersede" if newer else "fail")
            return
        self.release(run, asked.id)

    def release(self, run: Run, asked: int) -> None:
        store = self.world.store
        spec = {"project": "p1", "environment": "production", "generation": run.request, "request": run.request}
        more = {"run": run.id, "version": "0.1", "package": run.package, "spec": {"port": 1}, "actor": "ada"}
        with store.transaction(durable=True):
            use(store, asked)
            release = store.releases.add({**spec, **more})
        wins = store.releases.advance(*HERE, run.request)
        for old in store.releases.of(*HERE) if wins else ():
            if old.status is ReleaseStatus.SERVING:
                store.releases.move(old.id, "replace")
                store.releases.move(old.id, "retire")
        store.releases.move(release.id, "promote" if wins else "reject")
        store.runs.move(run.id, "pass" if wins else "supersede")

    def say(self, run: Run, *, reject: bool) -> None:
        number = self.request("approve", run=run.id, environment="production", reject=reject)
        with suppress(StateError):
            decide(self.world, self.world.store.requests.get(number))

    def go_back(self) -> None:
        """A rollback: a newer command than all runs that have come so far."""
        self.world.store.releases.advance(*HERE, self.request("rollback"))

    def wait(self) -> None:
        self.clock.ahead += 3 * 3600.0

    def look_over(self) -> None:
        """Every release had a yes that was meant for it; nobody is asked twice at once, or for what has ended."""
        store = self.world.store
        used = [a for a in store.approvals.of(*HERE) if a.status is ApprovalStatus.USED]
        assert sorted(a.run for a in used) == sorted(r.run for r in store.releases.of(*HERE))
        for asked in used:
            (release,) = [r for r in store.releases.of(*HERE) if r.run == asked.run]
            assert (asked.decided_by, asked.pinned.package) == ("ada", release.package)
            before = [r.id for r in store.releases.of(*HERE) if r.id < release.id]
            assert asked.pinned.over == max(before, default=None)
        waiting = [r.id for r in store.runs.open() if r.status is RunStatus.WAITING]
        assert [a.run for a in store.approvals.pending()] == waiting
        assert len(waiting) <= 1
        for run in store.runs.latest(limit=5):
            (target,) = store.runs.targets(run.id)
            assert run.status not in ENDED_RUN or target.status != "waiting"
            assert run.status is not RunStatus.WAITING or target.status == "waiting"


STEPS = {"arrive": 3, "drive": 6, "yes": 9, "no": 1, "back": 1, "time": 1}
"""What happens, and how often beside the others."""


@pytest.mark.parametrize("seed", range(2))
def test_any_order(house: House, seed: int) -> None:
    """Whatever happens in whatever order, and however often: each release has one yes, given over what was there."""
    dice, clock = Random(seed), Clock()  # noqa: S311 - dice that can be thrown again, no secret
    house.store.runs.project(PROJECT)
    desk = Desk(replace(house.world, clock=clock), clock)
    desk.arrive()
    for step in dice.choices(list(STEPS), list(STEPS.values()), k=250):
        run = dice.choice(house.store.runs.open()[-4:] or house.store.runs.latest(limit=1))
        acts: dict[str, Callable[[], object]] = {
            "arrive": desk.arrive,
            "drive": partial(desk.drive, run),
            "yes": partial(desk.say, run, reject=False),
            "no": partial(desk.say, run, reject=True),
            "back": desk.go_back,
            "time": desk.wait,
        }
        acts[step]()
        tend(desk.world)
        desk.look_over()
    ends = {a.status for a in house.store.approvals.of(*HERE)}
    assert {ApprovalStatus.USED, ApprovalStatus.VOID} <= ends
