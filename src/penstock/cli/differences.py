"""What differs between two runs: metrics, verdicts, parameters, inputs, dependencies, files. Pure."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.text import Text

from penstock.artifacts import Tree
from penstock.cli.pictures import Picture, Row, figure, safe, stacked, style_of

_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*(?:==|@)\s*([^\s;\\]+)", re.MULTILINE)
_SHOWN = 40
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    run: int
    version: str
    commit: str
    status: str


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
class FileChange:
    path: str
    change: Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class Differences:
    """All that differs; of the metrics also what does not."""

    a: Side
    b: Side
    metrics: tuple[MetricRow, ...]
    gates: tuple[Change, ...]
    parameters: tuple[Change, ...]
    inputs: tuple[Change, ...]
    dependencies: tuple[Change, ...]
    files: tuple[FileChange, ...]
    notes: tuple[str, ...]


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


def file_changes(a: Tree, b: Tree) -> tuple[FileChange, ...]:
    """The files that are not the same in two trees, by path."""
    old, new = a.entries, b.entries
    paths = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    return tuple(
        FileChange(path, "added" if path not in old else "removed" if path not in new else "changed") for path in paths
    )


# --- in a terminal -------------------------------------------------------------------------------------------------


def render_differences(found: Differences) -> Picture:
    """Both runs side by side, then each kind of difference that there is."""
    return Picture(lambda width: list(_lines(found, width)))


def _lines(found: Differences, width: int) -> Iterator[Text]:
    sides = [_side_row(letter, side) for letter, side in (("a", found.a), ("b", found.b))]
    yield from stacked(sides, width)
    yield from _block("metrics", [_metric_row(row) for row in found.metrics], width, {1, 2, 3})
    for title, rows in (
        ("gates", found.gates),
        ("parameters", found.parameters),
        ("inputs", found.inputs),
        ("dependencies", found.dependencies),
    ):
        yield from _block(title, [_change_row(row) for row in rows], width)
    yield from _block("files", [_file_row(row) for row in found.files], width)
    if not any((found.gates, found.parameters, found.inputs, found.dependencies, found.files)):
        yield from (Text(""), Text("  nothing else differs", "dim"))
    yield from (Text.assemble("  ", ("!", "yellow"), " ", safe(note)) for note in found.notes)


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
        safe(side.commit[:7], "dim"),
        safe(side.status, style_of(side.status)),
    )
    return Row(Text(""), cells, Text(""))


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


def _file_row(row: FileChange) -> Row:
    style = {"added": "green", "removed": "red"}.get(row.change, "yellow")
    return Row(
        Text({"added": "+", "removed": "-"}.get(row.change, "~"), style), (safe(row.path),), Text(row.change, "dim")
    )
