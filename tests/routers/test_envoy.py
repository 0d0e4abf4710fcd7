"""What only a real Envoy can show: load, faults, taken ports, refused states, large and long answers."""

import asyncio
import json
import resource
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Literal

import psutil
import pytest

from penstock.engine.contracts import Backend, Route, Sticky
from penstock.errors import EngineError, RouteError
from penstock.recordings import SYNTHETIC
from penstock.routers.envoy import EnvoyRouter
from penstock.runners.process import ProcessRunner
from penstock.traffic import Arm
from routers.toys import Client, Toy, ask, envoys, free_port, listens, recorded, until

pytestmark = pytest.mark.anyio


def backend(toy: Toy, weight: int = 10_000, health: str = "/health") -> Backend:
    return Backend(toy.name, f"{toy.name}-version", (toy.port,), health, weight)


def production(port: int, *backends: Backend) -> list[Route]:
    return [Route("production", port, backends)]


async def test_ten_switches_under_load_lose_no_request(router: EnvoyRouter) -> None:
    """Clients with kept and with new connections, none of which tries twice, see only good answers in ten switches."""
    port, over, answers = free_port(), asyncio.Event(), Counter[tuple[int, bool]]()
    async with AsyncExitStack() as stack:
        toys = [await stack.enter_async_context(Toy(f"r{n}").serving()) for n in range(11)]
        await router.apply(production(port, backend(toys[0])))
        async with asyncio.TaskGroup() as callers:
            for number in range(6):
                callers.create_task(_call(port, over, answers, keep=number % 2 == 0))
            for old, new in pairwise(toys):
                await _switch(router, port, old, new)
            over.set()
        assert all(toy.asked for toy in toys)
    assert set(answers) == {(200, True)}
    assert answers.total() >= 500


async def _call(port: int, over: asyncio.Event, answers: Counter[tuple[int, bool]], *, keep: bool) -> None:
    client = Client(port)
    while not over.is_set() and answers.total() < 20_000:
        reply = await client.ask()
        answers[reply.status, reply.release == f"{reply.body.decode()}-version"] += 1
        if not keep:
            await client.close()
    await client.close()


async def _switch(router: EnvoyRouter, port: int, old: Toy, new: Toy) -> None:
    """The order of a delivery: beside, healthy, over, drained, away."""
    await router.apply(production(port, backend(old), backend(new, 0)))
    await until(lambda: _is(router.healthy(new.name), 1))
    assert new.asked == 0
    await router.apply(production(port, backend(old, 0), backend(new)))
    await until(lambda: _is(router.in_flight(old.name), 0))
    asked = old.asked
    await router.apply(production(port, backend(new)))
    assert old.asked == asked


async def _is(count: Awaitable[int], wanted: int) -> bool:
    return await count == wanted


async def test_a_killed_envoy_comes_back_with_split_users_and_copies(
    router: EnvoyRouter, tmp_path: Path, toy: Toy
) -> None:
    """After a kill -9 every user is where they were, copies are made again, and nobody is asked twice."""
    port, users = free_port(), Sticky("header", "who-asks")
    async with Toy("two").serving() as new, Toy("three").serving() as shadow:
        parts = (backend(new, 2_500), backend(toy, 7_500), mirror(shadow, 10_000))
        await router.apply([Route("production", port, parts, users)])
        before = await _users_of(port, "header", "two-version")
        killed = envoys(tmp_path / "router")
        killed[0].send_signal(signal.SIGKILL)
        await until(lambda: envoys(tmp_path / "router") not in ([], killed))
        await until(lambda: listens(port))
        assert await _users_of(port, "header", "two-version") == before
        await until(lambda: shadow.asked == toy.asked + new.asked)


