"""The tests of a run against those of a baseline: no new failure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from penstock.flakes import RED
from penstock.gates import Verdict, without_baseline
from penstock.pipelines import Gate
from penstock.quarantines import listed
from penstock.reports import Status

Results = Mapping[str, Status]
"""Tests by their full names, each with how it ended."""


@dataclass(frozen=True, slots=True)
class TestBaseline:
    """What is compared with, in words (`the champion 1.4.0`), and its results; None where these are not known.

    `never` says that it told of no such tests, as where their step is new.
    """

    __test__ = False  # pytest collects classes by this name

    name: str
    results: Results | None
    never: bool = False


def judge_tests(
    gate: Gate,
    mine: Results | None,
    baseline: TestBaseline | None,
    quarantined: Collection[str] = (),
    lacking: str = "",
) -> Verdict:
    """Whether a test failed that does not fail in the baseline; the value is how many did.

    `mine` is None where the step left no results, `baseline` where there is none yet. A test that the baseline does not
    have, or skipped, and that fails here is a new failure. `quarantined` are full names of tests that are left out;
    `lacking` says why there is no baseline, as a clause.
    """
    if mine is None:
        return Verdict(gate.name, "errored", None, ("the step left no test results: give it a report",))
    if not mine:
        return Verdict(gate.name, "errored", None, ("the step ran no test, so there is nothing to judge",))
    red = sorted(name for name, status in mine.items() if status in RED)
    left_out = [name for name in red if name in quarantined]
    counted = [name for name in red if name not in quarantined]
    if baseline is None or (baseline.results is None and baseline.never):
        lacking = lacking if baseline is None else f"{baseline.name} has no results of these tests"
        found = without_baseline(gate, float(len(counted)), lacking)
        failed = (f"failed: {listed(counted)}",) if counted else ()
        return replace(found, reasons=(*found.reasons, *failed, *_left_out(left_out)))
    if baseline.results is None:
        reason = f"{baseline.name} has no results of these tests, so there is nothing to compare with"
        return Verdict(gate.name, "inconclusive", None, (reason, *_left_out(left_out)))
    new = [name for name in counted if baseline.results.get(name) not in RED]
    reasons = (_told(new, len(counted), len(mine), baseline.name), *_gone(mine, baseline), *_left_out(left_out))
    return Verdict(gate.name, "fail" if new else "pass", float(len(new)), reasons)


def _told(new: list[str], red: int, total: int, baseline: str) -> str:
    if new:
        return f"{_many(len(new), 'new failure')} against {baseline}: {listed(new)}"
    known = f"; {red} failed there too" if red else ""
    return f"no new failure against {baseline} in {_many(total, 'test')}{known}"


def _gone(mine: Results, baseline: TestBaseline) -> tuple[str, ...]:
    """Tests that passed or failed in the baseline and are not here, which may hide a failure."""
    gone = sorted(name for name, status in (baseline.results or {}).items() if name not in mine and status != "skipped")
    return (f"{_many(len(gone), 'test')} of {baseline.name} did not run here: {listed(gone)}",) if gone else ()


def _left_out(names: list[str]) -> tuple[str, ...]:
    return (f"left out, being in quarantine: {listed(names)}",) if names else ()


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
