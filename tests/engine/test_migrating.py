"""Migrations on a real store, with scripted processes: once, before the replicas, fenced, limited, and back again."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from engine.builders import PROJECT, House, until
from penstock.engine.delivery import Delivery
from penstock.engine.migrating import MigrationError
from penstock.engine.replicas import UnhealthyError
from penstock.engine.sweeping import sweep
from penstock.errors import EngineError, StateError
from penstock.migrations import MigrationStatus
from penstock.releases import ReleaseStatus
from penstock.runners.scripted import LOST, NEVER, Act
from penstock.store.contract import Release

UP, DOWN = "go up", "go down"


def migrate(**more: Any) -> dict[str, Any]:
    """What a release's spec says of its migration."""
    return {"run": UP, "timeout": 60.0, "lock_timeout": 1.5, "contract": False, "down": None, **more}


async def release(house: House, version: str, **fields: Any) -> Release:
    return await house.deliver(house.wanted(version, migrate=migrate(**fields)))


async def rollback(house: House, *, force: bool = False, down: bool = False) -> Release:
    request = house.wanted("any").request
    return await Delivery(house.world).rollback(PROJECT.id, "production", request, "ada", force=force, down=down)


def ran(house: House) -> list[tuple[str, str]]:
    """What was executed, with the version that it was executed for; replicas are `serve`."""
    return [(s.command.split()[0], s.variables["PENSTOCK_VERSION"]) for s in house.machine.started]


def migrations(house: House) -> list[tuple[str, str, str | None]]:
    """Every migration with its status and reason, oldest first."""
    found = house.store.migrations.of(PROJECT.id, "production")
    return [(m.version, m.status.value, m.reason) for m in found]


# --- once, before the replicas -------------------------------------------------------------------------------------


def test_a_migration_runs_before_the_replicas(house: House) -> None:
    """In the package's folder, with the environment's variables, once; the release knows which it was made for."""

    async def story() -> None:
        wanted = house.wanted("0.1", migrate=migrate(), replicas=2, variables={"URL": "db"}, secrets=[])
        found = await house.deliver(wanted)
        spec = house.machine.started[0]
        assert ran(house) == [("go", "0.1"), ("serve", "0.1"), ("serve", "0.1")]
        assert (spec.command, spec.kept, spec.variables["URL"]) == (UP, False, "db")
        assert spec.variables["PENSTOCK_ENVIRONMENT"] == "production"
        assert "PORT" not in spec.variables
        assert spec.variables["PGOPTIONS"] == "-c lock_timeout=1500"
        assert (spec.workspace / "model").read_text() == "0.1"
        assert migrations(house) == [("0.1", "passed", None)]
        assert (found.status, found.migration) == (ReleaseStatus.SERVING, 1)

    house.play(story())


def test_a_package_is_migrated_once_per_environment(house: House) -> None:
    """Another release of the package starts replicas only, in another environment it migrates too."""

    async def story() -> None:
        await release(house, "0.1")
        again = await house.deliver(house.wanted("0.1", migrate=migrate(), variables={"LOG": "debug"}))
        assert (again.status, again.migration) == (ReleaseStatus.SERVING, 1)
        await house.deliver(house.wanted("0.1", environment="staging", port=8802, migrate=migrate()))
        assert [name for name, _ in ran(house)] == ["go", "serve", "serve", "go", "serve"]

    house.play(story())


def test_an_older_package_is_not_migrated_again(house: House) -> None:
    """What a newer package's migration left is not touched by an older one that passed before."""

    async def story() -> None:
        for version in ("0.1", "0.2", "0.1"):
            found = await release(house, version)
        assert [version for name, version in ran(house) if name == "go"] == ["0.1", "0.2"]
        assert (found.version, found.migration) == ("0.1", 2)

    house.play(story())


def test_a_release_as_a_container_is_migrated_from_its_package(house: House) -> None:
    """The command has the package's folder and runtime, whatever the release is served as; it comes first."""

    async def story() -> None:
        wanted = house.wanted("0.1", migrate=migrate(), **{"as": "container"})
        assert (await house.deliver(wanted)).status is ReleaseStatus.REJECTED  # this machine has no container engine
        (spec,) = house.machine.started
        assert (spec.command, spec.image, spec.whole) == (UP, None, False)
        assert (spec.workspace / "model").read_text() == spec.variables["PENSTOCK_VERSION"] == "0.1"
        assert {"HOME", "PENSTOCK_PACKAGE"} <= spec.variables.keys()
        assert migrations(house) == [("0.1", "passed", None)]

    house.play(story())


