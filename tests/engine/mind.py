"""The coordinator of the simulation: all that it has in memory, which a crash empties, and how it goes on."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from engine.books import CAPACITY, Books, expect
from engine.facts import Attempt, Facts, Machine, Process, Request, Run, Step
from penstock.engine.scheduling import Capacity, Schedule
from penstock.plans import remaining
from penstock.runs import (
    ENDED_STEP,
    AttemptStatus,
    EndReason,
    Frontier,
    RunStatus,
    StepState,
    StepStatus,
    outcome,
    ready,
    unreachable,
)


@dataclass(slots=True)
class Driven:
    """One run in the coordinator's memory. `tasks` are the steps under way: they wait, hold, or pause."""

    run: Run
    frontier: Frontier
    priorities: Mapping[str, float]
    tasks: set[str] = field(default_factory=set)
    stopping: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts under test; a test plants worse ones."""

    schedule: Callable[[Capacity], Schedule] = Schedule
    frontier: Callable[[list[StepState]], Frontier] = Frontier


class Home(Protocol):
    """What a coordinator finds when it starts, and what it can do."""

    facts: Facts
    machine: Machine
    rules: Rules
    dice: Random
    seen: Counter[str]

    @property
    def wall(self) -> float: ...

    def point(self) -> None: ...

    def revisit(self, run: int) -> None: ...

    def let_end(self, step: Step, attempt: str) -> None: ...

    def kill(self, attempt: str) -> None: ...

    def pause(self, run: int, step: str) -> None: ...


class Mind:
    """All that a coordinator has in memory."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.facts = home.facts
        self.books = Books(home.rules.schedule(CAPACITY), home.seen)
        self.driven: dict[int, Driven] = {}

    def recover(self) -> None:
        """First everything that lives holds its share again; then it is gone on with, and new things start."""
        for run in self.facts.runs.values():
            for step in run.steps.values():
                if step.live is not None:
                    self.books.take((run.number, step.planned.name), step.need, step.live.gpus)
        for run in list(self.facts.runs.values()):
            if run.owned or run.status is RunStatus.RUNNING:
                self.drive(run)
        for request in [r for r in self.facts.requests.values() if r.is_open]:
            self.handle(request)

    def drive(self, run: Run) -> None:
        if run.number in self.driven:
            return
        if run.status is RunStatus.QUEUED:
            self.home.point()
            self.facts.move_run(run, "start")
        frontier = self.home.rules.frontier(run.states)
        priorities = remaining(run.plan, {k: list(v) for k, v in self.facts.durations[run.project].items()})
        driven = self.driven[run.number] = Driven(run, frontier, priorities)
        for name, step in run.steps.items():
            if step.status is StepStatus.RUNNING:
                driven.tasks.add(name)
                self._take_up(driven, name)
        self.advance(driven)

    def _take_up(self, driven: Driven, name: str) -> None:
        """Go on with a step that an earlier coordinator began."""
        step = driven.run.steps[name]
        if step.live is None:
            self._ask(driven, name)
        elif step.live.id not in self.home.machine.processes:
            gpus = step.live.gpus
            self.facts.move_attempt(step.live, "end", EndReason.INFRASTRUCTURE)
            self._begin(driven, name, gpus)
        else:
            if step.live.status is AttemptStatus.STARTING:
                self.facts.move_attempt(step.live, "started")
            self.told(step.live.id)

    def _ask(self, driven: Driven, name: str) -> None:
        step = driven.run.steps[name]
        self.books.ask((driven.run.number, name), step.need, driven.priorities[name], len(driven.run.steps))

    def advance(self, driven: Driven) -> None:
        """What the driver does after every event: skip, start, end."""
        run = driven.run
        while found := driven.frontier.take_unreachable():
            for name in found:
                self.facts.move_step(run, name, "skip")
                driven.frontier.settle(run.steps[name].state)
        if driven.stopping is None and run.owned:
            for name in driven.frontier.take_ready():
                driven.tasks.add(name)
                self._launch(driven, name)
        self._end_if_over(driven)

    def _launch(self, driven: Driven, name: str) -> None:
        step = driven.run.steps[name]
        if step.known and not step.attempts:
            self.facts.move_step(driven.run, name, "skip", cached=True)
            self._settle(driven, name)
        else:
            self._ask(driven, name)

    def _settle(self, driven: Driven, name: str) -> None:
        """The task of a step is over."""
        driven.tasks.discard(name)
        step = driven.run.steps[name]
        if step.status in ENDED_STEP:
            driven.frontier.settle(step.state)
        elif step.status is StepStatus.QUEUED:
            driven.frontier.requeue(name)
        self.home.revisit(driven.run.number)

    def grant(self) -> None:
        for key, gpus in self.books.grant():
            driven = self.driven[key[0]]
            if driven.stopping is not None or not driven.run.owned or not driven.frontier.may_start(key[1]):
                self._put_off(driven, key[1])
            elif not self._lacks_input(driven, key[1]):
                self._begin(driven, key[1], gpus)

    def _put_off(self, driven: Driven, name: str) -> None:
        """Its turn came, and nothing new may start."""
        if driven.run.steps[name].status is StepStatus.RUNNING:
            canceled = driven.stopping is EndReason.CANCELED
            self.facts.move_step(driven.run, name, "cancel" if canceled else "interrupt")
        self.books.release((driven.run.number, name))
        self._settle(driven, name)

    def _lacks_input(self, driven: Driven, name: str) -> bool:
        """Now and then the cache lost what a needed step gave: that one is made again, and this one waits for it."""
        step = driven.run.steps[name]
        green = [n for n in step.planned.needs if driven.run.steps[n].state.green]
        if not green or self.home.dice.random() > 0.01:
            return False
        again = self.home.dice.choice(green)
        before = self.facts.move_step(driven.run, again, "reopen")
        driven.frontier.reopen(before)
        if step.status is StepStatus.RUNNING:
            self.facts.move_step(driven.run, name, "interrupt")
        self.home.point()
        self.books.release((driven.run.number, name))
        self._settle(driven, name)
        return True

    def _begin(self, driven: Driven, name: str, gpus: tuple[int, ...]) -> None:
        run, home = driven.run, self.home
        home.point()
        if run.steps[name].status is StepStatus.QUEUED:
            expect(name in ready(run.states), "a step starts when its needs have ended as they must")
            self.facts.move_step(run, name, "start")
        attempt = self.facts.begin(run, name, gpus, home.wall)
        home.point()
        home.machine.start(attempt.id)
        home.let_end(run.steps[name], attempt.id)
        home.point()
        self.facts.move_attempt(attempt, "started")

    def told(self, attempt: str) -> None:
        """A message that an attempt's process has ended; it may come late, twice, or to another coordinator."""
        number, name, _ = attempt.split(".")
        driven = self.driven.get(int(number))
        live = driven.run.steps[name].live if driven is not None else None
        process = self.home.machine.processes.get(attempt)
        if driven is None or live is None or live.id != attempt or process is None or process.reason is None:
            return
        self.home.point()
        self._conclude(driven, name, live, process)

    def _conclude(self, driven: Driven, name: str, live: Attempt, process: Process) -> None:
        run, step = driven.run, driven.run.steps[name]
        reason, event = process.reason or EndReason.LOST, "pass" if process.passed else "fail"
        if driven.stopping is not None:
            reason, event = driven.stopping, "cancel" if driven.stopping is EndReason.CANCELED else "interrupt"
        elif not process.passed:
            event = "error" if reason is EndReason.LOST else "fail"
            if sum(a.reason not in {None, EndReason.INTERRUPTED} for a in step.attempts) < step.retries:
                event = "retry"
        self.facts.move_attempt(live, "end", reason)
        self.home.machine.unheard.pop(live.id)
        if event == "retry":
            self.books.release((run.number, name))
            self.home.pause(run.number, name)
            return
        if event in {"fail", "error"} and step.may_fail:
            event = "warn"
        self.facts.move_step(run, name, event)
        if event == "pass":
            self.facts.took(run, name, self.home.wall - live.began)
        self.home.point()
        self.books.release((run.number, name))
        self._settle(driven, name)

    def pause_over(self, number: int, name: str) -> None:
        """The pause between two attempts is over; the timer may be one of an earlier life, or ring twice."""
        driven = self.driven.get(number)
        key = (number, name)
        if driven is None or name not in driven.tasks or key in self.books.waiting or key in self.books.held:
            return
        if driven.stopping is not None or not driven.run.owned:
            event = "cancel" if driven.stopping is EndReason.CANCELED else "interrupt"
            self.facts.move_step(driven.run, name, event)
            self._settle(driven, name)
        else:
            self._ask(driven, name)

    # --- requests

    def handle(self, request: Request) -> None:
        run = self.facts.runs.get(request.run)
        if request.is_open and run is not None:
            getattr(self, f"_{request.kind}")(run)
        if request.kind in {"resume", "rerun"} or run is None or run.number in self.facts.ended:
            request.is_open = False

    def _cancel(self, run: Run) -> None:
        self._stop(run, EndReason.CANCELED)

    def _interrupt(self, run: Run) -> None:
        if run.status is RunStatus.QUEUED:
            run.owned = False
            self._close(run.number, "interrupt")
        else:
            self._stop(run, EndReason.INTERRUPTED)

    def _stop(self, run: Run, why: EndReason) -> None:
        self.drive(run)
        driven = self.driven.get(run.number)
        if driven is None or driven.stopping is not None:
            return
        driven.stopping = why
        for name in [n for n in run.steps if n in driven.tasks]:
            key = (run.number, name)
            if key in self.books.waiting:
                self.books.withdraw(key)
                if run.steps[name].status is StepStatus.RUNNING:
                    self.facts.move_step(run, name, "cancel" if why is EndReason.CANCELED else "interrupt")
                self._settle(driven, name)
            elif key in self.books.held:
                self.home.kill(str(run.steps[name].live.id))  # type: ignore[union-attr]
            else:
                self.pause_over(run.number, name)
        self.home.revisit(run.number)

    def _resume(self, run: Run) -> None:
        run.owned = True
        self.drive(run)
        self.home.revisit(run.number)

    def _rerun(self, run: Run) -> None:
        """Open what failed again, and what was skipped for it."""
        driven = self.driven.get(run.number)
        if driven is None or driven.stopping is not None:
            return
        opened: set[str] = set()
        for name, step in run.steps.items():
            missed = step.status is StepStatus.SKIPPED and not step.cached and opened & set(step.planned.needs)
            if step.status in {StepStatus.FAILED, StepStatus.ERRORED} or missed:
                driven.frontier.reopen(self.facts.move_step(run, name, "reopen"))
                opened.add(name)
        self.home.revisit(run.number)

    def _end_if_over(self, driven: Driven) -> None:
        run = driven.run
        if driven.tasks or (driven.stopping is None and (driven.frontier.open or not run.owned)):
            return
        self.home.point()
        if driven.stopping is EndReason.INTERRUPTED:
            run.owned = False
            self.facts.move_run(run, "interrupt")
            self._close(run.number, "interrupt")
        elif driven.stopping is EndReason.CANCELED:
            for name, step in run.steps.items():
                if step.status is StepStatus.QUEUED:
                    self.facts.move_step(run, name, "cancel")
            self.facts.move_run(run, "cancel")
            self._close(run.number, "cancel")
        else:
            expect(all(s.status in ENDED_STEP for s in run.steps.values()), "a run ends after its steps")
            self.facts.move_run(run, outcome([s.status for s in run.steps.values()], [], []))
        del self.driven[run.number]
        self.books.check_run(run.number)
        if run.number in self.facts.ended:
            self.home.machine.forget(run)

    def _close(self, run: int, kind: str) -> None:
        for request in self.facts.requests.values():
            if request.run == run and request.kind == kind:
                request.is_open = False

    def check(self, driven: Driven) -> None:
        """The frontier says what the rules say, and whatever is ready is under way."""
        states = driven.run.states
        over = {s.name for s in states if s.status in ENDED_STEP}
        lost = {n for n in unreachable(states) if over.issuperset(driven.run.steps[n].planned.needs)}
        expect(lost <= driven.tasks, "what can never run is skipped")
        if driven.stopping is None and driven.run.owned:
            expect(set(ready(states)) <= driven.tasks, "what is ready waits for its turn")
