"""Releases on a real store and cache, with servers that really answer: what serves, what stays, what is recovered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from engine.builders import PROJECT, SERVE, House, until
from penstock.engine.delivery import Delivery, Wanted
from penstock.engine.routing import TRIES
from penstock.errors import PenstockError, StateError
from penstock.releases import ReleaseStatus
from penstock.store.contract import Project, Release


def statuses(house: House, environment: str = "production") -> list[tuple[str, str]]:
    """Every release of an environment with its status, oldest first."""
    return [(r.version, r.status.value) for r in house.store.releases.of(PROJECT.id, environment)]


def warm(house: House, release: Release) -> bool:
    """Whether the release's replicas still run."""
    return any(house.machine.runs(r.id) for r in house.store.releases.replicas(release.id))


@asynccontextmanager
async def delivering(house: House, wanted: Wanted) -> AsyncIterator[Release]:
    """A release under way, once its replicas are started; its coordinator is gone at the end."""
    task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
    known = {r.id for r in house.store.releases.of()}
    try:
        await until(lambda: _started(house, known))
        yield next(r for r in house.store.releases.of() if r.id not in known)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _started(house: House, known: set[int]) -> bool:
    new = [r for r in house.store.releases.of() if r.id not in known]
    return bool(new) and any(r.handle for r in house.store.releases.replicas(new[0].id))


# --- one release after the other -----------------------------------------------------------------------------------


def test_the_first_release_serves(house: House) -> None:
    """A package is laid out, started with what the release says, found healthy, and gets all requests."""

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1", replicas=2, variables={"LOG": "warning"}))
        assert (release.status, release.phase, release.replaced) == (ReleaseStatus.SERVING, None, None)
        assert house.served() == "0.1"
        spec = house.machine.started[-1]
        assert len(house.machine.started) == 2
        assert (spec.command, spec.kept) == (SERVE, True)
        assert spec.variables["LOG"] == "warning"
        assert spec.variables["PENSTOCK_ENVIRONMENT"] == "production"
        assert (spec.workspace / "model").read_text() == "0.1"
        assert [b.ports for b in house.router.routes[0].backends] == [
            tuple(r.port for r in house.store.releases.replicas(release.id))
        ]

    house.play(story())


def test_a_replaced_release_stays_warm(house: House) -> None:
    """The new release takes everything, the old one leaves the route and waits; the one before that ends."""

    async def story() -> None:
        one = await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        assert house.served() == "0.2"
        assert two.replaced == one.id
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]
        assert [b.version for r in house.router.routes for b in r.backends] == ["0.2"]
        assert warm(house, one)
        await house.deliver(house.wanted("0.3"))
        assert statuses(house) == [("0.1", "retired"), ("0.2", "retired"), ("0.3", "serving")]
        assert (warm(house, one), warm(house, two)) == (False, True)

    house.play(story())


