"""The migrations of environments: a process before the replicas, once per package and environment.

Intent recorded, process started, start recorded, ending read, result recorded: a death at any point leaves a state from
which the next coordinator goes on. A migration that lives is adopted; one that nobody can tell of is run again, and
never before nothing of it lives any more. Its time limit holds while any coordinator works on the home.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.engine.commanding import followed, judged
from penstock.engine.contracts import Handle, ProcessSpec
from penstock.engine.installing import (
    StoppedRollout,
    Stopping,
    install,
    last_line,
    manifest_of,
    package_folder,
    variables_of,
)
from penstock.engine.serving import image_of, in_image, runtime_variables
from penstock.engine.world import World
from penstock.errors import PenstockError, StateError
from penstock.migrations import Migration, MigrationStatus, applied, crossed, is_late, newest
from penstock.runs import EndReason
from penstock.store.contract import Release


class MigrationError(PenstockError):
    """A migration that did not pass, or may not run: the release is rejected with this sentence."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One execution: of which release, by which command, for which command of a person or run."""

    release: Release
    command: str
    generation: int
    actor: str
    reverts: int | None = None


class Migrating:
    """The migrations of a home. The caller has the turn of the environment, but for `recover`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.store.migrations
        self._watches: dict[int, asyncio.Task[None]] = {}

    @property
    def watches(self) -> list[asyncio.Task[None]]:
        """What follows migrations of an earlier coordinator; to be canceled by who leaves."""
        return list(self._watches.values())

    def recover(self) -> None:
        """Follow what an earlier coordinator began, within its time limit, until a release takes it over."""
        for row in self._store.running():
            self._watches[row.id] = asyncio.create_task(self._follow(row))

    async def _follow(self, row: Migration) -> None:
        with suppress(PenstockError):  # it is recorded, and told by the release that asks for it again
            await self._watch(row, lambda: None)

    async def up(self, release: Release, stopping: Stopping) -> None:
        """Have the environment migrated for a release. Raises MigrationError, StoppedRollout or EngineError.

        What passed for this package is not run again; what failed for this very release is not tried again.
        """
        await self._take_over(release.project, release.environment, stopping)
        wanted = release.spec.get("migrate")
        known = self._store.of(release.project, release.environment)
        if wanted is not None and applied(known, release.package) is None:
            own = [m for m in known if m.release == release.id and m.reverts is None]
            if own and own[-1].status is MigrationStatus.FAILED:
                raise self._failed(own[-1])
            self._world.store.releases.note(release.id, phase="migrating")
            await self._execute(_Wanted(release, wanted["run"], release.generation, release.actor), stopping)
        found = newest(self._store.of(release.project, release.environment))
        self._world.store.releases.note(release.id, migration=found)

    async def down(self, crossing: Sequence[Migration], generation: int, actor: str) -> None:
        """Go back across migrations, newest first, each by its own release's way. Raises MigrationError."""
        for row in crossing:
            release = self._world.store.releases.get(row.release)
            wanted = _Wanted(release, release.spec["migrate"]["down"], generation, actor, row.id)
            await self._execute(wanted, lambda: None)

    async def again(self, crossing: Sequence[Migration], generation: int, actor: str) -> None:
        """Run what `down` has undone once more, oldest first. Raises MigrationError."""
        for row in reversed(crossing):
            release = self._world.store.releases.get(row.release)
            await self._execute(_Wanted(release, release.spec["migrate"]["run"], generation, actor), lambda: None)
            found = newest(self._store.of(release.project, release.environment))
            self._world.store.releases.note(release.id, migration=found)

    def crossing(self, release: Release) -> list[Migration]:
        """What going (back) to a release crosses: migrations in force after the one that it was made for."""
        known = self._store.of(release.project, release.environment)
        own = applied(known, release.package)
        before = [r.migration for r in self._same(release) if r.since is not None]
        if own is None and not before:
            return []
        return crossed(known, max(own.id if own else 0, before[0] or 0 if before else 0))

    def _same(self, release: Release) -> list[Release]:
        """The releases of the same package in the same environment, oldest first."""
        everything = self._world.store.releases.of(release.project, release.environment)
        return [r for r in everything if r.package == release.package]

    def insist_on_way_down(self, crossing: Sequence[Migration]) -> None:
        """Raise StateError where one of these migrations has no way down."""
        for row in crossing:
            if not self._world.store.releases.get(row.release).spec.get("migrate", {}).get("down"):
                raise StateError(
                    f"the file of {row.version} names no migrate_down for {row.environment}: "
                    "leave --migrate-down out, and the schema stays as it is"
                )

    async def end(self, project: str, environment: str) -> None:
        """End what lives of an environment's migrations."""
        with suppress(StoppedRollout):
            await self._take_over(project, environment, lambda: "stopped")

    # --- one execution

    async def _take_over(self, project: str, environment: str, stopping: Stopping) -> None:
        """See what runs in an environment to its end, whoever began it; how it ended is recorded."""
        for row in self._store.running(project, environment):
            watch = self._watches.pop(row.id, None)
            if watch is not None:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            if self._store.get(row.id).status is MigrationStatus.RUNNING:
                with suppress(MigrationError):
                    await self._watch(self._store.get(row.id), stopping)

    async def _execute(self, wanted: _Wanted, stopping: Stopping) -> None:
        world, release = self._world, wanted.release
        await asyncio.to_thread(install, world, release)
        if stopping() is not None:
            raise StoppedRollout
        row = self._intend(wanted)
        try:
            handle = world.runner.start(self._spec(wanted, row))
        except PenstockError as error:
            with world.store.transaction():
                self._store.move(row.id, "lose", str(error))
            raise
        world.crash("migration.start:after_effect")
        with world.store.transaction():
            self._store.note(row.id, asdict(handle))
        world.crash("migration.start:after_recorded")
        await self._watch(self._store.get(row.id), stopping)

    def _intend(self, wanted: _Wanted) -> Migration:
        """Record the intent, fenced: a newer command that was there first, or has migrated, keeps an older one out."""
        release = wanted.release
        place = (release.project, release.environment)
        stem = self._world.home.release(release.id) / f"migrate-{len(self._store.of_release(release.id)) + 1}"
        with self._world.store.transaction(durable=True):
            newer = wanted.generation < self._world.store.releases.generation(*place)
            if newer or is_late(self._store.of(*place), wanted.generation):
                raise MigrationError("a newer release was there first")
            return self._store.begin(
                {
                    "project": release.project,
                    "environment": release.environment,
                    "generation": wanted.generation,
                    "release": release.id,
                    "package": release.package,
                    "version": release.version,
                    "contract": bool(release.spec["migrate"]["contract"]),
                    "reverts": wanted.reverts,
                    "log": f"{stem}.log",
                    "record": f"{stem}.record",
                    "actor": wanted.actor,
                    "began": self._world.clock.monotonic(),
                }
            )

    def _spec(self, wanted: _Wanted, row: Migration) -> ProcessSpec:
        """In the package's folder, with its runtime and the environment's variables and secrets."""
        world, release = self._world, wanted.release
        manifest, folder = manifest_of(world, release), package_folder(world, release)
        lock_timeout = int(float(release.spec["migrate"]["lock_timeout"]) * 1000)
        variables = {
            "PGOPTIONS": f"-c lock_timeout={lock_timeout}",  # what waits for a lock has all others wait behind it
            **variables_of(world, release, manifest, own_image=False),
        }
        spec = ProcessSpec(
            id=_process(row),
            command=wanted.command,
            workspace=folder,
            variables=runtime_variables(world, manifest, folder, variables),
            log=Path(row.log),
            record=Path(row.record),
            contain=world.contain,
            secrets=tuple(release.spec.get("secrets", ())),
        )
        return in_image(spec, image_of(world, manifest))

    async def _watch(self, row: Migration, stopping: Stopping) -> None:
        """Follow a migration to its end, recorded. Raises MigrationError or StoppedRollout where it did not pass."""
        runner = self._world.runner
        handle = Handle(**row.handle) if row.handle else runner.find(_process(row), Path(row.record))
        if handle is None:
            with self._world.store.transaction():
                self._store.move(row.id, "lose", "it was never started")
            return
        timeout = float(self._world.store.releases.get(row.release).spec["migrate"]["timeout"])
        reason, ending = await followed(self._world, handle, row.began + timeout, stopping)
        self._world.crash("migration.end:after_effect")
        event, words = judged(reason, ending, timeout)
        with self._world.store.transaction(durable=True):
            self._store.move(row.id, event, words)
            if event == "pass" and row.reverts is not None:  # what it reverts is in force no more, at once
                self._store.move(row.reverts, "revert", f"undone by {row.actor}")
        if reason is EndReason.CANCELED:
            raise StoppedRollout
        if event != "pass":
            raise self._failed(self._store.get(row.id))

    def _failed(self, row: Migration) -> MigrationError:
        what = "its migration" if row.reverts is None else f"the way back of {row.version}'s migration"
        run = self._world.store.releases.get(row.release).run
        where = f"penstock logs {run} migrate.{row.environment} shows it"
        return MigrationError(f"{what} did not pass ({row.reason}): {where}{last_line(Path(row.log))}")


def _process(row: Migration) -> str:
    """What the runner knows its process by."""
    return f"migration-{row.id}"
