"""Rollouts in traffic on a real store, with servers that really answer and a router whose counters a test turns."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from engine.builders import PROJECT, House, until
from penstock.engine.contracts import Counted
from penstock.engine.delivery import Delivery, FrozenError, Wanted
from penstock.engine.happenings import happenings
from penstock.environments import RolloutRules
from penstock.errors import StateError
from penstock.releases import Frozen, ReleaseStatus
from penstock.rollouts import FULL, Asked
from penstock.store.contract import Release
from penstock.traffic import EDGES_MS, Arm

QUICK = {"canary": ["5%", "25%"], "interval": 0.001, "deadline": "30m"}


def rules(**fields: Any) -> dict[str, Any]:
    """What a release's spec holds of the file's `rollout`."""
    return RolloutRules.model_validate(fields or QUICK).model_dump()


def answered(requests: int, errors: int = 0) -> Arm:
    """Requests that were answered within a millisecond."""
    return Arm(requests, errors, (requests, *(0 for _ in EDGES_MS)))


def statuses(house: House) -> list[tuple[str, str]]:
    return [(r.version, r.status.value) for r in house.store.releases.of(PROJECT.id, "production")]


def split(house: House) -> dict[str, int]:
    """Version to weight, as the router has it."""
    return {b.version: b.weight for route in house.router.routes for b in route.backends}


async def calls(house: House, canary_errors: int = 0) -> None:
    """Requests in the shares of the split, every hundredth of a second; of 10,000 of the canary's so many fail."""
    while True:
        for route in house.router.routes:
            for backend in route.backends:
                tried = house.store.releases.get(int(backend.release)).status is ReleaseStatus.CANARY
                share = backend.weight or backend.mirror
                errors = share * canary_errors // FULL if tried else 0
                house.router.count(backend.release, answered(share, errors))
        await asyncio.sleep(0.01)


@asynccontextmanager
async def asked(house: House, canary_errors: int = 0) -> AsyncIterator[None]:
    task = asyncio.create_task(calls(house, canary_errors))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def rolling(house: House, wanted: Wanted) -> AsyncIterator[asyncio.Task[Release]]:
    """A release once it is in traffic; its coordinator is gone at the end."""
    task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
    try:
        await until(lambda: tried(house) is not None or task.done())
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def tried(house: House) -> Release | None:
    found = [r for r in house.store.releases.of() if r.status is ReleaseStatus.CANARY]
    return found[-1] if found else None


def test_a_healthy_canary_gets_all_traffic(house: House) -> None:
    """It goes by its widths, each recorded with its reason, and the release before stays warm."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with asked(house):
            release = await house.deliver(house.wanted("0.2", rollout=rules()))
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]
        widths = [b.weight for routes in house.router.history for b in routes[0].backends if b.version == "0.2"]
        assert list(dict.fromkeys(widths)) == [0, 500, 2500, FULL]
        moves = (release.rollout or {})["moves"]
        assert [(m["kind"], m["width"]) for m in moves] == [("widen", 500), ("widen", 2500), ("promote", FULL)]
        assert "errors in" in moves[-1]["reason"]
        assert (release.phase, split(house)) == (None, {"0.2": FULL})
        assert told(house)[1:] == [("tried", "ada"), ("tried", "its evidence"), ("released", "its evidence")]

    house.play(story())


def test_the_first_release_has_nothing_to_be_compared_with(house: House) -> None:
    """It is promoted once it is healthy."""

    async def story() -> None:
        release = await house.deliver(house.wanted("0.1", rollout=rules()))
        assert (release.status, release.rollout) == (ReleaseStatus.SERVING, None)

    house.play(story())


def test_harm_rolls_back(house: House) -> None:
    """The canary's errors take its traffic away: routing first, then it finishes and ends; the reason stands on it."""

    async def story() -> None:
        first = await house.deliver(house.wanted("0.1"))
        async with asked(house, canary_errors=2000):
            release = await house.deliver(house.wanted("0.2", rollout=rules()))
        assert statuses(house) == [("0.1", "serving"), ("0.2", "rolled_back")]
        assert split(house) == {"0.1": FULL}
        assert release.reason is not None
        assert release.reason.startswith("at 5 % errors:")
        assert (release.rollout or {})["move"]["cause"] == "evidence"
        assert not house.store.releases.replicas(release.id)
        assert house.store.releases.replicas(first.id)
        drained = [split_of(routes) for routes in house.router.history][-2]
        assert drained == {"0.1": FULL, "0.2": 0}
        assert told(house)[1:] == [("tried", "ada"), ("rolled back", "its evidence")]

    house.play(story())


