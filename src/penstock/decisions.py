"""Decisions: a rule and an interval give pass, fail or inconclusive; no data is never success.

A rule claims that a number is above a threshold: a level (`at_least`, `at_most`), or a gain over another model
(`better_than`, `not_worse_than`). It passes where the interval excludes what the claim forbids, fails where it excludes
what the claim allows, and is inconclusive otherwise.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from penstock.errors import UsageError
from penstock.intervals import Interval, risk
from penstock.proportions import clopper_pearson, is_beyond, paired_shares

Kind = Literal["at_least", "at_most", "better_than", "not_worse_than"]
Word = Literal["pass", "fail", "inconclusive"]
Side = Literal["below", "above"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is claimed, and how sure one must be of it.

    `bound` is the level of `at_least` and `at_most`, the gain that `better_than` must exceed, or the margin of loss
    that `not_worse_than` tolerates; in the score's unit, or as a fraction of the other model's score if `relative`.
    Then `lower_is_better` says that scores are negated errors, so that a fraction more of the other's is allowed, not
    less. `indifference` is ε: up to 2ε above the threshold one does not mind a fail, so that enough examples always
    decide. Raises UsageError where that makes no sense.
    """

    kind: Kind
    bound: float = 0.0
    relative: bool = False
    indifference: float = 0.0
    confidence: float = 0.95
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        risk(self.confidence)
        if not math.isfinite(self.bound):
            raise UsageError(f"{self.kind} is {self.bound}: write a finite number")
        if self.paired and self.bound < 0:
            raise UsageError(f"the {self._noun} of {self.kind} is {self.bound}: write 0 or more")
        if self.relative and (not self.paired or self.bound > 1):
            raise UsageError(f"{self.kind} {self.bound} cannot be relative: write an absolute number")
        most = self.bound / 2 if self.kind == "not_worse_than" else math.inf
        if not 0 <= self.indifference <= most or math.isinf(self.indifference):
            hint = f": write at most half the margin, {most:g}" if most < math.inf else ": write 0 or more"
            raise UsageError(f"the indifference of {self.kind} is {self.indifference}{hint}")

    @property
    def _noun(self) -> str:
        return "margin" if self.kind == "not_worse_than" else "gain"

    @property
    def paired(self) -> bool:
        """Whether the rule compares two models."""
        return self.kind in ("better_than", "not_worse_than")

    @property
    def scale(self) -> float:
        """What the other model's score is multiplied with before it is taken off: 1 unless the bound is relative."""
        if not self.relative:
            return 1.0
        less = (self.kind == "not_worse_than") != self.lower_is_better
        return 1 - self.bound if less else 1 + self.bound

    @property
    def threshold(self) -> float:
        """What the number must be above, where `at_most` looks at the number with the other sign."""
        if self.relative:
            return 0.0
        return self.bound if self.kind in ("at_least", "better_than") else -self.bound

    def holds(self, number: float) -> bool:
        """Whether a true number (for `at_most` with its own sign) is as the rule claims."""
        number = -number if self.kind == "at_most" else number
        return number > self.threshold if self.kind == "better_than" else number >= self.threshold

    def is_wrong(self, word: Word, number: float) -> bool:
        """Whether a verdict contradicts a true number; within the indifference none does."""
        if word == "pass":
            return not self.holds(number)
        far = 2 * self.indifference
        return word == "fail" and self.holds(number + far if self.kind == "at_most" else number - far)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on a rule, with the interval as it was handed in.

    `excluded` is the side of the threshold that the interval rules out (None where it rules out neither), `edge` the
    threshold of that side, in the number's own sign. `needed` is about how many examples would decide if all stays as
    it looks; None where it is decided, or no number would.
    """

    verdict: Word
    rule: Rule
    interval: Interval
    excluded: Side | None
    edge: float
    needed: int | None


def decide(rule: Rule, interval: Interval) -> Decision:
    """Hold a rule against an interval of the number that it speaks of.

    The interval is of the level, or of the gain new - rule.scale * old. Passing comes first: what is shown to be above
    the threshold passes, even if it is also within the indifference. Raises UsageError if the interval was made with
    less confidence than the rule asks for.
    """
    if interval.confidence < rule.confidence - 1e-12:
        raise UsageError(f"the interval has confidence {interval.confidence:g}, the rule wants {rule.confidence:g}")
    seen = interval.mirrored() if rule.kind == "at_most" else interval
    forbidden, allowed, sign = _SIDES[rule.kind == "at_most"]
    lower, upper = rule.threshold, rule.threshold + 2 * rule.indifference
    if seen.low > lower or (rule.kind != "better_than" and seen.low == lower):
        return Decision("pass", rule, interval, forbidden, sign * lower, None)
    if seen.high < upper:
        return Decision("fail", rule, interval, allowed, sign * upper, None)
    return Decision("inconclusive", rule, interval, None, sign * lower, _needed(seen, lower, upper))


def flipped(rule: Rule, wins: int, losses: int, n: int, confidence: float) -> Word:
    """The verdict on two models with scores of 0 and 1, as from `paired_shares`, without looking for its bounds.

    `wins` and `losses` count the examples that only the new or only the other model has right, of n.
    """
    if is_beyond(wins, losses, n, rule.threshold, confidence):
        return "pass"
    most = rule.threshold + 2 * rule.indifference
    return "fail" if is_beyond(losses, wins, n, -most, confidence) else "inconclusive"


_SIDES: Mapping[bool, tuple[Side, Side, int]] = {False: ("below", "above", 1), True: ("above", "below", -1)}


def _needed(seen: Interval, threshold: float, upper: float) -> int | None:
    """Examples at which one bound leaves the threshold, if the estimate stays and bounds shrink as 1/√n."""
    ways = [(seen.estimate - seen.low, seen.estimate - threshold), (seen.high - seen.estimate, upper - seen.estimate)]
    sizes = [seen.n * (width / distance) ** 2 for width, distance in ways if distance > 1e-12]
    finite = [size for size in sizes if size < 1e12]
    return max(math.ceil(min(finite)), seen.n + 1) if finite else None


def sentence(decision: Decision) -> str:
    """What was found, in one sentence: estimate, bounds, what they exclude or do not, and what would decide.

    As in "a gain of -0.0083 on 360 examples; -0.0232 to 0.0056 does not exclude a loss of 0.01: inconclusive; about
    2100 examples would decide".
    """
    found = decision.interval
    what = f"a {'gain' if decision.rule.paired else 'level'} of {found.estimate:.4f} on {found.n} examples"
    does = "excludes" if decision.excluded else "does not exclude"
    tail = f"; about {decision.needed} examples would decide" if decision.needed else ""
    return f"{what}; {found.low:.4f} to {found.high:.4f} {does} {_side(decision)}: {decision.verdict}{tail}"


def _side(decision: Decision) -> str:
    """The side of the threshold that is excluded, or that a pass would have excluded."""
    side = decision.excluded or _SIDES[decision.rule.kind == "at_most"][0]
    edge = decision.edge
    if not decision.rule.paired:
        return f"a level {side} {edge:g}"
    if edge == 0:
        return "a loss" if side == "below" else "a gain"
    noun, beyond = ("loss", "below") if edge < 0 else ("gain", "above")
    return f"a {noun} of {abs(edge):g} or {'more' if side == beyond else 'less'}"


# --- test sets that can never decide -------------------------------------------------------------------------------


def least_examples(rule: Rule) -> int | None:
    """The fewest examples with scores of 0 and 1 on which the best result to be hoped for passes; None if none does.

    The best is all right for a level, no disagreement at all for `not_worse_than`, nothing but wins for `better_than`.
    """
    if rule.relative:
        return 2
    return first_count(lambda n: decide(rule, _best(rule, n)).verdict == "pass")


def _best(rule: Rule, n: int) -> Interval:
    if rule.kind == "not_worse_than":
        return paired_shares(0, 0, n, rule.confidence)
    if rule.kind == "better_than":
        return paired_shares(n, 0, n, rule.confidence)
    return clopper_pearson(n if rule.kind == "at_least" else 0, n, rule.confidence)


def first_count(holds: Callable[[int], bool], most: int = 1 << 24) -> int | None:
    """The smallest count from which on a statement holds, found by doubling and halving; None if not up to `most`."""
    high = 1
    while not holds(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def refusal(rule: Rule, n: int) -> str | None:
    """Why a test set of n examples with scores of 0 and 1 can never pass a rule, in one sentence; None if it can."""
    least = least_examples(rule)
    said = f"{rule.kind} {rule.bound:g} at confidence {rule.confidence:g}"
    if least is None:
        return f"{said} cannot be shown with any number of examples: ask for less"
    if n < least:
        return f"{n} examples can never show {said}: it takes {least} at least, even if all of them agree"
    return None
