"""Deployments by commands of the user's, with scripted processes and a health URL that really answers."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from acceptance.tiny import free_ports
from engine.builders import PROJECT, House, Server, until
from penstock.engine.contracts import ProcessSpec
from penstock.engine.delivery import Delivery
from penstock.engine.followers import myself
from penstock.engine.hooking import HookError, asked, commands_of
from penstock.errors import EngineError, StateError
from penstock.releases import ReleaseStatus
from penstock.runners.scripted import NEVER, Act
from penstock.store.contract import Release

RUN, BACK = "copy it there", "copy the old one there"


class Target:
    """Somewhere else: a server whose status is said, None where nothing listens."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.statuses: dict[str, int | None] = {"target": 200}
        self._server = Server(self.port, "target", self.statuses)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/health"

    def answers(self, status: int | None) -> None:
        self.statuses["target"] = status

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def target() -> Iterator[Target]:
    found = Target()
    yield found
    found.close()


def spec(target: Target, **more: Any) -> dict[str, Any]:
    """What a release's spec says of a deployment elsewhere."""
    deploy = {"run": RUN, "rollback": BACK, "health": target.url, "timeout": 60.0, **more}
    return {"deploy": deploy, "port": None, "replicas": 0}


async def release(house: House, target: Target, version: str, **more: Any) -> Release:
    return await house.deliver(house.wanted(version, **spec(target, **more)))


async def rollback(house: House) -> Release:
    request = house.wanted("any").request
    return await Delivery(house.world).rollback(PROJECT.id, "production", request, "ada")


def ran(house: House) -> list[tuple[str, str]]:
    """What was executed, with the version whose package it was."""
    return [(s.command, s.variables["PENSTOCK_VERSION"]) for s in house.machine.started]


def serving(house: House) -> str | None:
    found = house.store.releases.serving(PROJECT.id, "production")
    return None if found is None else found.version


def commands(house: House, number: int) -> list[tuple[str, str]]:
    return [(c["kind"], c["status"]) for c in commands_of(house.store.releases.get(number))]


# --- there ---------------------------------------------------------------------------------------------------------


def test_a_command_deploys_and_the_url_judges(house: House, target: Target) -> None:
    """It has the package, the versions and the environment's values; nothing is served, and no router is asked."""

    async def story() -> None:
        await release(house, target, "0.1")
        found = await house.deliver(house.wanted("0.2", **spec(target), variables={"WHERE": "there"}))
        first, second = house.machine.started
        assert (found.status, found.phase) == (ReleaseStatus.SERVING, None)
        assert (first.variables["PENSTOCK_PREVIOUS_VERSION"], first.variables["PENSTOCK_PREVIOUS_PACKAGE"]) == ("", "")
        assert (second.command, second.kept, second.variables["WHERE"]) == (RUN, False, "there")
        assert second.variables["PENSTOCK_PREVIOUS_VERSION"] == "0.1"
        assert second.variables["PENSTOCK_PREVIOUS_PACKAGE"] == str(first.workspace)
        assert second.variables["PENSTOCK_RELEASE"] == str(found.id)
        assert second.variables["PENSTOCK_COMMIT"] == "c" * 40
        assert second.variables["PENSTOCK_PACKAGE"] == str(second.workspace)
        assert (second.workspace / "model").read_text() == "0.2"
        assert "PORT" not in second.variables
        assert commands(house, found.id) == [("run", "passed")]
        assert not house.router.routes

    house.play(story())


def test_two_environments_elsewhere_do_not_meet(house: House, target: Target) -> None:
    """Neither has a port that could be the other's."""

    async def story() -> None:
        await release(house, target, "0.1")
        found = await house.deliver(house.wanted("0.1", environment="staging", **spec(target)))
        assert found.status is ReleaseStatus.SERVING

    house.play(story())


def test_what_is_deployed_already_is_not_deployed_again(house: House, target: Target) -> None:
    """The same package with the same spec is the release that serves."""

    async def story() -> None:
        first = await release(house, target, "0.1")
        assert (await release(house, target, "0.1")).id == first.id
        assert ran(house) == [(RUN, "0.1")]

    house.play(story())


