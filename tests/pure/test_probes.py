"""Probes: what a candidate may get wrong, when agreement is demanded, and when a latency is shown to be too long."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from penstock.errors import ReportError
from penstock.probes import Asked, Probed, Rules, Seen, compared, judge, least_beyond, ratio_of_quantiles
from penstock.recordings import Recording, Reply, judged

RULES = Rules("asked.jsonl")
HELLO = Recording(1, "/hello")


def reply(value: Any = "hello", status: int | None = 200) -> Reply:
    """An answer in JSON; without a status none came."""
    return Reply(None, fault="not answered: nothing listens") if status is None else Reply(status, _json(value))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def pair(candidate: Reply, stable: Reply | None = None, *, unsteady: bool = False, **recorded: Any) -> Asked:
    """One request of which both said this."""
    recording = replace(HELLO, **recorded)
    if stable is None or stable.status is None:
        return Asked(judged(recording, candidate, 1e-6))
    against = compared(recording, stable, candidate, 1e-6)
    return Asked(judged(recording, candidate, 1e-6), judged(recording, stable, 1e-6), against, unsteady)


def alike(times: int) -> list[Asked]:
    """So many requests that both answer in the same way."""
    return [pair(reply(), reply())] * times


def verdict(rules: Rules, *asked: Asked, **seen: Any) -> tuple[str, str]:
    found = judge(rules, Seen(asked, **seen))
    return found.verdict, found.reason


# --- answers -------------------------------------------------------------------------------------------------------


def test_what_was_recorded_must_hold() -> None:
    """A wrong answer, a wrong status and no answer each fail by themselves, with the first request that shows it."""
    for candidate, words in (
        (reply("bye"), 'at $ expected "hello", came "bye"'),
        (reply("hello", 500), 'expected status 2xx, came 500: "\\"hello\\""'),
        (reply(status=None), "not answered: nothing listens"),
    ):
        found = verdict(RULES, *alike(2), pair(candidate, reply(), has_answer=True, answer="hello"))
        said = "1 of 3 recorded requests was not answered as expected: line 1: GET /hello: "
        assert found == ("fail", said + words)


def test_some_may_fail_where_the_file_says_so() -> None:
    """The limit is a share of all requests, to the very number; the stable release's own failures excuse nothing."""
    wrong = pair(reply(status=None), reply(status=None))
    allowed = replace(RULES, errors=0.07)
    assert verdict(allowed, *alike(93), *[wrong] * 7)[0] == "pass"
    assert verdict(allowed, *alike(92), *[wrong] * 8)[0] == "fail"
    both = pair(reply("bye"), reply("bye"), has_answer=True, answer="hello")
    words, reason = verdict(RULES, *alike(1), both)
    assert (words, reason.partition(":")[0]) == (
        "fail",
        "1 of 2 recorded requests was not answered as expected, 1 of them not by the stable release either",
    )
    assert "where 7 % may be" in verdict(allowed, *alike(93), wrong)[1]


def test_a_better_model_may_answer_otherwise() -> None:
    """Agreement is told, and fails nothing unless the file demands it; then it names a request that disagrees."""
    other = pair(reply({"y": 2}), reply({"y": 1}))
    told = "all 4 recorded requests were answered as expected; 3 of 4 answers agree with those of the stable release"
    assert verdict(RULES, *alike(3), other) == ("pass", told)
    demanded = replace(RULES, agreement=0.9)
    assert verdict(demanded, *alike(3), other) == (
        "fail",
        f"{told.partition('; ')[2]}, where 90 % must: line 1: GET /hello: at $.y expected 1, came 2, off by 1",
    )
    assert verdict(demanded, *alike(9), other)[0] == "pass"


def test_a_first_release_has_nothing_to_be_compared_with() -> None:
    """Errors and recorded answers are judged, demands on agreement and latency are not."""
    rules = replace(RULES, agreement=1.0, latency_p50_ratio=1.0)
    assert verdict(rules, pair(reply()), is_first=True, candidate_ms=[5.0]) == (
        "pass",
        "all 1 recorded requests were answered as expected; there is no stable release to compare with",
    )
    assert verdict(rules, pair(reply(status=None)), is_first=True)[0] == "fail"


def test_silence_of_the_stable_release_is_no_agreement() -> None:
    """Where agreement is demanded and there is nothing to agree with nobody can tell; else that is told."""
    silent = pair(reply(), reply(status=None))
    said = "the stable release gave no answer to compare with"
    assert verdict(replace(RULES, agreement=0.5), silent) == ("errored", said)
    assert verdict(RULES, silent)[0] == "pass"
    assert said in verdict(RULES, silent)[1]


