"""Test results in the store: what is kept of which attempt, for how long, and what a test's history is."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.flakes import Observation, flakiness
from penstock.plans import PlannedStep, StepKind
from penstock.reports import Status, TestCase, TestReport
from penstock.store.cases import KEPT, MESSAGE, MESSAGES, MOST
from penstock.store.contract import NOBODY, Project, ReportRecord
from penstock.store.sql import Store, open_store

PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "penstock.db") as opened:
        opened.runs.project(PROJECT)
        yield opened


def add_run(store: Store) -> int:
    values: dict[str, Any] = {
        "request": store.requests.add("run", {}, NOBODY, "ada"),
        "project": PROJECT.id,
        "owner": NOBODY,
        "version": "0.1",
        "commit": {},
        "change": [],
        "trigger": "manual",
        "mirror": "m",
        "pipeline": {},
        "options": {},
        "notes": [],
    }
    return store.runs.add(values, (PlannedStep("check", StepKind.CHECK, "build", ()),), ())


def report(**statuses: Status) -> TestReport:
    """One test for each name, in the suite `t`."""
    return TestReport(tuple(TestCase(name, "t", status, 1.0, _why(status)) for name, status in statuses.items()))


def _why(status: Status) -> str:
    return f"it {status}" if status in {"failed", "errored"} else ""


def keep(store: Store, found: TestReport, run: int | None = None, **changes: Any) -> int:
    """Keep a report of the step `unit`, in a run of its own unless one is named."""
    number = add_run(store) if run is None else run
    where = ReportRecord(0, PROJECT.id, "unit", "", number, 1, "k", 5.0)
    fields = {name: changes.pop(name) for name in ("step", "scope", "attempt", "inputs") if name in changes}
    with store.transaction():
        return store.cases.put(replace(where, **fields), found, **changes)


def names(store: Store, number: int, *, red: bool = False) -> list[tuple[str, str]]:
    return [(record.full_name, record.status) for record in store.cases.results(number, red=red)]


def test_each_test_is_kept(store: Store) -> None:
    """Names, statuses, seconds and why they failed come back as they were, in the order of names."""
    number = keep(store, report(b="failed", a="passed", c="skipped", d="errored"))
    assert names(store, number) == [("t::a", "passed"), ("t::b", "failed"), ("t::c", "skipped"), ("t::d", "errored")]
    assert names(store, number, red=True) == [("t::b", "failed"), ("t::d", "errored")]
    (first, second, *_) = store.cases.results(number)
    assert (first.seconds, first.message, second.message) == (1.0, "", "it failed")
    found = store.cases.report(number)
    assert found is not None
    assert (found.project, found.step, found.inputs, found.created) == ("p1", "unit", "k", 5.0)


def test_what_is_in_quarantine_is_marked(store: Store) -> None:
    """The tests whose failure did not count are told apart, by their full names."""
    number = keep(store, report(a="failed", b="failed"), quarantined={"t::b"})
    assert [record.quarantined for record in store.cases.results(number)] == [False, True]


def test_a_name_that_comes_twice_is_one_test(store: Store) -> None:
    """The worst result counts, with the time of both and the words of the worst."""
    twice = (TestCase("a", "t", "failed", 1.0, "no"), TestCase("a", "t", "passed", 2.0))
    for cases in (twice, twice[::-1]):
        (record,) = store.cases.results(keep(store, TestReport(cases)))
        assert (record.status, record.seconds, record.message) == ("failed", 3.0, "no")


def test_messages_are_bounded(store: Store) -> None:
    """Long ones are cut, of very many failures only the first are explained, and of a step with secrets none."""
    many = [TestCase(f"x{i:05}", "t", "failed", 0.0, "m" * 2 * MESSAGE) for i in range(MESSAGES + 5)]
    lengths = [len(record.message) for record in store.cases.results(keep(store, TestReport(tuple(many))))]
    assert lengths == [MESSAGE] * MESSAGES + [0] * 5
    assert not any(r.message for r in store.cases.results(keep(store, TestReport(tuple(many[:3])), messages=False)))


def test_very_many_tests_are_bounded(store: Store) -> None:
    """Of more tests than are kept the red ones stay."""
    many = [TestCase(f"x{i}", "t", "passed", 0.0) for i in range(MOST)]
    number = keep(store, TestReport((*many, TestCase("red", "t", "failed", 0.0))))
    assert len(store.cases.results(number)) == MOST
    assert names(store, number, red=True) == [("t::red", "failed")]


def test_old_reports_go(store: Store) -> None:
    """Each step keeps its newest reports, and tests that none of them has are forgotten."""
    first = keep(store, report(gone="passed", a="passed"))
    other = keep(store, report(a="passed"), step="other")
    run = add_run(store)
    for _ in range(KEPT):
        last = keep(store, report(a="passed"), run)
    assert store.cases.report(first) is None
    assert store.cases.results(first) == []
    assert store.cases.report(other) is not None
    assert names(store, last) == [("t::a", "passed")]
    assert store.cases.named(PROJECT.id, "gone", 5) == []
    assert len(_history(store, "a")) == KEPT


def test_what_serves_keeps_its_results(store: Store) -> None:
    """The report that the serving release's run goes by stays, however many come after it."""
    run = add_run(store)
    first = keep(store, report(a="passed"), run)
    _step(store, run, first)
    values = {"project": PROJECT.id, "environment": "production", "generation": 1, "request": 1, "run": run}
    more = {"version": "0.1", "package": "f", "spec": {}, "actor": "ada", "status": "serving"}
    release = store.releases.add({**values, **more})
    store._connection.exec_driver_sql("UPDATE releases SET status = 'serving' WHERE id = ?", (release.id,))
    other = add_run(store)
    for _ in range(KEPT + 3):
        keep(store, report(a="passed"), other)
    assert store.cases.report(first) is not None
    assert names(store, first) == [("t::a", "passed")]
    assert len(_history(store, "a")) == KEPT + 1


