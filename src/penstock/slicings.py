"""Slices: a rule that must hold in each slice of the evidence, or in the one that looks worst.

Each value of a column is a slice, so an example belongs to one slice of each column. Many slices are looked at, and
some look bad by chance: where each is judged, a fail needs Holm's correction (a pass needs none, see `families.py`);
where the worst is judged, its bounds are as wide as if all had been.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.columns import shown
from penstock.errors import ReportError
from penstock.families import all_of, corrected, settled
from penstock.gates import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.decisions import Word
    from penstock.evidence import Slices
    from penstock.pipelines import Gate
    from penstock.rules import Slicing
    from penstock.texts import Places

TOLD = 3
"""So many slices are told of with their numbers, the deciding ones first."""
_NAMED = 5
_RANKS = ("fail", "inconclusive", "pass")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a gate says of some examples, given by their places.

    `judge` gives the verdict on them at a confidence, with a chart where an interval decides; `word` gives its word
    alone, which may be quicker; `distance` is how far they seem to be on the wrong side of the rule, more is worse.
    """

    judge: Callable[[Places | slice, float], Verdict]
    word: Callable[[Places, float], str]
    distance: Callable[[Places], float]


@dataclass(frozen=True, slots=True)
class Slice:
    """One value of one column, as in `digit=3`, and the places of its examples."""

    name: str
    places: Places

    @property
    def n(self) -> int:
        return len(self.places)


def judge_slices(gate: Gate, slices: Sequence[Slices], claim: Claim, confidence: float) -> Verdict:
    """Judge a gate's rule in the slices of some columns, in each or in the worst; its value and chart are the worst's.

    Slices of fewer than `min_examples` are left out before anything is looked at, and told.
    """
    slicing = _slicing(gate)
    kept, small = divided(slices, slicing.min_examples)
    by = f"by {' and '.join(slicing.by)}"
    if not kept:
        reason = f"no slice {by} has {slicing.min_examples:,} examples: lower min_examples, or add examples"
        return Verdict(gate.name, "inconclusive", None, (reason,))
    judge = _each if slicing.judge == "each" else _worst
    found = judge(gate, by, kept, claim, confidence)
    return replace(found, reasons=(*found.reasons, *_left_out(small, slicing.min_examples)))


def _slicing(gate: Gate) -> Slicing:
    if gate.slices is None:
        raise AssertionError(f"gate {gate.name} has no slices")
    return gate.slices


def divided(slices: Sequence[Slices], min_examples: int) -> tuple[list[Slice], list[Slice]]:
    """The slices of all columns that have so many examples, and those that have fewer."""
    found = [
        Slice(f"{division.name}={shown(label.encode())}", places)
        for division in slices
        for label, places in division.members()
    ]
    return [one for one in found if one.n >= min_examples], [one for one in found if one.n < min_examples]


def _each(gate: Gate, by: str, kept: Sequence[Slice], claim: Claim, confidence: float) -> Verdict:
    whole, rows = _ranked(kept, [_word(claim, one) for one in kept], claim, confidence)
    shown = [(word, one, _judge(gate, claim, one)(found.confidence)) for word, one, found in rows[:TOLD]]
    if any(
        word != found.verdict for word, _, found in shown
    ):  # a bound that is only known to some digits is at the edge
        return _each(gate, by, kept, replace(claim, word=lambda *asked: claim.judge(*asked).verdict), confidence)
    counts, others = (Counter[str](word for word, _, _ in part) for part in (rows, rows[TOLD:]))
    summary = f"of {len(rows):,} slices {by} {_counted(counts)}: {whole}"
    if whole == "pass":
        summary = f"all {len(rows):,} slices {by} pass" if len(rows) > 1 else f"the one slice {by} passes"
    told = [f"{one.name}: {found.reasons[0]}" for _, one, found in shown]
    more = [f"of the {others.total():,} other slices {_counted(others)}"] if others else []
    named = [_named(one, found) for _, one, found in shown]
    first = next((found for found in named if found.chart is not None), named[0])
    return replace(first, verdict=whole, reasons=(summary, *told, *more))


@dataclass(frozen=True, slots=True)
class _Said:
    """A slice's verdict in a word, and the confidence at which it was reached."""

    verdict: str
    confidence: float


def _ranked(
    kept: Sequence[Slice], members: Sequence[Callable[[float], _Said]], claim: Claim, confidence: float
) -> tuple[Word, list[tuple[Word, Slice, _Said]]]:
    """The verdict on all slices, and each of them with its word among these, what decides first, then what is worst."""
    whole, found = settled(all_of, members, confidence)
    rows = [(word, one, said) for one, (word, said) in zip(kept, found, strict=True)]
    return whole, sorted(rows, key=lambda row: (_RANKS.index(row[0]), -claim.distance(row[1].places)))


def _word(claim: Claim, one: Slice) -> Callable[[float], _Said]:
    def said(confidence: float) -> _Said:
        try:
            return _Said(claim.word(one.places, confidence), confidence)
        except ReportError:
            return _Said("inconclusive", confidence)

    return said


def _worst(gate: Gate, by: str, kept: Sequence[Slice], claim: Claim, confidence: float) -> Verdict:
    """The slice that looks worst, with the risk divided by the number of slices that it was chosen from.

    Bounds that each hold with 1 - α/K hold for all K slices at once with 1 - α, whatever they depend on, and so for
    the one that was chosen, by whatever way (Bonferroni): its verdict contradicts its own truth with α at most.
    """
    ordered = sorted(kept, key=lambda one: -claim.distance(one.places))
    found = _judge(gate, claim, ordered[0])(corrected(confidence, len(kept)))
    wider = ", chosen by looking at all, so its bounds are wider" if found.chart is not None and len(kept) > 1 else ""
    summary = f"the worst of {len(kept):,} slices {by} is {ordered[0].name}{wider}: {found.verdict}"
    return replace(_named(ordered[0], found), reasons=(summary, f"{ordered[0].name}: {found.reasons[0]}"))


def _judge(gate: Gate, claim: Claim, one: Slice) -> Callable[[float], Verdict]:
    def judged(confidence: float) -> Verdict:
        try:
            return claim.judge(one.places, confidence)
        except ReportError as error:
            return Verdict(gate.name, "inconclusive", None, (str(error),))

    return judged


def _named(one: Slice, found: Verdict) -> Verdict:
    return found if found.chart is None else replace(found, chart=replace(found.chart, slice_of=one.name))


def _counted(words: Counter[str]) -> str:
    """As in "1 fails, 2 are inconclusive, 7 pass"."""
    verbs = {
        "fail": ("fails", "fail"),
        "inconclusive": ("is inconclusive", "are inconclusive"),
        "pass": ("passes", "pass"),
    }
    return ", ".join(f"{n:,} {verbs[word][n > 1]}" for word in verbs if (n := words[word]))


def _left_out(small: Sequence[Slice], min_examples: int) -> list[str]:
    if not small:
        return []
    named = [f"{one.name} ({one.n:,})" for one in small[:_NAMED]]
    rest = f" and {len(small) - _NAMED:,} more" if len(small) > _NAMED else ""
    return [f"left out, with fewer than {min_examples:,} examples: {', '.join(named)}{rest}"]
