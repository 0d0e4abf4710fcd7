"""Routes → the documents that Envoy reads (xDS v3, as JSON files). Pure: values in, values out.

Five kinds of document, so that each change touches only what it must: clusters (one per release), one route table
per environment (a new split replaces only this, and no connection notices), one secret per environment that has a
certificate, and listeners (they change only when an environment comes, goes or moves to another port, or begins or ends
to have one). A document's version is the digest of its content: equal state, equal version, whoever rendered it and
however often.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from penstock.engine.contracts import Backend, Route, Sticky
from penstock.errors import EngineError
from penstock.recordings import SYNTHETIC

CLUSTERS = "clusters.json"
LISTENERS = "listeners.json"
ROUTES = "routes-"
SECRETS = "secret-"
RELEASE_HEADER = "x-penstock-release"
WHOLE = 10_000

# Matches the names of all statistics that `settled` needs.
STATE = r"\.version_text$|^cluster_manager\.warming_clusters$|^listener_manager\.total_listeners_warming$"

_CLUSTERS_STAT = "cluster_manager.cds.version_text"
_LISTENERS_STAT = "listener_manager.lds.version_text"
_WARMING = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
_REFUSAL = re.compile(
    r"Filesystem config update (?P<how>rejected|failure): (?P<words>.*?)(?=\n\[\d{4}-|\Z)",
    re.DOTALL,
)
_REFUSED_NAME = re.compile(r'^name: "([^"]*)"', re.MULTILINE)
_UNBOUND = re.compile(r"cannot bind '127\.0\.0\.1:(\d+)': ([^\n]+)")
_TYPES = "type.googleapis.com/envoy."
_NO_LIMIT = 1_000_000
_MOST_COPIES = 128
_REQUEST_ID = "x-request-id"
_COOKIE_SECONDS = 30 * 86_400
_Json = dict[str, Any]
_Naming = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Document:
    """One file for Envoy. `stat` is the name under which Envoy reports the `version` that it has in force."""

    file: str
    stat: str
    version: str
    text: str

    @property
    def resources(self) -> list[_Json]:
        resources: list[_Json] = json.loads(self.text)["resources"]
        return resources


@dataclass(frozen=True, slots=True)
class Documents:
    """The whole state of a router."""

    clusters: Document
    routes: tuple[Document, ...]
    listeners: Document
    secrets: tuple[Document, ...] = ()


def refuse_contradictions(routes: Sequence[Route]) -> None:
    """Raise EngineError where routes share an environment, a port or a release, or a split is no split."""
    for what, names in (
        ("environment", [r.environment for r in routes]),
        ("port", [str(r.port) for r in routes]),
        ("release", [b.release for r in routes for b in r.backends]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise EngineError(f"{what} {twice[0]} is routed twice: give each environment its own")
    for route in routes:
        weights = [backend.weight for backend in route.backends]
        if min(weights, default=0) < 0 or sum(weights) not in {0, WHOLE}:
            raise EngineError(f"the weights of {route.environment} are {weights}: they must add up to 0 or {WHOLE}")
        for backend in route.backends:
            if not 0 <= backend.mirror <= WHOLE or (backend.mirror and backend.weight):
                raise EngineError(
                    f"{backend.version} of {route.environment} mirrors {backend.mirror} parts at weight "
                    f"{backend.weight}: expected 0 to {WHOLE} parts, and no weight beside them"
                )


def documents(
    routes: Sequence[Route], folder: str, certificates: Mapping[str, str] = MappingProxyType({})
) -> Documents:
    """The documents of the wanted state; `folder` is the absolute folder that the route tables lie in.

    `certificates` says, by environment, what the certificate and key are called there (without .crt and .key).
    """
    ordered = sorted(routes, key=lambda route: route.environment)
    return Documents(
        clusters=clusters(c for route in ordered for backend in route.backends for c in _clusters(backend)),
        routes=tuple(_route_table(route) for route in ordered),
        listeners=listeners(_listener(route, folder) for route in ordered),
        secrets=tuple(_secret(name, f"{folder}/{certificates[name]}") for name in sorted(certificates)),
    )


def clusters(resources: Iterable[_Json]) -> Document:
    """The document of all clusters."""
    return _document(CLUSTERS, _CLUSTERS_STAT, resources)


def listeners(resources: Iterable[_Json]) -> Document:
    """The document of all listeners."""
    return _document(LISTENERS, _LISTENERS_STAT, resources)


def union(old: Document, new: Document) -> Document:
    """The clusters of both documents: what must exist while the route tables move from the old ones to the new."""
    return clusters(({c["name"]: c for c in old.resources} | {c["name"]: c for c in new.resources}).values())


def cluster_name(release: str) -> str:
    """The name of a release's cluster, with nothing in it that Envoy would rewrite in the names of statistics."""
    return f"release-{_slug(release)}"