# --- what does not pass --------------------------------------------------------------------------------------------


def test_a_failed_migration_leaves_the_old_release(house: House) -> None:
    """The new release is rejected with the exit code, the log and its end; nothing of it was started."""

    async def story() -> None:
        await release(house, "0.1")
        house.machine.script[UP] = Act(exit_code=1, output="upgrading\nno such column: age\n")
        new = await release(house, "0.2")
        assert (new.status, new.phase, new.migration) == (ReleaseStatus.REJECTED, None, None)
        assert new.reason == (
            "its migration did not pass (exit code 1): penstock logs 0 migrate.production shows it; "
            "its log ends: no such column: age"
        )
        assert house.served() == "0.1"
        assert ran(house)[2:] == [("go", "0.2")]

    house.play(story())


def test_what_failed_runs_again_for_a_new_release(house: House) -> None:
    """Only what passed is not run again."""

    async def story() -> None:
        house.machine.script[UP] = 1
        assert (await release(house, "0.1")).status is ReleaseStatus.REJECTED
        house.machine.script[UP] = 0
        assert (await release(house, "0.1")).status is ReleaseStatus.SERVING
        assert migrations(house) == [("0.1", "failed", "exit code 1"), ("0.1", "passed", None)]

    house.play(story())


def test_a_migration_has_a_time_limit(house: House) -> None:
    """One that waits for a lock is ended at its timeout; the old release serves."""

    async def story() -> None:
        await release(house, "0.1")
        house.machine.script[UP] = NEVER
        task = asyncio.create_task(release(house, "0.2"))
        await house.machine.arrival("migration-2")
        house.clock.ahead += 61
        assert "took longer than its timeout of 60 s" in ((await task).reason or "")
        assert not house.machine.runs("migration-2")
        assert house.served() == "0.1"
        assert migrations(house)[1][1] == "failed"

    house.play(story())


def test_a_migration_that_vanished_is_rejected(house: House) -> None:
    """Nobody can tell whether it passed: it is lost, and a later release runs it again."""

    async def story() -> None:
        house.machine.script[UP] = LOST
        assert "vanished without an exit record" in ((await release(house, "0.1")).reason or "")
        house.machine.script[UP] = 0
        assert (await release(house, "0.1")).status is ReleaseStatus.SERVING
        assert [status for _, status, _ in migrations(house)] == ["lost", "passed"]

    house.play(story())


def test_a_migration_that_cannot_be_placed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine starts nothing the release is rejected with the machine's sentence."""

    def refuse(_: object) -> None:
        raise EngineError("no more processes")

    async def story() -> None:
        monkeypatch.setattr(house.machine, "start", refuse)
        assert (await release(house, "0.1")).reason == "no more processes"
        assert migrations(house) == [("0.1", "lost", "no more processes")]

    house.play(story())


# --- fenced --------------------------------------------------------------------------------------------------------


def test_an_older_command_never_migrates_after_a_newer(house: House) -> None:
    """Not even where the newer one was rejected: its migration stands."""

    async def story() -> None:
        late = house.wanted("0.1", migrate=migrate())
        house.machine.statuses["0.2"] = None
        newer = asyncio.create_task(release(house, "0.2"))
        await until(lambda: len(house.machine.started) == 2)
        house.clock.ahead += 200
        assert (await newer).status is ReleaseStatus.REJECTED
        refused = await house.deliver(late)
        assert (refused.status, refused.reason) == (ReleaseStatus.REJECTED, "a newer release was there first")
        assert [version for name, version in ran(house) if name == "go"] == ["0.2"]

    house.play(story())


