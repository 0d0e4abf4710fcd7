"""The worlds of the simulation that outlive every coordinator: the store's facts and the machine's processes."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from engine.books import NEEDS, expect
from penstock.engine.scheduling import Need
from penstock.plans import Plan, PlannedStep, StepKind
from penstock.runs import (
    ENDED_RUN,
    AttemptStatus,
    EndReason,
    Outcome,
    RunStatus,
    StepState,
    StepStatus,
    after_attempt,
    after_run,
    after_step,
)


@dataclass(slots=True)
class Attempt:
    id: str
    gpus: tuple[int, ...]
    began: float
    status: AttemptStatus = AttemptStatus.STARTING
    reason: EndReason | None = None


@dataclass(slots=True)
class Step:
    """A step with what the dice made of it: its need, its usual seconds, its retries, how its needs must end."""

    planned: PlannedStep
    need: Need
    seconds: float
    retries: int
    outcome: Outcome
    may_fail: bool
    known: bool
    status: StepStatus = StepStatus.QUEUED
    cached: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def state(self) -> StepState:
        return StepState(self.planned.name, self.planned.needs, self.status, self.cached, self.outcome)

    @property
    def live(self) -> Attempt | None:
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.status is not AttemptStatus.ENDED else None


@dataclass(slots=True)
class Run:
    number: int
    project: int
    steps: dict[str, Step]
    status: RunStatus = RunStatus.QUEUED
    owned: bool = True

    @property
    def plan(self) -> Plan:
        return Plan(tuple(s.planned for s in self.steps.values()))

    @property
    def states(self) -> list[StepState]:
        return [s.state for s in self.steps.values()]


@dataclass(slots=True)
class Request:
    id: int
    kind: str
    run: int
    is_open: bool = True


class Facts:
    """The store: every change is one transition of the tables; it survives every crash."""

    def __init__(self, journal: Callable[[str], None]) -> None:
        self.runs: dict[int, Run] = {}
        self.ended: dict[int, RunStatus] = {}
        self.requests: dict[int, Request] = {}
        self.durations: dict[int, dict[str, deque[float]]] = defaultdict(dict)
        self._journal = journal

    def move_run(self, run: Run, event: str) -> None:
        after = after_run(run.status, event)
        expect(run.number not in self.ended, "a run ends once")
        self._journal(f"run {run.number} {event}")
        run.status = after
        if after in ENDED_RUN:
            expect(all(s.live is None for s in run.steps.values()), "nothing of a run that ended is live")
            self.ended[run.number] = after
            del self.runs[run.number]

    def move_step(self, run: Run, name: str, event: str, *, cached: bool = False) -> StepState:
        """The step as it stood before."""
        step = run.steps[name]
        before, after = step.state, after_step(step.status, event)
        self._journal(f"step {run.number}/{name} {event}")
        step.status, step.cached = after, cached
        return before

    def begin(self, run: Run, name: str, gpus: tuple[int, ...], now: float) -> Attempt:
        step = run.steps[name]
        expect(step.live is None, "no step has two live attempts")
        attempt = Attempt(f"{run.number}.{name}.{len(step.attempts) + 1}", gpus, now)
        step.attempts.append(attempt)
        self._journal(f"attempt {attempt.id} begin")
        return attempt

    def move_attempt(self, attempt: Attempt, event: str, reason: EndReason | None = None) -> None:
        attempt.status = after_attempt(attempt.status, event)
        attempt.reason = reason
        self._journal(f"attempt {attempt.id} {event} {reason}")

    def took(self, run: Run, name: str, seconds: float) -> None:
        """What the wall clock says that a step took: less than nothing, or hours, where the clock jumped."""
        self.durations[run.project].setdefault(name, deque(maxlen=5)).append(seconds)


@dataclass(slots=True)
class Process:
    reason: EndReason | None = None
    passed: bool = False


class Machine:
    """Processes by attempt. They outlive whoever started them; `unheard` are those whose end nobody recorded yet."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.unheard: dict[str, None] = {}
        self._started: set[str] = set()

    def start(self, attempt: str) -> None:
        expect(attempt not in self._started, "no attempt is started twice")
        self._started.add(attempt)
        self.processes[attempt] = Process()

    def end(self, attempt: str, reason: EndReason, *, passed: bool) -> bool:
        """Whether it lived until now."""
        process = self.processes.get(attempt)
        if process is None or process.reason is not None:
            return False
        process.reason, process.passed = reason, passed
        self.unheard[attempt] = None
        return True

    def forget(self, run: Run) -> None:
        """A run has ended: nothing of it may live, and its names are needed no more."""
        for step in run.steps.values():
            for attempt in step.attempts:
                process = self.processes.pop(attempt.id, None)
                expect(process is None or process.reason is not None, "no process outlives its run")
                self._started.discard(attempt.id)
                self.unheard.pop(attempt.id, None)


def random_run(number: int, dice: Random) -> Run:
    """A run of 1 to 30 steps; few are large."""
    size = dice.choice([1, 2, 3, 5, 8, 13, 30])
    steps: dict[str, Step] = {}
    for position in range(size):
        names = list(steps)
        needs = tuple(n for n in names if n in dice.sample(names, min(len(names), dice.choice([0, 1, 1, 2, 3]))))
        kind: Outcome = dice.choice(("passed",) * 8 + ("failed", "always"))
        steps[f"s{position}"] = Step(
            planned=PlannedStep(f"s{position}", StepKind.STEP, "build", needs),
            need=dice.choice(NEEDS),
            seconds=dice.choice([0.1, 0.5, 2.0, 10.0]),
            retries=dice.choice([0, 0, 1, 2]),
            outcome=kind if needs else "passed",
            may_fail=dice.random() < 0.1,
            known=dice.random() < 0.05,
        )
    return Run(number, dice.randint(1, 5), steps)
