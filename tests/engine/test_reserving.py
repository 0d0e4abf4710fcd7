"""What the replicas of a release reserve of their home, and what happens where they do not fit."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.builders import PROJECT, SERVE, House, step, until
from penstock.cli.asking import check_resources, room_notes
from penstock.engine.context import BARRED
from penstock.engine.delivery import Delivery
from penstock.engine.followers import myself
from penstock.engine.reserving import limited, reserved
from penstock.engine.scheduling import PATIENCE, Capacity, Gpu, Key, Need, Schedule, beyond
from penstock.engine.turns import Turns
from penstock.errors import PenstockError, UsageError
from penstock.pipelines import Pipeline
from penstock.releases import ReleaseStatus
from penstock.sources.definitions import load

TWO = Capacity(4, 0, (Gpu(0), Gpu(1)))
MIXED = Capacity(4, 8, (Gpu(0, "a100"), Gpu(1, "a100"), Gpu(2, "t4")))
NEEDS = st.builds(
    Need,
    cpu=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    memory=st.integers(0, 8),
    gpus=st.integers(0, 2),
    gpu_kind=st.sampled_from([None, "a100"]),
)
ONE_GPU: dict[str, Any] = {"cpu": 1.0, "memory": 1 << 30, "gpu": {"count": 1}}


class Killed(BaseException):
    """The coordinator dies here."""


def fatal(point: str) -> Callable[[str], None]:
    """Dies at a crash point, the first time that it comes there."""

    def crash(here: str) -> None:
        if here == point:
            raise Killed

    return crash


def seen(house: House) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES told each replica, in the order of their starts."""
    return [spec.variables.get("CUDA_VISIBLE_DEVICES") for spec in house.machine.started]


@pytest.fixture
def equipped(house: House) -> House:
    """A home with four processors and two GPUs."""
    house.world = replace(house.world, capacity=TWO)
    return house


def test_replicas_hold_their_gpus_until_they_end(equipped: House) -> None:
    """Each replica has a GPU and a limit of its own; a step gets none until the release has ended."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        release = await delivery.release(equipped.wanted("1", replicas=2, resources=ONE_GPU), lambda: None)
        assert release.status is ReleaseStatus.SERVING
        assert seen(equipped) == ["0", "1"]
        assert {spec.memory for spec in equipped.machine.started} == {1 << 30}
        training = asyncio.create_task(turns.acquire((1, "train"), Need(gpus=1)))
        await asyncio.sleep(0)
        assert not training.done()
        await delivery.stop(None, None)
        assert await training == (0,)

    equipped.play(story())


def test_shares_survive_the_coordinator(equipped: House) -> None:
    """A coordinator that takes over holds what lives on the same GPUs before anything else starts."""

    async def story() -> None:
        first, resources = Turns(TWO), ONE_GPU
        await first.acquire((1, "train"), Need(gpus=1))
        await Delivery(equipped.world, first).release(equipped.wanted("1", resources=resources), lambda: None)
        assert seen(equipped) == ["1"]
        turns = Turns(TWO)
        Delivery(equipped.world, turns).hold_live()
        assert await turns.acquire((1, "train"), Need(gpus=1)) == (0,)

    equipped.play(story())


def test_no_room_beside_what_serves(equipped: House) -> None:
    """What does not fit beside the old release is rejected at once: with what is short, who holds it, the way out."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(TWO))
        await delivery.release(equipped.wanted("1", replicas=2, resources=ONE_GPU), lambda: None)
        release = await delivery.release(equipped.wanted("2", replicas=2, resources=ONE_GPU), lambda: None)
        assert release.status is ReleaseStatus.REJECTED
        assert release.reason == (
            "there is no room for its replicas: they need 2 GPUs (0 of 2 left) beside 1 in production (2 processors, "
            "2.0 GiB of memory, 2 GPUs). Both do not fit side by side: rollout: recreate ends 1 first, at the price "
            "of a gap without answers"
        )
        assert equipped.served() == "1"
        assert len(equipped.machine.started) == 2

    equipped.play(story())


