"""What a person sees of a run, drawn from frozen values: pure, no clock and no stream.

A `Picture` is lines that lay themselves out at the width they are drawn at, so the same value serves a terminal and,
by `str(picture)`, a pipe. Text that a person or a repository controls becomes `rich.text.Text` through `clean`:
never markup, never a control character.
"""

import math
import re
import signal
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions
from rich.text import Text

from penstock.charts import Chart, drawn
from penstock.runs import GateView, ReleaseView, RunView, StepView

# --- words ---------------------------------------------------------------------------------------------------------

_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b.?", re.DOTALL)
_UNPRINTED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: str) -> str:
    """The text on one line without escape sequences, control, format or bidirectional characters; tabs are spaces."""
    if text.isascii() and text.isprintable():
        return text
    shown = _ESCAPES.sub("", text).expandtabs(4)
    return "".join(_printed(c) for c in shown)


def _printed(character: str) -> str:
    if character in "\n\r\v\f":
        return " "
    return "" if unicodedata.category(character) in _UNPRINTED else character


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 s`, `12 s`, `1 min 05 s`, `2 h 03 min`, `3 d 04 h`."""
    if not math.isfinite(seconds):
        return "unknown"
    if round(max(0.0, seconds), 1) < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for unit, size, rest, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small:02d} {rest}"
    return f"{whole} s"


def size(count: int) -> str:
    """Bytes as people say them: `812 B`, `4.2 MB` (powers of 1000)."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if round(amount, 1) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def moment(seconds: float | None) -> str:
    """Seconds since the epoch as local date and minute; nothing for None."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, tz=UTC).astimezone():%Y-%m-%d %H:%M}"


def figure(value: float, rule: str = "") -> str:
    """A number in four digits, in more where four would make it look like a number of its rule that it is not."""
    limits = {float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", rule)}
    for digits in (4, 6, 9):
        shown = f"{value:.{digits}g}"
        if "e" not in shown and (float(shown) == value or float(shown) not in limits):
            return shown
    return f"{value:.12g}"


_REASONS: Mapping[str, str] = {
    "timeout": "timed out",
    "oom": "out of memory",
    "log_limit": "its log reached the limit",
    "lost": "its process was lost",
    "infrastructure": "Penstock's own part failed",
}


def step_word(step: StepView) -> str:
    """The step's status as shown: `cached` where the cache knew, else the status itself."""
    return "cached" if step.cached and step.status in {"skipped", "passed"} else step.status.replace("_", " ")


def step_reason(step: StepView) -> str:
    """Why it ended as it did, in words; empty where there is nothing to say."""
    if step.reason not in {None, "exit"}:
        return _REASONS.get(step.reason or "", step.reason or "")
    if step.exit_code in {None, 0}:
        return ""
    return f"exit code {step.exit_code}" if (step.exit_code or 0) > 0 else f"ended by {_signal(-(step.exit_code or 0))}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def release_words(release: ReleaseView) -> tuple[str, str]:
    """Where a release stands, in words, and what belongs to it: its address, the phase that it is in, or a reason."""
    word = release.status.replace("_", " ")
    if release.status == "serving":
        return word, "  ".join(filter(None, (release.url, _phase(release))))
    if release.phase and release.status not in _ENDED_RELEASE:
        return _phase(release), ""
    if release.status == "waiting" and release.approval is not None:
        return word, release.approval.sentence.removeprefix("waits ")
    return word, release.reason or ""


def _phase(release: ReleaseView) -> str:
    if not release.phase:
        return ""
    if goes_back(release):
        return "rolling back …"
    if release.phase.startswith("switching"):
        return f"switching {f'{release.replaced} →' if release.replaced else 'to'} {release.version}"
    return f"{release.phase} …"


def goes_back(release: ReleaseView) -> bool:
    """Whether a release that was tried has no traffic any more, and its end is not told yet."""
    return release.status in {"canary", "draining"} and (release.phase or "").endswith(" 0 %")


def gate_reason(gate: GateView) -> str:
    """What a person should read of a gate beside its numbers: for a passed one only what they do not say already."""
    if gate.verdict != "pass":
        return "; ".join(gate.reasons)
    known = {*_numbers(gate.rule), *_numbers("" if gate.value is None else figure(gate.value, gate.rule))}
    told = [r for r in gate.reasons if r.startswith("warning") or not _numbers(r) or not _numbers(r) <= known]
    return "; ".join(told)


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


_ENDED_RELEASE = frozenset({"retired", "rejected", "rolled_back", "skipped", "errored", "stopped"})
MOVING = frozenset({"running", "starting", "probing", "canary", "draining", "rolling back"})
_RED = frozenset({"failed", "fail", "errored", "rejected", "unapproved", "rolled back", "unhealthy"})
_YELLOW = frozenset({"warned", "inconclusive", "canceled", "waiting", "unattended"})
_GREEN = frozenset({"passed", "pass", "serving"})
DIM = frozenset({"cached", "skipped", "queued", "superseded", "retired", "stopped", "wait"})
_MARKS: Mapping[str, str] = {
    **dict.fromkeys(_RED, "✗"),
    **dict.fromkeys(_YELLOW, "!"),
    **dict.fromkeys(_GREEN | {"cached"}, "✓"),
    **dict.fromkeys(MOVING, "●"),
    "skipped": "-",
    "superseded": "-",
    "inconclusive": "?",
}
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def style_of(word: str) -> str:
    """The one colour of a word: green, red, yellow, dim, or none."""
    for words, style in ((_RED, "red"), (_GREEN, "green"), (_YELLOW, "yellow"), (DIM, "dim")):
        if word in words:
            return style
    return ""


def mark_of(word: str, now: float | None = None) -> Text:
    if word in MOVING and now is not None:
        return Text(_FRAMES[int(now * 8) % len(_FRAMES)], "bold")
    return Text(_MARKS.get(word, "·"), style_of(word) or "dim")


# --- lines ---------------------------------------------------------------------------------------------------------

_WIDE = 100_000
_READABLE = 100


class Picture:
    """Lines that lay themselves out at a width, in terminal cells; `str(picture)` is the form for a pipe."""

    def __init__(self, draw: Callable[[int], Iterable[Text]]) -> None:
        self._draw = draw

    def lines(self, width: int) -> list[Text]:
        """The lines at this width; none is wider."""
        lines = list(self._draw(max(1, width)))
        for line in lines:
            line.truncate(max(1, width), overflow="ellipsis")
        return lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self.lines(options.max_width):
            line.no_wrap, line.overflow, line.end = True, "crop", "\n"
            yield line

    def __str__(self) -> str:
        return "\n".join(line.plain.rstrip() for line in self.lines(_WIDE))


@dataclass(frozen=True, slots=True)
class Row:
    """A mark, cells that align with those of other rows, and a note that takes what room is left.

    A `tall` row's note goes on below, in up to that many lines, where the room does not do; so does the cell
    `folded`, within its column.
    """

    mark: Text
    cells: tuple[Text, ...]
    note: Text
    tall: int = 0
    folded: int | None = None


def safe(text: str, style: str = "") -> Text:
    return Text(clean(text), style)


def _cut(text: Text, width: int, *, right: bool = False) -> Text:
    cut = text.copy()
    cut.truncate(width, overflow="ellipsis")
    blank = " " * (width - cell_len(cut.plain))
    return Text.assemble(blank, cut) if right else Text.assemble(cut, blank)


def fold(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` cells, broken at spaces where there are any."""
    if cell_len(text) <= width:
        return [text] if text else []
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        *full, line = [*([line] if line else []), *chop_cells(word, max(2, width))]
        lines += full
    return [*lines, line] if line else lines


def _widths(rows: Sequence[Row], room: int, first: int) -> list[int]:
    """Column widths: what the cells need, the widest made narrower until they fit; the first at least `first`."""
    count = max((len(row.cells) for row in rows), default=0)
    widths = [first, *[0] * (count - 1)] if count else []
    for row in rows:
        for index, cell in enumerate(row.cells):
            if not _is_free(row, index, count):
                widths[index] = max(widths[index], _len(cell))
    while sum(w + 2 for w in widths if w) - 2 > room and max(widths, default=0) > 6:
        widest = widths.index(max(widths))
        widths[widest] = max(6, widths[widest] - (sum(w + 2 for w in widths if w) - 2 - room))
    return widths


def _is_free(row: Row, index: int, count: int) -> bool:
    """Whether a cell may be as long as it likes: the last of a row that has fewer cells than others have."""
    return 0 < index == len(row.cells) - 1 < count - 1


def _len(text: Text) -> int:
    return cell_len(text.plain)


def layout(rows: Sequence[Row], width: int, first: int = 0, right: frozenset[int] = frozenset()) -> list[list[Text]]:
    """The lines of each row, aligned; `right` are the columns that align to the right."""
    widths = _widths(rows, width - 4, first)
    return [_row_lines(row, widths, width, right) for row in rows]


def _row_lines(row: Row, widths: Sequence[int], width: int, right: frozenset[int]) -> list[Text]:
    line = Text.assemble("  ", row.mark, " ") if row.mark.plain else Text("  ")
    edge = _len(line) + (widths[0] + 2 if row.cells else 0)
    below: list[Text] = []
    for index, cell in enumerate(row.cells):
        if widths[index] or cell.plain:
            line.append("  " if index else "")
            shown, *rest = _folded(cell, widths[index]) if index == row.folded else [cell]
            below = [Text.assemble(" " * _len(line), part) for part in rest] or below
            free = _is_free(row, index, len(widths))
            line.append_text(shown if free else _cut(shown, widths[index], right=index in right))
    first, *more = _with_note(line, row, width, edge if width - edge >= 30 else min(edge, 6))
    return [first, *below, *more]


def _folded(cell: Text, width: int) -> list[Text]:
    return [Text(part, cell.style) for part in fold(cell.plain, width)] or [cell]


def _with_note(line: Text, row: Row, width: int, edge: int) -> list[Text]:
    """The row's line with its note behind it, or below it from column `edge` on where it is tall."""
    gap = "  " if row.cells else ""
    room = width - _len(line) - len(gap)
    if row.tall and _len(row.note) > room:
        return _with_note_below(line, row, width, edge)
    if row.note.plain and (_len(row.note) <= room or room >= 8):
        line.append(gap).append_text(row.note)
    line.truncate(width, overflow="ellipsis")
    line.rstrip()
    return [line]


