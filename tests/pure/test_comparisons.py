"""Gates on evidence that an interval decides: against the champion on the same examples, or a level with confidence."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.charts import chart_of
from penstock.comparisons import MINUS, Champion, judge_examples, percent, rounded, rules_of, short
from penstock.decisions import decide
from penstock.evidence import Evidence, read_evidence
from penstock.gates import Verdict, counted, with_consequence
from penstock.pipelines import Gate
from penstock.reuse_budgets import Budget
from penstock.samples import paired_gain


def gate(**fields: Any) -> Gate:
    return Gate.model_validate({"name": "g", "evidence": "evaluate", **fields})


def answers(wrong: range | list[int], whole: int = 360, **more: int) -> Evidence:
    """Evidence of so many examples, of which those with these numbers were answered wrongly."""
    bad = frozenset(wrong)
    given_ = tuple("0" if n in bad else "1" for n in range(whole))
    return Evidence(tuple(map(str, range(whole))), ("1",) * whole, given_, **more)


def champion(evidence: Evidence | None, **more: Any) -> Champion:
    return Champion("1.4.0", "theirs", evidence, **more)


def compare(new: Evidence, old: Evidence | None, package: str = "mine", **rule: Any) -> Verdict:
    rule = rule or {"not_worse_than": "champion", "margin": 0.03}
    return judge_examples(gate(**rule), new, champion(old), package)


# --- the champion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old", "rule", "reason"),
    [
        (
            range(12),
            range(3, 15),
            {"not_worse_than": "champion", "margin": 0.03},
            (
                "as good as 1.4.0 on the same 360 examples (3 newly right, 3 newly wrong); "
                "its 95 % bounds −1.3 … +1.3 exclude a loss of 3 points: pass"
            ),
        ),
        (
            range(60),
            range(3),
            {"not_worse_than": "champion", "margin": 0.03},
            (
                "15.8 points worse than 1.4.0 on the same 360 examples (0 newly right, 57 newly wrong); "
                "its 95 % bounds −19.2 … −12.9 are beyond a loss of 3 points: fail"
            ),
        ),
        (
            range(5),
            range(3, 5),
            {"not_worse_than": "champion", "margin": 0.01},
            (
                "0.8 points worse than 1.4.0 on the same 360 examples (0 newly right, 3 newly wrong); "
                "its 95 % bounds −2.0 … 0 do not exclude a loss of 1 point: inconclusive; "
                "about 18,000 examples would decide"
            ),
        ),
        (
            range(2),
            range(40),
            {"better_than": "champion"},
            (
                "10.6 points better than 1.4.0 on the same 360 examples (38 newly right, 0 newly wrong); "
                "its 95 % bounds +8.1 … +13.5 show a gain: pass"
            ),
        ),
        (
            range(2),
            range(40),
            {"better_than": "champion", "margin": 0.2},
            (
                "10.6 points better than 1.4.0 on the same 360 examples (38 newly right, 0 newly wrong); "
                "its 95 % bounds +8.1 … +13.5 exclude a gain of 20 points: fail"
            ),
        ),
        (
            range(3),
            range(2, 4),
            {"better_than": "champion"},
            (
                "0.3 points worse than 1.4.0 on the same 360 examples (1 newly right, 2 newly wrong); "
                "its 95 % bounds −1.3 … +0.6 do not show a gain: inconclusive; about 4,000 examples would decide"
            ),
        ),
    ],
)
def test_a_gain_is_told_in_one_sentence(new: range, old: range, rule: dict[str, Any], reason: str) -> None:
    """Effect, examples, bounds, what they say of the rule, verdict, and what would decide."""
    verdict = compare(answers(new), answers(old), **rule)
    assert verdict.reasons == (reason,)
    assert verdict.verdict == reason.split(": ")[1].partition(";")[0]
    assert verdict.value == 1 - len(new) / 360


@pytest.mark.parametrize(("indifference", "verdict"), [(None, "inconclusive"), (0.005, "fail")])
def test_with_an_indifference_a_small_loss_is_decided(indifference: float | None, verdict: str) -> None:
    """What is surely worse than twice the indifference above the margin fails, though the margin is not excluded."""
    rule: dict[str, Any] = {"not_worse_than": "champion", "margin": 0.01, "indifference": indifference}
    judged = compare(answers(range(5)), answers([]), **{k: v for k, v in rule.items() if v is not None})
    assert judged.verdict == verdict


def test_more_confidence_never_decides_more() -> None:
    """What passes with 99 % passes with 95 %, and the bounds are wider."""
    sure, less = (
        compare(answers(range(6)), answers(range(3, 8)), not_worse_than="champion", margin=0.02, confidence=c)
        for c in (0.999, 0.9)
    )
    assert (sure.verdict, less.verdict) == ("inconclusive", "pass")
    assert sure.chart is not None
    assert less.chart is not None
    assert sure.chart.low < less.chart.low
    assert "99.9 % bounds" in sure.reasons[0]


def test_what_does_not_exclude_zero_excludes_no_loss() -> None:
    """Three wins of three are no proof of a gain at 95 %, and so none that there is not the smallest loss."""
    judged = compare(answers([]), answers(range(3)), not_worse_than="champion", margin=0)
    assert judged.verdict == compare(answers([]), answers(range(3)), better_than="champion").verdict == "inconclusive"
    assert judged.chart is not None
    assert judged.chart.low == 0
    assert "its 95 % bounds 0 … " in judged.reasons[0]
    assert compare(answers([]), answers(range(9)), not_worse_than="champion", margin=0).verdict == "pass"


def errors(size: float, whole: int = 50) -> Evidence:
    found = tuple(repr(n + size + n % 5 / 10) for n in range(whole))
    return Evidence(tuple(map(str, range(whole))), tuple(map(str, range(whole))), found)


@pytest.mark.parametrize(
    ("mine", "verdict", "words"),
    [(0.1, "pass", "0.5 better than 1.4.0"), (0.6, "pass", "as good as 1.4.0"), (1.6, "fail", "1.0 worse than 1.4.0")],
)
def test_of_errors_less_is_better(mine: float, verdict: str, words: str) -> None:
    """A smaller error is a gain, in the unit of the truth; the value is the error itself."""
    rule: dict[str, Any] = {"score": "absolute_error", "not_worse_than": "champion", "margin": 0.3}
    judged = compare(errors(mine), errors(0.6), **rule)
    assert (judged.verdict, round(judged.value or 0, 6)) == (verdict, round(mine + 0.2, 6))
    assert "by the mean absolute error on the same 50 examples; its 95 % bounds" in judged.reasons[0]
    assert judged.reasons[0].replace("0.50", "0.5").startswith(words)


def test_without_a_champion_it_passes_with_a_warning_or_fails_where_one_is_required() -> None:
    """Before the first release there is nothing to be worse than, and the file says what that means."""
    rule = {"not_worse_than": "champion", "margin": 0.03}
    first = judge_examples(gate(**rule), answers(range(9)), None, "mine")
    assert first.verdict == "pass"
    assert first.reasons == ("warning: 0.975 was compared with nothing, because there is no champion yet",)
    required = judge_examples(gate(**rule, required=True), answers(range(9)), None, "mine")
    assert (required.verdict, required.value) == ("fail", 0.975)
    assert "the gate requires a baseline" in required.reasons[0]


def test_the_champion_itself_passes() -> None:
    """The same package cannot be worse than itself, whatever a second run of it answered."""
    judged = compare(answers(range(100)), answers([]), package="theirs")
    assert (judged.verdict, judged.reasons) == ("pass", ("this is the same package as the champion 1.4.0",))


def test_a_champion_without_evidence_decides_nothing() -> None:
    """Nothing to compare with is no success, and the reason says what is missing."""
    judged = compare(answers([]), None)
    assert judged.verdict == "inconclusive"
    assert judged.reasons == (
        "the champion 1.4.0 has no evidence on this test set, so there is nothing to compare with",
    )


def test_another_baseline_is_called_by_its_name() -> None:
    """Every sentence about it says `branch main`, not the champion."""
    rule = gate(not_worse_than="branch:main", margin=0.03)

    def against(evidence: Evidence | None, package: str = "mine") -> Verdict:
        other = Champion("1.4", "theirs", evidence, words="branch main (1.4)")
        return judge_examples(rule, answers(range(4)), other, package)

    assert against(answers(range(2))).reasons[0].startswith("0.6 points worse than branch main (1.4) on the same 360")
    assert against(answers([]), "theirs").reasons == ("this is the same package as branch main (1.4)",)
    assert against(None).reasons[0].startswith("branch main (1.4) has no evidence on this test set")
    assert against(answers([], 350)).reasons[1].endswith("and 0 that only branch main (1.4) has")
    assert "among those of branch main (1.4)" in against(Evidence(("x",), ("1",), ("1",))).reasons[0]


@pytest.mark.parametrize(("more", "verdict"), [({}, "pass"), ({"required": True}, "fail")])
def test_why_there_is_no_baseline_is_told(more: dict[str, Any], verdict: str) -> None:
    """The clause that says why stands in the warning, also where little else is told; without one it is the name."""
    for reuse in ("show", "enforce"):
        rule = gate(not_worse_than="branch:main", margin=0.03, reuse=reuse, **more)
        budget = Budget(0.95, ())
        judged = judge_examples(rule, answers([]), None, "mine", budget, "the newest run failed")
        assert (judged.verdict, "the newest run failed" in judged.reasons[0]) == (verdict, True)
        plain = judge_examples(rule, answers([]), None, "mine", budget)
        assert "there is no run of branch main yet" in plain.reasons[0]


def test_examples_are_joined_by_id() -> None:
    """The order of the champion's examples does not matter, and what only one of the two has is counted and shown."""
    mine, theirs = answers(range(4), 300), answers(range(2, 6), 300)
    said = ["0" if n in range(2, 6) else "1" for n in range(300)]
    turned = Evidence([*map(str, reversed(range(300)))], ["1"] * 300, said[::-1])
    assert compare(mine, turned) == compare(mine, theirs)
    fewer = Evidence([*map(str, range(290))], ["1"] * 290, said[:290])
    judged = compare(mine, fewer)
    assert judged.reasons[1] == "left out: 10 examples that only this run has and 0 that only the champion has"
    assert "same 290 examples" in judged.reasons[0]
    other = compare(mine, Evidence(("x",), ("1",), ("1",)))
    assert (other.verdict, "no example of this run" in other.reasons[0]) == ("inconclusive", True)


