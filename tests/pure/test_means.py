"""Intervals of numeric scores: against known laws, against each other, and what must hold for all of them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.errors import ReportError
from penstock.intervals import BELOW_ZERO, Interval
from penstock.means import (
    averaged,
    bootstrap_interval,
    difference_interval,
    mean_interval,
    welch,
)

Floats = npt.NDArray[np.float64]
Draw = np.random.Generator
NUMBERS = hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-50, 50).map(lambda k: k / 8))


def covered(interval: Callable[[Draw], Interval], truth: float, runs: int) -> tuple[float, float]:
    """How often each bound is on its side of the truth."""
    draw = np.random.default_rng(1)
    found = [interval(draw) for _ in range(runs)]
    lows, highs = (np.array([i.low for i in found]) <= truth, np.array([i.high for i in found]) >= truth)
    return float(lows.mean()), float(highs.mean())


def heavy(draw: Draw) -> Floats:
    """Differences of squared errors of two equal models, whose errors have heavy tails."""
    result: Floats = draw.standard_t(5, 360) ** 2 - draw.standard_t(5, 360) ** 2
    return result


# --- a mean --------------------------------------------------------------------------------------------------------


def test_symmetric_values_have_students_bounds() -> None:
    """1, 2, 3 have mean 2 and the t bound of two degrees of freedom, 2.92 standard errors away."""
    found = mean_interval(np.array([1.0, 2.0, 3.0]), 0.95)
    assert found.estimate == 2
    assert found.low == pytest.approx(2 - 2.919986 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 2.919986 / 3**0.5, abs=1e-6)
    assert (found.n, found.discordant) == (3, None)


def test_skewed_values_have_a_longer_side() -> None:
    """Where few large values make the mean, more of them may be missing: the bound above is farther away."""
    found = mean_interval(np.array([0.0] * 50 + [1.0] * 5), 0.95)
    assert found.high - found.estimate > 1.2 * (found.estimate - found.low)


@pytest.mark.parametrize(
    ("name", "draws", "truth"),
    [
        ("bounded", lambda r: mean_interval(r.beta(0.3, 2, 360), 0.95), 0.3 / 2.3),
        ("heavy", lambda r: difference_interval(heavy(r), 0.95), 0.0),
        ("sparse", lambda r: difference_interval(r.normal(size=360) * (r.random(360) < 0.1), 0.95), 0.0),
    ],
)
def test_bounds_cover_the_truth(name: str, draws: Callable[[Draw], Interval], truth: float) -> None:
    """Bounds of 95 % are right in 95 % of samples, within two points, for bounded, heavy and mostly equal scores."""
    for share in covered(draws, truth, 2000):
        assert 0.93 <= share <= 0.97, name


def test_clusters_cover_the_truth_where_rows_would_not() -> None:
    """Five seeds of 100 examples: with the example as the unit bounds hold, with the row they are far too short."""
    numbers = np.repeat(np.arange(100), 5)

    def rows(draw: Draw) -> Floats:
        result: Floats = np.repeat(draw.normal(size=100), 5) + 0.3 * draw.normal(size=500)
        return result

    by_example = covered(lambda r: difference_interval(averaged(rows(r), numbers), 0.95), 0.0, 1500)
    by_row = covered(lambda r: difference_interval(rows(r), 0.95), 0.0, 500)
    assert all(0.93 <= share <= 0.97 for share in by_example)
    assert max(by_row) < 0.85


@settings(deadline=None)
@given(NUMBERS, st.integers(-20, 20), st.sampled_from([0.25, 2.0, 8.0]))
def test_units_do_not_matter(values: Floats, shift: int, factor: float) -> None:
    """Moving and stretching the scores moves and stretches the interval; turning them around turns it around."""
    found, moved = mean_interval(values, 0.95), mean_interval(values * factor + shift, 0.95)
    assert moved.low == pytest.approx(found.low * factor + shift, abs=1e-6)
    assert moved.high == pytest.approx(found.high * factor + shift, abs=1e-6)
    turned = mean_interval(-values, 0.95)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


@settings(deadline=None)
@given(NUMBERS)
def test_bounds_hold_the_estimate_and_grow_with_confidence(values: Floats) -> None:
    """In order: low ≤ estimate ≤ high, and 99 % is never shorter than 90 %."""
    narrow, wide = mean_interval(values, 0.9), mean_interval(values, 0.99)
    assert wide.low - 1e-9 <= narrow.low <= narrow.estimate <= narrow.high <= wide.high + 1e-9


# --- differences ---------------------------------------------------------------------------------------------------


def test_few_differences_must_stand_up_to_random_signs() -> None:
    """Unequal gains and losses that t finds significant, but 6 % of choices of their signs do as well."""
    few = np.array([0.0] * 300 + [1.0] * 14 + [-1.0] * 6)
    assert mean_interval(few, 0.95).low > 0
    assert difference_interval(few, 0.95).low == BELOW_ZERO
    assert difference_interval(-few, 0.95).high == -BELOW_ZERO
    assert difference_interval(few, 0.95).discordant == 20


def test_very_few_differences_may_have_missed_one() -> None:
    """Of 4 alone nothing follows: one as large may be missing; of 10 on one side something does."""
    four = np.array([0.0] * 300 + [1.0] * 4)
    assert difference_interval(four, 0.95).low < 0 < mean_interval(four, 0.95).low
    assert difference_interval(-four, 0.95).high > 0
    assert difference_interval(np.array([0.0] * 300 + [1.0] * 10), 0.95).low > 0
    assert difference_interval(np.array([0.0] * 300 + [-1.0] * 10), 0.95).high < 0
    assert difference_interval(np.zeros(300), 0.95).low == 0


def test_very_few_differences_cover_the_truth() -> None:
    """About seven of 360 examples differ, with more gain than loss: no bound is wrong in more than 7 % of samples."""

    def sparse(draw: Draw) -> Interval:
        return difference_interval((draw.normal(size=360) + 0.3) * (draw.random(360) < 0.02), 0.95)

    assert min(covered(sparse, 0.006, 2000)) >= 0.93


def test_many_differences_are_as_t_says() -> None:
    """Hundreds are not asked for random signs."""
    many = np.full(300, 0.5) + np.linspace(-1, 1, 300)
    assert difference_interval(many, 0.95).low == mean_interval(many, 0.95).low


def test_the_same_differences_give_the_same_bounds() -> None:
    """Random signs and resamples are drawn from the seed: byte-identical inputs never flip a gate."""
    values = np.random.default_rng(3).normal(0.2, 1, 60)
    assert difference_interval(values, 0.95) == difference_interval(values, 0.95)
    assert bootstrap_interval(values, 0.95, 7) == bootstrap_interval(values, 0.95, 7)
    assert bootstrap_interval(values, 0.95, 7) != bootstrap_interval(values, 0.95, 8)


# --- bootstrap and Welch -------------------------------------------------------------------------------------------


def test_the_bootstrap_agrees_with_t_on_well_behaved_scores() -> None:
    """On 400 normal values the bounds are a few hundredths of the standard error apart; blocks change nothing else."""
    values = np.random.default_rng(2).normal(size=400)
    one, other = bootstrap_interval(values, 0.95), mean_interval(values, 0.95)
    assert one.low == pytest.approx(other.low, abs=0.01)
    assert one.high == pytest.approx(other.high, abs=0.01)
    assert "BCa" in one.method


def test_the_bootstrap_works_in_blocks() -> None:
    """Thousands of values do not make a table of millions of draws times thousands."""
    values = np.random.default_rng(2).normal(size=30_000)
    assert bootstrap_interval(values, 0.95, resamples=200).n == 30_000


def test_the_bootstrap_of_equal_values_is_a_point() -> None:
    """Nothing varies, so nothing is in doubt."""
    found = bootstrap_interval(np.full(20, 0.5), 0.95)
    assert (found.low, found.estimate, found.high) == (0.5, 0.5, 0.5)


def test_welch_is_as_known() -> None:
    """Two samples with unequal spread: difference and Satterthwaite's t bound as scipy.stats has them."""
    new, old = np.array([4.0, 6.0, 8.0]), np.array([1.0, 2.0, 3.0, 4.0])
    found = welch(new, old, 0.95)
    assert found.estimate == 3.5
    assert found.estimate - found.low == pytest.approx(found.high - found.estimate)
    assert found.low == pytest.approx(0.4767633860324505)
    assert "unpaired" in found.method
    assert welch(new, old, 0.95, 2.0).estimate == 1
    assert welch(np.ones(3), np.zeros(3), 0.95).low == 1


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_no_sample_is_refused() -> None:
    """One value has no spread; a value that is not finite is named by its row."""
    with pytest.raises(ReportError, match="needs two at least"):
        mean_interval(np.array([1.0]), 0.95)
    with pytest.raises(ReportError, match="example number 3 is nan"):
        mean_interval(np.array([1.0, 2.0, np.nan]), 0.95)
    with pytest.raises(ReportError, match="example number 1 is inf"):
        welch(np.array([1.0, 2.0]), np.array([np.inf, 1.0]), 0.95)
    with pytest.raises(ReportError, match="to 1e150"):
        mean_interval(np.array([1e308, 1e308]), 0.95)
    assert mean_interval(np.array([1e150, 1e149, -1e150]), 0.95).high > 1e149
