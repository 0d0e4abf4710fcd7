"""A gate that is made of others: all of them must pass, or any, and chance is reckoned with."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gates import Verdict
from penstock.pipelines import Gate
from penstock.proportions import is_beyond
from penstock.wholes import judge_whole, may_err, surer

Word = Literal["pass", "fail", "inconclusive", "errored"]
WORDS: tuple[Word, ...] = ("pass", "fail", "inconclusive", "errored")


def whole(kind: str, *members: dict[str, Any]) -> Gate:
    return Gate.model_validate({"name": "g", kind: list(members)})


def metric(name: str) -> dict[str, Any]:
    return {"metric": f"train.{name}", "at_least": 0.9}


def examples(step: str, **more: Any) -> dict[str, Any]:
    return {"evidence": step, "not_worse_than": "champion", "margin": 0.02, **more}


def said(**words: Word) -> Callable[[Gate], Verdict]:
    """A judge that says a word of each metric or step, whatever its confidence is."""

    def judge(gate: Gate) -> Verdict:
        name = gate.about.rpartition(".")[2]
        return Verdict(gate.name, words[name], None, (f"{name} is so",))

    return judge


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), list(product(WORDS, WORDS)))
@pytest.mark.parametrize("kind", ["all_of", "any_of"])
@pytest.mark.parametrize("member", [metric, examples])
def test_one_decides_or_all_do(kind: str, one: Word, other: Word, member: Callable[[str], dict[str, Any]]) -> None:
    """A fail decides "all of", a pass "any of"; else what was not judged makes it errored, what is open undecided."""
    found = judge_whole(whole(kind, member("a"), member("b")), said(a=one, b=other))
    decisive, plain = ("fail", "pass") if kind == "all_of" else ("pass", "fail")
    order = (decisive, "errored", "inconclusive", plain)
    assert found.verdict == min((one, other), key=order.index)
    assert (found.value, found.chart) == (None, None)


def test_each_member_has_a_line() -> None:
    """Subject and rule in words, verdict, first reason; the summary says how many."""
    gate = whole("any_of", metric("a"), examples("b"), {"model": "format", "one_of": ["onnx"]})

    def judge(gate: Gate) -> Verdict:
        words: dict[str, Word] = {"metric": "fail", "evidence": "errored", "model": "pass"}
        return Verdict(gate.name, words[gate.subject], None, ("so it is", "and more", "decision 3 on this test set"))

    assert judge_whole(gate, judge).reasons == (
        "any of 3 must pass: 1 fail, 1 could not be judged, 1 pass: pass",
        "1. train.a at least 0.9: fail (so it is)",
        "1: and more",
        "2. b not worse than the champion by more than 0.02: errored (so it is)",
        "2: and more",
        "3. model format onnx: pass (so it is)",
        "decision 3 on this test set",
    )


def test_wholes_are_made_of_wholes() -> None:
    """The members of a member are told below it, by both numbers."""
    gate = whole("all_of", metric("a"), {"any_of": [metric("b"), metric("c")]})
    found = judge_whole(gate, said(a="pass", b="fail", c="pass"))
    assert found.verdict == "pass"
    assert found.reasons == (
        "all of 2 must pass: 2 pass: pass",
        "1. train.a at least 0.9: pass (a is so)",
        "2. any of 2 must pass: 1 fail, 1 pass: pass",
        "2.1. train.b at least 0.9: fail (b is so)",
        "2.2. train.c at least 0.9: pass (c is so)",
    )


# --- chance --------------------------------------------------------------------------------------------------------


def test_what_may_err() -> None:
    """An interval may err; a number, or these very examples, may not; a whole may where one of its members may."""
    gates = [
        metric("a"),
        examples("a"),
        {"evidence": "a", "at_least": 0.9},
        {"evidence": "a", "at_least": 0.9, "confidence": 0.95},
        {"benchmark": "a.b", "at_most": 1.1, "ratio_to": "champion"},
        {"any_of": [metric("a"), examples("b")]},
        {"any_of": [metric("a"), metric("b")]},
    ]
    found = [may_err(Gate.model_validate({"name": "g", **gate})) for gate in gates]
    assert found == [False, True, False, True, True, True, False]
    sure = surer(Gate.model_validate({"name": "g", **examples("a", confidence=0.9)}), 0.5)
    assert sure.confidence == pytest.approx(0.95)
    plain = Gate.model_validate({"name": "g", **metric("a")})
    assert surer(plain, 0.5) is plain


def test_members_are_asked_with_their_own_confidence_and_holms() -> None:
    """Of three that fail at their own risks, each may spend a third of it first; numbers do not count."""
    asked: list[float] = []

    def judge(gate: Gate) -> Verdict:
        if gate.metric is not None:
            return Verdict(gate.name, "pass", None, ("fine",))
        asked.append(round(gate.confidence or 0.95, 6))
        return Verdict(gate.name, "fail" if asked[-1] < 0.98 else "inconclusive", None, ("so",))

    gate = whole("all_of", metric("m"), examples("a"), examples("b", confidence=0.9), examples("c", confidence=0.8))
    found = judge_whole(gate, judge)
    assert asked == [0.95, 0.9, 0.8, 0.983333, 0.966667, 0.933333]
    assert found.verdict == "fail"
    assert found.reasons[0] == "all of 4 must pass: 3 fail, 1 pass: fail"


def test_a_whole_within_a_whole_is_asked_with_less_risk_too() -> None:
    """Both corrections multiply: the inner one gets half of the risk, and each of its members half of that."""
    asked: list[tuple[str, float]] = []

    def judge(gate: Gate) -> Verdict:
        asked.append((gate.about, round(gate.confidence or 0.95, 6)))
        return Verdict(gate.name, "fail", None, ("so",))

    inner = {"all_of": [examples("b"), examples("c")]}
    assert judge_whole(whole("all_of", examples("a"), inner), judge).verdict == "fail"
    assert ("b", 0.9875) in asked
    assert ("a", 0.975) in asked


@given(
    st.lists(st.tuples(st.sampled_from(["pass", "fail", "inconclusive"]), st.floats(0.5, 1)), min_size=1, max_size=5)
)
def test_a_whole_never_says_more_than_its_members(members: list[tuple[Word, float]]) -> None:
    """Corrected for chance, all of them never fail without one that fails, nor pass without all that pass."""

    def judge(gate: Gate) -> Verdict:
        word, most = members[int(gate.about)]
        return Verdict(gate.name, word if (gate.confidence or 0.95) <= most + 0.45 else "inconclusive", None, ("so",))

    words = [word if most >= 0.5 else "inconclusive" for word, most in members]
    found = judge_whole(whole("all_of", *(examples(str(n)) for n in range(len(members)))), judge)
    assert found.verdict != "fail" or "fail" in words
    assert (found.verdict == "pass") == (set(words) == {"pass"})


@cache
def cell(wins: int, losses: int, confidence: float) -> Word:
    if is_beyond(wins, losses, 200, 0.0, confidence):
        return "pass"
    return "fail" if is_beyond(losses, wins, 200, 0.0, confidence) else "inconclusive"


@pytest.mark.parametrize(("kind", "wrong"), [("all_of", "fail"), ("any_of", "pass")])
def test_equal_models_are_rarely_told_apart(kind: str, wrong: str) -> None:
    """Of eight comparisons of equal models one stands out by chance, and the whole still errs with α at most."""
    draw, rounds, seen = np.random.default_rng(11), 1000, 0
    gate = whole(kind, *({"evidence": str(n), "better_than": "champion"} for n in range(8)))
    for _ in range(rounds):
        rows = draw.multinomial(200, [0.05, 0.05, 0.9], 8).tolist()

        def judge(gate: Gate, rows: list[list[int]] = rows) -> Verdict:
            wins, losses, _ = rows[int(gate.about)]
            return Verdict(gate.name, cell(wins, losses, gate.confidence or 0.95), None, ("so",))

        seen += judge_whole(gate, judge).verdict == wrong
    assert 0 < seen / rounds <= 0.05 + 0.015