def told(house: House) -> list[tuple[str, str]]:
    """What the environment's history says was done, and by whom."""
    return [(one.what, one.who) for one in happenings(house.store, PROJECT.id, "production")]


def split_of(routes: Any) -> dict[str, int]:
    return {b.version: b.weight for b in routes[0].backends}


def test_silence_ends_at_the_deadline(house: House) -> None:
    """No request is no success: it holds, says how many are missing, and is rolled back undecided."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", rollout=rules())) as task:
            await until(lambda: (found := tried(house)) is not None and "move" in (found.rollout or {}))
            house.clock.ahead += 1900
            release = await task
        assert release.status is ReleaseStatus.ROLLED_BACK
        assert (release.rollout or {})["move"]["cause"] == "deadline"
        assert "about 336 more requests are missing" in (release.reason or "")

    house.play(story())


@pytest.mark.parametrize(("wish", "status"), [("promote", ReleaseStatus.SERVING), ("abort", ReleaseStatus.ROLLED_BACK)])
def test_a_person_ends_it(house: House, wish: Any, status: ReleaseStatus) -> None:
    """Whatever the evidence, and the reason names who and why; with no rollout there is nothing to end."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        delivery = Delivery(house.world)
        word = Asked(house.clock.now(), wish, "ada", "a holiday")
        task = asyncio.create_task(delivery.release(house.wanted("0.2", rollout=rules()), lambda: None))
        await until(lambda: tried(house) is not None)
        assert (await delivery.wish(PROJECT.id, "production", word)).status is status
        assert (await task).status is status
        assert (await task).rollout["move"]["reason"] == f"ada asked to {wish}: a holiday"  # type: ignore[index]
        with pytest.raises(StateError, match=f"production has no rollout to {wish}"):
            await delivery.wish(PROJECT.id, "production", word)

    house.play(story())


def test_an_abort_before_traffic_rejects(house: House) -> None:
    """What is not healthy yet is aborted too; to promote it is refused."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        delivery = Delivery(house.world)
        task = asyncio.create_task(delivery.release(house.wanted("0.2", rollout=rules()), lambda: None))
        await until(lambda: len(house.machine.started) == 2)
        with pytest.raises(StateError, match="not healthy yet"):
            await delivery.wish(PROJECT.id, "production", Asked(1.0, "promote", "ada"))
        release = await delivery.wish(PROJECT.id, "production", Asked(1.0, "abort", "ada"))
        assert (release.status, release.reason) == (ReleaseStatus.REJECTED, "ada asked to abort")
        assert (await task).id == release.id

    house.play(story())


def test_a_rollback_in_a_rollout_is_an_abort(house: House) -> None:
    """Whoever says rollback while a canary is out is told the word for it, and nothing changes."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", rollout=rules())):
            with pytest.raises(StateError, match="penstock abort production ends it"):
                await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")
            assert tried(house) is not None

    house.play(story())


def test_a_candidate_without_health_goes_back(house: House) -> None:
    """Once no replica of it is healthy for some looks, it is rolled back whatever was counted."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", rollout=rules())) as task:
            candidate = tried(house)
            assert candidate is not None
            house.router.ill |= {r.port for r in house.store.releases.replicas(candidate.id)}
            release = await task
        assert release.reason == "none of its replicas is healthy any more"

    house.play(story())


def test_a_router_that_began_anew_is_a_gap(house: House) -> None:
    """What it had counted before is not counted twice and not taken for a fall; judging goes on."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", rollout=rules())) as task:
            candidate = tried(house)
            assert candidate is not None
            house.router.count(str(candidate.id), answered(100))
            await until(lambda: seen(house, candidate.id) == 100)
            looks = looks_at(house)
            house.router.begin_anew()
            house.router.count(str(candidate.id), answered(30))
            await until(lambda: len(looks) > 1)
            assert seen(house, candidate.id) == 100
            house.router.count(str(candidate.id), answered(1))
            await until(lambda: seen(house, candidate.id) == 101)
            assert not task.done()

    house.play(story())


def looks_at(house: House) -> list[None]:
    """An entry for each look at the router's counters from now on."""
    looks: list[None] = []
    counted = house.router.counted

    async def heard(releases: Sequence[str]) -> Counted:
        looks.append(None)
        return await counted(releases)

    house.router.counted = heard  # type: ignore[method-assign]  # what it tells stays as it is
    return looks


def seen(house: House, release: int) -> int:
    """The requests of a canary that count."""
    return int((house.store.releases.get(release).rollout or {})["state"]["evidence"]["canary"]["requests"])


