"""Rules held against intervals: three verdicts, what they exclude, what would decide, and what never can."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.decisions import Decision, Kind, Rule, decide, least_examples, refusal, sentence
from penstock.errors import UsageError
from penstock.intervals import Interval
from penstock.proportions import clopper_pearson, paired_shares

KINDS: tuple[Kind, ...] = ("at_least", "at_most", "better_than", "not_worse_than")
BOUNDS = st.integers(-40, 40).map(lambda k: k / 20)


def interval(low: float, estimate: float, high: float, n: int = 100) -> Interval:
    return Interval(estimate, low, high, n, None, "a method", 0.95)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Every kind of rule that makes sense, with bounds around 0."""
    kind = draw(st.sampled_from(KINDS))
    bound = abs(draw(BOUNDS)) if kind in ("better_than", "not_worse_than") else draw(BOUNDS)
    most = bound / 2 if kind == "not_worse_than" else 0.5
    return Rule(kind, bound, indifference=draw(st.sampled_from([0.0, most / 2, most])))


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, estimate, high = sorted(draw(st.tuples(BOUNDS, BOUNDS, BOUNDS)))
    return interval(low, estimate, high)


# --- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "found", "verdict", "excluded", "edge"),
    [
        (Rule("at_least", 0.85), interval(0.86, 0.9, 0.93), "pass", "below", 0.85),
        (Rule("at_least", 0.85), interval(0.85, 0.9, 0.93), "pass", "below", 0.85),
        (Rule("at_least", 0.85), interval(0.7, 0.8, 0.84), "fail", "above", 0.85),
        (Rule("at_least", 0.85), interval(0.8, 0.86, 0.9), "inconclusive", None, 0.85),
        (Rule("at_most", 0.1), interval(0.02, 0.05, 0.1), "pass", "above", 0.1),
        (Rule("at_most", 0.1), interval(0.11, 0.2, 0.3), "fail", "below", 0.1),
        (Rule("at_most", 0.1, indifference=0.01), interval(0.09, 0.2, 0.3), "fail", "below", 0.08),
        (Rule("better_than"), interval(0.0, 0.1, 0.2), "inconclusive", None, 0.0),
        (Rule("better_than"), interval(0.01, 0.1, 0.2), "pass", "below", 0.0),
        (Rule("better_than", 0.02, indifference=0.01), interval(0.0, 0.01, 0.03), "fail", "above", 0.04),
        (Rule("not_worse_than", 0.01), interval(-0.01, 0.0, 0.02), "pass", "below", -0.01),
        (Rule("not_worse_than", 0.01), interval(-0.03, -0.02, -0.011), "fail", "above", -0.01),
        (Rule("not_worse_than", 0.01), interval(-0.019, -0.009, 0.001), "inconclusive", None, -0.01),
        (Rule("not_worse_than", 0.05, relative=True), interval(0.0, 0.1, 0.2), "pass", "below", 0.0),
    ],
)
def test_the_verdict_is_what_the_interval_excludes(
    rule: Rule, found: Interval, verdict: str, excluded: str | None, edge: float
) -> None:
    """Passing excludes what the claim forbids, failing what it allows; the edge has the number's own sign."""
    decision = decide(rule, found)
    assert (decision.verdict, decision.excluded) == (verdict, excluded)
    assert decision.edge == pytest.approx(edge)
    assert decision.interval == found


def test_showing_more_than_the_threshold_passes_even_within_the_indifference() -> None:
    """An interval between c and c + 2ε excludes both sides, and what was shown counts."""
    assert decide(Rule("better_than", 0.02, indifference=0.01), interval(0.025, 0.03, 0.035)).verdict == "pass"


@given(rules(), intervals())
def test_a_verdict_is_never_wrong_about_what_lies_in_the_interval(rule: Rule, found: Interval) -> None:
    """If the truth is anywhere between the bounds, no pass and no fail contradicts it."""
    word = decide(rule, found).verdict
    for truth in (found.low, found.estimate, found.high):
        assume(abs(truth - abs(rule.bound)) > 1e-9)
        assert not rule.is_wrong(word, truth)


