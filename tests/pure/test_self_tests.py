"""A model against itself: no rule flips more often than it promises."""

import numpy as np
import numpy.typing as npt
import pytest

from penstock.decisions import Rule
from penstock.self_tests import SelfTest, against_itself

Floats = npt.NDArray[np.float64]
DRAW = np.random.default_rng(1)
OLD = (DRAW.random(120) < 0.8).astype(float)
NEW = np.where(DRAW.random(120) < 0.05, 1 - OLD, OLD).astype(float)
HEAVY, OTHER = np.abs(DRAW.standard_t(5, 120)), np.abs(DRAW.standard_t(5, 120))
RULES = [
    Rule("better_than"),
    Rule("not_worse_than"),
    Rule("not_worse_than", 0.02, indifference=0.01),
    Rule("not_worse_than", 0.05, relative=True),
    Rule("better_than", 0.05, relative=True),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("new", "old"), [(NEW, OLD), (OTHER, HEAVY)], ids=["binary", "heavy"])
def test_no_comparison_flips_more_than_promised(rule: Rule, new: Floats, old: Floats) -> None:
    """At most α of rounds, but for what chance adds in so few."""
    found = against_itself(rule, new, old, rounds=400)
    assert found.flip_rate <= found.alpha + 0.02
    assert found.passed + found.failed <= found.rounds == 400


@pytest.mark.parametrize("kind", ["at_least", "at_most"])
@pytest.mark.parametrize("scores", [OLD, HEAVY], ids=["binary", "heavy"])
def test_no_level_flips_more_than_promised(kind: str, scores: Floats) -> None:
    """At the very level that the scores have, which is the worst."""
    rule = Rule("at_least" if kind == "at_least" else "at_most", float(scores.mean()))
    assert against_itself(rule, scores, rounds=400).flip_rate <= 0.075


def test_identical_answers_never_flip() -> None:
    """A model that gives the very same answers is not worse, and not better, in any round."""
    found = against_itself(Rule("not_worse_than", 0.05), OLD, OLD, rounds=50)
    assert (found.passed, found.wrong) == (50, 0)
    assert against_itself(Rule("better_than"), OLD, OLD, rounds=50).passed == 0


def test_the_same_seed_gives_the_same_rate() -> None:
    """The self-test itself can be repeated."""
    one, again = (against_itself(RULES[0], OTHER, HEAVY, rounds=50, seed=7) for _ in range(2))
    assert one == again


def test_the_sentence_has_both_rates() -> None:
    """What was found beside what was promised."""
    assert SelfTest(2000, 70, 8, 78, 0.05).sentence() == "flips 3.9 % of 2000 rounds, promised at most 5 %"
