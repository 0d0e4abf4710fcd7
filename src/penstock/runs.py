"""Requests, runs, steps and attempts: the transition tables, what is ready, and how a run ends.

The tables are the only place that says which event may happen in which state. An event that is not in the table
raises TransitionError and changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar

from penstock.charts import Chart
from penstock.errors import TransitionError


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELED = "canceled"
    WAITING = "waiting"
    SUPERSEDED = "superseded"


class StepStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    CANCELED = "canceled"
    SKIPPED = "skipped"
    WARNED = "warned"


class AttemptStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why an attempt ended."""

    EXIT = "exit"
    CANCELED = "canceled"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"
    TIMEOUT = "timeout"
    OOM = "oom"
    PREEMPTED = "preempted"
    LOST = "lost"
    LOG_LIMIT = "log_limit"
    INFRASTRUCTURE = "infrastructure"


class RequestStatus(StrEnum):
    OPEN = "open"
    ENDED = "ended"
    REFUSED = "refused"


RUN_TRANSITIONS: Mapping[tuple[RunStatus, str], RunStatus] = {
    (RunStatus.QUEUED, "start"): RunStatus.RUNNING,
    (RunStatus.QUEUED, "cancel"): RunStatus.CANCELED,
    (RunStatus.QUEUED, "supersede"): RunStatus.SUPERSEDED,
    (RunStatus.RUNNING, "pass"): RunStatus.PASSED,
    (RunStatus.RUNNING, "fail"): RunStatus.FAILED,
    (RunStatus.RUNNING, "error"): RunStatus.ERRORED,
    (RunStatus.RUNNING, "cancel"): RunStatus.CANCELED,
    (RunStatus.RUNNING, "interrupt"): RunStatus.QUEUED,
    (RunStatus.RUNNING, "supersede"): RunStatus.SUPERSEDED,
    (RunStatus.RUNNING, "wait"): RunStatus.WAITING,
    (RunStatus.WAITING, "continue"): RunStatus.QUEUED,
    (RunStatus.WAITING, "fail"): RunStatus.FAILED,
    (RunStatus.WAITING, "cancel"): RunStatus.CANCELED,
    (RunStatus.WAITING, "supersede"): RunStatus.SUPERSEDED,
}

STEP_TRANSITIONS: Mapping[tuple[StepStatus, str], StepStatus] = {
    (StepStatus.QUEUED, "start"): StepStatus.RUNNING,
    (StepStatus.QUEUED, "skip"): StepStatus.SKIPPED,
    (StepStatus.QUEUED, "cancel"): StepStatus.CANCELED,
    (StepStatus.QUEUED, "error"): StepStatus.ERRORED,
    (StepStatus.RUNNING, "pass"): StepStatus.PASSED,
    (StepStatus.RUNNING, "fail"): StepStatus.FAILED,
    (StepStatus.RUNNING, "error"): StepStatus.ERRORED,
    (StepStatus.RUNNING, "warn"): StepStatus.WARNED,
    (StepStatus.RUNNING, "cancel"): StepStatus.CANCELED,
    (StepStatus.RUNNING, "interrupt"): StepStatus.QUEUED,
    **{
        (status, "reopen"): StepStatus.QUEUED
        for status in (
            StepStatus.PASSED,
            StepStatus.FAILED,
            StepStatus.ERRORED,
            StepStatus.SKIPPED,
            StepStatus.WARNED,
        )
    },
}

ATTEMPT_TRANSITIONS: Mapping[tuple[AttemptStatus, str], AttemptStatus] = {
    (AttemptStatus.STARTING, "started"): AttemptStatus.RUNNING,
    (AttemptStatus.STARTING, "end"): AttemptStatus.ENDED,
    (AttemptStatus.RUNNING, "end"): AttemptStatus.ENDED,
}

ENDED_RUN = frozenset({RunStatus.PASSED, RunStatus.FAILED, RunStatus.ERRORED, RunStatus.CANCELED, RunStatus.SUPERSEDED})
ENDED_STEP = frozenset(StepStatus) - {StepStatus.QUEUED, StepStatus.RUNNING}
GREEN_STEP = frozenset({StepStatus.PASSED, StepStatus.WARNED})
RED_STEP = frozenset({StepStatus.FAILED, StepStatus.ERRORED, StepStatus.CANCELED})


