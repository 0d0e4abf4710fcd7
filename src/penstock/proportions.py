"""Scores of 0 and 1: intervals of a share, of a difference of paired shares, and of a difference of independent ones.

Everything here takes counts, so a million examples cost as little as ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.errors import ReportError
from penstock.intervals import BELOW_ZERO, Interval, risk

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

FEW = 100
"""Up to so many discordant examples tails are counted out; above, the score statistic is as good."""
EXCESS = 1.4
"""A mid-P tail may stand for an exact tail of at most so many times the risk."""
_STEPS = 50
_TAILS = 16
"""Halvings for a bound: to 1e-15 by a statistic, to a ten thousandth of its distance where tails are counted out."""


# --- one share -----------------------------------------------------------------------------------------------------


def clopper_pearson(right: int, n: int, confidence: float) -> Interval:
    """The share behind `right` of `n` examples; each bound errs with at most 1 - confidence, whatever the share is.

    Source: Clopper and Pearson, Biometrika 26 (1934), by quantiles of the beta distribution. Raises ReportError for
    counts that cannot be.
    """
    from scipy.special import betaincinv

    alpha = risk(confidence)
    _check(right, 0, n)
    low = float(betaincinv(right, n - right + 1, alpha)) if right else 0.0
    high = float(betaincinv(right + 1, n - right, 1 - alpha)) if right < n else 1.0
    return Interval(right / n, low, high, n, None, "exact binomial (Clopper-Pearson)", confidence)


def wilson(right: int, n: int, confidence: float) -> Interval:
    """The share behind `right` of `n` examples by the score test: right on average, shorter than the exact interval.

    Source: Wilson, JASA 22 (1927). Raises ReportError for counts that cannot be.
    """
    z = normal_quantile(1 - risk(confidence))
    _check(right, 0, n)
    share, weight = right / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    low, high = (middle - half if right else 0.0), (middle + half if right < n else 1.0)
    return Interval(share, low, high, n, None, "score (Wilson)", confidence)


# --- two shares of the same examples -------------------------------------------------------------------------------


def paired_shares(wins: int, losses: int, n: int, confidence: float) -> Interval:
    """The gain in share from counts of discordant pairs: `wins` only the new model has right, `losses` only the old.

    Up to 100 discordant pairs the bounds are where the mid-P tail of the score statistic, counted out at the most
    likely disagreement, reaches 1 - confidence (the full tail stays below 1.4 times that); above, where the score
    statistic itself does. 0 is excluded only where McNemar's mid-P test excludes it. Sources: Tango, Statistics in
    Medicine 17 (1998); Lloyd, Biometrics 64 (2008), for the estimated tail; Fagerland, Lydersen and Laake, BMC Medical
    Research Methodology 13 (2013), for mid-P. Raises ReportError for counts that cannot be.
    """
    alpha = risk(confidence)
    _check(wins, losses, n)
    low = _lower(wins, losses, n, alpha)
    high = -_lower(losses, wins, n, alpha)
    few = wins + losses <= FEW
    method = "paired shares, " + ("mid-P of the score statistic" if few else "score statistic (Tango)")
    return Interval((wins - losses) / n, low, high, n, wins + losses, method, confidence)


def tango(wins: int, losses: int, n: int, confidence: float) -> Interval:
    """The gain in share of paired examples by the score statistic alone. Source: Tango 1998. Raises ReportError."""
    z = normal_quantile(1 - risk(confidence))
    _check(wins, losses, n)
    low, high = _tango_lower(wins, losses, n, z), -_tango_lower(losses, wins, n, z)
    return Interval((wins - losses) / n, low, high, n, wins + losses, "score statistic (Tango)", confidence)


def mcnemar(wins: int, losses: int) -> float:
    """The mid-P chance of at least so many wins among the discordant pairs when both models are equally good.

    Source: Lancaster, JASA 56 (1961). 1 where nothing is discordant.
    """
    from scipy.special import bdtr

    whole = wins + losses
    if whole == 0:
        return 1.0
    return float((bdtr(losses, whole, 0.5) + (bdtr(losses - 1, whole, 0.5) if losses else 0.0)) / 2)


def is_beyond(wins: int, losses: int, n: int, gain: float, confidence: float) -> bool:
    """Whether the lower bound of `paired_shares` is above `gain`, without looking for the bound."""
    alpha = risk(confidence)
    if gain >= 0 and mcnemar(wins, losses) > alpha:
        return False
    if wins + losses <= FEW:
        return score_tail(wins, losses, n, gain) <= alpha
    return score_statistic(wins, losses, n, gain) >= normal_quantile(1 - alpha)


def score_tail(wins: int, losses: int, n: int, gain: float) -> float:
    """How surprising so good a result is if the true gain in share is `gain`, in [-1, 1]: a p value.

    The larger of the mid-P tail and of the full tail over 1.4, at the most likely disagreement that has this gain.
    """
    import numpy as np
    from scipy.special import bdtrc

    lost = _likely_losses(float(wins), float(losses), n, gain)
    won = min(max(lost + gain, 0.0), 1.0)
    share = min(won / (1 - lost), 1.0) if lost < 1 else 0.0
    others = np.arange(_reach(n, lost) + 1.0)
    wanted = score_statistic(wins, losses, n, gain) - 1e-9
    least = _least_wins(others, _reach(n, won), n, gain, wanted)
    chances = np.exp(log_binomial(others, n, lost))
    beyond = np.where(least > 0, bdtrc(np.maximum(least - 1, 0), n - others.astype(np.int64), share), 1.0)
    full = float((chances * beyond).sum())
    own = float(np.exp(log_binomial(losses, n, lost) + log_binomial(wins, n - losses, share)))
    return max(full - own / 2, full / EXCESS)


def score_statistic(wins: float, losses: float, n: int, gain: float) -> float:
    """Tango's statistic: the distance of the observed gain from `gain`, in standard errors under it."""
    distance = wins - losses - n * gain
    variance = n * (2 * _likely_losses(wins, losses, n, gain) + gain * (1 - gain))
    if variance > 1e-12:
        return distance / math.sqrt(variance)
    return 0.0 if abs(distance) < 1e-12 else math.copysign(math.inf, distance)


