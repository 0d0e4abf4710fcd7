"""Reuse budgets: one test set, many commits, and still at most α for any false promotion among them.

Who sees verdicts writes the next commit with them in mind; so each further decision on the same test set is given less
of α, or only a step that chance does not make is believed. Decisions are counted over distinct packages: a rerun asks
nothing new.
"""

import math
from dataclasses import dataclass

from penstock.errors import UsageError
from penstock.intervals import risk

TIRED = 10
"""From so many decisions on a fresh test set is recommended: one more needs over twice the examples of the first."""


def share(number: int, alpha: float) -> float:
    """What of α the decision with this number (from 1) may spend: α_k = 6α / π²k², which add up to α.

    Source: the union bound, with Euler's sum. It holds for commits that depend on verdicts before them, if nothing but
    pass or fail was revealed: until the first pass there is only one history. Raises UsageError for numbers below 1.
    """
    if number < 1:
        raise UsageError(f"there is no decision number {number}: count from 1")
    return 6 * alpha / (math.pi * number) ** 2


@dataclass(frozen=True, slots=True)
class Budget:
    """What one test set has been asked: the digests of the packages decided on it, in order, and the risk in all."""

    confidence: float
    packages: tuple[str, ...] = ()

    def asked(self, package: str) -> "Budget":
        """The budget after a decision on a package; the same where it was asked before."""
        return self if package in self.packages else Budget(self.confidence, (*self.packages, package))

    def number(self, package: str) -> int:
        """Which decision on this test set a package's is, from 1."""
        return self.packages.index(package) + 1 if package in self.packages else len(self.packages) + 1

    def confidence_for(self, package: str) -> float:
        """The confidence that a package's decision must reach where the budget is enforced."""
        return 1 - share(self.number(package), risk(self.confidence))

    @property
    def left(self) -> float:
        """What is left of the risk for all decisions to come."""
        alpha = risk(self.confidence)
        return alpha - math.fsum(share(k, alpha) for k in range(1, len(self.packages) + 1))

    def sentence(self, package: str) -> str:
        """As in "decision 14 on this test set; refresh recommended"."""
        number = self.number(package)
        return f"decision {number} on this test set{'; refresh recommended' if number >= TIRED else ''}"


@dataclass(frozen=True, slots=True)
class Ladder:
    """The best score that was believed so far on a test set of n examples, and the step 1/√n that chance may make.

    Source: Blum and Hardt, ICML 2015, with a fixed step. The champion's score starts it.
    """

    best: float
    n: int

    @property
    def step(self) -> float:
        """What a score must exceed the best by: 1/√n, in the unit of scores in [0, 1]. Raises UsageError for n < 1."""
        if self.n < 1:
            raise UsageError(f"a test set of {self.n} examples makes no ladder: add examples")
        return 1 / math.sqrt(self.n)

    def climbs(self, score: float) -> bool:
        """Whether a score is believed to be better."""
        return score > self.best + self.step

    def climbed(self, score: float) -> "Ladder":
        """The ladder after a score: where it climbs, the best is the score rounded to whole steps."""
        return Ladder(round(score / self.step) * self.step, self.n) if self.climbs(score) else self
