"""What `tests` shows: steps with what is wrong with their tests, and the history of single tests. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from penstock.cli.pictures import Picture, Row, mark_of, safe, stacked
from penstock.cli.pictures import duration as whole_duration
from penstock.engine.observations import KnownTest, Shelved, StepTests
from penstock.flakes import Flakiness
from penstock.parts import Quarantine
from penstock.quarantines import described

_NOTE = 120
FEW = 3
"""So many tests are shown with their histories; of more each has a line."""


def duration(seconds: float) -> str:
    """Seconds as people say them; tests often take less than one."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else whole_duration(seconds)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- steps ---------------------------------------------------------------------------------------------------------


def render_steps(project: str, steps: Sequence[StepTests], limit: int, day: str) -> Picture:
    """Each step: its counts, then failing, flaky and quarantined tests and the slowest, at most `limit` of each."""
    return Picture(lambda width: list(_steps_lines(project, steps, limit, day, width)))


def _steps_lines(project: str, steps: Sequence[StepTests], limit: int, day: str, width: int) -> Iterator[Text]:
    yield Text.assemble(safe(project, "bold"), (f"  tests of {_many(len(steps), 'step')}", "dim"))
    for step in steps:
        yield from (Text(""), Text.assemble(safe(step.step, "bold"), "  ", safe(_counts(step), "dim")))
        yield from stacked([*_problem_rows(step, limit, day), *_quarantine_rows(step, limit)], width)
        yield from _slowest_lines(step, width)


def _counts(step: StepTests) -> str:
    told = ", ".join(f"{count:,} {status}" for status, count in step.counts.items() if count)
    return f"run {step.report.run}: {told or 'no tests'}"


def _problem_rows(step: StepTests, limit: int, day: str) -> Iterator[Row]:
    for test in step.failing[:limit]:
        words = (f"since run {test.since}", _over(test, day), _flaky(test), test.message.split("\n")[0])
        yield _row(test.status, test.test, test.status, words)
    yield from _more(len(step.failing) - limit, "that fail")
    steady = [test for test in step.flaky if test not in step.failing]
    for test in steady[:limit]:
        yield _row("warned", test.test, "flaky", (_rate(test), ""))
    yield from _more(len(steady) - limit, "that are flaky")


def _over(test: KnownTest, day: str) -> str:
    if test.quarantine is None or test.is_free(day):
        return ""
    return f"its quarantine ended on {test.quarantine.until}"


def _flaky(test: KnownTest) -> str:
    return f"flaky: {_rate(test)}" if test.flakiness is not None else ""


def _rate(test: KnownTest) -> str:
    return test.flakiness.sentence if test.flakiness is not None else ""


def _quarantine_rows(step: StepTests, limit: int) -> Iterator[Row]:
    for shelved in step.quarantine[:limit]:
        words = (described(shelved.entry), "it is over" if shelved.is_over else "", _shelved_words(shelved))
        yield _row("skipped", shelved.entry.test, "quarantine", words)
    yield from _more(len(step.quarantine) - limit, "in quarantine")


def _shelved_words(shelved: Shelved) -> str:
    if not shelved.statuses:
        return "names no test of the last report"
    red = sum(status in {"failed", "errored"} for status in shelved.statuses)
    if len(shelved.statuses) == 1:
        return f"last {shelved.statuses[0]}"
    return f"{red} of {len(shelved.statuses)} failed last"


def _row(mark: str, name: str, word: str, words: Sequence[str]) -> Row:
    note = "; ".join(filter(None, words))
    shown = note if len(note) <= 4 * _NOTE else f"{note[: 4 * _NOTE]}…"
    return Row(mark_of(mark), (safe(name, "bold"), safe(word)), safe(shown, "dim"), tall=4)


def _more(count: int, what: str) -> Iterator[Row]:
    if count > 0:
        yield Row(Text(" "), (Text(f"and {count:,} more {what}", "dim"),), Text(""))


