"""What differs between two runs: metrics, evidence, verdicts, parameters, data, dependencies, files. Pure."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.text import Text

from penstock.artifacts import Entry, File, Tree
from penstock.cli.contrasts import Names, flip_lines
from penstock.cli.pictures import Picture, Row, figure, safe, stacked, style_of
from penstock.comparisons import MINUS
from penstock.flips import Flips

_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*(?:==|@)\s*([^\s;\\]+)", re.MULTILINE)
_SHOWN = 40
_SHORT = 12
_MOST_LINES = 5000


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    run: int
    version: str
    commit: str
    status: str
    branch: str | None = None
    title: str = ""
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric of both runs; None where a run has none. `difference` is b - a."""

    name: str
    a: float | None
    b: float | None
    difference: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """Something that has another value in the other run; None where it has none there."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class OutputChange:
    """What a step made, as the digest of all of it; the files that differ are counted where both are at hand."""

    name: str
    a: str | None
    b: str | None
    added: int | None = None
    removed: int | None = None
    changed: int | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file of the two commits; of a text the lines that came and went. `before` is where a renamed one was."""

    path: str
    change: Literal["added", "removed", "changed", "renamed"]
    lines_added: int | None = None
    lines_removed: int | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Differences:
    """All that differs; of the metrics also what does not, and of the evidence what both answered."""

    a: Side
    b: Side
    metrics: tuple[MetricRow, ...]
    evidence: tuple[Flips, ...]
    gates: tuple[Change, ...]
    parameters: tuple[Change, ...]
    outputs: tuple[OutputChange, ...]
    dependencies: tuple[Change, ...]
    files: tuple[FileChange, ...]
    inputs: tuple[Change, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def metric_rows(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[MetricRow, ...]:
    """Every metric that either run has, by name."""
    return tuple(
        MetricRow(name, a.get(name), b.get(name), b[name] - a[name] if name in a and name in b else None)
        for name in sorted({*a, *b})
    )


def changes(a: Mapping[str, str | None], b: Mapping[str, str | None]) -> tuple[Change, ...]:
    """What has different values, in the order of the first, then of the second."""
    names = dict.fromkeys([*a, *b])
    return tuple(Change(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))


def flat(value: Any, before: str = "") -> dict[str, str | None]:
    """Each single value of nested mappings, by its path: `steps.train.run`; a list is one value."""
    if isinstance(value, Mapping) and value:
        found: dict[str, str | None] = {}
        for name, inner in value.items():
            found |= flat(inner, f"{before}.{name}" if before else str(name))
        return found
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return {before: shown}


def pins(lock: str) -> dict[str, str | None]:
    """What a lock pins: each name with its version or the address that it comes from; of an image its digests."""
    if lock.lstrip().startswith("{"):
        return flat(json.loads(lock))
    return {name.lower(): version for name, version in _PINNED.findall(lock)}


def output_change(name: str, a: str | None, b: str | None, old: Tree | None, new: Tree | None) -> OutputChange:
    """What became of a step's outputs, given their digests and, where they are at hand, their trees."""
    if old is None or new is None:
        return OutputChange(name, a, b)
    found = [change.change for change in file_changes(old, new)]
    return OutputChange(name, a, b, *(found.count(word) for word in ("added", "removed", "changed")))


def file_changes(a: Tree, b: Tree) -> tuple[FileChange, ...]:
    """The files that are not the same in two trees, by path."""
    old, new = a.entries, b.entries
    paths = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    return tuple(
        FileChange(path, "added" if path not in old else "removed" if path not in new else "changed") for path in paths
    )


def with_renames(changes: Sequence[FileChange], a: Tree, b: Tree) -> tuple[FileChange, ...]:
    """The same, where a file that went and one that came with the same content are one that was renamed."""
    gone: dict[Entry, str] = {a.entries[c.path]: c.path for c in changes if c.change == "removed"}
    came = {c.path: gone.pop(b.entries[c.path]) for c in changes if c.change == "added" and b.entries[c.path] in gone}
    moved = set(came.values())
    return tuple(
        FileChange(c.path, "renamed", before=came[c.path]) if c.path in came else c
        for c in changes
        if c.path not in moved or c.change != "removed"
    )


def line_counts(old: bytes, new: bytes) -> tuple[int, int] | None:
    """The lines that came and that went; None for what is no text, or has more changed lines than is worth counting."""
    if b"\0" in old[:8000] or b"\0" in new[:8000]:
        return None
    before, after = old.splitlines(), new.splitlines()
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    while before[start:] and after[start:] and before[-1] == after[-1]:
        before.pop()
        after.pop()
    before, after = before[start:], after[start:]
    if min(len(before), len(after)) > _MOST_LINES:
        return None
    same = sum(block.size for block in difflib.SequenceMatcher(None, before, after).get_matching_blocks())
    return len(after) - same, len(before) - same


def file_of(tree: Tree, path: str) -> File | None:
    """A regular file of a tree."""
    found = tree.entries.get(path)
    return found if isinstance(found, File) else None


# --- in a terminal -------------------------------------------------------------------------------------------------


def render_differences(found: Differences, examples: int = 10) -> Picture:
    """Both runs side by side, then each kind of difference that there is; of flipped examples so many."""
    return Picture(lambda width: list(_lines(found, examples, width)))


def _lines(found: Differences, examples: int, width: int) -> Iterator[Text]:
    sides = [_side_row(letter, side) for letter, side in (("a", found.a), ("b", found.b))]
    yield from stacked(sides, width)
    yield from _block("metrics", [_metric_row(row) for row in found.metrics], width, {1, 2, 3})
    names = Names(*(f"run {side.run}" for side in (found.a, found.b)))
    for index, flips in enumerate(found.evidence):
        yield from (Text(""), *([] if index else [Text("evidence")]))
        yield from flip_lines(flips, names, examples, width)
    yield from _block("gates", [_change_row(row) for row in found.gates], width)
    yield from _block("parameters", [_change_row(row) for row in found.parameters], width)
    yield from _block("outputs", [_output_row(row) for row in found.outputs], width)
    yield from _block("dependencies", [_change_row(row) for row in found.dependencies], width)
    yield from _block(f"files{_files_total(found.files)}", [_file_row(row) for row in found.files], width, {1, 2})
    yield from _block("keys of steps", _key_rows(found.inputs), width)
    if not any((found.gates, found.parameters, found.inputs, found.outputs, found.dependencies, found.files)):
        yield from (Text(""), Text("  nothing else differs", "dim"))
    notes = [Row(Text("!", "yellow"), (), safe(note), 10) for note in found.notes]
    yield from (line for line in (Text(""), *stacked(notes, width)) if notes)


def _files_total(files: Sequence[FileChange]) -> str:
    """How many files differ and by how many lines, as git sums it up."""
    came, went = (sum(getattr(f, name) or 0 for f in files) for name in ("lines_added", "lines_removed"))
    return f"  {len(files):,} file{'' if len(files) == 1 else 's'}, +{came:,} {MINUS}{went:,} lines"


def _block(title: str, rows: Sequence[Row], width: int, right: Iterable[int] = ()) -> Iterator[Text]:
    if rows:
        yield from (Text(""), Text(title), *stacked(rows[:_SHOWN], width, right=frozenset(right)))
    if len(rows) > _SHOWN:
        yield Text(f"  and {len(rows) - _SHOWN:,} more: --json has them", "dim")


def _side_row(letter: str, side: Side) -> Row:
    cells = (
        safe(letter, "bold"),
        safe(f"run {side.run}"),
        safe(side.version),
        safe(side.commit[:7] + ("+" if side.dirty else ""), "dim"),
        safe(side.branch or "", "dim"),
        safe(side.status, style_of(side.status)),
    )
    return Row(Text(""), cells, safe(side.title))


def metric_words(row: MetricRow) -> tuple[str, str, str]:
    """Both values and their difference, as shown."""
    old, new = ("-" if value is None else figure(value) for value in (row.a, row.b))
    return old, new, "" if row.difference is None else f"{row.difference:+.4g}" if row.difference else "the same"


def _metric_row(row: MetricRow) -> Row:
    old, new, moved = metric_words(row)
    return Row(
        Text(""), (safe(row.name, "bold"), safe(old), safe(new), safe(moved, "" if row.difference else "dim")), Text("")
    )


def _change_row(row: Change) -> Row:
    old, new = (safe(_short(value), style_of(value or "")) for value in (row.a, row.b))
    return Row(Text(""), (safe(row.name, "bold"),), Text.assemble(old, ("  →  ", "dim"), new), 3)


def _short(value: str | None) -> str:
    """A value as shown: of a digest its beginning."""
    if value is None:
        return "-"
    return value[:_SHORT] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def _output_row(row: OutputChange) -> Row:
    counts = {"added": row.added, "removed": row.removed, "changed": row.changed}
    told = ", ".join(f"{count:,} file{'' if count == 1 else 's'} {word}" for word, count in counts.items() if count)
    digests = f"{_short(row.a)}  →  {_short(row.b)}"
    return Row(Text(""), (safe(row.name, "bold"), safe(digests)), safe(told, "dim"), 3)


def _key_rows(inputs: Sequence[Change]) -> list[Row]:
    """What differs in the keys of steps, once for all steps in which it differs alike."""
    steps: dict[tuple[str, str | None, str | None], list[str]] = {}
    for change in inputs:
        step, _, name = change.name.rpartition(" ")
        steps.setdefault((name, change.a, change.b), []).append(step)
    return [
        Row(Text(""), (safe(name, "bold"), safe(f"{_short(a)}  →  {_short(b)}")), safe(", ".join(names), "dim"), 3)
        for (name, a, b), names in steps.items()
    ]


def _file_row(row: FileChange) -> Row:
    style = {"added": "green", "removed": "red"}.get(row.change, "yellow")
    came = "" if row.lines_added is None else f"+{row.lines_added:,}"
    went = "" if row.lines_removed is None else f"{MINUS}{row.lines_removed:,}"
    note = f"renamed from {row.before}" if row.before else row.change
    cells = (safe(row.path), safe(came, "green"), safe(went, "red"))
    return Row(
        Text({"added": "+", "removed": "-", "renamed": "→"}.get(row.change, "~"), style), cells, safe(note, "dim")
    )