def test_the_order_of_a_switch(house: House) -> None:
    """The candidate joins at weight 0, takes all at once while the old one drains at 0, then the old one leaves."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        before = len(house.router.history)
        await house.deliver(house.wanted("0.2"))
        seen = [{b.version: b.weight for b in routes[0].backends} for routes in house.router.history[before:]]
        assert seen == [{"0.1": 10_000, "0.2": 0}, {"0.1": 0, "0.2": 10_000}, {"0.2": 10_000}]

    house.play(story())


def test_a_switch_waits_for_open_requests(house: House) -> None:
    """The old release leaves the route only when it has answered what it began."""

    async def story() -> None:
        one = await house.deliver(house.wanted("0.1"))
        house.router.begin(str(one.id))
        async with delivering(house, house.wanted("0.2")) as two:
            await until(lambda: house.served() == "0.2")
            await until(lambda: house.store.releases.get(two.id).phase == "draining 0.1")
            assert house.store.releases.get(one.id).status is ReleaseStatus.DRAINING
            house.router.finish(str(one.id))
            await until(lambda: house.store.releases.get(one.id).status is ReleaseStatus.RETIRED)
            await until(lambda: house.store.releases.get(two.id).phase is None)

    house.play(story())


def test_a_request_that_never_ends_holds_nothing_up(house: House) -> None:
    """After the time for draining the old release leaves, whatever it has not answered, and its server ends."""

    async def story() -> None:
        one = await house.deliver(house.wanted("0.1"))
        house.router.begin(str(one.id))
        async with delivering(house, house.wanted("0.2")):
            await until(lambda: house.store.releases.get(one.id).status is ReleaseStatus.DRAINING)
            house.clock.ahead += 10
            await until(lambda: house.store.releases.get(one.id).status is ReleaseStatus.RETIRED)
            await until(lambda: not warm(house, one))

    house.play(story())


def test_what_serves_already_is_left_as_it_is(house: House) -> None:
    """The same version, package and settings start nothing and change no route, whoever asks."""

    async def story() -> None:
        wanted = house.wanted("0.1")
        first = await house.deliver(wanted)
        history = len(house.router.history)
        again = await house.deliver(house.wanted("0.1", person={"LANG": "C"}))
        assert again.id == first.id
        assert (len(house.machine.started), len(house.router.history)) == (1, history)
        other = await house.deliver(house.wanted("0.1", variables={"LOG": "debug"}))
        assert other.id != first.id

    house.play(story())


def test_what_serves_already_and_died_is_released_anew(house: House) -> None:
    """The same release whose server is gone for good is brought up again."""

    async def story() -> None:
        first = await house.deliver(house.wanted("0.1"))
        await house.machine.vanish()
        again = await house.deliver(house.wanted("0.1"))
        assert again.id != first.id
        assert house.served() == "0.1"

    house.play(story())


def test_an_identical_release_is_still_the_newest_wish(house: House) -> None:
    """Asking again for what serves is a new generation: an older commit that finishes late is refused."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        late = house.wanted("0.2")
        await house.deliver(house.wanted("0.1"))
        refused = await house.deliver(late)
        assert (refused.status, refused.reason) == (ReleaseStatus.REJECTED, "a newer release was there first")
        assert house.served() == "0.1"

    house.play(story())


def test_an_older_generation_is_refused(house: House) -> None:
    """A commit that was asked for earlier and finishes later changes nothing, and leaves nothing running."""

    async def story() -> None:
        late = house.wanted("0.1")
        await house.deliver(house.wanted("0.2"))
        refused = await house.deliver(late)
        assert (refused.status, refused.reason) == (ReleaseStatus.REJECTED, "a newer release was there first")
        assert house.served() == "0.2"
        assert not warm(house, refused)
        assert [b.version for b in house.router.routes[0].backends] == ["0.2"]

    house.play(story())


# --- what does not become healthy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [503, 404, 301, None])
def test_an_unhealthy_release_is_rejected(house: House, status: int | None) -> None:
    """Whoever does not answer 200 in time is rejected with the reason, its process ends, and the old one stays."""

    async def story() -> None:
        old = await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = status
        history = len(house.router.history)
        async with delivering(house, house.wanted("0.2")) as new:
            house.clock.ahead += 200
            await until(lambda: house.store.releases.get(new.id).status is ReleaseStatus.REJECTED)
        found = house.store.releases.get(new.id)
        assert found.reason == "replica 1 of 1 did not answer /health with 200 within 120 s"
        assert house.served() == "0.1"
        assert all({b.version for b in r.backends} == {"0.1"} for s in house.router.history[history:] for r in s)
        assert (warm(house, old), warm(house, found)) == (True, False)

    house.play(story())


