"""The watch of a release after its promotion: whether it does what its environment allows, by its own counts alone.

Nothing serves beside it, so there is nothing to be compared with; the claim is about the release itself: that each
request fails, or is slow, with a chance of at most `limit`, whatever came before it. A bet against the claim multiplies
its stake with q/limit for each such event and with (1 - q)/(1 - limit) for each other request, for rates q above the
limit. Where the claim holds the wealth of all bets reaches 1/α with a chance of at most α, however often one looks and
however the rate drifts below the limit (Ville 1939; Waudby-Smith and Ramdas, JRSS B 86, 2024).

A bet that was laid at promotion has lost nearly all when errors begin an hour later. So half of the stake is laid at
promotion and the rest bit by bit while the watch lasts, before what it bets on is seen: what is not laid yet is kept,
and counts as wealth (a mixture over the time of change, as of Shin, Ramdas and Rinaldo, NEJSDS 2, 2024).
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from penstock.environments import WatchRules
from penstock.error_counts import HARMS, log_sum
from penstock.traffic import EDGES_MS, NOTHING, Arm, Reading, above, between, quantile_edge

WATCH = "its watch"
"""Who it was that went back from a release, where no person did."""
FIRST = 0.5
"""The part of the stake that is laid at promotion."""
QUANTILES: Mapping[str, float] = {"latency_p50_ratio": 0.5, "latency_p90_ratio": 0.9, "latency_p99_ratio": 0.99}
REFERENCE = 0.2
"""The part of a latency rule's α that goes to what the release before took, which is an estimate too."""


# --- one claim -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """That an event has a chance of at most `limit`, and the wealth of bets against it on `rates`.

    `name` is its rule in the file. `edge` is the latency bucket's edge that a slow answer exceeds, None for errors.
    `logs` holds ln of each bet's wealth, `laid` the part of the stake that is laid. `recent` counts events and requests
    since the bet on 1.5 times the limit was last lost (`score` is the ln of what it made since then, above 0).
    """

    name: str
    limit: float
    alpha: float
    edge: int | None
    rates: tuple[float, ...]
    logs: tuple[float, ...]
    laid: float
    events: int = 0
    requests: int = 0
    recent: tuple[int, int] = (0, 0)
    score: float = 0.0

    @property
    def wealth(self) -> float:
        """Ln of the wealth: the claim is excluded at risk α where it reaches ln 1/α."""
        kept = (math.log(1 - self.laid),) if self.laid < 1 else ()
        return log_sum((*self.logs, *kept))

    @property
    def is_broken(self) -> bool:
        """Whether the claim is excluded."""
        return self.wealth >= -math.log(self.alpha)

    @property
    def sentence(self) -> str:
        """What was counted, and what is allowed; of late where that is what tells."""
        events, requests = self.events, self.requests
        late = self.recent[1] < requests and self.recent[0] > self.limit * self.recent[1]
        if late:
            events, requests = self.recent
        counted = f"{events:,} of {'the last ' if late else ''}{requests:,} requests"
        share = f" ({_percent(events / requests)})" if requests else ""
        if self.edge is None:
            return f"{counted} failed{share}, where {_percent(self.limit)} may"
        slow = EDGES_MS[self.edge]
        took = f"took longer than {slow:,.{1 if slow < 10 else 0}f} ms"
        return f"{counted} {took}{share}, where {_percent(self.limit)} may ({self.name})"


def _percent(share: float) -> str:
    return f"{share * 100:.{2 if share < 0.1 else 3}g} %"


def claimed(name: str, limit: float, alpha: float, edge: int | None = None) -> Claim:
    """A claim before the first request. The limit lies between 0 and 1."""
    rates = tuple(min(limit * risk, (1 + limit) / 2) for risk in HARMS)
    return Claim(name, limit, alpha, edge, rates, tuple(math.log(FIRST * part) for part in HARMS.values()), FIRST)


def counted(claim: Claim, events: int, requests: int) -> Claim:
    """The claim after one more look: new events among new requests, bet on with what was laid before."""
    gains = [
        events * math.log(rate / claim.limit) + (requests - events) * math.log((1 - rate) / (1 - claim.limit))
        for rate in claim.rates
    ]
    score = max(0.0, claim.score + gains[0])
    recent = (claim.recent[0] + events, claim.recent[1] + requests)
    return replace(
        claim,
        logs=tuple(log + gain for log, gain in zip(claim.logs, gains, strict=True)),
        events=claim.events + events,
        requests=claim.requests + requests,
        recent=recent if score else (0, 0),
        score=score,
    )


def laid(claim: Claim, part: float) -> Claim:
    """The claim with so much of its stake laid, from 0 to 1; what was laid stays laid."""
    more = min(part, 1.0) - claim.laid
    if more <= 0:
        return claim
    logs = tuple(log_sum((log, math.log(more * share))) for log, share in zip(claim.logs, HARMS.values(), strict=True))
    return replace(claim, logs=logs, laid=min(part, 1.0))


def share_at_most(events: int, requests: int, risk: float) -> float:
    """What share so many events show at most: wrong with a chance of at most `risk`, by Chernoff's bound."""
    if not requests:
        return 1.0
    seen, bar = events / requests, -math.log(risk) / requests
    low, high = seen, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _divergence(seen, middle) > bar else (middle, high)
    return high


