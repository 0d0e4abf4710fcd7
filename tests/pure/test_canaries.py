"""One width of a canary: harm, safety or neither, each with its reason, and never safety without data."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.canaries import CustomWord, Evidence, Judgment, Limits, Told, gathered, judged, nothing_seen
from penstock.errors import UsageError
from penstock.latencies import LatencyRule
from penstock.traffic import Arm, Increment, log_edges

EDGES = log_edges(1.0, 2.0, 6)
P90 = LatencyRule(0.9, 2.0)


def at(buckets: Mapping[int, int], errors: int = 0) -> Arm:
    latencies = tuple(buckets.get(i, 0) for i in range(len(EDGES) + 1))
    return Arm(sum(latencies), errors, latencies)


def seen(limits: Limits, *looks: tuple[Arm, Arm], customs: Mapping[str, Told] | None = None) -> Evidence:
    evidence = nothing_seen(limits)
    for canary, stable in looks:
        evidence = gathered(evidence, limits, Increment(canary, stable))
    return replace(evidence, customs=customs or {})


def verdict(limits: Limits, canary: Arm, stable: Arm, share: float = 0.1) -> Judgment:
    return judged(seen(limits, (canary, stable)), limits, share)


# --- errors --------------------------------------------------------------------------------------------------------


def test_more_errors_than_chance_explains_are_harm() -> None:
    """The reason counts errors and requests of both arms, and says about how much likelier they are."""
    found = verdict(Limits(), Arm(100, 12), Arm(900, 9))
    assert found == Judgment(
        "fail",
        "errors: 12 of 100 requests at the canary, 9 of 900 at the stable release, about 12 times as likely: "
        "more than chance explains at a risk of 0.05",
    )


def test_a_canary_below_the_limit_is_safe() -> None:
    """Requests without an error exclude 1 % by themselves, though nothing failed that could be compared."""
    found = verdict(Limits(), Arm(340), Arm(3060))
    assert found == Judgment("pass", "0 errors in 340 requests of the canary exclude a rate of 1 %")


def test_a_canary_that_is_no_worse_is_safe_above_the_limit_too() -> None:
    """Both fail in 5 %: the ratio widens."""
    found = verdict(Limits(), Arm(1000, 50), Arm(9000, 450))
    assert found.verdict == "pass"
    assert found.reason.endswith("about 1 times as likely: 2 times is excluded")


def test_too_little_says_how_much_is_missing() -> None:
    """Both roads are named, and the shorter one is counted."""
    found = verdict(Limits(), Arm(100), Arm(900))
    assert found == Judgment(
        "inconclusive",
        "0 errors in 100 requests of the canary do not exclude a rate of 1 % or 2 times those of the stable release",
        236,
    )
    alone = verdict(Limits(error_rate_ratio=None), Arm(100), Arm(900))
    assert alone.reason == "0 errors in 100 requests of the canary do not exclude a rate of 1 %"
    ratio = verdict(Limits(error_rate_at_most=None), Arm(100, 1), Arm(900, 9))
    assert (
        ratio.reason == "1 errors in 100 requests of the canary do not exclude 2 times the errors of the stable release"
    )
    assert ratio.missing is not None


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_request_of_the_canary_is_never_success(requests: int, errors: int) -> None:
    """Whatever the stable release does, a canary without a request is neither safe nor harmful."""
    found = verdict(Limits(), Arm(), Arm(max(requests, errors), errors))
    assert found.verdict == "inconclusive"
    assert "no data is no success" in found.reason


def test_a_broken_stable_release_proves_nothing() -> None:
    """Where nearly everything fails in both arms twice as much is impossible, so that it was excluded means nothing."""
    found = verdict(Limits(), Arm(1000, 900), Arm(9000, 8100))
    assert (found.verdict, found.missing) == ("inconclusive", None)


def test_the_risk_is_divided_among_tests_and_widths() -> None:
    """What is harm for one test in one width is not yet for two tests in three widths."""
    limits = Limits(latencies=(P90,), edges=EDGES)
    arms = Arm(100, 6), Arm(900, 9)
    assert judged(seen(Limits(), arms), Limits(), 0.1).verdict == "fail"
    assert judged(seen(limits, arms), limits, 0.1, widths=30).verdict == "inconclusive"


# --- latency, own rules, split -------------------------------------------------------------------------------------


def test_a_slow_canary_is_harm() -> None:
    """p90 beyond twice that of the stable release; the first look only teaches what is usual."""
    limits = Limits(latencies=(P90,), edges=EDGES)
    stable, slow = at({1: 820, 2: 80}), at({1: 60, 5: 40})
    found = judged(seen(limits, (at({1: 100}), stable), (slow, stable)), limits, 0.1)
    assert found.verdict == "fail"
    assert found.reason == "latency: the p90 is more than 2 times that of the stable release, at 0.025"


def test_a_required_latency_holds_a_width_back() -> None:
    """Without `require` latency only aborts; with it the width waits until it is shown to be below."""
    free, held = (Limits(latencies=(P90,), edges=EDGES, require=names) for names in ((), (P90.name,)))
    looks = (at({1: 400}), at({1: 3600}))
    assert judged(seen(free, looks), free, 0.1).verdict == "pass"
    found = judged(seen(held, looks), held, 0.1)
    assert (found.verdict, found.reason) == ("inconclusive", "latency_p90_ratio is not yet shown to be below 2")
    more = (at({1: 400}), at({1: 3000, 2: 600}))
    assert judged(seen(held, looks, more, more), held, 0.1).verdict == "pass"


@pytest.mark.parametrize(
    ("word", "verdict", "reason"),
    [
        ("fail", "fail", "sales: the rule says fail"),
        ("inconclusive", "inconclusive", "sales is undecided"),
        ("errored", "inconclusive", "sales could not be asked"),
        (None, "inconclusive", "sales has said nothing yet"),
        ("pass", "pass", "0 errors in 400 requests of the canary exclude a rate of 1 %"),
    ],
)
def test_a_rule_of_ones_own_has_three_verdicts_and_an_error(word: CustomWord | None, verdict: str, reason: str) -> None:
    """Fail is harm; required, only a pass lets the width widen; not required, all but fail do."""
    customs = {} if word is None else {"sales": Told(word)}
    for require in ((), ("sales",)):
        limits = Limits(customs=("sales",), require=require)
        found = judged(seen(limits, (Arm(400), Arm(3600)), customs=customs), limits, 0.1)
        expected = verdict if require or word == "fail" else "pass"
        assert found.verdict == expected
        assert found.reason == reason or not require


def test_a_split_that_is_not_the_one_set_holds() -> None:
    """Half of the requests where a tenth were set: the arms may not be alike. Users who stay have more leeway."""
    found = verdict(Limits(), Arm(400), Arm(400))
    assert found.verdict == "inconclusive"
    assert found.reason == "the canary got 50 % of 800 requests where 10 % were set: the arms may not be alike"
    limits = Limits(assignment="sticky")
    assert verdict(limits, Arm(4200), Arm(30_000)).verdict == "pass"
    assert verdict(Limits(), Arm(4200), Arm(30_000)).verdict == "inconclusive"


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"error_rate_ratio": None, "error_rate_at_most": None}, "nothing could ever widen"),
        ({"error_rate_ratio": 1.0}, "above 1"),
        ({"error_rate_ratio": math.nan}, "above 1"),
        ({"error_rate_at_most": 0.0}, "write a share"),
        ({"latencies": (P90,)}, "name their edges"),
        ({"edges": (1.0, 1.0)}, "must rise"),
        ({"require": ("sales",)}, "require names sales"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_limits_make_sense(wrong: dict[str, object], text: str) -> None:
    """What could never decide or be counted is refused with what to write."""
    with pytest.raises(UsageError, match=text):
        Limits(**wrong)  # type: ignore[arg-type]
