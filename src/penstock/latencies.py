"""Latency as counts: how many requests of each arm exceed what the stable release rarely exceeds.

The claim is that the canary is at most `ratio` times as slow. Then it exceeds `ratio` × t no more often than the stable
release exceeds t, whatever t is; so an exceedance is an event that both arms share, as an error is, and the comparison
of `error_counts` holds. t is the stable release's running quantile, taken before the requests that are counted. Where
`ratio` × t is no edge of a bucket, the edge is taken that speaks for the claim that is tested.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.error_counts import Comparison, compared, looking_for_harm, looking_for_safety
from penstock.errors import UsageError
from penstock.traffic import Increment, above, quantile_edge

SAFE = {0.1: 0.3, 0.4: 0.4, 0.7: 0.3}
"""How many times as often a canary exceeds `ratio` × t when it is not slower: the bets on safety."""


@dataclass(frozen=True, slots=True)
class LatencyRule:
    """The canary's quantile may be at most `ratio` times that of the stable release; .99 and 1.5, say."""

    quantile: float
    ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1 or not self.ratio >= 1:
            raise UsageError(f"latency ratio {self.ratio:g} at {self.quantile:g}: write 1 or more, of a share below 1")

    @property
    def name(self) -> str:
        """The rule as a person writes it: `latency_p99_ratio`."""
        return f"latency_p{self.quantile * 100:g}_ratio"


@dataclass(frozen=True, slots=True)
class Watch:
    """A rule with its evidence: `harm` grows where the canary is slower than allowed, `safety` where it is not."""

    rule: LatencyRule
    harm: Comparison
    safety: Comparison


def watched(rule: LatencyRule) -> Watch:
    """A rule before the first request."""
    return Watch(rule, looking_for_harm(), looking_for_safety(1.0, SAFE))


def seen_slow(watch: Watch, edges: Sequence[float], history: Sequence[int], new: Increment) -> Watch:
    """The evidence after one more look; `history` holds the stable release's latencies before it, per bucket."""
    edge = quantile_edge(history, watch.rule.quantile)
    if edge is None or not new.canary.latencies or not new.stable.latencies:
        return watch
    wanted = edges[edge] * watch.rule.ratio
    higher, lower = bisect_left(edges, wanted * (1 - 1e-9)), bisect_right(edges, wanted * (1 + 1e-9)) - 1
    requests = (sum(new.canary.latencies), sum(new.stable.latencies))
    slow = above(new.stable.latencies, edge)
    if higher < len(edges):
        events = (above(new.canary.latencies, higher), slow)
        watch = replace(watch, harm=compared(watch.harm, events, requests))
    events = (above(new.canary.latencies, lower), slow)
    return replace(watch, safety=compared(watch.safety, events, requests))
