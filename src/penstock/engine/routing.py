"""Where the traffic of a home's environments goes: derived from the statuses of its releases alone."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from penstock.engine.contracts import Backend, Route, Sticky, Tls
from penstock.engine.installing import manifest_of
from penstock.engine.world import World
from penstock.errors import EngineError, RouteError
from penstock.releases import ReleaseStatus
from penstock.rollouts import Placed, weights
from penstock.store.contract import Release

TRIES = 5
"""So often is a router that does not follow asked again before that is an error."""


class Routing:
    """The routes of a home. `joining` are releases whose replicas are healthy: the router may look at them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._releases = world.store.releases
        self.joining: set[int] = set()

    def placed(self, project: str, environment: str) -> list[Placed]:
        found = self._releases.present(project, environment)
        return [Placed(r.id, r.status, r.since) for r in found if self._releases.replicas(r.id)]

    def routes(self) -> list[Route]:
        """The whole wanted state of the router, from the releases' statuses.

        A release that is starting is in the route once its replicas are healthy and it is joining.
        """
        everything = self._releases.present()
        places = sorted({(r.project, r.environment) for r in everything})
        own = [[r for r in everything if (r.project, r.environment) == place] for place in places]
        return [route for releases in own if (route := self._route(releases)) is not None]

    def _route(self, releases: Sequence[Release]) -> Route | None:
        """The route of one environment; None where nothing of it is to be routed to."""
        found = {r.id: r for r in releases}
        tried = next((r for r in releases if r.status is ReleaseStatus.CANARY), None)
        width, mirrored = _widths(tried)
        parts = weights(self.placed(releases[0].project, releases[0].environment), width)
        joining = self.joining & found.keys()
        seen = {ReleaseStatus.DRAINING, ReleaseStatus.CANARY}
        parts = {n: w for n, w in parts.items() if w or n in joining or found[n].status in seen}
        parts = {**dict.fromkeys(joining, 0), **parts}
        if not parts:
            return None
        # Port, certificate and how users are known are those of what serves, until another release does.
        first = max(parts, key=lambda n: (found[n].status is ReleaseStatus.SERVING, parts[n], n))
        mirrors = {tried.id: mirrored} if tried is not None and any(parts.values()) else {}
        # What is tried comes first: then a wider share only adds users to it, where users stay with their release.
        order = sorted(parts, key=lambda n: (tried is None or n != tried.id, n))
        backends = tuple(self._backend(found[n], parts[n], mirrors.get(n, 0)) for n in order)
        spec = found[first].spec
        return Route(route_name(releases[0]), int(spec["port"]), backends, sticky_of(spec), tls_of(spec))

    def _backend(self, release: Release, weight: int, mirror: int) -> Backend:
        ports = tuple(r.port for r in self._releases.replicas(release.id))
        health = manifest_of(self._world, release).health
        return Backend(str(release.id), release.version, ports, health, weight, mirror)

    def insist_on_certificate(self, release: Release) -> None:
        """Raise EngineError where a release that is to come has a certificate that is not to be served with."""
        tls = tls_of(release.spec)
        if tls is not None:
            self._world.router.insist_on(tls)

    async def follow(self, release: Release) -> None:
        """As `apply`; where the router does not follow this is tried again for a while, and raises EngineError then."""
        for _ in range(TRIES):
            with suppress(EngineError, OSError):
                await self.apply(release)
                return
            await asyncio.sleep(self._world.look)
        await self.apply(release)

    async def apply(self, release: Release | None = None) -> None:
        """Put the wanted routes in force; a home that serves nothing has no router. Raises RouteError or EngineError.

        Of a release, what concerns other environments alone is not raised: upkeep tells it.
        """
        routes = self.routes()
        if routes:
            try:
                await self._world.router.apply(routes)
            except RouteError as error:
                if release is None or route_name(release) in error.environments:
                    raise
            self._world.crash("router.apply:after_effect")
        else:
            await self._world.router.stop()
            self._world.crash("router.stop:after_effect")


def route_name(release: Release) -> str:
    """What the router calls the environment of a release."""
    return f"{release.project}-{release.environment}"


def sticky_of(spec: Mapping[str, Any]) -> Sticky | None:
    """By what users are known again where a release of this spec serves."""
    given = spec.get("sticky")
    if given is None:
        return None
    return Sticky("header", given["header"]) if "header" in given else Sticky("cookie", given["cookie"])


def tls_of(spec: Mapping[str, Any]) -> Tls | None:
    """The certificate that a release of this spec is reached by."""
    given = spec.get("tls")
    return None if given is None else Tls(given["certificate"], given["key"])


def _widths(tried: Release | None) -> tuple[int | None, int]:
    """The weight of a release that is tried, and the part of the requests that is copied to it."""
    if tried is None:
        return None, 0
    rollout = tried.rollout or {}
    width = int(rollout["move"]["width"]) if rollout["state"]["ended"] is None else 0
    return (0, width) if rollout["strategy"] == "shadow" else (width, 0)