def test_two_commands_migrate_one_after_the_other(house: House) -> None:
    """Two releases of one package at once: one migration, and the newer one finds it passed."""

    async def story() -> None:
        house.machine.script[UP] = NEVER
        delivery = Delivery(house.world)
        wanted = [house.wanted("0.1", migrate=migrate(), variables={"N": str(n)}) for n in range(2)]
        tasks = [asyncio.create_task(delivery.release(one, lambda: None)) for one in wanted]
        await house.machine.finish("migration-1")
        assert [(await task).status for task in tasks] == [ReleaseStatus.REJECTED, ReleaseStatus.SERVING]
        assert migrations(house) == [("0.1", "passed", None)]

    house.play(story())


# --- deaths and interrupts -----------------------------------------------------------------------------------------


async def begun(house: House, version: str = "0.1") -> Any:
    """A release whose coordinator died while its migration ran; what was wanted."""
    house.machine.script[UP] = NEVER
    wanted = house.wanted(version, migrate=migrate())
    task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
    await house.machine.arrival("migration-1")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return wanted


def test_a_migration_that_lives_is_adopted(house: House) -> None:
    """The next coordinator waits for the very process, and starts no second one."""

    async def story() -> None:
        wanted = await begun(house)
        delivery = Delivery(house.world)
        await delivery.recover()
        task = asyncio.create_task(delivery.release(wanted, lambda: None))
        await house.machine.finish("migration-1")
        assert (await task).status is ReleaseStatus.SERVING
        assert ran(house) == [("go", "0.1"), ("serve", "0.1")]

    house.play(story())


def test_a_migration_that_ended_meanwhile_is_read(house: House) -> None:
    """What ended while nobody coordinated is taken as it ended, passed or failed, and not tried again."""

    async def story(code: int, status: ReleaseStatus) -> None:
        wanted = await begun(house)
        await house.machine.finish("migration-1", code)
        house.clock.ahead += 1000  # later than its time limit
        delivery = Delivery(house.world)
        await delivery.recover()
        assert (await delivery.release(wanted, lambda: None)).status is status
        assert [name for name, _ in ran(house)].count("go") == 1

    house.play(story(0, ReleaseStatus.SERVING))


def test_a_failure_that_was_recorded_is_not_tried_again(house: House) -> None:
    """A release whose migration failed before its coordinator died is rejected by the next one."""

    async def story() -> None:
        wanted = await begun(house)
        await house.machine.finish("migration-1", 1)
        delivery = Delivery(house.world)
        await delivery.recover()
        await until(lambda: migrations(house) == [("0.1", "failed", "exit code 1")])
        assert "did not pass (exit code 1)" in ((await delivery.release(wanted, lambda: None)).reason or "")
        assert ran(house) == [("go", "0.1")]

    house.play(story())


def test_a_migration_that_was_lost_runs_again(house: House) -> None:
    """After a power cut the release goes on with a new attempt, once nothing of the old one is left."""

    async def story() -> None:
        wanted = await begun(house)
        await house.machine.finish("migration-1", None)
        house.machine.script[UP] = 0
        assert (await house.deliver(wanted)).status is ReleaseStatus.SERVING
        assert [status for _, status, _ in migrations(house)] == ["lost", "passed"]

    house.play(story())


@pytest.mark.parametrize("point", ["migration.start:after_effect", "migration.start:after_recorded"])
def test_a_death_around_the_start(house: House, point: str) -> None:
    """Whether or not the start was recorded, the process is found again."""

    async def story() -> None:
        wanted = house.wanted("0.1", migrate=migrate())
        assert await died(house, wanted, point)
        assert (await house.deliver(wanted)).status is ReleaseStatus.SERVING
        assert ran(house) == [("go", "0.1"), ("serve", "0.1")]

    house.play(story())