async def test_a_killed_envoy_comes_back_with_its_state(router: EnvoyRouter, tmp_path: Path, toy: Toy) -> None:
    """A kill -9 of Envoy: its shim starts it again from its files, and the next state is taken as ever."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    killed = envoys(tmp_path / "router")
    killed[0].send_signal(signal.SIGKILL)
    await until(lambda: envoys(tmp_path / "router") not in ([], killed))
    await until(lambda: listens(port))
    reply = await ask(port)
    assert (reply.status, reply.release) == (200, "one-version")
    envoys(tmp_path / "router")[0].send_signal(signal.SIGKILL)
    await router.apply(production(port, backend(toy), Backend("two", "2", (), "/health", 0)))
    assert (await ask(port)).status == 200
    assert await router.in_flight("one") == 0


async def test_the_counts_tell_what_a_replica_did(router: EnvoyRouter, toy: Toy) -> None:
    """5xx, resets and garbage are errors; 4xx and health checks are none; a stream counts at once."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    for path, status in (("/", 200), ("/missing", 404), ("/broken", 500), ("/reset", 503), ("/garbage", 502)):
        assert (await ask(port, path)).status == status
    arm = (await router.counted([toy.name])).arms[toy.name]
    assert (arm.requests, arm.errors) == (5, 3)
    client = Client(port)
    await client.ask("/stream")
    assert (await router.counted([toy.name])).arms[toy.name].requests == 6
    toy.slow.set()
    await until(lambda: _timed(router, toy.name, 4))
    await client.close()


async def _timed(router: EnvoyRouter, release: str, count: int) -> bool:
    return sum((await router.counted([release])).arms[release].latencies) == count


async def test_answers_that_break_off_or_never_come_are_errors(router: EnvoyRouter, toy: Toy) -> None:
    """To die amid an answer is to fail, and so is to keep callers until they go; who goes later is no error."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    with pytest.raises(asyncio.IncompleteReadError):
        await ask(port, "/half")
    await until(lambda: _counted_are(router, toy.name, 1, 1))
    waiting = asyncio.create_task(ask(port, "/slow"))
    await until(lambda: toy.asked == 2)
    waiting.cancel()
    await until(lambda: _counted_are(router, toy.name, 2, 2))
    client = Client(port)
    await client.ask("/stream")
    await client.close()
    await until(lambda: _is(router.in_flight(toy.name), 0))
    assert await _counted_are(router, toy.name, 3, 2)


async def _counted_are(router: EnvoyRouter, release: str, requests: int, errors: int) -> bool:
    arm = (await router.counted([release])).arms[release]
    return (arm.requests, arm.errors) == (requests, errors)


async def test_counts_of_a_killed_envoy_are_another_epoch(router: EnvoyRouter, tmp_path: Path, toy: Toy) -> None:
    """After a kill -9 the counts begin at nothing and say so; one that does not come back soon is an error."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    await ask(port)
    before = await router.counted([toy.name])
    envoys(tmp_path / "router")[0].send_signal(signal.SIGKILL)
    after = await router.counted([toy.name])
    assert (before.arms[toy.name].requests, after.arms[toy.name].requests) == (1, 0)
    assert after.epoch != before.epoch