def test_no_room_beside_another_environment(equipped: House) -> None:
    """Where others serve on what is wanted, and nothing of one's own would help, the way out is to ask for less."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(TWO))
        staging: dict[str, Any] = {"environment": "staging", "port": 8802, "replicas": 2, "resources": ONE_GPU}
        await delivery.release(equipped.wanted("1", **staging), lambda: None)
        release = await delivery.release(
            equipped.wanted("2", resources={"cpu": 3.0, "gpu": {"count": 1}}), lambda: None
        )
        assert release.reason == (
            "there is no room for its replicas: they need 3 processors (2 of 4 left) and 1 GPU (0 of 2 left) beside 1 "
            "in staging (2 processors, 2.0 GiB of memory, 2 GPUs). Ask for less, or end what serves with penstock stop"
        )

    equipped.play(story())


def test_no_room_ever(equipped: House) -> None:
    """A release by hand that needs more than the home has by now is rejected, and is not waited for."""

    async def story() -> None:
        release = await equipped.deliver(equipped.wanted("1", replicas=3, resources=ONE_GPU))
        assert release.reason == (
            "there is no room for its replicas, ever: all together its environment asks for 3 GPUs, and this home has 2"
        )

    equipped.play(story())


def test_a_container_has_its_own_gpus_alone(equipped: House) -> None:
    """The replica of an image is given its GPUs by the container engine and counts them from 0; limits go along."""

    async def story() -> None:
        resources = {"cpu": 1.0, "memory": 1 << 30, "gpu": {"count": 2}, "open_files": 64}
        release = await equipped.deliver(equipped.wanted("1", resources=resources))
        assert reserved(release) == "1 processor, 1.0 GiB of memory, 2 GPUs"
        bare = replace(equipped.machine.started[0], variables={}, image="model:1")
        spec = limited(bare, release, (2, 3))
        assert (spec.gpus, spec.variables) == ((2, 3), {"CUDA_VISIBLE_DEVICES": "0,1"})
        assert (spec.memory, spec.open_files) == (1 << 30, 64)

    equipped.play(story())


def test_a_release_waits_for_steps(equipped: House) -> None:
    """What steps hold is waited for, with a word on who holds it; a rollback, or a stop, ends the wait."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        releases = equipped.store.releases
        for version in ("1", "2"):
            await delivery.release(equipped.wanted(version), lambda: None)
        await turns.acquire((7, "train"), Need(gpus=2))
        waiting = asyncio.create_task(delivery.release(equipped.wanted("3", resources=ONE_GPU), lambda: None))
        await until(lambda: (releases.newest()[0].phase or "").startswith("waiting for room"))
        said = "they need 1 GPU (0 of 2 left) beside step train of run 7 (1 processor, 2 GPUs)"
        assert releases.newest()[0].phase == f"waiting for room: {said}"
        request = equipped.store.requests.add("rollback", {}, myself(), "bob")
        back = await delivery.rollback(PROJECT.id, "production", request, "bob")
        assert back.version == "1"
        assert (await waiting).reason == "bob rolled production back meanwhile"
        stop: list[str] = []
        wanted = equipped.wanted("4", resources=ONE_GPU)
        waiting = asyncio.create_task(delivery.release(wanted, lambda: stop[0] if stop else None))
        await until(lambda: (releases.newest()[0].phase or "").startswith("waiting for room"))
        stop.append("canceled")
        assert (await waiting).reason == "canceled"
        waiting = asyncio.create_task(delivery.release(equipped.wanted("5", resources=ONE_GPU), lambda: None))
        await until(lambda: (releases.newest()[0].phase or "").startswith("waiting for room"))
        turns.free((7, "train"))
        assert (await waiting).status is ReleaseStatus.SERVING
        assert set(turns.held) == {(-(await waiting).id, "replicas")}

    equipped.play(story())


RECREATE: dict[str, Any] = {"rollout": {"strategy": "recreate"}}


