"""A rule holds in each slice of the evidence, or in the one that looks worst, with the promised error."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.charts import Chart
from penstock.comparisons import Champion, judge_examples
from penstock.evidence import Evidence, Slices, read_evidence
from penstock.families import corrected
from penstock.gates import Verdict
from penstock.pipelines import Gate
from penstock.proportions import is_beyond
from penstock.reuse_budgets import Budget
from penstock.slicings import Claim, judge_slices

NEAR = {"not_worse_than": "champion", "margin": 0.05}


def gate(**fields: Any) -> Gate:
    return Gate.model_validate({"name": "g", "evidence": "evaluate", **fields})


def evidence(wrong: dict[str, int], whole: int = 100, **more: str) -> Evidence:
    """So many examples of each digit, of which so many are answered wrongly."""
    rows = [
        f"{digit}.{n},1,{0 if n < bad else 1},{more.get(digit, digit)}"
        for digit, bad in wrong.items()
        for n in range(whole)
    ]
    return read_evidence(
        b"id,truth,prediction,digit\n" + "\n".join(rows).encode(), None, "e.csv", None, ("correct",), ("digit", "truth")
    )


def judge(new: dict[str, int], old: dict[str, int], whole: int = 100, **rule: Any) -> Verdict:
    rule = {**NEAR, **rule}
    return judge_examples(gate(**rule), evidence(new, whole), Champion("1.4.0", "theirs", evidence(old, whole)), "mine")


FEW = dict.fromkeys("abcdefgh", 2)


# --- each ----------------------------------------------------------------------------------------------------------


def test_all_slices_pass_with_the_confidence_itself() -> None:
    """The three that look worst are told of with their bounds, the others counted; value and chart are the worst's."""
    found = judge({**FEW, "c": 3}, FEW, slices="digit")
    assert (found.verdict, found.value) == ("pass", 0.97)
    assert found.chart is not None
    assert (found.chart.slice_of, found.chart.n, found.chart.confidence) == ("digit=c", 100, 0.95)
    alike = "as good as 1.4.0 on the same 100 examples; its 95 % bounds −2.6 … +2.6 exclude a loss of 5 points: pass"
    flips = "1.0 points worse than 1.4.0 on the same 100 examples (0 newly right, 1 newly wrong)"
    assert found.reasons == (
        "all 8 slices by digit pass",
        f"digit=c: {flips}; its 95 % bounds −4.3 … +1.2 exclude a loss of 5 points: pass",
        f"digit=a: {alike}",
        f"digit=b: {alike}",
        "of the 5 other slices 5 pass",
    )
    assert judge({"a": 3}, {"a": 3}, slices="digit").reasons[0] == "the one slice by digit passes"


def test_one_slice_that_is_surely_bad_fails_all() -> None:
    """A gate on the whole would not see it; the reason says with which corrected confidence it was shown."""
    new = {**FEW, "c": 32}
    assert judge(new, FEW).verdict == "pass"
    found = judge(new, FEW, slices="digit")
    assert (found.verdict, found.value) == ("fail", 0.68)
    assert found.reasons[0] == "of 8 slices by digit 1 fails, 7 pass: fail"
    assert found.reasons[1].startswith("digit=c: 30.0 points worse than 1.4.0 on the same 100 examples")
    assert "its 99.375 % bounds" in found.reasons[1]


def test_what_only_looks_bad_among_many_is_inconclusive() -> None:
    """A slice that would fail by itself is not shown to be bad among eight, and its sentence says so."""
    new = {**FEW, "c": 13}
    alone = judge({"c": 13}, {"c": 2}, slices="digit")
    assert alone.verdict == "fail"
    found = judge(new, FEW, slices="digit")
    assert found.verdict == "inconclusive"
    assert found.reasons[0] == "of 8 slices by digit 1 is inconclusive, 7 pass: inconclusive"
    assert "its 99.375 % bounds" in found.reasons[1]
    assert found.reasons[1].split(";")[1].endswith(": inconclusive")


def test_small_slices_are_left_out_and_told() -> None:
    """They are told by name and size; where none is left nothing is decided."""
    small = judge({**FEW, "c": 50}, FEW, slices={"by": "digit", "min_examples": 100})
    assert (small.verdict, len(small.reasons)) == ("fail", 5)
    mixed = evidence({**FEW, **{f"{n} rare": 0 for n in range(7)}}, 20)
    found = judge_examples(
        gate(at_least=0.9, slices={"by": ["digit", "truth"], "min_examples": 100}), mixed, None, None
    )
    assert found.reasons[-1] == (
        "left out, with fewer than 100 examples: digit=0 rare (20), digit=1 rare (20), digit=2 rare (20), "
        "digit=3 rare (20), digit=4 rare (20) and 10 more"
    )
    few = judge(FEW, FEW, 20, slices={"by": "digit", "min_examples": 21})
    assert (few.verdict, few.chart) == ("inconclusive", None)
    assert few.reasons == ("no slice by digit has 21 examples: lower min_examples, or add examples",)


