"""Verdicts on metrics and evidence, and the sentences that explain them."""

import math
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from penstock.evidence import Evidence
from penstock.gates import Baseline, Verdict, judge_evidence, judge_metric, written
from penstock.pipelines import Gate

NUMBERS = st.floats(-1e300, 1e300)  # beyond, four digits may round to infinity
UNIT = st.floats(0, 1) | st.integers(0, 1000).map(lambda n: n / 1000)
RULES = st.sampled_from(["at_least", "at_most", "equals"])
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def gate(**fields: Any) -> Gate:
    subject = {} if "evidence" in fields else {"metric": "train.accuracy"}
    return Gate.model_validate({"name": "g", **subject, **fields})


def judge(value: float, **fields: Any) -> Verdict:
    return judge_metric(gate(**fields), {"train.accuracy": value}, None)


def answers(right: int, whole: int) -> Evidence:
    ids = tuple(map(str, range(whole)))
    return Evidence(ids, ("1",) * whole, ("1",) * right + ("0",) * (whole - right))


# --- absolute rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "rule", "bound", "verdict", "reason"),
    [
        (0.967, "at_least", 0.90, "pass", "0.967 is at least 0.9"),
        (0.9, "at_least", 0.9, "pass", "0.9 is at least 0.9"),
        (0.84996, "at_least", 0.85, "fail", "0.84996 is below 0.85"),
        (0.85004, "at_most", 0.85, "fail", "0.85004 is above 0.85"),
        (0.791666666, "at_least", 0.85, "fail", "0.7917 is below 0.85"),
        (12.3456, "at_most", 50, "pass", "12.35 is at most 50"),
        (50.0001, "at_most", 50, "fail", "50.0001 is above 50"),
        (123456.789, "at_most", 1000, "fail", "123457 is above 1000"),
        (0.1 + 0.2, "equals", 0.3, "pass", "0.3 equals 0.3"),
        (0.3001, "equals", 0.3, "fail", "0.3001 does not equal 0.3"),
        (0.30000001, "equals", 0.3, "fail", "0.30000001 does not equal 0.3"),
        (0.0, "equals", 0, "pass", "0 equals 0"),
        (1e-9, "equals", 0, "fail", "1e-09 does not equal 0"),
        (-0.5, "at_least", 0, "fail", "-0.5 is below 0"),
        (1e300, "at_most", 1e299, "fail", "1e+300 is above 1e+299"),
        (0.9, "within", [0.8, 0.9], "pass", "0.9 is within 0.8 to 0.9"),
        (0.90001, "within", [0.8, 0.9], "fail", "0.90001 is not within 0.8 to 0.9"),
        (0.5, "within", [0.8, 0.9], "fail", "0.5 is not within 0.8 to 0.9"),
    ],
)
def test_a_metric_is_held_against_its_bound(value: float, rule: str, bound: Any, verdict: str, reason: str) -> None:
    """Bounds include themselves; the reason is short and never rounds across the bound."""
    assert judge(value, **{rule: bound}) == Verdict("g", verdict, value, (reason,))  # type: ignore[arg-type]


@given(value=NUMBERS, bound=NUMBERS, rule=RULES)
@example(value=0.84999999999999998, bound=0.85, rule="at_least")
@example(value=5e-324, bound=0.0, rule="at_most")
def test_the_shown_number_gets_the_same_verdict(value: float, bound: float, rule: str) -> None:
    """Whoever holds the printed number against the printed bound comes to the printed verdict."""
    verdict = judge(value, **{rule: bound})
    shown, printed = NUMBER.findall(verdict.reasons[0])
    assert float(printed) == bound
    assert judge(float(shown), **{rule: bound}).verdict == verdict.verdict


@given(value=UNIT, bound=UNIT, steps=st.integers(-3, 3), rule=RULES)
def test_the_shown_number_is_right_next_to_the_bound_too(value: float, bound: float, steps: int, rule: str) -> None:
    """A value within a few of the smallest possible steps of the bound is told apart from it."""
    value = bound
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.copysign(math.inf, steps))
    verdict = judge(value, **{rule: bound})
    shown = NUMBER.findall(verdict.reasons[0])[0]
    assert judge(float(shown), **{rule: bound}).verdict == verdict.verdict
    if rule != "equals":
        assert (verdict.verdict == "pass") == (steps * (1 if rule == "at_least" else -1) >= 0)