def grpc_name(release: str) -> str:
    """The name of the cluster of the same replicas that gRPC goes to: its servers speak HTTP/2 and nothing else."""
    return f"rpc-{_slug(release)}"


def bootstrap(folder: str, admin_socket: str, buckets: Sequence[float]) -> str:
    """The file Envoy starts with: where its admin address is and where its documents lie.

    `buckets` are the upper bounds of its latency buckets, in milliseconds; `admin_socket` is the path of a unix socket,
    relative to Envoy's working folder (the kernel allows 107 bytes).
    """
    document = {
        "node": {"id": "penstock", "cluster": "penstock"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _read_from(folder, CLUSTERS), "lds_config": _read_from(folder, LISTENERS)},
        "stats_flush_interval": "0.2s",
        "stats_config": {"histogram_bucket_settings": [{"match": {"prefix": "cluster."}, "buckets": list(buckets)}]},
    }
    return json.dumps(document, indent=1)


def parse_clusters(text: str) -> Document:
    """A document of clusters that was rendered before. Raises ValueError or KeyError for anything else."""
    return clusters(json.loads(text)["resources"])


def parse_listeners(text: str) -> Document:
    """A document of listeners that was rendered before. Raises ValueError or KeyError for anything else."""
    return listeners(json.loads(text)["resources"])


def parse_routes(text: str) -> Document:
    """A route table that was rendered before. Raises ValueError or KeyError for anything else."""
    return _route_document(json.loads(text)["resources"][0])


def parse_secret(text: str) -> Document:
    """What names a certificate and was rendered before. Raises ValueError or KeyError for anything else."""
    return _secret_document(json.loads(text)["resources"][0])


def settled(stats: Mapping[str, str], stage: Iterable[Document]) -> bool:
    """Whether Envoy follows all documents of a stage and prepares nothing; `stats` are those that `STATE` matches.

    A route table without a listener is not read by Envoy yet, so there is nothing to wait for.
    """
    if not {_CLUSTERS_STAT, _LISTENERS_STAT} <= stats.keys():
        return False
    in_force = all(stats.get(document.stat, document.version) == document.version for document in stage)
    return in_force and all(stats.get(name) == "0" for name in _WARMING)


def gauges(clusters_: Sequence[str], names: Sequence[str]) -> str:
    """The pattern of these statistics of some clusters."""
    return f"^cluster\\.({'|'.join(map(re.escape, clusters_))})\\.({'|'.join(names)})$"


def unbound(log: str) -> dict[int, str]:
    """The ports that Envoy could not have, from its log since a document was written, and why, in its words."""
    refused = (found["words"] for found in _REFUSAL.finditer(log))
    return {int(port): why.strip() for words in refused for port, why in _UNBOUND.findall(words)}


def addresses(document: Document) -> dict[str, int]:
    """The names of listeners with their ports."""
    return {listener["name"]: listener["address"]["socket_address"]["port_value"] for listener in document.resources}


def listener_name(route: Route) -> str:
    """The port is part of the name: a moved environment is a new listener beside one that drains."""
    return f"{_slug(route.environment)}@{route.port}"


