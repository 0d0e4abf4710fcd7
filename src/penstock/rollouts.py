"""A rollout as arithmetic: which releases an environment routes to, with which weights.

Blue/green today, and it is the canary with no widths: the candidate is health-checked at weight 0, then takes
everything at once, then the old one drains at weight 0, then it leaves the route.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.releases import ReleaseStatus

FULL = 10_000
"""The whole of an environment's traffic, in parts of ten thousand."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A release with replicas that could serve: its id, status and when it began to serve."""

    release: int
    status: ReleaseStatus
    since: float | None


def weights(placed: Sequence[Placed]) -> dict[int, int]:
    """Release to weight, for one environment; a release that is absent leaves the route.

    Exactly one release may serve. A candidate and a draining release are in the route with weight 0: the router
    watches the candidate's health and lets the draining one finish what it began.
    """
    parts = {ReleaseStatus.SERVING: FULL, ReleaseStatus.STARTING: 0, ReleaseStatus.DRAINING: 0}
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
