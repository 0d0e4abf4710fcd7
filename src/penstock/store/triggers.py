"""What triggers saw and asked for. One row is one commit of a branch, or one due time of a schedule, for ever."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from penstock.commits import Trigger
from penstock.runs import RequestStatus
from penstock.store.contract import Follower
from penstock.store.requests import Requests
from penstock.store.tables import requests, triggers


@dataclass(frozen=True, slots=True)
class Occasion:
    """One thing that may ask for a run: of `project`, a `kind` (push, schedule, drift), and which one.

    For a push `name` is the branch and `value` the commit; for a schedule they are its name with its text, and the
    due time in seconds since the epoch; for drift the environment, and the release with the number of the look.
    """

    project: str
    kind: Trigger
    name: str
    value: str

    @property
    def key(self) -> str:
        """What makes it one of its kind in its project; neither a branch nor a commit holds a newline."""
        return f"{self.name}\n{self.value}"


@dataclass(frozen=True, slots=True)
class Seen:
    """An occasion that made no run, the reason, and when that was decided (seconds since the epoch)."""

    occasion: Occasion
    reason: str
    created: float


class Triggers:
    """The triggers' room of the store."""

    def __init__(self, connection: Connection, asked: Requests) -> None:
        self._connection = connection
        self._requests = asked

    def ask(self, occasion: Occasion, payload: Mapping[str, Any], follower: Follower, actor: str) -> int | None:
        """Ask for the run of an occasion; None where it was decided before. Call it in a transaction.

        The occasion and the request are there together or not at all, so that a kill at any point neither loses a run
        nor makes a second one.
        """
        if not self._note(occasion, None):
            return None
        number = self._requests.add("run", payload, follower, actor)
        own = (triggers.c.project == occasion.project, triggers.c.kind == occasion.kind, triggers.c.key == occasion.key)
        self._connection.execute(triggers.update().where(*own).values(request=number))
        return number

    def begin_at(self, occasion: Occasion) -> bool:
        """Remember an occasion as one that was there before anybody watched; False where it was decided before."""
        return self._note(occasion, None)

    def pass_over(self, occasion: Occasion, reason: str) -> bool:
        """Remember that an occasion makes no run, and why; False where it was decided before."""
        return self._note(occasion, reason)

    def _note(self, occasion: Occasion, reason: str | None) -> bool:
        row = {
            "project": occasion.project,
            "kind": occasion.kind,
            "key": occasion.key,
            "name": occasion.name,
            "value": occasion.value,
            "reason": reason,
            "created": time.time(),
        }
        return self._connection.execute(insert(triggers).values(row).on_conflict_do_nothing()).rowcount == 1

    def newest(self, project: str, kind: Trigger) -> dict[str, str]:
        """Of each name (branch, schedule) the value that was decided last."""
        last = select(func.max(triggers.c.id)).where(triggers.c.project == project, triggers.c.kind == kind)
        query = select(triggers.c.name, triggers.c.value).where(triggers.c.id.in_(last.group_by(triggers.c.name)))
        return {row.name: row.value for row in self._connection.execute(query)}

    def decided(self, occasion: Occasion) -> bool:
        """Whether an occasion was decided before."""
        own = (triggers.c.project == occasion.project, triggers.c.kind == occasion.kind, triggers.c.key == occasion.key)
        return self._connection.execute(select(triggers.c.id).where(*own)).first() is not None

    def going_on(self, project: str, kind: Trigger | None = None, name: str | None = None) -> int:
        """How many requests that triggers made for a project are still open; or those of one kind and name."""
        query = (
            select(func.count())
            .select_from(triggers.join(requests, requests.c.id == triggers.c.request))
            .where(requests.c.status == RequestStatus.OPEN, triggers.c.project == project)
        )
        if kind is not None:
            query = query.where(triggers.c.kind == kind, triggers.c.name == name)
        return int(self._connection.execute(query).scalar_one())

    def passed_over(self, limit: int) -> list[Seen]:
        """The pushed commits that were not run, newest first."""
        query = select(triggers).where(triggers.c.kind == Trigger.PUSH, triggers.c.reason.is_not(None))
        rows = self._connection.execute(query.order_by(triggers.c.id.desc()).limit(limit))
        return [Seen(Occasion(r.project, Trigger(r.kind), r.name, r.value), str(r.reason), r.created) for r in rows]
