"""The transition tables of runs, steps and attempts, what is ready, and how a run ends."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import (
    EngineError,
    NotFoundError,
    PenstockError,
    PipelineError,
    Problem,
    SourceError,
    StateError,
    TransitionError,
    UsageError,
)
from penstock.releases import RELEASE_TRANSITIONS, ReleaseStatus, after_release
from penstock.runs import (
    ATTEMPT_TRANSITIONS,
    ENDED_RUN,
    ENDED_STEP,
    GREEN_STEP,
    NOTHING_RED,
    RUN_TRANSITIONS,
    STEP_TRANSITIONS,
    AttemptStatus,
    Frontier,
    Outcome,
    RunStatus,
    RunView,
    StepState,
    StepStatus,
    StepView,
    after_attempt,
    after_run,
    after_step,
    outcome,
    ready,
    reds,
    unreachable,
)

Table = Mapping[tuple[StrEnum, str], StrEnum]
NOT_YET = {RunStatus.WAITING, ReleaseStatus.PROBING, ReleaseStatus.CANARY}
"""States that the design has and that nothing leads to until they are built."""

TABLES: list[tuple[Any, Callable[[Any, str], StrEnum], type[StrEnum], set[StrEnum]]] = [
    (RUN_TRANSITIONS, after_run, RunStatus, set(ENDED_RUN)),
    (STEP_TRANSITIONS, after_step, StepStatus, set(ENDED_STEP)),
    (ATTEMPT_TRANSITIONS, after_attempt, AttemptStatus, {AttemptStatus.ENDED}),
    (
        RELEASE_TRANSITIONS,
        after_release,
        ReleaseStatus,
        {ReleaseStatus.RETIRED, ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK},
    ),
]
NAMES = ["run", "step", "attempt", "release"]
tables = pytest.mark.parametrize(("table", "after", "states", "final"), TABLES, ids=NAMES)


@tables
def test_the_table_alone_says_what_may_happen(
    table: Table, after: Callable[[StrEnum, str], StrEnum], states: type[StrEnum], final: set[StrEnum]
) -> None:
    """Every event of the table leads where it says; every other one raises a sentence with state and event."""
    before = dict(table)
    events = {event for _, event in table} | {"", "explode", "START", "passed"}
    for state in states:
        for event in events:
            if (state, event) in table:
                assert after(state, event) is table[state, event]
                continue
            with pytest.raises(TransitionError, match=f"that is {state} cannot {event}"):
                after(state, event)
    assert dict(table) == before


@tables
def test_every_state_can_end(
    table: Table, after: Callable[[StrEnum, str], StrEnum], states: type[StrEnum], final: set[StrEnum]
) -> None:
    """From every state that something leads to, a final one can be reached."""
    ending = set(final)
    while more := {s for (s, _), t in table.items() if t in ending} - ending:
        ending |= more
    assert set(states) - ending <= NOT_YET


AGAIN = {"reopen", "restore"}
"""What may happen after the end: a step runs again in a run that goes on, a retired release serves after a rollback."""


@tables
def test_what_ended_stays_ended(
    table: Table, after: Callable[[StrEnum, str], StrEnum], states: type[StrEnum], final: set[StrEnum]
) -> None:
    """Nothing happens to what has ended, unless somebody asks for it again; what was canceled stays canceled."""
    assert {event for state, event in table if state in final} <= AGAIN
    assert "canceled" not in {state for state, _ in table}


@tables
def test_no_event_leads_in_place(
    table: Table, after: Callable[[StrEnum, str], StrEnum], states: type[StrEnum], final: set[StrEnum]
) -> None:
    """A transition always changes the state, so that compare-and-set notices whoever came second.

    But for a canary's next width: who judges it has the turn of its environment.
    """
    assert {event for (before, event), follows in table.items() if before is follows} <= {"widen"}


def test_ended_and_green() -> None:
    """A green step has ended, and an ended step is in no state that still moves."""
    assert GREEN_STEP < ENDED_STEP
    assert {s for s, event in STEP_TRANSITIONS if event not in AGAIN} == set(StepStatus) - ENDED_STEP


# --- what is ready -------------------------------------------------------------------------------------------------


OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "always")


@st.composite
def graphs(draw: st.DrawFn, statuses: st.SearchStrategy[StepStatus]) -> list[StepState]:
    """Steps in the plan's order: each needs only earlier ones."""
    steps: list[StepState] = []
    for number in range(draw(st.integers(0, 9))):
        known = [s.name for s in steps]
        needs = draw(st.lists(st.sampled_from(known), unique=True, max_size=4)) if known else []
        outcome = draw(st.sampled_from(OUTCOMES))
        steps.append(StepState(f"s{number}", tuple(needs), draw(statuses), draw(st.booleans()), outcome))
    return steps


