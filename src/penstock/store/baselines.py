"""Baselines in the database: which runs may become one, where they come from, and what the file fixed when.

A run may become a baseline that passed as a whole, on a commit, and trusted: never a red, errored or canceled one, one
of a dirty working tree or of an untrusted change, and never one of a single step.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from penstock.baselines import Change, Origin
from penstock.runs import RunStatus
from penstock.store import tables
from penstock.store.journal import Journal

_RUNS = tables.runs.c
_SHA = _RUNS.commit["sha"].as_string()
_DIRTY = _RUNS.commit["dirty"].as_boolean()
_STEP = _RUNS.options["step"].as_string()
_SCOPE = func.coalesce(_RUNS.options["scope"].as_string(), "")
_PASSED = func.coalesce(_RUNS.status, "") == RunStatus.PASSED  # the index by status would read all other projects too
_SOUND = and_(_PASSED, _DIRTY.is_not(True), _STEP.is_(None), _SCOPE == "")
_CANDIDATE = (
    _RUNS.id.label("run"),
    _RUNS.version,
    _SHA.label("sha"),
    _RUNS.status,
    func.coalesce(_DIRTY, False).label("dirty"),
    _STEP.label("step"),
    _SCOPE.label("scope"),
    _RUNS.package,
    _RUNS.commit["branches"].label("branches"),
    _RUNS.ended,
)
_CHANGE = [field.name for field in fields(Change)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run as far as it matters for what it may become. `step` is the only one that was asked for, if so."""

    run: int
    version: str
    sha: str
    status: RunStatus
    dirty: bool
    step: str | None
    scope: str
    package: str | None
    branches: tuple[str, ...]
    ended: float | None

    @property
    def flaw(self) -> str | None:
        """Why it cannot be a baseline, as the end of a sentence about the run; None where it can."""
        if self.status is not RunStatus.PASSED:
            return _HOW.get(self.status, "has not ended")
        if self.dirty:
            return "is of a dirty working tree"
        if self.scope:
            return "is of an untrusted change"
        return f"was of step {self.step} only" if self.step is not None else None


_HOW = {
    RunStatus.FAILED: "failed",
    RunStatus.ERRORED: "errored",
    RunStatus.CANCELED: "was canceled",
    RunStatus.SUPERSEDED: "was superseded",
}


class Baselines:
    """The baselines' room of the store."""

    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    # --- runs

    def sound(
        self, project: str, limit: int, *, below: int | None = None, other_than: str | None = None
    ) -> list[Candidate]:
        """Runs of a project that may become a baseline, newest first.

        `below` is a run's number that theirs are less than, `other_than` a commit that they are not of.
        """
        return self._candidates(_SOUND, *_among(project, below, other_than), limit=limit)

    def any(
        self, project: str, limit: int, *, below: int | None = None, other_than: str | None = None
    ) -> list[Candidate]:
        """Runs of a project, whatever became of them, newest first."""
        return self._candidates(*_among(project, below, other_than), limit=limit)

    def of_version(
        self, project: str, version: str, shas: Collection[str] = (), *, below: int | None = None
    ) -> list[Candidate]:
        """The newest sound run of a version, and the newest run of it at all; nothing where there is none.

        A version is named in full, or without what stands after its `+`; `shas` are commits that a tag names so.
        """
        frozen = tables.versions.c
        within = and_(frozen.version > f"{version}+", frozen.version < f"{version},")  # the comma comes after the plus
        named = or_(frozen.version == version, within, frozen.sha.in_(shas))
        query = select(frozen.version).where(frozen.project == project, named)
        known = self._connection.execute(query).scalars().all()
        if not known:
            return []
        conditions = (_RUNS.version.in_(known), *_among(project, below, None))
        return [*self._candidates(_SOUND, *conditions, limit=1), *self._candidates(*conditions, limit=1)]

    def _candidates(self, *conditions: ColumnElement[bool], limit: int) -> list[Candidate]:
        query = select(*_CANDIDATE).where(*conditions).order_by(_RUNS.id.desc()).limit(limit)
        return [
            Candidate(**{**row, "status": RunStatus(row["status"]), "branches": tuple(row["branches"] or ())})
            for row in self._connection.execute(query).mappings()
        ]

    # --- where they come from

    def keep_origin(self, run: int, origin: Origin) -> None:
        """Remember where a run comes from, in the transaction in which it passes."""
        values = {"data": dict(origin.data), "hardware": dict(origin.hardware), "seeds": dict(origin.seeds)}
        statement = upsert(tables.origins).values(run=run, **values)
        self._connection.execute(statement.on_conflict_do_update(["run"], set_=values))

    def origin(self, run: int) -> Origin | None:
        """Where a run comes from; None for one that did not pass, or passed before that was kept."""
        query = select(tables.origins).where(tables.origins.c.run == run)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else Origin(row["data"], row["hardware"], row["seeds"])

    # --- fixed numbers

    def changes(self, project: str, gate: str | None = None) -> list[Change]:
        """What became of the numbers that a project's file fixes, oldest first; of one gate, or of all."""
        table = tables.fixed_baselines.c
        query = select(*(table[name] for name in _CHANGE)).where(table.project == project).order_by(table.id)
        if gate is not None:
            query = query.where(table.gate == gate)
        return [Change(**row) for row in self._connection.execute(query).mappings()]

    def record(self, project: str, change: Change) -> None:
        """Append a change, in the caller's transaction; a request that made one for this gate makes no other."""
        row = {"project": project, **{name: getattr(change, name) for name in _CHANGE}}
        self._connection.execute(insert(tables.fixed_baselines), row)
        self._journal.record("baseline", f"{project}/{change.gate}", change.event, (None, change.event), change.reason)

    def first_run(self, project: str, version: str, sha: str) -> int:
        """The first run of a commit, which has this version; 0 where there is none."""
        query = select(func.min(_RUNS.id)).where(_RUNS.project == project, _RUNS.version == version, _SHA.in_([sha]))
        return int(self._connection.execute(query).scalar_one_or_none() or 0)


def _among(project: str, below: int | None, other_than: str | None) -> list[ColumnElement[Any]]:
    found: list[ColumnElement[Any]] = [_RUNS.project == project]
    found += [] if below is None else [_RUNS.id < below]
    return found + ([] if other_than is None else [_SHA.not_in([other_than])])
