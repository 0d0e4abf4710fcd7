"""What a person sees beside the live picture: tables, one run as a whole, and the closing summary. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from penstock.cli.pictures import (
    Picture,
    Row,
    clean,
    duration,
    fact_lines,
    figure,
    fold,
    gate_rows,
    header_lines,
    mark_of,
    moment,
    note_row,
    release_row,
    safe,
    size,
    stacked,
    step_reason,
    step_row,
    step_word,
    style_of,
)
from penstock.runs import GateView, RunView, TestView
from penstock.standings import Standing
from penstock.store.contract import DriftLook

_WHOLE = 1000
_UNTAKEN = frozenset({"queued", "waiting", "skipped", "unapproved", "rejected", "rolled_back", "errored"})
_STOPPED = frozenset({"unapproved", "rejected", "rolled_back", "errored"})

# --- tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One step of a plan: whether it would run, comes from the cache, is skipped, or waits to know, and why."""

    name: str
    stage: str
    action: Literal["run", "cached", "skip", "wait"]
    reason: str


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One environment as it is now: `replicas` in words (`2 of 2`), `since` in seconds since the epoch.

    `notes` are what else a person should know, a sentence each. `tried` is the version of the newest release that was
    probed or tried in traffic, `rollout` how that went or goes. `drift` is the last look at what is asked of the one
    that serves.
    """

    environment: str
    status: str
    version: str
    url: str | None
    replicas: str
    since: float | None
    notes: tuple[str, ...] = ()
    tried: str | None = None
    rollout: Standing | None = None
    drift: DriftLook | None = None

    def as_json(self) -> dict[str, Any]:
        """The documented object, in which the notes are one text."""
        note = ("note", "; ".join(self.notes) or None)
        return dict(note if name == "notes" else (name, value) for name, value in asdict(self).items())


def _table(titles: Sequence[str], rows: Sequence[Row], width: int, right: frozenset[int] = frozenset()) -> list[Text]:
    *cells, note = (Text(title, "dim") for title in titles)
    return stacked([Row(Text(" "), tuple(cells), note), *rows], width, right=right)


def render_runs(views: Sequence[RunView]) -> Picture:
    """Runs in the order given, one line each; the project's name only where there are several."""
    if not views:
        return Picture(lambda _: [Text("no runs yet")])
    projects = len({v.project for v in views}) > 1
    titles = ["run", *(["project"] if projects else []), "status", "version", "commit", "branch", "created", "time"]
    rows = [_runs_row(view, projects=projects) for view in views]
    return Picture(lambda width: _table([*titles, "title"], rows, width, frozenset({0, len(titles) - 1})))


def _runs_row(view: RunView, *, projects: bool) -> Row:
    cells = (
        safe(view.run, "bold"),
        *([safe(view.project)] if projects else []),
        safe(view.status, style_of(view.status)),
        safe(view.version),
        safe(view.commit[:7] + ("+" if view.dirty else ""), "dim"),
        safe(view.branch or ""),
        safe(moment(view.created), "dim"),
        safe("" if view.seconds is None else duration(view.seconds)),
    )
    return Row(mark_of(view.status), cells, safe(view.title))


def render_plan(rows: Sequence[PlanRow]) -> Picture:
    """What would run and why, in order, and how many steps that makes."""
    if not rows:
        return Picture(lambda _: [Text("nothing to run")])
    shown = [_plan_row(row) for row in rows]
    total = Counter(row.action for row in rows)
    last = Text(f"  {total['run']:,} to run, {total['cached']:,} cached, {total['wait']:,} not known yet", "dim")
    return Picture(lambda width: [*_table(("step", "stage", "action", "reason"), shown, width), Text(""), last])


def _plan_row(row: PlanRow) -> Row:
    quiet = "dim" if row.action == "cached" else ""
    mark = Text({"run": "●", "cached": "✓"}.get(row.action, "·"), quiet)
    cells = (safe(row.name, quiet or "bold"), safe(row.stage, "dim"), safe(row.action, quiet))
    return Row(mark, cells, safe(row.reason, "dim"))


def render_status(rows: Sequence[StatusRow]) -> Picture:
    """Every environment and what it serves now."""
    if not rows:
        return Picture(lambda _: [Text("nothing is served from this home")])
    titles = ("environment", "status", "version", "replicas", "address", "since")

    def draw(width: int) -> list[Text]:
        columns = 4 + (width >= 80) + (width >= 100)  # an address that would be cut goes below instead
        first = max(cell_len(clean(name)) for name in ("environment", *(row.environment for row in rows)))
        room = max(20, width - first - 6)
        head = Row(Text(" "), tuple(Text(title, "dim") for title in titles[:columns]), Text(""))
        return stacked([head, *(line for row in rows for line in _status_rows(row, columns, room))], width)

    return Picture(draw)