def _step(store: Store, run: int, observed: int | None) -> None:
    """A step of a run that goes by a report."""
    result = "null" if observed is None else f'{{"observed": {observed}}}'
    store._connection.exec_driver_sql(
        "INSERT INTO steps (run, name, position, kind, stage, needs, status, cached, result) "
        "VALUES (?, 'unit', 1, 'step', 'test', '[]', 'passed', 0, ?)",
        (run, result),
    )


def test_what_a_run_goes_by(store: Store) -> None:
    """A step's results are its own, those of the run whose result it reused, or none."""
    first, second, third = add_run(store), add_run(store), add_run(store)
    number = keep(store, report(a="passed"), first)
    _step(store, first, number)
    _step(store, second, number)
    _step(store, third, None)
    found = [store.cases.observed(run, "unit") for run in (first, second, third, 99)]
    assert [one and one.run for one in found] == [first, first, None, None]


def _history(store: Store, name: str) -> Sequence[Observation]:
    (record,) = [r for step, r in store.cases.named(PROJECT.id, f"t::{name}", 9) if step == "unit"]
    return store.cases.observations(PROJECT.id, "unit", [record.test])[record.test]


def test_a_history_is_a_tests_own(store: Store) -> None:
    """Results come in their order with what they ran on; other steps and untrusted scopes are not among them."""
    run = add_run(store)
    keep(store, report(a="failed", b="passed"), run, inputs="x")
    keep(store, report(a="passed", b="passed"), run, inputs="x", attempt=2)
    keep(store, report(a="failed"), run, scope="fork")
    keep(store, report(a="failed"), run, step="other")
    keep(store, report(b="passed"), inputs="y")
    found = _history(store, "a")
    assert [(o.run, o.attempt, o.inputs, o.status, o.seconds) for o in found] == [
        (run, 1, "x", "failed", 1.0),
        (run, 2, "x", "passed", 1.0),
    ]
    assert flakiness(found).retried == 1


def test_an_untrusted_scope_pushes_nothing_out(store: Store) -> None:
    """Reports of an untrusted source count apart, and are not what is seen last."""
    first, run = keep(store, report(a="passed")), add_run(store)
    for _ in range(KEPT + 1):
        keep(store, report(a="failed"), run, scope="fork")
    assert store.cases.report(first) is not None
    newest = store.cases.newest(PROJECT.id, "unit")
    assert newest is not None
    assert newest.id == first
    assert store.cases.suspects(PROJECT.id, "unit") == []


def test_what_may_be_flaky(store: Store) -> None:
    """Only tests that were red once are suspected."""
    keep(store, report(a="failed", b="passed", c="skipped"))
    keep(store, report(a="passed", b="passed", c="errored"))
    suspects = store.cases.suspects(PROJECT.id, "unit")
    found = {record.test: record.name for record in store.cases.results(2)}
    assert sorted(found[number] for number in suspects) == ["a", "c"]
    assert store.cases.steps(PROJECT.id) == ["unit"]
    assert store.cases.steps("other") == []
    assert store.cases.newest("other", "unit") is None


def test_the_slowest(store: Store) -> None:
    """The tests of a report by their time, longest first."""
    cases = tuple(TestCase(f"n{i}", "", "passed", float(i)) for i in range(5))
    number = keep(store, TestReport(cases))
    assert [(r.full_name, r.seconds) for r in store.cases.slowest(number, 2)] == [("n4", 4.0), ("n3", 3.0)]


def test_nothing_is_kept_of_a_transaction_that_failed(store: Store) -> None:
    """Results are in the transaction of their step: either both are there or neither is."""

    def fail() -> None:
        keep(store, report(a="passed"))
        raise RuntimeError

    with pytest.raises(RuntimeError), store.transaction():
        fail()
    assert store.cases.steps(PROJECT.id) == []