def test_levels_are_sliced_too() -> None:
    """Of these very examples a level is a fact in each slice; with confidence its interval decides."""
    wrong = {"a": 5, "b": 12, "c": 20}
    found = judge_examples(gate(at_least=0.85, slices="digit"), evidence(wrong), None, None)
    assert (found.verdict, found.value, found.chart) == ("fail", 0.8, None)
    assert found.reasons[:2] == (
        "of 3 slices by digit 1 fails, 2 pass: fail",
        "digit=c: 0.8 is below 0.85: 80 of 100 examples correct, 5 fewer than needed",
    )
    sure = judge_examples(gate(at_least=0.85, slices="digit", confidence=0.95), evidence(wrong), None, None)
    assert sure.verdict == "inconclusive"
    assert sure.reasons[1].startswith("digit=c: 0.8000 correct on 100 examples; its")


@pytest.mark.parametrize(
    ("rule", "worst"),
    [({"at_most": 0.5}, "digit=a"), ({"within": [0.5, 0.9]}, "digit=a"), ({"equals": 0.95}, "digit=c")],
)
def test_the_worst_is_what_is_farthest_from_the_rule(rule: dict[str, Any], worst: str) -> None:
    """Of what should be low the highest, of a range what is farthest outside, of an exact value the farthest."""
    found = judge_examples(gate(slices="digit", **rule), evidence({"a": 5, "b": 20, "c": 40}), None, None)
    assert found.reasons[1].startswith(worst)


def test_a_slice_of_one_numeric_score_decides_nothing() -> None:
    """A mean with bounds needs two examples: that slice is inconclusive, the others are judged."""
    rows = "".join(f"{n},{n},{n + n % 3 / 10},{'b' if n == 7 else 'a'}\n" for n in range(40))
    one = read_evidence(
        f"id,truth,prediction,kind\n{rows}".encode(), None, "e.csv", None, ("absolute_error",), ("kind",)
    )
    rule = gate(at_most=0.5, confidence=0.95, score="absolute_error", slices="kind")
    found = judge_examples(rule, one, None, None)
    assert found.verdict == "inconclusive"
    assert found.reasons[1].startswith("kind=b: there are 1 examples, and a mean with bounds needs two")


def test_a_column_that_is_not_there_is_errored() -> None:
    """It is named."""
    found = judge_examples(gate(at_least=0.5, slices="place"), evidence({"a": 1}), None, None)
    assert (found.verdict, found.reasons) == ("errored", ('the evidence has no column "place" to make slices of',))


def test_before_slices_comes_what_is_so_everywhere() -> None:
    """No champion, the same package, a champion without evidence, examples without a prediction: as without slices."""
    rule = gate(**NEAR, slices="digit")
    assert judge_examples(rule, evidence(FEW), None, "mine").verdict == "pass"
    required = gate(**NEAR, slices="digit", required=True)
    assert judge_examples(required, evidence(FEW), None, "mine").verdict == "fail"
    assert judge_examples(rule, evidence({"a": 90}), Champion("1", "mine", evidence(FEW)), "mine").verdict == "pass"
    assert judge_examples(rule, evidence(FEW), Champion("1", "theirs", None), "mine").verdict == "inconclusive"
    given_, asked = b"id,prediction,digit\n1,1,a\n", b"id,truth\n1,1\n2,1\n"
    partly = read_evidence(given_, asked, "p.csv", "t.csv", ("correct",), ("digit",))
    found = judge_examples(gate(at_least=0.5, slices="digit"), partly, None, None)
    assert (found.verdict, found.reasons[-1].startswith("1 of 2 examples have no prediction")) == ("inconclusive", True)


@pytest.mark.parametrize("which", ["each", "worst"])
def test_an_enforced_budget_hides_the_slices(which: str) -> None:
    """Nobody learns which slice it was, nor how large: only pass or fail."""
    rule = gate(**NEAR, slices={"by": "digit", "judge": which, "min_examples": 50}, reuse="enforce")
    champion = Champion("1.4.0", "theirs", evidence(FEW))
    for new, word in (({**FEW, "c": 60}, "fail"), ({**FEW, "c": 3}, "fail")):
        found = judge_examples(rule, evidence(new), champion, "mine", Budget(0.95, ("first",)))
        assert (found.verdict, found.value, found.chart) == (word, None, None)
        assert found.reasons == (
            "fail with a risk of 0.76 %, this package's share; reuse: enforce tells no more",
            "decision 2 on this test set",
        )


# --- the worst -----------------------------------------------------------------------------------------------------


def test_the_worst_alone_is_judged_with_wider_bounds() -> None:
    """It was chosen by looking at eight, so a risk of 5 % is an eighth of that for it."""
    found = judge({**FEW, "c": 32}, FEW, slices={"by": "digit", "judge": "worst"})
    assert (found.verdict, found.value) == ("fail", 0.68)
    assert found.chart is not None
    assert (found.chart.slice_of, round(found.chart.confidence, 6)) == ("digit=c", 0.99375)
    assert found.reasons[0] == (
        "the worst of 8 slices by digit is digit=c, chosen by looking at all, so its bounds are wider: fail"
    )
    assert len(found.reasons) == 2
    assert judge(FEW, FEW, 400, slices={"by": "digit", "judge": "worst"}).verdict == "pass"
    plain = judge_examples(gate(at_least=0.85, slices={"by": "digit", "judge": "worst"}), evidence(FEW), None, None)
    assert plain.reasons[0] == "the worst of 8 slices by digit is digit=a: pass"


