"""Numeric scores: intervals of a mean, and of a difference of means, from arrays of independent values.

A paired comparison is the mean of its differences. Where an example was scored several times (seeds, repeats), the
example is what is independent: `averaged` makes one value of its repeats first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from penstock.errors import ReportError
from penstock.intervals import BELOW_ZERO, Interval, risk

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

FEW = 200
"""Up to so many differences that are not 0, a claim that the mean is not 0 must also stand up to random signs."""
VERY_FEW = 15
"""Below so many, bounds reckon with one more."""
RESAMPLES = 2000
_LARGEST = 1e150
_ROOM = 4_000_000
"""Numbers that a bootstrap holds at once: 32 MB."""


def averaged(values: Floats, examples: Integers) -> Floats:
    """The mean per example, in the order of their numbers: the values of one example bear one number.

    `values` and `examples` are of equal length; numbers that no value bears are left out. So an example weighs the same
    however often it was scored, and repeats of it are not taken for new examples.
    """
    import numpy as np

    counts = np.bincount(examples)
    sums = np.bincount(examples, weights=values)
    result: Floats = sums[counts > 0] / counts[counts > 0]
    return result


def mean_interval(values: Floats, confidence: float) -> Interval:
    """The mean behind at least two values, in their unit: the wider, on each side, of Student's t and Hall's bound.

    Student's t is right for what is symmetric, however heavy its tails; Hall's cubic transformation takes the skewness
    out, where t is too short on one side. Source: Hall, JRSS B 54 (1992). Raises ReportError for fewer values, or
    values that are not finite.
    """
    from scipy.special import stdtrit

    _check(values)
    alpha, n = risk(confidence), len(values)
    center, error, skewness = _moments(values)
    quantile = float(stdtrit(n - 1, 1 - alpha))
    above = max(quantile, _unskewed(quantile, skewness, n))
    below = min(-quantile, _unskewed(-quantile, skewness, n))
    method = "mean, Student's t with Hall's correction for skewness"
    return Interval(center, center - above * error, center - below * error, n, None, method, confidence)


def _moments(values: Floats) -> tuple[float, float, float]:
    """Mean, its standard error, and the skewness of the values (0 where all are the same)."""
    import numpy as np

    center = float(values.mean())
    distances = values - center
    reach = float(np.abs(distances).max())
    if reach <= 1e-12 * abs(center):
        return center, 0.0, 0.0
    distances /= reach
    squares = distances * distances
    spread = float(squares.mean())
    skewness = float(squares @ distances) / len(values) / spread**1.5
    return center, reach * math.sqrt(spread / (len(values) - 1)), skewness


def _unskewed(quantile: float, skewness: float, n: int) -> float:
    """The quantile of the studentised mean of skewed values, from that of symmetric ones: Hall's inverse."""
    pull = skewness / math.sqrt(n)
    if abs(pull) < 1e-9:
        return quantile
    inner = 1 + pull * (quantile - pull / 6)
    return 3 / pull * (math.cbrt(inner) - 1)


def difference_interval(differences: Floats, confidence: float, seed: int = 0) -> Interval:
    """The mean of paired differences, in their unit, by `mean_interval`, with two cautions where few are not 0.

    Up to 200 of them, 0 is excluded only if at most 1 - confidence of 2,000 random choices of their signs, drawn from
    the seed, give as large a mean: that is exact for models that are equal in law. Below 15, each bound also reckons
    with one more difference, unseen so far, as large as the largest: no law of large numbers has begun there. Source:
    Fisher's randomisation, with the count of Phipson and Smyth (2010). Raises ReportError for fewer than two
    differences, or some that are not finite.
    """
    import numpy as np

    found = mean_interval(differences, confidence)
    moved = differences[differences != 0]
    alpha = risk(confidence)
    low, high = found.low, found.high
    if 0 < len(moved) < VERY_FEW:
        largest = float(np.abs(moved).max())
        low = min(low, mean_interval(np.append(differences, -largest), confidence).low)
        high = max(high, mean_interval(np.append(differences, largest), confidence).high)
    if 0 < len(moved) <= FEW:
        low = BELOW_ZERO if low >= 0 and _by_signs(moved, seed) > alpha else low
        high = -BELOW_ZERO if high <= 0 and _by_signs(-moved, seed) > alpha else high
    return Interval(found.estimate, low, high, found.n, len(moved), f"paired {found.method}", confidence)