ANY = st.sampled_from(list(StepStatus))
NOT_RUNNING = st.sampled_from([s for s in StepStatus if s is not StepStatus.RUNNING])
ENDS = st.sampled_from(sorted(ENDED_STEP))


@given(graphs(ANY))
def test_no_step_is_ready_and_unreachable(steps: list[StepState]) -> None:
    """Only queued steps are ready or unreachable, never both; the needs of a ready one have ended as it asks."""
    by_name, red = {s.name: s for s in steps}, reds(steps)
    can, never = ready(steps), unreachable(steps)
    assert not set(can) & never.keys()
    assert all(by_name[n].status is StepStatus.QUEUED for n in (*can, *never))
    for step in map(by_name.__getitem__, can):
        needed = [by_name[n] for n in step.needs]
        assert all(n.status in ENDED_STEP for n in needed)
        assert step.outcome != "passed" or all(n.green for n in needed)
        assert step.outcome != "failed" or any(n.name in red for n in needed)
    causes = [sentence for sentence in never.values() if sentence != NOTHING_RED]
    assert not any(by_name[sentence.split()[1].rstrip(",")].green for sentence in causes)


@given(graphs(NOT_RUNNING))
def test_no_step_waits_for_ever(steps: list[StepState]) -> None:
    """Where nothing runs, some queued step is ready once the unreachable are skipped, or none is left."""
    after = _skipped(steps)
    assert ready(after) or not any(s.status is StepStatus.QUEUED for s in after)


@given(graphs(st.just(StepStatus.QUEUED)), st.data())
def test_a_run_always_comes_to_its_end(steps: list[StepState], data: st.DataObject) -> None:
    """Whatever becomes of the steps, starting the ready and skipping the unreachable ends them all."""
    state = {s.name: s for s in steps}
    for _ in range(2 * len(steps) + 1):
        now = list(state.values())
        for name in unreachable(now):
            state[name] = _ended(state[name], StepStatus.SKIPPED)
        for name in ready(now):
            state[name] = _ended(state[name], data.draw(ENDS))
    assert all(s.status in ENDED_STEP for s in state.values())


def _ended(step: StepState, status: StepStatus, *, cached: bool = False) -> StepState:
    return StepState(step.name, step.needs, status, cached, step.outcome)


def _skipped(steps: list[StepState]) -> list[StepState]:
    """The same, with what can never be ready skipped, until nothing more is."""
    while never := unreachable(steps):
        steps = [_ended(s, StepStatus.SKIPPED) if s.name in never else s for s in steps]
    return steps


@pytest.mark.parametrize(
    ("status", "cached", "words"),
    [
        (StepStatus.FAILED, False, "failed"),
        (StepStatus.ERRORED, False, "errored"),
        (StepStatus.CANCELED, False, "was canceled"),
        (StepStatus.SKIPPED, False, "was skipped"),
    ],
)
def test_why_a_step_is_unreachable(status: StepStatus, cached: bool, words: str) -> None:
    """The sentence names the need and what became of it; what needs the skipped step says that."""
    steps = [
        StepState("a", (), status, cached),
        StepState("b", ("a",), StepStatus.QUEUED),
        StepState("c", ("b",), StepStatus.QUEUED),
    ]
    assert unreachable(steps) == {"b": f"needs a, which {words}", "c": "needs b, which was skipped"}


ENDINGS = [
    (StepStatus.PASSED, "always", True),
    (StepStatus.PASSED, "failed", False),
    (StepStatus.FAILED, "always", True),
    (StepStatus.FAILED, "failed", True),
    (StepStatus.FAILED, "passed", False),
    (StepStatus.WARNED, "failed", False),
    (StepStatus.SKIPPED, "failed", False),
    (StepStatus.SKIPPED, "always", True),
]


@pytest.mark.parametrize(("status", "outcome", "runs"), ENDINGS)
def test_how_what_it_needs_must_have_ended(status: StepStatus, outcome: Outcome, runs: bool) -> None:
    """`always` waits for the end alone, `failed` for something red, and what a condition skipped is not red."""
    steps = [StepState("a", (), status), StepState("b", ("a",), StepStatus.QUEUED, outcome=outcome)]
    assert ready(steps) == (("b",) if runs else ())
    assert ("b" in unreachable(steps)) is not runs


def test_what_was_skipped_for_a_red_step_is_red_too() -> None:
    """A step for failures runs also where what it needs was never begun, because something before it failed."""
    steps = [
        StepState("a", (), StepStatus.FAILED),
        StepState("b", ("a",), StepStatus.SKIPPED),
        StepState("tell", ("b",), StepStatus.QUEUED, outcome="failed"),
    ]
    assert ready(steps) == ("tell",)
    assert Frontier(steps).take_ready() == ["tell"]