@given(rules(), intervals(), st.floats(0, 1))
def test_moving_to_the_better_never_makes_a_verdict_worse(rule: Rule, found: Interval, by: float) -> None:
    """Fail < inconclusive < pass, and scores that only rise (fall for `at_most`) only climb it."""
    step = -by if rule.kind == "at_most" else by
    moved = replace(found, low=found.low + step, estimate=found.estimate + step, high=found.high + step)
    order = ["fail", "inconclusive", "pass"]
    assert order.index(decide(rule, moved).verdict) >= order.index(decide(rule, found).verdict)


@given(intervals(), BOUNDS)
def test_at_most_is_at_least_of_the_other_sign(found: Interval, bound: float) -> None:
    """An error of at most u is a score of at least -u."""
    one, other = decide(Rule("at_most", bound), found), decide(Rule("at_least", -bound), found.mirrored())
    assert (one.verdict, one.needed) == (other.verdict, other.needed)


def test_wrong_verdicts_are_known_for_what_they_are() -> None:
    """Equal models: not better than 0, not worse than any margin; within the indifference nothing is wrong."""
    assert Rule("better_than").is_wrong("pass", 0.0)
    assert not Rule("better_than").is_wrong("fail", 0.0)
    assert Rule("not_worse_than", 0.01).is_wrong("fail", 0.0)
    assert not Rule("not_worse_than", 0.01).is_wrong("inconclusive", 0.0)
    assert not Rule("better_than", 0.02, indifference=0.01).is_wrong("fail", 0.03)
    assert Rule("at_most", 0.1).is_wrong("fail", 0.05)
    assert not Rule("at_most", 0.1, indifference=0.03).is_wrong("fail", 0.05)


# --- what would decide ---------------------------------------------------------------------------------------------


def test_an_open_verdict_says_how_many_examples_would_decide() -> None:
    """Half the distance takes four times the examples; whichever side is nearer counts."""
    assert decide(Rule("better_than"), interval(-0.1, 0.1, 0.3)).needed == 400
    assert decide(Rule("better_than", 0.05), interval(-0.1, 0.0, 0.1)).needed == 400
    assert decide(Rule("better_than"), interval(-0.1, 0.0, 0.1)).needed is None
    assert decide(Rule("better_than"), interval(0.1, 0.2, 0.3)).needed is None


@given(rules(), intervals())
def test_the_number_that_would_decide_is_larger_than_the_one_at_hand(rule: Rule, found: Interval) -> None:
    """It is only named where it is open, and decides if bounds shrink as promised."""
    decision = decide(rule, found)
    if decision.needed is not None:
        assert decision.verdict == "inconclusive"
        assert decision.needed > found.n
        shrink = math.sqrt(found.n / (1.02 * decision.needed))
        closer = replace(
            found,
            low=found.estimate - (found.estimate - found.low) * shrink,
            high=found.estimate + (found.high - found.estimate) * shrink,
        )
        assert decide(rule, closer).verdict != "inconclusive"


@pytest.mark.parametrize(
    ("rule", "found", "said"),
    [
        (Rule("not_worse_than", 0.01), interval(-0.019, -0.009, 0.001), "does not exclude a loss of 0.01 or more: inc"),
        (Rule("not_worse_than", 0.01), interval(-0.005, 0, 0.01), "excludes a loss of 0.01 or more: pass"),
        (Rule("not_worse_than", 0.01), interval(-0.05, -0.03, -0.02), "excludes a loss of 0.01 or less: fail"),
        (Rule("not_worse_than"), interval(0.01, 0.02, 0.03), "excludes a loss: pass"),
        (Rule("better_than", 0.02), interval(0.03, 0.04, 0.05), "excludes a gain of 0.02 or less: pass"),
        (Rule("better_than", 0.02), interval(-0.03, -0.02, 0.01), "excludes a gain of 0.02 or more: fail"),
        (Rule("better_than"), interval(-0.03, -0.02, -0.01), "excludes a gain: fail"),
        (Rule("at_least", 0.8), interval(0.7, 0.8, 0.9), "does not exclude a level below 0.8: inconclusive"),
        (Rule("at_most", 0.8), interval(0.5, 0.6, 0.7), "excludes a level above 0.8: pass"),
    ],
)
def test_the_sentence_says_what_was_excluded(rule: Rule, found: Interval, said: str) -> None:
    """In numbers, with the side in words."""
    assert said in sentence(decide(rule, found))


