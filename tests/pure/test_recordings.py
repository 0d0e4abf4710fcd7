"""Recorded requests: every line is read or refused with its place, and answers agree exactly within the tolerance."""

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ReportError
from penstock.recordings import (
    MAX_BYTES,
    MAX_REQUESTS,
    NAMES,
    Difference,
    Outcome,
    Recording,
    Reply,
    answered,
    difference,
    judged,
    measured,
    parse_recordings,
    quantile,
    shown,
    summary,
    told,
)

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


def lines(*requests: Any) -> bytes:
    return "\n".join(map(json.dumps, requests)).encode()


def parse(*requests: Any) -> tuple[Recording, ...]:
    return parse_recordings(lines(*requests), "requests.jsonl")


def refused(data: bytes) -> str:
    with pytest.raises(ReportError) as caught:
        parse_recordings(data, "requests.jsonl")
    return str(caught.value)


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_path_is_enough() -> None:
    """A request of a path alone is a GET without body, of which any 2xx is expected and no answer is known."""
    (found,) = parse({"path": "/health"})
    assert found == Recording(1, "/health", "GET", (), None, False, None, None, "")
    assert [found.expects(status) for status in (199, 200, 204, 299, 300, 500)] == [0, 1, 1, 1, 0, 0]


def test_everything_that_can_be_said() -> None:
    """Method, body, headers, answer, status and id are kept; lines count those that are blank."""
    whole = {"method": "PUT", "path": "/a?b=c", "body": "é", "headers": {"X-A": "b"}, "answer": None, "status": 404}
    data = b"\xef\xbb\xbf\n" + lines({**whole, "id": "seven"}) + b"\r\n\n"
    (found,) = parse_recordings(data, "requests.jsonl")
    assert found == Recording(2, "/a?b=c", "PUT", (("X-A", "b"),), "é".encode(), True, None, 404, "seven")
    assert found.name == "line 2 (seven): PUT /a?b=c"
    assert [found.expects(status) for status in (200, 404)] == [False, True]


def test_json_is_sent_as_json() -> None:
    """A JSON body makes it a POST that says so; a header of the file's own says it instead."""
    own = {"content-type": "application/vnd.x+json"}
    first, second, text = parse(
        {"path": "/", "json": [1, "é"]}, {"path": "/", "json": 1, "headers": own}, {"path": "/", "body": ""}
    )
    assert (first.method, first.headers) == ("POST", (("Content-Type", "application/json"),))
    assert json.loads(first.body or b"") == [1, "é"]
    assert second.headers == (("content-type", "application/vnd.x+json"),)
    assert (text.method, text.body, text.headers) == ("POST", b"", ())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "this is no JSON: expecting property name"),
        ("[" * 200_000, "this is no JSON: it is nested too deep"),
        ("[1]", "expected a JSON object with a path, found [1]"),
        ("7", "expected a JSON object with a path, found 7"),
        ("{}", "path is missing: expected a path that begins with one"),
        ('{"path": 7}', "path is 7: expected a path"),
        ('{"path": "predict"}', 'path is "predict": expected a path'),
        ('{"path": "//host/x"}', "expected a path that begins with one"),
        ('{"path": "/a b"}', "expected a path"),
        ('{"path": "/a\\r\\nX: y"}', "expected a path"),
        ('{"path": "/", "pth": 1}', 'unknown key "pth": a request has method, path'),
        ('{"path": "/", "json": 1, "body": "x"}', "expected either json or body, found both"),
        ('{"path": "/", "body": 1}', 'body is 1: expected a text (a value is sent as JSON by "json" instead)'),
        ('{"path": "/", "id": 1}', "id is 1: expected a text"),
        ('{"path": "/", "method": "get"}', 'method is "get": expected a method such as GET'),
        ('{"path": "/", "method": "CONNECT"}', "expected a method such as GET"),
        ('{"path": "/", "status": true}', "status is true: expected a number from 200 to 599"),
        ('{"path": "/", "status": 100}', "status is 100"),
        ('{"path": "/", "headers": []}', "headers is []: expected an object of texts"),
        ('{"path": "/", "headers": {"a b": "c"}}', 'the header "a b" cannot be sent'),
        ('{"path": "/", "headers": {"a": "b\\r\\nc: d"}}', 'the header "a" cannot be sent'),
        ('{"path": "/", "headers": {"a": 1}}', 'the header "a" cannot be sent'),
        ('{"path": "/", "headers": {"Content-length": "1"}}', "the header Content-length is set by Penstock"),
    ],
)
def test_what_is_no_request_is_refused_with_its_line(line: str, words: str) -> None:
    """Each mistake is one sentence that begins with file and line."""
    sentence = refused(b'{"path": "/"}\n' + line.encode())
    assert sentence.startswith("requests.jsonl:2: ")
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\n \n", "requests.jsonl: the file holds no request"),
        (b'{"path": "/"}\n\xff', "requests.jsonl:2: this is no UTF-8 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "requests.jsonl: this is a Git LFS pointer"),
        (b" " * (MAX_BYTES + 1), "requests.jsonl: 64 MiB of requests are too many"),
        (b'{"path":"/"}\n' * (MAX_REQUESTS + 1), "100,001 requests are too many"),
    ],
)
def test_a_file_may_hold_nothing_or_too_much(data: bytes, words: str) -> None:
    """An empty file, one that is no text, and one beyond the limits are refused."""
    assert words in refused(data)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\ path/nul0\n', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing that a file holds has another end than requests or one sentence."""
    try:
        said = parse_recordings(data, "requests.jsonl")[0].name
    except ReportError as error:
        said = str(error).removeprefix("requests.jsonl:")
    assert said.startswith(("line", " the file", " this is a Git LFS pointer", *"123456789"))


