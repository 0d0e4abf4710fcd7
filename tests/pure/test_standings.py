"""What people are told of a rollout: counts, verdict so far, what is missing, how it ended, and charts that agree."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canaries import Limits
from penstock.error_counts import bounded, unbounded
from penstock.rollouts import Asked, Event, Observed, Terms, advanced, begin, written
from penstock.standings import Moved, Seen, Standing, rate_above, rate_below, standing_of
from penstock.traffic import EDGES_MS, Arm, Increment

TERMS = Terms("canary", (500, 5000), interval=10, deadline=100, limits=Limits(edges=EDGES_MS))


def kept(*events: Event, terms: Terms = TERMS, **more: Any) -> Mapping[str, Any]:
    """What a release keeps after these events, as it comes back from the disk."""
    state, move = begin(terms, 0.0)
    moves = [{"at": 0.0, "kind": move.kind, "width": move.width, "reason": move.reason}]
    for event in events:
        state, move = advanced(state, event)
    rollout = {"stable": 7, "state": written(state), "move": asdict(move), "moves": moves, **more}
    found: Mapping[str, Any] = json.loads(json.dumps(rollout))
    return found


def look(at: float, canary: Arm, stable: Arm, width: int = 500) -> Observed:
    return Observed(at, width, Increment(canary, stable))


def standing(*events: Event, terms: Terms = TERMS, **more: Any) -> Standing:
    found = standing_of(kept(*events, terms=terms, **more))
    assert found is not None
    return found


def test_one_that_goes_on_tells_what_was_counted_and_what_is_missing() -> None:
    """Width, deadline, counts of both releases, the verdict so far, and about how many requests would decide."""
    found = standing(look(1.0, Arm(100), Arm(1900, 2)))
    assert (found.strategy, found.stable, found.width, found.widths) == ("canary", 7, 0.05, (0.05, 0.5))
    assert (found.begun, found.until, found.ended, found.cause) == (0.0, 100.0, None, None)
    assert (found.at_canary, found.at_stable) == (Seen(100, 0, None, None), Seen(1900, 2, None, None))
    assert found.verdict == "inconclusive"
    assert "0 errors in 100 requests of the canary do not exclude a rate of 1 %" in str(found.reason)
    assert found.missing is not None
    assert 200 < found.missing < 400
    assert found.moves == (Moved(0.0, "widen", 0.05, "canary begins"),)


def test_latencies_are_told_once_they_are_known() -> None:
    """The edges nearest to the quantiles, in milliseconds; None while too few requests were above."""
    slow = [0] * (len(EDGES_MS) + 1)
    slow[4], slow[10] = 1900, 100
    found = standing(look(1.0, Arm(100), Arm(2000, 0, tuple(slow))))
    assert found.at_stable is not None
    assert found.at_stable.p50_ms in EDGES_MS[3:5]
    assert found.at_stable.p99_ms in EDGES_MS[9:11]
    assert found.at_canary == Seen(100, 0, None, None)


def test_harm_is_in_the_reason_and_in_the_charts() -> None:
    """What was rolled back for its errors says so, and its ratio lies above 1 with both bounds."""
    found = standing(look(1.0, Arm(100, 30), Arm(1900, 19)))
    assert (found.ended, found.cause, found.verdict, found.width) == ("roll_back", "evidence", "fail", 0.0)
    assert "at 5 % errors: 30 of 100" in str(found.reason)
    rate, ratio = found.charts
    assert (rate.kind, rate.estimate, rate.most, rate.n) == ("level", 0.3, 0.01, 100)
    assert rate.low > 0.01
    assert (ratio.kind, ratio.most, ratio.n) == ("ratio", 2.0, 2000)
    assert 1 < ratio.low < ratio.estimate < ratio.high


def test_safety_is_in_the_chart() -> None:
    """What was promoted is below its limit with both bounds; without errors there is no ratio to draw."""
    terms = Terms("canary", (500,), interval=0, deadline=100)
    found = standing(look(1.0, Arm(500), Arm(9500)), terms=terms)
    assert (found.ended, found.verdict, found.width) == ("promote", "pass", 1.0)
    (rate,) = found.charts
    assert rate.low == 0.0
    assert rate.high < 0.01


def test_a_person_is_the_cause() -> None:
    """Who ended it and why is the reason; the verdict stays what the evidence showed."""
    found = standing(look(1.0, Arm(10), Arm(190)), Asked(2.0, "abort", "ada", "wrong prices"))
    assert (found.ended, found.cause, found.verdict) == ("roll_back", "person", "inconclusive")
    assert found.reason == "ada asked to abort: wrong prices"


def test_what_was_stopped_on_the_way_has_ended() -> None:
    """A release that is gone is not tried any more, though nothing was decided; one on its way is."""
    values = kept(look(1.0, Arm(10), Arm(190)))
    gone = standing_of(values, "rolled_back", "stopped")
    assert gone is not None
    assert (gone.going_on, gone.ended, gone.cause, gone.reason, gone.width) == (
        False,
        "roll_back",
        "failure",
        "stopped",
        0.0,
    )
    going = standing_of(values, "canary")
    assert going is not None
    assert going.going_on


def test_without_requests_there_is_no_chart() -> None:
    """Nothing is drawn of nothing; what is missing is told all the same."""
    found = standing()
    assert (found.charts, found.at_canary, found.verdict) == ((), Seen(0, 0, None, None), "inconclusive")
    assert found.missing


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({"probe": {"verdict": "pass", "reason": "12 requests", "values": {}}}, None),
        ({"strategy": "recreate"}, "recreate"),
    ],
)
def test_what_is_not_tried_in_traffic_has_no_counts(values: Mapping[str, Any], strategy: str | None) -> None:
    """A probe alone, or a strategy without widths; of a release with neither there is nothing to tell."""
    found = standing_of(values)
    assert found is not None
    assert (found.strategy, found.width, found.at_canary, found.charts) == (strategy, None, None, ())
    assert found.probe == ({"verdict": "pass", "reason": "12 requests"} if "probe" in values else None)
    assert standing_of(None) is standing_of({}) is None


def test_the_object_is_plain_json() -> None:
    """What `--json` prints comes back from JSON as it went."""
    found = standing(look(1.0, Arm(100, 30), Arm(1900, 19)), probe={"verdict": "pass", "reason": "fine", "values": {}})
    assert json.loads(json.dumps(found.as_json()))["charts"][0]["n"] == 100


def test_words() -> None:
    """One is not many, what nobody knows is not said, and what has ended needs nothing more."""
    assert Seen(1, 1, None, 11.39).words == "1 request, 1 error (100 %), p99 11.4 ms"
    going = Standing("canary", width=0.05, widths=(0.05, 0.5), verdict="inconclusive", missing=1)
    assert (going.needs, going.way) == ("about 1 more request of the canary", "5 %, then 50 %, then all")
    assert going.verdict_word == "inconclusive"
    assert replace(going, missing=None).needs == ""
    ended = replace(going, ended="promote", width=1.0)
    assert (ended.needs, ended.way, ended.verdict_word) == ("", "", "promoted")


COUNTS = st.tuples(st.integers(0, 3000), st.floats(0, 1)).map(lambda pair: (int(pair[0] * pair[1] ** 3), pair[0]))


@given(COUNTS, st.floats(0.001, 0.5))
def test_the_upper_bound_is_what_the_rule_excludes(counts: tuple[int, int], limit: float) -> None:
    """The bound is below a limit exactly where the same evidence excludes that limit."""
    errors, requests = counts
    high = rate_below(errors, requests, 0.05)
    is_excluded = bounded(unbounded(limit), errors, requests).wealth >= -math.log(0.05)
    assert is_excluded is (high <= limit) or math.isclose(high, limit, rel_tol=1e-6)


@given(COUNTS)
def test_bounds_hold_what_was_seen(counts: tuple[int, int]) -> None:
    """The rate that was seen lies between its bounds, which are shares."""
    errors, requests = counts
    rate = errors / requests if requests else 0.0
    assert 0 <= rate_above(errors, requests, 0.05) <= rate + 1e-9
    assert rate - 1e-9 <= rate_below(errors, requests, 0.05) <= 1


@given(st.integers(1, 400), st.integers(1, 400))
def test_more_requests_without_errors_bound_more(few: int, more: int) -> None:
    """The upper bound falls with every request that was answered."""
    assert rate_below(0, few + more, 0.05) < rate_below(0, few, 0.05) or rate_below(0, few, 0.05) < 0.002