# --- not there -----------------------------------------------------------------------------------------------------


def test_a_command_that_fails_is_undone(house: House, target: Target) -> None:
    """The rollback runs in the new package beside the old one; the reason has the exit code and the log's end."""

    async def story() -> None:
        await release(house, target, "0.1")
        house.machine.script[RUN] = Act(exit_code=1, output="copying\nno space there\n")
        found = await release(house, target, "0.2")
        assert found.status is ReleaseStatus.REJECTED
        assert found.reason == (
            "its deploy command did not pass (exit code 1): penstock logs 0 deploy.production shows it; "
            "its log ends: no space there; its rollback passed"
        )
        assert ran(house)[1:] == [(RUN, "0.2"), (BACK, "0.2")]
        assert house.machine.started[-1].variables["PENSTOCK_PREVIOUS_VERSION"] == "0.1"
        assert serving(house) == "0.1"

    house.play(story())


def test_a_url_that_never_answers_rejects(house: House, target: Target) -> None:
    """The time for it begins when the command has ended; what it answered last is told."""

    async def story() -> None:
        target.answers(503)
        found = await release(house, target, "0.1", timeout=0.2)
        assert found.status is ReleaseStatus.REJECTED
        assert found.reason == (
            f"{target.url} did not answer 200 3 times in a row within 0.2 s: last it answered 503; its rollback passed"
        )
        assert ran(house) == [(RUN, "0.1"), (BACK, "0.1")]

    house.play(story())


@pytest.mark.parametrize(
    ("act", "more", "ends"),
    [
        (1, {}, "; its rollback did not pass (exit code 1): penstock logs 0 deploy.production shows it"),
        (0, {"rollback": None}, "; its file names no rollback, so what it left stays"),
    ],
)
def test_what_became_of_the_way_back_is_told(
    house: House, target: Target, act: int, more: dict[str, Any], ends: str
) -> None:
    """A rollback that fails, or that nobody named, leaves the old release recorded and says so."""

    async def story() -> None:
        house.machine.script |= {RUN: 1, BACK: act}
        found = await release(house, target, "0.1", **more)
        assert found.status is ReleaseStatus.REJECTED
        assert str(found.reason).endswith(ends)

    house.play(story())


def test_a_command_that_takes_too_long_is_ended(house: House, target: Target) -> None:
    """Its time limit holds."""

    async def story() -> None:
        house.machine.script[RUN] = NEVER
        found = await release(house, target, "0.1", timeout=0.1)
        assert "did not pass (took longer than its timeout of 0.1 s)" in str(found.reason)

    house.play(story())


def test_an_older_command_is_fenced(house: House, target: Target) -> None:
    """A release of an older request never touches what a newer one deployed."""

    async def story() -> None:
        old = house.wanted("0.1", **spec(target))
        await release(house, target, "0.2")
        found = await house.deliver(old)
        assert (found.status, found.reason) == (ReleaseStatus.REJECTED, "a newer release was there first")
        assert ran(house) == [(RUN, "0.2")]

    house.play(story())


# --- back ----------------------------------------------------------------------------------------------------------


def test_rollback_runs_the_command_of_what_serves(house: House, target: Target) -> None:
    """In its package, told of the release before; then that one serves."""

    async def story() -> None:
        await release(house, target, "0.1")
        second = await release(house, target, "0.2")
        found = await rollback(house)
        assert (found.version, found.status) == ("0.1", ReleaseStatus.SERVING)
        assert ran(house)[2:] == [(BACK, "0.2")]
        assert house.machine.started[-1].variables["PENSTOCK_PREVIOUS_VERSION"] == "0.1"
        assert house.store.releases.get(second.id).status is ReleaseStatus.ROLLED_BACK

    house.play(story())


def test_rollback_without_a_command_deploys_the_older_package(house: House, target: Target) -> None:
    """Where the file names no way back the release before runs its own command again."""

    async def story() -> None:
        await release(house, target, "0.1", rollback=None)
        await release(house, target, "0.2", rollback=None)
        await rollback(house)
        assert ran(house)[2:] == [(RUN, "0.1")]
        assert house.machine.started[-1].variables["PENSTOCK_PREVIOUS_VERSION"] == "0.2"
        assert serving(house) == "0.1"

    house.play(story())