async def test_an_envoy_with_other_buckets_gives_no_latencies(
    tmp_path: Path, runner: ProcessRunner, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Envoy that an older Penstock began goes on counting answers without latencies, until it begins anew."""
    port = free_port()
    async with _another(tmp_path / "old", runner) as router:
        with monkeypatch.context() as older:
            older.setattr("penstock.routers.counts.BOUNDS_MS", (1.0, 10.0))
            await router.apply(production(port, backend(toy)))
            await ask(port)
            await until(lambda: _timed(router, toy.name, 1))
        assert (await router.counted([toy.name])).arms[toy.name] == Arm(1)
        await router.apply(production(port, backend(toy)))
        envoys(tmp_path / "old")[0].send_signal(signal.SIGKILL)
        assert (await router.counted([toy.name])).arms[toy.name] == Arm()
        await until(lambda: listens(port))
        await ask(port)
        await until(lambda: _timed(router, toy.name, 1))


async def test_a_new_coordinator_adopts_the_running_envoy(
    router: EnvoyRouter, tmp_path: Path, runner: ProcessRunner, toy: Toy
) -> None:
    """The state on disk is the truth: another router on the same folder goes on with the same process."""
    port, folder = free_port(), tmp_path / "router"
    await router.apply(production(port, backend(toy)))
    handle = recorded(folder)
    other = EnvoyRouter(folder, runner)
    await other.apply(production(port, backend(toy, 0)))
    assert recorded(folder) == handle
    assert (await ask(port)).status == 503
    await other.stop()
    assert not listens(port)


async def test_a_start_that_was_never_recorded_is_found(
    router: EnvoyRouter, tmp_path: Path, runner: ProcessRunner, toy: Toy
) -> None:
    """A coordinator that dies between starting Envoy and recording it leaves no second Envoy behind."""
    port, record = free_port(), tmp_path / "router" / "router.json"
    await router.apply(production(port, backend(toy)))
    handle = recorded(record.parent)
    record.write_text(json.dumps({"id": handle.id, "handle": None}))
    await EnvoyRouter(record.parent, runner).apply(production(port, backend(toy)))
    assert (await ask(port)).status == 200
    await router.stop()
    assert not listens(port)


async def test_an_envoy_whose_shim_died_is_replaced(router: EnvoyRouter, tmp_path: Path, toy: Toy) -> None:
    """A kill -9 of the shim leaves an Envoy that nobody keeps: the next state ends it and starts a kept one."""
    port, folder = free_port(), tmp_path / "router"
    await router.apply(production(port, backend(toy)))
    shim = psutil.Process(recorded(folder).pid)
    shim.send_signal(signal.SIGKILL)
    await until(lambda: not shim.is_running() or shim.status() == psutil.STATUS_ZOMBIE)
    await router.apply(production(port, backend(toy)))
    assert recorded(folder).pid != shim.pid
    assert (await ask(port)).status == 200


@pytest.mark.parametrize("shared", [False, True])
async def test_a_taken_port_is_told_and_changes_nothing(router: EnvoyRouter, toy: Toy, *, shared: bool) -> None:
    """Also where the other program would share its port: one sentence, the old state stays, and later it works."""
    port, taken = free_port(), free_port()
    await router.apply(production(port, backend(toy)))
    wanted = [*production(port, backend(toy)), Route("staging", taken, ())]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        other.bind(("127.0.0.1", taken))
        other.listen()
        with pytest.raises(EngineError, match=f"^port {taken} of staging is taken by another program .*pid"):
            await router.apply(wanted)
        with pytest.raises(EngineError, match=f"^port {taken} of production is taken"):
            await router.apply(production(taken, backend(toy)))
    assert (await ask(port)).release == "one-version"
    await router.apply(wanted)
    assert (await ask(taken)).status == 503


async def test_after_a_reboot_a_taken_port_keeps_nobody_else_away(
    router: EnvoyRouter, tmp_path: Path, runner: ProcessRunner, toy: Toy
) -> None:
    """Envoy begins anew and cannot have one port that it had: all else moves on, and that one comes back later."""
    port, taken, wanted = free_port(), free_port(), production(free_port(), backend(toy))
    name = "0123456789ab-staging"
    await router.apply([*production(port, backend(toy, 0)), Route(name, taken, ())])
    _kill(tmp_path / "router")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", taken))
        other.listen()
        again = EnvoyRouter(tmp_path / "router", runner)
        with pytest.raises(
            RouteError, match=f"^port {taken} of staging is taken .*give staging another port$"
        ) as caught:
            await again.apply([*production(port, backend(toy)), Route(name, taken, ())])
        assert caught.value.environments == (name,)
        assert (await ask(port)).release == "one-version"
        told = (tmp_path / "router" / "envoy.log").stat().st_size
        with pytest.raises(RouteError):
            await again.apply([*wanted, Route(name, taken, ())])
        assert (await ask(wanted[0].port)).release == "one-version"
        assert (tmp_path / "router" / "envoy.log").stat().st_size == told, "Envoy is not asked again while it is taken"
    await again.apply([*wanted, Route(name, taken, ())])
    assert (await ask(taken)).status == 503


async def test_a_port_kept_by_who_cannot_move_is_told_too(router: EnvoyRouter, toy: Toy) -> None:
    """Where one environment stays since its new port is taken, who was to have its port stays too, until both can."""
    first, second, taken = free_port(), free_port(), free_port()
    await router.apply([Route("a", first, (backend(toy),)), Route("b", second, ())])
    wanted = [Route("a", taken, (backend(toy),)), Route("b", first, ())]
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        with pytest.raises(RouteError) as caught:
            await router.apply(wanted)
        assert caught.value.environments == ("a", "b")
        assert ((await ask(first)).status, (await ask(second)).status) == (200, 503)
    with pytest.raises(RouteError) as caught:
        await router.apply(wanted)
    assert caught.value.environments == ("b",)
    await router.apply(wanted)
    assert ((await ask(taken)).status, (await ask(first)).status) == (200, 503)
    assert not listens(second)


async def test_who_can_be_neither_here_nor_there_keeps_nobody_away(
    router: EnvoyRouter, tmp_path: Path, toy: Toy
) -> None:
    """After a reboot both the old port and the new one of an environment are taken: the others follow all the same."""
    port, old, new = free_port(), free_port(), free_port()
    await router.apply([*production(port, backend(toy, 0)), Route("staging", old, ())])
    _kill(tmp_path / "router")
    with ExitStack() as stack:
        for taken in (old, new):
            other = stack.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", taken))
            other.listen()
        for _ in range(2):
            with pytest.raises(RouteError, match=f"^port {new} of staging is taken"):
                await router.apply([*production(port, backend(toy)), Route("staging", new, ())])
            assert (await ask(port)).release == "one-version"
    await router.apply([*production(port, backend(toy)), Route("staging", new, ())])
    assert (await ask(new)).status == 503


async def test_a_killed_router_is_started_again_by_the_same_state(
    router: EnvoyRouter, tmp_path: Path, toy: Toy
) -> None:
    """A kill -9 of Envoy and of its shim: it does not run, and the next `apply` of what was in force brings it back."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    assert router.running()
    _kill(tmp_path / "router")
    assert not router.running()
    assert not listens(port)
    await router.apply(production(port, backend(toy)))
    assert router.running()
    assert (await ask(port)).release == "one-version"


def _kill(folder: Path) -> None:
    """A kill -9 of the shim and of its Envoy, as a power cut is one."""
    family = [psutil.Process(recorded(folder).pid), *envoys(folder)]
    for process in family:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(family)


async def test_a_full_disk_is_told_and_changes_nothing(router: EnvoyRouter, toy: Toy) -> None:
    """What cannot be written is one sentence; the old state stays in force, and later the new one is taken."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, usual[1]))
    try:
        with pytest.raises(EngineError, match=r"^the router's state cannot be written to .*: .*; traffic goes where"):
            await router.apply(production(port, backend(toy, 0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (await ask(port)).release == "one-version"
    await router.apply(production(port, backend(toy, 0)))
    assert (await ask(port)).status == 503


async def test_two_homes_do_not_share_a_port(
    router: EnvoyRouter, tmp_path: Path, runner: ProcessRunner, toy: Toy
) -> None:
    """Two Envoys run side by side, and the second that wants a port hears who has it."""
    port, own = free_port(), free_port()
    await router.apply(production(port, backend(toy)))
    async with _another(tmp_path / "other", runner) as other:
        with pytest.raises(EngineError, match=rf"port {port} of production is taken by another program \(envoy, pid"):
            await other.apply(production(port, backend(toy, 0)))
        await other.apply(production(own, backend(toy, 0)))
        assert {(await ask(port)).status for _ in range(20)} == {200}
        assert (await ask(own)).status == 503


@asynccontextmanager
async def _another(folder: Path, runner: ProcessRunner) -> AsyncIterator[EnvoyRouter]:
    router = EnvoyRouter(folder, runner)
    try:
        yield router
    finally:
        await router.stop()


async def test_a_refused_state_is_told_in_envoys_words_and_changes_nothing(router: EnvoyRouter, toy: Toy) -> None:
    """What Envoy rejects is an error with its reason; the old state stays, and the next good one is taken."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    for bad, reason in (
        (Backend("two", "2", (1,), "", 10_000), "release-two: .*HttpHealthCheckValidationError.Path"),
        (Backend("two", "2", (70_000,), "/", 10_000), "release-two: .*PortValue"),
        (Backend("two", "2\n", (1,), "/", 10_000), "HeaderValue"),
    ):
        with pytest.raises(EngineError, match=f"the router refuses its new state: .*{reason}"):
            await router.apply(production(port, bad))
        assert (await ask(port)).release == "one-version"
    await router.apply(production(port, backend(toy, 0)))
    assert (await ask(port)).status == 503


