"""What a gate on evidence will be able to say: how many examples it needs, how often it errs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.pipelines import Gate
from penstock.rehearsals import Scored, plans, rehearsals, rehearsed
from penstock.slicings import Slice


def gate(**fields: Any) -> Gate:
    return Gate.model_validate({"name": "g", "evidence": "evaluate", **fields})


def binary(wrong: range, whole: int = 360) -> Any:
    return np.array([0.0 if n in wrong else 1.0 for n in range(whole)])


NEAR = {"not_worse_than": "champion", "margin": 0.03}


def test_the_digits_gate_is_planned_as_the_page_says() -> None:
    """A margin of .03 with 2 % disagreement takes 198 examples; on 360 an unchanged model passes in 97 of 100 cases."""
    pair = Scored(binary(range(4), 400), binary(range(4, 8), 400))
    (plan,) = plans(gate(**NEAR), pair)
    assert (plan.wanted, plan.at_hand, plan.supposed) == (198, 400, "2 % of answers differ and both are as good")
    assert plan.power is not None
    assert plan.power > 0.97
    assert plan.sentence == (
        f"200 examples pass with 80 % if 2 % of answers differ and both are as good; "
        f"the 400 at hand with {100 * plan.power:.0f} %"
    )


@pytest.mark.parametrize(
    ("rule", "scored", "words"),
    [
        (NEAR, Scored(), "if 5 % of answers differ (nothing is known) and both are as good"),
        ({"not_worse_than": "champion", "margin": 0}, Scored(), "no number of examples passes if 5 % of answers"),
        ({"better_than": "champion"}, Scored(), "and it is better by 2 points"),
        (
            {"at_least": 0.9, "confidence": 0.95},
            Scored(),
            "nothing can be planned, since no package has met the test set; even the best",
        ),
        ({"at_least": 0.85, "confidence": 0.95}, Scored(binary(range(36))), "if the level stays 0.9; the 360 at hand"),
        ({"at_most": 0.85, "confidence": 0.95}, Scored(binary(range(36))), "no number of examples passes if the level"),
        (
            {**NEAR, "score": "absolute_error"},
            Scored(np.arange(9.0)),
            "nothing can be planned, since no two packages have met the test set; the 9 at",
        ),
        (
            {**NEAR, "score": "absolute_error"},
            Scored(np.arange(9.0), np.arange(9.0)[::-1], -1),
            "if differences spread by 5.16 and both are as good; the 9 at hand were seen",
        ),
        (
            {"at_most": 9, "confidence": 0.95, "score": "absolute_error"},
            Scored(np.arange(9.0), None, -1),
            "if the level stays 4; the 9 at hand",
        ),
        ({**NEAR, "score": "absolute_error"}, Scored(), "nothing can be planned, since no two packages"),
        ({**NEAR, "margin": "5%"}, Scored(binary(range(4))), "nothing can be planned, since no two packages"),
        (
            {**NEAR, "margin": "5%"},
            Scored(binary(range(4)), binary(range(2, 6))),
            "27 examples pass with 80 % if differences spread by 0.103 and both are as good",
        ),
        ({"better_than": "champion", "margin": "5%"}, Scored(binary(range(9)), binary(range(9))), "is better by 10 %"),
    ],
)
def test_a_plan_says_what_it_supposes(rule: dict[str, Any], scored: Scored, words: str) -> None:
    """Without evidence something is supposed and said; where no number of examples would do, that is said."""
    (plan,) = plans(gate(**rule), scored)
    assert words in plan.sentence


def test_a_range_has_two_rules_and_a_plain_bound_none() -> None:
    """Each side of a range is planned and rehearsed by itself; a bound on these very examples needs no plan."""
    within = gate(within=[0.8, 0.95], confidence=0.95)
    scored = Scored(binary(range(40)))
    assert [plan.rule for plan in plans(within, scored)] == ["at least 0.8", "at most 0.95"]
    assert len(rehearsals(within, scored)) == 2
    assert plans(gate(at_least=0.8), scored) == []
    assert rehearsals(gate(at_least=0.8), scored) == []


@pytest.mark.parametrize(
    ("rule", "scored"),
    [
        (NEAR, Scored(binary(range(4)), binary(range(3, 9)))),
        (NEAR, Scored(binary(range(4)))),
        ({"better_than": "champion"}, Scored(binary(range(40)), binary(range(20, 60)))),
        ({"at_least": 0.9, "confidence": 0.95}, Scored(binary(range(36)))),
        ({"better_than": "champion", "score": "squared_error"}, Scored(np.arange(50.0) % 7, np.arange(50.0) % 5, -1)),
    ],
)
def test_a_model_against_itself_flips_as_rarely_as_promised(rule: dict[str, Any], scored: Scored) -> None:
    """The rate is at most α, within what some thousand rounds can tell."""
    (found,) = rehearsals(gate(**rule), scored)
    assert found.flip_rate <= found.alpha + 0.015
    assert found.sentence.endswith("promised at most 5 %")


def sliced(sizes: list[int]) -> tuple[Slice, ...]:
    ends = np.cumsum(sizes)
    return tuple(
        Slice(f"digit={n}", np.arange(end - size, end)) for n, (size, end) in enumerate(zip(sizes, ends, strict=True))
    )


def test_slices_are_planned_by_the_smallest() -> None:
    """Each slice needs as many examples; where the worst is judged its confidence is that of one of many."""
    pair = Scored(binary(range(4)), binary(range(4, 8)), slices=sliced([200, 60, 100]))
    (each,) = plans(gate(**NEAR, slices="digit"), pair)
    (whole,) = plans(gate(**NEAR), Scored(pair.new, pair.old))
    assert (each.wanted, each.at_hand, each.slices, each.smallest) == (whole.wanted, 60, 3, "digit=1")
    assert each.power is not None
    assert "examples in each slice pass with 80 % if 2.22 % of answers differ" in each.sentence
    assert each.sentence.endswith(f"; the smallest of 3, digit=1, has 60 and passes with {100 * each.power:.0f} %")
    (worst,) = plans(gate(**NEAR, slices={"by": "digit", "judge": "worst"}), pair)
    assert (worst.wanted or 0) > (each.wanted or 0)


@pytest.mark.parametrize("which", ["each", "worst"])
@pytest.mark.parametrize(
    ("rule", "scored"),
    [
        (NEAR, Scored(binary(range(4)), binary(range(3, 9)))),
        ({"better_than": "champion"}, Scored(binary(range(40)), binary(range(20, 60)))),
        ({"at_least": 0.9, "confidence": 0.95}, Scored(binary(range(36)))),
        ({"at_most": 0.9, "confidence": 0.95}, Scored(binary(range(36)))),
        ({"better_than": "champion", "score": "squared_error"}, Scored(np.arange(360.0) % 7, np.arange(360.0) % 5, -1)),
        ({"at_most": 3, "confidence": 0.95, "score": "squared_error"}, Scored(np.arange(360.0) % 7)),
    ],
)
def test_slices_are_rehearsed_together(which: str, rule: dict[str, Any], scored: Scored) -> None:
    """A model against itself in all slices at once flips as rarely as promised."""
    parts = replace(scored, slices=sliced([100, 60, 200]))
    (found,) = rehearsals(gate(**rule, slices={"by": "digit", "judge": which}), parts)
    assert (found.slices, found.rounds) == (3, 500)
    assert found.flip_rate <= found.alpha + 0.03
    assert "rounds on 3 slices of 360 examples; promised at most 5 %" in found.sentence


def test_members_of_others_are_planned_too() -> None:
    """Each under the name of its gate and its number; what no interval decides is left out."""
    members = [{"metric": "a.b", "at_least": 1}, {"evidence": "e", **NEAR}, {"any_of": [{"evidence": "f", **NEAR}]}]
    whole = Gate.model_validate({"name": "g", "all_of": members})
    assert [(one.name, one.evidence) for one in rehearsed(whole)] == [("g.2", "e"), ("g.3.1", "f")]
    assert [one.name for one in rehearsed(gate(**NEAR))] == ["g"]
    assert list(rehearsed(gate(at_least=0.5))) == []


@pytest.mark.parametrize("rule", [NEAR, {"at_least": 0.9, "confidence": 0.95}, {**NEAR, "margin": "5%"}])
def test_what_is_hidden_leaves_no_trace(rule: dict[str, Any]) -> None:
    """With reuse: enforce plan and self-test say the same of two very different models."""
    one, other = (Scored(binary(range(bad)), binary(range(bad, 2 * bad)), hides=True) for bad in (4, 90))
    for say in (plans, rehearsals):
        assert say(gate(**rule), one) == say(gate(**rule), other)
    (plan,), (test,) = plans(gate(**rule), one), rehearsals(gate(**rule), one)
    assert "reuse: enforce tells no scores" in plan.sentence
    assert "360 at hand" in plan.sentence
    assert "with answers made up (reuse: enforce tells no scores)" in test.sentence
    assert rehearsals(gate(**rule, score="squared_error"), one) == []


def test_without_evidence_nothing_is_rehearsed() -> None:
    """There must be scores to draw from."""
    assert rehearsals(gate(**NEAR), Scored()) == []
