"""A run as Markdown, good to paste in a pull request. Pure."""

import re
from collections.abc import Iterator, Sequence

from penstock.charts import drawn
from penstock.cli.contrasts import (
    Names,
    bounded,
    counts,
    flip_cells,
    flip_titles,
    gain_words,
    is_loss,
    left_out,
    levels,
    slice_cells,
    slice_rows,
    slice_titles,
    zeroed,
)
from penstock.cli.differences import metric_rows, metric_words
from penstock.cli.drawings import described
from penstock.cli.pictures import clean, duration, figure, gate_reason, release_words, size, step_reason, step_word
from penstock.cli.sheets import Sheet, StepTests, first_line, note_on
from penstock.cli.tables import verdict
from penstock.flips import Flips
from penstock.runs import GateView, RunView, StepView, TestView

_SLICES, _FLIPS, _TESTS, _METRICS, _STEPS = 5, 10, 20, 60, 200
"""So many rows of each are shown: a comment on a pull request may have 65,536 characters."""

_MARKS = {"passed": "✅", "failed": "❌", "errored": "⚠️", "canceled": "⚠️"}
_VERDICTS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive", "errored": "⚠️ errored"}


def escaped(text: str) -> str:
    """Text that a repository controls, on one line, with nothing that Markdown or HTML would obey."""
    shown = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~@!])", r"\\\1", shown)


def written(sheet: Sheet) -> str:
    """The whole report: how it ended, gates with their charts, evidence, metrics, tests, releases, notes; steps folded.

    Metrics stand beside those of the run before, where there is one.
    """
    return "\n".join(_lines(sheet, sheet.view))


def _lines(sheet: Sheet, view: RunView) -> Iterator[str]:
    mark = _MARKS.get(view.status, "●")
    yield f"### {mark} {escaped(view.project)} {escaped(view.version)}: {escaped(view.status)}"
    yield from ("", escaped(verdict(view)), "", _facts(view))
    yield from _table("Gates", ("gate", "verdict", "value", "rule", "why"), [_gate_cells(g) for g in view.gates])
    yield from _charts(view.gates)
    yield from _evidence(sheet)
    yield from _metrics(view, sheet.before)
    yield from _table("Tests", ("step", "passed", "failed", "skipped", ""), [_tests_cells(t) for t in sheet.tests])
    yield from _red_tests(view.tests)
    releases = [(escaped(r.environment), *(escaped(w) for w in release_words(r))) for r in view.releases]
    yield from _table("Environments", ("environment", "status", ""), releases)
    notes = (*view.notes, *sheet.gaps)
    yield from ([] if not notes else ["", *(f"> {escaped(note)}  " for note in notes)])
    yield from _folded(f"{len(view.steps):,} steps")
    yield from _table("", ("step", "stage", "status", "time", ""), [_step_cells(s) for s in view.steps[:_STEPS]])
    yield from [] if len(view.steps) <= _STEPS else ["", f"and {len(view.steps) - _STEPS:,} steps more"]
    yield from ("", "</details>")


def _folded(summary: str) -> Iterator[str]:
    yield from ("", f"<details><summary>{summary}</summary>")


def _fenced(lines: Sequence[str]) -> Iterator[str]:
    """Lines as they are, in a block of code: no backtick can end it early."""
    yield from ("", "```text", *(line.replace("`", "'") for line in lines), "```")


def _charts(gates: Sequence[GateView]) -> Iterator[str]:
    shown = [
        (clean(f"{g.name} {g.chart.slice_of or ''}").strip(), drawn(g.chart), described(g.chart))
        for g in gates
        if g.chart is not None
    ]
    if shown:
        width = max(len(name) for name, _, _ in shown)
        yield from _fenced([f"{name:<{width}}  {picture}  {numbers}" for name, picture, numbers in shown])


def _red_tests(tests: Sequence[TestView]) -> Iterator[str]:
    rows = [
        (escaped(t.test), escaped(t.step), escaped(t.status), escaped(note_on(t)), _cell(first_line(t.message)))
        for t in tests[:_TESTS]
    ]
    yield from _table("", ("test", "step", "", "", "said"), rows)
    yield from [] if len(tests) <= _TESTS else ["", f"and {len(tests) - _TESTS:,} more tests that failed"]


