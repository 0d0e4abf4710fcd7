"""Progress of a run on a stream: a live picture on a terminal, one plain line per change anywhere else.

Only this module and the pure `pictures.py` and `tables.py` beside it import rich, so a command imports it only when
it has something to show.
"""

import os
import re
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Self, TextIO, cast

from rich.console import Console, ConsoleDimensions
from rich.live import Live

from penstock.cli.pictures import (
    Picture,
    clean,
    duration,
    figure,
    gate_reason,
    goes_back,
    release_words,
    render_run,
    step_reason,
    step_word,
)
from penstock.cli.tables import (
    PlanRow,
    StatusRow,
    render_plan,
    render_runs,
    render_show,
    render_status,
    summary,
    verdict,
)
from penstock.runs import ENDED_RUN, GateView, ReleaseView, RunView, StepView

__all__ = [
    "LiveProgress",
    "Picture",
    "PlanRow",
    "StatusRow",
    "clean",
    "display",
    "duration",
    "plain_lines",
    "render_plan",
    "render_run",
    "render_runs",
    "render_show",
    "render_status",
    "summary",
    "verdict",
]

# --- plain lines ---------------------------------------------------------------------------------------------------


def plain_lines(before: RunView | None, after: RunView) -> list[str]:
    """What changed from one view of a run to the next, one line per change, fields two spaces apart.

    Steps come in the order in which they ended or started; nothing that `before` already showed comes again.
    """
    if before is not None and before.run != after.run:
        before = None
    lines = [] if before is not None else [_begin_line(after)]
    told = set(() if before is None else before.notes)
    lines += [_joined("note", note) for note in dict.fromkeys(after.notes) if note not in told]
    lines += _step_lines(before, after)
    gates = {} if before is None else {g.name: _gate_line(g) for g in before.gates}
    lines += [line for g in after.gates if (line := _gate_line(g)) and line != gates.get(g.name)]
    releases = {} if before is None else {(r.environment, r.version): _release_line(r) for r in before.releases}
    seen = ((releases.get((r.environment, r.version)), _release_line(r)) for r in after.releases)
    lines += [line for old, line in seen if line and _steps_of(line) != _steps_of(old or "")]
    end = _run_line(after)
    return [*lines, end] if end and (before is None or end != _run_line(before)) else lines


def _joined(*fields: str) -> str:
    return "  ".join(f for f in (clean(field).strip() for field in fields) if f)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _begin_line(view: RunView) -> str:
    commit = view.commit[:7] + ("+dirty" if view.dirty else "")
    return _joined(f"run {view.run}", view.project, view.version, commit, view.branch or "", view.title)


def _run_line(view: RunView) -> str:
    if view.status in ENDED_RUN:
        return _joined(f"run {view.run}", view.status, _seconds(view.seconds), view.reason or "")
    return _joined(f"run {view.run}", view.status, view.reason) if view.reason and view.status != "running" else ""


def _step_lines(before: RunView | None, after: RunView) -> Iterator[str]:
    known = {} if before is None else {s.name: s for s in before.steps}
    changed = [s for s in after.steps if s != known.get(s.name)]
    for step in sorted(changed, key=lambda s: s.ended or s.started or 0.0):
        old = known.get(step.name)
        line = _step_line(step)
        if old is not None and old.status != "queued" and step.status == "queued":
            line = _joined(step.name, "queued", step.reason or "again")
        if line and (old is None or line != _step_line(old)):
            yield line


def _step_line(step: StepView) -> str:
    if step.status == "queued":
        return ""
    again = f"attempt {step.attempts}" if step.attempts > 1 else ""
    word = step_word(step)
    if word in {"running", "cached"}:
        return _joined(step.name, word, again if word == "running" else "")
    return _joined(step.name, word, "" if word == "skipped" else _seconds(step.seconds), step_reason(step), again)


def _gate_line(gate: GateView) -> str:
    if gate.verdict is None:
        return ""
    value = "" if gate.value is None else figure(gate.value, gate.rule)
    return _joined(gate.name, value, gate.rule, gate.verdict, gate_reason(gate))


def _release_line(release: ReleaseView) -> str:
    words, note = release_words(release)
    untold = words in {"queued", "draining", "rolled back"} and not note  # a rollback is told once, with its reason
    return "" if untold or goes_back(release) else _joined(release.environment, words, note)


_COUNT = re.compile(r": ([\d,]+) requests?\b.*")


def _steps_of(line: str) -> str:
    """A line of a release without its counts, which change with every look: only twice as many are news."""
    found = _COUNT.search(line)
    return line if found is None else f"{line[: found.start()]}: {int(found[1].replace(',', '')).bit_length()}"


# --- streams -------------------------------------------------------------------------------------------------------

_PLAINER = str.maketrans({**dict.fromkeys("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "*"), **dict(zip("✓✗●·│→…", "+x*.|>~", strict=True))})


class _Outlet:
    """A stream that never stops us: a reader that went away ends the output, what it cannot encode is spelt plainly."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.gone = False

    def write(self, text: str) -> int:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            text = text.translate(_PLAINER).encode(self.encoding, "replace").decode(self.encoding)
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        return not self.gone and not getattr(self._stream, "closed", False) and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def _try(self, act: Callable[[], object]) -> None:
        """Do it unless the reader is gone: a closed pipe or terminal (OSError) or a closed file (ValueError)."""
        if self.gone:
            return
        try:
            act()
        except (OSError, ValueError):
            self.gone = True

    def size(self) -> ConsoleDimensions:
        """Columns and lines of the terminal; 80 by 24 where it does not know."""
        try:
            columns, lines = os.get_terminal_size(self.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        return ConsoleDimensions(columns or 80, lines or 24)


def _console(outlet: _Outlet) -> Console:
    """A console for a terminal, of the terminal's own size, that reads no markup and no emoji codes."""
    console = Console(
        file=cast(IO[str], outlet),
        force_terminal=True,
        force_interactive=True,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    console.size = outlet.size()
    return console


def display(picture: Picture, stream: TextIO) -> None:
    """Show a picture once: in colour and at the terminal's width on a terminal, whole and plain anywhere else."""
    outlet = _Outlet(stream)
    if outlet.isatty():
        _console(outlet).print(picture)
    else:
        outlet.write(f"{picture}\n")
    outlet.flush()


class LiveProgress:
    """Shows a run while it goes on: `with LiveProgress(stream, now) as live: live.update(view)`, as often as wanted.

    On a terminal one picture that is redrawn at each update and stays at the end; on anything else, and on a dumb
    terminal, plain lines. A reader that goes away is no error: nothing more is shown.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float]) -> None:
        self._outlet = _Outlet(stream)
        self._now = now
        self._seen: RunView | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._outlet.isatty():
            console = _console(self._outlet)
            if not console.is_dumb_terminal:
                self._live = Live(
                    console=console,
                    auto_refresh=False,
                    transient=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                    vertical_overflow="crop",
                )
                self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._redraw(self._live)
            self._live.stop()
            self._live = None
        self._outlet.flush()

    def update(self, view: RunView) -> None:
        """Show the run as it stands now."""
        before, self._seen = self._seen, view
        if self._live is not None:
            self._redraw(self._live)
            return
        for line in plain_lines(before, view):
            self._outlet.write(f"{line}\n")
        self._outlet.flush()

    def _redraw(self, live: Live) -> None:
        if self._seen is None:
            return
        size = live.console.size = self._outlet.size()
        # one line less than the window: the cursor's own line, so that the last newline scrolls nothing away
        live.update(render_run(self._seen, self._now(), size.width, max(1, size.height - 1)), refresh=True)
