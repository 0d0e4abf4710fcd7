"""Wholes: a gate that is made of others, of which all must pass or any.

Members that an interval decides may err, and among many one errs by chance: they get their confidence from
`families.py`, so that the whole errs as rarely as its least sure member promises. Others count by their plain verdict.
What could not be judged never passes, and only decides nothing where the others do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.comparisons import CONFIDENCE
from penstock.decisions import Word
from penstock.families import Family, all_of, any_of, settled
from penstock.gates import Verdict
from penstock.pipelines import Gate

Judge = Callable[[Gate], Verdict]
"""The verdict on one gate that is made of no others."""
Told = Word | Literal["errored"]

_WHOLE = 0.95
"""The confidence that a family is asked with; each member has its own, and gets the same part of its risk."""


def judge_whole(gate: Gate, judge: Judge, part: float = 1.0) -> Verdict:
    """Judge a gate that is made of others; `judge` judges one of these, and is asked more than once.

    `part` is what it may spend of the risk of its members, which are then asked with so much more confidence. Its
    reasons are a summary and a line for each member, by number; it has no value.
    """
    family = all_of if gate.all_of is not None else any_of
    found = _members(gate, judge, family, part)
    words = [member.word for member in found]
    word = _decided(words, decisive="fail" if family is all_of else "pass")
    notes = dict.fromkeys(note for member in found for note in member.notes)
    lines = [line for number, member in enumerate(found, 1) for line in member.lines(str(number))]
    return Verdict(gate.name, word, None, (_summary(gate, words, word), *lines, *notes))


@dataclass(frozen=True, slots=True)
class _Member:
    """A member with what it is in its whole, and the verdict that shows it."""

    gate: Gate
    word: Told
    found: Verdict

    def lines(self, number: str) -> list[str]:
        """The member in a line; below it those of its own members, or what else there is where it did not pass."""
        first, *more = [reason for reason in self.found.reasons if reason not in self.notes]
        if self.gate.is_whole:
            return [f"{number}. {first}", *(f"{number}.{line}" for line in more)]
        about = f"{self.gate.about} {self.gate.rule}"
        return [
            f"{number}. {about}: {self.word} ({first})",
            *(f"{number}: {line}" for line in more if self.word != "pass"),
        ]

    @property
    def notes(self) -> list[str]:
        """What is said of a test set, once for all members that judge it."""
        return [reason for reason in self.found.reasons[1:] if reason.startswith("decision ")]


def _members(gate: Gate, judge: Judge, family: Family, part: float) -> list[_Member]:
    first = [_ask(member, judge, part) for member in gate.members]
    places = [n for n, member in enumerate(gate.members) if may_err(member) and first[n].verdict != "errored"]
    found = [_Member(member, verdict.verdict, verdict) for member, verdict in zip(gate.members, first, strict=True)]
    if not places:
        return found

    def asked(place: int) -> Callable[[float], Verdict]:
        def at(level: float) -> Verdict:
            if level == _WHOLE:
                return first[place]
            return _ask(gate.members[place], judge, part * (1 - level) / (1 - _WHOLE))

        return at

    _, shown = settled(family, [asked(place) for place in places], _WHOLE)
    for place, (word, verdict) in zip(places, shown, strict=True):
        found[place] = _Member(gate.members[place], word, verdict)
    return found


def _ask(member: Gate, judge: Judge, part: float) -> Verdict:
    if member.is_whole:
        return judge_whole(member, judge, part)
    return judge(surer(member, part))


def surer(gate: Gate, part: float) -> Gate:
    """A gate that may spend only a part of its risk; the same where it has none to spend."""
    if part >= 1 or not may_err(gate):
        return gate
    return gate.model_copy(update={"confidence": 1 - part * (1 - (gate.confidence or CONFIDENCE))})


def may_err(gate: Gate) -> bool:
    """Whether chance may turn the verdict on a gate: an interval decides it, or one of its members."""
    if gate.is_whole:
        return any(map(may_err, gate.members))
    return gate.by_interval or gate.confidence is not None or gate.benchmark is not None


def _decided(words: Sequence[Told], decisive: Word) -> Told:
    """One decisive word decides; else what could not be judged does, then what is open."""
    order: tuple[Told, ...] = (decisive, "errored", "inconclusive")
    return next((word for word in order if word in words), "pass" if decisive == "fail" else "fail")


def _summary(gate: Gate, words: Sequence[Told], word: Told) -> str:
    verbs = {"fail": "fail", "errored": "could not be judged", "inconclusive": "undecided", "pass": "pass"}
    counts = Counter[str](words)
    said = ", ".join(f"{counts[one]} {verb}" for one, verb in verbs.items() if counts[one])
    must = "all of" if gate.all_of is not None else "any of"
    return f"{must} {len(words)} must pass: {said}: {word}"
