"""Batches: valid whenever one stops, in an order nobody chooses, and as cheap as promised."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decisions import Kind, Rule
from penstock.errors import ReportError, UsageError
from penstock.sequences import STAKES, advanced, begun, drawn_order, judged

Floats = npt.NDArray[np.float64]
RULE = Rule("better_than", 0.02, indifference=0.01, confidence=1 - 1e-4 / 64)


def differences(draw: np.random.Generator, n: int, disagreement: float, gain: float) -> Floats:
    chances = [(disagreement - gain) / 2, 1 - disagreement, (disagreement + gain) / 2]
    return draw.choice([-1.0, 0.0, 1.0], n, p=chances)


# --- promises ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "wrong"), [(0.0, "pass"), (0.02, "fail")])
def test_no_stopping_time_errs_more_than_promised(gain: float, wrong: str) -> None:
    """Looked at every 20 examples up to 4,000 with α = 10 %, at the worst truth, at most 10 % end wrong."""
    draw, rule = np.random.default_rng(1), Rule("better_than", 0.0, indifference=0.01, confidence=0.9)
    ends = [judged(begun(rule), differences(draw, 4000, 0.1, gain), 20).verdict for _ in range(200)]
    assert ends.count("pass" if wrong == "pass" else "fail") <= 0.13 * len(ends)


@pytest.mark.parametrize(("gain", "examples", "labels"), [(0.0, 2113, 211), (0.06, 1861, 186)])
def test_few_examples_decide_what_is_clear(gain: float, examples: int, labels: int) -> None:
    """At the guarantee of ease.ml/ci for 32 commits, examples and labels are at most what was to beat."""
    draw = np.random.default_rng(1)
    ends = [judged(begun(RULE), differences(draw, 29_048, 0.1, gain), 20) for _ in range(60)]
    assert {end.verdict for end in ends} == {"fail" if gain == 0 else "pass"}
    assert np.mean([end.n for end in ends]) <= 1.05 * examples
    assert np.mean([end.discordant for end in ends]) <= 1.05 * labels


@pytest.mark.parametrize(("kind", "level", "verdict"), [("at_least", 0.9, "pass"), ("at_most", 0.9, "fail")])
def test_levels_are_judged_too(kind: Kind, level: float, verdict: str) -> None:
    """A share of .9 against a level of .8."""
    scores = (np.random.default_rng(1).random(3000) < level).astype(float)
    assert judged(begun(Rule(kind, 0.8)), scores, 100).verdict == verdict
    assert judged(begun(Rule(kind, 0.9)), scores, 100).verdict == "inconclusive"


def test_numeric_scores_and_relative_margins_are_judged() -> None:
    """Bounded scores that are no 0 and 1; the range follows from scores and scale."""
    draw = np.random.default_rng(1)
    new, old = draw.beta(8, 2, 4000), draw.beta(6, 4, 4000)
    assert judged(begun(Rule("better_than", 0.05)), new - old, 500).verdict == "pass"
    rule = Rule("not_worse_than", 0.1, relative=True)
    assert judged(begun(rule), new - rule.scale * old, 500).verdict == "pass"
    assert judged(begun(rule, -1, 1), old - rule.scale * new, 500).verdict == "fail"


# --- laws ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=200), st.integers(1, 200))
def test_batches_only_say_when_one_looks(values: list[float], batch: int) -> None:
    """The wealth after all values is the same however they were cut."""
    found = np.array(values)
    rule = Rule("better_than", 0.1, confidence=1 - 1e-12)
    whole, parts = advanced(begun(rule), found), judged(begun(rule), found, batch)
    if parts.verdict == "inconclusive":
        assert parts.above == pytest.approx(whole.above, abs=1e-9)
        assert (parts.n, parts.discordant) == (whole.n, whole.discordant) == (len(values), int(np.count_nonzero(found)))


@settings(max_examples=30)
@given(st.lists(st.floats(-1, 1), min_size=70, max_size=90))
def test_few_kinds_of_values_are_counted_and_many_are_not(values: list[float]) -> None:
    """Both ways give the wealth of the bet as it is defined: the product of 1 + λ(x - c)."""
    rounded = np.round(np.array(values) * 2) / 2
    for found in (np.array(values), rounded):
        after = advanced(begun(Rule("better_than", 0.1)), found)
        for stake, wealth in zip(STAKES, after.above, strict=True):
            assert wealth == pytest.approx(float(np.log1p(stake / 1.1 * (found - 0.1)).sum()), abs=1e-9)


def test_a_verdict_stands() -> None:
    """What was decided once is not undone by what comes later."""
    won = advanced(begun(Rule("better_than")), np.ones(20))
    assert won.verdict == "pass"
    assert advanced(won, -np.ones(200)).verdict == "pass"
    assert advanced(won, np.array([])) == won


def test_the_order_is_drawn_from_the_test_set() -> None:
    """The same digest gives the same order, another digest another, and each is whole."""
    one = drawn_order("blake3:c0ffee", 1000)
    assert (one == drawn_order("blake3:c0ffee", 1000)).all()
    assert not (one == drawn_order("blake3:c0ffed", 1000)).all()
    assert sorted(one.tolist()) == list(range(1000))


# --- what is refused -----------------------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_refused() -> None:
    """A threshold beyond all scores, scores beyond the range, a batch of nothing, a digest of no digits."""
    with pytest.raises(UsageError, match=r"beyond scores of 0 to 1"):
        begun(Rule("at_least", 1.0))
    with pytest.raises(UsageError, match=r"beyond scores of 0 to 1"):
        begun(Rule("better_than", 0.99, indifference=0.01))
    with pytest.raises(ReportError, match="outside the range"):
        advanced(begun(Rule("better_than")), np.array([0.0, 2.0]))
    with pytest.raises(ReportError, match="outside the range"):
        advanced(begun(Rule("better_than")), np.array([math.nan]))
    with pytest.raises(UsageError, match="never ends"):
        judged(begun(Rule("better_than")), np.ones(3), 0)
    with pytest.raises(UsageError, match="no digest"):
        drawn_order("xyz", 3)