# --- agreement -----------------------------------------------------------------------------------------------------


@given(VALUES)
def test_what_is_the_same_agrees(value: Any) -> None:
    """A value agrees with itself, also after a way through JSON, without any tolerance."""
    assert difference(value, copy.deepcopy(value), 0.0) is None
    assert difference(value, json.loads(json.dumps(value)), 0.0) is None


@given(VALUES, VALUES, st.sampled_from([0.0, 1e-6, 0.5]))
def test_agreement_has_no_direction(one: Any, other: Any, tolerance: float) -> None:
    """Two values agree or not, whichever of them is the expected one."""
    assert (difference(one, other, tolerance) is None) == (difference(other, one, tolerance) is None)


@given(VALUES, VALUES)
def test_more_tolerance_never_parts(one: Any, other: Any) -> None:
    """What agrees within little agrees within more; the tolerance that a difference needs makes it agree."""
    found = difference(one, other, 1e-9)
    if found is None:
        assert difference(one, other, 1e-3) is None
    elif math.isfinite(found.needed):
        assert difference(one, other, found.needed) is None
        assert found.by is not None


@given(NUMBERS, NUMBERS, st.floats(0, 1))
def test_numbers_agree_by_the_formula(one: float, other: float, tolerance: float) -> None:
    """|a - b| ≤ tolerance · max(1, |a|, |b|), or the very same."""
    try:
        apart, scale = float(abs(one - other)), float(max(1, abs(one), abs(other)))
        agrees = one == other or (math.isfinite(apart) and apart <= tolerance * scale)
    except OverflowError:
        agrees = one == other
    assert (difference(one, other, tolerance) is None) == agrees


@pytest.mark.parametrize(
    ("expected", "found", "path"),
    [
        (1, True, "$"),
        (0, False, "$"),
        (1, "1", "$"),
        (None, 0, "$"),
        ("a", "b", "$"),
        ([1], [1, 2], "$"),
        ([1, 2], {"0": 1}, "$"),
        ({"a": 1}, {"b": 1}, "$.a"),
        ({"a": 1}, {"a": 1, "b c": 2}, '$["b c"]'),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, "$.a[1].b"),
        (math.inf, 1e308, "$"),
        (math.inf, -math.inf, "$"),
        (math.nan, 0.0, "$"),
        (10**400, 1.5, "$"),
        (10**400, 10**400 + 1, "$"),
    ],
)
def test_everything_but_close_numbers_is_exact(expected: Any, found: Any, path: str) -> None:
    """Kinds, texts, keys and lengths must be the same whatever the tolerance; the path leads to where they are not."""
    apart = difference(expected, found, 1e-6)
    assert apart is not None
    assert apart.path == path


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, 1e308, {"a": [math.nan]}])
def test_numbers_beyond_the_usual_agree_with_themselves(value: Any) -> None:
    """What no difference can be taken of agrees with itself alone."""
    assert difference(value, json.loads(json.dumps(value)), 0.0) is None


def test_the_worst_difference_is_told() -> None:
    """Of several the one that needs the most tolerance is found, relative to its numbers; what is none beats all."""
    first = difference({"a": 1000.0, "b": [0.1, 0.2]}, {"a": 1000.5, "b": [0.1, 0.7]}, 1e-6)
    assert first is not None
    assert str(first) == "at $.b[1] expected 0.2, came 0.7, off by 0.5"
    assert str(difference([1.0, "x", None], [9.0, "y", 1], 0)) == 'at $[1] expected "x", came "y"'
    assert str(difference([1, 2], [1, 2, 3], 0)) == "at $ expected a list of 2, came a list of 3"
    assert str(difference({"a": 1}, {}, 0)) == "at $.a expected 1, came nothing"


def test_deep_answers_are_compared() -> None:
    """Nesting as deep as JSON is read does not end the comparison."""
    value = json.loads("[" * 900 + "1" + "]" * 900)
    other = json.loads("[" * 900 + "2" + "]" * 900)
    assert difference(value, other, 1.0) is None
    assert str(difference(value, other, 0.0)).endswith("expected 1, came 2, off by 1")


