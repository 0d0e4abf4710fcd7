"""Latency as counts: a slow tail is seen, an equal one is not, and coarse buckets never accuse."""

import math
from bisect import bisect_left

import numpy as np
import pytest

from penstock.errors import UsageError
from penstock.latencies import LatencyRule, Watch, seen_slow, watched
from penstock.traffic import Arm, Increment, log_edges

EDGES = log_edges(1.0, math.sqrt(1.5), 44)


def counted(values: list[float]) -> Arm:
    buckets = [0] * (len(EDGES) + 1)
    for value in values:
        buckets[bisect_left(EDGES, value)] += 1
    return Arm(len(values), 0, tuple(buckets))


def watch(draw: np.random.Generator, rule: LatencyRule, slow: float, factor: float, looks: int) -> Watch:
    """A rule after so many looks at 100 requests each, a fifth of them at the canary, some of them slower there."""
    found, history = watched(rule), counted([draw.lognormal(3, 0.5) for _ in range(1000)]).latencies
    for _ in range(looks):
        at_canary = [draw.lognormal(3, 0.5) * (factor if draw.random() < slow else 1) for _ in range(20)]
        new = Increment(counted(at_canary), counted([draw.lognormal(3, 0.5) for _ in range(80)]))
        found = seen_slow(found, EDGES, history, new)
        history = tuple(a + b for a, b in zip(history, new.stable.latencies, strict=True))
    return found


def test_a_slow_tail_is_seen() -> None:
    """20 % of requests that take three times as long are found by p99 in at least 95 % of runs of 10,000 requests."""
    draw = np.random.default_rng(1)
    found = [watch(draw, LatencyRule(0.99, 1.5), 0.2, 3, 100).harm.wealth >= -math.log(0.05) for _ in range(20)]
    assert sum(found) >= 19


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_what_is_tolerated_is_not_harm(quantile: float) -> None:
    """Equal releases, and one that takes 1.4 times as long throughout, do not exceed a ratio of 1.5."""
    draw = np.random.default_rng(1)
    for factor in (1.0, 1.4):
        found = [watch(draw, LatencyRule(quantile, 1.5), 1, factor, 40).harm.wealth for _ in range(5)]
        assert max(found) < -math.log(0.05)


def test_safety_is_shown_of_an_equal_release_only() -> None:
    """p90 within 10,000 requests: shown for an equal release, not for one that takes twice as long."""
    draw = np.random.default_rng(1)
    rule = LatencyRule(0.9, 1.5)
    assert watch(draw, rule, 1, 1.0, 100).safety.wealth >= -math.log(0.05)
    assert watch(draw, rule, 1, 2.0, 100).safety.wealth < -math.log(0.05)


def test_without_a_past_or_a_place_nothing_is_said() -> None:
    """No history, no latencies, and a ratio beyond the last edge leave the evidence for harm alone."""
    rule, new = LatencyRule(0.5, 10.0), Increment(Arm(9, 0, (0, 9)), Arm(9, 0, (9, 0)))
    assert seen_slow(watched(rule), (1.0,), (), new) == watched(rule)
    assert seen_slow(watched(rule), (1.0,), (50, 0), Increment(Arm(9), Arm(9))) == watched(rule)
    beyond = seen_slow(watched(rule), (1.0,), (50, 0), new)
    assert beyond.harm == watched(rule).harm
    assert beyond.safety.events == (9, 0)


def test_coarse_buckets_never_accuse() -> None:
    """Where 1.5 times the edge is no edge, harm is counted above the next one up, safety above the next one down."""
    edges, history = (1.0, 2.0, 4.0), (50, 0, 0, 0)
    new = Increment(Arm(10, 0, (0, 10, 0, 0)), Arm(10, 0, (10, 0, 0, 0)))
    found = seen_slow(watched(LatencyRule(0.5, 1.5)), edges, history, new)
    assert (found.harm.events, found.safety.events) == ((0, 0), (10, 0))


def test_a_rule_has_a_name_and_makes_sense() -> None:
    """The name is as written in the file; shares and ratios that are none are refused."""
    assert [LatencyRule(q, 2).name for q in (0.5, 0.99, 0.999)] == [
        "latency_p50_ratio",
        "latency_p99_ratio",
        "latency_p99.9_ratio",
    ]
    for quantile, ratio in ((0.0, 2.0), (1.0, 2.0), (0.5, 0.9), (0.5, math.nan)):
        with pytest.raises(UsageError, match="write 1 or more"):
            LatencyRule(quantile, ratio)
