"""The store on a real SQLite file: its schema, its transactions, its compare-and-set, its journal."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

import penstock.store.sql
from penstock.artifacts import Digest, File
from penstock.charts import Chart
from penstock.errors import EngineError, NotFoundError, TransitionError
from penstock.plans import PlannedStep, StepKind
from penstock.releases import ReleaseStatus
from penstock.runs import AttemptStatus, GateView, RequestStatus, RunStatus, StepStatus
from penstock.store.contract import NOBODY, Action, Follower, PackageRecord, Project, Release, Target
from penstock.store.sql import Store, open_store
from penstock.store.tables import HEAD, metadata

ME = Follower(7, 11, "boot")
DIGITS = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
PLAN = (
    PlannedStep("check", StepKind.CHECK, "build", ()),
    PlannedStep("train", StepKind.STEP, "build", ("check",)),
)
COMMIT = {"sha": "c" * 40, "branch": "main", "branches": ["main"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "penstock.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_store(path) as opened:
        yield opened


GATES = (GateView("fast", "at most 5"), GateView("good", "at least 1"))


def add_run(store: Store, project: Project = DIGITS, gates: Sequence[GateView] = GATES) -> int:
    """A queued run with a request of its own."""
    store.runs.project(project)
    request = store.requests.add("run", {"path": "."}, ME, "ada")
    values = {
        "request": request,
        "project": project.id,
        "owner": ME,
        "version": "0.1",
        "commit": COMMIT,
        "change": ["src/a.py"],
        "trigger": "manual",
        "mirror": "sources/m",
        "pipeline": {},
        "options": {"step": None},
        "notes": ["a note"],
    }
    return store.runs.add(values, PLAN, gates)


def add_release(store: Store, environment: str = "production", generation: int = 1) -> Release:
    store.runs.project(DIGITS)
    values = {
        "project": DIGITS.id,
        "environment": environment,
        "generation": generation,
        "request": 1,
        "run": 1,
        "version": "0.1",
        "package": "f" * 64,
        "spec": {"port": 8800},
        "actor": "ada",
    }
    return store.releases.add(values)


def journal(path: Path) -> list[tuple[Any, ...]]:
    """What the journal holds, as another program reads it."""
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT kind, entity, event, before, after, detail FROM events ORDER BY seq")
        return rows.fetchall()
    finally:
        connection.close()


# --- the schema ----------------------------------------------------------------------------------------------------


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(penstock.store.sql.__file__).with_name("schema")))
    return ScriptDirectory.from_config(config)


def test_the_migrations_make_the_tables(store: Store, path: Path) -> None:
    """A database made by the migrations is exactly what the code believes it to be."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    """The revision that opening looks for is the one that the scripts end with, and they have one end."""
    assert scripts().get_heads() == [HEAD]


def test_opening_again_changes_nothing(path: Path) -> None:
    """A home that is up to date is opened as it is, with what it holds."""
    with open_store(path) as first:
        number = first.requests.add("gc", {}, ME, "ada")
    with open_store(path) as second:
        assert second.requests.get(number).actor == "ada"
        assert second.check() == "ok"


def test_a_newer_database_is_refused(path: Path) -> None:
    """A schema that this Penstock does not know is left alone, with one sentence that says what to do."""
    open_store(path).close()
    before = _set_revision(path, "9999")
    with pytest.raises(EngineError) as caught:
        open_store(path)
    assert str(caught.value) == (
        f"{path} was written by a newer Penstock (schema 9999): update Penstock to use this home"
    )
    assert not [link for link in _open_files() if link.startswith(str(path))]
    assert _dump(path) == before


def _open_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return found


def test_an_empty_version_table_is_no_version(path: Path) -> None:
    """A first migration that never got to write its version is done again from the start."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    connection.close()
    with open_store(path) as store:
        assert store.requests.open() == []


OPEN = """
import sys
from pathlib import Path
import alembic.command
from penstock.store.sql import open_store
print("ready", flush=True)
sys.stdin.read(1)
open_store(Path(sys.argv[1])).close()
"""


def test_many_open_a_new_home_at_once(path: Path) -> None:
    """The first commands of a home may come together: one makes the database, none meets a lock."""
    command = [sys.executable, "-c", OPEN, str(path)]
    with ExitStack() as stack:
        started = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) for _ in range(4)]
        processes = [stack.enter_context(process) for process in started]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("x")
            process.stdin.flush()
        assert [process.communicate()[1] for process in processes] == [""] * 4
    with open_store(path) as store:
        assert store.check() == "ok"


