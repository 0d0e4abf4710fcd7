"""A rollout as arithmetic: which releases an environment routes to, with which weights, and what comes next.

Blue/green is the canary with no widths: the candidate is health-checked at weight 0, then takes everything at once,
then the old one drains at weight 0, then it leaves the route. A canary goes by widths. A shadow gets copies of requests
whose answers nobody sees. In between stands a `Rollout`, a frozen value: looks and wishes go in, moves come out, and
what is written down after each of them is all that a new coordinator needs to decide as the old one would have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from penstock.canaries import Assignment, Evidence, Judgment, Limits, Told, gathered, judged, nothing_seen
from penstock.environments import RolloutRules, quantile_of
from penstock.errors import TransitionError, UsageError
from penstock.latencies import LatencyRule
from penstock.releases import ReleaseStatus
from penstock.traffic import EDGES_MS, Increment, is_sound

FULL = 10_000
"""The whole of an environment's traffic, in parts of ten thousand."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A release with replicas that could serve: its id, status and when it began to serve."""

    release: int
    status: ReleaseStatus
    since: float | None


def weights(placed: Sequence[Placed], width: int | None = None) -> dict[int, int]:
    """Release to weight, for one environment; a release that is absent leaves the route.

    Exactly one release may serve. A candidate and a draining release are in the route with weight 0: the router
    watches the candidate's health and lets the draining one finish what it began. With a `width` a canary has that
    weight and the serving release the rest; while nothing serves the canary has none, since nobody has judged it.
    """
    parts = {ReleaseStatus.SERVING: FULL, ReleaseStatus.STARTING: 0, ReleaseStatus.DRAINING: 0}
    if width is not None:
        serves = any(p.status is ReleaseStatus.SERVING for p in placed)
        tried = width if serves and any(p.status is ReleaseStatus.CANARY for p in placed) else 0
        parts |= {ReleaseStatus.SERVING: FULL - tried, ReleaseStatus.CANARY: tried}
    return {p.release: parts[p.status] for p in placed if p.status in parts}


def cold(placed: Sequence[Placed], keep: int = 1) -> tuple[int, ...]:
    """Retired releases whose replicas may end: all but the `keep` that served last (they wait for a rollback)."""
    warm = sorted(
        (p for p in placed if p.status is ReleaseStatus.RETIRED),
        key=lambda p: (p.since or 0.0, p.release),
        reverse=True,
    )
    ended = {ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK}
    return (*(p.release for p in warm[keep:]), *(p.release for p in placed if p.status in ended))


# --- terms ---------------------------------------------------------------------------------------------------------

