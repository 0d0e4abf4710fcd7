"""Triggers: which commits and times make a run, and that each does so once, whatever happens in between."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.builders import PATIENCE, Command, House, until
from penstock.cli.watching import Repository
from penstock.commits import Change, Trigger
from penstock.engine import triggers
from penstock.engine.contracts import Located
from penstock.engine.triggers import Adopter, Sight, Watch, missed_last, new_commits, why_not_pushed
from penstock.errors import SourceError
from penstock.parts import Push, Triggers
from penstock.runs import RequestStatus
from penstock.store.contract import NOBODY, DriftLook, Project, Request

STEPS: dict[str, Any] = {"steps": {"say": {"run": "say it"}}}
BERLIN = ZoneInfo("Europe/Berlin")


def touched(*paths: str) -> Change:
    return Change(paths)


def refused(on: Triggers | None, branch: str = "main", *paths: str) -> str | None:
    return why_not_pushed(on, branch, "main", lambda: touched(*paths))


# --- which commits -------------------------------------------------------------------------------------------------


def test_without_on_the_default_branch_is_run() -> None:
    """A file that says nothing runs what is pushed to the default branch, and nothing else."""
    assert refused(None) is None
    assert refused(None, "idea") == "its file has no on.push, and idea is not the default branch"
    assert why_not_pushed(None, "main", None, touched) is not None


def test_a_file_with_a_schedule_alone_runs_no_push() -> None:
    """`on` without `push` means that pushes are not run."""
    assert refused(Triggers(schedule={"nightly": "0 3 * * *"})) == "its file has no on.push"


def test_branches_are_patterns() -> None:
    """`release/*` names one level, `push: {}` every branch."""
    on = Triggers(push=Push(branches=("main", "release/*")))
    assert [refused(on, b) is None for b in ("main", "release/1", "release/1/a", "idea")] == [True, True, False, False]
    assert refused(Triggers(push=Push()), "anything/at/all") is None


def test_paths_decide_by_what_the_commit_touches() -> None:
    """One path that fits is enough; none that fits, or a commit that touches nothing, makes no run."""
    on = Triggers(push=Push(paths=("src/**", "penstock.yaml")))
    assert refused(on, "main", "docs/a.md", "src/deep/b.py") is None
    assert refused(on, "main", "docs/a.md") == "it touches none of on.push.paths: src/**, penstock.yaml"
    assert refused(on, "main") is not None


def test_what_a_commit_touches_is_read_only_for_paths() -> None:
    """Where no paths are given, the change is never asked for."""

    def read() -> Change:
        raise AssertionError("not needed")

    assert why_not_pushed(Triggers(push=Push()), "main", "main", read) is None


# --- which of them are new -----------------------------------------------------------------------------------------


def news(branches: dict[str, str], seen: dict[str, str], branch: str = "main") -> list[str]:
    """The new commits, where the repository says of each what it is asked."""

    def since(tip: str, known: Sequence[str]) -> list[str]:
        return [] if tip in known else [f"{tip}^{'^'.join(known)}", tip]

    sight = Sight("p", Located("i", "n", Path("m"), "l"), branches, "main")
    return list(new_commits(sight, branch, seen, since))


def test_a_branch_goes_on_where_it_was_left_off() -> None:
    """What came since the last decided commit of the branch itself, however much other branches had of it."""
    assert news({"main": "c3"}, {"main": "c1", "idea": "c2"}) == ["c3^c1", "c3"]
    assert news({"main": "c3"}, {"main": "c3"}) == []


def test_a_new_branch_has_what_no_other_had() -> None:
    """A branch of a repository that is known has its own commits, and its tip where it has none of its own."""
    assert news({"main": "c1", "idea": "c3"}, {"main": "c1"}, "idea") == ["c3^c1", "c3"]
    assert news({"main": "c1", "release/1": "c1"}, {"main": "c1"}, "release/1") == ["c1"]


# --- which times ---------------------------------------------------------------------------------------------------


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_last_missed_time_counts() -> None:
    """However many times were missed, only the last is run."""
    assert missed_last("0 * * * *", at("2026-01-05 00:30"), at("2026-01-05 05:10"), UTC) == at("2026-01-05 05:00")


def test_a_time_missed_long_ago_is_let_go() -> None:
    """What was due more than a day ago is not run any more; what was due just within a day still is."""
    weekly, seen = "0 3 * * 1", at("2026-01-01 00:00")  # Monday the 5th
    assert missed_last(weekly, seen, at("2026-01-06 02:59"), UTC) == at("2026-01-05 03:00")
    assert missed_last(weekly, seen, at("2026-01-06 03:01"), UTC) is None


def test_a_time_is_run_once() -> None:
    """A due time that was seen to does not come again, also when the clock is set back."""
    due = at("2026-01-05 03:00")
    assert missed_last("0 3 * * *", due, at("2026-01-05 03:00"), UTC) is None
    assert missed_last("0 3 * * *", due, at("2026-01-05 02:59"), UTC) is None
    assert missed_last("0 3 * * *", due, at("2026-01-06 02:59"), UTC) is None


# --- a watched repository ------------------------------------------------------------------------------------------


class Watching:
    """A watch on the house's repository, with the house's clock and a diary of what was said."""

    def __init__(self, house: House, **more: Any) -> None:
        self.house = house
        self.said: list[str] = []
        reader = Repository(house.world.source, str(house.repo.folder), None, house.environment)
        self.watch = Watch(replace(house.world, **more), reader, BERLIN, "ada", self.said.append)

    def poll(self) -> list[tuple[str, str]]:
        """Look once; all requests so far, as branch and title of their commits."""
        asyncio.run(self.watch.poll())
        return self.asked()

    def tick(self) -> list[tuple[str, str]]:
        asyncio.run(self.watch.tick())
        return self.asked()

    def requests(self) -> list[Request]:
        return self.house.store.requests.open()

    def asked(self) -> list[tuple[str, str]]:
        commits = [r.payload["commit"] for r in self.requests()]
        return [(c["branch"], c["title"]) for c in commits]


def file(house: House, title: str, on: dict[str, Any] | None = None, **files: str) -> str:
    """Commit a pipeline with these triggers."""
    house.commit({**STEPS, **({} if on is None else {"on": on})}, **files)
    house.repo.git("commit", "--quiet", "--amend", "--allow-empty", "-m", title)
    return house.repo.git("rev-parse", "HEAD")


def test_every_commit_of_a_push_is_asked_for_in_order(house: House) -> None:
    """First the tip alone; then three commits at once, each with its own request, oldest first, and never again."""
    file(house, "before")
    file(house, "one")
    watching = Watching(house)
    assert watching.poll() == [("main", "one")]
    for title in ("two", "three", "four"):
        file(house, title)
    everything = [("main", title) for title in ("one", "two", "three", "four")]
    assert watching.poll() == everything
    assert watching.poll() == everything
    assert Watching(house).poll() == everything


def test_a_request_is_the_one_that_run_makes(house: House) -> None:
    """What a push asks for differs from `penstock run` in its trigger alone."""
    file(house, "one")
    Watching(house).poll()
    (pushed,) = house.store.requests.open()
    typed = house.store.requests.get(house.ask_run(step=None, to=None, no_deploy=False, no_cache=False))
    assert {**pushed.payload, "trigger": "manual"} == typed.payload
    assert (pushed.payload["trigger"], pushed.follower) == ("push", typed.follower)


def test_each_commit_is_judged_by_its_own_file(house: House) -> None:
    """A commit that turns pushes off is not run, the one before it is, and the reason is kept."""
    file(house, "one")
    watching = Watching(house)
    watching.poll()
    file(house, "two", {"push": {"paths": ["src/"]}}, src__a="1")
    file(house, "three", {"push": {"paths": ["src/"]}}, docs__a="1")
    file(house, "four", {"schedule": {"nightly": "0 3 * * *"}})
    assert watching.poll() == [("main", "one"), ("main", "two")]
    reasons = [seen.reason for seen in house.store.triggers.passed_over(10)]
    assert reasons == ["its file has no on.push", "it touches none of on.push.paths: src/"]
    assert "is not run: it touches none of" in watching.said[2]


def test_a_broken_file_makes_no_run_and_holds_up_nothing(house: House) -> None:
    """A commit whose file is wrong or missing is told with its sentence, and the next commit is run."""
    file(house, "one")
    watching = Watching(house)
    watching.poll()
    house.repo.commit("broken", **{"penstock.yaml": "steps: {\n"})
    house.repo.git("rm", "--quiet", "penstock.yaml")
    house.repo.git("commit", "--quiet", "-m", "none")
    file(house, "good again")
    assert watching.poll() == [("main", "one"), ("main", "good again")]
    missing, broken = [seen.reason for seen in house.store.triggers.passed_over(10)]
    assert broken.startswith("penstock.yaml:")
    assert "has no penstock.yaml" in missing


def test_branches_are_watched_apart(house: House) -> None:
    """A commit is run once on each branch that it comes to; a new branch is run from where it left the others."""
    on = {"push": {"branches": ["main", "release/*"]}}
    file(house, "one", on)
    watching = Watching(house)
    watching.poll()
    house.repo.git("checkout", "--quiet", "-b", "release/1")
    file(house, "fix", on)
    house.repo.git("checkout", "--quiet", "-b", "idea")
    file(house, "idea", on)
    assert watching.poll() == [("main", "one"), ("release/1", "fix")]
    house.repo.git("checkout", "--quiet", "main")
    house.repo.git("merge", "--quiet", "--ff-only", "release/1")
    assert watching.poll() == [("main", "one"), ("release/1", "fix"), ("main", "fix")]


def test_a_new_repository_shows_only_its_tips(house: House) -> None:
    """History from before anybody watched is not run, of no branch, also where the first look was cut short."""
    on: dict[str, Any] = {"push": {}}
    file(house, "root", on)
    file(house, "main", on)
    for branch in ("a", "b"):
        house.repo.git("checkout", "--quiet", "-b", branch, "main")
        file(house, f"{branch} 1", on)
        file(house, f"{branch} 2", on)
    house.repo.git("checkout", "--quiet", "--orphan", "c")
    file(house, "c", on)

    class Died(BaseException):
        """A kill after the second of four."""

    def crash(point: str, left: list[int] = [4]) -> None:  # noqa: B006 (it counts)
        left[0] -= 1
        if not left[0]:
            raise Died

    with pytest.raises(Died):
        Watching(house, crash=crash).poll()
    assert Watching(house).poll() == [("main", "main"), ("a", "a 2"), ("b", "b 2"), ("c", "c")]


def test_branches_that_come_at_once_share_their_commits(house: House) -> None:
    """Of two new branches, one on top of the other, every commit is run once, and the tips of both."""
    on: dict[str, Any] = {"push": {}}
    file(house, "one", on)
    watching = Watching(house)
    watching.poll()
    house.repo.git("checkout", "--quiet", "-b", "idea")
    file(house, "two", on)
    file(house, "three", on)
    house.repo.git("checkout", "--quiet", "-b", "release")
    file(house, "four", on)
    assert watching.poll() == [("main", "one"), ("idea", "two"), ("idea", "three"), ("release", "four")]


def test_a_merge_is_one_commit_of_its_branch(house: House) -> None:
    """The commits that a merge brings were never tips of main: the merge alone is run there."""
    file(house, "one")
    watching = Watching(house)
    watching.poll()
    house.repo.git("checkout", "--quiet", "-b", "idea")
    house.repo.commit("idea 1", a="1")
    house.repo.commit("idea 2", a="2")
    house.repo.git("checkout", "--quiet", "main")
    house.repo.git("merge", "--quiet", "--no-ff", "-m", "merged", "idea")
    assert watching.poll() == [("main", "one"), ("main", "merged")]


def test_rewritten_history_runs_what_is_new_in_it(house: House) -> None:
    """After a forced push the other commits are run, and none twice when it is forced back."""
    file(house, "one")
    old = file(house, "two")
    watching = Watching(house)
    watching.poll()
    house.repo.git("reset", "--quiet", "--hard", "HEAD~1")
    house.repo.commit("other", a="1")
    house.repo.commit("another", a="2")
    forced = [("main", "two"), ("main", "other"), ("main", "another")]
    assert watching.poll() == forced
    house.repo.git("reset", "--quiet", "--hard", old)
    assert watching.poll() == forced
    house.repo.commit("on top", a="3")
    assert watching.poll() == [*forced, ("main", "on top")]


def test_a_mirror_made_anew_runs_the_tip(house: House) -> None:
    """Where the last decided commit is nowhere any more, what is new cannot be told: the tip alone is run."""
    file(house, "one")
    gone = file(house, "two")
    watching = Watching(house)
    watching.poll()
    house.repo.git("reset", "--quiet", "--hard", "HEAD~1")
    house.repo.git("reflog", "expire", "--expire=now", "--all")
    house.repo.git("gc", "--quiet", "--prune=now")
    assert gone not in house.repo.git("rev-list", "--all")
    house.world.home.sources.rename(house.folder / "away")
    house.repo.commit("three", a="3")
    house.repo.commit("four", a="4")
    assert watching.poll() == [("main", "two"), ("main", "four")]


def test_a_repository_without_commits_is_waited_for(house: House) -> None:
    """An empty repository is a problem that is told once and ends with the first push."""
    watching = Watching(house)
    assert house.repo.folder.exists()
    with pytest.raises(SourceError, match="has no commits yet"):
        watching.poll()
    file(house, "one")
    assert watching.poll() == [("main", "one")]
    assert watching.watch.problem is None


def test_no_more_than_a_window_is_asked_for_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long push waits in the repository until earlier requests have ended, and then goes on in order."""
    monkeypatch.setattr(triggers, "WINDOW", 2)
    file(house, "one")
    watching = Watching(house)
    watching.poll()
    for title in ("two", "three", "four"):
        file(house, title)
    assert watching.poll() == [("main", "one"), ("main", "two")]
    assert watching.poll() == [("main", "one"), ("main", "two")]
    house.store.requests.end(watching.requests()[0].id, 0)
    assert watching.poll() == [("main", "two"), ("main", "three")]


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_death_around_the_commit_neither_loses_nor_doubles(house: House, when: str) -> None:
    """Whatever dies right before or after the transaction: the next one asks for exactly what is missing."""
    for title in ("one", "two"):
        file(house, title)

    class Died(BaseException):
        """Nothing of ours catches it, as nothing catches a kill."""

    def crash(point: str) -> None:
        if point == f"trigger.push:{when}":
            raise Died

    with pytest.raises(Died):
        Watching(house, crash=crash).poll()
    assert len(Watching(house).requests()) == (0 if when == "before_commit" else 1)
    assert Watching(house).poll() == [("main", "two")]