async def test_a_refused_listener_takes_its_routes_and_clusters_back(router: EnvoyRouter, toy: Toy) -> None:
    """Where the last part of a state is refused, the parts already in force are withdrawn."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    wanted = [*production(port, Backend("two", "2", (1,), "/", 10_000)), Route("staging", 70_000, ())]
    with pytest.raises(EngineError, match="PortValue"):
        await router.apply(wanted)
    assert (await ask(port)).release == "one-version"
    await until(lambda: _is(router.healthy("one"), 1))


async def test_a_mirror_gets_copies_and_its_answers_are_never_seen(router: EnvoyRouter, toy: Toy) -> None:
    """Half of the requests are copied, bodies included; what the copies are answered, 500 even, nobody but we sees."""
    port, body = free_port(), b"question" * 1000
    async with Toy("two").serving() as shadow:
        await router.apply(production(port, backend(toy), mirror(shadow, 5_000)))
        replies = [await ask(port, "/", body) for _ in range(200)]
        assert {(reply.status, reply.release, reply.body.decode()) for reply in replies} == {
            (200, "one-version", sha256(body).hexdigest())
        }
        assert toy.asked == 200
        # Beyond six standard deviations of a fair coin.
        await until(lambda: shadow.asked >= 50)
        await until(lambda: _is(router.in_flight("two"), 0))
        assert shadow.asked <= 150
        assert await _counted_are(router, "two", shadow.asked, 0)
        await router.apply(production(port, backend(toy), mirror(shadow, 10_000)))
        asked = shadow.asked
        assert (await ask(port, "/missing")).status == 404
        assert (await ask(port, "/broken")).status == 500
        await until(lambda: _counted_are(router, "two", asked + 2, 1))


async def test_a_mirror_that_hangs_or_dies_harms_nobody(router: EnvoyRouter, toy: Toy) -> None:
    """The originals are answered while no copy is, however many hang: there is a limit to them."""
    port = free_port()
    async with Toy("two", deaf=True).serving() as shadow:
        await router.apply(production(port, backend(toy), mirror(shadow, 10_000)))
        client = Client(port)
        replies = [await client.ask() for _ in range(400)]
        assert {reply.status for reply in replies} == {200}
        await until(lambda: _is(router.in_flight("two"), 256))
    replies = [await client.ask() for _ in range(20)]
    await client.close()
    assert {reply.status for reply in replies} == {200}
    assert toy.asked == 420
    await until(lambda: _counted_are(router, "two", 420, 420))


async def test_what_a_mirror_could_hold_up_is_not_copied(router: EnvoyRouter, toy: Toy) -> None:
    """Large bodies, such of unknown length and WebSockets pass at once though the mirror reads nothing of anything."""
    port, large = free_port(), bytes(20_000_000)
    async with Toy("two", deaf=True).serving() as shadow:
        await router.apply(production(port, backend(toy), mirror(shadow, 10_000)))
        for body, copies in ((bytes(500_000), 1), (large, 1), (b"", 2)):
            assert (await ask(port, "/body", body)).status == 200
            await until(lambda: _has_asked(shadow, copies))  # noqa: B023 - it is called in this turn
        client = Client(port)
        reply = await client.send("POST", "/reset", "transfer-encoding: chunked\r\n", b"0\r\n\r\n")
        assert (reply.status, toy.asked) == (503, 4)
        await client.close()
        assert (await client.ask("/socket", headers="connection: upgrade\r\nupgrade: websocket\r\n")).status == 101
        await client.close()
        assert (await ask(port)).status == 200
        await until(lambda: shadow.asked == 3)


def _has_asked(toy: Toy, times: int) -> bool:
    return toy.asked == times


def mirror(toy: Toy, parts: int) -> Backend:
    return Backend(toy.name, f"{toy.name}-version", (toy.port,), "/health", 0, parts)


@pytest.mark.parametrize("kind", ["header", "cookie"])
async def test_users_stay_where_they_are_and_widening_only_adds(router: EnvoyRouter, toy: Toy, kind: str) -> None:
    """The same user is always with the same release, and those of the first one stay there as its weight rises."""
    port, sticky = free_port(), Sticky("header" if kind == "header" else "cookie", "who-asks")
    before: set[str] = set()
    quarter: set[str] = set()
    async with Toy("two").serving() as new:
        for weight in (500, 2_500, 5_000, 7_500, 10_000):
            state = Route("production", port, (backend(new, weight), backend(toy, 10_000 - weight)), sticky)
            await router.apply([state])
            with_new = await _users_of(port, kind, "two-version")
            assert before <= with_new
            # Within six standard deviations of 300 users.
            assert abs(len(with_new) - 300 * weight / 10_000) <= 52
            before, quarter = with_new, with_new if weight == 2_500 else quarter
        await router.apply([Route("production", port, (backend(toy, 2_500), backend(new, 7_500)), sticky)])
        assert len(before) == 300
        assert await _users_of(port, kind, "one-version") != quarter, "the next release is tried by others"


async def _users_of(port: int, kind: str, release: str) -> set[str]:
    """Which of 300 users are with a release, each asked twice."""
    client, found = Client(port), set()
    for user in (f"user{number}" for number in range(300)):
        named = f"Who-Asks: {user}\r\n" if kind == "header" else f"cookie: first=1; who-asks={user}; last=2\r\n"
        releases = {(await client.ask(headers=named)).release for _ in range(2)}
        assert len(releases) == 1
        found |= {user} if release in releases else set()
    await client.close()
    return found


async def test_who_has_no_name_yet_gets_a_cookie_and_stays(router: EnvoyRouter, toy: Toy) -> None:
    """A user without the cookie, or with an empty one, is split at random, and is then known and stays."""
    port, sticky, first = free_port(), Sticky("cookie", "penstock-user"), set()
    async with Toy("two").serving() as new:
        await router.apply([Route("production", port, (backend(new, 5_000), backend(toy, 5_000)), sticky)])
        client = Client(port)
        for empty in ("", "cookie: penstock-user=; other-penstock-user=1\r\n") * 50:
            reply = await client.ask(headers=empty)
            cookie, _, terms = reply.headers["set-cookie"].partition("; ")
            assert terms == "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"
            again = await client.ask(headers=f"cookie: {cookie}\r\n")
            assert again.release == reply.release
            assert "set-cookie" not in again.headers
            first.add(reply.release)
        await client.close()
    assert first == {"one-version", "two-version"}


async def test_who_has_no_header_is_split_at_random(router: EnvoyRouter, toy: Toy) -> None:
    """Requests without the header go to both releases."""
    port = free_port()
    async with Toy("two").serving() as new:
        state = Route("production", port, (backend(new, 5_000), backend(toy, 5_000)), Sticky("header", "x-user"))
        await router.apply([state])
        client = Client(port)
        assert {(await client.ask()).release for _ in range(100)} == {"one-version", "two-version"}
        await client.close()


@pytest.mark.parametrize("known_by", ["header", "cookie"])
async def test_recorded_requests_are_split_though_all_are_one_users(
    router: EnvoyRouter, toy: Toy, known_by: Literal["header", "cookie"]
) -> None:
    """What is marked as synthetic goes to both releases at their share, and is given no cookie; the user stays."""
    port = free_port()
    async with Toy("two").serving() as new:
        halves = (backend(new, 5_000), backend(toy, 5_000))
        await router.apply([Route("production", port, halves, Sticky(known_by, "who-asks"))])
        client = Client(port)
        named = "who-asks: ada\r\n" if known_by == "header" else "cookie: who-asks=ada\r\n"
        found = [await client.ask(headers=f"{named}{SYNTHETIC}: 1\r\n") for _ in range(200)]
        # Within six standard deviations of 100.
        assert abs(Counter(reply.release for reply in found)["two-version"] - 100) <= 42
        assert not any("set-cookie" in reply.headers for reply in found)
        assert len({(await client.ask(headers=named)).release for _ in range(20)}) == 1
        await client.close()


async def test_a_request_is_sent_once(router: EnvoyRouter, toy: Toy) -> None:
    """Nothing is tried twice, not even where the caller asks Envoy for it: a POST may have had its effect."""
    port, wish = free_port(), "x-envoy-retry-on: 5xx,reset\r\nx-envoy-max-retries: 3\r\n"
    async with Toy("one").serving() as other:
        both = Backend("one", "1", (toy.port, other.port), "/health", 10_000)
        await router.apply(production(port, both))
        for number, path in enumerate(("/broken", "/reset", "/garbage"), 1):
            assert (await ask(port, path, b"effect", wish)).status >= 500
            assert toy.asked + other.asked == number


async def test_a_replica_that_fails_every_request_rests(router: EnvoyRouter, toy: Toy) -> None:
    """One that says it is well and answers 500 again and again is left out, while another one is there, and returns."""
    port = free_port()
    async with Toy("one", broken=True).serving() as bad:
        both = Backend("one", "1", (toy.port, bad.port), "/health", 10_000)
        await router.apply(production(port, both))
        await until(lambda: _all_good(port))
        assert bad.asked <= 10
        bad.broken, asked = False, bad.asked
        await until(lambda: _asks(port, bad, asked))


async def _all_good(port: int) -> bool:
    return {(await ask(port)).status for _ in range(10)} == {200}


async def _asks(port: int, toy: Toy, before: int) -> bool:
    await ask(port)
    return toy.asked > before


@pytest.mark.parametrize("path", ["/broken", "/reset"])
async def test_the_last_replica_is_never_left_out(router: EnvoyRouter, toy: Toy, path: str) -> None:
    """The only replica of a release is asked, whatever it answers: its errors are its own."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    for _ in range(20):
        assert (await ask(port, path)).status >= 500
    assert toy.asked == 20
    assert (await ask(port)).status == 200


