"""Parities: two steps of a run gave the same predictions, example by example.

Exports break models silently: a step that asks the packaged model must say what a step said that asked the trained one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.columns import Columns, read_columns, shown
from penstock.errors import ReportError
from penstock.evidence import PROBABILITY
from penstock.gates import Verdict
from penstock.texts import canonical, matched, numbers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from penstock.pipelines import Gate
    from penstock.texts import Floats, Places, Texts

    Flags = npt.NDArray[np.bool_]

NAMED = 3
"""So many examples that differ are named."""


def read_answers(data: bytes, file: str) -> Columns:
    """The predictions of a file in the order of their ids: `prediction`, and probabilities where it has any.

    Raises ReportError for what `columns.read_columns` refuses, and where there is neither.
    """
    optional = ("prediction", PROBABILITY, f"{PROBABILITY}:")
    found = read_columns(data, file, ("id",), optional).sorted_by("id")
    if len(found.texts) == 1:
        raise ReportError(f'{file}: there is neither a column "prediction" nor "{PROBABILITY}" to compare')
    return found


def judge_parity(gate: Gate, own: Columns | None, other: Columns | None) -> Verdict:
    """Judge whether the gate's step and the one that it must be the same as gave the same answers, joined by id.

    `own` and `other` are what `read_answers` read, None where a step left nothing. Texts must be equal; numbers may
    differ by the gate's tolerance, of 1 or of their size where that is larger. Columns that only one has are not
    compared. The value is the share of examples that are the same.
    """
    left = {str(gate.evidence): own, str(gate.same_as): other}
    for step, found in left.items():
        if found is None:
            return Verdict(gate.name, "errored", None, (f"step {step} left no evidence to judge",))
    if own is None or other is None:
        raise AssertionError("looked at above")
    return _judged(gate, own, other)


def _judged(gate: Gate, own: Columns, other: Columns) -> Verdict:
    mine, theirs = matched(own.texts["id"], other.texts["id"])
    apart = [(gate.evidence, len(own.lines) - len(mine)), (gate.same_as, len(other.lines) - len(theirs))]
    alone = [f"{count:,} examples are only in {step}" for step, count in apart if count]
    names = [name for name in own.texts if name != "id" and name in other.texts]
    if not len(mine) or not names:
        what = "no example" if names else "no column"
        reason = f"{what} of {gate.evidence} is in {gate.same_as} too: there is nothing to compare"
        return Verdict(gate.name, "inconclusive", None, (reason,))
    gaps = [_gap(name, own.texts[name][mine], other.texts[name][theirs], gate.tolerance) for name in names]
    wrong = _any(gaps)
    value = 1 - len(wrong) / len(mine)
    if len(wrong):
        ids = own.texts["id"][mine]
        return Verdict(
            gate.name, "fail", value, (_difference(gate, gaps, wrong, ids), *_examples(gaps, wrong, ids), *alone)
        )
    off = f", none off by more than {gate.tolerance:g}" if gate.tolerance else ""
    same = f"all {len(mine):,} examples of both have the same {' and '.join(_short(names))}{off}"
    if alone:
        return Verdict(
            gate.name, "inconclusive", value, (f"{same}; but {' and '.join(alone)}: predict them all in both",)
        )
    return Verdict(gate.name, "pass", value, (same,))


def _short(names: list[str]) -> list[str]:
    classes = [name for name in names if name.startswith(f"{PROBABILITY}:")]
    plain = [name for name in names if name not in classes]
    return plain + ([f"{len(classes)} probabilities"] if len(classes) > 1 else classes)


@dataclass(frozen=True, slots=True)
class _Gap:
    """One column of both, for the examples of both: where it differs, and by how much where that are numbers."""

    name: str
    mine: Texts
    theirs: Texts
    differs: Flags
    sizes: Floats


def _gap(name: str, mine: Texts, theirs: Texts, tolerance: float) -> _Gap:
    """Equal in canonical form, or numbers no farther apart than tolerance * max(1, |a|, |b|); never infinitely far."""
    import numpy as np

    one, two = canonical(mine), canonical(theirs)
    differs = one != two
    sizes = np.full(len(one), np.nan)
    places = np.flatnonzero(differs)
    a, b = numbers(one[places]), numbers(two[places])
    with np.errstate(invalid="ignore", over="ignore"):  # numbers beyond a float are infinite here
        sizes[places] = np.abs(a - b)
        allowed = tolerance * np.maximum(1, np.maximum(np.abs(a), np.abs(b)))
    differs[places] = ~((sizes[places] <= allowed) & np.isfinite(sizes[places]))
    return _Gap(name, mine, theirs, differs, sizes)


def _any(gaps: list[_Gap]) -> Places:
    import numpy as np

    return np.flatnonzero(np.logical_or.reduce([gap.differs for gap in gaps]))


def _difference(gate: Gate, gaps: list[_Gap], wrong: Places, ids: Texts) -> str:
    """How many differ, and by how much at most, of what."""
    import numpy as np

    found = f"{len(wrong):,} of {len(ids):,} examples differ between {gate.evidence} and {gate.same_as}"
    largest = [(float(np.nanmax(gap.sizes[gap.differs])), gap.name) for gap in gaps if _has_size(gap)]
    if not largest:
        return found
    size, name = max(largest)
    return f"{found}, by up to {size:.4g} of {name} where {gate.tolerance:g} is allowed"


def _has_size(gap: _Gap) -> bool:
    import numpy as np

    return bool(np.isfinite(gap.sizes[gap.differs]).any())


def _examples(gaps: list[_Gap], wrong: Places, ids: Texts) -> list[str]:
    """The first examples that differ, each with both values."""
    told = []
    for place in wrong[:NAMED].tolist():
        gap = next(gap for gap in gaps if gap.differs[place])
        told.append(f'id "{shown(ids[place])}": {gap.name} {shown(gap.mine[place])} and {shown(gap.theirs[place])}')
    return told
