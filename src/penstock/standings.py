"""Where a rollout stands, for people: what was counted, what it shows, how much is missing, how it ended.

It is read from what a release keeps of its rollout, as `rollouts.written` made it, and decides nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from penstock.canaries import Evidence, Limits, judged
from penstock.charts import Chart
from penstock.decisions import Word
from penstock.error_counts import (
    bounded,
    compared,
    log_sum,
    looking_for_harm,
    looking_for_safety,
    relative_risk,
    unbounded,
)
from penstock.intervals import risk
from penstock.releases import MOVING
from penstock.rollouts import FULL, Rollout, Terms, percent, taken_up
from penstock.traffic import Arm, quantile_edge

RISES: Mapping[float, float] = {1.5: 0.3, 3.0: 0.4, 10.0: 0.3}
"""How many times a rate the canary's may be, as bets against "at most this rate", each with its part of the stake."""
_LEAST, _MOST = 1e-4, 1e4
"""The ratios of error rates that are looked at."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one release did at the width that holds: finished requests, errors, and its latencies in milliseconds.

    `p50_ms` and `p99_ms` are the nearest edges of buckets; None until a few requests were above.
    """

    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def words(self) -> str:
        """All of it, as in `1,900 requests, 2 errors (0.105 %), p50 2.2 ms, p99 11 ms`."""
        rate = f" ({self.errors / self.requests * 100:.3g} %)" if self.errors else ""
        quantiles = (("p50", self.p50_ms), ("p99", self.p99_ms))
        parts = [
            f"{self.requests:,} {'request' if self.requests == 1 else 'requests'}",
            f"{self.errors:,} {'error' if self.errors == 1 else 'errors'}{rate}",
            *(f"{name} {ms:.3g} ms" for name, ms in quantiles if ms is not None),
        ]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Moved:
    """A move of the rollout: when (seconds since the epoch), what, to which share of the requests, why."""

    at: float
    kind: str
    width: float
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A rollout as people see it. Widths are shares of the requests, times are in seconds since the epoch.

    `strategy` is None where all that is known is a probe. `stable` is the number of the release that it is compared
    with. `until` is when the deadline ends it. `verdict` is what the evidence of the width that holds shows so far, or
    showed at the end; `reason` says why, and once it has ended why it did. `missing` is about how many more requests of
    the canary would show that the width is safe. `ended` is `promote` or `roll_back`, `cause` what decided.
    """

    strategy: str | None
    stable: int | None = None
    width: float | None = None
    widths: tuple[float, ...] = ()
    begun: float | None = None
    until: float | None = None
    verdict: Word | None = None
    reason: str | None = None
    missing: int | None = None
    at_canary: Seen | None = None
    at_stable: Seen | None = None
    ended: str | None = None
    cause: str | None = None
    moves: tuple[Moved, ...] = ()
    probe: Mapping[str, Any] | None = None
    charts: tuple[Chart, ...] = ()

    @property
    def name(self) -> str:
        """What sentences call the release that is tried."""
        return "shadow" if self.strategy == "shadow" else "canary"

    @property
    def going_on(self) -> bool:
        """Whether it is being judged in traffic now."""
        return self.verdict is not None and self.ended is None

    @property
    def verdict_word(self) -> str:
        """How it ended, or the verdict so far."""
        return {"promote": "promoted", "roll_back": "rolled back"}.get(self.ended or "", self.verdict or "")

    @property
    def needs(self) -> str:
        """How many more requests it takes, in words; empty where it has ended, or no number is known."""
        if self.missing is None or not self.going_on:
            return ""
        return f"about {self.missing:,} more {'request' if self.missing == 1 else 'requests'} of the {self.name}"

    @property
    def way(self) -> str:
        """The width that holds and those that follow: `5 %, then 50 %, then all`; empty where it has ended."""
        if self.width is None or not self.going_on:
            return ""
        shares = [percent(round(share * FULL)) for share in self.widths]
        now = percent(round(self.width * FULL))
        after = [*shares[shares.index(now) + 1 :], "all"] if now in shares else []
        return ", then ".join((now, *after))

    def as_json(self) -> dict[str, Any]:
        """The documented rollout object."""
        return asdict(self)


def standing_of(kept: Mapping[str, Any] | None, status: str = "canary", reason: str | None = None) -> Standing | None:
    """Where the rollout of a release stands; None of a release that was neither probed nor tried in traffic.

    By its `status` a release may be gone whose rollout was not judged to its end, because it was stopped: then that
    is how it ended, and the release's `reason` is why.
    Of one that another version of Penstock wrote in another form, only the strategy is known.
    """
    if not kept:
        return None
    found, stable = kept.get("probe"), kept.get("stable")
    probe = None if found is None else {"verdict": found["verdict"], "reason": found["reason"]}
    try:
        standing = _in_traffic(taken_up(kept["state"]), kept, stable, probe)
    except (KeyError, ValueError):
        return Standing(kept.get("strategy"), stable, probe=probe)
    gone = replace(standing, width=0.0, ended="roll_back", cause="failure", reason=reason or status)
    return gone if standing.going_on and status not in MOVING else standing


def _in_traffic(
    rollout: Rollout, kept: Mapping[str, Any], stable: int | None, probe: Mapping[str, Any] | None
) -> Standing:
    terms, evidence, ended = rollout.terms, rollout.evidence, rollout.ended
    shown = judged(evidence, terms.limits, terms.share(terms.widths[rollout.reached]), len(terms.widths), terms.name)
    return Standing(
        strategy=terms.strategy,
        stable=stable,
        width=rollout.width / FULL,
        widths=tuple(width / FULL for width in terms.widths),
        begun=rollout.begun,
        until=rollout.begun + terms.deadline,
        verdict=shown.verdict,
        reason=shown.reason if ended is None else ended.reason,
        missing=shown.missing,
        at_canary=_seen(evidence.canary, terms.limits),
        at_stable=_seen(evidence.stable, terms.limits),
        ended=None if ended is None else ended.kind,
        cause=None if ended is None else ended.cause,
        moves=tuple(Moved(m["at"], m["kind"], m["width"] / FULL, m["reason"]) for m in kept.get("moves", ())),
        probe=probe,
        charts=charts_of(evidence, terms),
    )


def _seen(arm: Arm, limits: Limits) -> Seen:
    edges = [quantile_edge(arm.latencies, share) for share in (0.5, 0.99)]
    p50, p99 = (None if edge is None else limits.edges[edge] for edge in edges)
    return Seen(arm.requests, arm.errors, p50, p99)


# --- charts --------------------------------------------------------------------------------------------------------


def charts_of(evidence: Evidence, terms: Terms) -> tuple[Chart, ...]:
    """The canary's error rate, and how many times the stable release's it is, with bounds that hold at every look.

    The same bets as in `error_counts` are made against each value; what they exclude lies outside of the bounds. So the
    rate's upper bound is below `error_rate_at_most` exactly where that rule is shown to hold. A chart that nothing
    bounds yet is left out.
    """
    found = (_rate(evidence.canary, terms.limits), _ratio(evidence, terms.limits))
    return tuple(chart for chart in found if chart is not None)


def _rate(arm: Arm, limits: Limits) -> Chart | None:
    if not arm.requests:
        return None
    alpha = risk(limits.confidence)
    return Chart(
        kind="level",
        score="error rate",
        estimate=arm.errors / arm.requests,
        low=rate_above(arm.errors, arm.requests, alpha),
        high=rate_below(arm.errors, arm.requests, alpha),
        least=None,
        most=limits.error_rate_at_most,
        confidence=limits.confidence,
        n=arm.requests,
        discordant=None,
        method="bets against each rate",
    )


def rate_below(errors: int, requests: int, alpha: float) -> float:
    """The upper bound of a rate at risk α, however often one looks: every rate from it on is excluded."""

    def is_excluded(rate: float) -> bool:
        return bounded(unbounded(rate), errors, requests).wealth >= -math.log(alpha)

    return _first(is_excluded, 1e-9, 1 - 1e-9) or 1.0


def rate_above(errors: int, requests: int, alpha: float) -> float:
    """The lower bound of a rate at risk α, however often one looks; 0 where nothing is excluded."""

    def is_possible(rate: float) -> bool:
        logs = [
            math.log(part) + errors * math.log(times) + (requests - errors) * math.log((1 - times * rate) / (1 - rate))
            for times, part in RISES.items()
            if times * rate < 1
        ]
        return not logs or log_sum(logs) < -math.log(alpha)

    return 0.0 if is_possible(1e-9) else _first(is_possible, 1e-9, 1 - 1e-9) or 0.0


def _ratio(evidence: Evidence, limits: Limits) -> Chart | None:
    events = (evidence.canary.errors, evidence.stable.errors)
    requests = (evidence.canary.requests, evidence.stable.requests)
    if not sum(events) or not all(requests) or limits.error_rate_ratio is None:
        return None
    weight = -math.log(risk(limits.confidence))

    def is_excluded(ratio: float) -> bool:
        return compared(looking_for_safety(ratio), events, requests).wealth >= weight

    def is_possible(ratio: float) -> bool:
        return compared(looking_for_harm(ratio), events, requests).wealth < weight

    high = _first(is_excluded, _LEAST, _MOST)
    if high is None:
        return None
    return Chart(
        kind="ratio",
        score="error rate",
        estimate=relative_risk(compared(looking_for_harm(), events, requests)),
        low=0.0 if is_possible(_LEAST) else _first(is_possible, _LEAST, _MOST) or 0.0,
        high=high,
        least=None,
        most=limits.error_rate_ratio,
        confidence=limits.confidence,
        n=sum(requests),
        discordant=None,
        method="bets against each ratio",
    )


def _first(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest number of a span at which something holds, which then holds for all above; None for none."""
    if not holds(high):
        return None
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
