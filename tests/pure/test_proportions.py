"""Intervals of scores of 0 and 1: published figures, exact coverage, and what must hold for all counts."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ReportError, UsageError
from penstock.proportions import (
    clopper_pearson,
    is_beyond,
    mcnemar,
    newcombe,
    paired_shares,
    scaled_statistic,
    score_statistic,
    score_tail,
    tango,
    wilson,
)
from penstock.sample_sizes import paired_power


@st.composite
def counts(draw: st.DrawFn, most: int = 60) -> tuple[int, int, int]:
    """Wins, losses and examples."""
    n = draw(st.integers(1, most))
    wins = draw(st.integers(0, n))
    return wins, draw(st.integers(0, n - wins)), n


# --- one share -----------------------------------------------------------------------------------------------------


def test_clopper_pearson_is_as_published() -> None:
    """The textbook's 10 right of 20 has two-sided 95 % bounds of .272 and .728."""
    found = clopper_pearson(10, 20, 0.975)
    assert (round(found.low, 3), round(found.high, 3)) == (0.272, 0.728)
    assert (found.estimate, found.n, found.discordant, found.confidence) == (0.5, 20, None, 0.975)


def test_nothing_wrong_still_leaves_doubt() -> None:
    """All right of n has the bound α^(1/n), and nothing right 0."""
    assert clopper_pearson(59, 59, 0.95).low == pytest.approx(0.05 ** (1 / 59))
    assert clopper_pearson(59, 59, 0.95).high == 1
    assert clopper_pearson(0, 59, 0.95).low == 0
    assert clopper_pearson(0, 59, 0.95).high == pytest.approx(1 - 0.05 ** (1 / 59))


def test_wilson_is_as_published() -> None:
    """Newcombe's example of 1998, 81 of 263 at two-sided 95 %: .2553 to .3662; and the ends are within 0 and 1."""
    found = wilson(81, 263, 0.975)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20, 0.975).low == 0
    assert wilson(20, 20, 0.975).high == 1


@pytest.mark.parametrize("share", [0.02, 0.5, 0.85, 0.99])
def test_the_exact_bound_never_errs_more_than_it_says(share: float) -> None:
    """Over all results of 200 examples, each bound is wrong with at most 5 %."""
    chances = [math.comb(200, k) * share**k * (1 - share) ** (200 - k) for k in range(201)]
    found = [clopper_pearson(k, 200, 0.95) for k in range(201)]
    assert sum(c for c, i in zip(chances, found, strict=True) if i.low > share) <= 0.05
    assert sum(c for c, i in zip(chances, found, strict=True) if i.high < share) <= 0.05


# --- paired shares -------------------------------------------------------------------------------------------------


def test_tango_is_as_published() -> None:
    """The airway example of Fagerland and others, 1 and 7 of 21 at two-sided 95 %: -.517 to -.026."""
    found = tango(1, 7, 21, 0.975)
    assert (round(found.low, 3), round(found.high, 3)) == (-0.517, -0.026)
    assert score_statistic(1, 7, 21, found.high) == pytest.approx(-1.959964, abs=1e-5)
    assert tango(7, 1, 21, 0.975) == found.mirrored()


def test_few_discordant_pairs_are_counted_out() -> None:
    """The method says so; from 101 on the score statistic is used, and both agree where they meet."""
    few, many = paired_shares(55, 45, 1000, 0.95), paired_shares(56, 45, 1000, 0.95)
    assert "mid-P" in few.method
    assert "Tango" in many.method
    assert few.low == pytest.approx(tango(55, 45, 1000, 0.95).low, abs=5e-4)
    assert few.discordant == 100


def test_a_million_examples_are_no_more_work() -> None:
    """Only counts matter; ten discordant pairs of a million are bounded within hundredths of a per mille."""
    found = paired_shares(6, 4, 1_000_000, 0.95)
    assert -1e-5 < found.low < 2e-6 < found.high < 1e-5


@cache
def _share(wins: int, losses: int, n: int) -> tuple[float, float]:
    found = paired_shares(wins, losses, n, 0.95)
    return found.low, found.high


