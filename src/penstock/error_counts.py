"""Error counts of two arms as evidence: the canary against the stable release, and the canary alone.

Both laws are wealth that a bet against a claim has made (an e-process): if the claim is true, the chance that it ever
reaches 1/α is at most α, however often one looks (Ville 1939). They need only counts between two looks.

**Comparison.** The claim is that an event (an error, a slow answer) is at most r₀ times as likely at the canary.
Between two looks the canary has the share w of the requests. Each event multiplies the wealth with p_r(arm) /
p_r₀(arm), where p_r(canary) = r·w / (r·w + 1 - w); the base rate may drift as it likes. Proof: with a and b for the two
factors, rates p_c = r₀·p_b and n requests, the mean is (1 + p_c(a - 1))^n_c · (1 + p_b(b - 1))^n_b, which is at most
exp(n·p_b·(w·r₀·(a - 1) + (1 - w)(b - 1))), and that exponent is 0 by the choice of a and b. So no rate is known, small,
or the same from look to look.

**Bound.** The claim is that the canary's own rate is at least p₀. Each request multiplies the wealth with q/p₀ if it is
an error and with (1 - q)/(1 - p₀) if not (Waudby-Smith and Ramdas, JRSS B 86, 2024, with fixed stakes).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.decisions import first_count
from penstock.errors import UsageError

HARMS: Mapping[float, float] = {1.5: 0.1, 2.0: 0.35, 3.0: 0.14, 5.0: 0.2, 10.0: 0.16, 50.0: 0.05}
"""Relative risks that a comparison looks for when it looks for harm, each with its part of the first stake."""
CLEARS: Mapping[float, float] = {0.05: 0.04, 0.25: 0.1, 0.5: 0.86}
"""The same when it looks for safety, as parts of the tolerated ratio: 0.5 is "no worse" where 2 is tolerated."""
RATES: Mapping[float, float] = {0.01: 0.3, 0.1: 0.4, 0.3: 0.3}
"""Error rates that a bound bets on, as parts of the rate that it wants to exclude, each with its part of the stake."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Wealth of the bets that events are `risks` times as likely at the canary, against "`null` times".

    `logs` holds ln of the wealth per risk, its part of the first stake included. `events` and `requests` are totals of
    the canary and of the stable release.
    """

    null: float
    risks: tuple[float, ...]
    logs: tuple[float, ...]
    events: tuple[int, int] = (0, 0)
    requests: tuple[int, int] = (0, 0)

    @property
    def wealth(self) -> float:
        """Ln of the wealth: the claim is excluded at risk α where it reaches ln 1/α."""
        return log_sum(self.logs)


def looking_for_harm(null: float = 1.0) -> Comparison:
    """A comparison against "at most `null` times as likely": it grows where the canary is worse."""
    return _compared(null, {null * risk: part for risk, part in HARMS.items()})


def looking_for_safety(tolerated: float, parts: Mapping[float, float] = CLEARS) -> Comparison:
    """A comparison against "at least `tolerated` times as likely": it grows where the canary is no worse."""
    return _compared(tolerated, {tolerated * share: part for share, part in parts.items()})


def _compared(null: float, stakes: Mapping[float, float]) -> Comparison:
    if not 0 < null < math.inf:
        raise UsageError(f"a ratio of {null:g} cannot be compared with: write a number above 0")
    return Comparison(null, tuple(stakes), tuple(map(math.log, stakes.values())))


def compared(comparison: Comparison, events: tuple[int, int], requests: tuple[int, int]) -> Comparison:
    """The comparison after one more look: new events and requests of the canary and of the stable release."""
    (hit, other), (seen, rest) = events, requests
    logs = comparison.logs
    if hit + other and seen and rest:
        share = seen / (seen + rest)
        logs = tuple(
            log + (hit + other) * shift + hit * math.log(risk / comparison.null)
            for log, risk in zip(logs, comparison.risks, strict=True)
            for shift in [_shift(comparison.null, risk, share)]
        )
    totals = (comparison.events[0] + hit, comparison.events[1] + other)
    return replace(
        comparison,
        logs=logs,
        events=totals,
        requests=(comparison.requests[0] + seen, comparison.requests[1] + rest),
    )


def _shift(null: float, risk: float, share: float) -> float:
    return math.log((null * share + 1 - share) / (risk * share + 1 - share))


def relative_risk(comparison: Comparison) -> float:
    """About how many times as likely an event was at the canary: half an event is added to each arm."""
    (hit, other), (seen, rest) = comparison.events, comparison.requests
    return ((hit + 0.5) / (seen + 1)) / ((other + 0.5) / (rest + 1))


def more_to_compare(comparison: Comparison, alpha: float, share: float, risk: float) -> int | None:
    """About how many more requests of the canary exclude the claim at risk α; None if no number would.

    `share` is the canary's part of the requests, `risk` how many times as likely events are supposed to be at it; the
    base rate is taken as it was seen. Nothing can be said (None) before the first event.
    """
    seen, total = sum(comparison.requests), sum(comparison.events)
    if not total or not 0 < share < 1:
        return None
    base = total / seen / (risk * share + 1 - share) if seen else 0.0
    at_canary, elsewhere = base * risk * share, base * (1 - share)
    drifts = [
        (at_canary + elsewhere) * _shift(comparison.null, r, share) + at_canary * math.log(r / comparison.null)
        for r in comparison.risks
    ]
    found = more_until(comparison.logs, drifts, alpha)
    return None if found is None else math.ceil(found * share)


# --- the canary alone ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """Wealth of the bets that the canary's error rate is one of `rates`, against "at least `limit`"."""

    limit: float
    rates: tuple[float, ...]
    logs: tuple[float, ...]
    errors: int = 0
    requests: int = 0

    @property
    def wealth(self) -> float:
        """Ln of the wealth: a rate of `limit` or more is excluded at risk α where it reaches ln 1/α."""
        return log_sum(self.logs)


