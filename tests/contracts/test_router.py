"""The contract of `Router`, on both implementations: in memory, and with a real Envoy before real servers."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from penstock.engine.contracts import Backend, Counted, Route, Router
from penstock.errors import EngineError, RouteError
from penstock.routers.envoy import EnvoyRouter
from penstock.routers.scripted import ScriptedRouter
from penstock.runners.process import ProcessRunner
from penstock.traffic import EDGES_MS, NOTHING
from routers.toys import Toy, ask, free_port, listens, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World(Protocol):
    """A router and what is around it: replicas behind it and callers before it."""

    @property
    def router(self) -> Router: ...

    async def replica(self, version: str) -> int:
        """Start a replica of a version; its port."""
        ...

    async def ask(self, port: int) -> tuple[int, str | None]:
        """One request: status and release. Raises ConnectionRefusedError where nothing listens."""
        ...

    async def fall_ill(self, port: int) -> None: ...

    def taken(self, port: int) -> AbstractContextManager[object]:
        """Another program has a port meanwhile."""
        ...

    async def begin(self, port: int, release: str) -> None:
        """A request that takes until `finish`."""
        ...

    async def finish(self, release: str) -> None: ...


@dataclass
class Memory:
    """The scripted router's world is its script."""

    router: ScriptedRouter = field(default_factory=ScriptedRouter)
    _ports: int = 1

    async def replica(self, version: str) -> int:  # noqa: ARG002 - its versions come with the state
        self._ports += 1
        return self._ports

    async def ask(self, port: int) -> tuple[int, str | None]:
        answer = self.router.ask(port)
        return answer.status, answer.version

    async def fall_ill(self, port: int) -> None:
        self.router.ill.add(port)

    @contextmanager
    def taken(self, port: int) -> Iterator[None]:
        self.router.taken.add(port)
        yield
        self.router.taken.discard(port)

    async def begin(self, port: int, release: str) -> None:  # noqa: ARG002 - a release needs no address here
        self.router.begin(release)

    async def finish(self, release: str) -> None:
        self.router.finish(release)


@dataclass
class Loopback:
    """Toy servers behind Envoy."""

    router: EnvoyRouter
    _stack: AsyncExitStack
    _toys: dict[int, Toy] = field(default_factory=dict)
    _slow: list[asyncio.Task[object]] = field(default_factory=list)

    async def replica(self, version: str) -> int:
        toy = await self._stack.enter_async_context(Toy(version).serving())
        self._toys[toy.port] = toy
        return toy.port

    async def ask(self, port: int) -> tuple[int, str | None]:
        reply = await ask(port)
        return reply.status, reply.release

    async def fall_ill(self, port: int) -> None:
        self._toys[port].well = False

    @contextmanager
    def taken(self, port: int) -> Iterator[None]:
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            yield

    async def begin(self, port: int, release: str) -> None:  # noqa: ARG002 - the weight decides
        asked = self._asked()
        self._slow.append(asyncio.create_task(ask(port, "/slow")))
        await until(lambda: self._asked() > asked)

    async def finish(self, release: str) -> None:  # noqa: ARG002 - all of them
        for toy in self._toys.values():
            toy.slow.set()
        await asyncio.gather(*self._slow)

    def _asked(self) -> int:
        return sum(toy.asked for toy in self._toys.values())