# --- schedules -----------------------------------------------------------------------------------------------------

NIGHTLY = {"push": {"branches": ["other"]}, "schedule": {"nightly": "30 2 * * *"}}


class SetClock:
    """A clock that stands where it is set."""

    def __init__(self) -> None:
        self.moment = at("2026-01-01 12:00")

    def now(self) -> float:
        return self.moment

    def monotonic(self) -> float:
        return self.moment


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def test_a_schedule_runs_the_default_branch_when_it_is_due(house: House, clock: SetClock) -> None:
    """The newest commit of the default branch, once per due time, as a scheduled run; never when first seen."""
    file(house, "one", NIGHTLY)
    watching = Watching(house, clock=clock)
    assert watching.poll() == []
    assert watching.tick() == []
    clock.moment = at("2026-01-02 01:29:59")
    assert watching.tick() == []
    clock.moment = at("2026-01-02 01:30:00")  # 02:30 in Berlin
    assert watching.tick() == [("main", "one")]
    assert watching.requests()[0].payload["trigger"] == Trigger.SCHEDULE
    assert watching.tick() == [("main", "one")]
    clock.moment = at("2026-01-03 01:31:00")
    assert len(watching.tick()) == 2


def test_a_schedule_missed_while_nobody_was_there_runs_once(house: House, clock: SetClock) -> None:
    """After three days away the last due time is run, by whoever comes next, and only that."""
    file(house, "one", NIGHTLY)
    watching = Watching(house, clock=clock)
    watching.poll()
    watching.tick()
    clock.moment = at("2026-01-05 00:10")
    later = Watching(house, clock=clock)
    later.poll()
    assert later.tick() == [("main", "one")]
    assert later.tick() == [("main", "one")]
    clock.moment = at("2026-01-08 04:00")
    much_later = Watching(house, clock=clock)
    much_later.poll()
    assert len(much_later.tick()) == 2


