"""What both arms did between two looks, whether the split is as set, and where a quantile lies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.traffic import NOTHING, Arm, Increment, Reading, above, between, log_edges, quantile_edge, split_alarm


@st.composite
def arms(draw: st.DrawFn) -> Arm:
    requests = draw(st.integers(0, 1000))
    return Arm(
        requests, draw(st.integers(0, requests)), tuple(draw(st.lists(st.integers(0, 99), min_size=3, max_size=3)))
    )


@given(arms(), arms(), arms(), arms())
def test_an_increment_is_what_came_between(a: Arm, b: Arm, c: Arm, d: Arm) -> None:
    """Counters that grew by something say that it happened, also where there were none of latencies before."""
    assert between(Reading("1", a, b), Reading("1", a + c, b + d)) == Increment(c, d)
    assert between(Reading("1", NOTHING, NOTHING), Reading("1", c, d)) == Increment(c, d)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, Reading("1", Arm(1), Arm(1))),
        (Reading("1", Arm(1), Arm(1)), None),
        (Reading("1", Arm(1), Arm(1)), Reading("2", Arm(5), Arm(5))),
        (Reading("1", Arm(5), Arm(1)), Reading("1", Arm(1), Arm(5))),
        (Reading("1", Arm(5), Arm(5)), Reading("1", Arm(6), Arm(6, 2))),
        (Reading("1", Arm(1, 0, (1, 0)), Arm(1)), Reading("1", Arm(1, 0, (1, 0, 0)), Arm(1))),
        (Reading("1", Arm(1, 0, (1, 0)), Arm(1)), Reading("1", Arm(2, 0, (0, 2)), Arm(1))),
    ],
)
def test_a_gap_is_no_data(before: Reading | None, after: Reading | None) -> None:
    """No look, a router that began anew, counters that fell or make no sense, other buckets: nothing is known."""
    assert between(before, after) is None


# --- split ---------------------------------------------------------------------------------------------------------


def test_a_sound_split_raises_no_alarm() -> None:
    """Of 300 splits of 5 %, looked at every 50 requests up to 5,000 without tolerance, one alarm at most is raised."""
    draw = np.random.default_rng(1)
    found = 0
    for _ in range(300):
        seen = draw.binomial(50, 0.05, 100).cumsum().tolist()
        found += any(split_alarm((k, 50 * i - k), 0.05, 0.0) for i, k in enumerate(seen, 1))
    assert found <= 1


@pytest.mark.parametrize(("seen", "rest"), [(60, 440), (0, 400), (500, 500)])
def test_a_wrong_split_is_told(seen: int, rest: int) -> None:
    """Twice the share, none at all, and half where 5 % were set."""
    text = split_alarm((seen, rest), 0.05, 0.1)
    assert text is not None
    assert "where 5 % were set" in text


def test_what_is_within_the_tolerance_is_none() -> None:
    """Users who stay where they are may make more requests; without requests nothing is wrong."""
    assert split_alarm((7_000, 93_000), 0.05, 0.5) is None
    assert split_alarm((7_000, 93_000), 0.05, 0.1) is not None
    assert split_alarm((0, 0), 0.05, 0.1) is None


# --- quantiles -----------------------------------------------------------------------------------------------------


def test_edges_are_a_factor_apart() -> None:
    """Two steps of √r are a ratio of r."""
    edges = log_edges(1.0, 1.5**0.5, 5)
    assert edges[2] == pytest.approx(1.5)
    assert edges[4] == pytest.approx(2.25)


@pytest.mark.parametrize(
    ("latencies", "quantile", "edge"),
    [
        ((50, 40, 9, 1), 0.5, 0),
        ((500, 400, 90, 10), 0.9, 1),
        ((500, 400, 90, 10), 0.99, 2),
        ((500, 390, 109, 1), 0.9, 1),
        ((0, 0, 1000), 0.9, None),
        ((500, 400, 50, 50), 0.99, None),
        ((90, 9, 1), 0.99, None),
        ((1000, 0), 0.5, 0),
    ],
)
def test_the_nearest_edge_stands_for_a_quantile(latencies: tuple[int, ...], quantile: float, edge: int | None) -> None:
    """Where as many are above as should be, or nearly; unknown beyond the last edge and with few requests."""
    assert quantile_edge(latencies, quantile) == edge


def test_above_an_edge_are_the_buckets_after_it() -> None:
    """Bucket i holds what took at most edge i."""
    assert [above((1, 2, 3), edge) for edge in (0, 1)] == [5, 3]