def test_a_replica_that_is_killed_with_its_shim_while_it_starts_is_started_again(house: House) -> None:
    """Nothing else would start it, and nobody waits for the time limit to find that out."""

    async def story() -> None:
        house.machine.statuses["0.1"] = None
        async with delivering(house, house.wanted("0.1")) as new:
            await until(lambda: len(house.machine.started) == 1)
            await house.machine.finish(house.machine.started[0].id, None)
            await until(lambda: len(house.machine.started) == 2)
            await house.machine.finish(house.machine.started[1].id, None)
            del house.machine.statuses["0.1"]
            await until(lambda: house.store.releases.get(new.id).status is ReleaseStatus.SERVING)
        assert house.served() == "0.1"

    house.play(story())


def test_a_crash_loop_is_rejected(house: House) -> None:
    """A server that ends again and again is given up at once, with its exit code and the end of its log."""

    async def story() -> None:
        house.machine.script[SERVE] = replace(house.machine.script[SERVE], output="Traceback\nno model\n\n")  # type: ignore[type-var]
        house.machine.statuses["0.1"] = None
        async with delivering(house, house.wanted("0.1")) as new:
            for _ in range(3):
                house.machine.crash(house.machine.started[-1].id, 7)
            await until(lambda: house.store.releases.get(new.id).status is ReleaseStatus.REJECTED)
        assert house.store.releases.get(new.id).reason == (
            "its server ended 3 times before it was healthy, last with exit code 7; its log ends: no model"
        )
        assert house.served() is None

    house.play(story())


def test_the_router_must_agree(house: House) -> None:
    """A release that answers us but that the router finds ill is rejected, and gets no request."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        async with delivering(house, house.wanted("0.2")) as new:
            house.router.ill = {r.port for r in house.store.releases.replicas(new.id)}
            house.machine.statuses["0.2"] = 200
            await until(lambda: house.store.releases.get(new.id).phase == "joining the router")
            house.clock.ahead += 10
            await until(lambda: house.store.releases.get(new.id).status is ReleaseStatus.REJECTED)
            await until(lambda: [b.version for b in house.router.routes[0].backends] == ["0.1"])
        assert house.store.releases.get(new.id).reason == "the router did not find its replicas healthy"

    house.play(story())


def test_a_router_that_refuses(house: House) -> None:
    """Where the router cannot take the candidate in, the release is rejected with its sentence."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.router.refusal = "Envoy refused the listener: port 8801 is in use"
        house.router.refusals = TRIES + 1
        new = await house.deliver(house.wanted("0.2"))
        assert (new.status, new.reason) == (
            ReleaseStatus.REJECTED,
            "Envoy refused the listener: port 8801 is in use",
        )
        assert house.served() == "0.1"
        assert not warm(house, new)

    house.play(story())


def test_a_package_that_was_lost(house: House) -> None:
    """A package whose bytes are gone is rejected and says so; what serves goes on."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        lost = house.wanted("0.2")
        tree = house.world.cache.tree(house.package("0.2"))
        house.world.cache.sweep({*tree.digests()} - {tree.entries["files/model"].digest}, 0, house.clock.now() + 9)  # type: ignore[union-attr]
        with suppress(PenstockError):  # the run is errored or failed; the release is rejected either way
            await house.deliver(lost)
        release = house.store.releases.of()[-1]
        assert release.status is ReleaseStatus.REJECTED
        assert "is not in the cache" in (release.reason or "")
        assert house.served() == "0.1"

    house.play(story())


# --- ports ---------------------------------------------------------------------------------------------------------


def test_a_port_belongs_to_one_environment(house: House) -> None:
    """A port on which another project serves is refused with its owner's name, before anything starts."""

    async def story() -> None:
        house.store.runs.project(Project("p2", "houses", "example.org/houses", "penstock.yaml", "houses"))
        await house.deliver(house.wanted("9.0", project="p2", environment="live"))
        refused = await house.deliver(house.wanted("0.1"))
        assert (refused.status, refused.reason) == (
            ReleaseStatus.REJECTED,
            "port 8801 belongs to live of houses: give one of them another port",
        )
        assert len(house.machine.started) == 1
        assert house.served() == "9.0"
        assert (await house.deliver(house.wanted("0.1", port=8802))).status is ReleaseStatus.SERVING
        assert (house.served(8801), house.served(8802)) == ("9.0", "0.1")

    house.play(story())


