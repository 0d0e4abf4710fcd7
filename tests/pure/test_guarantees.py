"""Sample sizes for a whole history of commits: the published table to the digit, and smaller ones."""

import pytest
from scipy.special import bdtr, bdtrc

from penstock.errors import UsageError
from penstock.guarantees import (
    disagreement_bound,
    exact_level_examples,
    gain_bound,
    labels,
    level_bound,
    log_histories,
)

NONE, FULL = log_histories(32, "none"), log_histories(32, "full")


@pytest.mark.parametrize(
    ("delta", "epsilon", "published"),
    [
        (0.01, 0.1, (404, 1340, 1753, 5496)),
        (0.01, 0.05, (1615, 5358, 7012, 21984)),
        (1e-3, 0.01, (51868, 145443, 221333, 595633)),
        (1e-4, 0.01, (63381, 156956, 267385, 641684)),
    ],
)
def test_the_table_of_ease_ml_ci(delta: float, epsilon: float, published: tuple[int, ...]) -> None:
    """F1 and F2, without and with full adaptivity, 32 commits."""
    sizes = [bound(epsilon, delta, histories) for bound in (level_bound, gain_bound) for histories in (NONE, FULL)]
    assert tuple(sizes) == published


def test_little_disagreement_needs_few_labels() -> None:
    """With d ≤ .1: 29,048 examples with 2,904 labels, 67,706 with full adaptivity, 34,842 for two promotions."""
    sizes = [disagreement_bound(0.01, 1e-4, h, 0.1) for h in (NONE, FULL, log_histories(32, "full", 2))]
    assert sizes == [29_048, 67_706, 34_842]
    assert labels(sizes[0], 0.1) == 2904


def test_the_binomial_law_needs_fewer_than_its_bound() -> None:
    """For F1 at δ = .001, ε = .01: below 40,086 whatever the level, below 14,819 for accuracies of .9 and more."""
    assert max(exact_level_examples(level, 0.01, 1e-3, NONE) for level in (0.45, 0.48, 0.49, 0.5)) < 40_086
    assert exact_level_examples(0.9, 0.01, 1e-3, NONE) < 14_819


@pytest.mark.parametrize("level", [0.0, 0.5, 0.9, 0.98])
def test_the_exact_number_keeps_both_errors(level: float) -> None:
    """Some count of right answers divides level and level + 2ε, each with at most the chance asked for."""
    n, chance = exact_level_examples(level, 0.01, 0.01, 0.0), 0.01
    assert any(bdtrc(k - 1, n, level) <= chance and bdtr(k - 1, n, level + 0.02) <= chance for k in range(1, n + 1))
    assert n <= level_bound(0.01, 0.01, 0.0) + 1


def test_promotions_only_count_up_to_the_commits() -> None:
    """As many promotions as commits are all histories, none is one."""
    assert log_histories(8, "full", 8) == pytest.approx(log_histories(8, "full"))
    assert log_histories(8, "full", 20) == pytest.approx(log_histories(8, "full"))
    assert log_histories(8, "full", 0) == 0


def test_impossible_plans_are_refused() -> None:
    """No commits, no tolerance, no risk, no disagreement, levels beyond 1."""
    with pytest.raises(UsageError, match="cannot be planned"):
        log_histories(0, "none")
    with pytest.raises(UsageError, match="cannot be planned"):
        log_histories(3, "full", -1)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        level_bound(0, 0.01, 0.0)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        gain_bound(0.1, 1.0, 0.0)
    with pytest.raises(UsageError, match="write a share"):
        disagreement_bound(0.1, 0.1, 0.0, 0)
    with pytest.raises(UsageError, match="write a level within 0 and 1"):
        exact_level_examples(0.99, 0.01, 0.1, 0.0)