def _likely_losses(wins: float, losses: float, n: int, gain: float) -> float:
    """The most likely chance of a loss among all results with this gain: the root of Tango's quadratic."""
    middle = (2 * n - wins + losses) * gain - wins - losses
    root = math.sqrt(max(middle * middle + 8 * n * losses * gain * (1 - gain), 0.0))
    return min(max((root - middle) / (4 * n), -gain, 0.0), 1.0)


def scaled_statistic(wins: int, losses: int, both: int, n: int, scale: float) -> float:
    """How far the new share is above `scale` times the old one, in standard errors as if it were exactly that.

    `both` counts the examples that both models have right, of n; `wins` and `losses` those that only one has. Source:
    Nam and Blackwelder, Statistics in Medicine 21 (2002), with the most likely chances by Lagrange's multiplier.
    """
    distance = both + wins - scale * (both + losses)
    variance = n * scale * sum(_likely_flips(wins, losses, both, n, scale))
    if variance > 1e-12:
        return distance / math.sqrt(variance)
    return 0.0 if abs(distance) < 1e-12 else math.copysign(math.inf, distance)


def _likely_flips(wins: int, losses: int, both: int, n: int, scale: float) -> tuple[float, float]:
    """The most likely chances of a win and of a loss among all results in which new is scale * old.

    Each count x with weight c (1 for a win, -scale for a loss, 1 - scale for both) has the chance x / (n (1 + cm)),
    where m is the root of a quadratic; it is at its end where a count is 0, whose chance then follows from the others.
    """
    least, most, rest = -1.0, 1 / scale, 1 - scale
    a, b, c = both * rest, float(wins), losses * scale
    m = _root(-a * scale - b * scale * rest - c * rest, a * rest + b * (1 - 2 * scale) - c * (2 - scale), a + b - c)
    m = min(max(m, least), most)
    right = both / (n * (1 + m * rest)) if both else 0.0
    won = wins / (n * (1 + m)) if wins and m > least else 0.0
    lost = losses / (n * (1 - m * scale)) if losses and m < most else 0.0
    off = right + won - scale * (right + lost)
    return won + max(-off, 0.0), lost + max(off, 0.0) / scale