@pytest.mark.parametrize(
    ("status", "cached", "green"),
    [
        (StepStatus.PASSED, False, True),
        (StepStatus.WARNED, False, True),
        (StepStatus.SKIPPED, True, True),
        (StepStatus.SKIPPED, False, False),
        (StepStatus.FAILED, True, False),
        (StepStatus.RUNNING, False, False),
    ],
)
def test_green(status: StepStatus, cached: bool, green: bool) -> None:
    """Passed, warned and known from the cache are green; a step that was skipped for another reason is not."""
    state = StepState("a", (), status, cached)
    assert state.green is green
    assert ready([state, StepState("b", ("a",), StepStatus.QUEUED)]) == (("b",) if green else ())


@given(graphs(ANY))
def test_the_frontier_begins_where_the_rules_say(steps: list[StepState]) -> None:
    """A frontier made of any state of a run gives the same ready steps, and the same unreachable ones in the end."""
    frontier = Frontier(steps)
    assert set(frontier.take_ready()) == set(ready(steps))
    assert frontier.open == {s.name for s in steps if s.status not in ENDED_STEP}
    by_name = {s.name: s for s in steps}
    while found := frontier.take_unreachable():
        for name in found:
            by_name[name] = _ended(by_name[name], StepStatus.SKIPPED)
            frontier.settle(by_name[name])
    after = _skipped(steps)
    assert list(by_name.values()) == after
    assert set(frontier.take_ready()) == set(ready(after)) - set(ready(steps))


class Story:
    """A run that a frontier is told of, beside the plain rules on the same states."""

    def __init__(self, steps: list[StepState]) -> None:
        self.frontier = Frontier(steps)
        self.state = {s.name: s for s in steps}
        self.skip()

    def set(self, name: str, status: StepStatus, *, cached: bool = False) -> StepState:
        self.state[name] = _ended(self.state[name], status, cached=cached)
        return self.state[name]

    @property
    def running(self) -> list[str]:
        return [s.name for s in self.state.values() if s.status is StepStatus.RUNNING]

    def start(self) -> None:
        """What the frontier gives is what the rules call ready, each step once."""
        taken = self.frontier.take_ready()
        assert sorted(taken) == sorted(ready(list(self.state.values())))
        for name in taken:
            self.set(name, StepStatus.RUNNING)

    def end(self, name: str, status: StepStatus, *, cached: bool = False) -> None:
        self.frontier.settle(self.set(name, status, cached=cached))
        self.skip()

    def skip(self) -> None:
        """What can never be ready is skipped, until nothing more is."""
        while found := self.frontier.take_unreachable():
            for other in found:
                self.frontier.settle(self.set(other, StepStatus.SKIPPED))

    def put_off(self, name: str) -> None:
        self.set(name, StepStatus.QUEUED)
        self.frontier.requeue(name)
        self.skip()

    def reopen(self, name: str) -> None:
        """A step is to run again, with what was skipped for it, as a rerun of what failed does."""
        opened: set[str] = set()
        for step in list(self.state.values()):
            missed = step.status is StepStatus.SKIPPED and not step.cached and opened & {*step.needs}
            if step.name == name or missed:
                opened.add(step.name)
                self.frontier.reopen(step)
                self.set(step.name, StepStatus.QUEUED)
        self.skip()


@given(graphs(st.just(StepStatus.QUEUED)), st.data())
def test_the_frontier_follows_a_run(steps: list[StepState], data: st.DataObject) -> None:
    """Whatever ends, is put off or runs again: each step starts when the rules make it ready, and never twice."""
    story = Story(steps)
    surprises = data.draw(st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=4).map(dict))
    turn = 0
    while story.frontier.open:
        story.start()
        turn += 1
        ended = [s.name for s in story.state.values() if (s.status, "reopen") in STEP_TRANSITIONS]
        if surprises.get(turn) and ended:
            story.reopen(data.draw(st.sampled_from(ended)))
            continue
        if not story.running:
            break
        name = data.draw(st.sampled_from(story.running))
        if turn in surprises:
            story.put_off(name)
        else:
            story.end(name, data.draw(ENDS), cached=data.draw(st.booleans()))
    assert not story.frontier.take_ready()
    assert all(s.status in ENDED_STEP for s in story.state.values())


