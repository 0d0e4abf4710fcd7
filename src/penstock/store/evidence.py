"""Evidence in the database: which package answered which test set, and where in the cache its answers are."""

import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from penstock.store import tables
from penstock.store.contract import EvidenceRecord

_KEY = ("project", "step", "test_set", "package")


class Evidences:
    """The evidence's room of the store. A row never goes: that a test set was asked stays a fact."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, project: str, step: str, test_set: str, package: str, **found: Any) -> None:
        """Remember the answers of a package (`run`, `files`, `collected`), over earlier ones that it had.

        It is not among those that were decided on the test set before it is counted.
        """
        key = dict(zip(_KEY, (project, step, test_set, package), strict=True))
        rows = {**key, **found, "number": 0, "created": time.time()}
        statement = upsert(tables.evidence).values(rows)
        self._connection.execute(statement.on_conflict_do_update(list(_KEY), set_=dict(found)))

    def count(self, project: str, step: str, test_set: str, package: str) -> None:
        """Count a package among those that were decided on a test set, as the newest."""
        same = _same(project=project, step=step, test_set=test_set)
        newest = select(func.coalesce(func.max(tables.evidence.c.number), 0)).where(*same)
        number = int(self._connection.execute(newest).scalar_one()) + 1
        self._connection.execute(update(tables.evidence).where(*same, *_same(package=package)).values(number=number))

    def find(self, project: str, step: str, test_set: str, package: str) -> EvidenceRecord | None:
        """The answers of a package to a test set, in a step of this name."""
        found = self._of(_same(project=project, step=step, test_set=test_set, package=package))
        return found[0] if found else None

    def of_package(self, project: str, package: str) -> list[EvidenceRecord]:
        """All answers of a package, oldest first."""
        return self._of(_same(project=project, package=package))

    def met(self, project: str, step: str, test_set: str) -> list[str]:
        """The packages that were decided on a test set in a step of this name, in the order in which they were."""
        found = self._of([*_same(project=project, step=step, test_set=test_set), tables.evidence.c.number > 0])
        return [record.package for record in sorted(found, key=lambda record: record.number)]

    def newest(self, project: str, step: str, limit: int = 20) -> list[EvidenceRecord]:
        """What packages answered in a step of this name, newest first."""
        return self._of(_same(project=project, step=step))[-limit:][::-1]

    def _of(self, conditions: Iterable[Any]) -> list[EvidenceRecord]:
        query = select(tables.evidence).where(*conditions).order_by(tables.evidence.c.created)
        return [EvidenceRecord(**row) for row in self._connection.execute(query).mappings()]


def _same(**values: str) -> list[Any]:
    return [tables.evidence.c[name] == value for name, value in values.items()]