def test_a_release_that_contradicts_itself_cannot_be_agreed_with() -> None:
    """Such requests are not counted; if all are such, a demand cannot be judged."""
    unsteady = pair(reply(2), reply(1), unsteady=True)
    rules = replace(RULES, agreement=1.0)
    word, reason = verdict(rules, *alike(2), unsteady)
    assert (
        word,
        "2 of 2 answers agree with those of the stable release (it contradicts itself on 1 more)" in reason,
    ) == (
        "pass",
        True,
    )
    assert verdict(rules, unsteady) == ("errored", "the stable release contradicts itself on every answer")


def test_what_there_was_no_time_for_is_no_pass() -> None:
    """Requests that were never asked make the verdict errored, unless those that were asked are enough to fail."""
    word, reason = verdict(replace(RULES, timeout=5), *alike(3), missed=7)
    assert word == "errored"
    assert reason.startswith("there was time for 3 of 10 recorded requests within 5 s: record fewer")
    wrong = pair(reply(status=None), reply())
    assert verdict(RULES, wrong, missed=7)[0] == "fail"
    assert verdict(replace(RULES, errors=0.2), wrong, missed=7)[0] == "errored"


def test_a_request_is_as_good_as_its_worst_answer() -> None:
    """Whatever came first, one wrong answer of several counts; what the other release never said stays unsaid."""
    good, bad = pair(reply(), reply()), pair(reply("bye"), reply(), unsteady=True)
    for joined in (good.joined(bad), bad.joined(good)):
        assert joined.unsteady
        assert joined.compared is not None
        assert not joined.compared.agrees
    alone = pair(reply())
    assert alone.joined(alone).compared is None
    assert alone.joined(good).compared == good.compared


@pytest.mark.parametrize(
    ("stable", "candidate", "agrees"),
    [
        (Reply(200, b"{'no': json"), Reply(200, b"{'no': json"), True),
        (Reply(200, b"text"), Reply(200, b"other"), False),
        (Reply(200, b"\xff\xfe"), Reply(200, b"\xff\xfe"), True),
        (Reply(200, b"\xff\xfe"), Reply(200, b"\xfe\xff"), False),
        (Reply(200, b'{"a": 1, "b": 2}'), Reply(200, b'{"b":2.0000000001,"a":1}'), True),
        (Reply(200, b"1"), Reply(201, b"1"), False),
        (Reply(404, b"1"), Reply(404, b"1"), True),
        (Reply(404, b"[1]"), Reply(404, b"[ 1 ]"), True),
        (Reply(204), Reply(204), True),
    ],
)
def test_when_two_answers_agree(stable: Reply, candidate: Reply, agrees: bool) -> None:
    """The same status, and bodies that are the same bytes or the same JSON within the tolerance."""
    found = compared(HELLO, stable, candidate, 1e-6)
    assert found is not None
    assert found.agrees is agrees
    assert compared(HELLO, Reply(None), candidate, 1e-6) is None


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5), st.floats(0, 1), st.floats(0, 1))
def test_more_is_never_worse(good: int, bad: int, missed: int, errors: float, agreement: float) -> None:
    """One more request that both answer alike never makes a pass a failure, and the values are sound JSON."""
    rules = replace(RULES, errors=errors, agreement=agreement)
    asked = [*alike(good + 1), *[pair(reply(status=None), reply())] * bad]
    before = judge(rules, Seen(asked, missed))
    after = judge(rules, Seen([*asked, *alike(1)], missed))
    assert (before.verdict, after.verdict) not in {("pass", "fail"), ("pass", "errored"), ("errored", "fail")}
    assert json.loads(json.dumps(before.values, allow_nan=False)) == before.values


# --- latencies -----------------------------------------------------------------------------------------------------

SLOW = replace(RULES, latency_p50_ratio=1.5, latency_p99_ratio=1.5)


def timed(candidate: list[float], stable: list[float], rules: Rules = SLOW) -> Probed:
    return judge(rules, Seen(alike(5), 0, candidate, stable))


def test_a_slow_candidate_fails_and_says_how_slow() -> None:
    """Twice the time is more than one and a half times it; both bounds and the limit are told and kept."""
    draw = np.random.default_rng(1)
    stable = (10 + draw.random(300)).tolist()
    found = timed([2 * ms for ms in stable], stable)
    assert found.verdict == "fail"
    first, second = found.reason.split("; ")
    assert first.startswith("its p50 of 21 ms is 2 times that of the stable release (1.9")
    assert first.endswith("times by 300 timed answers, where 1.5 may be)")
    assert second.startswith("its p99 of 2")
    assert found.values["latency"]["p50"]["verdict"] == "fail"
    assert "limit" not in found.values["latency"]["p90"]


