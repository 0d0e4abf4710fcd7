"""Routes → Envoy's documents, without Envoy."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.contracts import Backend, Route, Sticky
from penstock.errors import EngineError
from penstock.routers import xds

_NAMES = st.text(min_size=1, max_size=12)
_BIND = "Error adding/updating listener(s) st@8801: cannot bind '127.0.0.1:8801': Address already in use"


@st.composite
def states(draw: st.DrawFn) -> list[Route]:
    """States of a home in which nothing contradicts itself."""
    environments = draw(st.lists(_NAMES, unique=True, max_size=4))
    releases = draw(st.lists(_NAMES, unique=True, max_size=6)) if environments else []
    owned: dict[str, list[str]] = {environment: [] for environment in environments}
    for release in releases:
        owned[draw(st.sampled_from(environments))].append(release)
    return [Route(name, 8000 + at, _backends(draw, owned[name])) for at, name in enumerate(environments)]


def _backends(draw: st.DrawFn, releases: list[str]) -> tuple[Backend, ...]:
    first = draw(st.integers(0, xds.WHOLE))
    weights = [first, xds.WHOLE - first] if len(releases) > 1 else [xds.WHOLE]
    weights += [0] * len(releases)
    ports = st.lists(st.integers(1, 65_535), max_size=3).map(tuple)
    return tuple(Backend(r, draw(_NAMES), draw(ports), "/health", w) for r, w in zip(releases, weights, strict=False))


def routes_of(document: xds.Document) -> Any:
    return document.resources[0]["virtual_hosts"][0]["routes"]


@given(states())
def test_only_what_has_weight_is_routed_and_all_is_watched(state: list[Route]) -> None:
    """Each release is a cluster with a health check; a route table names exactly those with weight, which add up."""
    xds.refuse_contradictions(state)
    documents = xds.documents(state, "/home")
    backends = [backend for route in state for backend in route.backends]
    names = [name(b.release) for b in backends for name in (xds.cluster_name, xds.grpc_name)]
    assert sorted(c["name"] for c in documents.clusters.resources) == sorted(names)
    assert all(c["health_checks"] for c in documents.clusters.resources)
    by_name = {route.environment: route for route in state}
    for route, document in zip(sorted(by_name.items()), documents.routes, strict=True):
        weighted = {b.release: b.weight for b in route[1].backends if b.weight}
        ways = [way for way in routes_of(document) if "route" in way]
        assert bool(ways) == bool(weighted)
        for way, name in zip(ways, (xds.grpc_name, xds.cluster_name), strict=bool(ways)):
            shares = {share["name"]: share["weight"] for share in way["route"]["weighted_clusters"]["clusters"]}
            assert shares == {name(release): weight for release, weight in weighted.items()}
            assert ("grpc" in way["match"]) == (name is xds.grpc_name)


@given(states(), st.randoms(use_true_random=False))
def test_equal_states_have_equal_versions_and_files_of_their_own(state: list[Route], random: Any) -> None:
    """The order of environments does not matter, no two share a file, and a document survives being read back."""
    documents = xds.documents(state, "/home")
    shuffled = list(state)
    random.shuffle(shuffled)
    assert xds.documents(shuffled, "/home") == documents
    files = [document.file for document in documents.routes]
    assert len(set(files)) == len(state)
    assert all("/" not in file and file.isascii() for file in files)
    assert xds.parse_clusters(documents.clusters.text) == documents.clusters
    assert xds.parse_listeners(documents.listeners.text) == documents.listeners
    assert tuple(xds.parse_routes(document.text) for document in documents.routes) == documents.routes


@given(states(), states())
def test_the_union_holds_the_clusters_of_both_and_the_new_where_they_differ(old: list[Route], new: list[Route]) -> None:
    """While traffic moves, every cluster exists that an old or a new route table names."""
    before, after = xds.documents(old, "/home").clusters, xds.documents(new, "/home").clusters
    both = {c["name"]: c for c in xds.union(before, after).resources}
    assert both.keys() == {c["name"] for c in (*before.resources, *after.resources)}
    assert all(both[c["name"]] == c for c in after.resources)


def test_a_new_split_touches_only_its_own_route_table() -> None:
    """Listeners and clusters keep their versions when weights change, so no connection notices."""
    one, two = (Backend(name, name, (1,), "/", weight) for name, weight in (("1", 10_000), ("2", 0)))
    before = xds.documents([Route("a", 1, (one, two)), Route("b", 2, ())], "/home")
    after = xds.documents(
        [Route("a", 1, (Backend("1", "1", (1,), "/", 5_000), Backend("2", "2", (1,), "/", 5_000))), Route("b", 2, ())],
        "/home",
    )
    assert (after.clusters, after.listeners, after.routes[1]) == (before.clusters, before.listeners, before.routes[1])
    assert after.routes[0].version != before.routes[0].version


def test_a_version_with_a_percent_sign_is_no_variable() -> None:
    """Envoy fills in %VARIABLES% in header values: a version is always itself."""
    document = xds.documents([Route("a", 1, (Backend("1", "%PROTOCOL%", (1,), "/", 10_000),))], "/home").routes[0]
    for way in routes_of(document):
        share = way["route"]["weighted_clusters"]["clusters"][0]
        assert share["response_headers_to_add"][0]["header"]["value"] == "%%PROTOCOL%%"


def test_only_what_may_be_copied_has_mirrors() -> None:
    """Small bodies and requests without one are copied, everything else and gRPC is not; all are split alike."""
    parts = (Backend("1", "1", (1,), "/", 10_000), Backend("2", "2", (2,), "/", 0, 2_500))
    ways = routes_of(xds.documents([Route("a", 1, parts)], "/home").routes[0])
    assert [("grpc" in way["match"], "request_mirror_policies" in way["route"]) for way in ways] == [
        (True, False),
        (False, True),
        (False, True),
        (False, False),
    ]
    assert ways[-1]["match"] == {"prefix": "/"}
    assert len({json.dumps(way["route"]["weighted_clusters"]) for way in ways[1:]}) == 1


@given(st.sampled_from(["header", "cookie"]), st.integers(1, 9_999))
def test_widening_keeps_the_order_and_the_salt(kind: Literal["header", "cookie"], weight: int) -> None:
    """At every width the release that is tried is first, and users are hashed with the same salt."""
    ways = []
    for width in (weight, 1):
        parts = (Backend("9", "9", (1,), "/", width), Backend("1", "1", (2,), "/", xds.WHOLE - width))
        (document,) = xds.documents([Route("a", 1, parts, Sticky(kind, "who"))], "/home").routes
        ways.append([way["route"] for way in routes_of(document) if "hash_policy" in way["route"]])
    for wide, narrow in zip(*ways, strict=True):
        assert wide["hash_policy"] == narrow["hash_policy"]
        assert wide["hash_policy"][0]["header"]["regex_rewrite"]["substitution"] == "9 \\1"
        assert [share["name"][-1] for share in wide["weighted_clusters"]["clusters"]] == ["9", "1"]


def test_listeners_are_private_and_unshared() -> None:
    """Every listener is bound to loopback and refuses to share its port with another program."""
    (listener,) = xds.documents([Route("a", 8800, ())], "/home").listeners.resources
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 8800}
    assert listener["enable_reuse_port"] is False


def test_a_stage_is_settled_when_all_versions_are_in_force_and_nothing_warms() -> None:
    """A version that is not in force, a missing kind or something that still warms: not settled."""
    documents = xds.documents([Route("a", 1, ())], "/home")
    stage = [documents.clusters, *documents.routes, documents.listeners]
    stats = {document.stat: document.version for document in stage}
    stats |= {"cluster_manager.warming_clusters": "0", "listener_manager.total_listeners_warming": "0"}
    assert xds.settled(stats, stage)
    assert all(not xds.settled(stats | {name: "other"}, stage) for name in stats)
    unread = {name: value for name, value in stats.items() if name != documents.routes[0].stat}
    assert xds.settled(unread, stage)
    assert not xds.settled({}, [])


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("[2026-01-01 00:00:00.000][1][warning] nothing of that kind\n", None),
        ("x] Filesystem config update rejected: " + _BIND + "\n\n[2026-01-01 00:00:00.000][1] later\n", _BIND),
        ('x] Filesystem config update rejected: debug\nname: "c"\ntype: STATIC\n: Proto (bad)\n', "c: Proto (bad)"),
        ("x] Filesystem config update failure: in a.json, no JSON: {\n 1\n}\n", "in a.json, no JSON: {"),
        ("x] Filesystem config update rejected: ", "no reason given"),
    ],
)
def test_a_refusal_is_read_from_the_log(log: str, reason: str | None) -> None:
    """Of what Envoy prints around a refused document only the reason is told."""
    assert xds.refusal(log) == reason


def test_ports_that_cannot_be_had_are_read_from_the_log() -> None:
    """Envoy's words give each port with the reason; what it says beside a refusal, or of other things, gives none."""
    privileged = "b@80: cannot bind '127.0.0.1:80': Permission denied"
    log = (
        f"a] {_BIND}\nx] Filesystem config update rejected: {_BIND}\n{privileged}\n\n[2026-01-01 00:00:00.000][1] later"
    )
    assert xds.unbound(log) == {8801: "Address already in use", 80: "Permission denied"}
    assert xds.unbound(f"[2026-01-01 00:00:00.000][1] {privileged}\n") == {}


def test_no_weight_at_all_is_no_contradiction() -> None:
    """An environment may rest: all weights 0."""
    xds.refuse_contradictions([Route("a", 1, (Backend("1", "1", (1,), "/", 0),))])
    with pytest.raises(EngineError, match=r"weights of a are \[1\]"):
        xds.refuse_contradictions([Route("a", 1, (Backend("1", "1", (1,), "/", 1),))])