def test_recreate_keeps_its_room(equipped: House) -> None:
    """No waiting step takes the room between the old release's end and the new one's start; what is left is free."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        await delivery.release(equipped.wanted("1", replicas=2, resources=ONE_GPU), lambda: None)
        training = asyncio.create_task(turns.acquire((1, "train"), Need(gpus=1)))
        wanted = equipped.wanted("2", replicas=2, resources=ONE_GPU, **RECREATE)
        assert (await delivery.release(wanted, lambda: None)).status is ReleaseStatus.SERVING
        assert seen(equipped) == ["0", "1", "0", "1"]
        assert not training.done()
        less = await delivery.release(equipped.wanted("3", resources=ONE_GPU, **RECREATE), lambda: None)
        assert less.status is ReleaseStatus.SERVING
        assert await training == (1,)
        assert turns.held[-less.id, "replicas"] == (Need(1.0, 1 << 30, 1), (Gpu(0),))

    equipped.play(story())


def test_recreate_finds_its_way_back(equipped: House) -> None:
    """A release that is smaller and fails gives all its room back to the one that made way, though a step waits."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        await delivery.release(equipped.wanted("1", replicas=2, resources=ONE_GPU), lambda: None)
        training = asyncio.create_task(turns.acquire((1, "train"), Need(gpus=1)))
        equipped.machine.statuses["2"] = 500
        wanted = equipped.wanted("2", resources=ONE_GPU, package=equipped.package("2", start_timeout=0.1), **RECREATE)
        assert (await delivery.release(wanted, lambda: None)).status is ReleaseStatus.REJECTED
        assert equipped.served() == "1"
        assert seen(equipped) == ["0", "1", "0", "0", "1"]
        assert not training.done()
        await delivery.stop(None, None)
        assert await training == (0,)

    equipped.play(story())


def test_recreate_that_cannot_fit_ends_nothing(equipped: House) -> None:
    """Where even the old release's room is not enough, that one is never ended."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(TWO))
        staging: dict[str, Any] = {"environment": "staging", "port": 8802, "resources": ONE_GPU}
        await delivery.release(equipped.wanted("1", **staging), lambda: None)
        await delivery.release(equipped.wanted("1", resources=ONE_GPU), lambda: None)
        release = await delivery.release(equipped.wanted("2", replicas=2, resources=ONE_GPU, **RECREATE), lambda: None)
        assert release.status is ReleaseStatus.REJECTED
        assert str(release.reason).startswith(
            "there is no room for its replicas: they need 2 GPUs (1 of 2 left) beside"
        )
        assert len(equipped.machine.started) == 2

    equipped.play(story())


@pytest.mark.parametrize(
    "point", ["replica.end:after_recorded", "replica.start:after_effect", "replica.start:after_recorded"]
)
def test_recreate_survives_the_coordinator(equipped: House, point: str) -> None:
    """Killed amid `recreate`, the next coordinator holds the room of both, and the old one is back on its own GPUs."""

    async def story() -> None:
        await Delivery(equipped.world, Turns(TWO)).release(
            equipped.wanted("1", replicas=2, resources=ONE_GPU), lambda: None
        )
        turns, armed = Turns(TWO), Delivery(replace(equipped.world, crash=fatal(point)), Turns(TWO))
        armed.hold_live()
        wanted = equipped.wanted("2", kind="run", replicas=2, resources=ONE_GPU, **RECREATE)
        with pytest.raises(Killed):
            await armed.release(wanted, lambda: None)
        delivery = Delivery(equipped.world, turns)
        delivery.hold_live()
        training = asyncio.create_task(turns.acquire((1, "train"), Need(gpus=1)))
        await delivery.recover()
        assert equipped.served() == "1"
        assert not training.done()
        assert (await delivery.release(wanted, lambda: None)).status is ReleaseStatus.SERVING
        assert seen(equipped)[-2:] == ["0", "1"]
        assert not training.done()
        await delivery.stop(None, None)
        assert await training == (0,)

    equipped.play(story())


def test_warmth_makes_room(equipped: House) -> None:
    """A release that is kept warm holds its share until a new one needs it."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(TWO))
        for version in ("1", "2", "3"):
            release = await delivery.release(equipped.wanted(version, resources=ONE_GPU), lambda: None)
            assert release.status is ReleaseStatus.SERVING
        await until(lambda: equipped.served() == "3")
        kept = equipped.store.releases.of(PROJECT.id, "production")[0]
        assert not equipped.store.releases.replicas(kept.id)

    equipped.play(story())


