"""Metrics of one's own: numbers out of answers of any kind, and what rules make of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.environments import MetricQuestion
from penstock.errors import ReportError
from penstock.questions import filled, judged, number_at, prometheus_number


def question(**fields: Any) -> MetricQuestion:
    return MetricQuestion.model_validate({"url": "http://host/x", "value": "rate", **fields})


@pytest.mark.parametrize(
    ("value", "word", "reason"),
    [
        (0.01, "pass", "0.01"),
        (0.02, "pass", "0.02"),
        (0.03, "inconclusive", "0.03 is not at most 0.02, and not above 0.05"),
        (0.05, "inconclusive", "0.05 is not at most 0.02, and not above 0.05"),
        (0.06, "fail", "0.06, where at most 0.02 was allowed"),
    ],
)
def test_the_three_verdicts(value: float, word: str, reason: str) -> None:
    """Within the limit, between it and what fails, and beyond."""
    answer = judged(question(at_most=0.02, fails_above=0.05), value)
    assert (answer.word, answer.reason, answer.value) == (word, reason, value)


def test_two_limits() -> None:
    """A number must be within both; without a second limit, beyond the first is beyond."""
    both = question(at_least=1, at_most=2)
    assert [judged(both, value).word for value in (0.9, 1, 1.5, 2, 2.1)] == ["fail", "pass", "pass", "pass", "fail"]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-10, 10), st.floats(0, 10))
def test_a_pass_is_within_and_a_fail_beyond(value: float, limit: float, more: float) -> None:
    """Whatever the numbers are, a pass is never beyond the limit and a fail never within what is undecided."""
    word = judged(question(at_most=limit, fails_above=limit + more), value).word
    assert word == ("pass" if value <= limit else "fail" if value > limit + more else "inconclusive")


def test_numbers_by_their_path() -> None:
    """Names and indices lead to a number, and every other end is told."""
    document = json.loads('{"data": {"rates": [{"value": 3}, {"value": "3"}, {"value": true}, {"value": 1e999}]}}')
    assert number_at(document, "data.rates[0].value") == 3
    for path, words in (
        ("data.rates[1].value", "is no number: 3"),
        ("data.rates[2].value", "is no number: True"),
        ("data.rates[3].value", "is not finite"),
        ("data.rates[9].value", "nothing at"),
        ("data.rates.value", "nothing at"),
        ("data", "is no number"),
    ):
        with pytest.raises(ReportError, match=words):
            number_at(document, path)


def told(kind: str, result: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


@pytest.mark.parametrize(
    "document", [told("scalar", [1, "0.5"]), told("vector", [{"metric": {}, "value": [1, "0.5"]}])]
)
def test_prometheus_gives_one_number(document: Any) -> None:
    """A scalar, or a vector of one series."""
    assert prometheus_number(document) == 0.5


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (told("vector", []), "no series"),
        (told("vector", [{}, {}]), "2 series"),
        (told("vector", [{"value": [1, "NaN"]}]), "not finite"),
        (told("vector", [{"value": 3}]), "cannot be read"),
        (told("vector", [7]), "cannot be read"),
        (told("matrix", []), "no instant number"),
        (told("scalar", [1, "x"]), "no number: x"),
        ({"status": "error", "error": "parse\nerror"}, "refuses the query: parse error"),
        ({"status": "success"}, "no instant number"),
        ([], "refuses"),
        (None, "refuses"),
    ],
)
def test_what_prometheus_gives_besides(document: Any, words: str) -> None:
    """No series, many, no number, or an error: one sentence."""
    with pytest.raises(ReportError, match=words):
        prometheus_number(document)


def test_places() -> None:
    """Release, version and environment are filled in; any other name is refused by the file."""
    places = {"release": "7", "version": "1.2", "environment": "production"}
    assert filled("x=${{ release }}&y=${{version}}", places) == "x=7&y=1.2"
    for path in ("a[b]", "a..b", ".", "a[0"):
        with pytest.raises(ValueError, match="expected a path such as"):
            question(value=path, at_most=1)
    with pytest.raises(ValueError, match="is no place of a metric"):
        question(url="http://host/${{ secrets.TOKEN }}", at_most=1)