S = TypeVar("S", bound=StrEnum)


def after_run(status: RunStatus, event: str) -> RunStatus:
    return _after("run", RUN_TRANSITIONS, status, event)


def after_step(status: StepStatus, event: str) -> StepStatus:
    return _after("step", STEP_TRANSITIONS, status, event)


def after_attempt(status: AttemptStatus, event: str) -> AttemptStatus:
    return _after("attempt", ATTEMPT_TRANSITIONS, status, event)


def _after(kind: str, table: Mapping[tuple[S, str], S], status: S, event: str) -> S:
    try:
        return table[status, event]
    except KeyError:
        raise TransitionError(f"a {kind} that is {status} cannot {event}") from None


# --- what is ready -------------------------------------------------------------------------------------------------


Outcome = Literal["passed", "failed", "always"]
"""How what a step needs must have ended: all green, something red, or either."""

NOTHING_RED = "nothing that it needs failed"


@dataclass(frozen=True, slots=True)
class StepState:
    """What readiness depends on: a step's needs, how they must end (`outcome`), and where it stands."""

    name: str
    needs: tuple[str, ...]
    status: StepStatus
    cached: bool = False
    outcome: Outcome = "passed"

    @property
    def green(self) -> bool:
        """Whether what needs this step to pass may run."""
        return self.status in GREEN_STEP or (self.status is StepStatus.SKIPPED and self.cached)

    @property
    def red(self) -> bool:
        """Whether it went wrong itself; what was skipped for it is red too, which only the others tell."""
        return self.status in RED_STEP


def ready(steps: Sequence[StepState]) -> tuple[str, ...]:
    """Queued steps whose needs have ended as they must, in the plan's order."""
    green, red = {s.name for s in steps if s.green}, reds(steps)
    ended = {s.name for s in steps if s.status in ENDED_STEP}

    def may(step: StepState) -> bool:
        if step.outcome == "passed":
            return green.issuperset(step.needs)
        return ended.issuperset(step.needs) and (step.outcome == "always" or not red.isdisjoint(step.needs))

    return tuple(s.name for s in steps if s.status is StepStatus.QUEUED and may(s))


def reds(steps: Sequence[StepState]) -> set[str]:
    """Steps that went wrong, and those that were skipped because what they need did; steps come after their needs."""
    red: set[str] = set()
    for step in steps:
        skipped = step.status is StepStatus.SKIPPED and not step.cached and step.outcome == "passed"
        if step.red or (skipped and not red.isdisjoint(step.needs)):
            red.add(step.name)
    return red


def unreachable(steps: Sequence[StepState]) -> dict[str, str]:
    """Queued steps that can never be ready as things stand, each with the sentence that says why."""
    by_name, red = {s.name: s for s in steps}, reds(steps)
    found: dict[str, str] = {}
    for step in steps:
        if step.status is not StepStatus.QUEUED:
            continue
        if step.outcome == "passed":
            cause = _cause(step, by_name, found)
            if cause is not None:
                found[step.name] = cause
                red |= {step.name} if not red.isdisjoint(step.needs) else set()
        elif step.outcome == "failed" and red.isdisjoint(step.needs):
            is_over = all(n in found or by_name[n].status in ENDED_STEP for n in step.needs)
            found |= {step.name: NOTHING_RED} if is_over else {}
    return found


def _cause(step: StepState, steps: Mapping[str, StepState], skipped: Mapping[str, str]) -> str | None:
    """The first need that can never be green, in words, or None."""
    for name in step.needs:
        need = steps[name]
        if name in skipped:
            return f"needs {name}, which was skipped"
        if need.status in ENDED_STEP and not need.green:
            return f"needs {name}, which {_PAST[need.status]}"
    return None