def without(wanted: Documents, before: Documents, refused: Container[str]) -> Documents:
    """The wanted state but for environments whose listeners are refused.

    One that listened elsewhere stays there with its routes, also where another one was to have that port. Of one that
    did not, all but the listener is there: nobody reads it, and it is ready for when the port can be had.
    """
    if not any(name in refused for name in addresses(wanted.listeners)):
        return wanted
    there = {_owner(listener): listener for listener in before.listeners.resources if listener["name"] not in refused}
    stuck = {_owner(listener) for listener in wanted.listeners.resources if listener["name"] in refused}
    staying = [listener for owner, listener in there.items() if owner in stuck]
    kept = [listener for listener in wanted.listeners.resources if _owner(listener) not in stuck]
    occupied = {listener["address"]["socket_address"]["port_value"] for listener in staying}
    clashing = {name for name, port in addresses(listeners(kept)).items() if port in occupied}
    if clashing:
        return without(wanted, before, {*clashing, *(n for n in addresses(wanted.listeners) if n in refused)})
    owners = {_owner(listener) for listener in staying}
    routes = _mixed(wanted.routes, before.routes, owners)
    named = "".join(document.text for document in routes)
    older = [cluster for cluster in before.clusters.resources if f'"{cluster["name"]}"' in named]
    return Documents(
        clusters=union(clusters(older), wanted.clusters),
        routes=routes,
        listeners=listeners([*kept, *staying]),
        secrets=_mixed(wanted.secrets, before.secrets, owners),
    )


def _mixed(wanted: Sequence[Document], before: Sequence[Document], staying: Container[str]) -> tuple[Document, ...]:
    kept = (document for document in wanted if document.resources[0]["name"] not in staying)
    return (*kept, *(document for document in before if document.resources[0]["name"] in staying))


def _owner(listener: _Json) -> str:
    """The environment of a listener, as its route table is called."""
    return str(listener["name"]).rpartition("@")[0]


def refusal(log: str) -> str | None:
    """Why Envoy refuses a document, in its own words, from its log; None where it refuses none.

    Envoy prints the whole document before the reason (what fails validation) or after it (what is no such
    document): of the former the last line counts, of the latter the first.
    """
    found = _REFUSAL.search(log)
    if found is None:
        return None
    lines = found["words"].strip().splitlines() or ["no reason given"]
    line = lines[-1] if found["how"] == "rejected" else lines[0]
    resource = _REFUSED_NAME.search(found["words"])
    return (f"{resource[1]}: " if resource else "") + line.removeprefix(": ").strip()


def tap_name(environment: str) -> str:
    """By which name the admin address knows what passes an environment."""
    return _slug(environment)


def _document(file: str, stat: str, resources: Iterable[_Json]) -> Document:
    content = sorted(resources, key=lambda resource: str(resource["name"]))
    version = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    # A resource per line: to indent them takes ten times as long, and all are rendered at every look.
    lines = ",\n".join(map(json.dumps, content))
    text = f'{{"version_info": "{version}", "resources": [\n{lines}\n]}}\n'
    return Document(file, stat, version, text)


def _route_document(table: _Json) -> Document:
    name = table["name"]
    return _document(f"{ROUTES}{name}.json", f"http.{name}.rds.{name}.version_text", [table])


def _secret_document(secret: _Json) -> Document:
    name = secret["name"]
    return _document(f"{SECRETS}{name}.json", f"sds.{name}.version_text", [secret])


def _secret(environment: str, stem: str) -> Document:
    """A certificate is not part of its listener: another one is for new connections, and no old one notices."""
    kind = "extensions.transport_sockets.tls.v3.Secret"
    pair = {"certificate_chain": {"filename": f"{stem}.crt"}, "private_key": {"filename": f"{stem}.key"}}
    return _secret_document({"@type": _TYPES + kind, "name": _slug(environment), "tls_certificate": pair})


def _slug(name: str) -> str:
    """A name as one word that is safe in file names and statistics; different names stay different."""
    return quote(name, safe="").replace("%", "_.")


def _read_from(folder: str, file: str) -> _Json:
    return {"path_config_source": {"path": f"{folder}/{file}"}, "resource_api_version": "V3"}


