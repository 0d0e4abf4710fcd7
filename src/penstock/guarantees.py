"""Guarantees over a whole history of commits on one test set, without any assumption on the scores but their range.

The sample sizes of ease.ml/ci (Renggli et al., SysML 2019), and smaller ones for the same guarantee: with a chance of
at most `delta` any of the `commits` decisions is wrong by more than the tolerance ε.
"""

import math
from typing import Literal

from penstock.errors import UsageError

Adaptivity = Literal["none", "full"]
"""Whether commits may depend on the verdicts before them: with `full` every history of verdicts is guarded."""


def log_histories(commits: int, adaptivity: Adaptivity, promotions: int | None = None) -> float:
    """Ln of how many decisions must be right at once: H, or 2^H where verdicts are revealed (`full`).

    With at most B `promotions` only the histories with so few passes count: sum of C(H, i) for i up to B; after B
    passes the test set is refreshed. Raises UsageError for no commits, or fewer than no promotions.
    """
    if commits < 1 or (promotions is not None and promotions < 0):
        raise UsageError(f"{commits} commits with {promotions} promotions cannot be planned: write positive numbers")
    if promotions is not None:
        return math.log(sum(math.comb(commits, count) for count in range(min(promotions, commits) + 1)))
    return math.log(commits) if adaptivity == "none" else commits * math.log(2)


def level_bound(epsilon: float, delta: float, histories: float) -> int:
    """Examples for "score > c ± ε" by Hoeffding: N = (L + ln(1/δ)) / 2ε², L = `histories` (ease.ml/ci, F1)."""
    _check(epsilon, delta)
    return math.ceil((histories + math.log(1 / delta)) / (2 * epsilon**2))


def gain_bound(epsilon: float, delta: float, histories: float) -> int:
    """Examples for "new - old > c ± ε" by Hoeffding: N = 4(L + ln(2/δ)) / 2ε² (ease.ml/ci, F2)."""
    _check(epsilon, delta)
    return math.ceil(4 * (histories + math.log(2 / delta)) / (2 * epsilon**2))


def disagreement_bound(epsilon: float, delta: float, histories: float, disagreement: float) -> int:
    """Examples for "new - old > c ± ε" where at most a share p of answers differ, by Bennett (ease.ml/ci, section 4).

    N = (L + ln(4/δ)) / (p·h(ε/p)), h(u) = (1 + u) ln(1 + u) - u. Only about N·p of them need labels (`labels`).
    """
    _check(epsilon, delta)
    if not 0 < disagreement <= 1:
        raise UsageError(f"the disagreement is {disagreement:g}: write a share above 0 and up to 1")
    ratio = epsilon / disagreement
    growth = (1 + ratio) * math.log1p(ratio) - ratio
    return math.ceil((histories + math.log(4 / delta)) / (disagreement * growth))


def labels(examples: int, disagreement: float) -> int:
    """Labels that so many examples need, if only those on which the models differ are labelled."""
    return math.floor(examples * disagreement)


def exact_level_examples(level: float, epsilon: float, delta: float, histories: float) -> int:
    """Examples for "score > c ± ε" with scores of 0 and 1 by the binomial law instead of Hoeffding's bound.

    The smallest number for which some count of right answers divides the two: a true share of c = `level` passes, and
    one of c + 2ε fails, each with a chance of at most δ / e^L, which is what `level_bound` promises too.
    """
    _check(epsilon, delta)
    if not 0 <= level < level + 2 * epsilon <= 1:
        raise UsageError(f"a share cannot be told from {level:g} by {epsilon:g}: write a level within 0 and 1")
    chance = delta / math.exp(histories)
    n = _rough(level, epsilon, chance)
    while not _divides(n, level, epsilon, chance):
        n += 1
    return n


def _rough(level: float, epsilon: float, chance: float) -> int:
    """A number of examples somewhat below what is needed: by halving what certainly divides."""
    high = math.ceil(math.log(1 / chance) / (2 * epsilon**2)) + 1
    low = 1
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if _divides(middle, level, epsilon, chance) else (middle, high)
    return max(1, math.floor(low * 0.99))


def _divides(n: int, level: float, epsilon: float, chance: float) -> bool:
    """Whether some least count of right answers keeps both errors at or under the chance."""
    from scipy.special import bdtr, bdtrc

    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        rare = middle > 0 and float(bdtrc(middle - 1, n, level)) <= chance
        low, high = (low, middle) if rare else (middle, high)
    return high <= n and float(bdtr(high - 1, n, level + 2 * epsilon)) <= chance


def _check(epsilon: float, delta: float) -> None:
    if not 0 < epsilon < 1 or not 0 < delta < 1:
        raise UsageError(f"tolerance {epsilon:g} and risk {delta:g} must be above 0 and below 1: write such numbers")