def test_a_death_before_the_start(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intent whose process was never started is none."""

    async def story() -> None:
        wanted = house.wanted("0.1", migrate=migrate())
        with monkeypatch.context() as patch:
            patch.setattr(house.machine, "start", _die)
            with pytest.raises(DeathError):
                await house.deliver(wanted)
        assert migrations(house) == [("0.1", "running", None)]
        assert (await house.deliver(wanted)).status is ReleaseStatus.SERVING
        assert migrations(house) == [("0.1", "lost", "it was never started"), ("0.1", "passed", None)]

    house.play(story())


class DeathError(BaseException):
    """The coordinator is gone."""


def _die(_: object) -> None:
    raise DeathError


async def died(house: House, wanted: Any, at: str) -> bool:
    """Whether the coordinator died at a crash point."""

    def crash(point: str) -> None:
        if point == at:
            raise DeathError

    try:
        await Delivery(replace(house.world, crash=crash)).release(wanted, lambda: None)
    except DeathError:
        return True
    return False


@pytest.mark.parametrize(("why", "status"), [("canceled", ReleaseStatus.REJECTED), ("interrupted", None)])
def test_a_migration_is_ended_on_request(house: House, why: str, status: ReleaseStatus | None) -> None:
    """Ctrl-C and cancel end it; after an interrupt the release goes on with a new one."""

    async def story() -> None:
        house.machine.script[UP] = NEVER
        wanted = house.wanted("0.1", migrate=migrate())
        asked: list[str] = []
        task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: asked[0] if asked else None))
        await house.machine.arrival("migration-1")
        asked.append(why)
        assert (await task).status is (status or ReleaseStatus.STARTING)
        assert not house.machine.runs("migration-1")
        assert migrations(house) == [("0.1", "lost", "it was stopped")]
        house.machine.script[UP] = 0
        if status is None:
            assert (await house.deliver(wanted)).status is ReleaseStatus.SERVING

    house.play(story())


def test_what_a_migration_stands_on_is_not_swept(house: House) -> None:
    """While it runs its package's folder stays, also where its release was rejected meanwhile."""

    async def story() -> None:
        await begun(house)
        folder = house.machine.started[0].workspace
        await sweep(house.world, {"days": 0})
        assert (folder / "model").exists()
        house.store.releases.move(1, "reject", reason="the command that asked for it died")
        await sweep(house.world, {"days": 0})
        assert (folder / "model").exists()
        await Delivery(house.world).stop(None, None)
        await sweep(house.world, {"days": 0})
        assert not folder.exists()
        assert house.machine.started[0].log.exists()

    house.play(story())


def test_stop_ends_a_migration_that_nobody_follows(house: House) -> None:
    """What an earlier coordinator left is ended with the environment."""

    async def story() -> None:
        await begun(house)
        delivery = Delivery(house.world)
        await delivery.recover()
        assert delivery.watches
        await delivery.stop(None, None)
        assert not house.machine.runs("migration-1")
        assert migrations(house) == [("0.1", "lost", "it was stopped")]

    house.play(story())


# --- back again ----------------------------------------------------------------------------------------------------


def test_code_goes_back_across_what_only_added(house: House) -> None:
    """Without a contract a rollback needs nothing, and the schema stays."""

    async def story() -> None:
        for version in ("0.1", "0.2"):
            await release(house, version)
        assert (await rollback(house)).version == "0.1"
        assert [status for _, status, _ in migrations(house)] == ["passed", "passed"]

    house.play(story())


def test_no_way_back_across_a_contract(house: House) -> None:
    """It is refused with the version and what to do, unless it is forced; a deploy of the old package is too."""

    async def story() -> None:
        await release(house, "0.1")
        await release(house, "0.2", contract=True)
        with pytest.raises(StateError, match=r"production was migrated for 0\.2, .*--migrate-down .*--force"):
            await rollback(house)
        refused = await release(house, "0.1")
        assert refused.status is ReleaseStatus.REJECTED
        assert "penstock deploy 0.1 production --force goes back all the same" in (refused.reason or "")
        assert house.served() == "0.2"
        assert (await rollback(house, force=True)).version == "0.1"
        assert house.served() == "0.1"

    house.play(story())


def test_a_deploy_may_be_forced_back(house: House) -> None:
    """With force an old package is released across a contract, and is still made for what it was made for."""

    async def story() -> None:
        await release(house, "0.1")
        await release(house, "0.2", contract=True)
        forced = await house.deliver(house.wanted("0.1", migrate=migrate(), force=True))
        assert (forced.status, house.served()) == (ReleaseStatus.SERVING, "0.1")
        assert ran(house).count(("go", "0.1")) == 1

    house.play(story())


def test_code_from_before_any_migration_is_older_than_all(house: House) -> None:
    """A release from when the file had no migrate does not go back across a contract either."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await release(house, "0.2", contract=True)
        with pytest.raises(StateError, match="marks the migration contract"):
            await rollback(house)

    house.play(story())


def test_migrate_down_undoes_what_is_crossed(house: House) -> None:
    """After the switch, by the package that brought it; what was undone runs again with its package's next release."""

    async def story() -> None:
        await release(house, "0.1")
        await release(house, "0.2", down=DOWN)
        await rollback(house, down=True)
        assert house.machine.started[-1].command == DOWN
        assert (house.machine.started[-1].workspace / "model").read_text() == "0.2"
        assert [status for _, status, _ in migrations(house)] == ["passed", "reverted", "passed"]
        assert house.served() == "0.1"
        assert (await release(house, "0.2", down=DOWN)).migration == 4
        assert [s.command for s in house.machine.started].count(UP) == 3

    house.play(story())


def test_a_contract_is_undone_before_the_switch(house: House) -> None:
    """Older code would not work before; so where the way back fails, nothing was switched."""

    async def story() -> None:
        await release(house, "0.1")
        await release(house, "0.2", down=DOWN, contract=True)
        house.machine.script[DOWN] = 1
        with pytest.raises(MigrationError, match=r"the way back of 0\.2's migration did not pass \(exit code 1\)"):
            await rollback(house, down=True)
        assert house.served() == "0.2"
        house.machine.script[DOWN] = 0
        assert (await rollback(house, down=True)).version == "0.1"
        assert house.served() == "0.1"

    house.play(story())


def test_a_contract_is_made_again_where_nothing_comes_of_it(house: House) -> None:
    """Where the older release does not come up on the older schema, what serves on has its own schema again."""

    async def story() -> None:
        ill = house.package("0.1", start_timeout=0.1)
        old = await house.deliver(house.wanted("0.1", package=ill, migrate=migrate()))
        await release(house, "0.2", down=DOWN, contract=True)
        await Delivery(house.world)._replicas.end(old.id)
        house.machine.statuses["0.1"] = 503
        with pytest.raises(UnhealthyError, match="did not answer"):
            await rollback(house, down=True)
        assert house.served() == "0.2"
        assert [s.command for s in house.machine.started if s.command in {UP, DOWN}] == [UP, UP, DOWN, UP]
        assert migrations(house)[-1][:2] == ("0.2", "passed")
        del house.machine.statuses["0.1"]
        assert (await rollback(house, down=True)).version == "0.1"
        assert [s.command for s in house.machine.started if s.command in {UP, DOWN}][-1] == DOWN

    house.play(story())


def test_a_way_down_is_gone_on_with(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that dies between the switch and the way down is followed by one that takes it, once."""

    async def story() -> None:
        for version in ("0.1", "0.2", "0.3"):
            await release(house, version, down=DOWN)
        request, first = house.wanted("any").request, Delivery(house.world)

        async def dies(*_: object) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(first._migrating, "down", dies)
        with pytest.raises(asyncio.CancelledError):
            await first.rollback(PROJECT.id, "production", request, "ada", down=True)
        assert house.served() == "0.2"
        back = await Delivery(house.world).rollback(PROJECT.id, "production", request, "ada", down=True)
        assert (back.version, house.served()) == ("0.2", "0.2")
        assert [s.command for s in house.machine.started].count(DOWN) == 1

    house.play(story())


def test_no_way_down_that_the_file_does_not_name(house: House) -> None:
    """Asked for without migrate_down it is refused, and nothing was switched."""

    async def story() -> None:
        for version in ("0.1", "0.2"):
            await release(house, version)
        with pytest.raises(StateError, match=r"the file of 0\.2 names no migrate_down for production"):
            await rollback(house, down=True)
        assert house.served() == "0.2"

    house.play(story())


def test_a_way_down_is_not_taken_unasked(house: House) -> None:
    """The file may name it: without the person's word the schema stays."""

    async def story() -> None:
        await release(house, "0.1", down=DOWN)
        await release(house, "0.2", down=DOWN)
        await rollback(house)
        assert DOWN not in [s.command for s in house.machine.started]
        assert all(m.status is MigrationStatus.PASSED for m in house.store.migrations.of(PROJECT.id, "production"))

    house.play(story())