@given(low=NUMBERS, high=NUMBERS, bound=NUMBERS)
def test_verdicts_are_monotone_in_the_value(low: float, high: float, bound: float) -> None:
    """More can only help where more is asked for, and only harm where less is."""
    assume(low <= high)
    order = ["fail", "pass"]
    least = [order.index(judge(v, at_least=bound).verdict) for v in (low, high)]
    most = [order.index(judge(v, at_most=bound).verdict) for v in (low, high)]
    assert least == sorted(least)
    assert most == sorted(most, reverse=True)


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({}, "there is no metric train.accuracy: no step of this run left any"),
        ({"train.acuracy": 1.0, "x": 1.0}, "there is no metric train.accuracy: did you mean train.acuracy?"),
        ({"b": 1.0, "a": 1.0}, "there is no metric train.accuracy: there are a, b"),
        ({"train.accuracy": math.nan}, "train.accuracy is nan, and no rule can be held against that"),
    ],
)
def test_a_metric_that_is_not_there_is_errored(metrics: dict[str, float], reason: str) -> None:
    """No data is never success: the verdict is errored and names the nearest metric, with or without a champion."""
    for fields in ({"at_least": 0.5}, {"not_worse_than": "champion", "margin": 0.1}):
        assert judge_metric(gate(**fields), metrics, None) == Verdict("g", "errored", None, (reason,))


def test_what_a_replay_could_not_tell_is_errored() -> None:
    """A gate on a metric that a replay left out says why it may have; one that fails says where to look."""
    parity = Gate.model_validate({"name": "g", "metric": "replay.agreement", "equals": 1})
    small = Gate.model_validate({"name": "g", "metric": "replay.memory_mib", "at_most": 1})
    found = judge_metric(parity, {"replay.errors": 0.0}, None)
    sentence = "there is no metric replay.agreement: no recorded request has an answer to agree with"
    assert found == Verdict("g", "errored", None, (sentence,))
    assert "as in a container" in judge_metric(small, {"replay.errors": 0.0}, None).reasons[0]
    assert judge_metric(parity, {"replay.agreement": 0.9}, None).reasons == (
        "0.9 does not equal 1",
        "the log of replay shows what was expected and what came",
    )
    assert judge_metric(parity, {"replay.agreement": 1.0}, None).reasons == ("1 equals 1",)


# --- the champion --------------------------------------------------------------------------------------------------


def compare(value: float, theirs: float | None, margin: float = 0.03, package: str = "mine") -> Verdict:
    against = gate(not_worse_than="champion", margin=margin)
    return judge_metric(against, {"train.accuracy": value}, Baseline("1.2.0", "theirs", theirs), package)


@pytest.mark.parametrize(
    ("value", "theirs", "margin", "verdict", "reason"),
    [
        (0.95, 0.97, 0.03, "pass", "0.95 is at least 0.94: the champion 1.2.0 has 0.97, less the margin of 0.03"),
        (0.93, 0.97, 0.03, "fail", "0.93 is below 0.94: the champion 1.2.0 has 0.97, less the margin of 0.03"),
        (0.7, 0.8, 0.1, "pass", "0.7 is at least 0.7: the champion 1.2.0 has 0.8, less the margin of 0.1"),
        (0.99, 0.97, 0, "pass", "0.99 is at least 0.97: the champion 1.2.0 has 0.97, less the margin of 0"),
        (0.66666, 2 / 3, 0, "fail", "0.66666 is below 0.66667: the champion 1.2.0 has 0.66667, less the margin of 0"),
    ],
)
def test_a_metric_may_be_worse_than_the_champions_by_the_margin(
    value: float, theirs: float, margin: float, verdict: str, reason: str
) -> None:
    """At the margin it still passes, computed as a person would with the written numbers."""
    assert compare(value, theirs, margin) == Verdict("g", verdict, value, (reason,))  # type: ignore[arg-type]