def test_the_sentence_is_whole() -> None:
    """Estimate, examples, bounds, what they do not exclude, and what would decide."""
    decision = decide(Rule("not_worse_than", 0.01), interval(-0.021, -0.001, 0.019, 360))
    assert isinstance(decision, Decision)
    assert sentence(decision) == (
        "a gain of -0.0010 on 360 examples; -0.0210 to 0.0190 does not exclude a loss of 0.01 or more: inconclusive; "
        "about 1778 examples would decide"
    )


# --- rules ---------------------------------------------------------------------------------------------------------


def test_a_relative_bound_is_a_scale() -> None:
    """Not worse by 3 % is a gain over .97 of the other, better by 3 % one over 1.03; of errors the other way round."""
    assert Rule("not_worse_than", 0.03, relative=True).scale == pytest.approx(0.97)
    assert Rule("better_than", 0.03, relative=True).scale == pytest.approx(1.03)
    assert Rule("not_worse_than", 0.03, relative=True, lower_is_better=True).scale == pytest.approx(1.03)
    assert Rule("better_than", 0.03, relative=True, lower_is_better=True).scale == pytest.approx(0.97)
    assert Rule("better_than", 0.03).scale == 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda: Rule("at_least", math.nan), "write a finite number"),
        (lambda: Rule("not_worse_than", -0.01), "the margin of not_worse_than is -0.01: write 0 or more"),
        (lambda: Rule("better_than", -0.01), "the gain of better_than is -0.01: write 0 or more"),
        (lambda: Rule("at_least", 0.9, relative=True), "cannot be relative"),
        (lambda: Rule("better_than", 1.5, relative=True), "cannot be relative"),
        (lambda: Rule("not_worse_than", 0.01, indifference=0.01), "at most half the margin, 0.005"),
        (lambda: Rule("better_than", 0.01, indifference=-1), "write 0 or more"),
        (lambda: Rule("better_than", 0.01, indifference=math.inf), "write 0 or more"),
        (lambda: Rule("at_least", 0.9, confidence=95), "write a number above 0.5"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: "object", said: str) -> None:
    """Each in one sentence that says what to write."""
    assert callable(rule)
    with pytest.raises(UsageError, match=said.replace(".", r"\.")):
        rule()


def test_an_interval_must_be_as_sure_as_the_rule() -> None:
    """A verdict at 99 % cannot be read off bounds of 95 %."""
    with pytest.raises(UsageError, match=r"has confidence 0\.95, the rule wants 0\.99"):
        decide(Rule("at_least", 0.9, confidence=0.99), interval(0.91, 0.95, 0.99))


# --- test sets that can never decide -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (Rule("at_least", 0.99), 299),
        (Rule("at_most", 0.01), 299),
        (Rule("at_least", 0.0), 1),
        (Rule("not_worse_than", 0.01), 265),
        (Rule("better_than"), 4),
        (Rule("not_worse_than", 0.01, relative=True), 2),
    ],
)
def test_the_fewest_examples_that_can_pass(rule: Rule, least: int) -> None:
    """With one fewer not even the best result passes, with as many it does."""
    assert least_examples(rule) == least
    assert refusal(rule, least) is None
    if least > 2:
        assert f"it takes {least} at least" in str(refusal(rule, least - 1))


def test_the_fewest_are_what_the_intervals_say() -> None:
    """299 right of 299 exclude less than .99, 298 of 298 do not; so do 265 pairs without disagreement a loss of .01."""
    assert clopper_pearson(299, 299, 0.95).low >= 0.99 > clopper_pearson(298, 298, 0.95).low
    assert paired_shares(0, 0, 265, 0.95).low >= -0.01 > paired_shares(0, 0, 264, 0.95).low


def test_some_rules_cannot_be_shown_at_all() -> None:
    """Certainty, and no margin at all without any gain, need more examples than there are."""
    assert least_examples(Rule("at_least", 1.0)) is None
    assert "cannot be shown with any number of examples" in str(refusal(Rule("at_least", 1.0), 10**6))
    assert least_examples(Rule("not_worse_than", 0.0)) is None