def test_a_rollback_that_fails_changes_nothing(house: House, target: Target) -> None:
    """By its exit code or by the health URL; the verb says why, and may be asked again."""

    async def story() -> None:
        await release(house, target, "0.1", timeout=0.2)
        await release(house, target, "0.2", timeout=0.2)
        house.machine.script[BACK] = 1
        with pytest.raises(HookError, match="its rollback did not pass"):
            await rollback(house)
        house.machine.script[BACK] = 0
        target.answers(None)
        with pytest.raises(HookError, match="did not answer 200"):
            await rollback(house)
        assert serving(house) == "0.2"
        target.answers(200)
        await Delivery(house.world).recover()
        assert serving(house) == "0.2"
        assert (await rollback(house)).version == "0.1"

    house.play(story())


def test_nothing_to_go_back_to(house: House, target: Target) -> None:
    """The first release has none before it."""

    async def story() -> None:
        await release(house, target, "0.1")
        with pytest.raises(StateError, match="no earlier release"):
            await rollback(house)

    house.play(story())


# --- deaths and stops ----------------------------------------------------------------------------------------------


async def cut(house: House, target: Target, version: str, command: str) -> asyncio.Task[Release]:
    """A release whose coordinator dies while a command runs."""
    house.machine.script[command] = NEVER
    wanted = house.wanted(version, kind="run", **spec(target))
    task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
    await until(lambda: any(s.command == command for s in house.machine.started))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return asyncio.create_task(_again(house, wanted))


async def _again(house: House, wanted: Any) -> Release:
    delivery = Delivery(house.world)
    await delivery.recover()
    return await delivery.release(wanted, lambda: None)


def living(house: House) -> ProcessSpec:
    return house.machine.started[-1]


def test_a_command_is_adopted(house: House, target: Target) -> None:
    """The next coordinator finds the very process, and reads how it ended: it does not run twice."""

    async def story() -> None:
        task = await cut(house, target, "0.1", RUN)
        await house.machine.finish(living(house).id)
        assert (await task).status is ReleaseStatus.SERVING
        assert ran(house) == [(RUN, "0.1")]

    house.play(story())


class DeathError(BaseException):
    """The coordinator is gone."""


@pytest.mark.parametrize(
    "point", ["start:after_effect", "start:after_recorded", "end:after_effect", "healthy:after_effect"]
)
def test_a_death_at_every_point(house: House, target: Target, point: str) -> None:
    """Whatever was recorded before the coordinator died, the command runs once, and the release serves."""

    def crash(passed: str) -> None:
        if passed == f"hook.{point}":
            raise DeathError

    async def story() -> None:
        wanted = house.wanted("0.1", kind="run", **spec(target))
        with pytest.raises(DeathError):
            await Delivery(replace(house.world, crash=crash)).release(wanted, lambda: None)
        assert serving(house) is None
        assert (await _again(house, wanted)).status is ReleaseStatus.SERVING
        assert ran(house) == [(RUN, "0.1")]

    house.play(story())