def test_what_does_not_match_is_told_even_where_scores_are_not() -> None:
    """A budget hides scores, not that examples were left out."""
    rule = gate(not_worse_than="champion", margin=0.5, reuse="enforce")
    found = judge_examples(
        rule, answers([], 300, unlabelled=2), champion(answers([], 290)), "mine", Budget(0.95, ("a",))
    )
    assert found.verdict == "pass"
    assert found.reasons[1:] == (
        "left out: 10 examples that only this run has and 0 that only the champion has",
        "left out: 2 predictions whose id is not among the truth",
        "decision 2 on this test set",
    )


def test_examples_without_a_prediction_decide_nothing() -> None:
    """Leaving out the hard examples does not help against the champion either."""
    judged = compare(answers([], unpredicted=3, unlabelled=2), answers([]))
    assert judged.verdict == "inconclusive"
    assert judged.reasons[1:] == (
        "3 of 363 examples have no prediction: predict them all to decide",
        "left out: 2 predictions whose id is not among the truth",
    )


def test_a_test_set_that_can_never_decide_says_how_many_examples_it_takes() -> None:
    """A margin of one point between equal models takes 265 examples, however well they agree."""
    judged = compare(answers([], 100), answers([], 100), not_worse_than="champion", margin=0.01)
    assert judged.verdict == "inconclusive"
    assert "100 examples can never show not_worse_than 0.01" in judged.reasons[0]
    assert "265" in judged.reasons[0]


