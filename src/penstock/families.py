"""Families: many slices or metrics judged at once, so that a lucky or unlucky one among them does not decide.

A family of which all members must pass needs no correction to pass (if one claim is wrong, already that one must slip
through, with at most α; Berger 1982), but to fail, since among many good members one looks bad by chance. Where any
member suffices it is the other way round. Whatever needs it gets Holm's correction.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

from penstock.decisions import Word
from penstock.errors import UsageError

Judge = Callable[[float], Word]
"""The verdict on one member, given the confidence that it must be reached with."""


class Judged(Protocol):
    """What a member was judged to be, with whatever else there is to say of it."""

    @property
    def verdict(self) -> str:
        """A word: pass, fail or inconclusive."""


J = TypeVar("J", bound=Judged)


def holm(chances: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Which hypotheses fall, given the p value of each, with any true one among them at most with chance α.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): the i-th smallest of m against α / (m - i + 1), until one
    stands. It holds however the members depend on each other.
    """
    fallen = [False] * len(chances)
    for rank, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if chances[place] > alpha / (len(chances) - rank):
            break
        fallen[place] = True
    return tuple(fallen)


def stepped_down(shows: Sequence[Callable[[float], bool]], confidence: float) -> tuple[bool, ...]:
    """Holm's correction for members that only say whether they show their claim with a given confidence.

    All are asked with the risk over their number; those that do are taken out, and the others asked again with more
    risk each, until none does. The same result as `holm` on the p values, if more confidence never shows more.
    """
    shown = [False] * len(shows)
    while open_ := [place for place, done in enumerate(shown) if not done]:
        level = 1 - (1 - confidence) / len(open_)
        found = [place for place in open_ if shows[place](level)]
        if not found:
            break
        for place in found:
            shown[place] = True
    return tuple(shown)


def corrected(confidence: float, count: int) -> float:
    """The confidence at which one of so many members is judged that was chosen by looking at all: Bonferroni's.

    What holds for all members at once with a risk of α, each with α/count, holds for whichever is chosen.
    """
    return confidence if count == 1 else 1 - (1 - confidence) / count


def all_of(members: Sequence[Judge], confidence: float) -> tuple[Word, tuple[Word, ...]]:
    """The verdict on a family of which each member must pass, and those of the members.

    A member passes with the confidence itself, and fails with Holm's. Raises UsageError for a family without members.
    """
    failed = stepped_down([_says(judge, "fail") for judge in _some(members)], confidence)
    words: list[Word] = [
        "fail" if bad else ("pass" if judge(confidence) == "pass" else "inconclusive")
        for judge, bad in zip(members, failed, strict=True)
    ]
    whole: Word = "fail" if "fail" in words else ("pass" if set(words) == {"pass"} else "inconclusive")
    return whole, tuple(words)


def any_of(members: Sequence[Judge], confidence: float) -> tuple[Word, tuple[Word, ...]]:
    """The verdict on a family of which one member must pass, and those of the members.

    A member passes with Holm's confidence, and fails with the confidence itself. Raises UsageError for no members.
    """
    passed = stepped_down([_says(judge, "pass") for judge in _some(members)], confidence)
    words: list[Word] = [
        "pass" if good else ("fail" if judge(confidence) == "fail" else "inconclusive")
        for judge, good in zip(members, passed, strict=True)
    ]
    whole: Word = "pass" if "pass" in words else ("fail" if set(words) == {"fail"} else "inconclusive")
    return whole, tuple(words)


Family = Callable[[Sequence[Judge], float], tuple[Word, tuple[Word, ...]]]
"""`all_of` or `any_of`."""


def settled(
    family: Family, members: Sequence[Callable[[float], J]], confidence: float
) -> tuple[Word, list[tuple[Word, J]]]:
    """The verdict on a family, and of each member its word there with the judgement that shows it.

    A member is judged with the confidence itself, and again with Holm's only where that may change something: more
    confidence never makes it fail what did not fail before, nor pass what did not.
    """
    corrected: Word = "fail" if family is all_of else "pass"
    first = [member(confidence) for member in members]
    last = list(first)

    def asked(place: int) -> Judge:
        def judge(level: float) -> Word:
            if level != confidence and first[place].verdict == corrected:
                last[place] = members[place](level)
                return cast("Word", last[place].verdict)
            return cast("Word", first[place].verdict)

        return judge

    whole, words = family([asked(place) for place in range(len(members))], confidence)
    shown = (final if final.verdict == word else plain for word, plain, final in zip(words, first, last, strict=True))
    return whole, list(zip(words, shown, strict=True))


def _says(judge: Judge, word: Word) -> Callable[[float], bool]:
    return lambda confidence: judge(confidence) == word


def _some(members: Sequence[Judge]) -> Sequence[Judge]:
    if not members:
        raise UsageError("a family without members has no verdict: name at least one slice or metric")
    return members


# --- e-values ------------------------------------------------------------------------------------------------------


def averaged(log_evidence: Sequence[float]) -> float:
    """Ln of the mean of e-values, given by their ln: an e-value against "all of them hold", however they depend.

    Source: Vovk and Wang, Annals of Statistics 49 (2021). Raises UsageError for none.
    """
    if not log_evidence:
        raise UsageError("there is no evidence to average: name at least one slice or metric")
    most = max(log_evidence)
    if math.isinf(most):
        return most
    return most + math.log(math.fsum(math.exp(value - most) for value in log_evidence) / len(log_evidence))


def adjusted(log_evidence: Sequence[float]) -> tuple[float, ...]:
    """Ln of the e-value that each member keeps in its family: the least mean of its own with some of the smaller ones.

    A member whose adjusted value is at least ln(1/α) falls; any true one does with chance α at most. Source: Vovk and
    Wang 2021, algorithm 1 (the e-value sister of Holm).
    """
    ascending = sorted(log_evidence)
    return tuple(
        min(averaged([value, *ascending[:count]]) for count in range(_smaller(ascending, value) + 1))
        for value in log_evidence
    )


def _smaller(ascending: Sequence[float], value: float) -> int:
    return sum(other < value for other in ascending)
