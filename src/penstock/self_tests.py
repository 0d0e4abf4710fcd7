"""Self-tests: how often a rule says something wrong when a model is judged against itself.

The world is made of the scores at hand. For two models each example's pair is drawn again, and swapped or not by the
toss of a coin, so neither model is better there and their disagreement stays. For one model the examples are drawn
again, so its true level is what was measured. A verdict that contradicts what is true in that world is a flip; a rule
keeps its promise if it flips with a chance of at most α.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from penstock.decisions import Rule, Word, decide, flipped
from penstock.families import all_of, corrected
from penstock.intervals import Interval, risk
from penstock.proportions import clopper_pearson
from penstock.samples import is_binary, level, paired_gain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
        return flipped(rule, wins, losses, n, rule.confidence)

    def swapped() -> Word:
        places, turned = draw.integers(0, n, n), draw.integers(0, 2, n) == 1
        one, other = np.where(turned, old[places], new[places]), np.where(turned, new[places], old[places])
        return decide(rule, paired_gain(one, other, rule.confidence, scale=rule.scale)).verdict

    if rule.scale == 1 and is_binary(new) and is_binary(old):
        moved = float((new != old).mean())
        rows = draw.multinomial(n, [moved / 2, moved / 2, 1 - moved], rounds).tolist()
        return (counted(wins, losses) for wins, losses, _ in rows)
    return (swapped() for _ in range(rounds))


def invented(n: int, level: float, disagreement: float) -> tuple[Floats, Floats]:
    """Answers of two models to n examples, made up: so many right of the first, so many that differ, in any order."""
    import numpy as np

    places = np.random.default_rng(0).permutation((np.arange(n) + 0.5) / n)
    new = (places < level).astype(float)
    differs = (places < disagreement / 2) | (places > 1 - disagreement / 2)
    return new, np.where(differs, 1 - new, new)


# --- slices --------------------------------------------------------------------------------------------------------


def slices_against_themselves(
    rule: Rule,
    parts: Sequence[tuple[Floats, Floats | None]],
    which: Literal["each", "worst"],
    rounds: int = 500,
    seed: int = 0,
) -> SelfTest:
    """As `against_itself`, in slices: the scores of each, with those of the other model where the rule compares.

    A pass of each is wrong where the rule does not truly hold in one of them, a fail where it holds in all; the verdict
    on the worst is held against the truth of the slice that was chosen. Slices are drawn apart from each other.
    """
    import numpy as np

    draw = np.random.default_rng(seed)
    truths = [_truth(rule, *part) for part in parts]
    worlds = [_world(rule, *part, draw) for part in parts]
    found: list[tuple[Word, bool]] = []
    for _ in range(rounds):
        drawn = [world() for world in worlds]
        if which == "each":
            word, _ = all_of([judge for _, judge in drawn], rule.confidence)
            wrong = [rule.is_wrong(word, truth) for truth in truths]
            found.append((word, any(wrong) if word == "pass" else all(wrong)))
        else:
            place = max(range(len(drawn)), key=lambda n: drawn[n][0])
            word = drawn[place][1](corrected(rule.confidence, len(drawn)))
            found.append((word, rule.is_wrong(word, truths[place])))
    words = [word for word, _ in found]
    wrong_ones = sum(is_wrong for _, is_wrong in found)
    return SelfTest(rounds, words.count("pass"), words.count("fail"), wrong_ones, risk(rule.confidence))


def _truth(rule: Rule, scores: Floats, other: Floats | None) -> float:
    return float(scores.mean()) if other is None else (1 - rule.scale) * float((scores + other).mean()) / 2


_Drawn = tuple[float, "Callable[[float], Word]"]
"""How far a drawn slice is on the wrong side of its rule, and its verdict at a confidence."""


def _world(rule: Rule, new: Floats, old: Floats | None, draw: np.random.Generator) -> Callable[[], _Drawn]:
    """What draws a slice once more, and tells how it would be judged."""
    import numpy as np

    n = len(new)

    def numbers() -> _Drawn:
        places = draw.integers(0, n, n)
        if old is None:
            sample = new[places]
            return _far(rule, sample), lambda sure: _decided(rule, level(sample, sure), sure)
        turned = draw.integers(0, 2, n) == 1
        one, other = np.where(turned, old[places], new[places]), np.where(turned, new[places], old[places])
        distance = float(rule.scale * other.mean() - one.mean())
        return distance, lambda sure: _decided(rule, paired_gain(one, other, sure, scale=rule.scale), sure)

    if not is_binary(new) or (old is not None and (rule.scale != 1 or not is_binary(old))):
        return numbers
    return _counted(rule, new, old, draw)


def _counted(rule: Rule, new: Floats, old: Floats | None, draw: np.random.Generator) -> Callable[[], _Drawn]:
    """The same for scores of 0 and 1, of which only counts matter."""
    n = len(new)
    share = float(new.mean()) if old is None else float((new != old).mean()) / 2

    @cache
    def right(count: int, sure: float) -> Word:
        return _decided(rule, clopper_pearson(count, n, sure), sure)

    @cache
    def changed(wins: int, losses: int, sure: float) -> Word:
        return flipped(rule, wins, losses, n, sure)

    def drawn() -> _Drawn:
        if old is None:
            count = int(draw.binomial(n, share))
            return count / n * (1 if rule.kind == "at_most" else -1), lambda sure: right(count, sure)
        wins, losses, _ = draw.multinomial(n, [share, share, 1 - 2 * share]).tolist()
        return (losses - wins) / n, lambda sure: changed(wins, losses, sure)

    return drawn


def _far(rule: Rule, sample: Floats) -> float:
    return float(sample.mean()) * (1 if rule.kind == "at_most" else -1)


def _decided(rule: Rule, interval: Interval, confidence: float) -> Word:
    return decide(replace(rule, confidence=confidence), interval).verdict
