"""What a home looks like now: environments, runs, watched repositories, and what triggers decided last."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from penstock.engine.contracts import Handle
from penstock.engine.triggers import Watch
from penstock.engine.world import World
from penstock.releases import ReleaseStatus, address
from penstock.runs import ENDED_RUN, RunStatus, StepStatus
from penstock.standings import Standing, standing_of
from penstock.store.contract import Release, Run
from penstock.store.triggers import Seen

RUNS = 20
PASSED_OVER = 8
FRESH = 0.5
"""Seconds for which a picture is given again, however many ask for it."""


@dataclass(frozen=True, slots=True)
class ServeState:
    """The serving process itself; `coordinates` is false while a command that was there first still does."""

    pid: int
    since: float
    coordinates: bool


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A watched repository: when it was last looked at (seconds since the epoch), and why it cannot be, if so."""

    location: str
    looked: float | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """An environment: the release that serves, else the newest; `replicas` live of `wanted`.

    `rollout` is how its newest release was tried in traffic, or is, and `tried` the version of that one.
    """

    project: str
    environment: str
    status: str
    version: str
    url: str | None
    replicas: int
    wanted: int
    since: float | None
    note: str | None
    tried: str | None = None
    rollout: Standing | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """A run in short: how many steps stand where (`cached` apart), which are running, which are red."""

    run: int
    project: str
    version: str
    commit: str
    branch: str | None
    title: str
    trigger: str
    status: str
    reason: str | None
    created: float
    started: float | None
    ended: float | None
    steps: Mapping[str, int]
    running: Sequence[str]
    red: Sequence[str]


@dataclass(frozen=True, slots=True)
class PassedState:
    """A commit that a trigger saw and did not run, and why."""

    project: str
    branch: str
    commit: str
    reason: str
    seen: float


@dataclass(frozen=True, slots=True)
class State:
    """A home at one moment (`at`, seconds since the epoch); newest first."""

    at: float
    serve: ServeState
    repositories: Sequence[RepositoryState]
    environments: Sequence[EnvironmentState]
    runs: Sequence[RunState]
    passed_over: Sequence[PassedState]


@dataclass(frozen=True, slots=True)
class _Tally:
    """How a run's steps stand; `final` once the run has ended."""

    steps: Mapping[str, int]
    running: Sequence[str]
    red: Sequence[str]
    final: bool


class States:
    """Looks at a home for whoever asks. Belongs to the thread of the store."""

    def __init__(self, world: World, watches: Sequence[Watch], serve: Callable[[], ServeState]) -> None:
        self._world = world
        self._watches = watches
        self._serve = serve
        self._tallies: dict[int, _Tally] = {}
        self._last: tuple[float, State] | None = None

    def now(self) -> State:
        """The state of the home, at most `FRESH` seconds old."""
        moment = time.monotonic()
        if self._last is None or moment - self._last[0] > FRESH:
            self._last = moment, self._look()
        return self._last[1]

    def _look(self) -> State:
        store = self._world.store
        names = {project.id: project.name for project in store.runs.projects()}
        runs = store.runs.latest(limit=RUNS)
        newest = {(r.project, r.environment): r for r in store.releases.newest()}
        self._tallies = {run.id: self._tally(run) for run in runs}
        return State(
            at=self._world.clock.now(),
            serve=self._serve(),
            repositories=[RepositoryState(w.label, w.looked, w.problem) for w in self._watches],
            environments=[self._environment(r, names, newest) for r in store.releases.current()],
            runs=[self._run(run, names) for run in runs],
            passed_over=[_passed_over(seen, names) for seen in store.triggers.passed_over(PASSED_OVER)],
        )

    def _tally(self, run: Run) -> _Tally:
        known = self._tallies.get(run.id)
        if known is not None and known.final:
            return known
        steps = self._world.store.runs.outline(run.id)
        return _Tally(
            dict(Counter("cached" if s.cached else str(s.status) for s in steps)),
            [s.name for s in steps if s.status is StepStatus.RUNNING],
            [s.name for s in steps if s.status in {StepStatus.FAILED, StepStatus.ERRORED}],
            run.status in ENDED_RUN,
        )

    def _run(self, run: Run, names: Mapping[str, str]) -> RunState:
        tally = self._tallies[run.id]
        return RunState(
            run=run.id,
            project=names[run.project],
            version=run.version,
            commit=str(run.commit["sha"]),
            branch=run.commit["branch"],
            title=str(run.commit["title"]),
            trigger=run.trigger,
            status=str(run.status),
            reason=run.reason,
            created=run.created,
            started=run.started,
            ended=run.ended,
            steps=tally.steps,
            running=tally.running if run.status is RunStatus.RUNNING else (),
            red=tally.red,
        )

    def _environment(
        self, release: Release, names: Mapping[str, str], newest: Mapping[tuple[str, str], Release]
    ) -> EnvironmentState:
        last = newest[release.project, release.environment]
        standing = standing_of(last.rollout, last.status, last.reason)
        tried = None if standing is None or standing.verdict is None else standing
        replicas = self._world.store.releases.replicas(release.id)
        alive = sum(1 for r in replicas if r.handle is not None and self._world.runner.alive(Handle(**r.handle)))
        serves = release.status is ReleaseStatus.SERVING
        look = self._world.store.drifts.newest(release.id) if serves else None
        return EnvironmentState(
            project=names[release.project],
            environment=release.environment,
            status=str(release.status),
            version=release.version,
            url=address(release.spec) if serves else None,
            replicas=alive,
            wanted=int(release.spec["replicas"]),
            since=release.since,
            note=self._asked(release) or release.phase or release.reason or (look.sentence if look else None),
            tried=last.version if tried else None,
            rollout=tried,
        )

    def _asked(self, release: Release) -> str | None:
        """What waits for somebody's approval to be released where this release is."""
        here = (release.project, release.environment)
        asked = [a for a in self._world.store.approvals.pending() if (a.project, a.environment) == here]
        return f"{asked[-1].pinned.version} {asked[-1].sentence}" if asked else None


def _passed_over(seen: Seen, names: Mapping[str, str]) -> PassedState:
    occasion = seen.occasion
    project = names.get(occasion.project, occasion.project)
    return PassedState(project, occasion.name, occasion.value, seen.reason, seen.created)