def test_what_cannot_be_scored_is_errored() -> None:
    """No evidence, or text where numbers are needed: errored, with the reason."""
    rule = gate(not_worse_than="champion", margin=0.1, score="squared_error")
    assert judge_examples(rule, None, None, None).verdict == "errored"
    judged = judge_examples(rule, Evidence(("a",), ("cat",), ("dog",)), None, None)
    assert (judged.verdict, "'cat'" in judged.reasons[0]) == ("errored", True)


@settings(deadline=None, max_examples=50)
@given(shift=st.integers(0, 40), new=st.integers(0, 40), old=st.integers(0, 40), margin=st.integers(0, 30))
def test_the_sentence_and_the_chart_say_what_the_verdict_says(shift: int, new: int, old: int, margin: int) -> None:
    """Whoever holds the printed bounds against the printed margin comes to the printed verdict."""
    judged = compare(
        answers(range(new)), answers(range(shift, shift + old)), not_worse_than="champion", margin=margin / 1000
    )
    chart = judged.chart
    assert chart is not None
    assert chart_of(chart.as_json()) == chart
    low, high = judged.reasons[0].split("bounds ")[1].split(" ")[0:3:2]
    shown = [100 * chart.low, 100 * chart.high]
    for text, number in zip((low, high), shown, strict=True):
        printed = float(text.replace(MINUS, "-"))
        assert (printed >= -margin / 10) == (number >= -margin / 10 - 1e-9)
    assert (judged.verdict == "pass") == (chart.low >= -margin / 1000 - 1e-12)
    assert (judged.verdict == "fail") == (chart.high < -margin / 1000 and judged.verdict != "pass")


