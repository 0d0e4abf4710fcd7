"""The journal: every transition of every run, step, attempt and release, appended in the same transaction."""

import time
from typing import Any

from sqlalchemy import Connection, CursorResult, insert

from penstock.store import tables


def record(
    connection: Connection,
    kind: str,
    entity: str,
    event: str,
    states: tuple[str | None, str],
    detail: str | None = None,
) -> None:
    """Append one transition; `states` are before and after."""
    before, after = states
    connection.execute(
        insert(tables.events),
        {
            "at": time.time(),
            "kind": kind,
            "entity": entity,
            "event": event,
            "before": before,
            "after": after,
            "detail": detail,
        },
    )


def inserted(result: CursorResult[Any]) -> int:
    """The number that the database gave to a new row."""
    key = result.inserted_primary_key
    if key is None:
        raise AssertionError("a statement that inserted no row")
    return int(key[0])