async def test_most_replicas_may_be_ill(router: EnvoyRouter, toy: Toy) -> None:
    """With two of three replicas ill all requests go to the third; with all of them ill they are asked all the same."""
    port = free_port()
    async with Toy("one", well=False).serving() as first, Toy("one", well=False).serving() as second:
        three = Backend("one", "1", (first.port, second.port, toy.port), "/health", 10_000)
        await router.apply(production(port, three))
        await until(lambda: _is(router.healthy("one"), 1))
        assert [(await ask(port)).status for _ in range(20)] == [200] * 20
        assert (first.asked, second.asked, toy.asked) == (0, 0, 20)
        toy.well = False
        await until(lambda: _is(router.healthy("one"), 0))
        assert (await ask(port)).status == 200


async def test_large_bodies_pass_whole(router: EnvoyRouter, toy: Toy) -> None:
    """A request of 5 MB reaches the replica byte for byte."""
    port, body = free_port(), bytes(range(256)) * 20_000
    await router.apply(production(port, backend(toy)))
    reply = await ask(port, "/body", body)
    assert reply.body.decode() == sha256(body).hexdigest()


async def test_a_stream_arrives_as_it_is_sent(router: EnvoyRouter, toy: Toy) -> None:
    """An event is with the caller before the next one exists, and the split may change meanwhile."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    client = Client(port)
    reply = await client.ask("/stream")
    reader, _ = client.streams
    assert reply.headers["content-type"] == "text/event-stream"
    assert b"first" in await reader.readuntil(b"\n\n\r\n")
    await router.apply(production(port, backend(toy, 0)))
    assert await router.in_flight("one") == 1
    toy.slow.set()
    assert b"second" in await reader.readuntil(b"0\r\n\r\n")
    await client.close()


async def test_a_stream_outlives_its_release_in_the_router(router: EnvoyRouter, toy: Toy) -> None:
    """What a release has begun goes on, and is counted, though its routes are gone; its replica ends it properly."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    client = Client(port)
    await client.ask("/stream")
    reader, _ = client.streams
    await reader.readuntil(b"first\n\n\r\n")
    async with Toy("two").serving() as new:
        await router.apply(production(port, backend(new)))
        assert await router.in_flight("one") == 1
        toy.slow.set()
        assert b"second" in await reader.readuntil(b"0\r\n\r\n")
        await until(lambda: _is(router.in_flight("one"), 0))
    await client.close()


