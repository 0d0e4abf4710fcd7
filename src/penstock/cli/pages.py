"""The page of a run: one HTML file that needs nothing beside it, neither script nor network."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from penstock.charts import Chart
from penstock.cli import contrasts, drawings
from penstock.cli.contrasts import Names
from penstock.cli.differences import metric_rows, metric_words
from penstock.cli.pictures import (
    clean,
    duration,
    figure,
    gate_reason,
    mark_of,
    moment,
    release_words,
    size,
    step_reason,
    step_word,
)
from penstock.cli.sheets import Sheet, StepTests, note_on
from penstock.cli.tables import verdict
from penstock.flips import Flips, SliceRow
from penstock.runs import GateView, ReleaseView, RunView, StepView
from penstock.server.pages import templates_in

TEMPLATES = Path(__file__).with_name("templates")

FLIPS, FOLDED = 10, 200
"""So many flipped examples are shown, and so many more behind a fold."""
SLICES, STEPS, METRICS = 20, 1000, 1000


def page(sheet: Sheet) -> str:
    """The whole page, as HTML; every value in it is escaped, and without control characters."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return _template().render(sheet=sheet, view=sheet.view, style=style, names=_names(sheet))


@cache
def _template() -> Template:
    environment = templates_in(TEMPLATES, _finalized)
    environment.filters.update(_FILTERS)
    environment.globals.update(contrasts=contrasts, FLIPS=FLIPS, FOLDED=FOLDED, SLICES=SLICES)
    return environment.get_template("report.html")


def _finalized(value: Any) -> Any:
    """A text of anybody's on one line and without control characters; what is known to be safe stays as it is."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _names(sheet: Sheet) -> Names:
    return Names("before" if sheet.opponent is None else f"run {sheet.opponent.run}", "this run")


# --- what the page shows of each thing -----------------------------------------------------------------------------


def chart(gate: GateView) -> str:
    """The picture of what decided; empty where no interval did."""
    return "" if gate.chart is None else _drawn(gate.chart, gate.verdict or "")


def gain(flips: Flips) -> str:
    """The picture of a gain; empty where there is nothing to see."""
    found = contrasts.bounded(flips)
    if found is None:
        return ""
    return _drawn(found, "pass" if found.low > 0 else "fail" if found.high < 0 else "inconclusive")


def _drawn(value: Chart, word: str) -> str:
    return drawings.interval(value, word)


def slice_picture(row: SliceRow, flips: Flips) -> str:
    """From one mean to the other, on the axis of all slices that are shown."""
    shown = flips.slices[:SLICES]
    marks = [mean for slice_ in shown for mean in (slice_.a, slice_.b)]
    room = (max(marks) - min(marks)) / 12
    axis = (min(marks) - room, max(marks) + room)
    return drawings.change(row.a, row.b, *axis, row.shown or "")


def tests_picture(tests: StepTests) -> str:
    parts = [("passed", tests.passed), ("failed", tests.failed + tests.errored), ("skipped", tests.skipped)]
    return drawings.shares(parts)


def step_picture(step: StepView, view: RunView) -> str:
    """When a step ran within its run; empty where it did not."""
    ends = [s.ended for s in view.steps if s.ended is not None]
    starts = [s.started for s in view.steps if s.started is not None]
    if step.started is None or step.ended is None or step_word(step) in {"cached", "skipped"} or not ends:
        return ""
    whole = (min(starts), max(ends))
    return drawings.stretch(step.started, step.ended, whole, step.status)


def step_note(step: StepView) -> str:
    again = f"attempt {step.attempts}" if step.attempts > 1 else ""
    return "; ".join(filter(None, (step_reason(step), again)))


def spent(step: StepView) -> str:
    return "" if step.seconds is None or step_word(step) in {"cached", "skipped"} else duration(step.seconds)


def value(gate: GateView) -> str:
    return "" if gate.value is None else figure(gate.value, gate.rule)


def release_row(release: ReleaseView) -> tuple[str, str]:
    return release_words(release)


def metric_cells(sheet: Sheet) -> Iterable[tuple[str, str, str, str]]:
    """Name, the value before, this run's, and the difference, by name."""
    before: Mapping[str, float] = {} if sheet.before is None else sheet.before.metrics
    for row in metric_rows(before, sheet.view.metrics)[:METRICS]:
        yield row.name, *metric_words(row)


def facts(view: RunView) -> list[tuple[str, str]]:
    """What a person may want to know of the run, each with its name."""
    spent = "" if view.seconds is None else duration(view.seconds)
    known = [
        ("run", view.run),
        ("commit", view.commit[:10] + (" with uncommitted work" if view.dirty else "")),
        ("branch", view.branch or ""),
        ("trigger", view.trigger.replace("_", " ")),
        ("started", moment(view.started or view.created)),
        ("took", spent),
    ]
    return [(name, text) for name, text in known if text]


def lineage(sheet: Sheet) -> list[tuple[str, str]]:
    """Where the package comes from, in short."""
    known, view = sheet.lineage or {}, sheet.view
    hardware = known.get("hardware") or {}
    machine = " ".join(str(hardware[key]) for key in ("system", "machine") if hardware.get(key))
    cpus = hardware.get("cpus")
    found = [
        ("digest", view.package or ""),
        ("size", "" if view.package_size is None else size(view.package_size)),
        ("files", f"{len(known['files']):,}" if known.get("files") else ""),
        ("model", _model(known.get("model") or {})),
        ("risks", "; ".join(_risks(known.get("model") or {}))),
        ("commit", str((known.get("commit") or {}).get("sha", ""))),
        ("lock", str(known.get("lock") or "")),
        ("made on", ", ".join(filter(None, (machine, f"{cpus} processors" if cpus else "")))),
        ("variables", ", ".join(f"{name}={text}" for name, text in (known.get("variables") or {}).items())),
    ]
    return [(name, text) for name, text in found if text]


def _model(model: Mapping[str, Any]) -> str:
    """What the model is: `safetensors, 1,204 parameters, 4.2 MB`; empty where it was not looked at."""
    counted = model.get("parameters")
    parts = (
        ", ".join(model.get("formats", ())),
        "" if counted is None else f"{counted:,} parameters",
        size(int(model["size"])) if "size" in model else "",
    )
    return ", ".join(filter(None, parts))


def _risks(model: Mapping[str, Any]) -> Iterator[str]:
    """What loading each of the model's files could do."""
    for path, file in (model.get("files") or {}).items():
        if file.get("risks"):
            yield f"{path}: {', '.join(file['risks'])}"


_FILTERS = {
    "chart": chart,
    "duration": duration,
    "facts": facts,
    "figure": figure,
    "gain": gain,
    "gate_reason": gate_reason,
    "lineage": lineage,
    "mark": lambda word: mark_of(word).plain,
    "metric_cells": metric_cells,
    "note_on": note_on,
    "release_row": release_row,
    "slice_picture": slice_picture,
    "spent": spent,
    "step_note": step_note,
    "step_picture": step_picture,
    "step_word": step_word,
    "tests_picture": tests_picture,
    "value": value,
    "verdict": verdict,
}