def _typed(name: str, kind: str, **config: Any) -> _Json:
    return {"name": name, "typed_config": {"@type": _TYPES + kind, **config}}


def _clusters(backend: Backend) -> tuple[_Json, _Json]:
    """The replicas of a release twice: as servers of HTTP/1.1, which most are, and as servers of gRPC."""
    check = _health_check(backend.health)
    # Looked at seldom until somebody speaks gRPC.
    seldom = check | {"no_traffic_interval": "10s"}
    return (
        _cluster(cluster_name(backend.release), backend.ports, check, {"http_protocol_options": {}}),
        _cluster(grpc_name(backend.release), backend.ports, seldom, {"http2_protocol_options": {}}),
    )


def _cluster(name: str, ports: Sequence[int], check: _Json, protocol: _Json) -> _Json:
    return {
        "@type": _TYPES + "config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in ports]}],
        },
        "health_checks": [check],
        "outlier_detection": _EJECTION,
        # Envoy asks all replicas as if they were well where less than this part is (%): only where none is.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1.0}},
        # A queue in front of a slow model is the model's matter; Envoy's own limits (1024) would answer 503. A release
        # that only gets copies and does not answer must not hold any number of them: so many, and as many that wait.
        "circuit_breakers": {"thresholds": [_limits("HIGH", _NO_LIMIT), _limits("DEFAULT", _MOST_COPIES)]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPES + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
                # Shorter than servers keep an idle connection (2 s and more), so that no request meets one that
                # its server is just closing: there are no retries to hide it.
                "common_http_protocol_options": {"idle_timeout": "1s"},
            },
        },
    }


_EJECTION: _Json = {
    "consecutive_5xx": 5,
    "consecutive_gateway_failure": 3,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_time": "30s",
    "max_ejection_percent": 50,
    "always_eject_one_host": False,
    # What fails every request and says that it is well would else be back at once.
    "successful_active_health_check_uneject_host": False,
}
"""A replica that fails one request after the other rests for some seconds: at most half of them, never the only one."""


def _limits(priority: str, most: int) -> _Json:
    return {"priority": priority} | dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), most)


def _health_check(path: str) -> _Json:
    return {
        # Generous: a server that computes on its only thread is busy, not ill. A dead one refuses at once.
        "timeout": "5s",
        "interval": "0.25s",
        "no_traffic_interval": "0.25s",
        "healthy_threshold": 1,
        "unhealthy_threshold": 2,
        # A kept connection would occupy a server that serves one connection at a time.
        "reuse_connection": False,
        "http_health_check": {"path": path, "host": "127.0.0.1", "expected_statuses": [{"start": 200, "end": 201}]},
    }


def _address(port: int) -> _Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _route_table(route: Route) -> Document:
    name = _slug(route.environment)
    table = {
        "@type": _TYPES + "config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": [{"name": name, "domains": ["*"], "routes": _splits(route)}],
    }
    return _route_document(table)