def test_an_environment_may_move_to_another_port(house: House) -> None:
    """A release on another port takes its environment there; the old port is free again."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2", port=8802))
        assert (house.served(8801), house.served(8802)) == (None, "0.2")

    house.play(story())


def test_replicas_never_share_a_port(house: House) -> None:
    """Every replica of the home has a port of its own, warm ones included."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1", replicas=3))
        await house.deliver(house.wanted("0.2", replicas=3))
        ports = [r.port for r in house.store.releases.all_replicas()]
        assert len(ports) == len(set(ports)) == 6

    house.play(story())


# --- rollback and stop ---------------------------------------------------------------------------------------------


def test_a_rollback_needs_no_start(house: House) -> None:
    """The warm release gets the traffic back as it stands; the one rolled back from ends, with the reason."""

    async def story() -> None:
        one = await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        back = await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")
        assert (back.id, back.status, back.phase) == (one.id, ReleaseStatus.SERVING, None)
        assert house.served() == "0.1"
        assert len(house.machine.started) == 2
        gone = house.store.releases.get(two.id)
        assert (gone.status, gone.reason) == (ReleaseStatus.ROLLED_BACK, "rolled back to 0.1 by ada")
        assert not warm(house, two)
        with pytest.raises(StateError, match="production has no earlier release to go back to"):
            await Delivery(house.world).rollback(PROJECT.id, "production", 100, "ada")

    house.play(story())


def test_a_rollback_starts_what_is_cold(house: House) -> None:
    """Where the earlier release does not run any more, it is started anew and proved healthy first."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        await house.deliver(house.wanted("0.3"))
        await Delivery(house.world).rollback(PROJECT.id, "production", 98, "ada")
        assert house.served() == "0.2"
        assert warm(house, two)
        started = len(house.machine.started)
        await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")
        assert house.served() == "0.1"
        assert len(house.machine.started) == started + 1

    house.play(story())


def test_a_rollback_is_a_new_generation(house: House) -> None:
    """A release that was asked for before the rollback does not undo it."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2"))
        late = house.wanted("0.3")
        newer = house.wanted("0.4")
        await Delivery(house.world).rollback(PROJECT.id, "production", newer.generation, "ada")
        refused = await house.deliver(late)
        assert refused.status is ReleaseStatus.REJECTED
        assert house.served() == "0.1"

    house.play(story())


def test_a_rollback_that_comes_too_late(house: House) -> None:
    """A rollback that a newer wish overtook says so, and changes nothing."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        with pytest.raises(StateError, match="newer"):
            await Delivery(house.world).rollback(PROJECT.id, "production", two.generation - 1, "ada")
        assert house.served() == "0.2"

    house.play(story())


def test_a_first_release_has_nothing_to_go_back_to(house: House) -> None:
    """Without an earlier release a rollback is refused, and so it is where nothing serves."""

    async def story() -> None:
        delivery = Delivery(house.world)
        for _ in range(2):
            with pytest.raises(StateError, match="production has no earlier release to go back to"):
                await delivery.rollback(PROJECT.id, "production", 99, "ada")
            await house.deliver(house.wanted("0.1"))

    house.play(story())


def test_stop_ends_everything(house: House) -> None:
    """After a stop nothing of the home runs, warm ones included, and nothing listens."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2"))
        await house.deliver(house.wanted("1.0", environment="staging", port=8802))
        delivery = Delivery(house.world)
        assert await delivery.stop(PROJECT.id, "staging") == ["staging 1.0"]
        assert (house.served(8801), house.served(8802)) == ("0.2", None)
        assert await delivery.stop(None, None) == ["production 0.2"]
        assert house.router.routes == ()
        assert not any(house.machine.runs(spec.id) for spec in house.machine.started)
        assert await delivery.stop(None, None) == []
        assert {status for _, status in statuses(house)} == {"retired"}

    house.play(story())


