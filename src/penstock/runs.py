"""Requests, runs, steps and attempts: the transition tables, what is ready, and how a run ends.

The tables are the only place that says which event may happen in which state. An event that is not in the table
raises TransitionError and changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

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
    (RunStatus.RUNNING, "pass"): RunStatus.PASSED,
    (RunStatus.RUNNING, "fail"): RunStatus.FAILED,
    (RunStatus.RUNNING, "error"): RunStatus.ERRORED,
    (RunStatus.RUNNING, "cancel"): RunStatus.CANCELED,
    (RunStatus.RUNNING, "interrupt"): RunStatus.QUEUED,
    (RunStatus.RUNNING, "supersede"): RunStatus.SUPERSEDED,
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


@dataclass(frozen=True, slots=True)
class StepState:
    """What readiness depends on: a step's needs and where it stands."""

    name: str
    needs: tuple[str, ...]
    status: StepStatus
    cached: bool = False

    @property
    def green(self) -> bool:
        """Whether what needs this step may run."""
        return self.status in GREEN_STEP or (self.status is StepStatus.SKIPPED and self.cached)


def ready(steps: Sequence[StepState]) -> tuple[str, ...]:
    """Queued steps whose every need is green, in the plan's order."""
    green = {s.name for s in steps if s.green}
    return tuple(s.name for s in steps if s.status is StepStatus.QUEUED and green.issuperset(s.needs))


def unreachable(steps: Sequence[StepState]) -> dict[str, str]:
    """Queued steps that can never be ready, each with the sentence that says why."""
    by_name = {s.name: s for s in steps}
    found: dict[str, str] = {}
    for step in steps:
        if step.status is not StepStatus.QUEUED:
            continue
        for name in step.needs:
            need = by_name[name]
            if name in found:
                found[step.name] = f"needs {name}, which was skipped"
            elif need.status in ENDED_STEP and not need.green:
                found[step.name] = f"needs {name}, which {_PAST[need.status]}"
    return found


class Frontier:
    """The same two rules kept up step by step, so that a run of n steps costs its edges and not n looks at n steps.

    `settle` is told of every step that ended; `take_ready` and `take_unreachable` give what that changed, once.
    """

    def __init__(self, steps: Sequence[StepState]) -> None:
        self._needs = {s.name: s.needs for s in steps}
        self._users: dict[str, list[str]] = {s.name: [] for s in steps}
        self._unmet = {s.name: len(s.needs) for s in steps}
        self._waiting = {s.name for s in steps if s.status is StepStatus.QUEUED}
        self._red: dict[str, str] = {}
        self._unreachable: dict[str, str] = {}
        self._open = {s.name for s in steps if s.status not in ENDED_STEP}
        for step in steps:
            for need in step.needs:
                self._users[need].append(step.name)
        self._ready = [s.name for s in steps if s.name in self._waiting and not s.needs]
        for step in steps:
            if step.status in ENDED_STEP:
                self.settle(step)

    @property
    def open(self) -> AbstractSet[str]:
        """Steps that have not ended."""
        return self._open

    def settle(self, step: StepState) -> None:
        """A step has ended, green or not."""
        self._open.discard(step.name)
        self._waiting.discard(step.name)
        if not step.green:
            self._red[step.name] = f"needs {step.name}, which {_PAST[step.status]}"
        for user in self._users[step.name]:
            self._unmet[user] -= step.green
            if user in self._waiting:
                self._place(user)

    def _place(self, name: str) -> None:
        """A waiting step is ready, or can never be, or goes on waiting."""
        red = next((self._red[need] for need in self._needs[name] if need in self._red), None)
        if red is not None:
            self._waiting.discard(name)
            self._unreachable[name] = red
        elif not self._unmet[name]:
            self._ready.append(name)

    def requeue(self, name: str) -> None:
        """A step was interrupted, or its start was put off, and may start again."""
        self._waiting.add(name)
        self._place(name)

    def reopen(self, before: StepState) -> None:
        """A step that had ended so is to run again; what needs it and has not begun waits for it anew."""
        self._open.add(before.name)
        self._red.pop(before.name, None)
        for user in self._users[before.name]:
            self._unmet[user] += before.green
        self.requeue(before.name)

    def take_ready(self) -> list[str]:
        """Queued steps that became ready since the last call, each once: what was taken does not wait any more."""
        taken = [n for n in dict.fromkeys(self._ready) if n in self._waiting and not self._unmet[n]]
        self._waiting.difference_update(taken)
        self._ready = []
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
    """One gate: `verdict` is pass, fail, inconclusive or None (not judged yet); `rule` is the rule in words."""

    name: str
    rule: str
    verdict: str | None = None
    value: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """One environment of a run: the release that this run brought there, and where the rollout stands.

    `status` is a release status, or `queued`, or `skipped` with a reason; `phase` a short word while it moves
    (`starting 2 replicas`, `switching`, `draining 0.1.dev3`).
    """

    environment: str
    version: str
    status: str
    url: str | None = None
    reason: str | None = None
    phase: str | None = None
    replaced: str | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, whole, as the store knows it at one moment. `notes` are sentences a person should read."""

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

    @property
    def seconds(self) -> float | None:
        return None if self.started is None or self.ended is None else max(0.0, self.ended - self.started)


def outcome(steps: Iterable[StepStatus], verdicts: Sequence[str], rollouts: Sequence[str]) -> str:
    """The event that ends a run whose steps, gates and rollouts all ended: failed beats errored.

    `rollouts` are release statuses reached by this run; `rejected` and `rolled_back` are failures.
    """
    seen = set(steps)
    if StepStatus.CANCELED in seen:
        return "cancel"
    if StepStatus.FAILED in seen or "fail" in verdicts or {"rejected", "rolled_back"} & set(rollouts):
        return "fail"
    if StepStatus.ERRORED in seen or "inconclusive" in verdicts or "errored" in verdicts or "errored" in rollouts:
        return "error"
    return "pass"