def _with_note_below(line: Text, row: Row, width: int, edge: int) -> list[Text]:
    parts = fold(row.note.plain, max(2, width - edge))
    if len(parts) > row.tall:
        parts = [*parts[: row.tall - 1], f"{parts[row.tall - 1]} …"]
    below = [Text.assemble(" " * edge, (part, row.note.style)) for part in parts]
    if below and not row.cells:
        below[0] = Text.assemble(line, (parts[0], row.note.style))
        return below
    line.rstrip()
    return [line, *below]


def stacked(rows: Sequence[Row], width: int, first: int = 0, right: frozenset[int] = frozenset()) -> list[Text]:
    return [line for lines in layout(rows, width, first, right) for line in lines]


def _ends(left: Text, right: Text, width: int) -> Text:
    gap = min(width, _READABLE) - _len(left) - _len(right)
    return Text.assemble(left, " " * gap, right) if gap >= 2 else left


def fact_lines(facts: Iterable[tuple[str, str | Text]], width: int) -> list[Text]:
    """`name  sentence` lines; a long sentence goes on below itself."""
    shown = [(name, text if isinstance(text, Text) else safe(text)) for name, text in facts]
    edge = 2 + max((len(name) for name, _ in shown), default=0) + 2
    lines = []
    for name, text in shown:
        for index, part in enumerate(fold(text.plain, max(2, width - edge))):
            head = Text("  " + ("" if index else name), "dim")
            lines.append(Text.assemble(_cut(head, edge), (part, text.style)))
    return lines


