"""Environments, releases and replicas in the database; a release moves by the table of `releases.py`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from penstock.errors import NotFoundError, TransitionError
from penstock.releases import Frozen, ReleaseStatus, after_release
from penstock.store import tables
from penstock.store.contract import Release, ReleaseEvent, Replica
from penstock.store.journal import Journal, inserted

_ENDED = frozenset({ReleaseStatus.RETIRED, ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK})


class Releases:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def generation(self, project: str, environment: str) -> int:
        """The generation last put in force in an environment; 0 for one that is new."""
        query = select(tables.environments.c.generation).where(
            tables.environments.c.project == project, tables.environments.c.name == environment
        )
        return int(self._connection.execute(query).scalar_one_or_none() or 0)

    def advance(self, project: str, environment: str, generation: int) -> bool:
        """Claim an environment for a generation; False where a newer one was there before."""
        if generation < self.generation(project, environment):
            return False
        values = {"project": project, "name": environment, "generation": generation}
        statement = upsert(tables.environments).values(values)
        self._connection.execute(statement.on_conflict_do_update(["project", "name"], set_={"generation": generation}))
        return True

    def frozen(self, project: str, environment: str) -> Frozen | None:
        """By whom and why an environment takes no release; None where it does."""
        query = select(tables.environments.c.frozen).where(
            tables.environments.c.project == project, tables.environments.c.name == environment
        )
        found = self._connection.execute(query).scalar_one_or_none()
        return None if found is None else Frozen(**found)

    def freeze(self, project: str, environment: str, frozen: Frozen) -> None:
        """Take no release any more."""
        self._set_frozen(project, environment, asdict(frozen))
        words = f"{frozen.by}: {frozen.reason}"
        self._journal.record("freeze", str(frozen.request), "freeze", (None, "frozen"), words)

    def unfreeze(self, project: str, environment: str, actor: str) -> None:
        """Take releases again. The environment is frozen."""
        frozen = self.frozen(project, environment)
        if frozen is None:
            raise TransitionError(f"{environment} is not frozen")
        self._set_frozen(project, environment, None)
        self._journal.record("freeze", str(frozen.request), "unfreeze", ("frozen", "lifted"), actor)

    def _set_frozen(self, project: str, environment: str, frozen: Mapping[str, Any] | None) -> None:
        values = {"project": project, "name": environment, "generation": 0, "frozen": frozen}
        statement = upsert(tables.environments).values(values)
        self._connection.execute(statement.on_conflict_do_update(["project", "name"], set_={"frozen": frozen}))

    def add(self, values: Mapping[str, Any]) -> Release:
        """A new release, starting. `values` are the columns of the table without id and status."""
        row = {**values, "status": ReleaseStatus.STARTING, "created": time.time()}
        number = inserted(self._connection.execute(insert(tables.releases), row))
        self._journal.record("release", str(number), "add", (None, ReleaseStatus.STARTING))
        return self.get(number)

    def get(self, number: int) -> Release:
        query = select(tables.releases).where(tables.releases.c.id == number)
        row = self._connection.execute(query).mappings().first()
        if row is None:
            raise NotFoundError(f"there is no release {number} in this home")
        return _release(row)

    def of(self, project: str | None = None, environment: str | None = None) -> list[Release]:
        """Releases, oldest first."""
        query = select(tables.releases).order_by(tables.releases.c.id)
        if project is not None:
            query = query.where(tables.releases.c.project == project)
        if environment is not None:
            query = query.where(tables.releases.c.environment == environment)
        return [_release(row) for row in self._connection.execute(query).mappings()]

    def newest_number(self, project: str, environment: str, other_than: int) -> int | None:
        """The number of an environment's newest release that another request than this one began; none is read."""
        table = tables.releases
        here = (table.c.project == project, table.c.environment == environment, table.c.request != other_than)
        found: int | None = self._connection.execute(select(func.max(table.c.id)).where(*here)).scalar_one()
        return found

    def newest_generation(self, project: str, environment: str) -> int:
        """The highest generation that a release of an environment was begun with, in force or not; 0 without any."""
        table = tables.releases
        here = (table.c.project == project, table.c.environment == environment)
        return int(self._connection.execute(select(func.max(table.c.generation)).where(*here)).scalar_one() or 0)

    def present(self, project: str | None = None, environment: str | None = None) -> list[Release]:
        """Releases that are on their way, serve or drain, or have replicas that were not ended; oldest first.

        Unlike `of` it costs nothing for what is long over.
        """
        table, replicas = tables.releases, tables.replicas
        kept = select(replicas.c.release).where(replicas.c.status != "ended")
        query = select(table).where(table.c.status.not_in(_ENDED) | table.c.id.in_(kept)).order_by(table.c.id)
        if project is not None:
            query = query.where(table.c.project == project)
        if environment is not None:
            query = query.where(table.c.environment == environment)
        return [_release(row) for row in self._connection.execute(query).mappings()]

    def current(self) -> list[Release]:
        """Of each environment of the home the release that has its traffic, else what something happened to last.

        By project and name.
        """
        table = tables.releases
        place = (table.c.project, table.c.environment)
        last = func.coalesce(table.c.ended, table.c.since, table.c.created)
        order = ((table.c.status == ReleaseStatus.SERVING).desc(), last.desc(), table.c.id.desc())
        ranked = select(table.c.id, func.row_number().over(partition_by=place, order_by=order).label("rank")).subquery()
        query = select(table).join(ranked, table.c.id == ranked.c.id).where(ranked.c.rank == 1).order_by(*place)
        return [_release(row) for row in self._connection.execute(query).mappings()]

    def newest(self) -> list[Release]:
        """The newest release of each environment of the home."""
        table = tables.releases
        chosen = select(func.max(table.c.id)).group_by(table.c.project, table.c.environment)
        query = select(table).where(table.c.id.in_(chosen)).order_by(table.c.id)
        return [_release(row) for row in self._connection.execute(query).mappings()]

    def serving(self, project: str, environment: str) -> Release | None:
        """The release that has an environment's traffic."""
        found = [r for r in self.of(project, environment) if r.status is ReleaseStatus.SERVING]
        return found[-1] if found else None

    def move(self, number: int, event: str, **values: Any) -> ReleaseStatus:
        """One transition of a release, with columns that change with it (reason, generation, fate …)."""
        before = self.get(number)
        after = after_release(before.status, event)
        values = {"phase": None, **values, "status": after}
        if after is ReleaseStatus.SERVING:
            values.update(since=time.time(), ended=None)
        if after in _ENDED:
            values["ended"] = time.time()
        if self._journal.update("releases", values, {"id": number, "status": before.status}) != 1:
            raise TransitionError(f"release {number} changed meanwhile and cannot {event}")
        self._journal.record("release", str(number), event, (before.status, after), values.get("reason"))
        return after

    def note(self, number: int, **values: Any) -> None:
        """Change what is known of a release without a transition (its phase, its reason)."""
        self._connection.execute(update(tables.releases).where(tables.releases.c.id == number).values(values))

    def events(self, numbers: Sequence[int]) -> list[ReleaseEvent]:
        """The transitions of some releases, oldest first."""
        table, wanted = tables.events, {str(number) for number in numbers}
        query = select(table).where(table.c.kind == "release").order_by(table.c.seq)
        rows = [row for row in self._connection.execute(query).mappings() if row["entity"] in wanted]
        return [ReleaseEvent(row["at"], int(row["entity"]), row["event"], row["detail"]) for row in rows]

    # --- replicas

    def add_replica(self, release: int, number: int, port: int, gpus: Sequence[int] = ()) -> Replica:
        """The intent to start a replica, on these GPUs, recorded before its process exists."""
        count = select(func.count()).where(tables.replicas.c.release == release)
        serial = int(self._connection.execute(count).scalar_one()) + 1
        row = {
            "id": f"release-{release}.{serial}",
            "release": release,
            "number": number,
            "port": port,
            "gpus": list(gpus) or None,
            "status": "starting",
            "created": time.time(),
        }
        self._connection.execute(insert(tables.replicas), row)
        return self.replica(str(row["id"]))

    def replica(self, name: str) -> Replica:
        row = self._connection.execute(select(tables.replicas).where(tables.replicas.c.id == name)).mappings().one()
        return Replica(**row)

    def replicas(self, release: int) -> list[Replica]:
        """The replicas of a release that were not ended, by number."""
        query = select(tables.replicas).where(tables.replicas.c.release == release, tables.replicas.c.status != "ended")
        return [Replica(**row) for row in self._connection.execute(query.order_by(tables.replicas.c.number)).mappings()]

    def last_gpus(self, release: int) -> tuple[int, ...]:
        """The GPUs that the newest replica of each number has or had."""
        query = select(tables.replicas).where(tables.replicas.c.release == release)
        rows = self._connection.execute(query.order_by(tables.replicas.c.created)).mappings()
        newest = {row["number"]: row["gpus"] or () for row in rows}
        return tuple(index for number in sorted(newest) for index in newest[number])

    def all_replicas(self) -> list[Replica]:
        """Every replica of the home that was not ended."""
        query = select(tables.replicas).where(tables.replicas.c.status != "ended").order_by(tables.replicas.c.id)
        return [Replica(**row) for row in self._connection.execute(query).mappings()]

    def note_replica(self, name: str, **values: Any) -> None:
        """What became of a replica: its handle once it started, its status."""
        if values.get("status") == "ended":
            values["ended"] = time.time()
        self._connection.execute(update(tables.replicas).where(tables.replicas.c.id == name).values(values))


def _release(row: RowMapping) -> Release:
    return Release(**{**row, "status": ReleaseStatus(row["status"])})
