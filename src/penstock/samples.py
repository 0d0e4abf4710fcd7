"""Samples: scores of one model or of two, and the interval that suits them.

Arrays of floats, one place per score, higher is better; where a score is better low, hand in its negative. `examples`,
where given, numbers the example of each score, for those that were scored several times.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.errors import ReportError
from penstock.intervals import BELOW_ZERO
from penstock.means import averaged, bootstrap_interval, difference_interval, mean_interval, welch
from penstock.proportions import clopper_pearson, newcombe, normal_quantile, paired_shares, scaled_statistic

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from penstock.intervals import Interval

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]


def is_binary(scores: Floats) -> bool:
    """Whether every score is 0 or 1."""
    return bool(((scores == 0) | (scores == 1)).all())


def level(scores: Floats, confidence: float, examples: Integers | None = None) -> Interval:
    """The mean score behind a sample of one model: exact binomial for 0 and 1, else `mean_interval`.

    Raises ReportError for no scores, a single numeric one, or scores that are not finite.
    """
    if examples is not None:
        return _of_examples(mean_interval(averaged(scores, examples), confidence))
    if is_binary(scores):
        return clopper_pearson(int(scores.sum()), len(scores), confidence)
    return mean_interval(scores, confidence)


def paired_gain(
    new: Floats,
    old: Floats,
    confidence: float,
    examples: Integers | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> Interval:
    """The gain new - scale * old in mean score, both models having scored the same examples in the same order.

    A `scale` other than 1 is what a relative margin asks: with .97 a gain of 0 is a loss of 3 % of the old score.
    Exact counts where all scores are 0 or 1, the scale is 1 and no example is scored twice; else `difference_interval`
    (the seed draws its random signs). With a scale, 0 and 1 are not excluded from 0 unless the score statistic does it
    too: where few differ, one of the two is short on either side. Raises ReportError for unequal lengths, too few
    scores, or some not finite.
    """
    _check_pairs(new, old)
    is_share = examples is None and is_binary(new) and is_binary(old)
    wins, losses = int((new > old).sum()), int((new < old).sum())
    if is_share and scale == 1:
        return paired_shares(wins, losses, len(new), confidence)
    differences = new - scale * old
    if examples is None:
        found = difference_interval(differences, confidence, seed)
        if is_share and scale > 0:
            found = _held(found, scaled_statistic(wins, losses, int((new * old).sum()), len(new), scale))
        return found if scale == 1 else replace(found, discordant=wins + losses)
    return _of_examples(difference_interval(averaged(differences, examples), confidence, seed))


def _held(found: Interval, statistic: float) -> Interval:
    """The interval with 0 inside, where a statistic of so many standard errors does not exclude it."""
    quantile = normal_quantile(found.confidence)
    low = min(found.low, BELOW_ZERO) if statistic < quantile else found.low
    return replace(found, low=low, high=max(found.high, -BELOW_ZERO) if statistic > -quantile else found.high)


def bootstrapped_gain(
    new: Floats,
    old: Floats,
    confidence: float,
    examples: Integers | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> Interval:
    """As `paired_gain`, by the BCa bootstrap over examples; for a second opinion on some thousands of examples."""
    _check_pairs(new, old)
    differences = new - scale * old
    if examples is None:
        return bootstrap_interval(differences, confidence, seed)
    return _of_examples(bootstrap_interval(averaged(differences, examples), confidence, seed))


def unpaired_gain(new: Floats, old: Floats, confidence: float, scale: float = 1.0) -> Interval:
    """The gain new - scale * old in mean score, each model having scored examples of its own.

    Newcombe's interval where all scores are 0 or 1, else Welch's. It needs far more examples than a paired comparison,
    and its `method` says that it is unpaired. Raises ReportError for too few scores, or some that are not finite.
    """
    if is_binary(new) and is_binary(old):
        return newcombe((int(new.sum()), len(new)), (int(old.sum()), len(old)), confidence, scale)
    return welch(new, old, confidence, scale)


def _of_examples(found: Interval) -> Interval:
    return replace(found, method=f"{found.method}, over the means of each example's repeats")


def _check_pairs(new: Floats, old: Floats) -> None:
    if len(new) != len(old):
        raise ReportError(f"there are {len(new)} new and {len(old)} old scores: pair them by id first")
