"""Intervals: what a sample lets one say about the number behind it, and with which method.

Each bound stands by itself: with `confidence` .95 the number is below `low` in at most 5 % of samples, and above `high`
in at most 5 %. So a rule looks at one bound only, and both together hold with 90 %.
"""

from dataclasses import dataclass, replace

from penstock.errors import UsageError


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds, in the unit of the score.

    `n` counts independent examples, `discordant` those on which the two models differ (None where nothing is paired).
    """

    estimate: float
    low: float
    high: float
    n: int
    discordant: int | None
    method: str
    confidence: float

    def mirrored(self) -> "Interval":
        """The interval of the number with the other sign."""
        return replace(self, estimate=-self.estimate, low=-self.high, high=-self.low)


BELOW_ZERO = -5e-324
"""The largest number below 0: the lower bound of an interval that has 0 inside, so that no loss is excluded by it."""


def risk(confidence: float) -> float:
    """The chance of error that a confidence leaves to one bound. Raises UsageError unless it is within ]0.5, 1[."""
    if not 0.5 < confidence < 1:
        raise UsageError(f"the confidence is {confidence}: write a number above 0.5 and below 1, such as 0.95")
    return 1 - confidence
