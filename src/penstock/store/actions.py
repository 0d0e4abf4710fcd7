"""The action cache and what is known of files: results by key and scope, digests by git object.

A result belongs to a scope. The scope '' is trusted: everybody reads it, trusted runs alone write it. Any other is
read and written by the runs of one untrusted source, which never replace or hide what is trusted.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, select
from sqlalchemy.dialects.sqlite import insert

from penstock.artifacts import Digest, File
from penstock.store.contract import Action, Eviction
from penstock.store.journal import Journal
from penstock.store.tables import actions, blobs, evictions

TRUSTED = ""

_CHUNK = 500
_COLUMNS = "key, project, step, run, ingredients, result, seconds, created, scope"
_SELECT = f"SELECT {_COLUMNS}, used FROM actions"  # noqa: S608 (our own names)
_PUT = (
    f"INSERT INTO actions ({_COLUMNS}, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 (as above)
    "ON CONFLICT (key, scope) DO UPDATE SET project = excluded.project, step = excluded.step, run = excluded.run, "
    "ingredients = excluded.ingredients, result = excluded.result, seconds = excluded.seconds, "
    "created = excluded.created, used = excluded.used"
)


class Actions:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def find(self, key: str, scope: str = TRUSTED) -> Action | None:
        """The stored result of a key that a run of this scope may read, a trusted one first; or None."""
        return self._one("WHERE key = ? AND scope IN ('', ?) ORDER BY scope LIMIT 1", (key, scope))

    def newest(self, project: str, step: str, scope: str = TRUSTED) -> Action | None:
        """The result that a step stored last, whatever its key, where this scope may read it: a miss's explanation."""
        readable = "WHERE project = ? AND step = ? AND scope IN ('', ?) ORDER BY created DESC LIMIT 1"
        return self._one(readable, (project, step, scope))

    def _one(self, condition: str, parameters: tuple[str, ...]) -> Action | None:
        rows = self._journal.rows(f"{_SELECT} {condition}", *parameters)
        return _action(rows[0])[0] if rows else None

    def put(self, action: Action) -> None:
        """Store a result in its scope; a later one for the same key and scope replaces it."""
        texts = json.dumps(action.ingredients), json.dumps(action.result)
        names = (action.key, action.project, action.step, action.run)
        values = (*names, *texts, action.seconds, action.created, action.scope, action.created)
        self._connection.exec_driver_sql(_PUT, values)

    def used(self, key: str, scope: str = TRUSTED) -> None:
        """Remember that a result was reused now; gc removes those used longest ago."""
        self._journal.update("actions", {"used": time.time()}, {"key": key, "scope": scope})

    def forget(self, key: str, scope: str = TRUSTED) -> None:
        """A result whose bytes are gone or damaged is no result."""
        for table in (actions, evictions):
            self._connection.execute(delete(table).where(_named(table, key, scope)))

    def evict(self, chosen: Iterable[Action], reason: str, at: float) -> None:
        """Remove results on purpose and remember why (half a sentence) and when."""
        for action in chosen:
            self._connection.execute(delete(actions).where(_named(actions, action.key, action.scope)))
            row = {"key": action.key, "scope": action.scope, "reason": reason, "at": at}
            statement = insert(evictions).values(row)
            self._connection.execute(
                statement.on_conflict_do_update(["key", "scope"], set_={"reason": reason, "at": at})
            )

    def eviction(self, key: str, scope: str = TRUSTED) -> Eviction | None:
        """Why the result of a key is not there any more, where it was removed on purpose; asked after `find`."""
        readable = evictions.c.scope.in_([TRUSTED, scope])
        query = select(evictions.c.reason, evictions.c.at).where(evictions.c.key == key, readable)
        row = self._connection.execute(query.order_by(evictions.c.at.desc()).limit(1)).first()
        return None if row is None else Eviction(str(row.reason), float(row.at))

    def forget_evictions(self, before: float) -> None:
        """Nobody asks any more for what was evicted before that time."""
        self._connection.execute(delete(evictions).where(evictions.c.at < before))

    def all(self) -> list[tuple[Action, float]]:
        """Every stored result of every scope with the time it was last used, the longest unused first."""
        rows = self._connection.exec_driver_sql(f"{_SELECT} ORDER BY used, key")
        return [_action(tuple(row)) for row in rows]


class Blobs:
    """Digest and size of git objects that were read once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, oids: Collection[str]) -> dict[str, File]:
        """Digest and size of the git objects that are known (as non-executable files)."""
        wanted = list(oids)
        known: dict[str, File] = {}
        for start in range(0, len(wanted), _CHUNK):
            asked = tuple(wanted[start : start + _CHUNK])
            query = f"SELECT oid, digest, size FROM blobs WHERE oid IN ({', '.join('?' * len(asked))})"  # noqa: S608
            rows = self._connection.exec_driver_sql(query, asked).fetchall()
            known.update((oid, File(Digest(digest), size)) for oid, digest, size in rows)
        return known

    def put(self, files: Mapping[str, File]) -> None:
        """Keep the digests of git objects, so that each is read once."""
        rows = [{"oid": oid, "digest": f.digest, "size": f.size} for oid, f in files.items()]
        if rows:
            self._connection.execute(insert(blobs).on_conflict_do_nothing(), rows)


def _action(row: tuple[Any, ...]) -> tuple[Action, float]:
    key, project, step, run, ingredients, result, seconds, created, scope, used = row
    found = Action(key, project, step, run, json.loads(ingredients), json.loads(result), seconds, created, scope)
    return found, float(used)


def _named(table: Table, key: str, scope: str) -> ColumnElement[bool]:
    return and_(table.c.key == key, table.c.scope == scope)