def _slowest_lines(step: StepTests, width: int) -> Iterator[Text]:
    if step.slowest:
        yield Text("  slowest", "dim")
        rows = [
            Row(Text("·", "dim"), (safe(name), safe(duration(seconds))), Text("")) for name, seconds in step.slowest
        ]
        yield from stacked(rows, width, right=frozenset({1}))


# --- one test ------------------------------------------------------------------------------------------------------


def render_tests(tests: Sequence[KnownTest], limit: int) -> Picture:
    """Each test with its newest results, at most `limit`, newest first; of many tests a line each."""
    if len(tests) > FEW:
        return Picture(lambda width: stacked([_head(test) for test in tests], width))
    return Picture(lambda width: [line for test in tests for line in _test_lines(test, limit, width)])


def _head(test: KnownTest) -> Row:
    usual = "" if test.seconds is None else f"usually {duration(test.seconds)}"
    since = "" if test.since is None else f"red since run {test.since}"
    words = (usual, since, "flaky" if test.flakiness else "", "quarantine" if test.quarantine else "")
    return Row(mark_of(test.status), (safe(test.step), safe(test.test, "bold")), safe(", ".join(filter(None, words))))


def _test_lines(test: KnownTest, limit: int, width: int) -> Iterator[Text]:
    shelved = "" if test.quarantine is None else f"quarantine: {described(test.quarantine)}"
    told = [words for words in (_flaky(test), shelved, test.message) if words]
    yield from stacked([_head(test)], width)
    yield from stacked([Row(Text(" "), (), safe(" ".join(words.split())), tall=4) for words in told], width)
    rows = [
        Row(mark_of(o.status), (safe(f"run {o.run}"), safe(_attempt(o.attempt)), safe(o.status)), safe(_where(o)))
        for o in test.history[::-1][:limit]
    ]
    yield from stacked(rows, width)
    if len(test.history) > limit:
        yield Text(f"    and {len(test.history) - limit:,} earlier", "dim")


def _attempt(number: int) -> str:
    return f"attempt {number}" if number > 1 else ""


def _where(observation: Any) -> str:
    """How long it took, and on which inputs: the first letters of their name."""
    return f"{duration(observation.seconds)}  inputs {observation.inputs[:8]}"


# --- JSON ----------------------------------------------------------------------------------------------------------


def step_json(step: StepTests) -> dict[str, Any]:
    """A step of the documented object."""
    return {
        "step": step.step,
        "run": step.report.run,
        "attempt": step.report.attempt,
        **step.counts,
        "failing": [known_json(test) for test in step.failing],
        "flaky": [known_json(test) for test in step.flaky],
        "quarantine": [
            {**_entry_json(shelved.entry), "is_over": shelved.is_over, "statuses": list(shelved.statuses)}
            for shelved in step.quarantine
        ],
        "slowest": [{"test": name, "seconds": seconds} for name, seconds in step.slowest],
    }


def known_json(test: KnownTest) -> dict[str, Any]:
    return {
        "step": test.step,
        "test": test.test,
        "status": test.status,
        "message": test.message,
        "seconds": test.seconds,
        "since": test.since,
        "flaky": None if test.flakiness is None else _rate_json(test.flakiness),
        "quarantine": None if test.quarantine is None else _entry_json(test.quarantine),
        "history": [
            {"run": o.run, "attempt": o.attempt, "status": o.status, "seconds": o.seconds, "inputs": o.inputs}
            for o in test.history
        ],
    }


def _rate_json(rate: Flakiness) -> dict[str, Any]:
    low, high = rate.interval
    counts = {"flips": rate.flips, "pairs": rate.pairs, "retried": rate.retried}
    return {**counts, "estimate": rate.estimate, "low": low, "high": high}


def _entry_json(entry: Quarantine) -> dict[str, str]:
    return {"test": entry.test, "owner": entry.owner, "reason": entry.reason, "until": entry.until}