def _splits(route: Route) -> list[_Json]:
    """The routes of one environment: of those that match a request Envoy takes the first."""
    if not any(backend.weight for backend in route.backends):
        body = {"inline_string": f"{route.environment} serves nothing\n"}
        return [{"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": body}}]
    copied = (_SMALL, _BARE) if any(backend.mirror for backend in route.backends) else ()
    return [way for kind in (_GRPC, *copied, _OTHERS) for way in _ways(route, kind)]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Requests that are routed alike: how they are recognised, to which clusters they go, whether they are copied."""

    name: _Naming
    match: _Json
    copied: bool = False


def _absent(header: str) -> _Json:
    return {"name": header, "present_match": True, "invert_match": True}


_GRPC = _Kind(grpc_name, {"prefix": "/", "grpc": {}})
_OTHERS = _Kind(cluster_name, {"prefix": "/"})
_SYNTHETIC = {"name": SYNTHETIC, "string_match": {"exact": "1"}}
# Envoy reads a request no faster than its copy is taken. So only what fits whole into its buffers (1 MiB) is copied: a
# mirror that takes nothing then holds up nobody.
_LENGTH = {"name": "content-length", "range_match": {"start": 0, "end": 512 * 1024}}
_SMALL = _Kind(cluster_name, {"prefix": "/", "headers": [_LENGTH, _absent("upgrade")]}, copied=True)
_NO_BODY = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS|DELETE"}}}
_NOTHING = [_NO_BODY, *map(_absent, ("content-length", "transfer-encoding", "upgrade"))]
_BARE = _Kind(cluster_name, {"prefix": "/", "headers": _NOTHING}, copied=True)


def _ways(route: Route, kind: _Kind) -> list[_Json]:
    """The routes of a kind: one, and where users are known one before it for recorded requests, which are nobody's.

    Where they are known by a cookie there is one more, that gives it to them.
    """
    sticky, match = route.sticky, kind.match
    if sticky is None:
        return [{"match": match, **_split(route, None, kind)}]
    # They name the same few users again and again: split by these, a release may never be asked.
    recorded = {"match": _and(match, _SYNTHETIC), **_split(route, None, kind)}
    if sticky.kind == "header":
        return [recorded, {"match": match, **_split(route, _salted(route, sticky.name, "(.*)"), kind)}]
    known = {"match": _and(match, _has_cookie(sticky.name))}
    return [
        recorded,
        {**known, **_split(route, _salted(route, "cookie", _cookie(sticky.name)), kind)},
        {"match": match, **_split(route, _salted(route, _REQUEST_ID, "(.*)"), kind), **_give(sticky, route)},
    ]


def _and(match: _Json, header: _Json) -> _Json:
    return {**match, "headers": [*match.get("headers", ()), header]}


def _salted(route: Route, header: str, key: str) -> _Json:
    """What a user is known by: the group of `key` in a header, with the release that comes first.

    That is the one that is tried, so that the next one is tried by others.
    """
    substitution = f"{_slug(route.backends[0].release)} \\1"
    rewrite = {"pattern": {"regex": f"^{key}$"}, "substitution": substitution}
    return {"header": {"header_name": header, "regex_rewrite": rewrite}}


def _split(route: Route, known_by: _Json | None, kind: _Kind) -> _Json:
    """The split itself: at random, or by the hash of what users are known by (and at random for the others)."""
    shares = [_share(backend, kind.name) for backend in route.backends if backend.weight > 0]
    weighted = {"clusters": shares, "use_hash_policy": True} if known_by else {"clusters": shares}
    mirrors = [_mirror(backend) for backend in route.backends if backend.mirror > 0 and kind.copied]
    action = {
        "weighted_clusters": weighted,
        "timeout": "0s",
        # What is copied has the priority DEFAULT, so that the limits of the two are apart.
        "priority": "HIGH",
        **({"hash_policy": [known_by]} if known_by else {}),
        **({"request_mirror_policies": mirrors} if mirrors else {}),
    }
    return {"route": action}


def _mirror(backend: Backend) -> _Json:
    part = {"numerator": backend.mirror, "denominator": "TEN_THOUSAND"}
    return {
        "cluster": cluster_name(backend.release),
        "runtime_fraction": {"default_value": part},
        # A copy is the same request: else its host would have "-shadow" at the end.
        "disable_shadow_host_suffix_append": True,
    }


def _cookie(name: str) -> str:
    """The whole of a header of cookies, with the value of one as its group. Envoy joins several headers by a comma."""
    return f"(?:.*[;,] *)?{re.escape(name)}=([^;,]+).*"


def _has_cookie(name: str) -> _Json:
    return {"name": "cookie", "string_match": {"safe_regex": {"regex": _cookie(name)}}}


def _give(cookie: Sticky, route: Route) -> _Json:
    """Users without the cookie get the id of their first request as their name, by which that was split already."""
    text = f"{cookie.name}=%REQ({_REQUEST_ID})%; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
    header = {"key": "set-cookie", "value": text + ("; Secure" if route.tls else "")}
    return {"response_headers_to_add": [{"header": header, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]}


def _share(backend: Backend, name: _Naming) -> _Json:
    # A percent sign opens a variable in Envoy's header values; doubled, it is itself.
    header = {"key": RELEASE_HEADER, "value": backend.version.replace("%", "%%")}
    return {
        "name": name(backend.release),
        "weight": backend.weight,
        "response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def _count(name: str, which: Sequence[_Json]) -> _Json:
    """Requests that are counted at their end, by cluster, since no counter of a cluster tells of them."""
    kind = "access_loggers.stats"
    tags = [{"name": "cluster", "value_format": "%UPSTREAM_CLUSTER%"}, {"name": "flags", "value_format": _FLAGS}]
    config = {
        "stats_scope": {"prefix": "penstock"},
        "counters": [{"stat": {"name": name, "tags": tags}, "value_fixed": 1}],
    }
    logger = _typed(f"envoy.{kind}", f"extensions.{kind}.v3.Config", **config)
    return logger | {"filter": {"and_filter": {"filters": [*which]}}}


def _flagged(*flags: str) -> _Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(op: str, status: int) -> _Json:
    return {"status_code_filter": {"comparison": {"op": op, "value": {"default_value": status, "runtime_key": "none"}}}}


BROKEN_OFF, GIVEN_UP, FAILED_CALL = "broken_off", "given_up", "failed_call"
_FLAGS = "%RESPONSE_FLAGS%"
# The statuses of gRPC that are 5xx in the words of HTTP.
_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
_IS_GRPC = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
_COUNTED: Mapping[str, Sequence[_Json]] = {
    # The replica began a good answer and did not end it.
    BROKEN_OFF: (_flagged("UC", "UR", "LR", "UPE"), _status("LE", 499)),
    # The caller went before an answer began.
    GIVEN_UP: (_flagged("DC", "DR"), _status("EQ", 0)),
    # The replica answered a call with a status of gRPC that is a fault. (What Envoy answers itself has flags.)
    FAILED_CALL: ({"grpc_status_filter": {"statuses": [*_FAULTS]}}, _IS_GRPC, _status("LE", 499)),
}


def _listener(route: Route, folder: str) -> _Json:
    name = _slug(route.environment)
    return {
        "@type": _TYPES + "config.listener.v3.Listener",
        "name": listener_name(route),
        "address": _address(route.port),
        # Else two programs could share the port, and each would get some of the requests.
        "enable_reuse_port": False,
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [{"filters": [_http(name, folder)], **(_tls(name, folder) if route.tls else {})}],
    }


def _tls(name: str, folder: str) -> _Json:
    kind = "transport_sockets.tls"
    secret = {"name": name, "sds_config": _read_from(folder, f"{SECRETS}{name}.json")}
    # Who speaks both HTTP/1.1 and HTTP/2 gets the former, which all servers speak.
    common = {"tls_certificate_sds_secret_configs": [secret], "alpn_protocols": ["http/1.1", "h2"]}
    config = {"common_tls_context": common, "disable_stateless_session_resumption": True}
    return {"transport_socket": _typed(f"envoy.{kind}", f"extensions.{kind}.v3.DownstreamTlsContext", **config)}


def _http(name: str, folder: str) -> _Json:
    manager = "network.http_connection_manager"
    return _typed(
        f"envoy.filters.{manager}",
        f"extensions.filters.{manager}.v3.HttpConnectionManager",
        stat_prefix=name,
        rds={"route_config_name": name, "config_source": _read_from(folder, f"{ROUTES}{name}.json")},
        http_filters=[
            # Does nothing until the admin address is asked what passes (see taps.py).
            _typed(
                "envoy.filters.http.tap",
                "extensions.filters.http.tap.v3.Tap",
                common_config={"admin_config": {"config_id": name}},
            ),
            _typed(
                "envoy.filters.http.router", "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
            ),
        ],
        access_log=[_count(name, which) for name, which in _COUNTED.items()],
        upgrade_configs=[{"upgrade_type": "websocket"}],
        stream_idle_timeout="0s",
        # Callers are strangers: their x-envoy-* headers (retries, timeouts) are dropped.
        use_remote_address=True,
        server_header_transformation="PASS_THROUGH",
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "127.0.0.1"},
    )