def test_stop_in_the_midst_of_a_drain(house: House) -> None:
    """What was draining when its coordinator died is stopped like the rest."""

    async def story() -> None:
        old = await house.deliver(house.wanted("0.1"))
        house.router.begin(str(old.id))
        async with delivering(house, house.wanted("0.2")):
            await until(lambda: house.store.releases.get(old.id).status is ReleaseStatus.DRAINING)
        assert await Delivery(house.world).stop(None, None) == ["production 0.2"]
        assert statuses(house) == [("0.1", "retired"), ("0.2", "retired")]
        assert not any(house.machine.runs(spec.id) for spec in house.machine.started)

    house.play(story())


# --- recovery ------------------------------------------------------------------------------------------------------


def test_recovery_of_what_serves(house: House) -> None:
    """A new coordinator finds the servers where they are, and gives the router its state."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.router.stop()
        await Delivery(house.world).recover()
        assert house.served() == "0.1"
        assert len(house.machine.started) == 1

    house.play(story())


def test_recovery_after_a_reboot(house: House) -> None:
    """What should serve is started again on its own port; what was warm is not."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        before = house.store.releases.replicas(two.id)
        await house.machine.vanish()
        await Delivery(house.world).recover()
        after = house.store.releases.replicas(two.id)
        assert [r.port for r in after] == [r.port for r in before]
        assert [r.id for r in after] != [r.id for r in before]
        assert warm(house, two)
        assert house.served() == "0.2"
        assert len(house.machine.started) == 3

    house.play(story())


def test_recovery_of_a_home_that_serves_nothing(house: House) -> None:
    """Nothing to serve means no router."""

    async def story() -> None:
        await Delivery(house.world).recover()
        assert house.router.history == []

    house.play(story())


def test_recovery_while_starting(house: House) -> None:
    """A release that a dead coordinator had started is gone on with: same release, same process, then it serves."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        wanted = house.wanted("0.2", kind="run")
        async with delivering(house, wanted) as begun:
            pass
        assert house.store.releases.get(begun.id).status is ReleaseStatus.STARTING
        house.machine.statuses["0.2"] = 200
        delivery = Delivery(house.world)
        await delivery.recover()
        assert house.served() == "0.1"
        release = await delivery.release(wanted, lambda: None)
        assert (release.id, release.status) == (begun.id, ReleaseStatus.SERVING)
        assert house.served() == "0.2"
        assert len(house.machine.started) == 2

    house.play(story())


def test_recovery_of_a_start_that_was_never_recorded(house: House) -> None:
    """A replica whose process exists but whose handle was lost is found again, not started twice."""

    async def story() -> None:
        house.machine.statuses["0.1"] = 503
        wanted = house.wanted("0.1", kind="run")
        async with delivering(house, wanted) as begun:
            replica = house.store.releases.replicas(begun.id)[0]
        house.store.releases.note_replica(replica.id, handle=None, status="starting")
        house.machine.statuses["0.1"] = 200
        release = await house.deliver(wanted)
        assert release.status is ReleaseStatus.SERVING
        assert len(house.machine.started) == 1

    house.play(story())


def test_a_start_that_never_happened(house: House) -> None:
    """A replica that was only intended is started on the port that it was given."""

    async def story() -> None:
        wanted = house.wanted("0.1", kind="run")
        house.machine.statuses["0.1"] = 503
        async with delivering(house, wanted) as begun:
            first = house.store.releases.replicas(begun.id)[0]
        house.store.releases.note_replica(first.id, status="ended")
        await house.machine.vanish()
        intended = house.store.releases.add_replica(begun.id, 0, first.port)
        house.machine.statuses["0.1"] = 200
        assert (await house.deliver(wanted)).status is ReleaseStatus.SERVING
        replicas = house.store.releases.replicas(begun.id)
        assert [r.port for r in replicas] == [intended.port]
        assert warm(house, begun)

    house.play(story())


def test_stop_ends_a_process_that_was_never_recorded(house: House) -> None:
    """A replica whose handle was lost is ended like any other."""

    async def story() -> None:
        house.machine.statuses["0.1"] = 503
        async with delivering(house, house.wanted("0.1")) as begun:
            replica = house.store.releases.replicas(begun.id)[0]
        house.store.releases.note_replica(replica.id, handle=None, status="starting")
        await Delivery(house.world).stop(None, None)
        assert not house.machine.runs(replica.id)
        assert statuses(house) == [("0.1", "rejected")]

    house.play(story())


def test_recovery_of_a_deploy_whose_command_died(house: House) -> None:
    """A release asked for by hand is not brought up behind the back of somebody who is gone."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        wanted = house.wanted("0.2")
        async with delivering(house, wanted) as begun:
            pass
        house.store.requests.refuse(wanted.request, 3, "the command that asked for it died: ask again")
        await Delivery(house.world).recover()
        found = house.store.releases.get(begun.id)
        assert (found.status, found.reason) == (ReleaseStatus.REJECTED, "the command that asked for it died")
        assert not warm(house, begun)
        assert house.served() == "0.1"

    house.play(story())


