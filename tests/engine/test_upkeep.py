"""What should serve serves while a coordinator works: whatever died, was refused or was left half done is seen to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.builders import PROJECT, House, until
from engine.test_delivery import delivering, statuses, warm
from engine.test_migrating import migrate
from engine.test_rolling import answered, asked, rolling, rules, tried
from penstock.engine.delivery import Delivery
from penstock.environments import WatchRules
from penstock.errors import StateError
from penstock.releases import ReleaseStatus
from penstock.rollouts import FULL
from penstock.store.contract import Release


@asynccontextmanager
async def kept_up(house: House) -> AsyncIterator[Delivery]:
    """A coordinator's delivery, which leaves at the end."""
    delivery = Delivery(house.world)
    await delivery.recover()
    try:
        yield delivery
    finally:
        tasks = [*delivery.watches]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def replica(house: House, release: Release) -> str:
    return house.store.releases.replicas(release.id)[0].id


def test_a_replica_that_is_gone_comes_back(house: House) -> None:
    """One that died with its shim is started again while the coordinator works, on its own port."""

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1"))
        port = house.store.releases.replicas(release.id)[0].port
        async with kept_up(house):
            gone = replica(house, release)
            await house.machine.finish(gone, None)
            await until(lambda: replica(house, release) != gone and warm(house, release))
            await until(lambda: house.store.releases.get(release.id).phase is None)
        assert house.store.releases.replicas(release.id)[0].port == port

    house.play(story())


def test_a_router_that_refuses_at_the_start_is_asked_again(house: House) -> None:
    """Its refusal keeps neither canaries nor watches from going on; when it follows again all is in force."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", kind="run", rollout=rules())):
            release = tried(house)
        assert release is not None
        other = house.wanted("1", environment="staging", port=8802, watch=WatchRules.model_validate({}).model_dump())
        watched = await house.deliver(other)
        house.router.refusal, house.router.refusals = "staging's port is taken", 3
        async with kept_up(house), asked(house, canary_errors=FULL):
            await until(lambda: house.store.releases.get(release.id).status is ReleaseStatus.ROLLED_BACK)
            await until(lambda: (house.store.releases.get(watched.id).watch or {}).get("state"))
            await until(lambda: not warm(house, release))
        assert house.served() == "0.1"

    house.play(story())


def test_what_was_left_to_end_ends(house: House) -> None:
    """A death between the end of a release on record and that of its replicas leaves nothing that lives on."""

    async def story() -> None:
        one = await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        house.store.releases.move(two.id, "replace", fate="roll_back", reason="ada")
        house.store.releases.move(one.id, "restore")
        house.store.releases.move(two.id, "roll_back")
        assert warm(house, two)
        async with kept_up(house):
            await until(lambda: not warm(house, two))
        assert warm(house, one)

    house.play(story())


def test_a_rollback_ends_what_only_starts(house: House) -> None:
    """It goes back from what served when it was asked, and what was on its way, which is older than it, ends."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2"))
        house.machine.statuses["0.3"] = 503
        async with kept_up(house) as delivery:
            coming = asyncio.create_task(delivery.release(house.wanted("0.3"), lambda: None))
            await until(lambda: len(house.machine.started) == 3)
            back = await delivery.rollback(PROJECT.id, "production", 99, "ada")
            assert (back.version, house.served()) == ("0.1", "0.1")
            assert (await coming).reason == "ada rolled production back meanwhile"
        assert statuses(house) == [("0.1", "serving"), ("0.2", "rolled_back"), ("0.3", "rejected")]

    house.play(story())


