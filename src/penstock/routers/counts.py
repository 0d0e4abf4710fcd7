"""What Envoy counts of a release → an arm of a rollout. Pure: values in, values out.

Envoy charges a status when the head of an answer comes, or when it is sure that none will come (503, or 502 for what
is no HTTP), and a latency when an answer has come to its end. Health checks are charged nowhere here. Two counters are
ours: answers that broke off after a good status, and requests whose callers went before an answer began.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.routers.xds import BROKEN_OFF, GIVEN_UP, cluster_name
from penstock.traffic import EDGES_MS, Arm

BOUNDS_MS = (*EDGES_MS, 1e9)
"""The bounds of Envoy's latency buckets: the last one is beyond all, so that what exceeds every edge is counted."""

# An upgraded connection (101) is an answer; Envoy charges other 1xx beside the answer that follows them.
_ANSWERS = ("101", "2xx", "3xx", "4xx", "5xx")
_TIME = "upstream_rq_time"
# Envoy prints bounds with fewer digits than they have.
_AS_PRINTED = 1e-4


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers since Envoy began: `values` of counters; of histograms, per bucket, its upper bound and its count."""

    values: Mapping[str, int]
    buckets: Mapping[str, Sequence[tuple[float, int]]]


NO_COUNTS = Counts({}, {})


def pattern(releases: Sequence[str]) -> str:
    """The pattern of all statistics that `arm` needs of these releases."""
    clusters = "|".join(re.escape(cluster_name(release)) for release in releases)
    ours = rf"penstock\.({BROKEN_OFF}|{GIVEN_UP})\.cluster\.({clusters})"
    return rf"^(cluster\.({clusters})\.upstream_rq_({'|'.join(_ANSWERS)}|time)|{ours})$"


def arm(release: str, counts: Counts) -> Arm:
    """What a release did; an empty arm where Envoy has counted nothing of it.

    Without latencies where Envoy's buckets are not those of `BOUNDS_MS`, as an older Penstock began it.
    """
    cluster = cluster_name(release)
    answers = {kind: counts.values.get(f"cluster.{cluster}.upstream_rq_{kind}", 0) for kind in _ANSWERS}
    broken, left = (counts.values.get(f"penstock.{name}.cluster.{cluster}", 0) for name in (BROKEN_OFF, GIVEN_UP))
    return Arm(
        sum(answers.values()) + left,
        answers["5xx"] + broken + left,
        _latencies(counts.buckets.get(f"cluster.{cluster}.{_TIME}", ())),
    )


def _latencies(buckets: Sequence[tuple[float, int]]) -> tuple[int, ...]:
    bounds = [bound for bound, _ in buckets]
    ours = len(bounds) == len(BOUNDS_MS) and all(map(_same, bounds, BOUNDS_MS))
    return tuple(count for _, count in buckets) if ours else ()


def _same(printed: float, bound: float) -> bool:
    return math.isclose(printed, bound, rel_tol=_AS_PRINTED)