# --- rows of a run -------------------------------------------------------------------------------------------------


def step_row(step: StepView, now: float | None, open_steps: frozenset[str] = frozenset()) -> Row:
    """A step's row; `open_steps` are those that have not ended, so that a queued step can say what it waits for."""
    word = step_word(step)
    quiet = "dim" if word in DIM else ""
    seconds = now - step.started if word == "running" and now is not None and step.started is not None else step.seconds
    spent = "" if seconds is None or word in DIM else duration(seconds)
    cells = (safe(step.name, quiet or "bold"), safe(word, "" if word in _GREEN else style_of(word)), Text(spent))
    return Row(mark_of(word, now), cells, safe(_step_note(step, open_steps), quiet), 3 if word in _RED else 0)


def _step_note(step: StepView, open_steps: frozenset[str]) -> str:
    again = f"attempt {step.attempts}" if step.attempts > 1 else ""
    if step.status == "running":
        return "  ".join(filter(None, (again, step.progress)))
    if step.status == "queued":
        waiting = [n for n in step.needs if n in open_steps]
        more = f" and {len(waiting) - 2} more" if len(waiting) > 2 else ""
        return step.reason or (f"after {', '.join(waiting[:2])}{more}" if waiting else "")
    return "  ".join(filter(None, (step_reason(step), again)))