def test_a_rollback_that_is_refused_ends_nothing(house: House) -> None:
    """Where a migration keeps older code out, what is on its way goes on as if nobody had asked."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        contract = migrate(contract=True)
        await house.deliver(house.wanted("0.2", migrate=contract))
        house.machine.statuses["0.3"] = 503
        async with kept_up(house) as delivery:
            coming = asyncio.create_task(delivery.release(house.wanted("0.3"), lambda: None))
            await until(lambda: len(house.machine.started) == 4)
            with pytest.raises(StateError, match="marks the migration contract"):
                await delivery.rollback(PROJECT.id, "production", 99, "ada")
            del house.machine.statuses["0.3"]
            assert (await coming).status is ReleaseStatus.SERVING

    house.play(story())


def test_a_deploy_that_nobody_waits_for_ends(house: House) -> None:
    """What a command that is over had begun, and nobody brings any further, is ended while the coordinator works."""

    async def story() -> None:
        house.machine.statuses["0.1"] = 503
        async with delivering(house, house.wanted("0.1")) as release:
            pass
        async with kept_up(house):
            house.store.requests.refuse(release.request, 130, "its command was killed")
            await until(lambda: house.store.releases.get(release.id).status is ReleaseStatus.REJECTED)
            await until(lambda: not warm(house, release))

    house.play(story())


def test_a_slow_environment_does_not_keep_upkeep_waiting(house: House) -> None:
    """While one environment drains for long, a replica that is gone elsewhere comes back."""

    async def story() -> None:
        slow: dict[str, Any] = {"environment": "staging", "port": 8802}
        old = await house.deliver(house.wanted("1", drain=3600.0, **slow))
        new = await house.deliver(house.wanted("2", **slow))
        release = await house.deliver(house.wanted("0.1"))
        house.router.begin(str(old.id))
        async with kept_up(house) as delivery:
            house.store.releases.move(new.id, "replace", fate="retire")
            house.store.releases.move(old.id, "restore")
            house.store.releases.move(old.id, "replace", fate="retire")
            house.store.releases.move(new.id, "retire")
            house.store.releases.move(new.id, "restore")
            await until(lambda: delivery._turn(PROJECT.id, "staging").locked())
            gone = replica(house, release)
            await house.machine.finish(gone, None)
            await until(lambda: replica(house, release) != gone and warm(house, release))
            assert house.store.releases.get(old.id).status is ReleaseStatus.DRAINING

    house.play(story())


def test_a_rollback_to_what_still_drains(house: House) -> None:
    """Asked for while the older release finishes what it began, it waits for that and then goes back to it."""

    async def story() -> None:
        one = await house.deliver(house.wanted("0.1"))
        house.router.begin(str(one.id))
        async with delivering(house, house.wanted("0.2")) as two:
            await until(lambda: house.store.releases.get(one.id).status is ReleaseStatus.DRAINING)
        async with kept_up(house) as delivery:
            going = asyncio.create_task(delivery.rollback(PROJECT.id, "production", 99, "ada"))
            await until(lambda: delivery._turn(PROJECT.id, "production").locked())
            house.router.finish(str(one.id))
            assert (await going).version == "0.1"
        assert house.store.releases.get(two.id).status is ReleaseStatus.ROLLED_BACK

    house.play(story())


def test_a_rollback_goes_back_from_nothing_else(house: House) -> None:
    """Of two that were asked for at once the second changes nothing: what it meant serves no more."""

    async def story() -> None:
        for version in ("0.1", "0.2", "0.3"):
            await house.deliver(house.wanted(version, keep=2))
        delivery = Delivery(house.world)
        both = [delivery.rollback(PROJECT.id, "production", number, "ada") for number in (98, 99)]
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(first, Release)
        assert isinstance(second, StateError)
        assert "another release serves production by now" in str(second)
        assert house.served() == "0.2"

    house.play(story())


def test_what_serves_without_replicas_is_not_the_same(house: House) -> None:
    """Asked for once more, a release of which nothing is left is released anew, and not taken for what serves."""

    async def story() -> None:
        wanted = house.wanted("0.1")
        release = await house.deliver(wanted)
        await Delivery(house.world)._replicas.end(release.id)
        again = await house.deliver(house.wanted("0.1", package=release.package))
        assert again.id != release.id
        assert house.served() == "0.1"

    house.play(story())


def test_a_defect_leaves_nothing_on_its_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised while a release starts ends it, and what serves goes on."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        delivery = Delivery(house.world)

        async def fails(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(delivery._replicas, "become_healthy", fails)
        with pytest.raises(ZeroDivisionError):
            await delivery.release(house.wanted("0.2"), lambda: None)
        assert statuses(house) == [("0.1", "serving"), ("0.2", "rejected")]
        assert not warm(house, house.store.releases.of()[-1])

    house.play(story())


def test_one_environment_does_not_keep_another_waiting(house: House) -> None:
    """What a dead coordinator had made way for something starts again beside the verbs of other environments."""

    async def story() -> None:
        ill = house.package("0.1", start_timeout=60)
        await house.deliver(house.wanted("0.1", package=ill))
        house.machine.statuses["0.2"] = 503
        alone = house.wanted("0.2", kind="run", rollout=rules(strategy="recreate"))
        async with delivering(house, alone):
            pass
        house.machine.statuses["0.1"] = 503
        recovering = Delivery(house.world)
        task = asyncio.create_task(recovering.recover())
        other = house.wanted("1", environment="staging", port=8802)
        assert (await recovering.release(other, lambda: None)).status is ReleaseStatus.SERVING
        assert not task.done()
        del house.machine.statuses["0.1"]
        await task
        assert house.served() == "0.1"
        for one in recovering.watches:
            one.cancel()

    house.play(story())


def test_a_breach_does_not_wait_for_what_starts(house: House) -> None:
    """A watch that is broken while a newer release starts goes back at once; the newer one ends, with the reason."""

    async def story() -> None:
        watch = WatchRules.model_validate({}).model_dump()
        await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2", watch=watch))
        house.machine.statuses["0.3"] = 503
        async with kept_up(house) as delivery:
            coming = asyncio.create_task(delivery.release(house.wanted("0.3"), lambda: None))
            await until(lambda: len(house.machine.started) == 3)
            house.router.count(str(two.id), answered(1000, 500))
            await until(lambda: house.store.releases.get(two.id).status is ReleaseStatus.ROLLED_BACK)
            assert (await coming).reason == "its watch rolled production back meanwhile"
        assert house.served() == "0.1"

    house.play(story())


def test_a_taken_port_is_the_matter_of_its_environment(house: House) -> None:
    """Where one cannot be reached its release says so until it can; another one is rolled back meanwhile."""

    async def story() -> None:
        staging = await house.deliver(house.wanted("1", environment="staging", port=8802))
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2"))
        house.router.taken.add(8802)
        async with kept_up(house) as delivery:
            await until(lambda: house.store.releases.get(staging.id).phase)
            phase = house.store.releases.get(staging.id).phase or ""
            assert phase.startswith("nobody reaches it: port 8802 of ")
            back = await delivery.rollback(PROJECT.id, "production", 99, "ada")
            assert (back.version, house.served()) == ("0.1", "0.1")
            house.router.taken.clear()
            await until(lambda: house.store.releases.get(staging.id).phase is None)
            assert house.served(8802) == "1"

    house.play(story())


def test_a_release_whose_port_is_taken_is_rejected(house: House) -> None:
    """Its own port is its own matter: it is rejected with the reason, and nothing of it lives on."""

    async def story() -> None:
        house.router.taken.add(8801)
        release = await house.deliver(house.wanted("0.1"))
        assert release.status is ReleaseStatus.REJECTED
        assert "port 8801 of production is taken by another program" in (release.reason or "")
        assert not warm(house, release)

    house.play(story())
