"""Sample sizes: how many examples a rule needs, and how likely a number of examples is to pass it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from penstock.decisions import Rule, decide
from penstock.errors import UsageError
from penstock.intervals import risk
from penstock.proportions import clopper_pearson, is_beyond, log_binomial, normal_quantile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def paired_examples(
    margin: float, disagreement: float, gain: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Examples with which a true `gain` passes "gain > -margin" with the wanted power, by the normal law.

    n = ((z_confidence √(d - M²) + z_power √(d - g²)) / (g + M))², all numbers as fractions: M the margin (negative for
    a gain that must be exceeded), d the share of examples on which the models differ, g the true gain. Source: Connor,
    Biometrics 43 (1987), at a margin. Raises UsageError where gain and margin leave no room, or exceed d.
    """
    alpha, room = risk(confidence), margin + gain
    if room <= 0:
        raise UsageError(f"a true gain of {gain:g} never passes a margin of {margin:g}: allow a wider margin")
    if not 0 < disagreement <= 1 or abs(gain) > disagreement:
        raise UsageError(f"a gain of {gain:g} cannot come of a disagreement of {disagreement:g}: write a larger one")
    spread = math.sqrt(max(disagreement - margin**2, 0.0)), math.sqrt(disagreement - gain**2)
    wanted = normal_quantile(1 - alpha) * spread[0] + normal_quantile(power) * spread[1]
    return max(1, math.ceil((max(wanted, 0.0) / room) ** 2))


def normal_power(n: int, margin: float, disagreement: float, gain: float = 0.0, confidence: float = 0.95) -> float:
    """The chance of a pass on n examples by the normal law: `paired_examples` the other way round."""
    from scipy.special import ndtr

    alpha = risk(confidence)
    spread = math.sqrt(max(disagreement - margin**2, 0.0)), math.sqrt(max(disagreement - gain**2, 1e-300))
    return float(ndtr((math.sqrt(n) * (margin + gain) - normal_quantile(1 - alpha) * spread[0]) / spread[1]))


def paired_power(n: int, margin: float, disagreement: float, gain: float = 0.0, confidence: float = 0.95) -> float:
    """The chance of a pass on n examples with scores of 0 and 1, counted out over the results of `paired_shares`.

    Arguments as of `paired_examples`. Results more than nine standard deviations away are left out.
    """
    import numpy as np
    from scipy.special import bdtrc

    won, lost = (disagreement + gain) / 2, (disagreement - gain) / 2
    reach = 9 * math.sqrt(n * lost) + 20
    losses = np.arange(max(0, math.floor(n * lost - reach)), min(n, math.ceil(n * lost + reach)) + 1)
    least = _least_wins(losses.tolist(), n, -margin, confidence)
    share = min(won / (1 - lost), 1.0)
    beyond = np.where(least > 0, bdtrc(np.clip(least - 1, 0, n - losses), n - losses, share), 1.0)
    return float((np.exp(log_binomial(losses, n, lost)) * beyond).sum())


def _least_wins(losses: list[int], n: int, gain: float, confidence: float) -> Floats:
    """For each count of losses, in a row, the least count of wins that passes; n - losses + 1 where none does."""
    import numpy as np

    wins, found = _first_wins(losses[0], n, gain, confidence), []
    for lost in losses:
        while wins + lost <= n and not is_beyond(wins, lost, n, gain, confidence):
            wins += 1
        found.append(min(wins, n - lost + 1))
    return np.array(found, float)


def _first_wins(losses: int, n: int, gain: float, confidence: float) -> int:
    low, high = -1, n - losses + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_beyond(middle, losses, n, gain, confidence) else (middle, high)
    return high


def planned_examples(
    margin: float, disagreement: float, gain: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Examples with scores of 0 and 1 from which on `paired_power` is about the wanted power.

    `paired_examples`, then corrected until what is counted out is within half a point: it matters where few examples
    are discordant. Raises UsageError as `paired_examples` does.
    """
    n = paired_examples(margin, disagreement, gain, confidence, power)
    for _ in range(12):
        off = power - paired_power(n, margin, disagreement, gain, confidence)
        if abs(off) < 0.005:
            break
        n = max(1, n + math.ceil(off * n / max(2 * power * (1 - power), 0.1)))
    return n


def level_power(n: int, rule: Rule, level: float) -> float:
    """The chance that `at_least` or `at_most` passes on n examples with scores of 0 and 1, if their share is `level`.

    Exact, by the binomial law. Raises UsageError for a rule on two models.
    """
    from scipy.special import bdtr, bdtrc

    if rule.paired:
        raise UsageError(f"{rule.kind} compares two models: plan it by margin and disagreement")
    wanted = rule.kind == "at_least"
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        right = middle if wanted else n - middle
        passed = decide(rule, clopper_pearson(right, n, rule.confidence)).verdict == "pass"
        low, high = (low, middle) if passed else (middle, high)
    if high > n:
        return 0.0
    return float(bdtrc(high - 1, n, level) if wanted and high else bdtr(n - high, n, level))


def level_examples(rule: Rule, level: float, power: float = 0.8) -> int:
    """Examples with scores of 0 and 1 on which `at_least` or `at_most` passes with the wanted power, if the share is
    `level`: by the normal law, then by exact counts.

    Raises UsageError for a rule on two models, or a level that the rule does not allow.
    """
    if rule.paired or not rule.holds(level) or level == rule.bound:
        raise UsageError(f"a level of {level:g} never passes {rule.kind} {rule.bound:g}: ask for less")
    spread = (math.sqrt(share * (1 - share)) for share in (rule.bound, level))
    quantiles = normal_quantile(rule.confidence), normal_quantile(power)
    wanted = sum(z * s for z, s in zip(quantiles, spread, strict=True))
    n = max(1, math.ceil((max(wanted, 0.0) / (level - rule.bound)) ** 2))
    while level_power(n, rule, level) < power:
        n = math.ceil(n * 1.02) + 1
    return n


def mean_examples(
    margin: float, deviation: float, gain: float = 0.0, confidence: float = 0.95, power: float = 0.8
) -> int:
    """Examples with which a true `gain` passes "gain > -margin" on numeric scores, by the normal law.

    n = ((z_confidence + z_power) · deviation / (gain + margin))²; `deviation` is the standard deviation of the paired
    differences, in the unit of the others. Raises UsageError where gain and margin leave no room.
    """
    if margin + gain <= 0:
        raise UsageError(f"a true gain of {gain:g} never passes a margin of {margin:g}: allow a wider margin")
    wanted = normal_quantile(1 - risk(confidence)) + normal_quantile(power)
    return max(2, math.ceil((max(wanted, 0.0) * deviation / (gain + margin)) ** 2))
