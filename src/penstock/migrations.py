"""Migrations of an environment: which are in force, whether a package's has to run, and what a way back crosses.

A migration is of a package: it brings what an environment keeps (a database's schema) to what the package needs. Once
it passed it is in force, until its way down was gone. A release is made for the newest one in force when it came up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from penstock.errors import TransitionError


class MigrationStatus(StrEnum):
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    LOST = "lost"
    REVERTED = "reverted"


MIGRATION_TRANSITIONS: Mapping[tuple[MigrationStatus, str], MigrationStatus] = {
    (MigrationStatus.RUNNING, "pass"): MigrationStatus.PASSED,
    (MigrationStatus.RUNNING, "fail"): MigrationStatus.FAILED,
    (MigrationStatus.RUNNING, "lose"): MigrationStatus.LOST,
    (MigrationStatus.PASSED, "revert"): MigrationStatus.REVERTED,
}


@dataclass(frozen=True, slots=True)
class Migration:
    """One execution of a release's `migrate`, or with `reverts` (the number of another) of its way down.

    `began` is on the clock that nobody sets; `log` and `record` are where its traces lie; `reason` is why it did not
    pass. `contract` says that code from before may not work on what it leaves.
    """

    id: int
    project: str
    environment: str
    generation: int
    release: int
    package: str
    version: str
    contract: bool
    reverts: int | None
    status: MigrationStatus
    reason: str | None
    log: str
    record: str
    handle: Mapping[str, Any] | None
    actor: str
    began: float
    created: float
    ended: float | None


def after_migration(status: MigrationStatus, event: str) -> MigrationStatus:
    """The status that follows; raises TransitionError for an event that the table does not allow."""
    try:
        return MIGRATION_TRANSITIONS[status, event]
    except KeyError:
        raise TransitionError(f"a migration that is {status} cannot {event}") from None


def in_force(migrations: Iterable[Migration]) -> list[Migration]:
    """What the environment stands on: each that passed and was not reverted, oldest first."""
    up = [m for m in migrations if m.reverts is None and m.status is MigrationStatus.PASSED]
    return sorted(up, key=lambda m: m.id)


def applied(migrations: Iterable[Migration], package: str) -> Migration | None:
    """The migration of a package that is in force: it is not run again."""
    return next((m for m in in_force(migrations) if m.package == package), None)


def newest(migrations: Iterable[Migration]) -> int | None:
    """The number of the newest migration in force; None where there is none."""
    found = in_force(migrations)
    return found[-1].id if found else None


def is_late(migrations: Iterable[Migration], generation: int) -> bool:
    """Whether a newer command has migrated the environment already: an older one then may not."""
    return any(m.generation > generation for m in migrations)


def crossed(migrations: Iterable[Migration], made_for: int | None) -> list[Migration]:
    """What a release meets that it was not made for: those in force after the one it was made for, newest first."""
    return [m for m in reversed(in_force(migrations)) if m.id > (made_for or 0)]


def why_not_back(environment: str, crossing: Sequence[Migration], way: str) -> str | None:
    """Why code may not go back across these migrations, or None where it may. `way` says what to do all the same."""
    found = [m.version for m in crossing if m.contract]
    if not found:
        return None
    return (
        f"{environment} was migrated for {found[0]}, whose file marks the migration contract: "
        f"code from before may not work on it; {way}"
    )