def gate_row(gate: GateView, tall: int = 3) -> Row:
    word = gate.verdict or "open"
    quiet = "" if gate.verdict else "dim"
    value = "" if gate.value is None else figure(gate.value, gate.rule)
    verdict = safe(gate.verdict or "", style_of(word))
    cells = (safe(gate.name, quiet or "bold"), safe(value), safe(gate.rule, quiet), verdict)
    return Row(mark_of(word), cells, safe(gate_reason(gate), "dim" if word == "pass" else ""), tall, folded=2)


def gate_rows(gate: GateView, tall: int) -> list[Row]:
    """A gate's row, and below it the interval that decided."""
    rows = [gate_row(gate, tall)]
    return rows if gate.chart is None else [*rows, Row(Text(" "), (), safe(chart_line(gate.chart), "dim"))]


def chart_line(chart: Chart) -> str:
    """A chart between the bounds that it shows, gains of `correct` in points: `-1.9 ░░░│  ├─●──┤ +0.1`.

    Relative gains and error rates are in percent; of a chart of one slice its name comes first.
    """
    rate = chart.kind == "level" and chart.score == "error rate"
    hundredths = rate or chart.relative or (chart.kind == "gain" and chart.score == "correct")
    form = ".3g" if rate else "+.1f" if hundredths else "+.3g" if chart.kind == "gain" else ".4g"
    low, high = (format(number * (100 if hundredths else 1), form) for number in (chart.low, chart.high))
    unit, where = " %" if chart.relative or rate else "", f"{chart.slice_of}  " if chart.slice_of else ""
    return f"{where}{low}{unit} {drawn(chart)} {high}{unit}"


def release_row(release: ReleaseView, now: float | None) -> Row:
    words, note = release_words(release)
    word = _release_word(release)
    quiet = "dim" if word in DIM else ""
    name = safe(release.environment, quiet or "bold")
    if words != release.status.replace("_", " "):  # a phase is a phrase: it would push the others' column aside
        return Row(mark_of(word, now), (name,), safe(words))
    return Row(
        mark_of(word, now),
        (name, safe(words, style_of(words))),
        safe(note, quiet),
        3 if word in _RED | {"waiting"} else 0,
    )


def _release_word(release: ReleaseView) -> str:
    return "running" if release.status == "queued" and release.phase else release.status.replace("_", " ")


def note_row(note: str, tall: int = 3) -> Row:
    return Row(Text("!", "yellow"), (), safe(note), tall)


# --- the live picture ----------------------------------------------------------------------------------------------

_Shown = StepView | GateView | ReleaseView


@dataclass(frozen=True, slots=True)
class _Item:
    """One row to be: the section it stands in and how much a person wants to see it now (small is much)."""

    section: str
    word: str
    view: _Shown | str
    moment: float = 0.0

    @property
    def urgency(self) -> int:
        if self.word in _RED | _YELLOW | MOVING or isinstance(self.view, str):
            return 0
        if self.word in _GREEN or not isinstance(self.view, StepView):
            return 1
        return 3 if self.word in {"cached", "skipped"} else 2

    @property
    def kind(self) -> str:
        """What takes turns with other kinds of the same urgency, so that none hides another."""
        return "running" if self.word in MOVING else type(self.view).__name__


def _items(view: RunView) -> list[_Item]:
    steps = [_Item(s.stage, step_word(s), s, s.ended or s.started or 0.0) for s in view.steps]
    names = dict.fromkeys(["build", "test", *(s.stage for s in view.steps if s.stage != "deploy")])
    deploy = [i for i in steps if i.section == "deploy"]
    gates = [_Item("gates", g.verdict or "open", g) for g in view.gates]
    releases = [_Item("deploy", _release_word(r), r) for r in view.releases]
    notes = [_Item("notes", "note", n) for n in view.notes]
    staged = sorted((i for i in steps if i.section != "deploy"), key=lambda i: list(names).index(i.section))
    return [*staged, *gates, *deploy, *releases, *notes]


