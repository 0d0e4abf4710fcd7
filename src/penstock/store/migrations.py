"""Migrations of environments in the database; one moves by the table of `migrations.py`."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, insert, select, update

from penstock.errors import TransitionError
from penstock.migrations import Migration, MigrationStatus, after_migration
from penstock.store import tables
from penstock.store.journal import Journal, inserted

_TABLE = tables.migrations


class Migrations:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def begin(self, values: Mapping[str, Any]) -> Migration:
        """The intent to migrate, recorded before its process exists. `values`: the columns without id and status."""
        row = {**values, "status": MigrationStatus.RUNNING, "created": time.time()}
        number = inserted(self._connection.execute(insert(_TABLE), row))
        self._journal.record("migration", str(number), "start", (None, MigrationStatus.RUNNING))
        return self.get(number)

    def get(self, number: int) -> Migration:
        return _migration(self._connection.execute(select(_TABLE).where(_TABLE.c.id == number)).mappings().one())

    def of(self, project: str, environment: str) -> list[Migration]:
        """The migrations of an environment, oldest first."""
        here = (_TABLE.c.project == project, _TABLE.c.environment == environment)
        return self._all(select(_TABLE).where(*here))

    def of_release(self, release: int) -> list[Migration]:
        """The migrations that ran for a release, oldest first."""
        return self._all(select(_TABLE).where(_TABLE.c.release == release))

    def running(self, project: str | None = None, environment: str | None = None) -> list[Migration]:
        """Those that have not ended as far as anybody recorded, of the home or of an environment."""
        query = select(_TABLE).where(_TABLE.c.status == MigrationStatus.RUNNING)
        if project is not None:
            query = query.where(_TABLE.c.project == project)
        if environment is not None:
            query = query.where(_TABLE.c.environment == environment)
        return self._all(query)

    def note(self, number: int, handle: Mapping[str, Any]) -> None:
        """Its process exists."""
        self._connection.execute(update(_TABLE).where(_TABLE.c.id == number).values(handle=handle))

    def move(self, number: int, event: str, reason: str | None = None) -> None:
        """One transition. Raises TransitionError where the table, or somebody meanwhile, does not allow it."""
        before = self.get(number)
        values: dict[str, Any] = {"status": after_migration(before.status, event)}
        if before.ended is None:
            values |= {"reason": reason, "ended": time.time()}
        if self._journal.update("migrations", values, {"id": number, "status": before.status}) != 1:
            raise TransitionError(f"migration {number} changed meanwhile and cannot {event}")
        self._journal.record("migration", str(number), event, (before.status, values["status"]), reason)

    def _all(self, query: Select[Any]) -> list[Migration]:
        return [_migration(row) for row in self._connection.execute(query.order_by(_TABLE.c.id)).mappings()]


def _migration(row: RowMapping) -> Migration:
    return Migration(**{**row, "status": MigrationStatus(row["status"])})
