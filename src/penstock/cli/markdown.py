"""A run as Markdown, good to paste in a pull request. Pure."""

import re
from collections.abc import Iterator, Sequence

from penstock.cli.differences import metric_rows, metric_words
from penstock.cli.pictures import clean, duration, figure, gate_reason, release_words, size, step_reason, step_word
from penstock.cli.tables import verdict
from penstock.runs import GateView, RunView, StepView

_MARKS = {"passed": "✅", "failed": "❌", "errored": "⚠️", "canceled": "⚠️"}
_VERDICTS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive", "errored": "⚠️ errored"}


def escaped(text: str) -> str:
    """Text that a repository controls, on one line, with nothing that Markdown or HTML would obey."""
    shown = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~@!])", r"\\\1", shown)


def written(view: RunView, before: RunView | None = None) -> str:
    """The whole report: the sentence that says how it ended, gates, metrics, releases, notes, and the steps folded.

    Metrics stand beside those of the run `before`, where there is one.
    """
    return "\n".join(_lines(view, before))


def _lines(view: RunView, before: RunView | None) -> Iterator[str]:
    mark = _MARKS.get(view.status, "●")
    yield f"### {mark} {escaped(view.project)} {escaped(view.version)}: {escaped(view.status)}"
    yield from ("", escaped(verdict(view)), "", _facts(view))
    yield from _table("Gates", ("gate", "verdict", "value", "rule", "why"), [_gate_cells(g) for g in view.gates])
    yield from _metrics(view, before)
    releases = [(escaped(r.environment), *(escaped(w) for w in release_words(r))) for r in view.releases]
    yield from _table("Environments", ("environment", "status", ""), releases)
    yield from ([] if not view.notes else ["", *(f"> {escaped(note)}  " for note in view.notes)])
    yield from ("", f"<details><summary>{len(view.steps):,} steps</summary>")
    yield from _table("", ("step", "stage", "status", "time", ""), [_step_cells(s) for s in view.steps])
    yield from ("", "</details>")


def _metrics(view: RunView, before: RunView | None) -> Iterator[str]:
    if before is None:
        yield from _table(
            "Metrics", ("metric", "value"), [(escaped(n), figure(v)) for n, v in sorted(view.metrics.items())]
        )
        return
    titles = ("metric", f"{escaped(before.version)} (run {escaped(before.run)})", "this run", "difference")
    rows = metric_rows(before.metrics, view.metrics)
    yield from _table("Metrics", titles, [(escaped(row.name), *metric_words(row)) for row in rows])


def _facts(view: RunView) -> str:
    commit = f"commit {view.commit[:7]}{' with uncommitted work' if view.dirty else ''}"
    branch = f"on {escaped(view.branch)}" if view.branch else ""
    spent = "" if view.seconds is None else f"in {duration(view.seconds)}"
    kept = "" if view.package is None else f"package {view.package[:12]}"
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
