"""Approvals in the database; one moves by the table of `approvals.py`."""

import time
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, insert, select

from penstock.approvals import ApprovalStatus, Pinned, Terms, after_approval
from penstock.errors import TransitionError
from penstock.store import tables
from penstock.store.contract import Approval
from penstock.store.journal import Journal, inserted

_TABLE = tables.approvals
_EVENTS = "SELECT at, event, detail FROM events WHERE kind = 'approval' AND entity = ? ORDER BY seq"
_PENDING = "SELECT id FROM approvals WHERE status = 'pending' ORDER BY id"


class Approvals:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def ask(self, project: str, run: int, request: int, pinned: Pinned, terms: Terms) -> Approval:
        """Somebody has to approve this."""
        values = {**asdict(pinned), **asdict(terms), "roles": list(terms.roles)}
        more = {"project": project, "run": run, "request": request, "created": time.time()}
        row = {**values, **more, "status": ApprovalStatus.PENDING}
        number = inserted(self._connection.execute(insert(_TABLE), row))
        self._journal.record("approval", str(number), "ask", (None, ApprovalStatus.PENDING))
        return self.get(number)

    def get(self, number: int) -> Approval:
        return _approval(self._connection.execute(select(_TABLE).where(_TABLE.c.id == number)).mappings().one())

    def of(self, project: str, environment: str | None = None) -> list[Approval]:
        """What was to be approved in a project, or in one environment of it, oldest first."""
        query = select(_TABLE).where(_TABLE.c.project == project)
        return self._all(query if environment is None else query.where(_TABLE.c.environment == environment))

    def of_run(self, run: int) -> list[Approval]:
        """What was to be approved for a run, oldest first."""
        return self._all(select(_TABLE).where(_TABLE.c.run == run))

    def newest(self, run: int, environment: str) -> Approval | None:
        """What was asked last for a run in an environment."""
        found = self._all(select(_TABLE).where(_TABLE.c.run == run, _TABLE.c.environment == environment))
        return found[-1] if found else None

    def newest_request(self, project: str, environment: str) -> int:
        """The newest request whose release to an environment waits for a word, or for its turn after it; 0 for none."""
        waiting = _TABLE.c.status.in_((ApprovalStatus.PENDING, ApprovalStatus.APPROVED))
        query = select(func.max(_TABLE.c.request)).where(_TABLE.c.project == project, waiting)
        return int(self._connection.execute(query.where(_TABLE.c.environment == environment)).scalar_one() or 0)

    def pending(self) -> list[Approval]:
        """What waits for somebody's word in this home, oldest first; asked many times a second."""
        return [self.get(number) for (number,) in self._journal.rows(_PENDING)]

    def events(self, number: int) -> list[tuple[float, str, str | None]]:
        """When what happened to a request for approval, and the reason given then, oldest first."""
        return [(at, event, detail) for at, event, detail in self._journal.rows(_EVENTS, str(number))]

    def move(
        self, number: int, event: str, *, reason: str | None = None, by: str | None = None, decision: int | None = None
    ) -> Approval:
        """One transition; `by` and `decision` say whose word and which request it was.

        Raises TransitionError where the table, or somebody meanwhile, does not allow it.
        """
        before = self.get(number)
        values: dict[str, Any] = {"status": after_approval(before.status, event)}
        if by is not None:
            values |= {"decided_by": by, "decision": decision, "decided": time.time(), "reason": reason}
        elif reason is not None:
            values["reason"] = reason
        if self._journal.update("approvals", values, {"id": number, "status": before.status}) != 1:
            raise TransitionError(f"approval {number} changed meanwhile and cannot {event}")
        self._journal.record("approval", str(number), event, (before.status, values["status"]), reason)
        return self.get(number)

    def _all(self, query: Select[Any]) -> list[Approval]:
        return [_approval(row) for row in self._connection.execute(query.order_by(_TABLE.c.id)).mappings()]


def _approval(row: RowMapping) -> Approval:
    parts = {name: row[name] for name in ("id", "project", "run", "request", "decision", "decided_by", "decided")}
    return Approval(
        **parts,
        pinned=Pinned(**_part(row, Pinned.__slots__)),
        terms=Terms(**{**_part(row, Terms.__slots__), "roles": tuple(row["roles"])}),
        status=ApprovalStatus(row["status"]),
        reason=row["reason"],
        created=row["created"],
    )


def _part(row: RowMapping, names: Collection[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}
