"""What Envoy counts → arms, without Envoy."""

from itertools import pairwise

from penstock.routers import counts
from penstock.routers.counts import BOUNDS_MS, Counts
from penstock.traffic import EDGES_MS, Arm

OWN = "cluster.release-7.upstream_rq_"


def test_the_bounds_grow_and_the_last_is_beyond_all() -> None:
    """Envoy requires bounds that grow; the last bucket holds what took longer than any edge, whatever it took."""
    assert BOUNDS_MS[:-1] == EDGES_MS
    assert all(a < b for a, b in pairwise(BOUNDS_MS))
    assert BOUNDS_MS[-1] > 86_400_000


def test_answers_are_requests_and_those_of_5xx_errors() -> None:
    """What a caller does wrong is no error, an upgrade is an answer, and a release without counts is empty."""
    values = {f"{OWN}{kind}": n for n, kind in enumerate(("101", "2xx", "3xx", "4xx", "5xx"), 1)}
    assert counts.arm("7", Counts(values, {})) == Arm(15, 5, ())
    assert counts.arm("70", Counts(values, {})) == Arm()
    assert counts.arm("7", counts.NO_COUNTS) == Arm()


def test_latencies_count_only_in_our_own_buckets() -> None:
    """Bounds as Envoy prints them are known again; other bounds, of an older Envoy, give no latencies."""
    printed = [(float(f"{bound:.5e}"), n) for n, bound in enumerate(BOUNDS_MS)]
    assert counts.arm("7", Counts({}, {f"{OWN}time": printed})).latencies == tuple(range(len(BOUNDS_MS)))
    for other in (printed[1:], printed[:-1], [(bound * 1.01, n) for bound, n in printed], []):
        assert counts.arm("7", Counts({}, {f"{OWN}time": other})).latencies == ()