def test_a_changed_schedule_begins_anew(house: House, clock: SetClock) -> None:
    """Moving a schedule to an hour that has passed today does not run it today."""
    file(house, "one", NIGHTLY)
    watching = Watching(house, clock=clock)
    watching.poll()
    watching.tick()
    file(house, "two", {**NIGHTLY, "schedule": {"nightly": "0 11 * * *"}})
    watching.poll()
    assert watching.tick() == []
    clock.moment = at("2026-01-02 10:00")  # 11:00 in Berlin
    assert watching.tick() == [("main", "two")]


def test_a_clock_set_back_runs_nothing_again(house: House, clock: SetClock) -> None:
    """A machine whose clock jumps back by an hour and comes to the same time again runs it once."""
    file(house, "one", NIGHTLY)
    watching = Watching(house, clock=clock)
    watching.poll()
    watching.tick()
    for moment in ("2026-01-02 01:31", "2026-01-02 00:31", "2026-01-02 01:30", "2026-01-02 01:32"):
        clock.moment = at(moment)
        assert len(watching.tick()) == 1


def test_a_schedule_goes_with_its_file(house: House, clock: SetClock) -> None:
    """When the newest file has no schedule, or cannot be read, nothing is due."""
    file(house, "one", NIGHTLY)
    watching = Watching(house, clock=clock)
    watching.poll()
    watching.tick()
    house.repo.commit("broken", **{"penstock.yaml": "steps: {\n"})
    watching.poll()
    clock.moment = at("2026-01-02 01:31")
    assert watching.tick() == []


