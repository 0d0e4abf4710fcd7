"""What Envoy counts → arms, without Envoy."""

import re
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


def test_what_ends_badly_is_an_error_and_what_nobody_answered_a_request_too() -> None:
    """Answers that broke off were counted when they began; a call that Envoy itself answered is among the 5xx."""
    ends = {
        f"penstock.{name}.cluster.{cluster}.flags.{flags}": 1
        for name in ("broken_off", "given_up", "failed_call")
        for cluster in ("release-7", "rpc-7", "release-70")
        for flags in ("-", "UC", "DC")
    }
    began = {f"{OWN}2xx": 10, "cluster.rpc-7.upstream_rq_2xx": 10}
    # Of each cluster: three that broke off, three that gave up, one call that failed by its own word.
    assert counts.arm("7", Counts(began | ends, {})) == Arm(20 + 2 * 3, 2 * (3 + 3 + 1), ())


def test_the_pattern_finds_what_an_arm_needs_and_no_other_release() -> None:
    """Statistics of a release whose name begins alike are left alone, and so are those of Envoy's own copies."""
    found = re.compile(counts.pattern(["7", "8/9"]))
    assert all(found.search(f"cluster.{name}.upstream_rq_time") for name in ("release-7", "rpc-7", "release-8_.2F9"))
    assert found.search("penstock.given_up.cluster.rpc-7.flags.DC")
    for other in (
        "cluster.release-70.upstream_rq_2xx",
        "cluster.release-7.external.upstream_rq_2xx",
        "cluster.release-7.upstream_rq_timeout",
        "penstock.given_up.cluster.release-70.flags.DC",
    ):
        assert not found.search(other)


def test_latencies_count_only_in_our_own_buckets() -> None:
    """Bounds as Envoy prints them are known again; other bounds, of an older Envoy, give no latencies."""
    printed = [(float(f"{bound:.5e}"), n) for n, bound in enumerate(BOUNDS_MS)]
    assert counts.arm("7", Counts({}, {f"{OWN}time": printed})).latencies == tuple(range(len(BOUNDS_MS)))
    for other in (printed[1:], printed[:-1], [(bound * 1.01, n) for bound, n in printed], []):
        assert counts.arm("7", Counts({}, {f"{OWN}time": other})).latencies == ()