def test_warmth_elsewhere_makes_room(equipped: House) -> None:
    """What another environment keeps warm ends too, oldest first and no more than it takes; it can be gone back to."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        releases = equipped.store.releases
        staging: dict[str, Any] = {"environment": "staging", "port": 8802}
        await delivery.release(equipped.wanted("1", resources={"cpu": 1.0}, **staging), lambda: None)
        await delivery.release(equipped.wanted("2", keep=2, resources=ONE_GPU, **staging), lambda: None)
        await delivery.release(equipped.wanted("3", keep=2, resources=ONE_GPU, **staging), lambda: None)
        new = await delivery.release(equipped.wanted("4", resources=ONE_GPU), lambda: None)
        assert new.status is ReleaseStatus.SERVING
        first, second, *_ = releases.of(PROJECT.id, "staging")
        assert releases.replicas(first.id)
        assert not releases.replicas(second.id)
        assert releases.get(second.id).reason == "its warm replicas ended to make room for 4 in production"
        await delivery.stop(PROJECT.id, "production")
        request = equipped.store.requests.add("rollback", {}, myself(), "bob")
        assert (await delivery.rollback(PROJECT.id, "staging", request, "bob")).version == "2"

    equipped.play(story())


def test_warmth_makes_room_for_steps(equipped: House) -> None:
    """What is kept warm ends for a step that could not start beside it; not where that would not help."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        for version in ("1", "2"):
            await delivery.release(equipped.wanted(version, resources=ONE_GPU), lambda: None)
        one, two = equipped.store.releases.of(PROJECT.id, "production")
        waiting = asyncio.create_task(turns.acquire((1, "both"), Need(gpus=2)))
        await asyncio.sleep(0)
        await delivery._replicas.yield_to_steps()
        assert equipped.store.releases.replicas(one.id)
        waiting.cancel()
        step = asyncio.create_task(turns.acquire((2, "train"), Need(gpus=1)))
        await asyncio.sleep(0)
        await delivery._replicas.yield_to_steps()
        assert await step == (0,)
        assert not equipped.store.releases.replicas(one.id)
        assert equipped.store.releases.replicas(two.id)
        assert equipped.store.releases.get(one.id).reason == (
            "its warm replicas ended to make room for a step that waits"
        )

    equipped.play(story())


def test_two_that_wait_for_each_others_warmth(equipped: House) -> None:
    """Two releases at once, each in want of what the other's environment keeps warm, both come to serve."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(Capacity(4, 0, tuple(map(Gpu, range(4))))))
        staging: dict[str, Any] = {"environment": "staging", "port": 8802}
        for place in (staging, dict[str, Any]()):
            for version in ("1", "2"):
                await delivery.release(equipped.wanted(version, resources=ONE_GPU, **place), lambda: None)
        wanted = [equipped.wanted("3", resources=ONE_GPU, **place) for place in (staging, dict[str, Any]())]
        both = await asyncio.gather(*(delivery.release(one, lambda: None) for one in wanted))
        assert [r.status for r in both] == [ReleaseStatus.SERVING] * 2

    equipped.play(story())


def test_no_way_back_without_room(equipped: House) -> None:
    """A rollback that has no room is refused with the way out, and what serves goes on."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(TWO))
        staging: dict[str, Any] = {"environment": "staging", "port": 8802}
        await delivery.release(equipped.wanted("1", resources=ONE_GPU), lambda: None)
        await delivery.release(equipped.wanted("2", resources=ONE_GPU), lambda: None)
        await delivery.release(equipped.wanted("1", resources=ONE_GPU, **staging), lambda: None)
        request = equipped.store.requests.add("rollback", {}, myself(), "bob")
        with pytest.raises(PenstockError, match="penstock stop production, then penstock deploy 1 production, ends 2"):
            await delivery.rollback(PROJECT.id, "production", request, "bob")
        assert equipped.served() == "2"

    equipped.play(story())