# --- evidence ------------------------------------------------------------------------------------------------------


def _evidence(sheet: Sheet) -> Iterator[str]:
    if not sheet.evidence or sheet.opponent is None:
        return
    version = escaped(sheet.opponent.version)
    yield from ("", f"**Evidence** against {version} (run {sheet.opponent.run}), {escaped(sheet.opponent.role)}")
    for flips in sheet.evidence:
        yield from _flips(flips, Names(f"run {sheet.opponent.run}", "this run"))


def _flips(flips: Flips, names: Names) -> Iterator[str]:
    facts = [levels(flips), counts(flips), gain_words(flips), left_out(flips, names)]
    yield from ("", f"*{escaped(flips.step)}*: {'; '.join(escaped(fact) for fact in facts if fact)}")
    chart = bounded(flips)
    if chart is not None:
        yield from _fenced([f"{drawn(zeroed(chart))}  {described(chart)}"])
    rows = [[*map(escaped, slice_cells(row, flips))] for row in slice_rows(flips, _SLICES)]
    yield from _table("", [*map(escaped, slice_titles(flips, names))], rows)
    if not flips.examples:
        return
    yield from _folded(f"{flips.better + flips.worse:,} examples changed")
    examples = flips.examples[:_FLIPS]
    cells = [["❌" if is_loss(e, flips) else "✅", *map(_cell, flip_cells(e, flips))] for e in examples]
    yield from _table("", ("", *map(escaped, flip_titles(flips, names))), cells)
    yield from ("", "</details>")


def _cell(text: str) -> str:
    shown = clean(text)
    return escaped(shown if len(shown) <= 80 else f"{shown[:80]}…")


# --- the rest ------------------------------------------------------------------------------------------------------


def _metrics(view: RunView, before: RunView | None) -> Iterator[str]:
    if before is None:
        titles: tuple[str, ...] = ("metric", "value")
        rows: list[tuple[str, ...]] = [(escaped(n), figure(v)) for n, v in sorted(view.metrics.items())]
    else:
        titles = ("metric", f"{escaped(before.version)} (run {escaped(before.run)})", "this run", "difference")
        rows = [(escaped(row.name), *metric_words(row)) for row in metric_rows(before.metrics, view.metrics)]
    yield from _table("Metrics", titles, rows[:_METRICS])
    if len(rows) > _METRICS:
        yield from ("", f"and {len(rows) - _METRICS:,} metrics more")


def _tests_cells(tests: StepTests) -> tuple[str, ...]:
    red = tests.failed + tests.errored
    mark = "❌" if red else "✅"
    numbers = (f"{tests.passed:,}", f"{red:,}", f"{tests.skipped:,}")
    return f"{mark} {escaped(tests.step)}", *numbers, escaped(tests.reason or "")


def _facts(view: RunView) -> str:
    commit = f"commit {escaped(view.commit[:7])}{' with uncommitted work' if view.dirty else ''}"
    branch = f"on {escaped(view.branch)}" if view.branch else ""
    spent = "" if view.seconds is None else f"in {duration(view.seconds)}"
    kept = "" if view.package is None else f"package {escaped(view.package[:12])}"
    weight = "" if view.package_size is None else f"of {size(view.package_size)}"
    words = (f"run {escaped(view.run)}", commit, branch, escaped(view.title), spent, f"{kept} {weight}".strip())
    return " · ".join(filter(None, words))


def _table(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    yield from (["", f"**{title}**"] if title else [])
    yield from ("", f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}")
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _gate_cells(gate: GateView) -> tuple[str, ...]:
    value = "" if gate.value is None else figure(gate.value, gate.rule)
    word = _VERDICTS.get(gate.verdict or "", "not judged")
    return escaped(gate.name), word, value, escaped(gate.rule), escaped(gate_reason(gate))


def _step_cells(step: StepView) -> tuple[str, ...]:
    word = step_word(step)
    spent = "" if step.seconds is None or word in {"cached", "skipped"} else duration(step.seconds)
    return (
        escaped(step.name),
        escaped(step.stage),
        f"{_MARKS.get(word, '')} {word}".strip(),
        spent,
        escaped(step_reason(step)),
    )