# --- watching for good ---------------------------------------------------------------------------------------------


# --- drift ---------------------------------------------------------------------------------------------------------

DRIFT = {"push": {"branches": ["other"]}, "drift": "production"}
PLACE: dict[str, Any] = {
    "package": {"code": "penstock.yaml", "serve": "x"},
    "environments": {"production": {"port": 8801, "drift": "penstock.yaml"}},
}


class Drifting(Watching):
    """A watch on a project whose production serves a release."""

    def __init__(self, house: House, **more: Any) -> None:
        house.commit({**STEPS, **PLACE, "on": DRIFT})
        house.repo.git("commit", "--quiet", "--amend", "-m", "one")
        super().__init__(house, **more)
        assert self.poll() == []
        self.project = Repository(house.world.source, str(house.repo.folder), None, house.environment).look().project
        house.store.runs.project(Project(self.project, "digits", "digits", "penstock.yaml", "digits"))

    def release(self) -> int:
        """Another release that serves."""
        store = self.house.store
        old = store.releases.serving(self.project, "production")
        values: dict[str, Any] = {"project": self.project, "environment": "production", "generation": 1, "request": 1}
        more = {"run": 0, "version": "0.1", "package": "ab", "spec": {"port": 1}, "actor": "ada"}
        if old is not None:
            store.releases.move(old.id, "replace", fate="retire")
        number = store.releases.add({**values, **more}).id
        store.releases.move(number, "promote")
        return number

    def look(self, release: int, *drifted: str) -> list[tuple[str, str]]:
        """One more look at a release, and what is asked for after it."""
        number = self.house.store.drifts.count(release) + 1
        self.house.store.drifts.add(DriftLook(release, number, 0.0, 100, list(drifted), "so it is", []))
        asyncio.run(self.watch.see_drift())
        return self.asked()

    def end(self) -> None:
        """All that was asked for is done."""
        for request in self.requests():
            self.house.store.requests.end(request.id, 0)