@pytest.mark.parametrize(
    ("answer", "body", "agrees"),
    [
        ("ok", b"ok", True),
        ("ok", b'"ok"', True),
        ("ok", b"ok\n", False),
        ("7", b"7", True),
        (7, b"7", True),
        (7, b"7.0000001", True),
        (7, b'"7"', False),
        (None, b"null", True),
        ([1, 2], b"[1, 2]", True),
        ([1, 2], b"", False),
        ([1, 2], b"[" * 200_000, False),
        ("é", "é".encode(), True),
        ("é", b"\xff", False),
    ],
)
def test_answers_are_json_or_text(answer: Any, body: bytes, agrees: bool) -> None:
    """A recorded text is the body itself or the JSON of it; any other answer is compared as JSON."""
    (recording,) = parse({"path": "/", "answer": answer})
    assert (answered(recording, body, 1e-6) is None) == agrees


def test_values_are_shown_on_one_short_line() -> None:
    """What a server sent cannot fill a log or speak to a terminal."""
    assert shown(list(range(30))).startswith("a list of 30: [0, 1, 2, ")
    assert shown("\x1b[31m red \u202e") == '"\\u001b[31m red �"'
    assert len(shown("x" * 10_000)) == 80


# --- what became of them -------------------------------------------------------------------------------------------

KNOWN, PLAIN = parse({"path": "/a", "answer": {"y": 1.0}, "id": "one"}, {"path": "/b", "status": 404})


def test_a_reply_is_judged() -> None:
    """Nothing whole, another status and another answer are told apart."""
    assert judged(KNOWN, Reply(200, b'{"y": 1}'), 0).agrees
    assert judged(KNOWN, Reply(200, b'{"y": 2}'), 0) == Outcome(KNOWN, "", Difference("$.y", "1.0", "2", 1.0, 0.5))
    assert judged(KNOWN, Reply(None, fault="it hung up"), 0) == Outcome(KNOWN, "it hung up")
    assert judged(KNOWN, Reply(500, b"oh\nno"), 0).fault == 'expected status 2xx, came 500: "oh\\nno"'
    assert judged(PLAIN, Reply(404), 0).agrees
    assert judged(PLAIN, Reply(200), 0).fault.startswith("expected status 404, came 200")


def test_a_request_is_as_good_as_its_worst_answer() -> None:
    """Asked again, a fault stays a fault, and of differences the worse one is kept."""
    good, bad = judged(KNOWN, Reply(200, b'{"y": 1}'), 0), judged(KNOWN, Reply(200, b'{"y": 1.5}'), 0)
    worse, broken = judged(KNOWN, Reply(200, b'{"y": 9}'), 0), judged(KNOWN, Reply(500), 0)
    assert good.joined(good).agrees
    assert bad.joined(worse).joined(good).difference == worse.difference
    assert good.joined(broken).joined(good).fault == broken.fault


def test_metrics_say_what_is_known() -> None:
    """Shares are of requests, agreement of those with an answer; what nothing tells is absent."""
    good, broken = judged(KNOWN, Reply(200, b'{"y": 1}'), 0), judged(PLAIN, Reply(500), 0)
    whole = measured([good, good, judged(KNOWN, Reply(200, b"{}"), 0), broken], [3.0, 1.0, 2.0], 64.5)
    assert whole == {
        "requests": 4, "errors": 0.25, "agreement": 2 / 3, "p50_ms": 2.0, "p90_ms": pytest.approx(2.8),
        "p99_ms": pytest.approx(2.98), "memory_mib": 64.5,
    }  # fmt: skip
    assert set(whole) == set(NAMES)
    assert measured([broken], [], None) == {"requests": 1, "errors": 1}
    assert measured([judged(KNOWN, Reply(None), 0)], [], None) == {"requests": 1, "errors": 1, "agreement": 0}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], share: float) -> None:
    """The quantile of a list is what numpy says by default."""
    assert quantile(sorted(values), share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-9)


def test_what_was_wrong_is_told() -> None:
    """The first ten are told with what was wrong, the others counted; where nothing was, nothing is said."""
    good, bad, broken = (
        judged(KNOWN, Reply(status, body), 0) for status, body in ((200, b'{"y":1}'), (200, b"[]"), (503, b""))
    )
    assert (summary([good]), list(told([good]))) == (None, [])
    assert summary([good, bad, broken]) == "1 of 3 answers disagree, 1 of 3 requests were not answered as expected"
    lines = list(told([good, broken, *[bad] * 11]))
    assert lines[:4] == [
        "line 1 (one): GET /a",
        '  expected status 2xx, came 503: ""',
        "line 1 (one): GET /a",
        '  at $ expected {"y": 1.0}, came []',
    ]
    assert (len(lines), lines[-1]) == (21, "and 2 more")
