"""The action cache and what is known of files: results by key, digests by git object."""

import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from penstock.artifacts import Digest, File
from penstock.store.contract import Action
from penstock.store.journal import Journal
from penstock.store.tables import actions, blobs

_CHUNK = 500
_SELECT = "SELECT key, project, step, run, ingredients, result, seconds, created FROM actions"


class Actions:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def find(self, key: str) -> Action | None:
        """The stored result of a key, or None."""
        return self._one("WHERE key = ?", (key,))

    def newest(self, project: str, step: str) -> Action | None:
        """The result that a step stored last, whatever its key: what a miss is explained by."""
        return self._one("WHERE project = ? AND step = ? ORDER BY created DESC LIMIT 1", (project, step))

    def _one(self, condition: str, parameters: tuple[str, ...]) -> Action | None:
        row = self._connection.exec_driver_sql(f"{_SELECT} {condition}", parameters).first()
        if row is None:
            return None
        key, project, step, run, ingredients, result, seconds, created = row
        return Action(key, project, step, run, json.loads(ingredients), json.loads(result), seconds, created)

    def put(self, action: Action) -> None:
        """Store a result; a later one for the same key replaces it."""
        values = {name: getattr(action, name) for name in Action.__slots__}
        self._journal.upsert("actions", {**values, "used": action.created}, "key")

    def used(self, key: str) -> None:
        """Remember that a result was reused now; gc removes those used longest ago."""
        self._connection.execute(update(actions).where(actions.c.key == key).values(used=time.time()))

    def forget(self, key: str) -> None:
        """A result whose bytes are gone or damaged is no result."""
        self._connection.execute(delete(actions).where(actions.c.key == key))

    def all(self) -> list[tuple[Action, float]]:
        """Every stored result with the time it was last used."""
        rows = self._connection.execute(select(actions)).mappings()
        return [(_action(row), float(row["used"])) for row in rows]


class Blobs:
    """Digest and size of git objects that were read once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, oids: Collection[str]) -> dict[str, File]:
        """Digest and size of the git objects that are known (as non-executable files)."""
        wanted = list(oids)
        known: dict[str, File] = {}
        for start in range(0, len(wanted), _CHUNK):
            query = select(blobs).where(blobs.c.oid.in_(wanted[start : start + _CHUNK]))
            for row in self._connection.execute(query):
                known[row.oid] = File(Digest(row.digest), row.size)
        return known

    def put(self, files: Mapping[str, File]) -> None:
        """Keep the digests of git objects, so that each is read once."""
        rows = [{"oid": oid, "digest": f.digest, "size": f.size} for oid, f in files.items()]
        if rows:
            self._connection.execute(insert(blobs).on_conflict_do_nothing(), rows)


def _action(row: RowMapping) -> Action:
    values: dict[str, Any] = {k: v for k, v in row.items() if k != "used"}
    return Action(**values)
