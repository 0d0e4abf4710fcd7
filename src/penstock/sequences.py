"""Sequences: a rule judged batch by batch, valid whenever one stops.

Two bets run side by side on the differences X = new - scale * old. One gains where X is above the threshold c, the
other where it is below c + 2ε. If the mean of X is at most c, the wealth of the first is a fair game at best, and
reaches 1/α with a chance of at most α at any time (Ville 1939). So reaching it is a pass, reaching it with the second
a fail, and neither leaves the gate inconclusive. Source of the bets: Waudby-Smith and Ramdas, JRSS B 86 (2024), with
wealth spread over a grid of fixed stakes instead of one that is adapted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.decisions import Rule, Word
from penstock.errors import ReportError, UsageError
from penstock.families import averaged
from penstock.intervals import risk

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

STAKES = tuple(0.03 * 30 ** (step / 13) for step in range(14))
"""Shares of the largest safe stake, from .03 to .9: small ones tell small gains, large ones large gains soon."""
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Bets:
    """The state of a sequential judgment; begin with `begun`, go on with `advanced`.

    `above` and `below` hold ln of the wealth per stake, `highest` the largest ln of wealth that each side ever had at
    the end of a batch; `n` examples were seen, `discordant` of them with a difference that is not 0.
    """

    rule: Rule
    least: float
    most: float
    above: tuple[float, ...]
    below: tuple[float, ...]
    highest: tuple[float, float] = (0.0, 0.0)
    n: int = 0
    discordant: int = 0

    @property
    def verdict(self) -> Word:
        """What stands now: it will stand whatever comes, so one may stop."""
        bar = -math.log(risk(self.rule.confidence))
        if self.highest[0] >= bar:
            return "pass"
        return "fail" if self.highest[1] >= bar else "inconclusive"


def begun(rule: Rule, lowest: float = 0.0, highest: float = 1.0) -> Bets:
    """The state before the first example; scores lie in [lowest, highest], in their unit.

    Raises UsageError for a rule whose threshold no difference of such scores can be beyond.
    """
    if not rule.paired:
        lower, upper = (lowest, highest) if rule.kind == "at_least" else (-highest, -lowest)
    else:
        ends = (rule.scale * lowest, rule.scale * highest)
        lower, upper = lowest - max(ends), highest - min(ends)
    if not lower < rule.threshold <= rule.threshold + 2 * rule.indifference < upper:
        raise UsageError(f"{rule.kind} {rule.bound:g} is beyond scores of {lowest:g} to {highest:g}: mend the rule")
    zeros = (0.0,) * len(STAKES)
    return Bets(rule, lower, upper, zeros, zeros)


def advanced(bets: Bets, values: Floats) -> Bets:
    """The state after one more batch: differences new - scale * old, or scores for a rule on a level, in drawn order.

    Raises ReportError for a value outside the range that was named at the beginning.
    """
    import numpy as np

    if not len(values):
        return bets
    values = -values if bets.rule.kind == "at_most" else values
    if not bool(((values >= bets.least - 1e-9) & (values <= bets.most + 1e-9)).all()):
        raise ReportError(f"a score is outside the range that was named: allow {values.min():g} to {values.max():g}")
    lower = bets.rule.threshold
    upper = lower + 2 * bets.rule.indifference
    above, below = np.array(bets.above), np.array(bets.below)
    kinds, counts = np.unique(values, return_counts=True) if _is_plain(values) else (values, None)
    above = above + _gains(kinds - lower, lower - bets.least, counts)
    below = below + _gains(upper - kinds, bets.most - upper, counts)
    after = replace(bets, above=tuple(above.tolist()), below=tuple(below.tolist()))
    seen = (max(bets.highest[0], averaged(after.above)), max(bets.highest[1], averaged(after.below)))
    moved = bets.discordant + int(np.count_nonzero(values))
    return replace(after, highest=seen, n=bets.n + len(values), discordant=moved)


def _is_plain(values: Floats) -> bool:
    """Whether a batch looks as if it had few different values, as scores of 0 and 1 have."""
    import numpy as np

    return len(values) > 64 and len(np.unique(values[:64])) <= 8 and len(np.unique(values[:4096])) <= 64


def _gains(distances: Floats, room: float, counts: Integers | None) -> Floats:
    """Ln of what each stake makes of its wealth; a stake of 1 would lose all where a distance is -room."""
    import numpy as np

    stakes, made = np.array(STAKES)[:, None], np.zeros(len(STAKES))
    for start in range(0, len(distances), _BLOCK):
        logs = np.log1p(stakes * (distances[start : start + _BLOCK] / room))
        made += logs.sum(axis=1) if counts is None else logs @ counts[start : start + _BLOCK]
    return made


# --- order and batches ---------------------------------------------------------------------------------------------


def drawn_order(test_set: str, n: int) -> Integers:
    """The order in which n examples, sorted by id, are judged: drawn from the digest of the test set, in hexadecimal.

    So nobody chooses it, and a rerun has the same. Letters that are no hexadecimal digits are left out of the seed;
    raises UsageError where none is left.
    """
    import numpy as np

    digits = "".join(letter for letter in test_set.lower() if letter in "0123456789abcdef")
    if not digits:
        raise UsageError(f"{test_set!r} is no digest of a test set: hand in a hexadecimal one")
    return np.random.default_rng(int(digits, 16)).permutation(n)


def judged(bets: Bets, values: Floats, batch: int) -> Bets:
    """The state when the verdict first stands at the end of a batch, or after all values, which are in drawn order."""
    for part in _batches(values, batch):
        bets = advanced(bets, part)
        if bets.verdict != "inconclusive":
            break
    return bets


def _batches(values: Floats, batch: int) -> Iterator[Floats]:
    if batch < 1:
        raise UsageError(f"a batch of {batch} examples never ends: write 1 or more")
    return (values[start : start + batch] for start in range(0, len(values), batch))
