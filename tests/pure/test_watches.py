"""A watch judges a release alone: always valid, quick where harm begins late, whole across deaths."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.environments import WatchRules
from penstock.traffic import EDGES_MS, NOTHING, Arm, Reading
from penstock.watches import (
    Claim,
    Watch,
    begun,
    claimed,
    counted,
    laid,
    looked,
    share_at_most,
    summary,
    taken_up,
    written,
)

HOUR = 3600.0
LIMITS = st.floats(1e-6, 0.99)
COUNTS = st.tuples(st.integers(0, 50), st.integers(0, 500))
HISTORIES = st.lists(st.tuples(COUNTS, st.floats(0, 1)), max_size=8)


def rules(**fields: Any) -> WatchRules:
    return WatchRules.model_validate(fields)


def read(requests: int, errors: int = 0, slow: int = 0, epoch: str = "1") -> Reading:
    """Counters whose requests took at most a millisecond, but for those that took nearly two minutes."""
    latencies = [0] * (len(EDGES_MS) + 1)
    latencies[0], latencies[-10] = requests - slow, slow
    return Reading(epoch, Arm(requests, errors, tuple(latencies)), NOTHING)


def after(claim: Claim, history: list[tuple[tuple[int, int], float]]) -> Claim:
    for (events, others), part in history:
        claim = laid(counted(claim, events, events + others), part)
    return claim


# --- one claim -----------------------------------------------------------------------------------------------------


@given(LIMITS, HISTORIES, st.floats(0, 1))
def test_no_bet_is_favourable_while_the_claim_holds(limit: float, history: Any, share: float) -> None:
    """Whatever was seen, the next request changes the wealth by nothing on average at the limit, and by less below."""
    claim = after(claimed("errors", limit, 0.05), history)
    hit, clean = (math.exp(counted(claim, n, 1).wealth - claim.wealth) for n in (1, 0))
    assert limit * hit + (1 - limit) * clean == pytest.approx(1, rel=1e-6)
    rate = limit * share
    assert rate * hit + (1 - rate) * clean <= 1 + 1e-6


@given(LIMITS, HISTORIES)
def test_the_stake_is_one_and_laying_it_changes_no_wealth(limit: float, history: Any) -> None:
    """All wealth is 1 at first; laying more moves it, whether all at once or bit by bit."""
    claim = claimed("errors", limit, 0.05)
    assert claim.wealth == pytest.approx(0, abs=1e-9)
    claim = after(claim, history)
    assert laid(claim, 1).wealth == pytest.approx(claim.wealth, abs=1e-9)
    assert laid(laid(claim, 0.8), 1).logs == pytest.approx(laid(claim, 1).logs, abs=1e-9)


@given(LIMITS, COUNTS, COUNTS)
def test_one_look_or_two_make_no_difference(limit: float, first: tuple[int, int], then: tuple[int, int]) -> None:
    """Between two lays only the sums of the counts matter."""
    claim = claimed("errors", limit, 0.05)
    twice = counted(counted(claim, first[0], sum(first)), then[0], sum(then))
    once = counted(claim, first[0] + then[0], sum(first) + sum(then))
    assert (twice.events, twice.requests) == (once.events, once.requests)
    assert twice.logs == pytest.approx(once.logs, rel=1e-9, abs=1e-9)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0.0001, 0.5))
def test_a_share_is_bounded_from_above(events: int, others: int, risk: float) -> None:
    """The bound is a share, above the one seen, and smaller for a greater risk."""
    bound = share_at_most(events, events + others, risk)
    assert events / max(1, events + others) <= bound <= 1
    assert share_at_most(events, events + others, risk / 2) >= bound


def test_a_bound_is_as_wide_as_promised() -> None:
    """Of 2,000 estimates from 1,000 requests at most the risk lie below the truth."""
    draw = np.random.default_rng(1)
    for truth in (0.01, 0.1, 0.5):
        wrong = sum(share_at_most(int(n), 1000, 0.05) < truth for n in draw.binomial(1000, truth, 2000))
        assert wrong <= 0.05 * 2000


# --- the watch -----------------------------------------------------------------------------------------------------


def play(watch: Watch, rates: list[float], draw: np.random.Generator, per_second: int = 5) -> Watch:
    """Look each second at a release with these error rates, one a second, until the watch ends."""
    requests = errors = 0
    for second, rate in enumerate(rates, 1):
        requests += per_second
        errors += int(draw.binomial(per_second, rate))
        watch = looked(watch, watch.begun + second, read(requests, errors))
        if watch.ended:
            break
    return watch


def test_what_keeps_the_limit_is_rarely_said_to_break_it() -> None:
    """200 watches of 20 minutes at drifting rates up to the limit: at most 5 % breaches are promised."""
    draw, rates = np.random.default_rng(2), 0.01 * (0.5 + 0.5 * np.sin(np.arange(1200) / 100))
    breaches = 0
    for _ in range(200):
        watch = play(begun(rules(**{"for": "20m"}), 0.0, read(0)), list(rates), draw)
        assert watch.ended
        breaches += watch.ended.kind == "breach"
    assert breaches <= 6


def test_errors_that_begin_late_are_found() -> None:
    """After 50 sound minutes five times the limit is found within a thousand requests, and told as of late."""
    found = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        watch = play(begun(rules(), 0.0, read(0)), [0.001] * 3000 + [0.05] * 600, draw)
        assert watch.ended
        assert watch.ended.kind == "breach"
        assert "of the last " in watch.ended.reason
        assert watch.ended.reason.endswith("where 1 % may")
        found.append(watch.arm.requests - 15_000)
    assert 0 < np.median(found) < 1000


def test_slow_answers_break_a_rule() -> None:
    """What the release before rarely exceeded is exceeded often; the rule is named, and errors are not."""
    before = [0] * (len(EDGES_MS) + 1)
    before[10], before[11] = 9_950, 50
    watch = begun(rules(latency_p99_ratio=1.5), 0.0, read(0), before)
    assert [claim.name for claim in watch.claims] == ["errors", "latency_p99_ratio"]
    assert 0.01 <= watch.claims[1].limit < 0.02
    assert sum(claim.alpha for claim in watch.claims) < 0.05
    watch = looked(watch, 1.0, read(1000, slow=100))
    assert watch.ended
    assert (
        watch.ended.reason == "100 of 1,000 requests took longer than 11 ms (10 %), where 1 % may (latency_p99_ratio)"
    )


def test_what_is_not_known_is_not_watched() -> None:
    """Without latencies of the release before, or with ones that no bucket can exceed, a rule says that it rests."""
    everything = [0] * (len(EDGES_MS) + 1)
    everything[-2] = 5000
    for reference in ([], everything):
        watch = begun(rules(latency_p50_ratio=2), 0.0, read(0), reference)
        assert [claim.name for claim in watch.claims] == ["errors"]
        assert "latency_p50_ratio is not watched" in summary(watch)


def test_silence_is_no_success() -> None:
    """A watch without a request ends by its time, and says so."""
    watch = begun(rules(), 0.0, read(0))
    watch = looked(watch, 60.0, read(0))
    assert not watch.ended
    watch = looked(watch, HOUR, read(0))
    assert watch.ended
    assert (watch.ended.kind, watch.ended.reason) == ("over", "no request was seen")


def test_a_router_that_began_anew_is_a_gap() -> None:
    """Its counters are taken from then on; the time of which nothing is known is told, also where it never answers."""
    watch = looked(begun(rules(), 0.0, read(100, 1)), 10.0, read(200, 2))
    watch = looked(watch, 20.0, None)
    assert watch.seen == 10
    watch = looked(watch, 30.0, read(50, 50, epoch="2"))
    assert (watch.arm.requests, watch.arm.errors, watch.unknown) == (100, 1, 20)
    watch = looked(watch, 40.0, read(60, 50, epoch="2"))
    assert watch.arm.requests == 110
    watch = looked(watch, HOUR, None)
    assert watch.ended
    assert watch.ended.reason == "110 requests, 1 failed; nothing is known of 3580 s"


def test_what_ended_stays_ended() -> None:
    """Looks after a breach change nothing."""
    broken = looked(begun(rules(), 0.0, read(0)), 5.0, read(100, 100))
    assert broken.ended
    assert broken.ended.reason == "100 of 100 requests failed (100 %), where 1 % may"
    assert looked(broken, 9.0, read(1000, 1000)) == broken


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 5), st.booleans()), max_size=12), st.integers(0, 12))
def test_a_new_coordinator_decides_as_the_old_one(looks: list[tuple[int, int, bool]], death: int) -> None:
    """A watch that was written and taken up anywhere goes on to the very same end."""
    watch = begun(rules(**{"for": "10s"}, latency_p90_ratio=1), 0.0, read(0), (100,) * (len(EDGES_MS) + 1))
    other, requests, errors = watch, 0, 0
    for second, (more, failed, answers) in enumerate(looks):
        requests, errors = requests + more + failed, errors + failed
        reading = read(requests, errors) if answers else None
        if second == death:
            found = taken_up(written(other))
            assert found
            other = found
        watch, other = (looked(one, float(second), reading) for one in (watch, other))
    assert watch == other


@pytest.mark.parametrize("values", [None, {}, {"begun": 1.0}])
def test_what_no_watch_wrote_is_none(values: Any) -> None:
    """What another version may have written is not taken for a watch."""
    assert taken_up(values) is None