def test_a_new_coordinator_goes_on_where_the_old_one_died(house: House) -> None:
    """The width holds, what was seen counts on, and it is judged to its end although nobody asks."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", rollout=rules())):
            candidate = tried(house)
            assert candidate is not None
            house.router.count(str(candidate.id), answered(100))
            await until(lambda: seen(house, candidate.id) == 100)
        assert split(house) == {"0.1": 9500, "0.2": 500}
        delivery = Delivery(house.world)
        await delivery.recover()
        assert split(house) == {"0.1": 9500, "0.2": 500}
        assert seen(house, candidate.id) == 100
        async with asked(house):
            await until(lambda: statuses(house)[-1] == ("0.2", "serving"))
            await until(lambda: statuses(house)[0] == ("0.1", "retired"))
            for task in delivery.watches:
                task.cancel()
            await asyncio.gather(*delivery.watches, return_exceptions=True)
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]

    house.play(story())


def test_what_came_to_its_end_is_not_begun_again(house: House) -> None:
    """A run that asks again for what was rolled back meanwhile hears how it ended; an interrupted one begins anew."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        wanted = house.wanted("0.2", kind="run", rollout=rules())
        async with asked(house, canary_errors=2000):
            first = await house.deliver(wanted)
            assert (await house.deliver(wanted)).id == first.id
        other = house.wanted("0.3", kind="run", rollout=rules())
        stop: list[str] = []
        task = asyncio.create_task(Delivery(house.world).release(other, lambda: stop[0] if stop else None))
        await until(lambda: tried(house) is not None)
        stop.append("interrupted")
        interrupted = await task
        assert (interrupted.status, interrupted.reason) == (ReleaseStatus.ROLLED_BACK, "interrupted")
        async with asked(house):
            again = await house.deliver(other)
        assert (again.id > interrupted.id, again.status) == (True, ReleaseStatus.SERVING)

    house.play(story())


def test_a_newer_release_takes_its_place(house: House) -> None:
    """A canary makes way for a newer release, which is compared with what serves, not with it."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        delivery = Delivery(house.world)
        older = asyncio.create_task(delivery.release(house.wanted("0.2", rollout=rules()), lambda: None))
        await until(lambda: tried(house) is not None)
        async with asked(house):
            newer = await delivery.release(house.wanted("0.3", rollout=rules()), lambda: None)
        assert ((await older).status, (await older).reason) == (
            ReleaseStatus.ROLLED_BACK,
            "a newer release takes its place",
        )
        assert newer.status is ReleaseStatus.SERVING
        assert statuses(house) == [("0.1", "retired"), ("0.2", "rolled_back"), ("0.3", "serving")]

    house.play(story())


def test_what_nobody_can_judge_keeps_no_traffic(house: House) -> None:
    """A defect while it is judged takes the canary's traffic away before it is reported."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with rolling(house, house.wanted("0.2", rollout=rules())) as task:

            async def fail(_: Sequence[str]) -> Counted:
                raise ValueError("a defect")

            house.router.counted = fail  # type: ignore[assignment,method-assign]  # a defect of the router's
            with pytest.raises(ValueError, match="a defect"):
                await task
        assert statuses(house) == [("0.1", "serving"), ("0.2", "rolled_back")]
        assert split(house) == {"0.1": FULL}

    house.play(story())


def test_what_is_frozen_lets_a_rollout_go_on(house: House) -> None:
    """A newer release that a freeze refuses takes nobody's place."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        delivery = Delivery(house.world)
        older = asyncio.create_task(delivery.release(house.wanted("0.2", rollout=rules()), lambda: None))
        await until(lambda: tried(house) is not None)
        house.store.releases.freeze(PROJECT.id, "production", Frozen("ada", "an audit", 1.0, 1))
        newer = asyncio.create_task(delivery.release(house.wanted("0.3", rollout=rules()), lambda: None))
        async with asked(house):
            assert (await older).status is ReleaseStatus.SERVING
        with pytest.raises(FrozenError, match="an audit"):
            await newer

    house.play(story())


def test_the_port_moves_with_the_promotion(house: House) -> None:
    """A release with another port is tried at the port of what serves, at half of the traffic too."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        wanted = house.wanted("0.2", port=8802, rollout=rules(canary="50%", interval=0.001, deadline="30m"))
        async with rolling(house, wanted) as task:
            assert {(b.version, b.weight) for b in house.router.routes[0].backends} == {("0.1", 5000), ("0.2", 5000)}
            assert house.router.routes[0].port == 8801
            async with asked(house):
                assert (await task).status is ReleaseStatus.SERVING
        assert [route.port for route in house.router.routes] == [8802]

    house.play(story())


