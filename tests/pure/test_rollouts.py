"""Weights of an environment's releases, which of them may end, and how a rollout goes from one to the next."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.canaries import CustomWord, Limits, Told
from penstock.errors import TransitionError, UsageError
from penstock.latencies import LatencyRule
from penstock.releases import ReleaseStatus
from penstock.rollouts import (
    FULL,
    Asked,
    Event,
    Failed,
    Move,
    Observed,
    Placed,
    Rollout,
    Terms,
    advanced,
    begin,
    cold,
    percent,
    taken_up,
    weights,
    written,
)
from penstock.traffic import Arm, Increment, log_edges

OTHER: list[ReleaseStatus] = [s for s in ReleaseStatus if s is not ReleaseStatus.SERVING]
IN_ROUTE = {ReleaseStatus.SERVING, ReleaseStatus.STARTING, ReleaseStatus.DRAINING}
OVER = {ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK}


@st.composite
def environments(draw: st.DrawFn) -> list[Placed]:
    """Releases of one environment in any order, at most one of them serving."""
    statuses = draw(st.lists(st.sampled_from(OTHER), max_size=8))
    statuses += [ReleaseStatus.SERVING] * draw(st.integers(0, 1))
    since = st.none() | st.sampled_from([1.0, 2.0, 3.0]) | st.floats(0, 1e9)
    placed = [Placed(n, status, draw(since)) for n, status in enumerate(draw(st.permutations(statuses)), 1)]
    return list(draw(st.permutations(placed)))


@given(environments())
def test_exactly_the_serving_release_gets_everything(placed: list[Placed]) -> None:
    """The serving release has the whole weight, candidates and draining ones have none, the others no place."""
    parts = weights(placed)
    serving = [p.release for p in placed if p.status is ReleaseStatus.SERVING]
    assert sum(parts.values()) == FULL * len(serving)
    assert [n for n, weight in parts.items() if weight] == serving
    assert parts.keys() == {p.release for p in placed if p.status in IN_ROUTE}


@given(environments(), st.integers(0, 3))
def test_warm_are_the_last_that_served(placed: list[Placed], keep: int) -> None:
    """All retired releases but the newest `keep` may end, and all that were rejected or rolled back; nothing else."""
    retired = [p for p in placed if p.status is ReleaseStatus.RETIRED]
    ended = cold(placed, keep)
    assert len(ended) == len(set(ended))
    warm = [p for p in retired if p.release not in ended]
    assert len(warm) == min(keep, len(retired))
    assert all((w.since or 0.0) >= (c.since or 0.0) for w in warm for c in retired if c.release in ended)
    assert {*ended} - {p.release for p in retired} == {p.release for p in placed if p.status in OVER}


@given(environments())
def test_what_has_traffic_is_never_cold(placed: list[Placed]) -> None:
    """No release that is in the route may end."""
    assert not weights(placed).keys() & {*cold(placed)}


def test_one_stays_warm() -> None:
    """Without being told otherwise one release waits for a rollback: the last one; ties go to the higher number."""
    served = [Placed(n, ReleaseStatus.RETIRED, 5.0) for n in (1, 2, 3)]
    assert cold(served) == (2, 1)
    assert cold([Placed(4, ReleaseStatus.RETIRED, 9.0), Placed(5, ReleaseStatus.RETIRED, 8.0)]) == (5,)


@given(environments(), st.integers(1, FULL - 1))
def test_a_canary_gets_its_width_and_never_all(placed: list[Placed], width: int) -> None:
    """The serving release has the rest; where nothing serves a canary that nobody judged has nothing."""
    parts = weights(placed, width)
    canaries = [p.release for p in placed if p.status is ReleaseStatus.CANARY]
    serving = [p.release for p in placed if p.status is ReleaseStatus.SERVING]
    tried = width if canaries and serving else 0
    assert {parts[n] for n in canaries} <= {tried}
    assert [parts[n] for n in serving] == [FULL - tried] * len(serving)
    assert {**parts, **dict.fromkeys([*canaries, *serving], 0)} == dict.fromkeys(parts, 0)


# --- strategies ----------------------------------------------------------------------------------------------------

CANARY = Terms("canary", (500, 2500, 5000), interval=60, deadline=1800)


def look(at: float, width: int, canary: Arm, stable: Arm | None = None) -> Observed:
    """A look at a split as it was set, if the stable release is not given."""
    rest = canary.requests * (FULL - width) // width
    return Observed(at, width, Increment(canary, stable or Arm(rest)))


def played(terms: Terms, events: Sequence[Event]) -> list[Move]:
    rollout, move = begin(terms, 0.0)
    moves = [move]
    for event in events:
        rollout, move = advanced(rollout, event)
        moves.append(move)
    return moves


@pytest.mark.parametrize("strategy", ["recreate", "blue_green"])
def test_without_widths_a_candidate_is_promoted_at_once(strategy: str) -> None:
    """Recreate and blue/green compare nothing in traffic."""
    rollout, move = begin(Terms(strategy), 5.0)  # type: ignore[arg-type]
    assert (move.kind, move.width, rollout.width) == ("promote", FULL, FULL)


def test_a_healthy_canary_goes_by_its_widths_to_the_end() -> None:
    """Clean requests widen each width after its interval, with evidence of its own; the last one promotes."""
    looks = [look(60 * i, width, Arm(400)) for i, width in enumerate([500, 500, 2500, 2500, 5000, 5000], 1)]
    moves = played(CANARY, looks)
    assert [(m.kind, m.width) for m in moves] == [
        ("widen", 500),
        ("hold", 500),
        ("widen", 2500),
        ("hold", 2500),
        ("widen", 5000),
        ("hold", 5000),
        ("promote", FULL),
    ]
    assert moves[1].reason == (
        "0 errors in 400 requests of the canary exclude a rate of 1 %; the interval of 60 s is not over"
    )
    assert moves[2].reason == "at 5 % 0 errors in 800 requests of the canary exclude a rate of 1 %"


def test_each_width_begins_its_evidence_afresh() -> None:
    """What was seen at 5 % does not count at 25 %."""
    moves = played(CANARY, [look(1, 500, Arm(9000)), look(61, 500, Arm(1)), look(62, 2500, Arm(100))])
    assert (moves[-1].kind, moves[-1].missing) == ("hold", 236)
    assert moves[-1].reason.endswith("about 236 more requests are missing")


def test_harm_rolls_back_without_waiting() -> None:
    """The interval is for widening; errors that are no chance end it at the next look."""
    moves = played(CANARY, [look(1, 500, Arm(50, 20))])
    assert (moves[-1].kind, moves[-1].width) == ("roll_back", 0)
    assert moves[-1].reason.startswith("at 5 % errors: 20 of 50 requests at the canary, 0 of 950")


def test_silence_is_never_success() -> None:
    """No traffic, gaps and counts that cannot be true hold, and roll back at the deadline, saying for how long."""
    nonsense = Increment(Arm(5, 9), Arm(100))
    events = [Observed(60.0 * i, 500, (Increment(Arm(), Arm(900)), None, nonsense)[i % 3]) for i in range(1, 31)]
    moves = played(CANARY, events)
    assert {m.kind for m in moves[1:-1]} == {"hold"}
    assert moves[-1] == Move(
        "roll_back",
        0,
        "no decision within 1800 s: at 5 % the canary got no request, and no data is no success: "
        "about 336 more requests are missing; where nobody calls, write traffic: probe",
        336,
        "deadline",
    )


def test_the_deadline_says_how_much_was_missing() -> None:
    """Traffic that is too thin ends with the number of requests that would have done."""
    moves = played(CANARY, [look(60.0 * i, 500, Arm(5)) for i in range(1, 31)])
    assert (moves[-1].kind, moves[-1].missing) == ("roll_back", 186)
    assert moves[-1].reason == (
        "no decision within 1800 s: at 5 % 0 errors in 150 requests of the canary do not exclude a rate of 1 % "
        "or 2 times those of the stable release: about 186 more requests are missing"
    )


def test_at_the_deadline_the_last_width_may_still_be_decided() -> None:
    """Evidence that is there at the deadline promotes at the last width, and is too late for widths before it."""
    last = Terms("canary", (500,), interval=60, deadline=100)
    assert played(last, [look(1, 500, Arm(1)), look(200, 500, Arm(999))])[-1].kind == "promote"
    assert played(last, [look(50, 500, Arm(1)), look(100, 500, Arm(999))])[-1].reason == (
        "no decision within 100 s: at 5 % all is well, but there was no time for its interval"
    )
    first = replace(last, widths=(500, 600))
    move = played(first, [look(1, 500, Arm(1)), look(200, 500, Arm(999))])[-1]
    assert (move.kind, move.reason.split(": ")[1]) == (
        "roll_back",
        "at 5 % all is well, but there was no time for the widths after it",
    )


def test_a_look_at_another_width_says_nothing() -> None:
    """Counts from before a widening arrive late: they are not evidence of the new width."""
    moves = played(CANARY, [look(1, 2500, Arm(9000)), look(90, 5000, Arm(50, 50))])
    assert [m.kind for m in moves] == ["widen", "hold", "hold"]
    assert "no data is no success" in moves[-1].reason


def test_a_clock_that_goes_back_shortens_nothing() -> None:
    """Time is the latest that was seen."""
    moves = played(CANARY, [look(1000, 500, Arm(400)), look(10, 500, Arm(400)), look(1061, 500, Arm(1))])
    assert [m.kind for m in moves] == ["widen", "hold", "hold", "widen"]


def test_a_shadow_is_judged_beside_its_originals() -> None:
    """Copies of a tenth of the requests are 1 of 11 counted; safety promotes, harm ends it, no user saw either."""
    shadow = Terms("shadow", (1000,), interval=0, deadline=600)
    assert shadow.share(1000) == pytest.approx(1 / 11)
    assert played(shadow, [look(1, 1000, Arm(400), Arm(4000))])[-1].kind == "promote"
    assert played(shadow, [look(1, 1000, Arm(400, 50), Arm(4000))])[-1].kind == "roll_back"
    assert Terms("shadow", (FULL,)).share(FULL) == 0.5


# --- wishes and ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wish", "kind", "width"), [("promote", "promote", FULL), ("abort", "roll_back", 0)])
def test_a_person_may_end_it_at_any_time(wish: str, kind: str, width: int) -> None:
    """Whatever the evidence; who and why is the reason. Afterwards a wish is refused and a look changes nothing."""
    rollout, _ = begin(CANARY, 0.0)
    ended, move = advanced(rollout, Asked(1.0, wish, "ada", "a holiday"))  # type: ignore[arg-type]
    assert move == Move(kind, width, f"ada asked to {wish}: a holiday", cause="person")  # type: ignore[arg-type]
    assert advanced(ended, look(2, 500, Arm(50, 50))) == (ended, move)
    with pytest.raises(TransitionError, match="has ended"):
        advanced(ended, Asked(3.0, "promote", "bob"))


def test_a_candidate_that_fails_is_rolled_back() -> None:
    """It died, was never ready, or a newer release takes its place."""
    assert played(CANARY, [Failed(1.0, "release 8 takes its place")])[-1] == Move(
        "roll_back", 0, "release 8 takes its place", cause="failure"
    )


# --- across deaths -------------------------------------------------------------------------------------------------

WATCHFUL = Terms(
    "canary",
    (1000, 5000),
    interval=5,
    deadline=60,
    limits=Limits(
        latencies=(LatencyRule(0.5, 2.0),), edges=log_edges(1.0, 2**0.5, 4), customs=("sales",), require=("sales",)
    ),
)
WORDS: list[CustomWord] = ["pass", "pass", "inconclusive", "errored", "fail"]


@st.composite
def counts(draw: st.DrawFn) -> Arm:
    requests = draw(st.integers(0, 400))
    slow = draw(st.integers(0, requests))
    return Arm(requests, draw(st.integers(0, 1 + requests // 20)), (requests - slow, 0, slow, 0, 0))


@st.composite
def events(draw: st.DrawFn) -> Event:
    at = draw(st.floats(0, 70))
    if draw(st.integers(0, 30)) == 0:
        return Asked(at, draw(st.sampled_from(["promote", "abort"])), "ada")
    increment = st.builds(Increment, counts(), counts())
    said = {"sales": Told(draw(st.sampled_from(WORDS)), "why")} if draw(st.booleans()) else {}
    return Observed(at, draw(st.sampled_from([1000, 1000, 5000])), draw(st.none() | increment), said)


@settings(deadline=None)
@given(st.lists(events(), max_size=25), st.sets(st.integers(0, 24)))
def test_a_death_at_any_time_changes_no_decision(given_: list[Event], deaths: set[int]) -> None:
    """The state, written as JSON and taken up by another, decides to the letter as the one that went on living."""
    living, first = begin(WATCHFUL, 0.0)
    reborn, second = begin(WATCHFUL, 0.0)
    assert first == second
    for i, event in enumerate(given_):
        if living.ended and isinstance(event, Asked):
            continue
        living, one = advanced(living, event)
        if i in deaths:
            reborn = taken_up(json.loads(json.dumps(written(reborn))))
        reborn, two = advanced(reborn, event)
        assert one == two
        assert living == reborn
        assert taken_up(json.loads(json.dumps(written(living)))) == living


@settings(deadline=None)
@given(st.lists(events(), max_size=25))
def test_moves_are_what_the_state_says(given_: list[Event]) -> None:
    """The width never falls but to 0 at the end, a hold leaves it, and only the last width and a wish promote."""
    rollout, _ = begin(WATCHFUL, 0.0)
    for event in given_:
        before = rollout
        if before.ended and isinstance(event, Asked):
            continue
        rollout, move = advanced(before, event)
        assert move.width == rollout.width
        assert move.kind == "roll_back" or move.width >= before.width
        assert move.kind != "hold" or rollout.width == before.width
        if move.kind == "promote" and not before.ended and not isinstance(event, Asked):
            assert before.reached == 1
            assert before.evidence.canary.requests or (isinstance(event, Observed) and event.counts)


def test_what_was_not_written_by_a_rollout_is_refused() -> None:
    """A state with a piece missing is no state."""
    rollout, _ = begin(CANARY, 0.0)
    values = written(rollout)
    assert isinstance(taken_up(values), Rollout)
    del values["evidence"]
    with pytest.raises(ValueError, match="evidence"):
        taken_up(values)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"strategy": "recreate", "widths": (500,)}, "has no widths"),
        ({"strategy": "shadow"}, "one width"),
        ({"strategy": "canary"}, "at least one"),
        ({"strategy": "canary", "widths": (500, 500)}, "must rise"),
        ({"strategy": "canary", "widths": (500, FULL)}, "below 100 %"),
        ({"strategy": "canary", "widths": (0, 500)}, "above 0 %"),
        ({"interval": 60.0, "deadline": 60.0}, "shorter than the deadline"),
        ({"interval": math.nan}, "shorter than the deadline"),
    ],
)
def test_terms_make_sense(wrong: dict[str, object], text: str) -> None:
    """What could never go anywhere is refused with what to write."""
    with pytest.raises(UsageError, match=text):
        Terms(**wrong)  # type: ignore[arg-type]


def test_widths_are_read_as_percent() -> None:
    """Parts of ten thousand."""
    assert [percent(width) for width in (500, 25, FULL)] == ["5 %", "0.25 %", "100 %"]