@pytest.mark.parametrize(("n", "disagreement", "gain"), [(360, 0.02, 0.0), (360, 0.04, -0.03), (100, 0.1, 0.05)])
def test_paired_bounds_cover_the_truth(n: int, disagreement: float, gain: float) -> None:
    """Each bound of 95 % is right in at least 93 % of all samples, by counting them out, and in at most 98 %."""
    draw = np.random.default_rng(1)
    chances = [(disagreement + gain) / 2, (disagreement - gain) / 2, 1 - disagreement]
    found = np.array([_share(wins, losses, n) for wins, losses, _ in draw.multinomial(n, chances, 800).tolist()])
    assert 0.93 <= (found[:, 0] <= gain).mean() <= 0.98
    assert 0.93 <= (found[:, 1] >= gain).mean() <= 0.98


@pytest.mark.parametrize("n", [50, 360, 2000])
@pytest.mark.parametrize("disagreement", [0.01, 0.05, 0.3])
def test_equal_models_are_told_apart_at_most_as_often_as_promised(n: int, disagreement: float) -> None:
    """A gain of more than 0 is shown of equal models with at most 5 %, counted out."""
    assert paired_power(n, 0.0, disagreement, 0.0) <= 0.05


@pytest.mark.parametrize("gain", [-0.03, -0.01, 0.02])
def test_a_wrong_claim_passes_at_most_two_points_too_often(gain: float) -> None:
    """At the very threshold, whatever the disagreement, a pass has a chance of at most 7 %, counted out."""
    sizes = [paired_power(360, -gain, abs(gain) * factor, gain) for factor in (1.0, 1.3, 2.0, 4.0)]
    assert max(sizes) <= 0.07


@settings(max_examples=15, deadline=None)
@given(counts(), st.sampled_from([0.8, 0.95, 0.999]))
def test_swapping_the_models_mirrors_the_interval(case: tuple[int, int, int], confidence: float) -> None:
    """The loss of the one is the gain of the other; the bounds are around the estimate, within -1 and 1."""
    wins, losses, n = case
    found = paired_shares(wins, losses, n, confidence)
    assert paired_shares(losses, wins, n, confidence) == found.mirrored()
    assert -1 <= found.low <= found.estimate <= found.high <= 1


@settings(max_examples=12, deadline=None)
@given(counts(40))
def test_more_confidence_is_never_shorter(case: tuple[int, int, int]) -> None:
    """A bound of 99 % lies outside that of 90 %."""
    narrow, wide = (paired_shares(*case, confidence) for confidence in (0.9, 0.99))
    assert wide.low <= narrow.low + 1e-6
    assert wide.high >= narrow.high - 1e-6


@settings(max_examples=15, deadline=None)
@given(counts(40), st.floats(-0.4, 0.4))
def test_one_more_win_is_never_more_surprising_to_lose(case: tuple[int, int, int], gain: float) -> None:
    """Turning a loss into a tie, or a tie into a win, never raises the tail."""
    wins, losses, n = case
    tail = score_tail(wins, losses, n, gain)
    assert 0 <= tail <= 1
    if losses and abs(gain) < 0.39:
        assert score_statistic(wins, losses - 1, n, gain) >= score_statistic(wins, losses, n, gain) - 1e-9


@settings(max_examples=15, deadline=None)
@given(counts(150), st.floats(-0.3, 0.3))
def test_asking_for_one_threshold_agrees_with_the_bound(case: tuple[int, int, int], gain: float) -> None:
    """`is_beyond` says what the lower bound says, away from it."""
    low = paired_shares(*case, 0.95).low
    if abs(low - gain) > 0.02:
        assert is_beyond(*case, gain, 0.95) == (low > gain)


def test_the_ends_of_the_scale_are_no_special_case() -> None:
    """All won, all lost, nothing discordant, a single example: bounds within -1 and 1 that hold the estimate."""
    assert paired_shares(200, 0, 200, 0.95).high == pytest.approx(1)
    assert paired_shares(0, 200, 200, 0.95).low == -1
    nothing = paired_shares(0, 0, 360, 0.95)
    assert nothing.high == -nothing.low == pytest.approx(2.65 / 360, rel=0.02)
    assert score_statistic(0, 0, 10, 0.0) == 0
    assert score_statistic(10, 0, 10, -1.0) == math.inf
    assert score_tail(3, 0, 3, -1.0) <= 1