@given(value=UNIT, theirs=UNIT, margin=UNIT)
def test_the_comparison_that_is_shown_is_the_one_that_was_made(value: float, theirs: float, margin: float) -> None:
    """The printed value and floor stand in the order that the verdict says."""
    verdict = compare(value, theirs, margin)
    mine, floor = NUMBER.findall(verdict.reasons[0])[:2]
    assert (float(mine) >= float(floor)) == (verdict.verdict == "pass")


@given(low=UNIT, high=UNIT, theirs=UNIT, margin=UNIT)
def test_better_never_does_worse_against_the_champion(low: float, high: float, theirs: float, margin: float) -> None:
    """If a value passes, every higher one does."""
    assume(low <= high)
    assert (compare(low, theirs, margin).verdict, compare(high, theirs, margin).verdict) != ("pass", "fail")


def test_without_a_champion_it_passes_with_a_warning() -> None:
    """Before the first release there is nothing to be worse than."""
    verdict = judge(0.5, not_worse_than="champion", margin=0.1)
    assert verdict.verdict == "pass"
    assert verdict.reasons == ("warning: 0.5 was compared with nothing, because there is no champion yet",)


def test_the_champion_itself_passes() -> None:
    """The same package cannot be worse than itself, whatever the numbers say."""
    verdict = compare(0.1, 0.9, package="theirs")
    assert (verdict.verdict, verdict.reasons) == ("pass", ("this is the same package as the champion 1.2.0",))


def test_where_a_champion_is_required_its_absence_fails() -> None:
    """The file may say that the first release needs a baseline too."""
    verdict = judge(0.5, not_worse_than="champion", margin=0.1, required=True)
    assert (verdict.verdict, verdict.value) == ("fail", 0.5)
    assert verdict.reasons == (
        "there is no champion yet, and the gate requires a baseline: leave required out at first",
    )


@pytest.mark.parametrize(
    ("value", "margin", "verdict", "reason"),
    [
        (0.98, 0.01, "fail", "0.98 is not above 0.98: the champion 1.2.0 has 0.97, plus the margin of 0.01"),
        (0.98001, 0.01, "pass", "0.98001 is above 0.98: the champion 1.2.0 has 0.97, plus the margin of 0.01"),
        (0.97, None, "fail", "0.97 is not above 0.97: the champion 1.2.0 has 0.97, plus the margin of 0"),
    ],
)
def test_a_metric_must_be_better_than_the_champions(
    value: float, margin: float | None, verdict: str, reason: str
) -> None:
    """Better is more than the champion's value and the margin; as good is not better."""
    rule = gate(better_than="champion", **({} if margin is None else {"margin": margin}))
    judged = judge_metric(rule, {"train.accuracy": value}, Baseline("1.2.0", "theirs", 0.97), "mine")
    assert judged == Verdict("g", verdict, value, (reason,))  # type: ignore[arg-type]


HAS, MARGIN = "the champion 1.2.0 has", "the margin of 2%"


@pytest.mark.parametrize(
    ("value", "theirs", "rule", "verdict", "reason"),
    [
        (0.96, 0.97, "not_worse_than", "pass", f"0.96 is at least 0.9506: {HAS} 0.97, less {MARGIN} (0.0194)"),
        (0.95, 0.97, "not_worse_than", "fail", f"0.95 is below 0.9506: {HAS} 0.97, less {MARGIN} (0.0194)"),
        (0.49, 0.5, "not_worse_than", "pass", f"0.49 is at least 0.49: {HAS} 0.5, less {MARGIN} (0.01)"),
        (-51, -50, "not_worse_than", "pass", f"-51 is at least -51: {HAS} -50, less {MARGIN} (1)"),
        (51, 50, "better_than", "fail", f"51 is not above 51: {HAS} 50, plus {MARGIN} (1)"),
        (0, 0, "not_worse_than", "pass", f"0 is at least 0: {HAS} 0, less {MARGIN} (0)"),
    ],
)
def test_a_margin_may_be_a_share_of_the_baseline(
    value: float, theirs: float, rule: str, verdict: str, reason: str
) -> None:
    """Of its size, whatever its sign; the sentence gives the share and what it comes to."""
    judged = judge_metric(
        gate(**{rule: "champion", "margin": "2%"}), {"train.accuracy": value}, Baseline("1.2.0", "theirs", theirs)
    )
    assert judged == Verdict("g", verdict, value, (reason,))  # type: ignore[arg-type]


