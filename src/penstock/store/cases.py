"""Test results in the database: each test of each attempt that left some, with what it ran on, for the newest attempts.

A result that comes from the cache is no new observation, so nothing is added for it; the step's result names the report
that it was, as `observed`.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from penstock.flakes import Observation
from penstock.quarantines import full_name
from penstock.reports import Status, TestCase, TestReport
from penstock.store.contract import ReportRecord, TestRecord
from penstock.store.journal import Journal

KEPT = 50
"""Reports of each step that are kept, and of each untrusted scope; what serves keeps its own beside them."""

MOST = 200_000
"""Tests of a report that are kept, red ones first."""

MESSAGE, MESSAGES = 1000, 1000
"""Characters that are kept of why a test failed, and of how many tests of a report."""

_CHUNK = 500
_WORST: Mapping[Status, int] = {"skipped": 0, "passed": 1, "failed": 2, "errored": 3}
_NAME = "INSERT INTO tests (project, step, suite, name, report) VALUES (?, ?, ?, ?, ?)"
_NUMBERS = "SELECT suite, name, id FROM tests WHERE project = ? AND step = ?"
_SEEN = (
    "UPDATE tests SET report = ? WHERE project = ? AND step = ? AND id IN "
    "(SELECT test FROM test_results WHERE report = ?)"
)
_REPORT = "INSERT INTO test_reports (project, step, scope, run, attempt, inputs, created) VALUES (?, ?, ?, ?, ?, ?, ?)"
_RESULT = "INSERT INTO test_results (report, test, status, seconds, message, quarantined) VALUES (?, ?, ?, ?, ?, ?)"
_OLD = (
    "SELECT id FROM test_reports WHERE project = ? AND step = ? AND scope = ? AND id NOT IN "
    "(SELECT json_extract(s.result, '$.observed') FROM releases r JOIN steps s ON s.run = r.run "
    "WHERE r.project = ? AND r.status = 'serving' AND json_extract(s.result, '$.observed') IS NOT NULL) "
    "ORDER BY id DESC LIMIT -1 OFFSET ?"
)
_UNUSED = (
    "DELETE FROM tests WHERE project = ? AND step = ? AND report < "
    "(SELECT min(id) FROM test_reports WHERE project = ? AND step = ?)"
)
_RESULTS = (
    "SELECT t.id, t.suite, t.name, r.status, r.seconds, r.message, r.quarantined "
    "FROM test_results r JOIN tests t ON t.id = r.test WHERE r.report = ?"
)
_RED = "status IN ('failed', 'errored')"
_SUSPECTS = (
    "SELECT DISTINCT r.test FROM test_reports p JOIN test_results r ON r.report = p.id "  # noqa: S608 (our own words)
    f"WHERE p.project = ? AND p.step = ? AND p.scope = '' AND r.{_RED}"
)
_OBSERVED = (
    "SELECT r.test, p.run, p.attempt, p.inputs, r.status, r.seconds FROM test_reports p "
    "JOIN test_results r ON r.report = p.id WHERE p.project = ? AND p.step = ? AND p.scope = '' AND r.test IN ({}) "
    "ORDER BY p.id"
)
_REPORTS = "SELECT id, project, step, scope, run, attempt, inputs, created FROM test_reports WHERE "


class Cases:
    """The test results' room of the store."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    # --- what is kept

    def put(
        self, found: ReportRecord, report: TestReport, quarantined: Collection[str] = (), *, messages: bool = True
    ) -> int:
        """Keep the tests of an attempt, in the caller's transaction; returns the number of the report.

        Of tests with the same name the worst is kept, with the time of all. `quarantined` are full names of those whose
        failure does not count, `messages` says whether it is kept why tests failed. What is too old goes.
        """
        cases = _by_name(report.cases)
        values = (found.project, found.step, found.scope, found.run, found.attempt, found.inputs, found.created)
        self._journal.many(_REPORT, [values])
        number = int(self._rows("SELECT max(id) FROM test_reports")[0][0])
        numbers = self._numbers(found, number, cases)
        rows = _result_rows(number, cases, numbers, frozenset(quarantined), messages=messages)
        self._journal.many(_RESULT, rows)
        self._journal.many(_SEEN, [(number, found.project, found.step, number)])
        self._prune(found)
        return number

    def _numbers(
        self, found: ReportRecord, report: int, names: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], int]:
        """The numbers of tests by suite and name; what is new is given one."""
        where = found.project, found.step
        known = {(suite, name): number for suite, name, number in self._rows(_NUMBERS, *where)}
        fresh = [name for name in names if name not in known]
        if fresh:
            self._journal.many(_NAME, [(*where, *name, report) for name in fresh])
            known = {(suite, name): number for suite, name, number in self._rows(_NUMBERS, *where)}
        return known

    def _prune(self, found: ReportRecord) -> None:
        old = self._rows(_OLD, found.project, found.step, found.scope, found.project, KEPT)
        if not old:
            return
        self._journal.many("DELETE FROM test_results WHERE report = ?", old)
        self._journal.many("DELETE FROM test_reports WHERE id = ?", old)
        self._journal.many(_UNUSED, [(found.project, found.step, found.project, found.step)])

    # --- what is asked

    def steps(self, project: str) -> list[str]:
        """The steps of a project that left test results, by name."""
        query = "SELECT DISTINCT step FROM test_reports WHERE project = ? AND scope = '' ORDER BY step"
        return [str(step) for (step,) in self._rows(query, project)]

    def newest(self, project: str, step: str) -> ReportRecord | None:
        """What a trusted run left last in a step."""
        rows = self._rows(f"{_REPORTS} project = ? AND step = ? AND scope = '' ORDER BY id DESC LIMIT 1", project, step)
        return ReportRecord(*rows[0]) if rows else None

    def report(self, number: int) -> ReportRecord | None:
        """A report by its number; None where it is not kept any more."""
        rows = self._rows(f"{_REPORTS} id = ?", number)
        return ReportRecord(*rows[0]) if rows else None

    def observed(self, run: int, step: str) -> ReportRecord | None:
        """The report that tells of a step in a run: its last attempt's, or that of the run whose result was reused."""
        rows = self._rows("SELECT result FROM steps WHERE run = ? AND name = ?", run, step)
        result = json.loads(rows[0][0]) if rows and rows[0][0] else None
        number = (result or {}).get("observed")
        return None if number is None else self.report(int(number))

    def of_step(self, run: int, step: str) -> list[TestRecord] | None:
        """The tests of a step as `observed` finds them; None where there are none, or none are kept any more."""
        found = self.observed(run, step)
        return None if found is None else self.results(found.id)

    def observed_by(self, run: int) -> list[tuple[str, int]]:
        """The steps of a run that go by a report, in the plan's order, with its number."""
        query = (
            "SELECT name, json_extract(result, '$.observed') FROM steps "
            "WHERE run = ? AND instr(result, '\"observed\"') ORDER BY position"
        )
        return [(str(step), int(number)) for step, number in self._rows(query, run) if number is not None]

    def results(self, report: int, *, red: bool = False) -> list[TestRecord]:
        """The tests of a report, or its red ones, by their names."""
        which = f"AND r.{_RED} " if red else ""
        rows = self._rows(f"{_RESULTS} {which}ORDER BY t.suite, t.name", report)
        return [_record(row) for row in rows]

    def slowest(self, report: int, limit: int) -> list[TestRecord]:
        """The tests of a report that took longest."""
        return [_record(row) for row in self._rows(f"{_RESULTS} ORDER BY r.seconds DESC LIMIT ?", report, limit)]

    def named(self, project: str, part: str, limit: int) -> list[tuple[str, TestRecord]]:
        """Tests whose full names hold a text, each with its step, and as it was last."""
        query = (
            "SELECT t.step, t.id, t.suite, t.name, r.status, r.seconds, r.message, r.quarantined FROM tests t "
            "JOIN test_results r ON r.report = t.report AND r.test = t.id "
            "WHERE t.project = ? AND instr(t.suite || '::' || t.name, ?) > 0 ORDER BY t.step, t.suite, t.name LIMIT ?"
        )
        return [(str(step), _record(row)) for step, *row in self._rows(query, project, part, limit)]

    def suspects(self, project: str, step: str) -> list[int]:
        """The numbers of the tests of a step that were red in any kept report: no other can be flaky."""
        return [int(number) for (number,) in self._rows(_SUSPECTS, project, step)]

    def observations(self, project: str, step: str, tests: Sequence[int]) -> dict[int, list[Observation]]:
        """What trusted runs saw of tests, by their numbers, oldest first."""
        found: dict[int, list[Observation]] = {number: [] for number in tests}
        for start in range(0, len(tests), _CHUNK):
            chunk = tests[start : start + _CHUNK]
            query = _OBSERVED.format(", ".join("?" * len(chunk)))
            for test, run, attempt, inputs, status, seconds in self._rows(query, project, step, *chunk):
                found[test].append(Observation(run, attempt, inputs, status, seconds))
        return found

    def _rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._journal.rows(text, *parameters)