def test_mcnemar_is_the_mid_p_sign_test() -> None:
    """5 to 0 is half of 1/32, 4 to 1 that and half of 5/32, and nothing discordant says nothing."""
    assert mcnemar(5, 0) == pytest.approx(1 / 64)
    assert mcnemar(4, 1) == pytest.approx(1 / 32 + 5 / 64)
    assert mcnemar(0, 0) == 1


@given(case=counts(), both=st.integers(0, 40), scale=st.sampled_from([0.5, 0.9, 0.99, 1.0, 1.02, 1.4]))
def test_a_scaled_comparison_mirrors_with_the_models(case: tuple[int, int, int], both: int, scale: float) -> None:
    """New over scale times old is old under new over scale, and with a scale of 1 it is McNemar's statistic."""
    wins, losses, n = case
    one, other = (
        scaled_statistic(wins, losses, both, n + both, scale),
        scaled_statistic(losses, wins, both, n + both, 1 / scale),
    )
    assert one == pytest.approx(-other, rel=1e-6, abs=1e-6)
    if scale == 1:
        assert one == pytest.approx(score_statistic(wins, losses, n + both, 0.0), abs=1e-9)


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_a_scaled_comparison_is_of_the_most_likely_chances(scale: float) -> None:
    """Among all results at the edge none is more likely than the one whose spread is taken."""
    wins, losses, both, n = 7, 15, 60, 100
    spread = (both + wins - scale * (both + losses)) / scaled_statistic(wins, losses, both, n, scale)
    flips = spread**2 / (n * scale)
    grid = np.linspace(1e-6, 1, 200_001)
    won = flips * grid
    lost, right = flips - won, (won - scale * (flips - won)) / (scale - 1)
    sound = (lost > 0) & (right > 0) & (won + lost + right < 1)
    best = _likelihood((wins, losses, both, n), won[sound], lost[sound], right[sound]).max()
    for other in np.linspace(0.5, 1.5, 11) * flips:
        won = other * grid
        lost, right = other - won, (won - scale * (other - won)) / (scale - 1)
        sound = (lost > 0) & (right > 0) & (won + lost + right < 1)
        if sound.any():
            assert _likelihood((wins, losses, both, n), won[sound], lost[sound], right[sound]).max() <= best + 1e-6


def _likelihood(case: tuple[int, int, int, int], won: Any, lost: Any, right: Any) -> Any:
    wins, losses, both, n = case
    neither = n - wins - losses - both
    return wins * np.log(won) + losses * np.log(lost) + both * np.log(right) + neither * np.log(1 - won - lost - right)


# --- unpaired shares -----------------------------------------------------------------------------------------------


def test_newcombe_is_as_published() -> None:
    """Newcombe's example (a), 56 of 70 and 48 of 80 at two-sided 95 %: .0524 to .3339; and it says so."""
    found = newcombe((56, 70), (48, 80), 0.975)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    assert "unpaired" in found.method


def test_a_scaled_comparison_moves_with_the_scale() -> None:
    """Against nine tenths of the other model's share the gain is larger."""
    assert newcombe((56, 70), (48, 80), 0.95, 0.9).estimate == pytest.approx(0.8 - 0.54)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_impossible_counts_are_refused() -> None:
    """No examples, more right than there are, a negative count, a confidence in percent."""
    with pytest.raises(ReportError, match="there are no examples"):
        clopper_pearson(0, 0, 0.95)
    with pytest.raises(ReportError, match="cannot be counted among 10"):
        paired_shares(6, 5, 10, 0.95)
    with pytest.raises(ReportError, match="cannot be counted"):
        wilson(-1, 10, 0.95)
    with pytest.raises(UsageError, match="write a number above"):
        tango(1, 2, 10, 95)