@given(value=UNIT, theirs=UNIT, percent=st.integers(0, 100))
def test_a_share_is_the_margin_that_it_comes_to(value: float, theirs: float, percent: int) -> None:
    """The verdict is that of the floor which a person works out from the share."""
    share = gate(not_worse_than="champion", margin=f"{percent}%")
    judged = judge_metric(share, {"train.accuracy": value}, Baseline("1.2.0", "theirs", theirs))
    floor = Decimal(repr(theirs)) - Decimal(percent) / 100 * Decimal(repr(theirs))
    assert (judged.verdict == "pass") == (Decimal(repr(value)) >= floor)


@pytest.mark.parametrize(
    ("name", "baseline", "reason"),
    [
        (
            "branch:main",
            Baseline("1.2", "theirs", 0.97, "branch main (1.2)", "on other data"),
            "0.95 is at least 0.94: branch main (1.2) has 0.97 (on other data), less the margin of 0.03",
        ),
        (
            {"fixed": 0.97},
            Baseline("", "", 0.97, "the fixed baseline", "a paper"),
            "0.95 is at least 0.94: the fixed baseline is 0.97 (a paper), less the margin of 0.03",
        ),
    ],
)
def test_other_baselines_are_called_by_their_names(name: Any, baseline: Baseline, reason: str) -> None:
    """The sentence says what was compared with, and what else should be known of it."""
    rule = gate(not_worse_than=name, margin=0.03)
    judged = judge_metric(rule, {"train.accuracy": 0.95}, baseline, "mine")
    assert judged.reasons == (reason,)
    noted = judge_metric(rule, {"train.accuracy": 0.95}, replace(baseline, note="mind this"), "mine")
    assert noted.reasons == (f"{reason}; mind this",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("champion", "there is no champion yet"),
        ("champion:staging", "there is no champion of staging yet"),
        ("previous", "there is no run before this one yet"),
        ("branch:main", "there is no run of branch main yet"),
        ("version:1.2", "there is no run of version 1.2 yet"),
    ],
)
def test_a_missing_baseline_is_called_by_its_name(name: str, words: str) -> None:
    """The warning says which baseline is missing, or why, where that is known."""
    rule = gate(not_worse_than=name, margin=0.1)
    assert judge_metric(rule, {"train.accuracy": 0.5}, None).reasons == (
        f"warning: 0.5 was compared with nothing, because {words}",
    )
    assert judge_metric(rule, {"train.accuracy": 0.5}, None, lacking="it failed").reasons == (
        "warning: 0.5 was compared with nothing, because it failed",
    )


@pytest.mark.parametrize("theirs", [None, math.nan])
def test_a_champion_without_the_metric_decides_nothing(theirs: float | None) -> None:
    """Where the champion has no value there is nothing to compare with."""
    verdict = compare(0.9, theirs)
    assert verdict.verdict == "inconclusive"
    assert verdict.reasons == (
        "the champion 1.2.0 has no value of train.accuracy, so there is nothing to compare with",
    )