async def test_a_websocket_passes(router: EnvoyRouter, toy: Toy) -> None:
    """An upgraded connection carries bytes both ways."""
    port = free_port()
    await router.apply(production(port, backend(toy)))
    client = Client(port)
    reply = await client.ask("/socket", headers="connection: upgrade\r\nupgrade: websocket\r\n")
    assert (reply.status, reply.release) == (101, "one-version")
    reader, writer = client.streams
    writer.write(b"there and back")
    assert await reader.readexactly(14) == b"there and back"
    await client.close()


async def test_answers_are_the_servers_own_but_for_the_release(router: EnvoyRouter, toy: Toy) -> None:
    """The forged release is overwritten, the server's name passes, and nothing says Envoy; a dead one is named too."""
    port = free_port()
    dead = Backend("dead", "dead-version", (free_port(),), "/health", 10_000)
    await router.apply([*production(port, backend(toy)), Route("staging", down := free_port(), (dead,))])
    reply = await ask(port)
    assert (reply.release, reply.headers["server"]) == ("one-version", "toy")
    assert not [name for name in reply.headers if "envoy" in name]
    reply = await ask(down)
    assert (reply.status, reply.release) == (503, "dead-version")


async def test_a_folder_deeper_than_a_socket_may_lie_works(tmp_path: Path, runner: ProcessRunner, toy: Toy) -> None:
    """The kernel's 107 bytes for the path of a unix socket do not limit where a home may be."""
    port = free_port()
    async with _another(tmp_path / ("deep" * 30) / "router", runner) as router:
        await router.apply([Route("äöü/50% & more: %s", port, (backend(toy),))])
        assert (await ask(port)).status == 200
        assert await router.healthy("one") == 1


