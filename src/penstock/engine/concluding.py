"""What a process that ended by itself means for its step, and what is kept of its tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from penstock.cache.contract import Cache
from penstock.engine.context import RunContext
from penstock.engine.execution import Done, end_sentence
from penstock.engine.results import Collected, Told, collect, declared_files, red_report
from penstock.errors import PenstockError
from penstock.pipelines import Step
from penstock.runs import EndReason
from penstock.store.contract import ReportRecord


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The event for the step, why (None where nothing is to be said), and what it left."""

    event: str
    reason: str | None = None
    collected: Collected = field(default_factory=Collected)


def has_to_be_read(step: Step, done: Done) -> bool:
    """Whether anything lies there that says more than the exit code."""
    return not done.succeeded or bool(step.outputs or declared_files(step) or step.runs_pytest)


def today(now: float) -> str:
    """The day in UTC, by which quarantines end."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def conclude(step: Step, done: Done, cache: Cache, now: float) -> Conclusion:
    """Read what a step left. For a thread of its own."""
    try:
        return _green(step, done, cache, now) if done.succeeded else _red(step, done, cache, now)
    except PenstockError as error:
        if done.succeeded:
            return Conclusion("error", str(error))
        return Conclusion("error" if done.untold else "fail", end_sentence(done, step.timeout))


def _green(step: Step, done: Done, cache: Cache, now: float) -> Conclusion:
    found = collect(step, done.workspace, cache, today(now))
    if found.failure is not None:
        return Conclusion("fail", found.failure, found)
    return Conclusion("pass", None if found.told is None else found.told.weighed.note, found)


def _red(step: Step, done: Done, cache: Cache, now: float) -> Conclusion:
    """A red exit code whose tests failed in quarantine alone counts as passed; anything else is red."""
    found = red_report(step, done.workspace, cache, today(now))
    told, exited = found.told, done.reason is EndReason.EXIT and (done.exit_code or 0) > 0
    if told is not None and told.is_forgiven and exited:
        green = _green(step, done, cache, now)
        if green.event == "fail":
            return green
        return Conclusion("pass", f"exit code {done.exit_code} counts as passed: {green.reason}", green.collected)
    return Conclusion("error" if done.untold else "fail", _why(step, done, told), found)


def _why(step: Step, done: Done, told: Told | None) -> str:
    """The tests that failed; of pytest, which told without a file, only where it ended by itself."""
    ended = end_sentence(done, step.timeout)
    if told is None or (step.report is None and done.reason is not EndReason.EXIT):
        return ended
    if told.weighed.failure is None and told.weighed.note is not None:
        return f"{ended}, which may mean more than what is in quarantine: {told.weighed.note}"
    return told.weighed.failure or ended


def keep_tests(context: RunContext, step: Step, done: Done, collected: Collected) -> Mapping[str, Any]:
    """Keep each test of an attempt, in the caller's transaction; returns what the step's result says of it."""
    told, run = collected.told, context.run
    if told is None or not told.report.cases:
        return {}
    key = context.step(step.name).key or f"run {run.id}"
    now, number = context.world.clock.now(), done.attempt.number
    record = ReportRecord(0, run.project, step.name, context.scope, run.id, number, key, now)
    cases = context.world.store.cases
    return {"observed": cases.put(record, told.report, told.quarantined, messages=not step.secrets)}