def _status_rows(row: StatusRow, columns: int, room: int) -> Iterator[Row]:
    """An environment's line in so many columns, and below it what has no column; sentences are folded to `room`."""
    word = row.status.replace("_", " ")
    cells = (safe(row.environment, "bold"), safe(word, style_of(word)), safe(row.version), safe(row.replicas))
    since = moment(row.since)
    more = (row.url or "", since)
    yield Row(mark_of(word), (*cells, *map(safe, more[: columns - 4])), Text(""))
    below = (row.url or "", f"since {since}" if since else "")[columns - 4 :]
    for note in filter(None, ("  ".join(filter(None, below)), *row.notes)):
        for part in fold(clean(note), room):
            yield Row(Text(" "), (Text(""),), safe(part, "dim"))


# --- one run, whole ------------------------------------------------------------------------------------------------


def render_show(view: RunView) -> Picture:
    """Everything about one run: facts, steps, gates with all their reasons, environments, metrics, notes."""
    return Picture(lambda width: list(_show_lines(view, width)))


def _show_lines(view: RunView, width: int) -> Iterator[Text]:
    yield from (*header_lines(view, None, width), Text(""), *fact_lines(_show_facts(view), width))
    stages = dict.fromkeys(["build", "test", *(s.stage for s in view.steps if s.stage != "deploy")])
    for stage in stages:
        yield from _block(stage, [step_row(s, None) for s in view.steps if s.stage == stage], width, frozenset({2}))
    yield from _block("gates", [row for gate in view.gates for row in gate_rows(gate, _WHOLE)], width)
    yield from _block("tests", [_test_row(test) for test in view.tests], width)
    steps = [step_row(s, None) for s in view.steps if s.stage == "deploy"]
    yield from _block("deploy", [*steps, *(release_row(r, None) for r in view.releases)], width, frozenset({2}))
    given = [(r.environment, r.approval) for r in view.releases if r.approval is not None]
    said = [(name, a.sentence) for name, a in given if a.status in {"approved", "used"}]
    yield from _block("approvals", [Row(Text(""), (safe(e, "bold"),), safe(s), _WHOLE) for e, s in said], width)
    numbers = [Row(Text(""), (safe(name), safe(figure(v))), Text("")) for name, v in sorted(view.metrics.items())]
    yield from _block("metrics", numbers, width, frozenset({1}))
    yield from _block("notes", [note_row(note, _WHOLE) for note in view.notes], width)


def _test_row(test: TestView) -> Row:
    """A test that failed; one in quarantine, whose failure does not count, only warns."""
    shelved = f"in quarantine ({test.quarantine})" if test.quarantine else ""
    flaky = f"flaky: {test.flaky}" if test.flaky else ""
    first = test.message.partition("\n")[0]
    note = "; ".join(filter(None, (shelved, flaky, first)))
    mark = "warned" if test.quarantine else test.status
    return Row(mark_of(mark), (safe(test.step, "bold"), safe(test.test)), safe(note), tall=_WHOLE)


def _block(title: str, rows: Sequence[Row], width: int, right: frozenset[int] = frozenset()) -> Iterator[Text]:
    if rows:
        yield from (Text(""), safe(title), *stacked(rows, width, right=right))


def _show_facts(view: RunView) -> list[tuple[str, str | Text]]:
    facts = [
        ("commit", view.commit),
        ("trigger", view.trigger.replace("_", " ")),
        ("created", moment(view.created)),
        ("started", moment(view.started)),
        ("ended", moment(view.ended)),
        ("package", view.package or ""),
        ("size", "" if view.package_size is None else size(view.package_size)),
        ("reason", view.reason or ""),
    ]
    return [(name, text) for name, text in facts if text]


# --- the closing summary -------------------------------------------------------------------------------------------


def verdict(view: RunView) -> str:
    """The one sentence that says how a run ended, or that it has not."""
    if view.status == "passed":
        return _passed(view)
    if view.status in {"failed", "errored"}:
        return f"{_stopped(view)}{_still_serves(view)}"
    said = {"canceled": "was canceled", "superseded": "was superseded", "waiting": "waits for a person"}
    sentence = f"run {view.run} {said.get(view.status, f'is {view.status}')}"
    return f"{sentence}: {view.reason}" if view.reason else sentence


def _passed(view: RunView) -> str:
    serving = [r for r in reversed(view.releases) if r.status == "serving"]
    if serving:
        places = " and ".join(f"in {r.environment}{f' at {r.url}' if r.url else ''}" for r in serving)
        return f"{serving[0].version} is serving {places}"
    served = [r.environment for r in view.releases if r.status in {"draining", "retired"}]
    if served:
        return f"{view.version} passed; it served in {' and '.join(served)} until another release took its place"
    why = "; ".join(f"{r.environment}: {r.reason}" for r in view.releases if r.reason)
    return f"{view.version} passed; nothing was deployed{f' ({why})' if why else ''}"