async def test_an_envoy_that_cannot_start_or_answer_is_told(tmp_path: Path, runner: ProcessRunner) -> None:
    """Where Envoy fails to start, or hangs, `apply` ends after its patience and says where to look."""
    folder, wanted = tmp_path / "router", production(free_port())
    (folder / "admin.sock").mkdir(parents=True)
    hasty = EnvoyRouter(folder, runner, patience=0.5)
    with pytest.raises(EngineError, match=r"did not answer within 0\.5 s: .*; see .*envoy\.log"):
        await hasty.apply(wanted)
    (folder / "admin.sock").rmdir()
    async with _another(folder, runner) as router:
        await router.apply(wanted)
        hanging = envoys(folder)[0]
        hanging.suspend()
        with pytest.raises(EngineError, match=r"did not answer within 0\.5 s"):
            await hasty.apply(wanted)
        hanging.resume()
        await hasty.apply(wanted)


async def test_a_damaged_record_is_told(router: EnvoyRouter, tmp_path: Path) -> None:
    """A record that is no record is named, with what to do; it is never taken for "nothing runs"."""
    (tmp_path / "router").mkdir()
    for text in ("", "[]", '{"id": "x", "handle": {"pid": 1}}'):
        (tmp_path / "router" / "router.json").write_text(text)
        with pytest.raises(EngineError, match=r"router\.json is damaged: end Envoy and delete that file"):
            await router.apply(production(free_port()))
    (tmp_path / "router" / "router.json").unlink()


async def test_nothing_to_route_starts_nothing(router: EnvoyRouter, tmp_path: Path) -> None:
    """The empty state of a home that never served needs no Envoy."""
    await router.apply([])
    assert not (tmp_path / "router").exists()