def test_recreate_goes_back_in_its_own_room(equipped: House) -> None:
    """A rollback where no two run at once: the target takes the room over, and a step that waits gets none of it."""

    async def story() -> None:
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        await delivery.release(equipped.wanted("1", replicas=2, resources=ONE_GPU, **RECREATE), lambda: None)
        await delivery.release(equipped.wanted("2", resources=ONE_GPU, **RECREATE), lambda: None)
        await turns.acquire((1, "train"), Need(gpus=1))
        request = equipped.store.requests.add("rollback", {}, myself(), "bob")
        rolling = asyncio.create_task(delivery.rollback(PROJECT.id, "production", request, "bob"))
        await until(lambda: (equipped.store.releases.of()[0].phase or "").startswith("waiting for room"))
        waiting = asyncio.create_task(turns.acquire((2, "train"), Need(gpus=1)))
        turns.free((1, "train"))
        assert (await rolling).version == "1"
        assert equipped.served() == "1"
        assert not waiting.done()
        assert {key: len(cards) for key, (_, cards) in turns.held.items()} == {(-1, "replicas"): 2}
        await delivery.stop(None, None)
        assert await waiting == (0,)

    equipped.play(story())


@pytest.mark.parametrize(
    "point", ["replica.end:after_effect", "replica.end:after_recorded", "replica.start:after_effect"]
)
def test_recreate_goes_back_though_the_coordinator_dies(equipped: House, point: str) -> None:
    """Killed amid such a rollback, the next coordinator starts the target in the same room, and nothing beside it."""

    async def story() -> None:
        delivery = Delivery(equipped.world, Turns(TWO))
        for version in ("1", "2"):
            wanted = equipped.wanted(version, replicas=2, resources=ONE_GPU, **RECREATE)
            await delivery.release(wanted, lambda: None)
        armed = Delivery(replace(equipped.world, crash=fatal(point)), Turns(TWO))
        armed.hold_live()
        request = equipped.store.requests.add("rollback", {}, myself(), "bob")
        with pytest.raises(Killed):
            await armed.rollback(PROJECT.id, "production", request, "bob")
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        delivery.hold_live()
        waiting = asyncio.create_task(turns.acquire((2, "train"), Need(gpus=1)))
        await delivery.recover()
        assert equipped.served() == "1"
        assert not waiting.done()
        assert {key: len(cards) for key, (_, cards) in turns.held.items()} == {(-1, "replicas"): 2}
        assert sum(equipped.machine.runs(spec.id) for spec in equipped.machine.started) == 2
        assert sorted(i for r in equipped.store.releases.replicas(1) for i in r.gpus or ()) == [0, 1]
        await delivery.stop(None, None)
        assert await waiting == (0,)

    equipped.play(story())


def test_half_a_start_is_begun_anew(equipped: House) -> None:
    """Killed when one of two replicas had its GPU, the next coordinator gives the release both."""

    async def story() -> None:
        armed = Delivery(replace(equipped.world, crash=fatal("replica.start:after_recorded")), Turns(TWO))
        wanted = equipped.wanted("1", kind="run", replicas=2, resources=ONE_GPU)
        with pytest.raises(Killed):
            await armed.release(wanted, lambda: None)
        turns = Turns(TWO)
        delivery = Delivery(equipped.world, turns)
        delivery.hold_live()
        release = await delivery.release(wanted, lambda: None)
        assert release.status is ReleaseStatus.SERVING
        assert [r.gpus for r in equipped.store.releases.replicas(release.id)] == [[0], [1]]
        assert sum(equipped.machine.runs(spec.id) for spec in equipped.machine.started) == 2

    equipped.play(story())