def test_a_router_that_does_not_follow_is_asked_again(house: House) -> None:
    """A refusal while a canary is taken back leaves it no traffic: the router is given the same once more."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        delivery = Delivery(house.world)
        task = asyncio.create_task(delivery.release(house.wanted("0.2", rollout=rules()), lambda: None))
        await until(lambda: split(house) == {"0.1": 9500, "0.2": 500})
        house.router.refusal = "not now"
        await delivery.wish(PROJECT.id, "production", Asked(1.0, "abort", "ada"))
        assert (await task).status is ReleaseStatus.ROLLED_BACK
        assert split(house) == {"0.1": FULL}

    house.play(story())


def test_what_cannot_come_back_is_told(house: House) -> None:
    """An old release that does not start again leaves the new one's reason standing, and hinders nobody else."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.1", environment="staging", port=8803))
        house.machine.statuses["0.2"] = 503
        async with delivering(house, house.wanted("0.2", rollout=rules(strategy="recreate"))) as task:
            house.machine.statuses["0.1"] = 503
            house.clock.ahead += 1000
            await until(lambda: len(house.machine.started) >= 4)
            house.clock.ahead += 1000
            release = await task
        assert release.status is ReleaseStatus.REJECTED
        assert "did not answer /health with 200" in (release.reason or "")
        assert "and what served before cannot be started again" in (release.reason or "")
        await Delivery(house.world).recover()
        assert house.served(8803) is not None

    house.play(story())


def test_an_older_release_is_not_even_tried(house: House) -> None:
    """What comes late is refused before it gets a single request."""

    async def story() -> None:
        late = house.wanted("0.2", rollout=rules())
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.3"))
        release = await house.deliver(late)
        assert (release.status, release.reason) == (ReleaseStatus.REJECTED, "a newer release was there first")
        assert "0.2" not in {b.version for routes in house.router.history for b in routes[0].backends}
        assert "0.2" not in {spec.variables["PENSTOCK_VERSION"] for spec in house.machine.started}

    house.play(story())


def test_stop_ends_a_rollout(house: House) -> None:
    """`penstock stop` does not wait for the evidence; nothing of both releases lives afterwards."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        delivery = Delivery(house.world)
        task = asyncio.create_task(delivery.release(house.wanted("0.2", rollout=rules()), lambda: None))
        await until(lambda: tried(house) is not None)
        await delivery.stop(None, None)
        assert (await task).reason == "stopped"
        assert not house.store.releases.all_replicas()
        assert house.router.routes == ()

    house.play(story())


def test_a_shadow_gets_copies(house: House) -> None:
    """All requests are answered by what serves; copies of a part are compared, and then it is promoted."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        wanted = house.wanted("0.2", rollout=rules(shadow="50%", interval=0.001, deadline="30m"))
        async with rolling(house, wanted) as task:
            backends = {b.version: (b.weight, b.mirror) for b in house.router.routes[0].backends}
            assert backends == {"0.1": (FULL, 0), "0.2": (0, 5000)}
            async with asked(house):
                assert (await task).status is ReleaseStatus.SERVING
        assert split(house) == {"0.2": FULL}

    house.play(story())


def test_recreate_steps_aside(house: House) -> None:
    """The old release has ended before the new one starts; at no moment do both live."""

    async def story() -> None:
        old = await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        async with delivering(house, house.wanted("0.2", rollout=rules(strategy="recreate"))) as task:
            assert not house.store.releases.replicas(old.id)
            house.machine.statuses["0.2"] = 200
            assert (await task).status is ReleaseStatus.SERVING
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]

    house.play(story())


@asynccontextmanager
async def delivering(house: House, wanted: Wanted) -> AsyncIterator[asyncio.Task[Release]]:
    """A release whose first replica has started; its coordinator is gone at the end."""
    before = len(house.machine.started)
    task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
    try:
        await until(lambda: len(house.machine.started) > before)
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_what_stepped_aside_comes_back(house: House) -> None:
    """Where the new release never becomes healthy the old one is started and serves again."""

    async def story() -> None:
        old = await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        async with delivering(house, house.wanted("0.2", rollout=rules(strategy="recreate"))) as task:
            house.clock.ahead += 1000
            assert (await task).status is ReleaseStatus.REJECTED
        assert statuses(house) == [("0.1", "serving"), ("0.2", "rejected")]
        assert house.served() == "0.1"
        assert house.store.releases.replicas(old.id)

    house.play(story())