def test_a_named_column_is_a_score_of_which_more_is_better() -> None:
    """Another name than those that are computed is a column of the evidence, with a level and a gain of its own."""

    def graded(by: float) -> Evidence:
        rows = "".join(f"{n},a,{n % 7 / 10 + by}\n" for n in range(40))
        return read_evidence(f"id,truth,grade\n{rows}".encode(), None, "e.csv", None, ("grade",))

    rule: dict[str, Any] = {"score": "grade", "better_than": "champion", "margin": 0.1}
    judged = compare(graded(0.5), graded(0.25), **rule)
    assert judged.verdict == "pass"
    assert judged.reasons[0].startswith("0.25 better than 1.4.0 by the mean grade on the same 40 examples")
    assert judge_examples(gate(score="grade", at_least=0.9), graded(0.5), None, None).verdict == "fail"


# --- margins as a share of the champion's ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old", "rule", "reason"),
    [
        (
            range(18),
            range(3, 18),
            {"not_worse_than": "champion", "margin": "5%"},
            (
                "0.9 % worse than the 0.9583 of 1.4.0 on the same 360 examples (0 newly right, 3 newly wrong); "
                "its 95 % bounds −2.8 … 0 % exclude a loss of 5 %: pass"
            ),
        ),
        (
            range(90),
            range(18),
            {"not_worse_than": "champion", "margin": "5%"},
            (
                "21.1 % worse than the 0.95 of 1.4.0 on the same 360 examples (0 newly right, 72 newly wrong); "
                "its 95 % bounds −24.9 … −17.4 % are beyond a loss of 5 %: fail"
            ),
        ),
        (
            range(2),
            range(72),
            {"better_than": "champion", "margin": "10%"},
            (
                "24.3 % better than the 0.8 of 1.4.0 on the same 360 examples (70 newly right, 0 newly wrong); "
                "its 95 % bounds +19.6 … +29.3 % are beyond a gain of 10 %: pass"
            ),
        ),
    ],
)
def test_a_relative_gain_is_told_in_percent_of_the_champion(
    new: range, old: range, rule: dict[str, Any], reason: str
) -> None:
    """Effect, bounds and margin are shares of the champion's own mean, which is named."""
    judged = compare(answers(new), answers(old), **rule)
    assert judged.reasons == (reason,)
    assert judged.chart is not None
    assert judged.chart.relative
    assert chart_of(judged.chart.as_json()) == judged.chart


@pytest.mark.parametrize(
    ("mine", "margin", "verdict"),
    [(0.6, "1%", "pass"), (0.61, "5%", "pass"), (0.66, "5%", "fail"), (0.3, "0%", "pass")],
)
def test_of_errors_a_share_more_is_allowed(mine: float, margin: str, verdict: str) -> None:
    """A champion that is off by .8 on average may be followed by one that is off by .84 with a margin of 5 %."""
    rule: dict[str, Any] = {"score": "absolute_error", "not_worse_than": "champion", "margin": margin}
    judged = compare(errors(mine), errors(0.6), **rule)
    assert judged.verdict == verdict
    assert "than the 0.8 of 1.4.0 by the mean absolute error" in judged.reasons[0] or mine == 0.6 or margin == "0%"
    better = compare(errors(mine), errors(0.6), score="absolute_error", better_than="champion", margin="10%")
    assert better.verdict == ("pass" if mine == 0.3 else "fail")


def test_there_must_be_something_to_have_a_share_of() -> None:
    """Of scores below 0, or a mean of 0, no share can be had: the reason says to write a number."""

    def graded(by: float) -> Evidence:
        rows = "".join(f"{n},a,{n % 7 / 10 + by}\n" for n in range(40))
        return read_evidence(f"id,truth,grade\n{rows}".encode(), None, "e.csv", None, ("grade",))

    rule: dict[str, Any] = {"score": "grade", "not_worse_than": "champion", "margin": "2%"}
    judged = compare(graded(0.5), graded(-0.25), **rule)
    assert judged.verdict == "errored"
    assert judged.reasons[0].startswith("a share of the grade of the champion 1.4.0 needs values of 0 or more")
    zero = compare(answers([]), answers(range(360)), not_worse_than="champion", margin="2%")
    assert (zero.verdict, "mean is 0" in zero.reasons[0]) == ("errored", True)


