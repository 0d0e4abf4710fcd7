"""Two steps of a run gave the same predictions, example by example, or the gate names where not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ReportError
from penstock.gates import Verdict
from penstock.parities import judge_parity, read_answers
from penstock.pipelines import Gate


def judge(own: bytes | None, other: bytes | None, **more: Any) -> Verdict:
    gate = Gate.model_validate({"name": "g", "evidence": "trained", "same_as": "served", **more})
    both = (None if data is None else read_answers(data, "p.csv") for data in (own, other))
    return judge_parity(gate, *both)


def test_the_same_answers_pass() -> None:
    """The order of rows does not matter, nor how a number is written; the value is the share of equal ones."""
    found = judge(b"id,prediction\n1,7\n2,cat\n3,0.50\n", b"id,prediction,extra\n3,.5,x\n2,cat,x\n1,7.0,x\n")
    assert (found.verdict, found.value) == ("pass", 1.0)
    assert found.reasons == ("all 3 examples of both have the same prediction",)


def test_what_differs_is_named() -> None:
    """How many, by how much at most, and the first three with both values."""
    own = b"id,prediction\n" + b"".join(b"%d,%d\n" % (n, n) for n in range(10))
    found = judge(
        own, own.replace(b"2,2", b"2,2.5").replace(b"3,3", b"3,9").replace(b"4,4", b"4,x").replace(b"5,5", b"5,0")
    )
    assert (found.verdict, found.value) == ("fail", 0.6)
    assert found.reasons == (
        "4 of 10 examples differ between trained and served, by up to 6 of prediction where 0 is allowed",
        'id "2": prediction 2 and 2.5',
        'id "3": prediction 3 and 9',
        'id "4": prediction 4 and x',
    )
    texts = judge(b"id,prediction\n1,a\n", b"id,prediction\n1,b\n")
    assert texts.reasons == ("1 of 1 examples differ between trained and served", 'id "1": prediction a and b')


def test_examples_that_only_one_has_decide_nothing() -> None:
    """They are counted; what differs among the others fails all the same."""
    found = judge(b"id,prediction\n1,a\n2,b\n", b"id,prediction\n1,a\n3,b\n4,b\n")
    assert (found.verdict, found.value) == ("inconclusive", 1.0)
    alone = "1 examples are only in trained and 2 examples are only in served: predict them all in both"
    assert found.reasons == (f"all 1 examples of both have the same prediction; but {alone}",)
    bad = judge(b"id,prediction\n1,a\n2,b\n", b"id,prediction\n1,c\n")
    assert (bad.verdict, bad.reasons[-1]) == ("fail", "1 examples are only in trained")
    none = judge(b"id,prediction\n1,a\n", b"id,prediction\n2,a\n")
    assert (none.verdict, none.value) == ("inconclusive", None)
    assert none.reasons == ("no example of trained is in served too: there is nothing to compare",)


@pytest.mark.parametrize(
    ("own", "other", "tolerance", "verdict"),
    [
        ("0.5", "0.5000001", 1e-6, "pass"),
        ("0.5", "0.50001", 1e-6, "fail"),
        ("1000000", "1000000.5", 1e-6, "pass"),
        ("1000000", "1000002", 1e-6, "fail"),
        ("-2", "2", 1.0, "fail"),
        ("-1", "1", 2.0, "pass"),
        ("inf", "inf", 0.0, "pass"),
        ("inf", "1", 1e9, "fail"),
        ("1e999", "1.5", 1e-3, "fail"),
        ("1e999", "1.5", 0.0, "fail"),
        ("1e999", "2e999", 1e-3, "fail"),
        ("1e999", "-1e999", 1e-3, "fail"),
        ("1e999", "1e999", 1e-3, "pass"),
    ],
)
def test_numbers_may_differ_by_the_tolerance(own: str, other: str, tolerance: float, verdict: str) -> None:
    """Of 1 or of their size if that is larger; what is no number must be the same text."""
    one, two = (f"id,prediction\n1,{text}\n".encode() for text in (own, other))
    assert judge(one, two, tolerance=tolerance).verdict == verdict
    assert judge(two, one, tolerance=tolerance).verdict == verdict


def test_probabilities_are_compared_where_both_have_them() -> None:
    """The same class with another probability is another answer; a column that only one has is left alone."""
    own = b"id,prediction,probability:a,probability:b\n1,a,.75,.25\n2,b,.5,.5\n"
    found = judge(own, own, tolerance=0.01)
    same = "all 2 examples of both have the same prediction and 2 probabilities"
    assert found.reasons == (f"{same}, none off by more than 0.01",)
    off = judge(own, own.replace(b".5,.5", b".4,.6"), tolerance=0.01)
    assert off.verdict == "fail"
    assert off.reasons[1] == 'id "2": probability:a .5 and .4'
    assert judge(own, b"id,prediction\n1,a\n2,b\n").verdict == "pass"
    apart = judge(b"id,prediction\n1,a\n", b"id,probability\n1,.5\n")
    assert apart.reasons == ("no column of trained is in served too: there is nothing to compare",)


def test_there_must_be_answers() -> None:
    """A step without evidence is errored, a file without an answer refused."""
    found = judge(b"id,prediction\n1,a\n", None)
    assert (found.verdict, found.reasons) == ("errored", ("step served left no evidence to judge",))
    with pytest.raises(ReportError, match=r'p\.csv: there is neither a column "prediction" nor "probability"'):
        read_answers(b"id,truth\n1,a\n", "p.csv")


@given(st.dictionaries(st.integers(0, 99), st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0, 0.1))
def test_whoever_is_the_first_the_verdict_is_the_same(values: dict[int, float], tolerance: float) -> None:
    """A model is the same as itself, and being the same goes both ways."""
    one = "id,prediction\n" + "".join(f"{n},{value!r}\n" for n, value in values.items())
    two = "id,prediction\n" + "".join(f"{n},{value * 1.01!r}\n" for n, value in values.items())
    assert judge(one.encode(), one.encode()).verdict == "pass"
    there, back = (judge(a.encode(), b.encode(), tolerance=tolerance) for a, b in ((one, two), (two, one)))
    assert (there.verdict, there.value) == (back.verdict, back.value)
