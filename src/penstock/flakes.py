"""Tests that disagree with themselves: flip rates on unchanged inputs, and how long tests take.

Two results of a test that ran on the same inputs one after the other are a *pair*; one that passed and one that did
not are a *flip*. A steady test never flips: what fails fails again. A pass after a retry is weak evidence, for the
second attempt meets the machine as the first one left it, so that such a pair counts half.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from penstock.reports import Status

PRIOR = (0.2, 19.8)
"""The Beta prior of a flip rate: 1 % on average, which twenty pairs outweigh."""

THRESHOLD = 0.03
"""A flip rate that is worth a label."""

SURE = 0.95
"""How sure the label is that the rate lies above the threshold."""

STRAY = 2.0
"""Flips that one stray failure makes, between two passes; so many never prove a rate above the threshold."""

RETRY_WEIGHT = 0.5
"""What a pair of attempts of one run counts, beside pairs of different runs."""

LAST = 5
"""Durations of so many results make the usual one."""

RED: frozenset[str] = frozenset({"failed", "errored"})


@dataclass(frozen=True, slots=True)
class Observation:
    """One result of a test. `inputs` names all that the test ran on: equal names are equal inputs.

    `run` and `attempt` say when; `seconds` how long it took.
    """

    run: int
    attempt: int
    inputs: str
    status: Status
    seconds: float


@dataclass(frozen=True, slots=True)
class Flakiness:
    """What a test's pairs say: `flips` of `pairs`, of which `retried` flips came between two attempts of one run.

    `weighed` flips of `weight` pairs are these with what each counts.
    """

    flips: int
    pairs: int
    retried: int
    weighed: float
    weight: float

    @property
    def estimate(self) -> float:
        """The mean of the flip rate's posterior: Beta(a + flips, b + pairs - flips) with a prior Beta(a, b)."""
        return (PRIOR[0] + self.weighed) / (sum(PRIOR) + self.weight)

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds of the rate: 5 % lie below, 5 % above."""
        from scipy.special import betaincinv  # noqa: PLC0415 (start-up time is a promise)

        a, b = PRIOR[0] + self.weighed, PRIOR[1] + self.weight - self.weighed
        return float(betaincinv(a, b, 1 - SURE)), float(betaincinv(a, b, SURE))

    @property
    def is_flaky(self) -> bool:
        return self.weighed > STRAY and self.interval[0] > THRESHOLD

    @property
    def sentence(self) -> str:
        """The figures in words."""
        rate, low, high = (f"{100 * share:.0f}" for share in (self.estimate, *self.interval))
        retried = f", {self.retried} of them in a retry" if self.retried else ""
        return (
            f"disagreed with itself {self.flips} of {self.pairs} times on unchanged inputs{retried}: "
            f"flip rate {rate} %, 90 % interval {low} to {high} %"
        )


def flakiness(observations: Sequence[Observation]) -> Flakiness:
    """The flip rate of one test, from its results in the order in which they came."""
    flips = retried = pairs = 0
    weight = weighed = 0.0
    for before, after in _pairs(observations):
        is_retry = before.run == after.run
        is_flip = (before.status in RED) != (after.status in RED)
        share = RETRY_WEIGHT if is_retry else 1.0
        pairs += 1
        flips += is_flip
        retried += is_flip and is_retry
        weight += share
        weighed += share * is_flip
    return Flakiness(flips, pairs, retried, weighed, weight)


def _pairs(observations: Iterable[Observation]) -> Iterable[tuple[Observation, Observation]]:
    """Results that follow one another on the same inputs; a skipped test says nothing."""
    last: dict[str, Observation] = {}
    for found in observations:
        if found.status == "skipped":
            continue
        if found.inputs in last:
            yield last[found.inputs], found
        last[found.inputs] = found


def usual_seconds(observations: Sequence[Observation]) -> float | None:
    """How long a test usually takes: the median of its last five results; None where it never ran."""
    taken = [found.seconds for found in observations if found.status != "skipped"][-LAST:]
    return median(taken) if taken else None


def red_since(observations: Sequence[Observation]) -> int | None:
    """The run since which a test is red without a green result between; None where its last result is not red."""
    since = None
    for found in reversed(observations):
        if found.status not in RED:
            break
        since = found.run
    return since
