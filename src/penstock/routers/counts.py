"""What Envoy counts of a release → an arm of a rollout. Pure: values in, values out.

Envoy charges a status when the head of an answer comes, or when it is sure that none will come (503, or 502 for what is
no HTTP), and a latency when an answer has come to its end. Health checks are charged nowhere here. Three counters are
ours (see xds.py): answers that broke off after a good status, requests whose callers went before an answer began, and
calls of gRPC that were answered with the status of a fault, which are 200 in the words of HTTP.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.routers.xds import BROKEN_OFF, FAILED_CALL, GIVEN_UP, cluster_name, grpc_name
from penstock.traffic import EDGES_MS, NOTHING, Arm

BOUNDS_MS = (*EDGES_MS, 1e9)
"""The bounds of Envoy's latency buckets: the last one is beyond all, so that what exceeds every edge is counted."""

# An upgraded connection (101) is an answer; Envoy charges other 1xx beside the answer that follows them.
_ANSWERS = ("101", "2xx", "3xx", "4xx", "5xx")
_TIME = "upstream_rq_time"
# Envoy prints bounds with fewer digits than they have.
_AS_PRINTED = 1e-4
_OURS = re.compile(rf"penstock\.({BROKEN_OFF}|{GIVEN_UP}|{FAILED_CALL})\.cluster\.(.*)\.flags\.(.*)")


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers since Envoy began: `values` of counters; of histograms, per bucket, its upper bound and its count."""

    values: Mapping[str, int]
    buckets: Mapping[str, Sequence[tuple[float, int]]]


NO_COUNTS = Counts({}, {})


def pattern(releases: Sequence[str]) -> str:
    """The pattern of all statistics that `arm` needs of these releases."""
    clusters = "|".join(re.escape(name(release)) for release in releases for name in (cluster_name, grpc_name))
    ours = rf"penstock\.({BROKEN_OFF}|{GIVEN_UP}|{FAILED_CALL})\.cluster\.({clusters})\.flags\..*"
    return rf"^(cluster\.({clusters})\.upstream_rq_({'|'.join(_ANSWERS)}|time)|{ours})$"


def arm(release: str, counts: Counts) -> Arm:
    """What a release did; an empty arm where Envoy has counted nothing of it.

    Without latencies where Envoy's buckets are not those of `BOUNDS_MS`, as an older Penstock began it.
    """
    ours = _ours(counts.values)
    return sum((_arm(name(release), counts, ours) for name in (cluster_name, grpc_name)), NOTHING)


def _arm(cluster: str, counts: Counts, ours: Mapping[tuple[str, str], int]) -> Arm:
    answers = {kind: counts.values.get(f"cluster.{cluster}.upstream_rq_{kind}", 0) for kind in _ANSWERS}
    broken, left, failed = (ours.get((name, cluster), 0) for name in (BROKEN_OFF, GIVEN_UP, FAILED_CALL))
    return Arm(
        sum(answers.values()) + left,
        answers["5xx"] + broken + left + failed,
        _latencies(counts.buckets.get(f"cluster.{cluster}.{_TIME}", ())),
    )


def _ours(values: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Our own counters, by what they count and by cluster. A call that Envoy answered itself (with flags) is a 5xx."""
    found: dict[tuple[str, str], int] = {}
    for name, value in values.items():
        parts = _OURS.fullmatch(name)
        if parts is not None and (parts[1] != FAILED_CALL or parts[3] == "-"):
            found[parts[1], parts[2]] = found.get((parts[1], parts[2]), 0) + value
    return found


def _latencies(buckets: Sequence[tuple[float, int]]) -> tuple[int, ...]:
    bounds = [bound for bound, _ in buckets]
    ours = len(bounds) == len(BOUNDS_MS) and all(map(_same, bounds, BOUNDS_MS))
    return tuple(count for _, count in buckets) if ours else ()


def _same(printed: float, bound: float) -> bool:
    return math.isclose(printed, bound, rel_tol=_AS_PRINTED)