def _stopped(view: RunView) -> str:
    """Where the run stopped: the first of what failed, then of what could not be told."""
    failed = _red(view, "failed", "fail", _STOPPED - {"errored"})
    untold = _red(view, "errored", "inconclusive", {"errored"})
    found = [*failed, *untold]
    if not found:
        return f"run {view.run} {view.status}{f': {view.reason}' if view.reason else ''}"
    (place, why), *others = found
    also = [name for name, _ in others[:2]] + ([f"{len(others) - 2} more"] if len(others) > 2 else [])
    return f"stopped at {place}: {why}{', and at ' if also else ''}{' and '.join(also)}"


def _red(view: RunView, status: str, judged: str, ends: AbstractSet[str]) -> Iterator[tuple[str, str]]:
    """Each place with its reason: steps of this status, gates judged so, releases that ended so."""
    for step in view.steps:
        if step.status == status:
            yield f"step {step.name}", step_reason(step) or status
    for gate in view.gates:
        if gate.verdict in {judged, status}:
            yield f"gate {gate.name}", _judged(gate)
    for release in view.releases:
        if release.status in ends:
            yield release.environment, release.reason or release.status.replace("_", " ")


def _judged(gate: GateView) -> str:
    said = "; ".join(gate.reasons)
    return said if gate.verdict == "fail" and said else ", ".join(filter(None, (gate.verdict, said)))


def _still_serves(view: RunView) -> str:
    kept = [r for r in view.releases if r.replaced and r.status in _UNTAKEN]
    kept = [r for r in kept if r.status in _STOPPED] or kept
    return f"; {kept[-1].environment} still serves {kept[-1].replaced}" if kept else ""


def summary(
    view: RunView,
    commands: Sequence[str],
    tails: Mapping[str, Sequence[str]] | None = None,
    *,
    gates: bool = True,
) -> Picture:
    """The closing summary: verdict, the last log lines of failed steps (`tails`, by step), gates, counts, what next.

    `commands` are shown as they are, one a line; `gates=False` leaves the gates table to the picture above.
    """
    return Picture(lambda width: list(_summary_lines(view, commands, tails or {}, gates, width)))


def _summary_lines(
    view: RunView, commands: Sequence[str], tails: Mapping[str, Sequence[str]], gates: bool, width: int
) -> Iterator[Text]:
    yield from _verdict_lines(view, width)
    for step, lines in tails.items():
        yield from (Text(""), Text.assemble("  ", safe(step, "bold"), ("  the end of its log", "dim")))
        yield from (line for text in lines for line in _log_lines(text, width))
    judged = [row for gate in view.gates if gate.verdict for row in gate_rows(gate, _WHOLE)]
    if gates and judged:
        yield from (Text(""), *stacked(judged, width))
    yield Text("")
    yield from fact_lines(_summary_facts(view, commands), width)


def _verdict_lines(view: RunView, width: int) -> Iterator[Text]:
    style = style_of(view.status)
    for index, part in enumerate(fold(clean(verdict(view)), max(2, width - 2))):
        yield Text.assemble(mark_of(view.status) if index == 0 else " ", " ", (part, f"bold {style}".strip()))


def _log_lines(text: str, width: int) -> list[Text]:
    """One log line, cleaned and folded; of a line that redraws itself (a progress bar) the last drawing."""
    drawn = [part for part in text.split("\r") if part.strip()] or [""]
    shown = clean(drawn[-1])
    shown = set_cell_size(shown, 999) + "…" if cell_len(shown) > 1000 else shown
    return [Text.assemble(("  │ ", "dim"), part) for part in chop_cells(shown.rstrip(), max(2, width - 4)) or [""]]


def _summary_facts(view: RunView, commands: Sequence[str]) -> list[tuple[str, str | Text]]:
    words = Counter(step_word(s) for s in view.steps)
    ran = sum(words[w] for w in ("passed", "failed", "errored", "warned", "canceled"))
    counts = [f"{ran:,} run", f"{words['cached']:,} cached"]
    others = ("failed", "errored", "warned", "canceled", "skipped", "queued")
    counts += [f"{words[w]:,} {w}" for w in others if words[w]]
    spent = "" if view.seconds is None else f" in {duration(view.seconds)}"
    facts: list[tuple[str, str | Text]] = [("steps", ", ".join(counts) + spent)]
    if view.package is not None:
        bytes_of = "" if view.package_size is None else f"  {size(view.package_size)}"
        facts.append(("package", f"{view.version}@{view.package[:12]}{bytes_of}"))
    return [*facts, *(("" if i else "next", safe(c, "bold")) for i, c in enumerate(commands))]