# --- evidence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "whole", "fields", "verdict", "reason"),
    [
        (
            285,
            360,
            {"at_least": 0.85},
            "fail",
            "0.7917 is below 0.85: 285 of 360 examples correct, 21 fewer than needed",
        ),
        (306, 360, {"at_least": 0.85}, "pass", "0.85 is at least 0.85: 306 of 360 examples correct"),
        (
            305,
            360,
            {"at_least": 0.85},
            "fail",
            "0.8472 is below 0.85: 305 of 360 examples correct, 1 fewer than needed",
        ),
        (1, 1, {"at_least": 0.85}, "pass", "1 is at least 0.85: 1 of 1 example correct"),
        (5, 10, {"at_most": 0.25}, "fail", "0.5 is above 0.25: 5 of 10 examples correct, 3 more than allowed"),
        (2, 10, {"at_most": 0.25}, "pass", "0.2 is at most 0.25: 2 of 10 examples correct"),
        (1, 3, {"equals": 0.5}, "fail", "0.3333 does not equal 0.5: 1 of 3 examples correct"),
    ],
)
def test_evidence_is_judged_by_its_mean_score(
    right: int, whole: int, fields: dict[str, float], verdict: str, reason: str
) -> None:
    """The reason says how many examples were correct and how many that is off the rule."""
    judged = judge_evidence(gate(evidence="evaluate", **fields), answers(right, whole))
    assert judged == Verdict("g", verdict, right / whole, (reason,))  # type: ignore[arg-type]


@given(right=st.integers(0, 400), whole=st.integers(1, 400), bound=st.integers(0, 100))
def test_the_number_that_is_missing_is_the_number_that_would_do(right: int, whole: int, bound: int) -> None:
    """With as many more correct as the reason says it passes, with one less it does not."""
    assume(right <= whole)
    rule = gate(evidence="evaluate", at_least=bound / 100)
    verdict = judge_evidence(rule, answers(right, whole))
    lacking = re.search(r", (\d+) fewer than needed", verdict.reasons[0])
    assert (lacking is None) == (verdict.verdict == "pass")
    if lacking:
        enough = right + int(lacking[1])
        assert judge_evidence(rule, answers(enough, whole)).verdict == "pass"
        assert judge_evidence(rule, answers(enough - 1, whole)).verdict == "fail"


def test_errors_are_judged_by_their_mean() -> None:
    """Absolute and squared errors say what was averaged over how many examples."""
    evidence = Evidence(("a", "b"), ("1", "2"), ("2", "5"))
    verdict = judge_evidence(gate(evidence="evaluate", score="absolute_error", at_most=1.5), evidence)
    assert verdict.reasons == ("2 is above 1.5: the mean absolute error of 2 examples",)
    verdict = judge_evidence(gate(evidence="evaluate", score="squared_error", at_most=5), evidence)
    assert (verdict.verdict, verdict.value) == ("pass", 5.0)


def test_examples_without_a_prediction_decide_nothing() -> None:
    """Leaving out the hard examples does not help, even where the others are all correct."""
    evidence = Evidence(("a",), ("1",), ("1",), unpredicted=3, unlabelled=2)
    verdict = judge_evidence(gate(evidence="evaluate", at_least=0.5), evidence)
    assert (verdict.verdict, verdict.value) == ("inconclusive", 1.0)
    assert verdict.reasons[1:] == (
        "3 of 4 examples have no prediction: predict them all to decide",
        "left out: 2 predictions whose id is not among the truth",
    )


def test_predictions_without_a_truth_are_only_mentioned() -> None:
    """What was predicted beside the test set does not change the verdict."""
    verdict = judge_evidence(gate(evidence="evaluate", at_least=0.5), Evidence(("a",), ("1",), ("1",), unlabelled=1))
    assert verdict.verdict == "pass"
    assert len(verdict.reasons) == 2


def test_evidence_that_cannot_be_scored_is_errored() -> None:
    """No evidence, none in it, or text where numbers are needed: errored, with the reason."""
    rule = gate(evidence="evaluate", score="absolute_error", at_most=1)
    for evidence in (None, Evidence((), (), ())):
        verdict = judge_evidence(rule, evidence)
        assert verdict == Verdict("g", "errored", None, ("step evaluate left no evidence to judge",))
    verdict = judge_evidence(rule, Evidence(("a",), ("cat",), ("dog",)))
    assert verdict.verdict == "errored"
    assert "'cat'" in verdict.reasons[0]


@given(value=NUMBERS)
def test_written_numbers_are_exact(value: float) -> None:
    """A number as it is written reads back as itself."""
    assert float(written(value)) == value