def _order(items: Sequence[_Item]) -> list[int]:
    """Indices, most wanted first: what is red and what runs in turns, then the recent, each kind newest first."""
    groups: dict[tuple[int, str], list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault((item.urgency, item.kind), []).append(index)
    ranked = []
    for (urgency, _), group in groups.items():
        group.sort(key=lambda i: (-items[i].moment, i))
        ranked += [(urgency, place, index) for place, index in enumerate(group)]
    return [index for _, _, index in sorted(ranked)]


def _sections(items: Sequence[_Item], chosen: set[int], draw: "_Drawing") -> list[list[Text]]:
    """The blocks of lines of the chosen items, with what was left out counted in each block's heading."""
    order = list(dict.fromkeys("" if draw.flat else item.section for item in items))
    first = max((_name_width(items[i].view) for i in chosen), default=0)
    first = min(first, max(8, draw.width // 3))
    blocks = []
    for section in order:
        mine = [i for i, item in enumerate(items) if draw.flat or item.section == section]
        hidden = Counter(items[i].word for i in mine if i not in chosen)
        rows = [draw.row(items[i].view) for i in mine if i in chosen]
        heading = _heading("" if section == "notes" else section, hidden)
        lines = stacked(rows, draw.width, first, frozenset({2}) if section not in {"gates", ""} else frozenset())
        blocks.append([*([heading] if heading.plain else []), *lines])
    return blocks


def _name_width(view: _Shown | str) -> int:
    if isinstance(view, str):
        return 0
    return cell_len(clean(view.environment if isinstance(view, ReleaseView) else view.name))


def _heading(section: str, hidden: Counter[str]) -> Text:
    counts = ", ".join(f"{count:,} {word}" for word, count in sorted(hidden.items()))
    hint = f"{'  ' if section else ''}{counts} not shown" if counts else ""
    return Text.assemble(safe(section), (hint, "dim"))


@dataclass(frozen=True, slots=True)
class _Drawing:
    now: float
    width: int
    open_steps: frozenset[str]
    flat: bool

    def row(self, view: _Shown | str) -> Row:
        if isinstance(view, StepView):
            return step_row(view, self.now, self.open_steps)
        if isinstance(view, GateView):
            return gate_row(view)
        if isinstance(view, ReleaseView):
            return release_row(view, self.now)
        return note_row(view)


def header_lines(view: RunView, now: float | None, width: int) -> list[Text]:
    """Two lines: project, version, run, status and time; commit, branch and title, and what a queued run waits for."""
    spent = view.seconds if view.ended is not None or now is None or view.started is None else now - view.started
    left = Text.assemble(safe(view.project, "bold"), "  ", safe(view.version))
    right = Text.assemble(
        (f"run {clean(view.run)}", "dim"),
        "  ",
        safe(view.status, style_of(view.status)),
        ("" if spent is None else f"  {duration(spent)}", "dim"),
    )
    place = Text.assemble(
        safe(view.commit[:7], "dim"),
        (" + uncommitted work" if view.dirty else "", "yellow"),
        safe("" if view.branch is None else f"  {view.branch}", "dim"),
        "  ",
        safe(view.title),
    )
    waits = safe(view.reason, "yellow") if view.status == "queued" and view.reason else Text("")
    return [_ends(left, right, width), _ends(place, waits, width) if waits else place]


def render_run(view: RunView, now: float, width: int, height: int | None = None) -> Picture:
    """A run as it stands at `now` (seconds since the epoch): header, steps by stage, gates, environments, notes.

    At most `height` lines where it is given: then running, red and recent rows stay, and headings count the rest.
    """
    return Picture(lambda offered: _run_lines(view, now, max(1, min(width, offered)), height))


def _run_lines(view: RunView, now: float, width: int, height: int | None) -> list[Text]:
    flat = height is not None and height < 9
    head = header_lines(view, now, width)[: 1 if flat else 2]
    open_steps = frozenset(s.name for s in view.steps if s.status in {"queued", "running"})
    room = None if height is None else height - len(head)
    blocks = _fitting(_items(view), _Drawing(now, width, open_steps, flat), room)
    dense = [*head, *(line for block in blocks for line in block)]
    if height is not None and len(dense) + len(blocks) > height:
        return dense[: max(1, height)]
    return [*head, *(line for block in blocks for line in (Text(""), *block))]


def _fitting(items: Sequence[_Item], draw: _Drawing, room: int | None) -> list[list[Text]]:
    """The blocks that fit into `room` lines, the least wanted rows left out."""
    if room is None:
        return _sections(items, set(range(len(items))), draw)
    order = _order(items)
    count = min(len(order), max(0, room))
    while True:
        blocks = [b for b in _sections(items, set(order[:count]), draw) if b]
        excess = sum(map(len, blocks)) - room
        if excess <= 0 or count <= 1:
            return blocks
        count -= max(1, min(excess // 2, count - 1))
