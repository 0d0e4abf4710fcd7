"""What is known of a project's tests: what fails, what is flaky, what is in quarantine, what is slow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.engine.concluding import today
from penstock.flakes import Flakiness, Observation, flakiness, red_since, usual_seconds
from penstock.parts import Quarantine
from penstock.quarantines import covering, described, is_named
from penstock.runs import ENDED_RUN, TestView
from penstock.store.contract import ReportRecord, Run, TestRecord
from penstock.store.sql import Store

SHOWN = 100
"""Tests that a run shows; the counts of its steps are of all."""


@dataclass(frozen=True, slots=True)
class KnownTest:
    """A test as it was last, with its history. `since` is the run since which it is red, `seconds` the usual time.

    `flakiness` and `quarantine` are given where it is flaky, and where an entry of the file covers it.
    """

    step: str
    test: str
    status: str
    message: str
    seconds: float | None
    since: int | None
    flakiness: Flakiness | None
    quarantine: Quarantine | None
    history: tuple[Observation, ...]

    def is_free(self, day: str) -> bool:
        """Whether its failure does not count on a day."""
        return self.quarantine is not None and day <= self.quarantine.until


@dataclass(frozen=True, slots=True)
class Shelved:
    """An entry of the file's quarantine, with how its tests ended last; none of these means that it names no test."""

    entry: Quarantine
    statuses: tuple[str, ...]
    is_over: bool


@dataclass(frozen=True, slots=True)
class StepTests:
    """The tests of a step, as `report` left them: how many ended how, what is wrong with some, and the slowest."""

    step: str
    report: ReportRecord
    counts: Mapping[str, int]
    failing: tuple[KnownTest, ...]
    flaky: tuple[KnownTest, ...]
    quarantine: tuple[Shelved, ...]
    slowest: tuple[tuple[str, float], ...]


def quarantine_of(run: Run, step: str) -> tuple[Quarantine, ...]:
    """The quarantine of a step in the file of a run."""
    found = run.pipeline.get("steps", {}).get(step, {}).get("quarantine", ())
    return tuple(Quarantine.model_validate(entry) for entry in found)


def red_tests(store: Store, run: Run) -> tuple[TestView, ...]:
    """The tests of a run that failed, step by step; of a run that goes on nothing is read."""
    if run.status not in ENDED_RUN:
        return ()
    found: list[TestView] = []
    for step, number in store.cases.observed_by(run.id):
        red = store.cases.results(number, red=True)[: SHOWN - len(found)]
        histories = store.cases.observations(run.project, step, [record.test for record in red])
        entries = quarantine_of(run, step) if any(record.quarantined for record in red) else ()
        found += [_view(step, record, histories[record.test], entries) for record in red]
    return tuple(found)


def _view(step: str, record: TestRecord, history: Sequence[Observation], entries: Sequence[Quarantine]) -> TestView:
    rate, entry = flakiness(history), covering(entries, record.full_name) if record.quarantined else None
    return TestView(
        step=step,
        test=record.full_name,
        status=record.status,
        seconds=record.seconds,
        message=record.message,
        flaky=rate.sentence if rate.is_flaky else None,
        quarantine=None if entry is None else described(entry),
    )


def known_of_step(store: Store, project: str, step: str, now: float, slowest: int) -> StepTests | None:
    """What is known of a step's tests; None where it never told of any. `now` is in seconds since the epoch."""
    report = store.cases.newest(project, step)
    if report is None:
        return None
    results, day = store.cases.results(report.id), today(now)
    entries = quarantine_of(_newest(store, project, report), step)
    suspects = frozenset(store.cases.suspects(project, step))
    histories = store.cases.observations(project, step, [r.test for r in results if r.test in suspects])
    known = [_known(step, r, histories[r.test], entries) for r in results if r.test in suspects]
    failing = [test for test in known if test.since is not None and not test.is_free(day)]
    return StepTests(
        step=step,
        report=report,
        counts={status: sum(r.status == status for r in results) for status in _STATUSES},
        failing=tuple(sorted(failing, key=lambda test: -(test.since or 0))),
        flaky=tuple(sorted((t for t in known if t.flakiness), key=_by_rate)),
        quarantine=tuple(_shelved(entry, results, day) for entry in entries),
        slowest=tuple((r.full_name, r.seconds) for r in store.cases.slowest(report.id, slowest)),
    )


_STATUSES = ("passed", "failed", "errored", "skipped")


def _by_rate(test: KnownTest) -> float:
    return -(test.flakiness.estimate if test.flakiness else 0.0)


def _newest(store: Store, project: str, report: ReportRecord) -> Run:
    """The run whose file says what is in quarantine: the newest, for a result of the cache has no run of its own."""
    runs = store.runs.latest(project, 1)
    return runs[0] if runs else store.runs.get(report.run)


def _known(step: str, record: TestRecord, history: Sequence[Observation], entries: Sequence[Quarantine]) -> KnownTest:
    rate = flakiness(history)
    return KnownTest(
        step=step,
        test=record.full_name,
        status=record.status,
        message=record.message,
        seconds=usual_seconds(history),
        since=red_since(history),
        flakiness=rate if rate.is_flaky else None,
        quarantine=covering(entries, record.full_name),
        history=tuple(history),
    )


def _shelved(entry: Quarantine, results: Sequence[TestRecord], day: str) -> Shelved:
    found = tuple(record.status for record in results if is_named(entry.test, record.full_name))
    return Shelved(entry, found, day > entry.until)


def known_by_name(store: Store, project: str, name: str, limit: int) -> tuple[KnownTest, ...]:
    """The tests that a name means; where it means none, those whose names hold it."""
    parts = store.cases.named(project, name, limit)
    meant = [(step, record) for step, record in _candidates(store, project, name) if is_named(name, record.full_name)]
    found = []
    for step, record in meant[:limit] or parts:
        report = store.cases.newest(project, step)
        entries = quarantine_of(_newest(store, project, report), step) if report is not None else ()
        history = store.cases.observations(project, step, [record.test])[record.test]
        found.append(_known(step, record, history, entries))
    return tuple(found)


def _candidates(store: Store, project: str, name: str) -> list[tuple[str, TestRecord]]:
    """Tests that may be meant: those that hold the last part of the name."""
    last = re.split(r"::|[./]", name.partition("[")[0])[-1] or name
    return store.cases.named(project, last, 1000)