def test_fewer_gpus_after_a_restart(equipped: House) -> None:
    """A replica whose GPU is not there any more is not started on it: that is told, and hinders nobody."""

    async def story() -> None:
        release = await equipped.deliver(equipped.wanted("1", replicas=2, resources=ONE_GPU))
        await equipped.machine.vanish()
        fewer = Capacity(4, 0, (Gpu(0),))
        delivery = Delivery(replace(equipped.world, capacity=fewer), Turns(fewer))
        delivery.hold_live()
        await delivery.recover()
        phase = str(equipped.store.releases.get(release.id).phase)
        assert phase == "cannot start again: replica 2 needs 1 GPU, and its release holds 0 for it here"

    equipped.play(story())


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["step", "end", "release", "recreate", "back", "stop"]), NEEDS), max_size=40))
def test_never_over_capacity(story: list[tuple[str, Need]]) -> None:
    """Steps and releases mixed, old ones making way or coming back: what is held fits, and no GPU is held twice."""
    schedule = Schedule(MIXED)
    serving: Key | None = None
    for number, (what, need) in enumerate(story, start=1):
        old = schedule.held.get(serving) if serving else None
        if what == "step":
            schedule.ask((1 + number % 3, f"s{number}"), need)
        elif what == "end" and (steps := sorted(k for k in schedule.held if k[0] > 0)):
            schedule.release(steps[number % len(steps)])
        elif what == "release" and serving is None:
            schedule.ask((-number, "replicas"), need)
            schedule.grant()
            serving = (-number, "replicas") if schedule.holds((-number, "replicas")) else None
            schedule.withdraw((-number, "replicas"))
        elif what in {"recreate", "back"} and serving and old:
            serving = recreated(schedule, serving, (-number, "replicas"), need, comes=what == "recreate")
        elif what == "stop" and serving:
            schedule.release(serving)
            serving = None
        schedule.grant()
        held = list(schedule.held.values())
        gpus = [g for _, cards in held for g in cards]
        assert sum(n.cpu for n, _ in held) <= MIXED.cpu
        assert sum(n.memory for n, _ in held) <= MIXED.memory
        assert len(gpus) == len(set(gpus))
        assert all(len(cards) == n.gpus for n, cards in held)


def recreated(schedule: Schedule, old: Key, new: Key, need: Need, *, comes: bool) -> Key:
    """An old release makes way for a new one that has room, which comes or does not; who serves then."""
    had, cards = schedule.held[old]
    extra = beyond(need, had, cards)
    assert had.cpu + extra.cpu >= need.cpu
    assert had.memory + extra.memory >= need.memory
    schedule.ask(new, extra)
    schedule.grant()
    schedule.withdraw(new)
    if not schedule.holds(new):
        return old
    if not comes:
        schedule.release(new)
        return old
    pool = [*schedule.held[new][1], *(c for c in cards if need.gpu_kind in {None, c.kind})]
    schedule.exchange({old: None, new: (need, tuple(c.index for c in pool[: need.gpus]))})
    assert schedule.held[new][0] == need
    return new


def test_nobody_waits_for_what_never_ends() -> None:
    """A step that does not fit beside the replicas stops nobody else; room is kept for others."""
    schedule = Schedule(Capacity(4))
    schedule.take((-1, "replicas"), Need(2))
    schedule.ask((1, "whole"), Need(4))
    schedule.ask((2, "s0"), Need(1))
    for number in range(2 * PATIENCE):
        (grant,) = schedule.grant()
        schedule.ask((2, f"s{number + 1}"), Need(1))
        schedule.release(grant.key)
    assert schedule.kept_for is None
    schedule.ask((3, "pair"), Need(2))
    ran = {grant.key for grant in schedule.grant()}
    for number in range(2 * PATIENCE):
        schedule.ask((4, f"t{number}"), Need(1))
        for key in sorted(k for k in schedule.held if k[0] > 0)[:1]:
            schedule.release(key)
        ran |= {grant.key for grant in schedule.grant()}
    assert (3, "pair") in ran
    schedule.release((-1, "replicas"))
    for key in [k for k in schedule.held if k[0] > 0]:
        schedule.release(key)
    for _ in range(2 * PATIENCE):
        for grant in schedule.grant():
            ran.add(grant.key)
            schedule.release(grant.key)
    assert (1, "whole") in ran


