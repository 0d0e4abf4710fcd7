"""Ratios of benchmarks, bounded by what their rounds say."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ReportError, UsageError
from penstock.ratios import RESAMPLES, _medians, ratio_of_medians

Floats = npt.NDArray[np.float64]
ROUNDS = st.lists(st.floats(1e-6, 1e6), min_size=5, max_size=30).map(np.array)


@given(new=ROUNDS, old=ROUNDS)
@settings(deadline=None)
def test_the_ratio_lies_between_its_bounds(new: Floats, old: Floats) -> None:
    """It is that of the medians, in whatever unit, and the same rounds always give the same."""
    found = ratio_of_medians(new, old, 0.95)
    assert found.estimate == np.median(new) / np.median(old)
    assert new.min() / old.max() * (1 - 1e-9) <= found.low <= found.estimate <= found.high
    assert found.high <= new.max() / old.min() * (1 + 1e-9)
    assert found == ratio_of_medians(new[::-1], old, 0.95)
    assert (found.n, found.discordant, found.confidence) == (min(len(new), len(old)), None, 0.95)
    scaled = ratio_of_medians(8 * new, 8 * old, 0.95)
    assert (scaled.low, scaled.high) == pytest.approx((found.low, found.high))


def test_more_confidence_gives_wider_bounds() -> None:
    """And equal rounds a point."""
    draw = np.random.default_rng(1)
    new, old = draw.lognormal(0, 0.2, 40), draw.lognormal(0, 0.2, 41)
    narrow, wide = ratio_of_medians(new, old, 0.8), ratio_of_medians(new, old, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    same = ratio_of_medians(np.full(6, 3.0), np.full(5, 2.0), 0.95)
    assert (same.low, same.estimate, same.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("count", [5, 6, 30, 31])
def test_medians_are_drawn_as_by_resampling(count: int) -> None:
    """Two draws stand for a whole resample: both have the same distribution."""
    rounds = np.sort(np.random.default_rng(2).lognormal(0, 1, count))
    quick = _medians(rounds, np.random.default_rng(3))
    places = np.random.default_rng(4).integers(0, count, (RESAMPLES, count))
    slow = np.median(rounds[places], axis=1)
    levels = np.quantile(slow, [0.1, 0.3, 0.5, 0.7, 0.9])
    shares = [(sample[:, None] <= levels).mean(axis=0) for sample in (quick, slow)]
    assert np.abs(shares[0] - shares[1]).max() < 0.02


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.lognormal(0, 0.1, n),
        lambda rng, n: 1 + 0.1 * rng.pareto(1.2, n),
        lambda rng, n: np.exp(np.where(rng.random(n) < 0.5, 0.3, 0) + 0.03 * rng.standard_normal(n)),
    ],
    ids=["lognormal", "heavy tail", "two modes"],
)
def test_bounds_hold_as_often_as_they_say(draw: Callable[[np.random.Generator, int], Floats]) -> None:
    """For timings with long tails and with two modes: at least 93 of 100 samples, on each side."""
    rng = np.random.default_rng(5)
    found = [ratio_of_medians(draw(rng, 20), draw(rng, 30), 0.95, n) for n in range(300)]
    assert sum(one.low <= 1 for one in found) >= 279
    assert sum(one.high >= 1 for one in found) >= 279


@pytest.mark.parametrize(
    ("new", "old", "sentence"),
    [
        ([1.0] * 4, [1.0] * 9, "4 rounds bound no ratio: it takes 5 on both sides"),
        ([1.0] * 9, [1.0] * 4, "4 rounds bound no ratio"),
        ([1.0] * 8 + [0.0], [1.0] * 9, "finite and above 0"),
        ([1.0] * 9, [1.0] * 8 + [float("inf")], "finite and above 0"),
    ],
)
def test_what_has_no_ratio_is_refused(new: list[float], old: list[float], sentence: str) -> None:
    """Too few rounds, and rounds that no clock gives."""
    with pytest.raises(ReportError, match=sentence):
        ratio_of_medians(np.array(new), np.array(old), 0.95)


def test_a_confidence_must_make_sense() -> None:
    """As with every interval."""
    with pytest.raises(UsageError):
        ratio_of_medians(np.ones(5), np.ones(5), 1.0)