class Frontier:
    """The same rules kept up step by step, so that a run of n steps costs its edges and not n looks at n steps.

    `settle` is told of every step that ended; `take_ready` and `take_unreachable` give what that changed, once.
    """

    def __init__(self, steps: Sequence[StepState]) -> None:
        self._steps = {s.name: s for s in steps}
        self._users: dict[str, list[str]] = {s.name: [] for s in steps}
        self._unmet = {s.name: len(s.needs) for s in steps}
        self._unended = {s.name: len(s.needs) for s in steps}
        self._waiting = {s.name for s in steps if s.status is StepStatus.QUEUED}
        self._not_green: dict[str, str] = {}
        self._red: set[str] = set()
        self._unreachable: dict[str, str] = {}
        self._open = {s.name for s in steps if s.status not in ENDED_STEP}
        for step in steps:
            for need in step.needs:
                self._users[need].append(step.name)
        self._ready: list[str] = []
        for step in steps:
            if step.status in ENDED_STEP:
                self.settle(step)
        for step in steps:
            if step.name in self._waiting and not step.needs:
                self._place(step.name)

    @property
    def open(self) -> AbstractSet[str]:
        """Steps that have not ended."""
        return self._open

    def settle(self, step: StepState) -> None:
        """A step has ended, green or not."""
        self._open.discard(step.name)
        self._waiting.discard(step.name)
        self._unreachable.pop(step.name, None)
        if not step.green:
            self._not_green[step.name] = f"needs {step.name}, which {_PAST[step.status]}"
            skipped = step.status is StepStatus.SKIPPED and step.outcome == "passed"
            if step.red or (skipped and not self._red.isdisjoint(step.needs)):
                self._red.add(step.name)
        for user in self._users[step.name]:
            self._unmet[user] -= step.green
            self._unended[user] -= 1
            if user in self._waiting:
                self._place(user)

    def _place(self, name: str) -> None:
        """A waiting step is ready, or can never be, or goes on waiting."""
        step = self._steps[name]
        cause = self._never(step)
        if cause is not None:
            self._waiting.discard(name)
            self._unreachable[name] = cause
        elif self.may_start(name):
            self._ready.append(name)

    def _never(self, step: StepState) -> str | None:
        """Why a step can never be ready as things stand, in words."""
        if step.outcome == "passed":
            return next((self._not_green[need] for need in step.needs if need in self._not_green), None)
        is_over = step.outcome == "failed" and not self._unended[step.name]
        return NOTHING_RED if is_over and self._red.isdisjoint(step.needs) else None

    def may_start(self, name: str) -> bool:
        """Whether all that a step needs has ended as it must, now; it may not be so any more when its turn comes."""
        step = self._steps[name]
        if step.outcome == "passed":
            return not self._unmet[name]
        return not self._unended[name] and (step.outcome == "always" or not self._red.isdisjoint(step.needs))

    def requeue(self, name: str) -> None:
        """A step was interrupted, or its start was put off, and may start again."""
        self._waiting.add(name)
        self._place(name)

    def reopen(self, before: StepState) -> None:
        """A step that had ended so is to run again; what needs it and has not begun waits for it anew."""
        self._open.add(before.name)
        self._not_green.pop(before.name, None)
        self._red.discard(before.name)
        for user in self._users[before.name]:
            self._unmet[user] += before.green
            self._unended[user] += 1
            if self._unreachable.pop(user, None) is not None:
                self._waiting.add(user)
        self.requeue(before.name)

    def take_ready(self, most: int | None = None) -> list[str]:
        """Steps that became ready since the last call, each once: what was taken does not wait any more.

        With `most` no more than so many; the others come with the next call.
        """
        taken: list[str] = []
        names = iter(dict.fromkeys(self._ready))
        for name in names:
            if name in self._waiting and self.may_start(name):
                taken.append(name)
            if len(taken) == most:
                break
        self._waiting.difference_update(taken)
        self._ready = list(names)
        return taken

    def take_unreachable(self) -> dict[str, str]:
        """Steps that can never be ready, since the last call, each with the sentence that says why."""
        taken, self._unreachable = self._unreachable, {}
        return taken


_PAST: Mapping[StepStatus, str] = {
    StepStatus.FAILED: "failed",
    StepStatus.ERRORED: "errored",
    StepStatus.CANCELED: "was canceled",
    StepStatus.SKIPPED: "was skipped",
}


# --- which runs go on at once --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """An open run of a concurrency group. `older` says what becomes of older runs where the limit is reached."""

    run: int
    group: tuple[str, ...]
    limit: int
    older: Literal["wait", "cancel"]
    active: bool


@dataclass(frozen=True, slots=True)
class Admission:
    """What follows from the groups: runs that start, runs that make place, and for whom each of the others waits."""

    start: tuple[int, ...]
    superseded: tuple[int, ...]
    waiting: Mapping[int, int]