def test_recreate_goes_back_alone(house: House) -> None:
    """Where no two releases may run at once, a rollback ends the newer one before it starts the older one."""

    async def story() -> None:
        alone = rules(strategy="recreate")
        await house.deliver(house.wanted("0.1", rollout=alone))
        two = await house.deliver(house.wanted("0.2", rollout=alone))
        back = await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")
        assert (back.version, back.status, back.phase) == ("0.1", ReleaseStatus.SERVING, None)
        assert house.served() == "0.1"
        assert not house.store.releases.replicas(two.id)
        events = house.store.releases.events([back.id, two.id])
        assert [e.event for e in events][-3:] == ["replace", "restore", "roll_back"]
        assert all(len({b.version for b in routes[0].backends}) == 1 for routes in house.router.history if routes)

    house.play(story())


def test_recreate_goes_back_to_what_does_not_start(house: House) -> None:
    """The older release has its place, and whoever asked is told that it does not answer."""

    async def story() -> None:
        alone = rules(strategy="recreate")
        await house.deliver(house.wanted("0.1", package=house.package("0.1", start_timeout=0.2), rollout=alone))
        await house.deliver(house.wanted("0.2", rollout=alone))
        house.machine.statuses["0.1"] = 503
        with pytest.raises(StateError, match=r"0\.1 has its place back, and does not serve: replica 1 of 1 did not"):
            await Delivery(house.world).rollback(PROJECT.id, "production", 99, "ada")

    house.play(story())


def test_recreate_and_the_coordinators_death(house: House) -> None:
    """Whoever comes next has the old release serve again at once; the run goes on from the beginning."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        house.machine.statuses["0.2"] = 503
        wanted = house.wanted("0.2", kind="run", rollout=rules(strategy="recreate"))
        async with delivering(house, wanted):
            assert house.served() is None
        delivery = Delivery(house.world)
        await delivery.recover()
        assert house.served() == "0.1"
        house.machine.statuses["0.2"] = 200
        assert (await delivery.release(wanted, lambda: None)).status is ReleaseStatus.SERVING
        assert statuses(house) == [("0.1", "retired"), ("0.2", "serving")]

    house.play(story())


def test_more_releases_are_kept_warm(house: House) -> None:
    """`keep: 2` keeps two releases before, and `keep: 0` none."""

    async def story() -> None:
        for version in ("0.1", "0.2", "0.3"):
            await house.deliver(house.wanted(version, keep=2))
        warm = [r.version for r in house.store.releases.of() if house.store.releases.replicas(r.id)]
        assert warm == ["0.1", "0.2", "0.3"]
        await house.deliver(house.wanted("0.4", keep=0))
        warm = [r.version for r in house.store.releases.of() if house.store.releases.replicas(r.id)]
        assert warm == ["0.4"]

    house.play(story())


# --- metrics of one's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "status", "reason"),
    [
        ("0.01", ReleaseStatus.SERVING, "errors in"),
        ("0.3", ReleaseStatus.ROLLED_BACK, "complaints: 0.3, where at most 0.02 was allowed"),
        ('"many"', ReleaseStatus.ROLLED_BACK, "complaints could not be asked (what stands at data.rate is no number"),
    ],
)
def test_a_metric_of_ones_own(house: House, rate: str, status: ReleaseStatus, reason: str) -> None:
    """A required one that passes lets it widen; one that fails rolls back; one that cannot be told only ever holds."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        async with telling(f'{{"data": {{"rate": {rate}}}}}') as (url, paths):
            asks = {"url": f"{url}/of/${{{{ version }}}}", "value": "data.rate", "at_most": 0.02}
            fields = {**QUICK, "metrics": {"complaints": asks}, "require": ["complaints"]}
            async with asked(house), rolling(house, house.wanted("0.2", rollout=rules(**fields))) as task:
                await until(lambda: task.done() or heard(house, "complaints"))
                house.clock.ahead += 1900 if rate == '"many"' else 0
                release = await task
        assert release.status is status
        assert reason in (release.rollout or {})["move"]["reason"]
        assert set(paths) == {"/of/0.2"}

    house.play(story())


def heard(house: House, metric: str) -> bool:
    """Whether a canary's metric has an answer that counts."""
    found = tried(house)
    return found is not None and metric in (found.rollout or {})["state"]["evidence"]["customs"]


@asynccontextmanager
async def telling(body: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A service that answers every request with a body; its address, and the paths that it was asked for."""
    paths: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        paths.append(head.split()[1].decode())
        length = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write((length + body).encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", paths