def test_what_can_never_fit() -> None:
    """Replicas that need more than the home has are an error before anything runs."""
    production = {"name": "production", "port": 8800, "replicas": 3, "resources": {"gpu": 1}}
    found = Pipeline.model_validate(
        {
            "name": "x",
            "steps": {"a": {"name": "a", "run": "x", "outputs": ["m/"]}},
            "package": {"model": ["m/"], "serve": "x"},
            "environments": {"production": production},
        }
    )
    with pytest.raises(UsageError, match=r"production.* asks for 3 GPUs, and this home has 2"):
        check_resources(found, TWO)


def test_what_never_fits_twice_is_told() -> None:
    """Where no release can follow another while that one serves, the run says so before; not with recreate."""
    values: dict[str, Any] = {
        "name": "x",
        "steps": {"a": {"name": "a", "run": "x", "outputs": ["m/"]}},
        "package": {"model": ["m/"], "serve": "x"},
    }
    production: dict[str, Any] = {"name": "production", "port": 8800, "resources": {"gpu": 2}}
    (note,) = room_notes(Pipeline.model_validate({**values, "environments": {"production": production}}), TWO)
    assert note == (
        "two releases of production do not fit side by side: together they need more than there is (asks for 4 GPUs, "
        "and this home has 2); with rollout: recreate the old one ends before the new one starts"
    )
    production["rollout"] = "recreate"
    assert room_notes(Pipeline.model_validate({**values, "environments": {"production": production}}), TWO) == ()
    small = {**production, "rollout": "blue_green", "resources": {"gpu": 1}}
    assert room_notes(Pipeline.model_validate({**values, "environments": {"production": small}}), TWO) == ()


def test_a_step_that_could_never_start_beside_its_own_replicas() -> None:
    """It is an error before anything runs, for those replicas would never end; one that fits beside them is none."""
    for cpu, fits in ((3.0, True), (4.0, False)):
        file = {"name": "x", **pipeline(cpu, rollout="recreate")}
        found = load(json.dumps(file).encode(), "penstock.yaml")
        if fits:
            check_resources(found, TWO)
        else:
            sentence = "step train asks for 4 processors, and this home has 3 beside the replicas of this file's"
            with pytest.raises(UsageError, match=sentence):
                check_resources(found, TWO)


def test_a_step_says_that_it_waits_for_replicas(house: House) -> None:
    """A step that does not fit beside what serves says so, and starts when that has ended."""

    async def story() -> None:
        async with house.coordinating():
            assert (await house.ended(house.ask_run())).exit_code == 0
            house.commit(pipeline(2.0), src__a="2")
            second = house.ask_run()
            await until(lambda: house.store.runs.of_request(second))
            await until(lambda: step(house.run_of(second), "train").reason)
            assert step(house.run_of(second), "train").reason == BARRED
            house.ask("stop", {})
            assert (await house.ended(second)).exit_code == 0

    house.commit(pipeline(1.0), src__a="1")
    house.play(story())


def test_no_room_shows_nothing_against_a_commit(equipped: House) -> None:
    """A run whose release finds no room is errored and not failed; the one before goes on serving."""
    equipped.commit(pipeline(1.0, gpu=2, rollout="blue_green"), src__a="1")
    assert equipped.run().status == "passed"
    equipped.commit(pipeline(1.0, gpu=2, rollout="blue_green"), src__a="2")
    shown = equipped.run()
    assert shown.status == "errored"
    assert "there is no room for its replicas: they need 2 GPUs (0 of 2 left)" in str(shown.releases[0].reason)


def pipeline(cpu: float, gpu: int = 0, rollout: str = "recreate") -> dict[str, Any]:
    """A step that takes some processors, and an environment whose replica takes one, and perhaps GPUs."""
    resources = {"cpu": 1.0, "gpu": gpu}
    train = {"run": "train for a while", "inputs": ["src/"], "outputs": ["model/"], "resources": {"cpu": cpu}}
    return {
        "steps": {"train": train},
        "package": {"model": "model/", "serve": SERVE},
        "environments": {"production": {"port": 8801, "resources": resources, "rollout": rollout}},
    }