def _promote(house: House, old: Release, new: Release) -> None:
    """What a switch writes before it tells the router."""
    releases = house.store.releases
    with house.store.transaction(durable=True):
        releases.advance(new.project, new.environment, new.generation)
        releases.move(old.id, "replace", fate="retire")
        releases.move(new.id, "promote", replaced=old.id)


def test_recovery_before_the_router_was_told(house: House) -> None:
    """A switch that stands in the store is carried out by the next coordinator, and asking again changes nothing."""

    async def story() -> None:
        old = await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        wanted = house.wanted("0.2", kind="run")
        async with delivering(house, wanted) as new:
            pass
        house.machine.statuses["0.2"] = 200
        _promote(house, old, new)
        assert house.served() == "0.1"
        delivery = Delivery(house.world)
        await delivery.recover()
        assert house.served() == "0.2"
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]
        assert warm(house, old)
        assert (await delivery.release(wanted, lambda: None)).id == new.id
        assert len(house.machine.started) == 2

    house.play(story())


def test_recovery_while_draining(house: House) -> None:
    """A drain that a dead coordinator began is finished, once the old release has answered what it began."""

    async def story() -> None:
        old = await house.deliver(house.wanted("0.1"))
        house.router.begin(str(old.id))
        async with delivering(house, house.wanted("0.2")):
            await until(lambda: house.store.releases.get(old.id).status is ReleaseStatus.DRAINING)
        recovering = asyncio.create_task(Delivery(house.world).recover())
        await until(lambda: {b.version: b.weight for b in house.router.routes[0].backends} == {"0.1": 0, "0.2": 10_000})
        house.router.finish(str(old.id))
        await recovering
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]
        assert warm(house, old)
        assert [b.version for b in house.router.routes[0].backends] == ["0.2"]

    house.play(story())