def _by_signs(moved: Floats, seed: int) -> float:
    """How many of all choices of signs give at least so large a sum, counting the observed one."""
    import numpy as np

    signs = np.random.default_rng(seed).integers(0, 2, (RESAMPLES, len(moved)), np.int8) * 2.0 - 1
    reached = int((signs @ moved >= moved.sum() - 1e-9 * np.abs(moved).sum()).sum())
    return (reached + 1) / (RESAMPLES + 1)


def bootstrap_interval(values: Floats, confidence: float, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean behind at least two values, in their unit, by the bias-corrected and accelerated bootstrap (BCa).

    The resamples are drawn from the seed, so the same values give the same bounds. It takes len(values) × resamples
    steps and 64 MB. Source: Efron, JASA 82 (1987). Raises ReportError for fewer values, or some that are not finite.
    """
    import numpy as np

    _check(values)
    alpha = risk(confidence)
    center = float(values.mean())
    means = _resampled(values, seed, resamples)
    chances = [_adjusted(chance, values, means) for chance in (alpha, 1 - alpha)]
    low, high = (float(bound) for bound in np.quantile(means, chances))
    return Interval(center, low, high, len(values), None, f"mean, BCa bootstrap of {resamples}", confidence)


def _resampled(values: Floats, seed: int, resamples: int) -> Floats:
    """The means of as many samples of the same size, drawn with replacement."""
    import numpy as np

    draw, n = np.random.default_rng(seed), len(values)
    at_once = max(1, _ROOM // n)
    blocks = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([values[draw.integers(0, n, (rows, n), np.int32)].mean(axis=1) for rows in blocks])


def _adjusted(chance: float, values: Floats, means: Floats) -> float:
    """The chance at which BCa reads the resampled means for a bound of the wanted chance."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    center, _, skewness = _moments(values)
    below = float(((means < center).sum() + (means == center).sum() / 2) / len(means))
    bias = float(ndtri(min(max(below, 1 / len(means)), 1 - 1 / len(means))))
    acceleration = skewness / (6 * math.sqrt(len(values)))
    step = bias + float(ndtri(chance))
    return float(np.clip(ndtr(bias + step / (1 - acceleration * step)), 0.0, 1.0))


def welch(new: Floats, old: Floats, confidence: float, scale: float = 1.0) -> Interval:
    """The gain new - scale * old in mean, each model with at least two examples of its own, in the scores' unit.

    Source: Welch, Biometrika 34 (1947), with Satterthwaite's degrees of freedom. Raises ReportError for fewer values,
    or values that are not finite.
    """
    from scipy.special import stdtrit

    _check(new)
    _check(old)
    (mine, my_error, _), (theirs, their_error, _) = _moments(new), _moments(old)
    parts = (my_error**2, (scale * their_error) ** 2)
    whole = sum(parts)
    weights = (parts[0] ** 2 / (len(new) - 1)) + (parts[1] ** 2 / (len(old) - 1))
    freedom = whole**2 / weights if weights > 0 else 1.0
    half = float(stdtrit(freedom, 1 - risk(confidence))) * math.sqrt(whole)
    gain = mine - scale * theirs
    n = min(len(new), len(old))
    return Interval(gain, gain - half, gain + half, n, None, "unpaired means, Welch's t", confidence)


def _check(values: Floats) -> None:
    import numpy as np

    if len(values) < 2:
        raise ReportError(f"there are {len(values)} examples, and a mean with bounds needs two at least: add examples")
    sound = np.abs(values) <= _LARGEST
    if not bool(sound.all()):
        row = int(np.argmin(sound))
        raise ReportError(f"the score of example number {row + 1} is {values[row]:g}: write finite numbers to 1e150")
