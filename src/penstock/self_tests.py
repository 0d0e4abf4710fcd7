"""Self-tests: how often a rule says something wrong when a model is judged against itself.

The world is made of the scores at hand. For two models each example's pair is drawn again, and swapped or not by the
toss of a coin, so neither model is better there and their disagreement stays. For one model the examples are drawn
again, so its true level is what was measured. A verdict that contradicts what is true in that world is a flip; a rule
keeps its promise if it flips with a chance of at most α.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from penstock.decisions import Rule, Word, decide
from penstock.intervals import risk
from penstock.proportions import clopper_pearson, paired_shares
from penstock.samples import is_binary, level, paired_gain

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How many of the rounds ended with each verdict, and how many of those verdicts were wrong."""

    rounds: int
    passed: int
    failed: int
    wrong: int
    alpha: float

    @property
    def flip_rate(self) -> float:
        """The share of rounds with a wrong verdict."""
        return self.wrong / self.rounds

    def sentence(self) -> str:
        """As in "flips 3.9 % of 2000 rounds, promised at most 5 %"."""
        return f"flips {100 * self.flip_rate:.1f} % of {self.rounds} rounds, promised at most {100 * self.alpha:g} %"


def against_itself(
    rule: Rule, scores: Floats, other: Floats | None = None, rounds: int = 2000, seed: int = 0
) -> SelfTest:
    """Judge a model against itself `rounds` times by a rule on levels, or, with `other`, by one on two models.

    Scores are higher-is-better and paired in order. Scores of 0 and 1 cost nothing per example, others about a second
    per million examples and ten rounds. Raises ReportError as the intervals do.
    """
    if other is None:
        words, truth = _levels(rule, scores, rounds, seed), float(scores.mean())
    else:
        words, truth = _pairs(rule, scores, other, rounds, seed), (1 - rule.scale) * float((scores + other).mean()) / 2
    found = list(words)
    wrong = sum(rule.is_wrong(word, truth) for word in found)
    return SelfTest(rounds, found.count("pass"), found.count("fail"), wrong, risk(rule.confidence))


def _levels(rule: Rule, scores: Floats, rounds: int, seed: int) -> Iterator[Word]:
    import numpy as np

    draw, n = np.random.default_rng(seed), len(scores)

    @cache
    def counted(right: int) -> Word:
        return decide(rule, clopper_pearson(right, n, rule.confidence)).verdict

    if is_binary(scores):
        return (counted(right) for right in draw.binomial(n, float(scores.mean()), rounds).tolist())
    samples = (scores[draw.integers(0, n, n)] for _ in range(rounds))
    return (decide(rule, level(sample, rule.confidence)).verdict for sample in samples)


def _pairs(rule: Rule, new: Floats, old: Floats, rounds: int, seed: int) -> Iterator[Word]:
    import numpy as np

    draw, n = np.random.default_rng(seed), len(new)

    @cache
    def counted(wins: int, losses: int) -> Word:
        return decide(rule, paired_shares(wins, losses, n, rule.confidence)).verdict

    def swapped() -> Word:
        places, turned = draw.integers(0, n, n), draw.integers(0, 2, n) == 1
        one, other = np.where(turned, old[places], new[places]), np.where(turned, new[places], old[places])
        return decide(rule, paired_gain(one, other, rule.confidence, scale=rule.scale)).verdict

    if rule.scale == 1 and is_binary(new) and is_binary(old):
        moved = float((new != old).mean())
        rows = draw.multinomial(n, [moved / 2, moved / 2, 1 - moved], rounds).tolist()
        return (counted(wins, losses) for wins, losses, _ in rows)
    return (swapped() for _ in range(rounds))