def test_a_step_that_runs_is_not_started_again() -> None:
    """A need that is made again while its user runs makes the user ready a second time only if it was put off."""
    story = Story([StepState("a", (), StepStatus.QUEUED), *(StepState(n, ("a",), StepStatus.QUEUED) for n in "bc")])
    story.start()
    story.end("a", StepStatus.PASSED)
    story.start()
    story.reopen("a")
    story.put_off("c")
    story.start()
    assert story.running == ["a", "b"]
    story.end("a", StepStatus.PASSED)
    assert story.frontier.take_ready() == ["c"]


# --- how a run ends ------------------------------------------------------------------------------------------------

VERDICTS = st.lists(st.sampled_from(["pass", "fail", "inconclusive", "errored"]))
ROLLOUTS = st.lists(st.sampled_from(["released", "skipped", "rejected", "rolled_back", "errored"]))


@given(st.lists(ENDS), VERDICTS, ROLLOUTS)
def test_failed_beats_errored(steps: list[StepStatus], verdicts: list[str], rollouts: list[str]) -> None:
    """Failed beats errored, errored beats canceled; a run passes only where nothing of it is red."""
    red = StepStatus.FAILED in steps or "fail" in verdicts or {"rejected", "rolled_back"} & {*rollouts}
    broken = StepStatus.ERRORED in steps or {"inconclusive", "errored"} & {*verdicts} or "errored" in rollouts
    ended = "fail" if red else "error" if broken else None
    wanted = ended or ("cancel" if StepStatus.CANCELED in steps else "pass")
    event = outcome(steps, verdicts, rollouts)
    assert event == wanted
    assert after_run(RunStatus.RUNNING, event) in ENDED_RUN


def _run_view(started: float | None, ended: float | None) -> RunView:
    return RunView(
        run="1",
        project="digits",
        version="0.1",
        commit="c" * 40,
        branch="main",
        title="a change",
        trigger="manual",
        status="passed",
        reason=None,
        created=1.0,
        started=started,
        ended=ended,
        dirty=False,
        steps=(),
        gates=(),
        releases=(),
        package=None,
        package_size=None,
        metrics={},
    )


@pytest.mark.parametrize(
    ("started", "ended", "seconds"), [(None, None, None), (1.0, None, None), (1.0, 3.5, 2.5), (4.0, 3.0, 0.0)]
)
def test_durations(started: float | None, ended: float | None, seconds: float | None) -> None:
    """A duration is known once both ends are, and a clock that went back never makes it negative."""
    assert StepView("a", "build", "passed", started=started, ended=ended).seconds == seconds
    assert _run_view(started, ended).seconds == seconds


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (PenstockError, 3, 500),
        (UsageError, 2, 400),
        (NotFoundError, 2, 404),
        (SourceError, 2, 400),
        (StateError, 2, 409),
        (EngineError, 3, 500),
        (TransitionError, 3, 500),
    ],
)
def test_an_error_carries_its_codes(kind: type[PenstockError], code: int, status: int) -> None:
    """Each error is its sentence, with an exit code for the command line and a status for a server."""
    error = kind("one sentence")
    assert (str(error), error.exit_code, error.http_status) == ("one sentence", code, status)


def test_the_problems_of_a_file_stand_in_order() -> None:
    """A pipeline error tells its problems by file, line and column, one to a line."""
    late, early = Problem("b.yaml", 2, 1, "second"), Problem("b.yaml", 1, 9, "first")
    error = PipelineError([late, early])
    assert error.problems == (early, late)
    assert str(error) == "b.yaml:1:9: first\nb.yaml:2:1: second"
    assert error.exit_code == 2


def test_what_ended_otherwise_is_not_skipped_again() -> None:
    """A step that can never be ready and was skipped for another reason meanwhile is told no more."""
    frontier = Frontier([StepState("a", (), StepStatus.RUNNING), StepState("b", ("a",), StepStatus.QUEUED)])
    frontier.settle(StepState("a", (), StepStatus.FAILED))
    frontier.settle(StepState("b", ("a",), StepStatus.SKIPPED))
    assert frontier.take_unreachable() == {}


def test_a_step_that_is_ready_waits_anew_for_what_is_opened_again() -> None:
    """What waits for its turn may not start any more once a need of it is opened again, until that has passed."""
    frontier = Frontier([StepState("a", (), StepStatus.PASSED), StepState("b", ("a",), StepStatus.QUEUED)])
    assert (frontier.take_ready(), frontier.may_start("b")) == (["b"], True)
    frontier.reopen(StepState("a", (), StepStatus.PASSED))
    assert not frontier.may_start("b")
    frontier.requeue("b")
    assert frontier.take_ready() == ["a"]
    frontier.settle(StepState("a", (), StepStatus.PASSED))
    assert (frontier.take_ready(), frontier.may_start("b")) == (["b"], True)