@pytest.fixture(params=["scripted", "envoy"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "scripted":
        yield Memory()
        return
    async with AsyncExitStack() as stack:
        router = EnvoyRouter(tmp_path / "router", ProcessRunner())
        stack.push_async_callback(router.stop)
        yield Loopback(router, stack)


def backend(release: str, weight: int, *ports: int) -> Backend:
    return Backend(release, f"{release}.0+g1a2b3c4", ports, "/health", weight)


def mirrored(weight: int, parts: int = 5_000) -> Backend:
    return Backend("mirrored", "1", (), "/health", weight, parts)


async def asked(world: World, port: int, times: int = 20) -> Counter[tuple[int, str | None]]:
    return Counter([await world.ask(port) for _ in range(times)])


async def test_all_requests_follow_the_weight_and_say_which_release_answered(world: World) -> None:
    """The whole weight means every request, none means no request, and each answer names its true release."""
    port = free_port()
    one, two = await world.replica("1"), await world.replica("2")
    for weights in ((10_000, 0), (0, 10_000), (10_000, 0)):
        first, second = backend("1", weights[0], one), backend("2", weights[1], two)
        await world.router.apply([Route("production", port, (first, second))])
        winner = first if weights[0] else second
        assert await asked(world, port) == {(200, winner.version): 20}


async def test_an_even_split_is_roughly_even(world: World) -> None:
    """Of 400 requests at 50 % each release gets between 140 and 260 (beyond six standard deviations)."""
    port = free_port()
    halves = [backend(name, 5_000, await world.replica(name)) for name in "12"]
    await world.router.apply([Route("production", port, tuple(halves))])
    counts = await asked(world, port, times=400)
    assert set(counts) == {(200, half.version) for half in halves}
    assert all(140 <= count <= 260 for count in counts.values())


async def test_a_replica_without_weight_is_watched_but_not_asked(world: World) -> None:
    """Before any traffic goes to a release the router already knows whether it is healthy."""
    port = free_port()
    one, two = await world.replica("1"), await world.replica("2")
    await world.router.apply([Route("production", port, (backend("1", 10_000, one), backend("2", 0, two)))])
    await until(lambda: _healthy_is(world.router, "2", 1))
    await world.fall_ill(two)
    await until(lambda: _healthy_is(world.router, "2", 0))
    assert await world.router.healthy("1") == 1
    assert await asked(world, port) == {(200, "1.0+g1a2b3c4"): 20}


async def _healthy_is(router: Router, release: str, count: int) -> bool:
    return await router.healthy(release) == count


async def _in_flight_is(router: Router, release: str, count: int) -> bool:
    return await router.in_flight(release) == count


async def test_requests_go_to_the_replicas_that_are_well(world: World) -> None:
    """With one of two replicas ill every request is still answered, by the other one."""
    port = free_port()
    ports = (await world.replica("1"), await world.replica("1"))
    await world.router.apply([Route("production", port, (backend("1", 10_000, *ports),))])
    await until(lambda: _healthy_is(world.router, "1", 2))
    await world.fall_ill(ports[0])
    await until(lambda: _healthy_is(world.router, "1", 1))
    assert await asked(world, port) == {(200, "1.0+g1a2b3c4"): 20}


async def test_a_slow_request_is_in_flight_until_it_is_answered(world: World) -> None:
    """An old release can be drained: its open requests are counted, also after the weight has moved away."""
    port = free_port()
    one, two = backend("1", 10_000, await world.replica("1")), backend("2", 0, await world.replica("2"))
    await world.router.apply([Route("production", port, (one, two))])
    assert await world.router.in_flight("1") == 0
    await world.begin(port, "1")
    moved = (backend("1", 0, *one.ports), backend("2", 10_000, *two.ports))
    await world.router.apply([Route("production", port, moved)])
    assert await world.router.in_flight("1") == 1
    assert await world.router.in_flight("2") == 0
    await world.finish("1")
    await until(lambda: _in_flight_is(world.router, "1", 0))
    await world.router.apply([Route("production", port, moved[1:])])
    assert await asked(world, port) == {(200, "2.0+g1a2b3c4"): 20}


async def test_requests_are_counted_by_release_once_answered(world: World) -> None:
    """Answers of each release since the router began, with their latencies in time; open requests are not counted."""
    port = free_port()
    one, two = backend("1", 10_000, await world.replica("1")), backend("2", 0, await world.replica("2"))
    await world.router.apply([Route("production", port, (one, two))])
    assert (await world.router.counted(["1", "2"])).arms == {"1": NOTHING, "2": NOTHING}
    await asked(world, port)
    await world.begin(port, "1")
    counted = await world.router.counted(["1", "2", "unknown"])
    assert {name: (arm.requests, arm.errors) for name, arm in counted.arms.items()} == {
        "1": (20, 0),
        "2": (0, 0),
        "unknown": (0, 0),
    }
    await world.finish("1")
    await until(lambda: _latencies_are(world.router, "1", 21))
    later = await world.router.counted(["1"])
    assert (later.epoch, later.arms["1"].requests) == (counted.epoch, 21)
    assert len(later.arms["1"].latencies) == len(EDGES_MS) + 1


async def _latencies_are(router: Router, release: str, count: int) -> bool:
    return sum((await router.counted([release])).arms[release].latencies) == count


async def test_an_answer_that_no_replica_gives_is_an_error(world: World) -> None:
    """Without a replica the router answers itself, in the release's name: a request of the release, and an error."""
    port = free_port()
    only = backend("1", 10_000)
    await world.router.apply([Route("production", port, (only,))])
    assert await asked(world, port, 3) == {(503, only.version): 3}
    arm = (await world.router.counted(["1"])).arms["1"]
    assert (arm.requests, arm.errors, sum(arm.latencies)) == (3, 3, 0)


async def test_counts_begin_anew_with_the_router(world: World) -> None:
    """A router that was stopped and begins again has another epoch and counts from nothing; a stopped one has none."""
    port = free_port()
    only = backend("1", 10_000, await world.replica("1"))
    assert await world.router.counted(["1"]) == Counted("", {"1": NOTHING})
    epochs = set()
    for _ in range(2):
        await world.router.apply([Route("production", port, (only,))])
        await asked(world, port, 3)
        counted = await world.router.counted(["1"])
        epochs.add(counted.epoch)
        assert counted.arms["1"].requests == 3
        await world.router.stop()
        assert await world.router.counted(["1"]) == Counted("", {"1": NOTHING})
    assert len(epochs) == 2


async def test_an_environment_that_serves_nothing_says_so(world: World) -> None:
    """Without weight, or without a release, the answer is 503 and names no release."""
    port, other = free_port(), free_port()
    resting = backend("1", 0, await world.replica("1"))
    await world.router.apply([Route("production", port, (resting,)), Route("staging", other, ())])
    assert await world.ask(port) == (503, None)
    assert await world.ask(other) == (503, None)


async def test_the_same_state_twice_is_the_same_state(world: World) -> None:
    """`apply` is idempotent, and environments do not touch each other."""
    ports = [free_port(), free_port()]
    routes = [
        Route(name, port, (backend(name, 10_000, await world.replica(name)),))
        for name, port in zip(("staging", "production"), ports, strict=True)
    ]
    for state in (routes, routes, routes[::-1]):
        await world.router.apply(state)
        assert await asked(world, ports[0], 5) == {(200, "staging.0+g1a2b3c4"): 5}
        assert await asked(world, ports[1], 5) == {(200, "production.0+g1a2b3c4"): 5}


async def test_an_environment_can_move_and_go(world: World) -> None:
    """After a change of port, and after a removal, nothing listens on the old port; a removed one can come back."""
    port, moved = free_port(), free_port()
    only = backend("1", 10_000, await world.replica("1"))
    await world.router.apply([Route("production", port, (only,))])
    await world.router.apply([Route("production", moved, (only,))])
    assert await world.ask(moved) == (200, only.version)
    await _refused(world, port)
    await world.router.apply([])
    await _refused(world, moved)
    await world.router.apply([Route("production", moved, (only,))])
    assert await world.ask(moved) == (200, only.version)


async def _refused(world: World, port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        await world.ask(port)


async def test_environments_can_swap_their_ports(world: World) -> None:
    """Two environments that exchange ports are both where they should be afterwards."""
    ports = [free_port(), free_port()]
    backends = [backend(name, 10_000, await world.replica(name)) for name in "12"]
    for first, second in (ports, ports[::-1], ports):
        await world.router.apply([Route("a", first, (backends[0],)), Route("b", second, (backends[1],))])
        assert await world.ask(first) == (200, backends[0].version)
        assert await world.ask(second) == (200, backends[1].version)


@pytest.mark.parametrize(
    ("routes", "sentence"),
    [
        ([Route("a", 1, ()), Route("a", 2, ())], "environment a is routed twice"),
        ([Route("a", 1, ()), Route("b", 1, ())], "port 1 is routed twice"),
        ([Route("a", 1, (backend("r", 0), backend("r", 10_000)))], "release r is routed twice"),
        ([Route("a", 1, (backend("r", 5_000), backend("s", 4_999)))], "must add up to 0 or 10000"),
        ([Route("a", 1, (mirrored(1), backend("r", 9_999)))], "at weight 1: expected 0 to 10000 parts"),
        ([Route("a", 1, (mirrored(0, -1), backend("r", 10_000)))], "expected 0 to 10000 parts"),
        ([Route("a", 1, (mirrored(0, 10_001), backend("r", 10_000)))], "expected 0 to 10000 parts"),
        ([Route("a", 1, (backend("r", -1), backend("s", 10_001)))], "must add up to 0 or 10000"),
    ],
)
async def test_a_contradiction_changes_nothing(world: World, routes: Sequence[Route], sentence: str) -> None:
    """A state that contradicts itself is refused in a sentence, and the state before it stays in force."""
    port = free_port()
    only = backend("1", 10_000, await world.replica("1"))
    await world.router.apply([Route("production", port, (only,))])
    with pytest.raises(EngineError, match=sentence):
        await world.router.apply(routes)
    assert await world.ask(port) == (200, only.version)


async def test_a_taken_port_is_the_matter_of_its_environment_alone(world: World) -> None:
    """All others follow, the error names who does not, and the same state again brings it in once the port is free."""
    port, taken = free_port(), free_port()
    one, two = backend("1", 10_000, await world.replica("1")), backend("2", 10_000, await world.replica("2"))
    three = backend("3", 10_000, await world.replica("3"))
    await world.router.apply([Route("production", port, (one,))])
    wanted = [Route("production", port, (two,)), Route("staging", taken, (three,))]
    with world.taken(taken):
        for _ in range(2):
            with pytest.raises(RouteError, match=f"port {taken} of staging is taken by another program") as caught:
                await world.router.apply(wanted)
            assert caught.value.environments == ("staging",)
            assert await world.ask(port) == (200, two.version)
        await world.router.apply(wanted[:1])
    for _ in range(2):
        await world.router.apply(wanted)
        assert await world.ask(taken) == (200, three.version)
        assert await world.ask(port) == (200, two.version)


async def test_who_cannot_move_stays_where_it_was(world: World) -> None:
    """An environment whose new port is taken is served by its old release at its old port, and moves when it can."""
    port, other, taken = free_port(), free_port(), free_port()
    one, two = backend("1", 10_000, await world.replica("1")), backend("2", 10_000, await world.replica("2"))
    three = backend("3", 10_000, await world.replica("3"))
    await world.router.apply([Route("production", port, (one,))])
    wanted = [Route("production", taken, (two,)), Route("staging", other, (three,))]
    with world.taken(taken):
        for _ in range(2):
            with pytest.raises(RouteError):
                await world.router.apply(wanted)
            assert await world.ask(port) == (200, one.version)
            assert await world.ask(other) == (200, three.version)
    await world.router.apply(wanted)
    assert await world.ask(taken) == (200, two.version)
    await _refused(world, port)


async def test_a_router_runs_from_its_first_state_until_its_stop(world: World) -> None:
    """Whether it runs can be asked at any time."""
    assert not world.router.running()
    await world.router.apply([Route("production", free_port(), ())])
    assert world.router.running()
    await world.router.stop()
    assert not world.router.running()


async def test_a_release_that_was_never_applied_has_nothing(world: World) -> None:
    """Before and after the first state an unknown release has no healthy replica and no request."""
    for _ in range(2):
        assert await world.router.healthy("unknown") == 0
        assert await world.router.in_flight("unknown") == 0
        await world.router.apply([Route("production", free_port(), ())])


async def test_after_a_stop_nothing_listens(world: World) -> None:
    """`stop` ends the router however often it is asked, and the next state starts it anew."""
    port = free_port()
    only = backend("1", 10_000, await world.replica("1"))
    await world.router.stop()
    for _ in range(2):
        await world.router.apply([Route("production", port, (only,))])
        assert await world.ask(port) == (200, only.version)
        await world.router.stop()
        await world.router.stop()
        await _refused(world, port)
        assert not listens(port)


async def test_what_is_not_routed_cannot_be_listened_to(world: World) -> None:
    """A quiet environment gives an empty sample; one that nobody routes to is an error."""
    one = await world.replica("1")
    await world.router.apply([Route("production", free_port(), (backend("1", 10_000, one),))])
    assert list(await world.router.sampled("production", 1.0, 10, 0.1)) == []
    with pytest.raises(EngineError):
        await world.router.sampled("staging", 1.0, 10, 0.1)