def _by_name(cases: Iterable[TestCase]) -> dict[tuple[str, str], TestCase]:
    """One case for each name: the worst of several, with the time of all."""
    found: dict[tuple[str, str], TestCase] = {}
    for case in cases:
        other = found.setdefault((case.suite, case.name), case)
        if other is not case:
            worst = case if _WORST[case.status] > _WORST[other.status] else other
            seconds = case.seconds + other.seconds
            found[case.suite, case.name] = TestCase(case.name, case.suite, worst.status, seconds, worst.message)
    if len(found) <= MOST:
        return found
    return dict(sorted(found.items(), key=lambda one: -_WORST[one[1].status])[:MOST])


def _result_rows(
    report: int,
    cases: Mapping[tuple[str, str], TestCase],
    numbers: Mapping[tuple[str, str], int],
    quarantined: frozenset[str],
    *,
    messages: bool,
) -> Iterator[tuple[Any, ...]]:
    left = MESSAGES if messages else 0
    for name, case in cases.items():
        told = case.message[:MESSAGE] if case.message and left > 0 else None
        left -= told is not None
        is_free = bool(quarantined) and full_name(*name) in quarantined
        yield report, numbers[name], case.status, case.seconds, told, is_free


def _record(row: Sequence[Any]) -> TestRecord:
    number, suite, name, status, seconds, message, quarantined = row
    return TestRecord(number, suite, name, status, seconds, message or "", bool(quarantined))
