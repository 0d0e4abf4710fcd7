"""Where the traffic of a home's environments goes: derived from the statuses of its releases alone."""

from penstock.engine.contracts import Backend, Route
from penstock.engine.installing import manifest_of
from penstock.engine.world import World
from penstock.releases import ReleaseStatus
from penstock.rollouts import Placed, weights
from penstock.store.contract import Release


class Routing:
    """The routes of a home. `joining` are releases whose replicas are healthy: the router may look at them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._releases = world.store.releases
        self.joining: set[int] = set()

    def placed(self, project: str, environment: str) -> list[Placed]:
        found = self._releases.of(project, environment)
        return [Placed(r.id, r.status, r.since) for r in found if self._releases.replicas(r.id)]

    def routes(self) -> list[Route]:
        """The whole wanted state of the router, from the releases' statuses.

        A release that is starting is in the route once its replicas are healthy and it is joining.
        """
        routes = []
        everything = self._releases.of()
        for project, environment in sorted({(r.project, r.environment) for r in everything}):
            own = {r.id: r for r in everything if (r.project, r.environment) == (project, environment)}
            parts = weights(self.placed(project, environment))
            joining = self.joining & own.keys()
            parts = {n: w for n, w in parts.items() if w or n in joining or own[n].status is ReleaseStatus.DRAINING}
            parts = {**dict.fromkeys(joining, 0), **parts}
            if parts:
                first = max(parts, key=lambda n: (parts[n], n))
                backends = tuple(self._backend(own[n], weight) for n, weight in sorted(parts.items()))
                routes.append(Route(f"{project}-{environment}", int(own[first].spec["port"]), backends))
        return routes

    def _backend(self, release: Release, weight: int) -> Backend:
        ports = tuple(r.port for r in self._releases.replicas(release.id))
        return Backend(str(release.id), release.version, ports, manifest_of(self._world, release).health, weight)

    async def apply(self) -> None:
        """Put the wanted routes in force; a home that serves nothing has no router."""
        routes = self.routes()
        if routes:
            await self._world.router.apply(routes)
            self._world.crash("router.apply:after_effect")
        else:
            await self._world.router.stop()
            self._world.crash("router.stop:after_effect")
