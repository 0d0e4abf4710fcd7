"""Releases after their promotion: breaches roll back or are told, once, whoever dies; what was counted goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from engine.builders import PROJECT, House, until
from engine.test_rolling import answered
from penstock.engine.contracts import Handle, ProcessSpec
from penstock.engine.delivery import Delivery
from penstock.engine.happenings import happenings
from penstock.environments import WatchRules
from penstock.errors import StateError
from penstock.releases import ReleaseStatus
from penstock.runners.scripted import NEVER, Act
from penstock.store.contract import Release
from penstock.traffic import EDGES_MS, Arm
from penstock.watches import Watch, taken_up

TELL = "tell the people"


def rules(**fields: Any) -> dict[str, Any]:
    """What a release's spec holds of the file's `watch`."""
    return WatchRules.model_validate(fields).model_dump()


def state(release: Release) -> Watch:
    found = taken_up((release.watch or {})["state"])
    assert found
    return found


def told(house: House) -> list[str]:
    """The reasons that the person's command was started with."""
    return [spec.variables["PENSTOCK_REASON"] for spec in house.machine.started if spec.command == TELL]


def counted_starts(house: House) -> list[str]:
    """The ids of all notices that are started from now on."""
    starts, start = [], house.machine.start

    def counting(spec: ProcessSpec) -> Handle:
        if spec.command == TELL:
            starts.append(spec.id)
        return start(spec)

    house.machine.start = counting  # type: ignore[method-assign] # the machine itself goes on as it is
    return starts


@asynccontextmanager
async def attended(house: House) -> AsyncIterator[None]:
    """A coordinator's delivery that watches, and leaves at the end."""
    delivery = Delivery(house.world)
    await delivery.recover()
    try:
        yield
    finally:
        await leave(delivery.watches)