Strategy = Literal["recreate", "blue_green", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a rollout goes; pinned when it begins, so that editing the file changes nothing on the way.

    `widths`: parts of ten thousand that the canary gets, rising; for a shadow the one part of requests that are copied.
    `interval`: seconds that each width lasts at least. `deadline`: seconds that all widths last at most together.
    Raises UsageError where that makes no sense.
    """

    strategy: Strategy = "blue_green"
    widths: tuple[int, ...] = ()
    interval: float = 60.0
    deadline: float = 1800.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.strategy in ("recreate", "blue_green") and self.widths:
            raise UsageError(f"{self.strategy} has no widths: write canary, or leave them out")
        if self.strategy == "shadow" and len(self.widths) != 1:
            raise UsageError("a shadow gets one share of the requests: write one width")
        if self.strategy == "canary" and not self.widths:
            raise UsageError("a canary goes by widths: write at least one, or blue_green")
        most = FULL if self.strategy == "shadow" else FULL - 1
        if list(self.widths) != sorted(set(self.widths)) or any(not 0 < width <= most for width in self.widths):
            raise UsageError("widths must rise and lie above 0 % and below 100 %, which promotion gives")
        if not 0 <= self.interval < self.deadline:
            raise UsageError(
                f"the interval of {self.interval:g} s must be shorter than the deadline, {self.deadline:g} s"
            )

    @property
    def name(self) -> str:
        """What sentences call the release that is tried."""
        return "shadow" if self.strategy == "shadow" else "canary"

    def share(self, width: int) -> float:
        """The canary's share of all counted requests at a width; copies of a shadow count beside their originals."""
        part = width / FULL
        return part / (1 + part) if self.strategy == "shadow" else part


def terms_of(rules: RolloutRules | None, assignment: Assignment = "random") -> Terms:
    """The terms of what the file says; without a word of it all traffic goes at once."""
    if rules is None or rules.strategy is not None:
        return Terms("blue_green" if rules is None or rules.strategy is None else rules.strategy)
    shares = (rules.shadow,) if rules.shadow is not None else rules.canary or ()
    ratios = {quantile_of(name): ratio for name, ratio in rules.abort_if.items()}
    return Terms(
        strategy="canary" if rules.shadow is None else "shadow",
        widths=tuple(round(share * FULL) for share in shares),
        interval=rules.interval,
        deadline=rules.deadline,
        limits=Limits(
            error_rate_ratio=rules.abort_if.get("error_rate_ratio"),
            error_rate_at_most=rules.error_rate_at_most,
            latencies=tuple(LatencyRule(q, ratio) for q, ratio in sorted(ratios.items(), key=str) if q is not None),
            edges=EDGES_MS,
            customs=tuple(rules.metrics),
            require=rules.require,
            confidence=rules.confidence,
            assignment=assignment,
        ),
    )


# --- events and moves ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observed:
    """A look at the router: seconds since the epoch, the width that held, what happened since the look before.

    `counts` is None where that is not known (a gap); `customs` is what a person's own rules said last:
    all that counts of them, so that what was said before a death or at another width does not.
    """

    at: float
    width: int
    counts: Increment | None
    customs: Mapping[str, Told] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A person's wish, which the evidence does not hold up."""

    at: float
    wish: Literal["promote", "abort"]
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The candidate cannot go on: it was never ready, it died, a newer release takes its place."""

    at: float
    why: str


Event = Observed | Asked | Failed


@dataclass(frozen=True, slots=True)
class Move:
    """What to do now: the width that shall hold, why, and about how many requests of the canary are missing.

    `width` is the canary's weight (0 after roll_back, FULL after promote), for a shadow the part that is copied.
    `cause` is what decided: the evidence, the want of it at the deadline, a person, or a failure beside the counts.
    """

    kind: Literal["widen", "hold", "promote", "roll_back"]
    width: int
    reason: str
    missing: int | None = None
    cause: Literal["evidence", "deadline", "person", "failure"] = "evidence"


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a rollout stands: `reached` is the place of its width in the terms, `since` when that was first seen.

    `seen` is the latest time, and never goes back; `fed` is when the canary last had a request at this width.
    """

    terms: Terms
    begun: float
    seen: float
    reached: int
    since: float | None
    fed: float | None
    evidence: Evidence
    ended: Move | None = None

    @property
    def width(self) -> int:
        """The width that shall hold now, after a restart too."""
        return self.ended.width if self.ended else self.terms.widths[self.reached]


def begin(terms: Terms, now: float) -> tuple[Rollout, Move]:
    """A rollout whose candidate is healthy and probed, and its first move; without widths that is to promote it."""
    rollout = Rollout(terms, now, now, 0, None, None, nothing_seen(terms.limits))
    if not terms.widths:
        return _ended(rollout, Move("promote", FULL, f"{terms.strategy}: nothing is compared in traffic"))
    return rollout, Move("widen", rollout.width, f"{terms.strategy} begins")


def advanced(rollout: Rollout, event: Event) -> tuple[Rollout, Move]:
    """The rollout after an event, and what to do. What ended stays ended: a look then changes nothing.

    Raises TransitionError for a wish after the end.
    """
    if rollout.ended:
        if isinstance(event, Asked):
            raise TransitionError(f"the rollout has ended ({rollout.ended.kind}), so nobody can {event.wish} it")
        return rollout, rollout.ended
    rollout = replace(rollout, seen=max(rollout.seen, event.at))
    if isinstance(event, Observed):
        return _decided(_looked(rollout, event))
    if isinstance(event, Failed):
        return _ended(rollout, Move("roll_back", 0, event.why, cause="failure"))
    if event.wish == "promote":
        return _ended(rollout, Move("promote", FULL, said(event), cause="person"))
    return _ended(rollout, Move("roll_back", 0, said(event), cause="person"))


def said(wish: Asked) -> str:
    """A person's wish as a reason."""
    return f"{wish.by} asked to {wish.wish}" + (f": {wish.why}" if wish.why else "")


def _ended(rollout: Rollout, move: Move) -> tuple[Rollout, Move]:
    return replace(rollout, ended=move), move


def _looked(rollout: Rollout, look: Observed) -> Rollout:
    """The evidence after a look; one at another width, before or after its time, says nothing about this one."""
    if look.width != rollout.width:
        return rollout
    evidence = replace(rollout.evidence, customs=look.customs)
    fed, counts = rollout.fed, look.counts
    if counts and is_sound(counts.canary) and is_sound(counts.stable):
        evidence = gathered(evidence, rollout.terms.limits, counts)
        fed = rollout.seen if counts.canary.requests else fed
    since = rollout.seen if rollout.since is None else rollout.since
    return replace(rollout, evidence=evidence, since=since, fed=fed)


# --- decisions -----------------------------------------------------------------------------------------------------


def _decided(rollout: Rollout) -> tuple[Rollout, Move]:
    terms, width = rollout.terms, rollout.width
    found = judged(rollout.evidence, terms.limits, terms.share(width), len(terms.widths), terms.name)
    late = rollout.seen - rollout.begun >= terms.deadline
    if found.verdict == "fail":
        return _ended(rollout, Move("roll_back", 0, f"at {percent(width)} {found.reason}"))
    waits = rollout.since is None or rollout.seen - rollout.since < terms.interval
    if found.verdict == "pass" and not waits and (not late or _is_last(rollout)):
        return _widened(rollout, found)
    if late:
        return _ended(rollout, Move("roll_back", 0, _too_late(rollout, found), found.missing, "deadline"))
    if found.verdict == "pass":
        return rollout, Move("hold", width, f"{found.reason}; the interval of {terms.interval:g} s is not over")
    return rollout, Move("hold", width, _open(found), found.missing)


def _is_last(rollout: Rollout) -> bool:
    return rollout.reached + 1 == len(rollout.terms.widths)


def _widened(rollout: Rollout, found: Judgment) -> tuple[Rollout, Move]:
    """The next width with its evidence afresh, or all traffic."""
    if _is_last(rollout):
        return _ended(rollout, Move("promote", FULL, f"at {percent(rollout.width)} {found.reason}"))
    evidence = nothing_seen(rollout.terms.limits, rollout.evidence.history)
    after = replace(rollout, reached=rollout.reached + 1, since=None, fed=None, evidence=evidence)
    return after, Move("widen", after.width, f"at {percent(rollout.width)} {found.reason}")


def _open(found: Judgment) -> str:
    return found.reason + (f": about {found.missing:,} more requests are missing" if found.missing else "")


def _too_late(rollout: Rollout, found: Judgment) -> str:
    """Why the deadline ends a rollout: what is open, how much is missing, how long nothing was seen."""
    text = f"no decision within {rollout.terms.deadline:g} s: at {percent(rollout.width)} "
    if found.verdict == "pass":
        lacking = "its interval" if _is_last(rollout) else "the widths after it"
        return f"{text}all is well, but there was no time for {lacking}"
    if not rollout.evidence.canary.requests:
        return f"{text}{_open(found)}; where nobody calls, write traffic: probe"
    silent = rollout.seen - (rollout.fed if rollout.fed is not None else rollout.since or rollout.begun)
    quiet = f"; no request for {silent:.0f} s" if silent > rollout.terms.interval else ""
    return f"{text}{_open(found)}{quiet}"


def percent(width: int) -> str:
    """A width as a person reads it: `5 %`, `0.25 %`."""
    return f"{width / 100:g} %"


# --- across deaths -------------------------------------------------------------------------------------------------


@cache
def _form() -> TypeAdapter[Rollout]:
    return TypeAdapter(Rollout)


def written(rollout: Rollout) -> dict[str, Any]:
    """A rollout as plain values (texts, numbers, lists, mappings) that JSON can hold; numbers keep every digit."""
    values: dict[str, Any] = _form().dump_python(rollout, mode="json")
    return values


def taken_up(values: Mapping[str, Any]) -> Rollout:
    """The rollout that was written, whole again: it decides as it would have. Raises ValueError for anything else."""
    return _form().validate_python(values)