def test_recovery_of_a_rollback_that_drains(house: House) -> None:
    """The fate of a drain outlives its coordinator: rolled back stays rolled back."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        two = await house.deliver(house.wanted("0.2"))
        house.router.begin(str(two.id))
        rolling = asyncio.create_task(Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada"))
        await until(lambda: house.store.releases.get(two.id).status is ReleaseStatus.DRAINING)
        rolling.cancel()
        with suppress(asyncio.CancelledError):
            await rolling
        house.router.finish(str(two.id))
        await Delivery(house.world).recover()
        assert statuses(house) == [("0.1", "serving"), ("0.2", "rolled_back")]
        assert house.store.releases.get(two.id).reason == "rolled back to 0.1 by ada"

    house.play(story())


def test_a_rollback_is_not_made_twice(house: House) -> None:
    """A coordinator that finds a rollback switched and not answered answers it; it does not go back once more."""

    async def story() -> None:
        for version in ("0.1", "0.2", "0.3"):
            await house.deliver(house.wanted(version, keep=2))
        for _ in range(2):
            back = await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")
            assert (back.version, house.served()) == ("0.2", "0.2")

    house.play(story())


def test_one_rollout_at_a_time(house: House) -> None:
    """Of two wishes for one environment at once the newer takes the older one's place; never do both go on."""

    async def story() -> None:
        delivery = Delivery(house.world)
        first, second = house.wanted("0.1"), house.wanted("0.2")
        done = await asyncio.gather(*(delivery.release(w, lambda: None) for w in (first, second)))
        assert [(r.status, r.reason) for r in done] == [
            (ReleaseStatus.REJECTED, "a newer release takes its place"),
            (ReleaseStatus.SERVING, None),
        ]
        assert all(len(s[0].backends) <= 2 for s in house.router.history)

    house.play(story())


def test_two_alike_at_once(house: House) -> None:
    """Two wishes for the same package and settings are one release, whoever asked first."""

    async def story() -> None:
        delivery = Delivery(house.world)
        wanted = [house.wanted("0.1"), house.wanted("0.1")]
        done = await asyncio.gather(*(delivery.release(w, lambda: None) for w in wanted))
        assert len({r.id for r in done}) == 1
        assert statuses(house) == [("0.1", "serving")]

    house.play(story())


# --- interrupted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "status", "reason"),
    [("canceled", ReleaseStatus.REJECTED, "canceled"), ("interrupted", ReleaseStatus.STARTING, None)],
)
def test_a_rollout_that_is_stopped(house: House, why: str, status: ReleaseStatus, reason: str | None) -> None:
    """Before the switch a rollout can be stopped: its processes end, and only an interrupted one may go on later."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        release = await Delivery(house.world).release(house.wanted("0.2", kind="run"), lambda: why)
        assert (release.status, release.reason) == (status, reason)
        assert not warm(house, release)
        assert house.served() == "0.1"

    house.play(story())


def test_an_interrupted_rollout_goes_on(house: House) -> None:
    """Asked for again by the same request, an interrupted release is started anew and serves."""

    async def story() -> None:
        wanted = house.wanted("0.1", kind="run")
        stopped = await Delivery(house.world).release(wanted, lambda: "interrupted")
        release = await house.deliver(wanted)
        assert (release.id, release.status) == (stopped.id, ReleaseStatus.SERVING)
        assert house.served() == "0.1"

    house.play(story())


def test_a_machine_that_cannot_start_a_server(house: House) -> None:
    """A process that cannot be placed rejects the release with the runner's sentence."""

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1", variables={"LOG": "a\0b"}))
        assert release.status is ReleaseStatus.REJECTED
        assert "holds a NUL character" in (release.reason or "")
        assert house.store.releases.all_replicas() == []

    house.play(story())


def test_a_damaged_package_is_refused(house: House) -> None:
    """A package whose manifest is no manifest is told as damaged."""

    async def story() -> None:
        bad = house.wanted("0.1", package=house.package("0.1", path=3))
        with suppress(PenstockError):  # as above
            await house.deliver(bad)
        release = house.store.releases.of()[-1]
        assert release.status is ReleaseStatus.REJECTED
        assert release.reason == "the package's manifest is damaged: build the version again"

    house.play(story())


def test_all_that_the_journal_holds(house: House) -> None:
    """The store tells a rollout in the order in which it happened."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2"))
        rows = house.store._connection.exec_driver_sql(
            "SELECT entity, event FROM events WHERE kind = 'release' ORDER BY seq"
        )
        assert [tuple(row) for row in rows] == [
            ("1", "add"),
            ("1", "promote"),
            ("2", "add"),
            ("1", "replace"),
            ("2", "promote"),
            ("1", "retire"),
        ]

    house.play(story())