def admit(members: Iterable[Member]) -> Admission:
    """Decide on open runs, oldest first. The newest run's file speaks for its whole group.

    Where older ones wait, a run starts as soon as fewer than `limit` are active; else the newest `limit` stay and all
    older ones are superseded, active or not.
    """
    groups: dict[tuple[str, ...], list[Member]] = {}
    for member in members:
        groups.setdefault(member.group, []).append(member)
    start: list[int] = []
    superseded: list[int] = []
    waiting: dict[int, int] = {}
    for group in groups.values():
        newest = group[-1]
        if newest.older == "cancel":
            superseded += (m.run for m in group[: -newest.limit])
            group = group[-newest.limit :]  # noqa: PLW2901 - what is left of it
        active = [m.run for m in group if m.active]
        for member in group:
            if not member.active and len(active) < newest.limit:
                start.append(member.run)
                active.append(member.run)
            elif not member.active:
                waiting[member.run] = active[0]
    return Admission(tuple(start), tuple(superseded), waiting)


# --- what a person and `--json` see --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepView:
    """One step of a run. `started` and `ended` are seconds since the epoch; `progress` a short word while it runs."""

    name: str
    stage: str
    status: str
    reason: str | None = None
    cached: bool = False
    attempts: int = 0
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    log: str | None = None
    progress: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it took, or None where it never started or still runs."""
        return None if self.started is None or self.ended is None else max(0.0, self.ended - self.started)


@dataclass(frozen=True, slots=True)
class GateView:
    """One gate: `verdict` is pass, fail, inconclusive, errored or None (not judged yet); `rule` is the rule in words.

    `chart` is there where an interval decided.
    """

    name: str
    rule: str
    verdict: str | None = None
    value: float | None = None
    reasons: tuple[str, ...] = ()
    chart: Chart | None = None


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """What a person was asked to approve, and what they said, in words by `sentence`. Times are since the epoch."""

    status: str
    roles: tuple[str, ...]
    requester: str
    expires: float
    by: str | None
    at: float | None
    reason: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """One environment of a run: the release that this run brought there, and where the rollout stands.

    `status` is a release status, or `queued`, `waiting` for approval, `skipped` or `unapproved` with a reason; `phase`
    a short word while it moves (`starting 2 replicas`, `switching`, `draining 0.1.dev3`). `rollout` is what the release
    keeps of its rollout; `approval` is there where somebody has to approve it, or had to.
    """

    environment: str
    version: str
    status: str
    url: str | None = None
    reason: str | None = None
    phase: str | None = None
    replaced: str | None = None
    rollout: Mapping[str, Any] | None = None
    approval: ApprovalView | None = None


@dataclass(frozen=True, slots=True)
class TestView:
    """A test of a run that failed: by its full name, how long it took in seconds, and what it said.

    `flaky` and `quarantine` are sentences where it is so; a failure in quarantine does not count.
    """

    __test__ = False  # pytest collects classes by this name

    step: str
    test: str
    status: str
    seconds: float
    message: str
    flaky: str | None = None
    quarantine: str | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, whole, as the store knows it at one moment. `notes` are sentences a person should read.

    `tests` are the tests that failed, of a run that has ended.
    """

    run: str
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
    dirty: bool
    steps: tuple[StepView, ...]
    gates: tuple[GateView, ...]
    releases: tuple[ReleaseView, ...]
    package: str | None
    package_size: int | None
    metrics: Mapping[str, float]
    notes: tuple[str, ...] = ()
    tests: tuple[TestView, ...] = ()

    @property
    def seconds(self) -> float | None:
        return None if self.started is None or self.ended is None else max(0.0, self.ended - self.started)


def outcome(steps: Iterable[StepStatus], verdicts: Sequence[str], rollouts: Sequence[str]) -> str:
    """The event that ends a run whose steps, gates and rollouts all ended: failed beats errored beats canceled.

    `rollouts` are release statuses reached by this run; `rejected` and `rolled_back` are failures. Steps of a run that
    goes on are canceled only after another one is red.
    """
    seen = set(steps)
    if StepStatus.FAILED in seen or "fail" in verdicts or {"rejected", "rolled_back"} & set(rollouts):
        return "fail"
    if StepStatus.ERRORED in seen or "inconclusive" in verdicts or "errored" in verdicts or "errored" in rollouts:
        return "error"
    return "cancel" if StepStatus.CANCELED in seen else "pass"