def unbounded(limit: float) -> Bound:
    """The bound before the first request; raises UsageError for a limit that is no share."""
    if not 0 < limit < 1:
        raise UsageError(f"an error rate of at most {limit:g} cannot be shown: write a share above 0 and below 1")
    return Bound(limit, tuple(limit * share for share in RATES), tuple(map(math.log, RATES.values())))


def bounded(bound: Bound, errors: int, requests: int) -> Bound:
    """The bound after one more look: new errors among new requests of the canary."""
    logs = tuple(
        log + errors * math.log(rate / bound.limit) + (requests - errors) * math.log((1 - rate) / (1 - bound.limit))
        for log, rate in zip(bound.logs, bound.rates, strict=True)
    )
    return replace(bound, logs=logs, errors=bound.errors + errors, requests=bound.requests + requests)


def more_to_bound(bound: Bound, alpha: float, rate: float | None = None) -> int | None:
    """About how many more requests of the canary exclude the limit at risk α, at an error rate; None if none would.

    Without a rate it is the one seen so far.
    """
    if rate is None:
        rate = bound.errors / bound.requests if bound.requests else 0.0
    drifts = [
        rate * math.log(q / bound.limit) + (1 - rate) * math.log((1 - q) / (1 - bound.limit)) for q in bound.rates
    ]
    return more_until(bound.logs, drifts, alpha)


# --- wealth --------------------------------------------------------------------------------------------------------


def log_sum(logs: Sequence[float]) -> float:
    """Ln of the sum of numbers that are given as their ln."""
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs))


def more_until(logs: Sequence[float], drifts: Sequence[float], alpha: float, most: int = 1 << 40) -> int | None:
    """The smallest n at which the wealth reaches 1/α if each ln grows by its drift n times; None if not up to `most`.

    The wealth is a sum of exponentials, so it is convex in n: where it is below 1/α at the start it crosses once.
    """

    def reached(n: int) -> bool:
        return log_sum([log + n * drift for log, drift in zip(logs, drifts, strict=True)]) >= -math.log(alpha)

    return 0 if reached(0) else first_count(reached, most)
