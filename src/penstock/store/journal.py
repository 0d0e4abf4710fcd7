"""The journal: every transition of every run, step, attempt and release, appended in the same transaction.

Transitions are the hot path of the store, so they and their journal are plain SQL texts, prepared once and given to
the database's own driver (a tenth of SQLAlchemy's time for each); everything else is SQLAlchemy Core.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, CursorResult

from penstock.store.tables import metadata

_INSERT = "INSERT INTO events (at, kind, entity, event, before, after, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Journal:
    """Collects the transitions of a transaction and writes them in one go before its commit."""

    def __init__(self, connection: Connection) -> None:
        self._driver: Any = connection.connection.dbapi_connection
        self._pending: list[tuple[Any, ...]] = []
        self.collecting = False

    def record(
        self, kind: str, entity: str, event: str, states: tuple[str | None, str], detail: str | None = None
    ) -> None:
        """Append one transition; `states` are before and after."""
        self._pending.append((time.time(), kind, entity, event, *states, detail))
        if not self.collecting:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._pending:
            rows, self._pending = self._pending, []
            self._driver.executemany(_INSERT, rows)

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._driver.in_transaction)

    def execute(self, text: str) -> None:
        """One statement as it stands: the beginning and the end of a transaction."""
        self._driver.execute(text)

    def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query that is asked many times a second."""
        return list(self._driver.execute(text, parameters))

    def many(self, text: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each of very many rows."""
        self._driver.executemany(text, rows)

    def names(self) -> list[str]:
        """What was collected, as `kind.event`."""
        return [f"{kind}.{event}" for _, kind, _, event, *_ in self._pending]

    def forget(self) -> None:
        """The transaction was rolled back: nothing of it happened."""
        self._pending.clear()

    def insert(self, table: str, values: Mapping[str, Any]) -> None:
        """Insert one row."""
        text, json_columns = _insert_text(table, tuple(values))
        self._driver.execute(text, _encoded(values, json_columns))

    def update(self, table: str, values: Mapping[str, Any], where: Mapping[str, Any]) -> int:
        """Set columns of the rows that equal `where` (a compare-and-set); returns how many there were."""
        text, json_columns = _update_text(table, tuple(values), tuple(where))
        parameters = (*_encoded(values, json_columns), *where.values())
        return int(self._driver.execute(text, parameters).rowcount)


@lru_cache(maxsize=256)
def _update_text(table: str, columns: tuple[str, ...], where: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    """The statement, its words quoted (`commit` is one of SQL's own), and which columns hold JSON."""
    sets = ", ".join(f'"{c}" = ?' for c in columns)
    conditions = " AND ".join(f'"{c}" = ?' for c in where)
    return f"UPDATE {table} SET {sets} WHERE {conditions}", _json_columns(table)  # noqa: S608 (our own names)


@lru_cache(maxsize=64)
def _insert_text(table: str, columns: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    names = ", ".join(f'"{c}"' for c in columns)
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({names}) VALUES ({marks})", _json_columns(table)  # noqa: S608 (our own names)


@lru_cache(maxsize=16)
def _json_columns(table: str) -> frozenset[str]:
    return frozenset(c.name for c in metadata.tables[table].c if c.type.__class__.__name__ == "JSON")


def _encoded(values: Mapping[str, Any], json_columns: frozenset[str]) -> Sequence[Any]:
    return tuple(json.dumps(v) if k in json_columns and v is not None else v for k, v in values.items())


def inserted(result: CursorResult[Any]) -> int:
    """The number that the database gave to a new row."""
    key = result.inserted_primary_key
    if key is None:
        raise AssertionError("a statement that inserted no row")
    return int(key[0])
