"""How many examples a rule needs: the planned number has the planned power."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.decisions import Rule, decide
from penstock.errors import UsageError
from penstock.means import mean_interval
from penstock.proportions import is_beyond
from penstock.sample_sizes import (
    level_examples,
    level_power,
    mean_examples,
    normal_power,
    paired_examples,
    paired_power,
    planned_examples,
)


def test_the_figures_of_the_digits_gate() -> None:
    """360 examples, 2 % disagreement, no change: the normal law says 38 and 99 %, counting out 34 and 97 %."""
    assert normal_power(360, 0.01, 0.02) == pytest.approx(0.38, abs=0.005)
    assert normal_power(360, 0.03, 0.02) == pytest.approx(0.99, abs=0.005)
    assert paired_power(360, 0.01, 0.02) == pytest.approx(0.343, abs=0.001)
    assert paired_power(360, 0.03, 0.02) == pytest.approx(0.9735, abs=0.0005)


@pytest.mark.parametrize(
    ("margin", "disagreement", "gain", "power"),
    [
        (0.01, 0.02, 0.0, 0.8),
        (0.03, 0.02, 0.0, 0.9),
        (0.02, 0.1, 0.005, 0.8),
        (0.0, 0.1, 0.03, 0.9),
        (0.01, 0.1, 0, 0.8),
    ],
)
def test_the_planned_number_has_the_planned_power(
    margin: float, disagreement: float, gain: float, power: float
) -> None:
    """Within two points, counted out over all results and played by the rule itself."""
    n = planned_examples(margin, disagreement, gain, power=power)
    assert paired_power(n, margin, disagreement, gain) == pytest.approx(power, abs=0.02)
    chances = [(disagreement + gain) / 2, (disagreement - gain) / 2, 1 - disagreement]
    rows = np.random.default_rng(1).multinomial(n, chances, 3000).tolist()
    beyond = cache(is_beyond)
    passed = np.mean([beyond(wins, losses, n, -margin, 0.95) for wins, losses, _ in rows])
    assert passed == pytest.approx(power, abs=0.03)


@given(st.floats(0.005, 0.05), st.floats(0.06, 0.5), st.sampled_from([0.8, 0.9, 0.99]))
def test_formula_and_power_are_one(margin: float, disagreement: float, power: float) -> None:
    """The normal power at the number of the formula is what was asked, but for rounding up."""
    n = paired_examples(margin, disagreement, power=power)
    assert power <= normal_power(n, margin, disagreement) + 1e-9
    assert normal_power(n - 1, margin, disagreement) < power
    assert paired_examples(margin, disagreement, confidence=0.99, power=power) >= n
    assert paired_examples(margin / 2, disagreement, power=power) >= n


def test_power_without_doubt_is_one() -> None:
    """Where every example is won, or none is lost, counting has no special case; and a small n never passes."""
    assert paired_power(50, 0.0, 1.0, 1.0) == pytest.approx(1)
    assert paired_power(200, 0.1, 0.02, 0.02) == pytest.approx(1, abs=1e-4)
    assert paired_power(20, 0.01, 0.02, 0.0) < 0.05


def test_a_plan_needs_room() -> None:
    """Without room between truth and margin, or with a gain beyond the disagreement, nothing can be planned."""
    with pytest.raises(UsageError, match="allow a wider margin"):
        paired_examples(0.01, 0.1, -0.01)
    with pytest.raises(UsageError, match="cannot come of a disagreement"):
        paired_examples(0.01, 0.02, 0.03)
    with pytest.raises(UsageError, match="cannot come of a disagreement"):
        planned_examples(0.01, 0.0)
    with pytest.raises(UsageError, match="allow a wider margin"):
        mean_examples(0.0, 1.0)


@pytest.mark.parametrize(("rule", "level"), [(Rule("at_least", 0.85), 0.9), (Rule("at_most", 0.1), 0.06)])
def test_a_level_is_planned_by_exact_counts(rule: Rule, level: float) -> None:
    """At the planned number the power is as wanted, and at the bound itself at most α."""
    n = level_examples(rule, level)
    assert 0.8 <= level_power(n, rule, level) < 0.84
    assert level_power(n, rule, rule.bound) <= 0.05


def test_levels_at_the_ends() -> None:
    """What nothing can show has no power, what is always so has all of it."""
    assert level_power(10, Rule("at_least", 0.99), 1.0) == 0
    assert level_power(10, Rule("at_least", 0.0), 0.5) == 1
    assert level_power(10, Rule("at_most", 1.0), 0.5) == 1


def test_impossible_level_plans_are_refused() -> None:
    """A level that the rule forbids, or sits on, and a rule that compares."""
    for level in (0.8, 0.85):
        with pytest.raises(UsageError, match=r"never passes at_least 0\.85"):
            level_examples(Rule("at_least", 0.85), level)
    with pytest.raises(UsageError, match="compares two models"):
        level_power(10, Rule("better_than"), 0.5)
    with pytest.raises(UsageError, match="never passes"):
        level_examples(Rule("better_than"), 0.5)


def test_a_numeric_plan_has_its_power() -> None:
    """Played on numeric differences of a known spread."""
    n = mean_examples(0.2, 1.0)
    rule, draw = Rule("not_worse_than", 0.2), np.random.default_rng(1)
    passed = [decide(rule, mean_interval(draw.normal(size=n), 0.95)).verdict == "pass" for _ in range(3000)]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.02)