def test_an_equal_candidate_is_shown_to_be_quick_enough() -> None:
    """With enough answers the limit is shown to hold."""
    draw = np.random.default_rng(2)
    found = timed((10 + draw.random(300)).tolist(), (10 + draw.random(300)).tolist())
    assert found.verdict == "pass"
    assert found.values["latency"]["p99"]["verdict"] == "pass"
    assert "which decides nothing" not in found.reason


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_too_few_answers_decide_nothing(answers: int) -> None:
    """However slow they are: it is said, nothing is rejected, and what nobody knows is no number."""
    found = timed([900.0 + n for n in range(answers)], [1.0 + n for n in range(answers)])
    assert found.verdict == "pass"
    lacking = "which decides nothing: a higher repeat would" if answers else "no timed answers of both releases tell"
    assert lacking in found.reason
    assert json.dumps(found.values, allow_nan=False)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_chance_alone_rejects_rarely(share: float) -> None:
    """Equal releases exceed a ratio of 1 in at most 5 % of samples and are below it in at most 5 %.

    The same requests are asked of both, some of which take far longer than others; then it is rarer still.
    """
    draw = np.random.default_rng(3)
    above, below, mixed = 0, 0, 0
    for _ in range(300):
        new, old = (np.sort(draw.lognormal(3, 0.5, 120)).tolist() for _ in range(2))
        found = ratio_of_quantiles(new, old, share, 0.95)
        above, below = above + (found.low > 1), below + (found.high < 1)
        base = draw.lognormal(3, 2, 12).repeat(10)
        new, old = (np.sort(base * draw.lognormal(0, 0.1, 120)).tolist() for _ in range(2))
        mixed += ratio_of_quantiles(new, old, share, 0.95).low > 1
    assert max(above, below, mixed) <= 300 * 0.05 + 2.3 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize(("share", "factor"), [(0.5, 1.7), (0.9, 2.0), (0.99, 3.0)])
def test_the_bounds_hold_the_true_ratio(share: float, factor: float) -> None:
    """A release that is so many times as slow throughout has that ratio within its bounds."""
    draw = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        new = np.sort(factor * draw.lognormal(3, 0.5, 200)).tolist()
        found = ratio_of_quantiles(new, np.sort(draw.lognormal(3, 0.5, 200)).tolist(), share, 0.95)
        held += found.low <= factor <= found.high
    assert held >= 200 * 0.9 - 2.3 * math.sqrt(200 * 0.9 * 0.1)


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 1), st.sampled_from([0.3, 0.05, 0.0167, 1e-4]))
def test_what_is_surprising_is_counted_out(new: int, old: int, share: float, alpha: float) -> None:
    """The least surprising number has a tail of at most alpha, and one less does not."""
    place = math.ceil(share * old)
    found = least_beyond(new, old, place, alpha)
    law = betabinom(new, old + 1 - place, place)
    assert law.sf(found - 1) <= alpha * (1 + 1e-9)
    assert law.sf(found - 2) > alpha * (1 - 1e-9)


@given(
    st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50),
    st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_bounds_lie_about_the_ratio(new: list[float], old: list[float], share: float) -> None:
    """Whatever was measured; and who is compared the other way round has the bounds turned over."""
    found = ratio_of_quantiles(sorted(new), sorted(old), share, 0.95)
    turned = ratio_of_quantiles(sorted(old), sorted(new), share, 0.95)
    assert 0 <= found.low <= found.estimate <= found.high
    assert found.low * turned.high == pytest.approx(1) or (found.low, turned.high) == (0, math.inf)


def test_no_answers_have_no_ratio() -> None:
    """It is refused in a sentence."""
    with pytest.raises(ReportError, match="takes answers of both"):
        ratio_of_quantiles([], [1.0], 0.5, 0.95)


# --- what is kept --------------------------------------------------------------------------------------------------


def test_rules_are_taken_from_a_release() -> None:
    """What an older release does not have is as usual, and what a newer one has beside is passed over."""
    assert Rules.of({"requests": "a"}) == Rules("a")
    assert Rules.of({"requests": "a", "errors": 0.5, "later": 1}) == Rules("a", errors=0.5)


def test_what_was_seen_is_told() -> None:
    """The values name the first requests that went wrong, and apart from them those whose answers differ."""
    wrong = pair(reply(status=None), reply(), id="one")
    found = judge(RULES, Seen([wrong, pair(reply(2), reply(1), line=2), *alike(1)], 0, [1.0, 2.0], [1.0, 2.0]))
    assert found.values["seen"] == [
        "line 1 (one): GET /hello",
        "  not answered: nothing listens",
        "against the stable release:",
        "line 2: GET /hello",
        "  at $ expected 1, came 2, off by 1",
    ]
    assert {k: found.values[k] for k in ("requests", "timed", "unsteady", "stable_errors")} == {
        "requests": 3,
        "timed": 2,
        "unsteady": 0,
        "stable_errors": 0,
    }
    assert (found.values["errors"], found.values["agreement"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.values["latency"]["p50"]["ratio"] == 1