def _root(a: float, b: float, c: float) -> float:
    """The root of ax² + bx + c with the sign of c that is nearest to 0; 0 where there is none."""
    if abs(a) < 1e-12:
        return -c / b if b else 0.0
    reach = math.sqrt(max(b * b - 4 * a * c, 0.0))
    found = [root for root in ((-b + reach) / (2 * a), (-b - reach) / (2 * a)) if root * c > 0]
    return min(found, key=abs, default=0.0)


def _reach(n: int, share: float) -> int:
    """A count that is as good as never exceeded, where each of n counts with this chance."""
    return min(n, math.ceil(n * share + 9 * math.sqrt(n * share * (1 - share)) + 30))


def _least_wins(losses: Floats, most: int, n: int, gain: float, wanted: float) -> Floats:
    """For each count of losses the least count of wins with a statistic of at least `wanted`; one more than there can
    be, or than `most`, where none has.
    """
    import numpy as np

    low, high = np.full(len(losses), -1.0), np.minimum(n - losses, most) + 1
    for _ in range(math.ceil(math.log2(most + 2)) + 1):
        middle = np.floor((low + high) / 2)
        enough = _statistics(middle, losses, n, gain) >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        low = np.minimum(low, high - 1)
    return high


def _statistics(wins: Floats, losses: Floats, n: int, gain: float) -> Floats:
    """`score_statistic` of many counts at once."""
    import numpy as np

    middle = (2 * n - wins + losses) * gain - wins - losses
    root = np.sqrt(np.maximum(middle * middle + 8 * n * losses * gain * (1 - gain), 0.0))
    lost = np.clip((root - middle) / (4 * n), max(-gain, 0.0), 1.0)
    spread = np.sqrt(np.maximum(n * (2 * lost + gain * (1 - gain)), 1e-12))
    result: Floats = (wins - losses - n * gain) / spread
    return result


def _lower(wins: int, losses: int, n: int, alpha: float) -> float:
    z = normal_quantile(1 - alpha)
    low = _tango_lower(wins, losses, n, z)
    if wins + losses <= FEW:
        start = _tango_lower(wins, losses, n, z + 2)
        low = _last(lambda gain: score_tail(wins, losses, n, gain) <= alpha, start, (wins - losses) / n, _TAILS)
    return min(low, BELOW_ZERO) if mcnemar(wins, losses) > alpha else low


def _tango_lower(wins: int, losses: int, n: int, z: float) -> float:
    return _last(lambda gain: score_statistic(wins, losses, n, gain) >= z, -1.0, (wins - losses) / n, _STEPS)


def _last(holds: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """Where, going up from `low`, a statement ceases to hold; `low` if it does not hold there."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


# --- two shares of different examples ------------------------------------------------------------------------------


def newcombe(new: tuple[int, int], old: tuple[int, int], confidence: float, scale: float = 1.0) -> Interval:
    """The gain new - scale * old in share, each model with examples of its own, given as (right, n).

    Source: Newcombe, Statistics in Medicine 17 (1998), method 10: the distances of two Wilson bounds, squared and
    added. Raises ReportError for counts that cannot be.
    """
    mine, theirs = wilson(*new, confidence), wilson(*old, confidence)
    gain = mine.estimate - scale * theirs.estimate
    low = gain - math.hypot(mine.estimate - mine.low, scale * (theirs.high - theirs.estimate))
    high = gain + math.hypot(mine.high - mine.estimate, scale * (theirs.estimate - theirs.low))
    n = min(mine.n, theirs.n)
    return Interval(gain, low, high, n, None, "unpaired shares, score (Newcombe)", confidence)


# --- shared by the above -------------------------------------------------------------------------------------------


def normal_quantile(chance: float) -> float:
    """The point below which a standard normal number falls with this chance."""
    from scipy.special import ndtri

    return float(ndtri(chance))


def log_binomial(k: float | Floats | Integers, n: float, share: float) -> Floats:
    """The logarithm of the chance of k among n, each with this share."""
    import numpy as np
    from scipy.special import gammaln, xlog1py, xlogy

    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    result: Floats = np.asarray(ways + xlogy(k, share) + xlog1py(n - k, -share))
    return result


def _check(one: int, other: int, n: int) -> None:
    if n < 1:
        raise ReportError("there are no examples, so nothing can be said: let the step write its evidence")
    if one < 0 or other < 0 or one + other > n:
        raise ReportError(f"{one} and {other} examples cannot be counted among {n}: count again")