def _set_revision(path: Path, revision: str) -> list[str]:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()
    return _dump(path)


def _dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be looked at" * 20, b"SQLite format 3\0oh"]
)
def test_a_damaged_file_is_one_sentence(path: Path, content: bytes) -> None:
    """A file that is no database is named, with its cause and what to do, and is not written to."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"penstock\.db cannot be used \(.*\): run penstock doctor$"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_folder_in_the_place_of_the_file(path: Path) -> None:
    """What cannot be opened at all is the same sentence."""
    path.mkdir(parents=True)
    with pytest.raises(EngineError, match="cannot be used"):
        open_store(path)


def test_a_migration_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations happen whole or not at all, so that the next opening starts from what was there."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr("alembic.command.upgrade", fail)
    with pytest.raises(EngineError, match="disk full"):
        open_store(path)
    monkeypatch.undo()
    with open_store(path) as store:
        assert store.check() == "ok"


# --- transactions --------------------------------------------------------------------------------------------------


def test_a_transaction_is_rolled_back_whole(store: Store, path: Path) -> None:
    """An error inside leaves nothing of it, in tables or journal, and the next transaction works."""
    number = add_run(store)
    before = journal(path)

    def fail() -> None:
        with store.transaction():
            store.runs.move(number, "start")
            store.runs.move_step(number, "check", "start")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.runs.get(number).status is RunStatus.QUEUED
    assert journal(path) == before
    with store.transaction():
        store.runs.move(number, "start")
    assert store.runs.get(number).status is RunStatus.RUNNING


def test_a_nested_transaction_joins_the_outer_one(store: Store, path: Path) -> None:
    """What an inner block did is seen by others only with the outer one, and goes with it."""
    number = add_run(store)

    def fail() -> None:
        with store.transaction():
            with store.transaction(durable=True):
                store.runs.move(number, "start")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.runs.get(number).status is RunStatus.QUEUED
    with store.transaction():
        with store.transaction():
            store.runs.move(number, "start")
        with open_store(path) as other:
            assert other.runs.get(number).status is RunStatus.QUEUED
    with open_store(path) as other:
        assert other.runs.get(number).status is RunStatus.RUNNING


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_durable_waits_for_the_disk(store: Store, durable: bool, level: int) -> None:
    """A durable transaction runs with synchronous=FULL (2), another with NORMAL (1)."""
    with store.transaction(durable=durable):
        assert store._connection.execute(text("PRAGMA synchronous")).scalar_one() == level


def test_another_process_is_seen(store: Store, path: Path) -> None:
    """A request that another connection inserted is found, and the change itself is noticed."""
    before = store.changes()
    with open_store(path) as other, other.transaction():
        number = other.requests.add("run", {"path": "."}, ME, "bob")
    assert store.changes() != before
    assert [(r.id, r.actor, r.follower) for r in store.requests.open()] == [(number, "bob", ME)]


def test_crash_points_stand_around_the_commit(path: Path) -> None:
    """A test can die before or after each transition is committed; before, others see nothing of it, after, all."""
    passed: list[tuple[str, str]] = []
    with open_store(path) as other:

        def crash(point: str) -> None:
            run = other.runs.of_request(1)
            passed.append((point, run.status if run else "none"))

        with open_store(path, crash) as store:
            with store.transaction():
                number = add_run(store)
            with store.transaction():
                store.runs.move(number, "start")
                store.runs.move_step(number, "check", "start")
    assert passed == [
        ("run.add:before_commit", "none"),
        ("run.add:after_commit", "queued"),
        ("run.start:before_commit", "queued"),
        ("step.start:before_commit", "queued"),
        ("run.start:after_commit", "running"),
        ("step.start:after_commit", "running"),
    ]


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_request_ends_once(store: Store) -> None:
    """The first end of a request stays, whatever is tried afterwards."""
    number = store.requests.add("run", {"path": "."}, ME, "ada")
    store.requests.end(number, 1, {"run": 4})
    first = store.requests.get(number)
    store.requests.end(number, 0)
    store.requests.refuse(number, 2, "no")
    assert store.requests.get(number) == first
    assert (first.status, first.exit_code, first.result, first.error) == (RequestStatus.ENDED, 1, {"run": 4}, None)
    assert store.requests.open() == []


def test_a_refused_request_says_why(store: Store) -> None:
    """A refusal keeps sentence and exit code, and no result."""
    number = store.requests.add("stop", {}, ME, "ada")
    assert store.requests.get(number).payload == {}
    store.requests.refuse(number, 2, "there is nothing to stop")
    found = store.requests.get(number)
    assert (found.status, found.exit_code, found.error) == (RequestStatus.REFUSED, 2, "there is nothing to stop")
    assert found.result is None
    assert found.ended is not None


def test_numbers_are_never_given_twice(store: Store) -> None:
    """Requests are numbered in the order in which they come: their number is the generation of a release."""
    numbers = [store.requests.add("gc", {}, ME, "ada") for _ in range(3)]
    assert numbers == sorted(set(numbers))
    assert [r.id for r in store.requests.open()] == store.requests.open_numbers() == numbers
    store.requests.end(numbers[0], 0)
    assert store.requests.open_numbers() == numbers[1:]
    assert [store.requests.is_open(n) for n in numbers] == [False, True, True]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda s: s.runs.get(1 << 70), f"there is no run {1 << 70} in this home: penstock runs lists them"),
        (lambda s: s.requests.get(9), "there is no request 9 in this home"),
        (lambda s: s.runs.get(9), "there is no run 9 in this home: penstock runs lists them"),
        (lambda s: s.releases.get(9), "there is no release 9 in this home"),
        (lambda s: s.runs.step(1, "trian"), 'run 1 has no step "trian"; it has check, train'),
    ],
)
def test_what_does_not_exist_is_one_sentence(store: Store, ask: Any, sentence: str) -> None:
    """A number or name that nothing bears is told with what to do."""
    add_run(store)
    with pytest.raises(NotFoundError) as caught:
        ask(store)
    assert str(caught.value) == sentence


# --- runs, steps, attempts -----------------------------------------------------------------------------------------


def test_a_run_is_read_as_it_was_written(store: Store) -> None:
    """A new run stands queued with its steps in the plan's order and its gates in the file's."""
    number = add_run(store)
    run = store.runs.get(number)
    assert (run.status, run.owner, run.change, run.notes) == (RunStatus.QUEUED, ME, ("src/a.py",), ("a note",))
    assert (run.commit, run.options, run.started, run.ended) == (COMMIT, {"step": None}, None, None)
    steps = store.runs.steps(number)
    assert [(s.name, s.kind, s.needs, s.status) for s in steps] == [
        ("check", StepKind.CHECK, (), StepStatus.QUEUED),
        ("train", StepKind.STEP, ("check",), StepStatus.QUEUED),
    ]
    assert [g.name for g in store.runs.gates(number)] == ["fast", "good"]
    assert store.runs.of_request(run.request) == run
    assert store.runs.of_request(run.request + 1) is None


def test_runs_are_listed(store: Store) -> None:
    """Runs come newest first, by project where one is named; open ones oldest first."""
    other = replace(DIGITS, id="p2", name="houses")
    numbers = [add_run(store), add_run(store, other), add_run(store)]
    store.runs.move(numbers[0], "cancel")
    assert [r.id for r in store.runs.latest()] == numbers[::-1]
    assert [r.id for r in store.runs.latest(limit=2)] == numbers[:0:-1]
    assert [r.id for r in store.runs.latest("p2")] == [numbers[1]]
    assert [r.id for r in store.runs.open()] == numbers[1:]
    assert store.runs.owners() == [(n, RunStatus.QUEUED, ME) for n in numbers[1:]]
    assert store.runs.status(numbers[0]) is RunStatus.CANCELED


def test_every_transition_is_in_the_journal(store: Store, path: Path) -> None:
    """Runs, steps, attempts and releases leave one line for each change of state, in order, with its reason."""
    number = add_run(store)
    store.runs.move(number, "start")
    store.runs.move_step(number, "train", "start")
    attempt = store.runs.begin_attempt(number, "train", {"slot": 0})
    started = store.runs.attempt_started(attempt, {"pid": 5})
    store.runs.end_attempt(started, "exit", 1, 10)
    store.runs.move_step(number, "train", "fail", reason="exit code 1")
    store.runs.move(number, "fail", reason="step train failed")
    release = add_release(store)
    store.releases.move(release.id, "reject", reason="never healthy")
    assert journal(path) == [
        ("run", f"{number}", "add", None, "queued", None),
        ("run", f"{number}", "start", "queued", "running", None),
        ("step", f"{number}/train", "start", "queued", "running", None),
        ("attempt", f"{number}.train.1", "begin", None, "starting", None),
        ("attempt", f"{number}.train.1", "started", "starting", "running", None),
        ("attempt", f"{number}.train.1", "end", "running", "ended", "exit"),
        ("step", f"{number}/train", "fail", "running", "failed", "exit code 1"),
        ("run", f"{number}", "fail", "running", "failed", "step train failed"),
        ("release", f"{release.id}", "add", None, "starting", None),
        ("release", f"{release.id}", "reject", "starting", "rejected", "never healthy"),
    ]
    assert store.last_event() == 10


def test_an_illegal_move_changes_nothing(store: Store, path: Path) -> None:
    """What the table forbids raises and leaves rows and journal as they were."""
    number = add_run(store)
    release = add_release(store)
    attempt = store.runs.begin_attempt(number, "train", {"slot": 0})
    store.runs.end_attempt(attempt, "lost", None, None)
    before = _dump(path)
    for move in (
        lambda: store.runs.move(number, "pass"),
        lambda: store.runs.move_step(number, "train", "pass"),
        lambda: store.releases.move(release.id, "retire"),
        lambda: store.runs.end_attempt(attempt, "exit", 0, 5),
        lambda: store.runs.attempt_started(attempt, {}),
    ):
        with pytest.raises(TransitionError, match="cannot"):
            move()
    assert _dump(path) == before


def test_who_comes_second_changes_nothing(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a state changed between look and move, the move is refused: each transition happens once."""
    number, release = add_run(store), add_release(store)
    run, step = store.runs.get(number), store.runs.step(number, "train")
    store.runs.move(number, "start")
    store.runs.move_step(number, "train", "skip", reason="not asked for")
    store.releases.move(release.id, "promote")
    before = _dump(path)
    monkeypatch.setattr(store.runs, "glance", lambda _: run)
    monkeypatch.setattr(store.runs, "step", lambda *_: step)
    monkeypatch.setattr(store.releases, "get", lambda _: release)
    with pytest.raises(TransitionError, match=f"run {number} changed meanwhile and cannot start"):
        store.runs.move(number, "start")
    with pytest.raises(TransitionError, match=f"step train of run {number} changed meanwhile and cannot start"):
        store.runs.move_step(number, "train", "start")
    with pytest.raises(TransitionError, match=f"release {release.id} changed meanwhile and cannot promote"):
        store.releases.move(release.id, "promote")
    assert _dump(path) == before


