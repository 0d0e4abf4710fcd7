"""A whole home in one thread and one heap of events, replayable by its seed: the pure rules under every misfortune.

What is real: `Schedule`, `Frontier`, the transition tables, `plans.remaining`, `runs.outcome`. What is modelled: the
store (`Facts`, atomic between two crash points), the machine (`Machine`, which outlives coordinators), messages (which
come late, twice or never), clocks (which jump) and the coordinator's memory (`Mind`, which a crash empties).
`Books` reckons anew, by itself, what the schedule claims. A broken promise raises `BrokenError`.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from engine.books import BrokenError, expect
from engine.facts import Facts, Machine, Request, Step, random_run
from engine.mind import Mind, Rules
from penstock.engine.scheduling import Need
from penstock.errors import TransitionError
from penstock.runs import ATTEMPT_TRANSITIONS, RUN_TRANSITIONS, STEP_TRANSITIONS, EndReason

HOUR = 3600.0


class KilledError(BaseException):
    """The coordinator is dead at this very point."""


ILLEGAL: tuple[tuple[str, Mapping[Any, Any]], ...] = (
    ("run", RUN_TRANSITIONS),
    ("step", STEP_TRANSITIONS),
    ("attempt", ATTEMPT_TRANSITIONS),
)


class Simulation:
    """A home under a seed. `play` deals events; `settle` then deals no more misfortunes until every run has ended.

    `open_runs` are as many as are open at once, `lives` the mean seconds from one crash to the next.
    """

    def __init__(self, seed: int, rules: Rules | None = None, open_runs: int = 40, lives: float = 60.0) -> None:
        self.rules = rules or Rules()
        self.dice = Random(seed)  # noqa: S311 - dice that can be thrown again, no secret
        self.counts: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.now = 0.0
        self._offset = 1_700_000_000.0
        self._open_runs = open_runs
        self._lives = lives
        self._digest = hashlib.blake2b(digest_size=16)
        self.facts = Facts(self._journal)
        self.machine = Machine()
        self.mind: Mind | None = None
        self._queue: list[tuple[float, int, str, tuple[object, ...]]] = []
        self._dealt = 0
        self._numbers = 0
        self._is_calm = False
        self._again: list[int] = []
        for kind in ("start", "arrive", "look", "crash", "jump", "follower", "illegal", "demand"):
            self._later(self.dice.random(), kind)

    @property
    def wall(self) -> float:
        """What the wall clock shows."""
        return self.now + self._offset

    @property
    def digest(self) -> str:
        """Names everything that has happened so far."""
        return self._digest.hexdigest()

    @property
    def events(self) -> int:
        return sum(self.counts.values())

    def play(self, events: int) -> None:
        """Deal so many events more. Raises BrokenError, with the number of the event."""
        last = self.events + events
        while self.events < last:
            self._deal()

    def settle(self) -> None:
        """From now on nothing new comes and nothing dies; whoever left a run comes back to it. Every run must end."""
        self._is_calm = True
        self._later(0.0, "start")
        limit = self.events + 40_000
        while self.facts.runs:
            if self.events >= limit:
                raise BrokenError(f"every run ends, and these do not: {sorted(self.facts.runs)}")
            self._deal()

    def _deal(self) -> None:
        when, _, kind, details = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        self.counts[kind] += 1
        self._digest.update(f"{self.now:.6f} {kind} {details}\n".encode())
        try:
            getattr(self, f"_on_{kind}")(*details)
            self._after()
        except KilledError:
            self._die()
        except BrokenError as error:
            raise BrokenError(f"event {self.events} ({kind} {details}): {error}") from error

    def _after(self) -> None:
        """The coordinator looks at the runs that an event touched, and at who may start."""
        mind = self.mind
        if mind is None:
            return
        mind.grant()
        while self._again:
            number = self._again.pop()
            if number in mind.driven:
                mind.advance(mind.driven[number])
            if not self._again:
                mind.grant()
        if mind.driven and self.events % 16 == 0:
            mind.check(self.dice.choice(list(mind.driven.values())))

    def _journal(self, line: str) -> None:
        self._digest.update(line.encode())

    def _later(self, seconds: float, kind: str, *details: object) -> None:
        self._dealt += 1
        heapq.heappush(self._queue, (self.now + seconds, self._dealt, kind, details))

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --- what the coordinator does to the world

    def point(self) -> None:
        """A point at which the coordinator may die."""
        if not self._is_calm and self.dice.random() < 0.0005:
            self.seen["killed at a point"] += 1
            raise KilledError

    def revisit(self, run: int) -> None:
        self._again.append(run)

    def let_end(self, step: Step, attempt: str) -> None:
        """A process was started: when and how will it end?"""
        self._later(self.dice.expovariate(1 / step.seconds), "end", attempt, "", self.dice.random() < 0.85)

    def kill(self, attempt: str) -> None:
        """A process is asked to end: it takes its grace, or has ended just now."""
        self._later(self.dice.choice([0.0, 0.01, 2.0]), "end", attempt, EndReason.CANCELED.value, False)

    def pause(self, run: int, step: str) -> None:
        for _ in range(self.dice.choice([1, 1, 1, 2])):
            self._later(self.dice.expovariate(1.0), "pause", run, step)

    def _die(self) -> None:
        self.mind = None
        self._again.clear()
        self._later(self.dice.expovariate(0.5), "start")

    # --- events

    def _on_start(self) -> None:
        if self.mind is None:
            self.mind = Mind(self)
            self.mind.recover()

    def _on_arrive(self) -> None:
        """Somebody asks for a run."""
        if self._is_calm:
            return
        self._later(self.dice.expovariate(0.5), "arrive")
        if len(self.facts.runs) < self._open_runs:
            number = self._next_number()
            run = self.facts.runs[number] = random_run(number, self.dice)
            for _ in range(self.dice.choice([1, 1, 2])):
                self._later(self.dice.expovariate(2.0), "poke", run.number)

    def _on_poke(self, number: int) -> None:
        """The message that a run was asked for; lost ones are made good by looks, and it may come twice."""
        run = self.facts.runs.get(number)
        if self.mind is not None and run is not None and run.owned:
            self.mind.drive(run)

    def _on_demand(self) -> None:
        """Somebody asks something of a run, perhaps of one that has ended, and perhaps twice."""
        if self._is_calm:
            return
        self._later(self.dice.expovariate(0.15), "demand")
        kind = self.dice.choice(["cancel", "interrupt", *["resume"] * 5, "rerun", "rerun"])
        last = max(1, self._numbers)
        run = self.dice.randint(1, last) if self.dice.random() < 0.2 else self._some_run()
        request = Request(self._next_number(), kind, run)
        self.facts.requests[request.id] = request
        for _ in range(self.dice.choice([1, 1, 2])):
            self._later(self.dice.expovariate(1.0), "ask", request.id)

    def _some_run(self) -> int:
        return self.dice.choice(list(self.facts.runs)) if self.facts.runs else 0

    def _on_ask(self, number: int) -> None:
        if self.mind is not None:
            self.mind.handle(self.facts.requests[number])

    def _on_end(self, attempt: str, why: str, passed: bool) -> None:
        """A process ends; the message of it comes soon, late, twice or never."""
        reason = EndReason.EXIT
        if why or not passed:
            dealt = self.dice.choice([EndReason.EXIT, EndReason.LOST, EndReason.TIMEOUT, EndReason.OOM])
            reason = EndReason(why) if why else dealt
        if self.machine.end(attempt, reason, passed=passed):
            for _ in range(self.dice.choice([0, 1, 1, 1, 1, 1, 2])):
                self._later(self.dice.choice([0.0, 0.0, 0.001, 5.0]), "told", attempt)

    def _on_told(self, attempt: str) -> None:
        if self.mind is not None:
            self.mind.told(attempt)

    def _on_pause(self, run: int, step: str) -> None:
        if self.mind is not None:
            self.mind.pause_over(run, step)

    def _on_look(self) -> None:
        """The coordinator looks by itself: at messages that never came, and at runs that nobody drives."""
        self._later(4.0, "look")
        mind = self.mind
        if mind is None:
            return
        for run in list(self.facts.runs.values()):
            if self._is_calm and not run.owned:
                mind.handle(Request(0, "resume", run.number))
            elif run.owned:
                mind.drive(run)
        for attempt in list(self.machine.unheard):
            mind.told(attempt)
        self.facts.requests = {n: r for n, r in self.facts.requests.items() if r.is_open or n > self._numbers - 500}

    def _on_crash(self) -> None:
        """The coordinator dies between two events."""
        if not self._is_calm:
            self._later(self.dice.expovariate(1 / self._lives), "crash")
            if self.mind is not None:
                self._die()

    def _on_jump(self) -> None:
        """The wall clock jumps by an hour, a little, or a night's sleep, in which nothing ran."""
        self._later(self.dice.expovariate(1 / 60), "jump")
        self._offset += self.dice.choice([HOUR, -HOUR, 8 * HOUR, 0.5, -0.5, 1.0])

    def _on_follower(self) -> None:
        """Whoever waits for a run dies."""
        if self._is_calm:
            return
        self._later(self.dice.expovariate(0.03), "follower")
        run = self.facts.runs.get(self._some_run())
        if run is not None:
            run.owned = False

    def _on_illegal(self) -> None:
        """What the tables do not allow raises, and changes nothing."""
        self._later(self.dice.expovariate(0.1), "illegal")
        run = self.facts.runs.get(self._some_run())
        if run is None:
            return
        step = run.steps[self.dice.choice(list(run.steps))]
        kind, table = self.dice.choice(ILLEGAL)
        event = self.dice.choice(sorted({event for _, event in table}))
        before = (run.status, step.state, step.live and (step.live.id, step.live.status))
        try:
            if kind == "run" and (run.status, event) not in table:
                self.facts.move_run(run, event)
            elif kind == "step" and (step.status, event) not in table:
                self.facts.move_step(run, step.planned.name, event)
            elif kind == "attempt" and step.live is not None and (step.live.status, event) not in table:
                self.facts.move_attempt(step.live, event)
            else:
                return
        except TransitionError:
            after = (run.status, step.state, step.live and (step.live.id, step.live.status))
            expect(after == before, "an illegal event changes nothing")
            self._misuse(run.number)
            return
        raise BrokenError(f"a {kind} that cannot {event} did")

    def _misuse(self, run: int) -> None:
        """The schedule refuses what cannot be, and changes nothing."""
        if self.mind is None:
            return
        schedule = self.mind.books.schedule
        before = (len(schedule.held), len(list(schedule.waiting)))
        known = next(iter(self.mind.books.held), None) or next(iter(self.mind.books.waiting), None)
        misuses: list[Callable[[], None]] = [lambda: schedule.release((run, "nobody"))]
        if known is not None:
            misuses.append(lambda: schedule.ask(known, Need()))
        for misuse in misuses:
            try:
                misuse()
            except (KeyError, ValueError):
                expect((len(schedule.held), len(list(schedule.waiting))) == before, "a misuse changes nothing")
            else:
                raise BrokenError("the schedule took what cannot be")