def test_an_orphan_is_undone(house: House, target: Target) -> None:
    """Where the person's command died and nobody asks any more, what was begun is ended, undone and rejected."""

    async def story() -> None:
        await release(house, target, "0.1")
        house.machine.script[RUN] = NEVER
        wanted = house.wanted("0.2", **spec(target))
        task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
        await until(lambda: ran(house)[-1] == (RUN, "0.2"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with house.store.transaction():
            house.store.requests.refuse(wanted.request, 3, "its command died")
        await Delivery(house.world).recover()
        assert ran(house)[-1] == (BACK, "0.2")
        found = house.store.releases.of(PROJECT.id, "production")[-1]
        assert (found.status, found.reason) == (
            ReleaseStatus.REJECTED,
            "the command that asked for it died; its rollback passed",
        )
        assert serving(house) == "0.1"

    house.play(story())


def test_what_was_adopted_may_fail(house: House, target: Target) -> None:
    """A command that fails after its coordinator died is undone, and a way back that fails then is told."""

    async def story() -> None:
        task = await cut(house, target, "0.1", RUN)
        house.machine.script[BACK] = NEVER
        await house.machine.finish(living(house).id, 1)
        await until(lambda: ran(house)[-1] == (BACK, "0.1"))
        await house.machine.finish(living(house).id, 2)
        found = await task
        assert found.status is ReleaseStatus.REJECTED
        assert "its deploy command did not pass (exit code 1)" in str(found.reason)
        assert "its rollback did not pass (exit code 2)" in str(found.reason)

    house.play(story())


def test_an_adopted_way_back_may_fail(house: House, target: Target) -> None:
    """It is undone where it was found running; that it failed is told, and the old reason stands."""

    async def story() -> None:
        house.machine.script[RUN] = 1
        task = await cut(house, target, "0.1", BACK)
        await house.machine.finish(living(house).id, 2)
        found = await task
        assert "its rollback did not pass (exit code 2)" in str(found.reason)
        assert len(ran(house)) == 2

    house.play(story())


@pytest.mark.parametrize(("code", "said"), [(3, "its rollback did not pass (exit code 3)"), (0, "did not answer 200")])
def test_a_persons_rollback_may_fail_after_a_death(house: House, target: Target, code: int, said: str) -> None:
    """What serves stays, and the status says why it could not be gone back from."""

    async def story() -> None:
        await release(house, target, "0.1", timeout=0.3)
        second = await release(house, target, "0.2")
        house.machine.script[BACK] = NEVER
        task = asyncio.create_task(rollback(house))
        await until(lambda: ran(house)[-1] == (BACK, "0.2"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        target.answers(None)
        await Delivery(house.world).recover()
        await house.machine.finish(living(house).id, code)
        await until(lambda: "could not go back" in str(house.store.releases.get(second.id).phase))
        assert said in str(house.store.releases.get(second.id).phase)
        assert serving(house) == "0.2"

    house.play(story())


def test_a_death_before_the_start(house: House, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent whose process was never started is none: nothing is undone for it, and the command runs."""

    async def story() -> None:
        wanted = house.wanted("0.1", kind="run", **spec(target))
        with monkeypatch.context() as patch:
            patch.setattr(house.machine, "start", _die)
            with pytest.raises(DeathError):
                await Delivery(house.world).release(wanted, lambda: None)
        found = await _again(house, wanted)
        assert (found.status, ran(house)) == (ReleaseStatus.SERVING, [(RUN, "0.1")])
        assert commands(house, found.id) == [("run", "unstarted"), ("run", "passed")]

    house.play(story())


def _die(_: object) -> None:
    raise DeathError


def test_a_command_that_cannot_be_started(house: House, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release is rejected with the runner's sentence, and there is nothing to undo."""

    def refuse(_: object) -> None:
        raise EngineError("no room for it")

    async def story() -> None:
        monkeypatch.setattr(house.machine, "start", refuse)
        found = await release(house, target, "0.1")
        assert (found.status, found.reason) == (ReleaseStatus.REJECTED, "no room for it")

    house.play(story())


def test_a_wait_for_health_is_stopped(house: House, target: Target) -> None:
    """What is stopped while its address is asked is undone at once."""

    async def story() -> None:
        target.answers(503)
        delivery = Delivery(house.world)
        task = asyncio.create_task(delivery.release(house.wanted("0.1", **spec(target)), lambda: None))
        await until(lambda: any("waiting for" in str(r.phase) for r in house.store.releases.of()))
        await delivery.stop(None, None)
        assert (await task).reason == "stopped; its rollback passed"

    house.play(story())


def test_what_nobody_can_tell_of_runs_again(house: House, target: Target) -> None:
    """After a power cut the command is run once more, under the same PENSTOCK_RELEASE."""

    async def story() -> None:
        task = await cut(house, target, "0.1", RUN)
        house.machine.script[RUN] = 0
        await house.machine.finish(living(house).id, None)
        assert (await task).status is ReleaseStatus.SERVING
        assert ran(house) == [(RUN, "0.1"), (RUN, "0.1")]
        assert len({s.variables["PENSTOCK_RELEASE"] for s in house.machine.started}) == 1

    house.play(story())


def test_a_rollback_of_what_failed_is_adopted(house: House, target: Target) -> None:
    """The command that failed is not tried again, and its way back goes on."""

    async def story() -> None:
        house.machine.script[RUN] = 1
        task = await cut(house, target, "0.1", BACK)
        await house.machine.finish(living(house).id)
        found = await task
        assert found.status is ReleaseStatus.REJECTED
        assert str(found.reason).startswith("its deploy command did not pass (exit code 1)")
        assert ran(house) == [(RUN, "0.1"), (BACK, "0.1")]

    house.play(story())


def test_a_persons_rollback_is_finished(house: House, target: Target) -> None:
    """Whoever coordinates next sees it to its end, and the release before serves."""

    async def story() -> None:
        await release(house, target, "0.1")
        await release(house, target, "0.2")
        house.machine.script[BACK] = NEVER
        task = asyncio.create_task(rollback(house))
        await until(lambda: ran(house)[-1] == (BACK, "0.2"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await Delivery(house.world).recover()
        await house.machine.finish(living(house).id)
        await until(lambda: serving(house) == "0.1")
        assert ran(house)[2:] == [(BACK, "0.2")]

    house.play(story())


def test_a_rollback_that_is_asked_again_goes_back_once(house: House, target: Target) -> None:
    """Who asks again after a death is given what the first one led to, and not the release before that."""

    async def story() -> None:
        for version in ("0.1", "0.2", "0.3"):
            await release(house, target, version)
        house.machine.script[BACK] = NEVER
        task = asyncio.create_task(rollback(house))
        await until(lambda: ran(house)[-1] == (BACK, "0.3"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        payload, delivery = {"project": PROJECT.id, "environment": "production"}, Delivery(house.world)
        request = house.store.requests.add("rollback", payload, myself(), "ada")
        await delivery.recover()
        again = asyncio.create_task(delivery.rollback(PROJECT.id, "production", request, "ada"))
        await asyncio.sleep(0)
        await house.machine.finish(living(house).id)
        assert (await again).version == serving(house) == "0.2"
        assert ran(house)[3:] == [(BACK, "0.3")]

    house.play(story())


def test_stop_ends_what_is_on_its_way_and_leaves_what_is_there(house: House, target: Target) -> None:
    """A command is ended and undone; what was deployed before goes on elsewhere, and is still what serves."""

    async def story() -> None:
        await release(house, target, "0.1")
        house.machine.script[RUN] = NEVER
        delivery = Delivery(house.world)
        task = asyncio.create_task(delivery.release(house.wanted("0.2", **spec(target)), lambda: None))
        await until(lambda: ran(house)[-1] == (RUN, "0.2"))
        assert await delivery.stop(None, None) == []
        found = await task
        assert (found.status, found.reason) == (ReleaseStatus.REJECTED, "stopped; its rollback passed")
        assert serving(house) == "0.1"

    house.play(story())


def test_an_interrupted_command_runs_again(house: House, target: Target) -> None:
    """Ctrl-C ends it and leaves the release to `resume`, which begins it anew."""

    async def story() -> None:
        house.machine.script[RUN] = NEVER
        wanted = house.wanted("0.1", kind="run", **spec(target))
        why: list[str] = []
        task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: why[0] if why else None))
        await until(lambda: house.machine.started)
        why.append("interrupted")
        assert (await task).status is ReleaseStatus.STARTING
        house.machine.script[RUN] = 0
        assert (await house.deliver(wanted)).status is ReleaseStatus.SERVING
        assert ran(house) == [(RUN, "0.1"), (RUN, "0.1")]

    house.play(story())


# --- the question --------------------------------------------------------------------------------------------------


def test_what_an_address_answers(target: Target) -> None:
    """A status, or that nothing answers, in words; an address that is none is no defect."""

    async def story() -> None:
        assert await asked(target.url) == "200"
        target.answers(302)
        assert await asked(target.url) == "302"
        target.close()
        assert (await asked(target.url)).startswith("nothing (")
        assert (await asked("http://[")).startswith("nothing (")

    asyncio.run(story())