def test_times_of_a_run(store: Store) -> None:
    """The first start is kept over an interruption, and only an end sets the end."""
    number = add_run(store)
    store.runs.move(number, "start")
    first = store.runs.get(number).started
    store.runs.own(number, NOBODY)
    store.runs.move(number, "interrupt")
    assert store.runs.get(number).owner == NOBODY
    store.runs.move(number, "start")
    run = store.runs.get(number)
    assert first is not None
    assert (run.started, run.ended) == (first, None)
    store.runs.move(number, "pass")
    assert (store.runs.get(number).ended or 0) >= first


def test_times_of_a_step(store: Store) -> None:
    """A step that was interrupted begins anew; one that ended keeps result, key and reason."""
    number = add_run(store)
    store.runs.move_step(number, "train", "start", key="k", ingredients={"inputs": "i"})
    assert store.runs.step(number, "train").started is not None
    store.runs.move_step(number, "train", "interrupt", reason="interrupted while it ran")
    step = store.runs.step(number, "train")
    assert (step.status, step.started, step.ended) == (StepStatus.QUEUED, None, None)
    assert step.reason == "interrupted while it ran"
    assert store.runs.move_step(number, "train", "start") is StepStatus.RUNNING
    store.runs.move_step(number, "train", "pass", result={"outputs": "o"})
    step = store.runs.step(number, "train")
    assert (step.reason, step.key, step.result) == (None, "k", {"outputs": "o"})
    assert step.started is not None
    assert step.ended is not None


