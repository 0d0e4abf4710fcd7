"""Whole rollouts over traffic and error rates that drift keep their promises: few false ends, soon decided."""

from statistics import median

import numpy as np
import pytest
from scipy.stats import binom

from penstock.rollouts import Terms
from pure.simulated_rollouts import Played, play

CANARY = Terms("canary", (500, 2500, 5000), interval=1.0, deadline=3600.0)
PROMISED = 0.05
"""The share of equal releases that is rolled back, and of widths that take more than 1,000 requests, at most."""


def played(base: float, risk: float, runs: int, terms: Terms = CANARY, every: int = 10) -> list[Played]:
    """Rollouts at a base error rate, of a canary that fails so many times as often."""
    draw = np.random.default_rng(25)
    return [play(draw, base, risk, terms, every) for _ in range(runs)]


def room(runs: int) -> int:
    """How many of the runs may be what the promised share of them is, but for chance of one in a thousand."""
    return int(binom.ppf(0.999, runs, PROMISED))


@pytest.mark.parametrize(("base", "runs"), [(0.0, 100), (0.001, 100), (0.01, 40)])
def test_equal_releases_are_seldom_rolled_back(base: float, runs: int) -> None:
    """At every error rate at most one in twenty; and where errors are rare most widths widen within 1,000 requests."""
    ends = played(base, 1, runs)
    assert sum(p.end == "back" for p in ends) <= room(runs)
    widths = [n for p in ends for n in p.widened]
    if base < 0.01:
        assert sum(n > 1000 for n in widths) <= room(len(widths))


@pytest.mark.parametrize(("base", "terms"), [(0.01, CANARY), (0.001, CANARY), (0.01, Terms("canary", (1000,)))])
def test_ten_times_the_errors_are_caught(base: float, terms: Terms) -> None:
    """At least 95 in 100 are rolled back; at a tenth of the traffic and errors of 1 % mostly within 1,000 requests."""
    ends = played(base, 10, 40, terms, every=10 if terms is CANARY else 1)
    assert sum(p.end != "back" for p in ends) <= room(len(ends))
    if terms is not CANARY:
        assert median(p.requests for p in ends) <= 1000