def test_drift_runs_the_default_branch_once(house: House) -> None:
    """A look without drift asks for nothing, one with it for one run of the tip, and none while that goes on."""
    watching = Drifting(house)
    release = watching.release()
    assert watching.look(release) == []
    assert watching.look(release, "x") == [("main", "one")]
    assert watching.requests()[0].payload["trigger"] == Trigger.DRIFT
    assert watching.look(release, "x") == [("main", "one")]
    assert watching.said[-2:] == [
        f"{watching.watch.label}: the drift of production is asked for",
        f"{watching.watch.label}: the drift of production is not run: the run that its drift asked for before goes on",
    ]


def test_drift_that_goes_on_asks_less_often_and_of_a_new_release_anew(house: House) -> None:
    """Where no new release came of it, the 2nd, 4th, 8th drifted look ask again; a new release begins at its 1st."""
    watching = Drifting(house)
    release, asked = watching.release(), []
    for number in range(1, 10):
        asked += [number] * len(watching.look(release, "x"))
        watching.end()
    assert asked == [1, 2, 4, 8]
    newer = watching.release()
    assert watching.look(release, "x") == []
    assert watching.look(newer) == []
    assert watching.look(newer, "x") == [("main", "one")]


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
def test_a_death_around_the_commit_of_a_drift_neither_loses_nor_doubles(house: House, when: str) -> None:
    """Whoever watches next asks for the run exactly where it was not asked for."""

    class Died(BaseException):
        """Nothing of ours catches it, as nothing catches a kill."""

    def crash(point: str) -> None:
        if point == f"trigger.drift:{when}":
            raise Died

    watching = Drifting(house, crash=crash)
    release = watching.release()
    with pytest.raises(Died):
        watching.look(release, "x")
    again = Watching(house)
    assert again.poll() == ([] if when == "before_commit" else [("main", "one")])
    for _ in range(2):
        asyncio.run(again.watch.see_drift())
        assert again.asked() == [("main", "one")]