def _divergence(p: float, q: float) -> float:
    """Kullback and Leibler's, of two coins."""
    if q >= 1:
        return math.inf
    heads = p * math.log(p / q) if p else 0.0
    return heads + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


# --- the watch -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """How a watch ended: by a breach or by its time; and what was seen."""

    kind: Literal["breach", "over"]
    reason: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Where a watch stands. Times are seconds since the epoch; it begins at `begun` and lasts `lasts` seconds.

    `read` is the last look's counters, at `seen`; `arm` is all that was counted, `unknown` the seconds of which nothing
    is known, because the router began anew. `notes` says what is not watched, and why.
    """

    begun: float
    lasts: float
    seen: float
    read: Reading | None
    claims: tuple[Claim, ...]
    arm: Arm = NOTHING
    unknown: float = 0.0
    notes: tuple[str, ...] = ()
    ended: Ending | None = None


def begun(rules: WatchRules, at: float, read: Reading | None, reference: Sequence[int] = ()) -> Watch:
    """The watch of a release that was just promoted; `reference` are latencies of the release before, per bucket.

    α is divided by the number of rules, so that a release that keeps all of them is said to break one with a chance of
    at most α.
    """
    names = [name for name in QUANTILES if getattr(rules, name) is not None]
    alpha = (1 - rules.confidence) / (1 + len(names))
    claims = [claimed("errors", rules.error_rate_at_most, alpha)]
    notes = []
    for name in names:
        claim = _slow(name, getattr(rules, name), alpha, reference)
        if claim is None:
            notes.append(f"{name} is not watched: too little is known of what the release before took")
        else:
            claims.append(claim)
    return Watch(at, rules.lasts, at, read, tuple(claims), notes=tuple(notes))


def _slow(name: str, ratio: float, alpha: float, reference: Sequence[int]) -> Claim | None:
    """The claim that answers are at most `ratio` times as slow: `ratio` × t is exceeded no more often than t was."""
    edge = quantile_edge(reference, QUANTILES[name])
    if edge is None:
        return None
    higher = bisect_left(EDGES_MS, EDGES_MS[edge] * ratio * (1 - 1e-9))
    share = share_at_most(above(reference, edge), sum(reference), alpha * REFERENCE)
    limit = max(share, 1 - QUANTILES[name])
    if higher >= len(EDGES_MS) or limit >= 1:
        return None
    return claimed(name, limit, alpha * (1 - REFERENCE), higher)


def looked(watch: Watch, at: float, read: Reading | None) -> Watch:
    """The watch after a look at the router's counters; None where it did not answer. What ended stays ended."""
    if watch.ended is not None:
        return watch
    at = max(at, watch.seen)
    if read is not None:
        watch = _read(watch, at, read)
    part = FIRST + (1 - FIRST) * min(1.0, (at - watch.begun) / watch.lasts)
    broken = [claim.sentence for claim in watch.claims if claim.is_broken]
    watch = replace(watch, claims=tuple(laid(claim, part) for claim in watch.claims))
    if broken:
        return replace(watch, ended=Ending("breach", "; ".join(broken)))
    if at - watch.begun < watch.lasts:
        return watch
    watch = replace(watch, unknown=watch.unknown + at - watch.seen, seen=at)
    return replace(watch, ended=Ending("over", summary(watch)))


def _read(watch: Watch, at: float, read: Reading) -> Watch:
    grown = between(watch.read, read)
    if grown is None:
        unknown = watch.unknown + at - watch.seen
        return replace(watch, read=read, seen=at, unknown=unknown)
    new = grown.canary
    claims = tuple(_with(claim, new) for claim in watch.claims)
    return replace(watch, read=read, seen=at, claims=claims, arm=watch.arm + new)


def _with(claim: Claim, new: Arm) -> Claim:
    if claim.edge is None:
        return counted(claim, new.errors, new.requests)
    return counted(claim, above(new.latencies, claim.edge), sum(new.latencies))


def summary(watch: Watch) -> str:
    """What was seen so far, in words; no request is no success."""
    gap = (f"nothing is known of {watch.unknown:.0f} s",) if watch.unknown >= 1 else ()
    arm = watch.arm
    counts = f"{arm.requests:,} requests, {arm.errors:,} failed" if arm.requests else "no request was seen"
    return "; ".join((counts, *gap, *watch.notes))


def anew(values: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What stands on a release that serves once more: it is watched again, from what the router has counted by then.

    `values` is what stood on it. What a breach of its asked for and is not done yet is not forgotten.
    """
    if not values or values.get("todo"):
        return values
    return {"round": int(values.get("round", 0)) + 1}


# --- across deaths -------------------------------------------------------------------------------------------------


@cache
def _form() -> TypeAdapter[Watch]:
    return TypeAdapter(Watch)


def written(watch: Watch) -> dict[str, Any]:
    """A watch as plain values that JSON can hold; numbers keep every digit."""
    values: dict[str, Any] = _form().dump_python(watch, mode="json")
    return values


def taken_up(values: Mapping[str, Any] | None) -> Watch | None:
    """The watch that was written, whole again; None for anything else, as another version may have written it."""
    try:
        return _form().validate_python(values)
    except ValueError:
        return None