@pytest.mark.parametrize("score", ["correct", "absolute_error"])
def test_a_relative_margin_errs_as_rarely_as_promised(score: str) -> None:
    """At the very edge, where new is 95 % of old (of errors 105 %), a wrong pass and a wrong fail are as rare as α."""
    draw, rounds, n = np.random.default_rng(3), 1500, 300
    rule = rules_of(gate(not_worse_than="champion", margin="5%", score=score))[0]
    words = []
    for _ in range(rounds):
        if score == "correct":
            counts = draw.multinomial(n, [0.03, 0.03 + 0.05 * 0.8, 0.8 - 0.07, 0.17])
            new, old = np.repeat([1.0, 0.0, 1.0, 0.0], counts), np.repeat([0.0, 1.0, 1.0, 0.0], counts)
        else:
            old = -draw.lognormal(0, 0.5, n)
            new = rule.scale * old * draw.lognormal(-0.02, 0.2, n)
        words.append(decide(rule, paired_gain(new, old, 0.95, scale=rule.scale)).verdict)
    assert rule.scale == (0.95 if score == "correct" else 1.05)
    assert words.count("pass") / rounds <= 0.05 + 0.012
    assert words.count("fail") / rounds <= 0.05 + 0.012


# --- levels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "rule", "reason"),
    [
        (
            12,
            {"at_least": 0.85},
            "0.9667 correct on 360 examples; its 95 % bounds 0.9466 … 0.9807 are not below 0.85: pass",
        ),
        (
            90,
            {"at_least": 0.85},
            "0.7500 correct on 360 examples; its 95 % bounds 0.7096 … 0.7873 are below 0.85: fail",
        ),
        (5, {"at_most": 0.5}, "0.9861 correct on 360 examples; its 95 % bounds 0.9710 … 0.9945 are above 0.5: fail"),
        (
            50,
            {"within": [0.8, 0.95]},
            "0.8611 correct on 360 examples; its 95 % bounds 0.8275 … 0.8902 are within 0.8 to 0.95: pass",
        ),
        (
            9,
            {"within": [0.8, 0.95]},
            "0.9750 correct on 360 examples; its 95 % bounds 0.9568 … 0.9869 are outside 0.8 to 0.95: fail",
        ),
    ],
)
def test_with_confidence_a_level_is_decided_by_its_interval(wrong: int, rule: dict[str, Any], reason: str) -> None:
    """The bounds must be on the allowed side, not the mean of these very examples."""
    judged = judge_examples(gate(confidence=0.95, **rule), answers(range(wrong)), None, None)
    assert judged.reasons == (reason,)
    assert judged.verdict == reason.rpartition(": ")[2]


@pytest.mark.parametrize("rule", [{"at_least": 0.86}, {"within": [0.86, 0.99]}])
def test_a_level_that_is_not_sure_is_inconclusive(rule: dict[str, Any]) -> None:
    """A mean above the bound is not enough, and the reason says how many examples would do."""
    evidence = answers(range(45))
    assert judge_examples(gate(**rule), evidence, None, None).verdict == "pass"
    judged = judge_examples(gate(confidence=0.95, **rule), evidence, None, None)
    assert judged.verdict == "inconclusive"
    assert judged.reasons[0].endswith("examples would decide")


# --- what follows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "counts"), [("fail", "fail"), ("hold", "inconclusive"), ("warn", "pass")])
def test_the_file_says_what_an_inconclusive_verdict_does(word: str, counts: str) -> None:
    """It fails the run, holds it, or only warns; other verdicts are what they are."""
    rule = gate(at_least=0.5, inconclusive=word)
    assert counted(rule, "inconclusive") == counts
    assert [counted(rule, verdict) for verdict in ("pass", "fail", "errored")] == ["pass", "fail", "errored"]
    doubtful = Verdict("g", "inconclusive", 0.5, ("who knows",))
    assert len(with_consequence(rule, doubtful).reasons) == (1 if word == "fail" else 2)


@pytest.mark.parametrize(("count", "about"), [(7, 7), (99, 99), (101, 110), (2140, 2200), (18321, 19000)])
def test_counts_are_rounded_up(count: int, about: int) -> None:
    """Two digits are enough for a plan, and never fewer examples than needed."""
    assert rounded(count) == about


def test_numbers_are_short() -> None:
    """Four digits of a level, one decimal of gains, more where an edge is near."""
    assert short([0.966666, 0.5], []) == ["0.9667", "0.5000"]
    assert short([0.84999999], [0.85]) == ["0.84999999"]
    assert short([0.0], [0.0], signed=True) == ["0"]
    assert short([1e-13], [0.0]) == ["0"]
    assert short([0.023, -0.028, 0.074], [-1.0], signed=True) == ["+0.02", f"{MINUS}0.03", "+0.07"]
    assert percent(0.95) == "95 %"
    assert percent(0.999) == "99.9 %"
    assert percent(1 - 0.05 / 7) == "99.286 %"
    assert percent(1 - 0.05 / 1000) == "99.995 %"
    assert percent(0.05) == "5 %"
