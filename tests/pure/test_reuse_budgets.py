"""One test set, many commits: what each decision may spend, and that chance alone promotes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.proportions import mcnemar
from penstock.reuse_budgets import Budget, Ladder, share


@given(st.integers(1, 3000), st.sampled_from([0.01, 0.05]))
def test_all_decisions_together_spend_at_most_alpha(count: int, alpha: float) -> None:
    """Shares fall, and never add up to more than α; the first takes six tenths of it."""
    spent = [share(number, alpha) for number in range(1, count + 1)]
    assert sum(spent) < alpha
    assert spent == sorted(spent, reverse=True)
    assert spent[0] == pytest.approx(0.6079 * alpha, rel=1e-3)


def test_decisions_are_counted_over_distinct_packages() -> None:
    """A package that comes again has its own number still, and spends nothing more."""
    budget = Budget(0.95).asked("a").asked("b").asked("a")
    assert budget.packages == ("a", "b")
    assert [budget.number(name) for name in ("a", "b", "c")] == [1, 2, 3]
    assert budget.confidence_for("c") == pytest.approx(1 - share(3, 0.05))
    assert budget.left == pytest.approx(0.05 - share(1, 0.05) - share(2, 0.05))


def test_a_tired_test_set_says_so() -> None:
    """From the tenth decision on a fresh one is recommended."""
    budget = Budget(0.95, tuple(f"p{number}" for number in range(13)))
    assert budget.sentence("new") == "decision 14 on this test set; refresh recommended"
    assert budget.sentence("p8") == "decision 9 on this test set"


def test_the_ladder_ignores_small_steps() -> None:
    """On 400 examples a score must be more than .05 better, and the best is kept in whole steps."""
    ladder = Ladder(0.8, 400)
    assert ladder.step == pytest.approx(0.05)
    assert not ladder.climbs(0.84)
    assert ladder.climbed(0.84) is ladder
    assert ladder.climbed(0.87).best == pytest.approx(0.85)


def test_nothing_is_counted_from_zero() -> None:
    """Decisions begin at 1, and a test set has examples."""
    with pytest.raises(UsageError, match="count from 1"):
        share(0, 0.05)
    with pytest.raises(UsageError, match="makes no ladder"):
        Ladder(0.5, 0).climbs(0.6)


def test_equal_commits_are_not_promoted() -> None:
    """200 commits of accuracy .8, 2,000 examples: "new > old" inflates by points, the budget and the ladder do not."""
    draw, ends = np.random.default_rng(1), {"naive": [0.0, 0.0], "budget": [0.0, 0.0], "ladder": [0.0, 0.0]}
    for name, seen in ends.items():
        for _ in range(15):
            champion, promoted = draw.random(2000) < 0.8, False
            start = champion.mean()
            for k in range(1, 201):
                new = np.where(draw.random(2000) < 0.1, draw.random(2000) < 0.8, champion)
                wins, losses = int((new & ~champion).sum()), int((champion & ~new).sum())
                climbs = Ladder(float(champion.mean()), 2000).climbs(float(new.mean()))
                shown = {"naive": wins > losses, "budget": mcnemar(wins, losses) <= share(k, 0.05), "ladder": climbs}
                champion, promoted = (new, True) if shown[name] else (champion, promoted)
            seen[0] += promoted / 15
            seen[1] += 100 * (champion.mean() - start) / 15
    assert ends["naive"][0] > 0.99
    assert ends["naive"][1] > 4
    assert ends["budget"][0] <= 0.15
    assert ends["budget"][1] < 0.3
    assert ends["ladder"] == [0, 0]