async def leave(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def now(house: House, release: Release) -> Release:
    return house.store.releases.get(release.id)


def counts(house: House, release: Release) -> int:
    """The requests of a release's watch."""
    return state(now(house, release)).arm.requests


async def seen(house: House, release: Release, requests: int) -> None:
    """Wait until so many requests are recorded."""
    await until(lambda: "state" in (now(house, release).watch or {}) and counts(house, release) == requests)


def test_a_breach_rolls_back(house: House) -> None:
    """Errors after the promotion give the traffic back to the release before, with what was counted as the reason."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        release = await house.deliver(house.wanted("0.2", watch=rules()))
        async with attended(house):
            house.router.count(str(release.id), answered(1000, 3))
            await seen(house, release, 1000)
            house.router.count(str(release.id), answered(500, 100))
            await until(lambda: now(house, release).status is ReleaseStatus.ROLLED_BACK)
        assert house.served() == "0.1"
        reason = now(house, release).reason or ""
        assert reason == "rolled back to 0.1 by its watch: 100 of the last 500 requests failed (20 %), where 1 % may"
        assert (now(house, release).watch or {})["todo"] == []
        last = happenings(house.store, PROJECT.id, "production")[-1]
        assert (last.what, last.version, last.who) == ("rolled back to", "0.1", "its watch")
        assert last.why == "0.2: 100 of the last 500 requests failed (20 %), where 1 % may"

    house.play(story())


def test_what_serves_again_is_watched_again(house: House) -> None:
    """A release that was given its place back is watched from then on, and its own breach is found and told anew."""

    async def story() -> None:
        house.machine.script[TELL] = Act()
        notify = rules(on_breach="notify", notify=TELL)
        one = await house.deliver(house.wanted("0.1", watch=notify))
        starts = counted_starts(house)
        async with attended(house):
            house.router.count(str(one.id), answered(1000, 300))
            await until(lambda: (now(house, one).watch or {}).get("todo") == [])
            await house.deliver(house.wanted("0.2"))
            await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")
            await seen(house, one, 0)
            house.router.count(str(one.id), answered(500, 1))
            await seen(house, one, 500)
            assert state(now(house, one)).ended is None, "what it did before it was replaced is not held against it"
            house.router.count(str(one.id), answered(1000, 300))
            await until(lambda: (now(house, one).watch or {}).get("todo") == [])
        assert len(told(house)) == 2
        assert len(set(starts)) == len(starts) == 2

    house.play(story())


def test_a_watch_ends_by_its_time(house: House) -> None:
    """What keeps its limits is watched no more afterwards, whatever it does; how it went is recorded."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        release = await house.deliver(house.wanted("0.2", watch=rules(**{"for": "30m"})))
        async with attended(house):
            house.router.count(str(release.id), answered(1000, 3))
            await seen(house, release, 1000)
            house.clock.ahead += 1801
            await until(lambda: state(now(house, release)).ended)
            house.router.count(str(release.id), answered(500, 500))
            await asyncio.sleep(10 * house.world.look)
        ended = state(now(house, release)).ended
        assert ended is not None
        assert (ended.kind, ended.reason) == ("over", "1,000 requests, 3 failed")
        assert house.served() == "0.2"

    house.play(story())


def test_what_happened_while_nobody_looked_counts(house: House) -> None:
    """The next coordinator goes on from the counters that the last one read; a router that began anew is a gap."""

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1", watch=rules()))
        async with attended(house):
            house.router.count(str(release.id), answered(100, 1))
            await seen(house, release, 100)
        house.router.count(str(release.id), answered(50))
        async with attended(house):
            await seen(house, release, 150)
            house.clock.ahead += 60
            house.router.begin_anew()
            await until(lambda: state(now(house, release)).unknown >= 60)
            house.router.count(str(release.id), answered(5))
            await seen(house, release, 155)

    house.play(story())


def test_what_it_got_as_a_canary_is_not_counted_again(house: House) -> None:
    """A release that was judged in traffic is watched from its promotion, against the latencies of that rollout."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        release = await house.deliver(house.wanted("0.2", watch=rules(latency_p90_ratio=1.5)))
        history = [900, 100, *(0 for _ in EDGES_MS[1:])]
        house.store.releases.note(release.id, rollout={"state": {"evidence": {"history": history}}})
        house.router.count(str(release.id), answered(1000, 900))
        async with attended(house):
            await until(lambda: now(house, release).watch)
            watch = state(now(house, release))
            assert (watch.arm.requests, watch.notes) == (0, ())
            slow = [0] * (len(EDGES_MS) + 1)
            slow[8] = 400
            house.router.count(str(release.id), Arm(400, 0, tuple(slow)))
            await until(lambda: now(house, release).status is ReleaseStatus.ROLLED_BACK)
        assert "400 of 400 requests took longer than 1.5 ms (100 %)" in (now(house, release).reason or "")

    house.play(story())


def test_the_watch_of_the_release_before_is_a_reference(house: House) -> None:
    """Where no rollout compared them, latencies are held against those that the release before was seen to have."""

    async def story() -> None:
        first = await house.deliver(house.wanted("0.1", watch=rules()))
        async with attended(house):
            house.router.count(str(first.id), answered(2000))
            await seen(house, first, 2000)
        release = await house.deliver(house.wanted("0.2", watch=rules(latency_p99_ratio=2)))
        async with attended(house):
            await until(lambda: now(house, release).watch)
            assert [claim.name for claim in state(now(house, release)).claims] == ["errors", "latency_p99_ratio"]

    house.play(story())


def test_a_breach_is_only_told_where_the_file_says_so(house: House) -> None:
    """It serves on, the reason stands on it, and the person's command has it too."""

    async def story() -> None:
        house.machine.script[TELL] = Act()
        await house.deliver(house.wanted("0.1"))
        release = await house.deliver(house.wanted("0.2", watch=rules(on_breach="notify", notify=TELL)))
        async with attended(house):
            house.router.count(str(release.id), answered(500, 100))
            await until(lambda: (now(house, release).watch or {}).get("todo") == [])
        assert house.served() == "0.2"
        assert told(house) == ["its watch was broken: 100 of 500 requests failed (20 %), where 1 % may"]
        assert now(house, release).reason == told(house)[0]

    house.play(story())


def test_a_notice_that_fails_is_said(house: House) -> None:
    """What the command said last stands beside the reason."""

    async def story() -> None:
        house.machine.script[TELL] = Act(exit_code=3, output="no such channel\n")
        release = await house.deliver(house.wanted("0.1", watch=rules(on_breach="notify", notify=TELL)))
        async with attended(house):
            house.router.count(str(release.id), answered(500, 100))
            await until(lambda: (now(house, release).watch or {}).get("todo") == [])
        reason = now(house, release).reason or ""
        assert reason.endswith("its notify command did not pass (exit code 3; its log ends: no such channel)")

    house.play(story())


def test_a_rollback_that_is_refused_is_told_and_tried_again(house: House) -> None:
    """Where nothing served before, the reason says so, the people are told, and it goes back once it can."""

    async def story() -> None:
        house.machine.script[TELL] = Act()
        release = await house.deliver(house.wanted("0.1", watch=rules(notify=TELL)))
        async with attended(house):
            house.router.count(str(release.id), answered(500, 100))
            await until(lambda: "notify" not in (now(house, release).watch or {}).get("todo", ["notify"]))
            assert house.served() == "0.1"
            assert told(house)[0].endswith("it was not rolled back: production has no earlier release to go back to")
        assert (now(house, release).watch or {})["todo"] == ["rollback"]

    house.play(story())


def test_another_release_is_never_rolled_back_for_it(house: House) -> None:
    """Where a newer release serves by the time of the rollback, it goes on."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        broken = await house.deliver(house.wanted("0.2"))
        await house.deliver(house.wanted("0.3"))
        with pytest.raises(StateError, match="another release serves production by now"):
            await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada", only=broken.id)
        assert house.served() == "0.3"

    house.play(story())


async def killed(house: House, point: str) -> None:
    """A coordinator that watches until it dies at a point."""
    died = asyncio.Event()

    def crash(passed: str) -> None:
        if passed == point or died.is_set():
            died.set()
            raise asyncio.CancelledError  # what it was doing goes no further

    delivery = Delivery(replace(house.world, crash=crash))
    await delivery.recover()
    await died.wait()
    await leave(delivery.watches)


@pytest.mark.parametrize(
    ("point", "lasts"),
    [
        ("look:after_recorded", True),
        ("look:after_recorded", False),
        ("notify:after_start", True),
        ("notify:after_start", False),
        ("notify:after_effect", False),
    ],
)
def test_a_death_tells_nobody_twice(house: House, point: str, lasts: bool) -> None:
    """Killed anywhere between a breach and its end, the next coordinator rolls back and tells, each once."""
    house.machine.script[TELL] = NEVER if lasts else Act()

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        release = await house.deliver(house.wanted("0.2", watch=rules(notify=TELL)))
        house.router.count(str(release.id), answered(500, 100))
        starts = counted_starts(house)
        await killed(house, f"watch.{point}")
        async with attended(house):
            await until(lambda: told(house))
            if lasts:
                await house.machine.finish(f"release-{release.id}/notify")
            await until(lambda: (now(house, release).watch or {}).get("todo") == [])
        assert starts == [f"release-{release.id}/notify"]
        assert now(house, release).status is ReleaseStatus.ROLLED_BACK
        assert house.served() == "0.1"

    house.play(story())


def test_stop_ends_the_notice(house: House) -> None:
    """What a breach asked for is dropped with what the environment serves, and nothing of its command lives."""
    house.machine.script[TELL] = NEVER

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1", watch=rules(notify=TELL)))
        delivery = Delivery(house.world)
        await delivery.recover()
        house.router.count(str(release.id), answered(500, 100))
        await until(lambda: told(house))
        await delivery.stop(None, None)
        assert not house.machine.runs(f"release-{release.id}/notify")
        assert (now(house, release).watch or {})["todo"] == []
        await leave(delivery.watches)

    house.play(story())


def test_what_another_version_wrote_begins_anew(house: House) -> None:
    """A watch that cannot be read is begun again with all that the router has counted, and ends nothing."""

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1", watch=rules()))
        house.store.releases.note(release.id, watch={"state": {"looks": 3}})
        house.router.count(str(release.id), answered(20))
        async with attended(house):
            await until(lambda: "begun" in (now(house, release).watch or {})["state"])
            await seen(house, release, 20)

    house.play(story())