def test_the_outline_of_a_run(store: Store) -> None:
    """An outline is the steps without what only the engine needs."""
    number = add_run(store)
    store.runs.move_step(number, "train", "start", key="k", ingredients={"inputs": "i"})
    whole = store.runs.steps(number)
    assert whole[1].ingredients == {"inputs": "i"}
    assert store.runs.outline(number) == [replace(s, ingredients=None, result=None) for s in whole]


def test_how_long_steps_took(store: Store) -> None:
    """The last durations of steps that passed are told by name, newest first, and only so many of them."""
    runs = [add_run(store) for _ in range(4)]
    for number in runs:
        store.runs.move_step(number, "train", "start")
        store.runs.move_step(number, "train", "fail" if number == runs[1] else "pass")
        store.runs.note_step(number, "train", started=100.0, ended=100.0 + number)
    assert store.runs.durations("p1") == {"train": [float(n) for n in (runs[3], runs[2], runs[0])]}
    assert store.runs.durations("p1", last=2) == {"train": [float(runs[3]), float(runs[2])]}
    assert store.runs.durations("p2") == {}


def test_a_known_step_moves_as_it_stands(store: Store) -> None:
    """Moving a record gives the record that the database then holds."""
    number = add_run(store)
    started = store.runs.apply(store.runs.step(number, "check"), "start", key="k")
    assert started == store.runs.step(number, "check")
    passed = store.runs.apply(started, "pass", result={"a": 1}, reason="because")
    assert passed == store.runs.step(number, "check")