@given(st.integers(1, 1000))
def test_a_chosen_slice_gets_its_share_of_the_risk(count: int) -> None:
    """Bonferroni: what holds for all at once holds for the chosen one."""
    assert corrected(0.95, count) == pytest.approx(1 - 0.05 / count)


# --- what is promised ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), least=st.integers(1, 9))
def test_each_example_is_in_one_slice_of_a_column(sizes: list[int], least: int) -> None:
    """Judged are exactly the slices that are large enough, each with all of its examples."""
    codes = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    seen: list[int] = []

    def judged(places: Any, confidence: float) -> Verdict:
        chart = Chart("level", "correct", 0.5, 0.4, 0.6, 0.3, None, confidence, len(places), None, "x")
        return Verdict("g", "pass", 0.5, ("fine",), chart)

    def word(places: Any, confidence: float) -> str:
        seen.append(len(places))
        return judged(places, confidence).verdict

    claim = Claim(judged, word, lambda places: -float(len(places)))
    slices = Slices("size", codes, tuple(map(str, range(len(sizes)))))
    found = judge_slices(gate(at_least=0.3, slices={"by": "size", "min_examples": least}), [slices], claim, 0.95)
    kept = [size for size in sizes if size >= least]
    assert sorted(seen) == sorted(kept)
    assert found.verdict == ("pass" if kept else "inconclusive")
    if kept:
        assert found.chart is not None
        assert found.chart.n == min(kept)


def test_a_word_that_a_bound_contradicts_is_not_believed() -> None:
    """A quick word may differ at the very edge: then all slices are judged in full."""

    def judged(places: Any, confidence: float) -> Verdict:
        return Verdict("g", "inconclusive", None, (f"at {confidence}",))

    slices = Slices("s", np.arange(3, dtype=np.int32), ("a", "b", "c"))
    claim = Claim(judged, lambda *_: "pass", lambda places: -float(places[0]))
    found = judge_slices(gate(at_least=0.3, slices="s"), [slices], claim, 0.95)
    assert (found.verdict, found.reasons[0]) == ("inconclusive", "of 3 slices by s 3 are inconclusive: inconclusive")


@cache
def cell(wins: int, losses: int, n: int, margin: float, confidence: float) -> Verdict:
    """One slice of two models with scores of 0 and 1, of which only the counts matter."""
    if is_beyond(wins, losses, n, -margin, confidence):
        return Verdict("g", "pass", None, ("",))
    return Verdict("g", "fail" if is_beyond(losses, wins, n, margin, confidence) else "inconclusive", None, ("",))


def played(which: str, margin: float, gains: list[float], rounds: int, n: int = 200) -> dict[str, float]:
    """How often a gate on ten slices of n examples that differ on 10 % gives each verdict; gains are the true ones."""
    draw = np.random.default_rng(7)
    slices = [Slices("s", np.arange(len(gains), dtype=np.int32), tuple(map(str, range(len(gains)))))]
    rule = gate(not_worse_than="champion", margin=margin, slices={"by": "s", "judge": which})
    words: dict[str, float] = {"pass": 0, "fail": 0, "inconclusive": 0}
    for _ in range(rounds):
        rows = [draw.multinomial(n, [0.05 + gain / 2, 0.05 - gain / 2, 0.9]).tolist() for gain in gains]

        def judged(places: Any, confidence: float, rows: list[list[int]] = rows) -> Verdict:
            wins, losses, _ = rows[int(places[0])]
            return cell(wins, losses, n, margin, confidence)

        def distance(places: Any, rows: list[list[int]] = rows) -> float:
            return float(rows[int(places[0])][1] - rows[int(places[0])][0])

        words[
            judge_slices(rule, slices, Claim(judged, lambda *asked: judged(*asked).verdict, distance), 0.95).verdict
        ] += 1 / rounds
    return words


@pytest.mark.parametrize("which", ["each", "worst"])
def test_ten_equal_slices_rarely_fail(which: str) -> None:
    """Of ten slices without any change one looks worse by chance: with a margin of 0 all is at the edge of the rule."""
    assert played(which, 0.0, [0.0] * 10, 1000)["fail"] <= 0.05 + 0.015


@pytest.mark.parametrize("which", ["each", "worst"])
def test_a_slice_at_the_edge_rarely_passes(which: str) -> None:
    """One slice that is as bad as just not allowed, among nine that did not change, slips through with α at most."""
    assert played(which, 0.08, [-0.08] + [0.0] * 9, 1000)["pass"] <= 0.05 + 0.015


@pytest.mark.parametrize("which", ["each", "worst"])
def test_a_truly_bad_slice_fails(which: str) -> None:
    """Ten points worse in one of ten slices is seen, though all in all it is one point."""
    assert played(which, 0.02, [-0.1] + [0.0] * 9, 100)["fail"] >= 0.95