def test_a_poke_is_followed_at_once(house: House) -> None:
    """With an hour between two looks, a poke makes the next one now."""
    file(house, "one")
    watching = Watching(house)

    async def story() -> None:
        poked = asyncio.Event()
        task = asyncio.create_task(watching.watch.watch(poked, 3600))
        await until(lambda: watching.asked() == [("main", "one")])
        file(house, "two")
        poked.set()
        await until(lambda: watching.asked() == [("main", "one"), ("main", "two")])
        task.cancel()

    house.play(story())


def test_trouble_is_told_once_and_ends_by_itself(house: House) -> None:
    """A repository that is away is tried again at every look, and told of once."""
    file(house, "one")
    watching = Watching(house)
    away = house.folder / "elsewhere"

    async def story() -> None:
        house.repo.folder.rename(away)
        task = asyncio.create_task(watching.watch.watch(asyncio.Event(), 0.01))
        await until(lambda: watching.watch.problem)
        first = watching.watch.looked or 0
        await until(lambda: (watching.watch.looked or 0) > first + 0.1)
        away.rename(house.repo.folder)
        await until(lambda: watching.asked() == [("main", "one")])
        await until(lambda: watching.watch.problem is None)
        task.cancel()

    house.play(story())
    assert len([line for line in watching.said if "is asked for" not in line]) == 1


def test_a_defect_of_one_watch_is_told_and_survived(house: House) -> None:
    """What nobody foresaw in one repository neither ends the watch nor goes unsaid."""
    file(house, "one")
    watching = Watching(house)

    class Odd(Repository):
        def look(self) -> Sight:
            raise ZeroDivisionError("of all things")

    reader = Odd(house.world.source, str(house.repo.folder), None, house.environment)
    watch = Watch(house.world, reader, BERLIN, "ada", watching.said.append)

    async def story() -> None:
        task = asyncio.create_task(watch.watch(asyncio.Event(), 0.01))
        await until(lambda: watch.problem)
        task.cancel()

    house.play(story())
    assert "a defect of Penstock (ZeroDivisionError: of all things)" in watching.said[0]


def test_a_source_that_hangs_does_not_hold_up_the_end(house: House) -> None:
    """A repository that never answers is left behind when it is time to end."""
    hangs, entered = threading.Event(), threading.Event()

    class Hanging(Repository):
        def glance(self) -> str:
            entered.set()
            hangs.wait(PATIENCE)
            return ""

    reader = Hanging(house.world.source, str(house.repo.folder), None, house.environment)
    watch = Watch(house.world, reader, BERLIN, "ada", lambda _line: None)

    async def story() -> None:
        task = asyncio.create_task(watch.watch(asyncio.Event(), 3600))
        await until(entered.is_set)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    house.play(story())
    assert not hangs.is_set()
    hangs.set()


# --- adopting ------------------------------------------------------------------------------------------------------


def test_a_run_whose_follower_died_is_adopted_to_its_end(house: House, command: Command) -> None:
    """Its command is gone before anything began: the run goes on for us, and both requests end."""
    file(house, "one")
    number = house.ask_run(command.follower)
    command.die()
    adopter = Adopter(house.world, "ada")

    async def story() -> None:
        async with house.coordinating():
            await until(lambda: house.store.runs.of_request(number))
            run = house.store.runs.of_request(number)
            assert run is not None
            assert adopter.adopt() == [run.id]
            await house.ended(number)
        assert adopter.adopt() == []

    house.play(story())
    assert house.run_of(number).status == "passed"
    assert [house.store.requests.get(n).status for n in (number, number + 1)] == [RequestStatus.ENDED] * 2


def test_an_interrupted_run_is_left_to_its_person(house: House) -> None:
    """Who pressed Ctrl-C meant it: only `resume` goes on."""
    file(house, "one")
    number = house.ask_run()

    async def story() -> None:
        async with house.coordinating():
            await until(lambda: house.store.runs.of_request(number))

    house.play(story())
    run = house.store.runs.of_request(number)
    assert run is not None
    house.store.runs.own(run.id, NOBODY)
    assert Adopter(house.world, "ada").adopt() == []
