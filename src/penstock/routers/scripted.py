"""A router in memory that does what it is told: for the engine's tests, and for trying a delivery without Envoy.

It keeps the contract of `Router` (the same suite runs on it) with nothing that listens: `ask` stands for a request.
Its script: `ill` ports fail their health check, `refusal` is the sentence with which `apply` fails, `refusals` times,
ports in `taken` cannot be had, `begin` and `finish` are the two ends of a request that takes long, `count` says what a
release did without asking it, `passing` is what `sampled` will hear of an environment, and `begin_anew` is a router
that was killed and came back.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.engine.contracts import Backend, Counted, Exchange, Route, Tls
from penstock.errors import EngineError, RouteError
from penstock.routers import certificates, xds
from penstock.traffic import EDGES_MS, NOTHING, Arm

# Coprime to 10000, so that 10000 requests in a row meet each point of the split exactly once, well mixed.
_STRIDE = 7_919
_QUICK = Arm(1, 0, (1, *(0 for _ in EDGES_MS)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got: the HTTP status, and the version and port of the replica that answered, if any did."""

    status: int
    version: str | None = None
    port: int | None = None


class ScriptedRouter:
    """Implements `Router` in memory; `history` holds every state that was put in force, oldest first."""

    def __init__(self) -> None:
        self.history: list[tuple[Route, ...]] = []
        self.ill: set[int] = set()
        self.taken: set[int] = set()
        self.refusal: str | None = None
        self.refusals = 1
        self._asked: Counter[int] = Counter()
        self._open: Counter[str] = Counter()
        self._arms: dict[str, Arm] = {}
        self._beginnings = 1
        self.passing: defaultdict[str, list[Exchange]] = defaultdict(list)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The state in force."""
        return self.history[-1] if self.history else ()

    async def apply(self, routes: Sequence[Route]) -> None:
        """Put the state in force.

        Raises EngineError, `refusals` times, where `refusal` is set, and RouteError for `taken` ports.
        """
        xds.refuse_contradictions(routes)
        if self.refusal is not None and self.refusals > 0:
            self.refusals -= 1
            raise EngineError(self.refusal)
        self.refusal, self.refusals = None, 1
        before = {route.environment: route for route in self.routes}
        stuck = [route for route in routes if route.port in self.taken]
        followed = [before.get(route.environment) if route in stuck else route for route in routes]
        state = tuple(route for route in followed if route is not None and route.port not in self.taken)
        if state != self.routes:
            self.history.append(state)
        if stuck:
            sentence = "; ".join(
                f"port {route.port} of {route.environment} is taken by another program" for route in stuck
            )
            raise RouteError(sentence, [route.environment for route in stuck])

    def running(self) -> bool:
        """Whether anything is routed."""
        return bool(self.routes)

    def insist_on(self, tls: Tls) -> None:
        """Raise EngineError for a certificate that is not to be served with."""
        certificates.read(tls)

    async def healthy(self, release: str) -> int:
        """How many ports of the release are not `ill`; 0 for a release that was not applied."""
        return sum(port not in self.ill for backend in self._backends(release) for port in backend.ports)

    async def in_flight(self, release: str) -> int:
        """Requests begun and not finished."""
        return self._open[release]

    async def counted(self, releases: Sequence[str]) -> Counted:
        """What was asked or `count`ed since the router began; it runs while anything is routed."""
        arms = {release: self._arms.get(release, NOTHING) for release in releases}
        return Counted(str(self._beginnings) if self.routes else "", arms)

    async def sampled(self, environment: str, share: float, most: int, seconds: float) -> Sequence[Exchange]:
        """What is `passing`, at most so much, whatever the share and the time. Raises EngineError without a route."""
        del share, seconds
        if environment not in {route.environment for route in self.routes}:
            raise EngineError(f"the router does not know {environment}: nothing passes it")
        found, self.passing[environment] = self.passing[environment][:most], self.passing[environment][most:]
        return found

    async def stop(self) -> None:
        """Forget the state."""
        self.history.append(())
        self.begin_anew()

    def begin_anew(self) -> None:
        """All counts begin at nothing."""
        self._arms.clear()
        self._beginnings += 1

    def count(self, release: str, arm: Arm) -> None:
        """A release did this, beside what it did before."""
        self._arms[release] = self._arms.get(release, NOTHING) + arm

    def ask(self, port: int) -> Answer:
        """One request to a port. The split is exact over 10000 requests. Raises ConnectionRefusedError."""
        route = next((route for route in self.routes if route.port == port), None)
        if route is None:
            raise ConnectionRefusedError(port)
        point = self._asked[port] * _STRIDE % xds.WHOLE
        self._asked[port] += 1
        for backend in route.backends:
            if point < backend.weight:
                return self._answer(backend)
            point -= backend.weight
        return Answer(503)

    def begin(self, release: str) -> None:
        """A request of the release begins and takes until `finish`."""
        self._open[release] += 1

    def finish(self, release: str) -> None:
        """One request of the release ends. Raises ValueError where none is open."""
        if self._open[release] == 0:
            raise ValueError(f"{release} has no open request")
        self._open[release] -= 1
        self.count(release, _QUICK)

    def _answer(self, backend: Backend) -> Answer:
        well = [port for port in backend.ports if port not in self.ill]
        self.count(backend.release, _QUICK if well else Arm(1, 1))
        return Answer(200, backend.version, well[0]) if well else Answer(503, backend.version)

    def _backends(self, release: str) -> list[Backend]:
        return [backend for route in self.routes for backend in route.backends if backend.release == release]
