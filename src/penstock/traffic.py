"""Traffic between two looks at the router: what each arm of a rollout got, and whether it got its share.

The canary and the stable release are the two *arms*. The router's counters only grow; what happened between two looks
is their difference, unless the router began anew in between: then nothing is known of that time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ALARM = 0.001
"""The chance that a sound split is ever taken for a wrong one."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one release did: finished requests, those that failed, and finished requests per latency bucket.

    Bucket i counts what took longer than edge i - 1 and at most edge i; the last one what took longer than any edge. So
    there is one bucket more than edges, or none where latencies are not counted.
    """

    requests: int = 0
    errors: int = 0
    latencies: tuple[int, ...] = ()

    def __add__(self, other: "Arm") -> "Arm":
        slots = max(len(self.latencies), len(other.latencies))
        mine, theirs = (arm.latencies or (0,) * slots for arm in (self, other))
        return Arm(
            self.requests + other.requests,
            self.errors + other.errors,
            tuple(a + b for a, b in zip(mine, theirs, strict=True)),
        )


NOTHING = Arm()
"""An arm before the first request."""


@dataclass(frozen=True, slots=True)
class Increment:
    """What both arms did between two looks."""

    canary: Arm
    stable: Arm


@dataclass(frozen=True, slots=True)
class Reading:
    """The router's counters at one look, all since it began; `epoch` is anything that changes when it begins anew."""

    epoch: str
    canary: Arm
    stable: Arm


def between(before: Reading | None, after: Reading | None) -> Increment | None:
    """What happened between two looks; None where that is not known: no look, a new router, a counter that fell."""
    if before is None or after is None or before.epoch != after.epoch:
        return None
    arms = [_grown(getattr(before, arm), getattr(after, arm)) for arm in ("canary", "stable")]
    return None if arms[0] is None or arms[1] is None else Increment(arms[0], arms[1])


def _grown(before: Arm, after: Arm) -> Arm | None:
    old = before.latencies or (0,) * len(after.latencies)
    if len(old) != len(after.latencies):
        return None
    grown = Arm(
        after.requests - before.requests,
        after.errors - before.errors,
        tuple(b - a for a, b in zip(old, after.latencies, strict=True)),
    )
    return grown if is_sound(grown) else None


def is_sound(arm: Arm) -> bool:
    """Whether counts of an arm can be true: nothing negative, no more errors than requests."""
    return 0 <= arm.errors <= arm.requests and min(arm.latencies, default=0) >= 0


# --- the split ------------------------------------------------------------------------------------------------------


def split_alarm(requests: tuple[int, int], share: float, tolerance: float) -> str | None:
    """Why the split of requests is not the one that was set, in one sentence; None while that is not shown.

    `requests` of the canary and the stable release, `share` what the canary should have got. The wealth against "each
    request is at the canary with probability `share`" is that of a Beta mixture (Robbins 1970), so one may look at any
    time and errs with `ALARM` at most. What differs by less than the `tolerance`, a part of the share, raises no alarm:
    users who stay where they are make requests in clusters.
    """
    seen = sum(requests)
    if not seen or abs(requests[0] / seen - share) <= tolerance * share or not 0 < share < 1:
        return None
    if _split_wealth(requests, share) < -math.log(ALARM):
        return None
    return f"the canary got {requests[0] / seen * 100:.3g} % of {seen:,} requests where {share * 100:.3g} % were set"


_WEIGHT = 100.0
"""What the Beta mixture weighs, in requests: a small one sees large deviations soon."""


def _split_wealth(requests: tuple[int, int], share: float) -> float:
    before = (_WEIGHT * share, _WEIGHT * (1 - share))
    after = (before[0] + requests[0], before[1] + requests[1])
    expected = requests[0] * math.log(share) + requests[1] * math.log(1 - share)
    return _log_beta(*after) - _log_beta(*before) - expected


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


# --- latencies -----------------------------------------------------------------------------------------------------


def log_edges(lowest: float, step: float, count: int) -> tuple[float, ...]:
    """Edges of latency buckets, each `step` times the one before; in the unit of the lowest.

    A step of √r lets a ratio of r be tested sharply: r times an edge is then an edge too.
    """
    return tuple(lowest * step**i for i in range(count))


def quantile_edge(latencies: Sequence[int], quantile: float, beyond: float = 10.0) -> int | None:
    """The edge that is nearest to a quantile of the requests, by how many are above it; None where that is not known.

    It is known once about `beyond` requests were above the quantile, and where that is not above the last edge.
    """
    total, rare = sum(latencies), 1 - quantile
    if total * rare < beyond:
        return None
    over, before = total, total
    for edge, count in enumerate(latencies[:-1]):
        before, over = over, over - count
        if over <= rare * total:
            return edge - 1 if edge and before * over < (rare * total) ** 2 else edge
    return None


def above(latencies: Sequence[int], edge: int) -> int:
    """How many requests took longer than an edge."""
    return sum(latencies[edge + 1 :])


EDGES_MS = log_edges(1.0, 1.5**0.5, 66)
"""The router's latency buckets in ms, from 1 ms to 9 minutes in steps of √1.5: a ratio of 1.5 is tested sharply."""