def test_attempts_are_counted_and_never_rewritten(store: Store) -> None:
    """Each attempt is a new row with the next number; its intent stands before its process exists."""
    number = add_run(store)
    first = store.runs.begin_attempt(number, "train", {"slot": 0})
    assert (first.id, first.status, first.handle) == (f"{number}.train.1", AttemptStatus.STARTING, None)
    store.runs.end_attempt(first, "infrastructure", None, None)
    second = store.runs.begin_attempt(number, "train", {"slot": 0})
    store.runs.attempt_started(second, {"pid": 5})
    store.runs.begin_attempt(number, "check", {"slot": 1})
    kept = store.runs.attempts(number, "train")
    assert [(a.number, a.status, a.reason, a.handle) for a in kept] == [
        (1, AttemptStatus.ENDED, "infrastructure", None),
        (2, AttemptStatus.RUNNING, None, {"pid": 5}),
    ]
    assert len(store.runs.attempts(number)) == 3


def test_attempts_follow_each_other_though_the_clock_goes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest attempt of a step is the one with the highest number, whatever the wall clock said."""
    number = add_run(store)
    for now in (2000.0, 1000.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        store.runs.begin_attempt(number, "train", {"slot": 0})
    assert [a.number for a in store.runs.attempts(number, "train")] == [1, 2]


def test_a_version_is_frozen(store: Store) -> None:
    """The version that a commit got first stays its version; other commits and projects are not touched."""
    add_run(store)
    assert store.runs.version_of("p1", "c1") is None
    assert store.runs.freeze_version("p1", "c1", "1.0.dev1") == "1.0.dev1"
    assert store.runs.freeze_version("p1", "c1", "1.0") == "1.0.dev1"
    assert store.runs.freeze_version("p1", "c2", "1.0") == "1.0"
    assert store.runs.version_of("p1", "c1") == "1.0.dev1"


def test_a_project_follows_what_was_seen_last(store: Store) -> None:
    """Name and location of a project change, its identity does not."""
    store.runs.project(DIGITS)
    store.runs.project(replace(DIGITS, name="numbers", location="elsewhere", identity="ignored"))
    assert store.runs.projects() == [replace(DIGITS, name="numbers", location="elsewhere")]


def test_what_a_step_was_made_from_last_time(store: Store) -> None:
    """The newest earlier run in which the step had a key tells its ingredients."""
    runs = [add_run(store) for _ in range(4)]
    for number in runs[:2]:
        store.runs.move_step(number, "train", "start", key="k", ingredients={"inputs": str(number)})
    store.runs.note_step(runs[1], "train", ingredients={"inputs": "noted"})
    assert store.runs.last_ingredients("p1", "train", runs[3]) == (runs[1], {"inputs": "noted"})
    assert store.runs.last_ingredients("p1", "train", runs[1]) == (runs[0], {"inputs": str(runs[0])})
    assert store.runs.last_ingredients("p1", "train", runs[0]) is None


# --- metrics, gates, packages, targets -----------------------------------------------------------------------------


def test_metrics_and_gates(store: Store) -> None:
    """Metrics are replaced by name, and a verdict stands with its value and reasons."""
    number = add_run(store)
    store.runs.set_metrics(number, "train", {})
    store.runs.set_metrics(number, "train", {"train.loss": 2.0, "train.accuracy": 0.5})
    store.runs.set_metrics(number, "train", {"train.accuracy": 0.75})
    assert store.runs.metrics(number) == {"train.accuracy": 0.75, "train.loss": 2.0}
    store.runs.judge(number, "fast", "fail", 6.0, ("6 is above 5",))
    assert store.runs.gates(number) == [GateView("fast", "at most 5", "fail", 6.0, ("6 is above 5",)), GATES[1]]
    assert store.runs.gates(add_run(store, gates=())) == []
    chart = Chart("gain", "correct", -0.01, -0.02, 0.0, -0.03, None, 0.95, 360, 4, "counted")
    store.runs.judge(number, "good", "pass", 0.9, ("fine",), chart)
    assert store.runs.gates(number)[1].chart == chart


def test_what_a_package_answered_is_found_by_package_and_test_set(store: Store) -> None:
    """Packages are numbered per test set as they are decided on it; new answers keep the number.

    One that was only compared with has none yet.
    """
    run = add_run(store)
    files = {"predictions": "p.csv", "truth": "t.csv"}
    for package, collected in (("one", "c1"), ("two", "c2"), ("one", "c3")):
        store.evidence.put("p1", "evaluate", "set", package, run=run, files=files, collected=collected)
    store.evidence.put("p1", "evaluate", "other set", "one", run=run, files=files, collected="c4")
    assert store.evidence.met("p1", "evaluate", "set") == []
    store.evidence.count("p1", "evaluate", "set", "one")
    store.evidence.count("p1", "evaluate", "set", "two")
    store.evidence.put("p1", "evaluate", "set", "one", run=run, files=files, collected="c3")
    found = [store.evidence.find("p1", "evaluate", "set", package) for package in ("one", "two", "three")]
    assert [(e.collected, e.number) if e else None for e in found] == [("c3", 1), ("c2", 2), None]
    assert [e.collected for e in store.evidence.of_package("p1", "one")] == ["c3", "c4"]
    assert store.evidence.of_package("p2", "one") == []
    assert store.evidence.met("p1", "evaluate", "set") == ["one", "two"]
    assert {e.package for e in store.evidence.newest("p1", "evaluate")} == {"one", "two"}


def test_a_package_that_passed_stays_passed(store: Store) -> None:
    """A red run that makes the same package again takes nothing from it; the newest comes first."""
    runs = [add_run(store), add_run(store)]
    package = PackageRecord("p1", "0.1", "d1", runs[0], passed=True, size=5, lineage={"a": 1}, created=1.0)
    store.runs.put_package(package)
    store.runs.put_package(replace(package, passed=False, run=runs[1], created=2.0))
    store.runs.put_package(replace(package, digest="d2", passed=False, created=3.0))
    store.runs.put_package(replace(package, version="0.2", created=4.0))
    found = store.runs.packages("p1")
    assert [(p.version, p.digest, p.passed) for p in found] == [
        ("0.2", "d1", True),
        ("0.1", "d2", False),
        ("0.1", "d1", True),
    ]
    assert [p.digest for p in store.runs.packages("p1", "0.1")] == ["d2", "d1"]
    store.runs.set_package(runs[0], "d1", 5)
    assert (store.runs.get(runs[0]).package, store.runs.get(runs[0]).package_size) == ("d1", 5)


def test_targets(store: Store) -> None:
    """Where a run stands with its environments is kept in their order and replaced by name."""
    number = add_run(store)
    store.runs.set_target(Target(number, "production", 1, "queued", None, None))
    store.runs.set_target(Target(number, "staging", 0, "queued", None, None))
    store.runs.set_target(Target(number, "staging", 0, "released", "well", 3))
    assert store.runs.targets(number) == [
        Target(number, "staging", 0, "released", "well", 3),
        Target(number, "production", 1, "queued", None, None),
    ]


# --- the action cache ----------------------------------------------------------------------------------------------


def test_results_by_key(store: Store) -> None:
    """A result is found by its key until it is forgotten, replaced by a later one, and remembers when it was used."""
    action = Action("k1", "p1", "train", 1, {"inputs": "i"}, {"outputs": "o"}, 2.0, 100.0)
    store.actions.put(action)
    later = replace(action, key="k2", created=200.0)
    store.actions.put(later)
    assert store.actions.find("k1") == action
    assert store.actions.newest("p1", "train") == later
    assert store.actions.newest("p1", "unit") is None
    store.actions.put(replace(action, run=9, created=300.0))
    assert store.actions.newest("p1", "train") == replace(action, run=9, created=300.0)
    before = time.time()
    store.actions.used("k2")
    used = {found.key: when for found, when in store.actions.all()}
    assert used["k1"] == 300.0
    assert used["k2"] >= before
    store.actions.forget("k1")
    assert store.actions.find("k1") is None


def test_digests_of_git_objects(store: Store) -> None:
    """What was read once is known again, however many are asked for, and the first digest stays."""
    files = {f"{n:040x}": File(Digest(f"{n:064x}"), n) for n in range(1203)}
    store.blobs.put({})
    store.blobs.put(files)
    store.blobs.put({f"{1:040x}": File(Digest("f" * 64), 9)})
    assert store.blobs.get([*files, "unknown"]) == files
    assert store.blobs.get([]) == {}


# --- releases ------------------------------------------------------------------------------------------------------


def test_an_older_generation_is_refused(store: Store) -> None:
    """An environment goes forward only; the same generation may go on, and environments do not mind each other."""
    store.runs.project(DIGITS)
    assert store.releases.generation("p1", "production") == 0
    assert store.releases.advance("p1", "production", 5)
    assert not store.releases.advance("p1", "production", 4)
    assert store.releases.advance("p1", "production", 5)
    assert store.releases.advance("p1", "staging", 1)
    assert (store.releases.generation("p1", "production"), store.releases.generation("p1", "staging")) == (5, 1)


def test_a_release_moves(store: Store) -> None:
    """A release serves since its promotion, ends once, and a restored one serves anew."""
    release = add_release(store)
    assert store.releases.serving("p1", "production") is None
    store.releases.note(release.id, phase="starting 1 replica")
    store.releases.move(release.id, "promote")
    serving = store.releases.serving("p1", "production")
    assert serving is not None
    assert (serving.id, serving.phase, serving.ended) == (release.id, None, None)
    store.releases.move(release.id, "replace", fate="retire")
    store.releases.move(release.id, "retire")
    retired = store.releases.get(release.id)
    assert (retired.status, retired.fate, retired.since) == (ReleaseStatus.RETIRED, "retire", serving.since)
    assert retired.ended is not None
    store.releases.move(release.id, "restore")
    restored = store.releases.get(release.id)
    assert restored.ended is None
    assert (restored.since or 0) >= (serving.since or 0)


def test_releases_are_listed(store: Store) -> None:
    """Releases come oldest first, by project and environment where these are named."""
    one, two = add_release(store), add_release(store, "staging")
    assert [r.id for r in store.releases.of()] == [one.id, two.id]
    assert [r.id for r in store.releases.of("p1", "staging")] == [two.id]
    assert [r.id for r in store.releases.of(environment="production")] == [one.id]
    assert store.releases.of("p9") == []


def test_what_each_environment_has_now(store: Store) -> None:
    """Of each environment the serving release is told, else what something happened to last; and the newest apart."""
    old, new = add_release(store), add_release(store)
    staging = [add_release(store, "staging") for _ in range(2)]
    store.releases.move(old.id, "promote")
    assert [r.id for r in store.releases.current()] == [old.id, staging[1].id]
    assert [r.id for r in store.releases.newest()] == [new.id, staging[1].id]
    store.releases.move(new.id, "reject")
    store.releases.move(old.id, "stop")
    assert [r.id for r in store.releases.current()] == [old.id, staging[1].id]


def test_replicas(store: Store) -> None:
    """A replica's intent stands before its handle; a new one in its place gets a name of its own."""
    release = add_release(store)
    first = store.releases.add_replica(release.id, 0, 9001)
    assert (first.id, first.handle, first.status) == (f"release-{release.id}.1", None, "starting")
    store.releases.note_replica(first.id, handle={"pid": 5}, status="running")
    store.releases.note_replica(first.id, status="ended")
    second = store.releases.add_replica(release.id, 0, 9001)
    assert second.id == f"release-{release.id}.2"
    assert store.releases.replicas(release.id) == [second]
    assert store.releases.all_replicas() == [second]
    assert store.releases.replica(first.id).ended is not None
