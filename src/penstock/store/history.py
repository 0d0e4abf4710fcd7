"""What runs came to, read in one go for the model of reliability."""

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Select, select

from penstock.plans import StepKind
from penstock.reliability import PastRun, PastStep
from penstock.runs import RunStatus, StepStatus
from penstock.store import tables


class History:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def outcomes(self, project: str, limit: int = 500) -> list[PastRun]:
        """How the newest runs of a project ended, with their steps, gates and environments, oldest first."""
        runs = tables.runs
        newest = select(runs.c.id).where(runs.c.project == project).order_by(runs.c.id.desc()).limit(limit)
        columns = (runs.c.id, runs.c.commit, runs.c.options, runs.c.status)
        rows = self._connection.execute(select(*columns).where(runs.c.id.in_(newest)).order_by(runs.c.id)).all()
        steps = self._by_run(_steps(newest))
        gates = self._by_run(_named(tables.gates.c.run, tables.gates.c.verdict, newest))
        targets = self._by_run(_named(tables.targets.c.run, tables.targets.c.status, newest))
        return [
            PastRun(
                run=row.id,
                sha=str(row.commit["sha"]),
                status=RunStatus(row.status),
                is_partial=row.options.get("step") is not None,
                is_dirty=bool(row.commit["dirty"]),
                steps=tuple(_step(*found) for found in steps.get(row.id, ())),
                verdicts=tuple(verdict for (verdict,) in gates.get(row.id, ())),
                targets=tuple(status for (status,) in targets.get(row.id, ())),
            )
            for row in rows
        ]

    def _by_run(self, query: Select[Any]) -> dict[int, list[tuple[Any, ...]]]:
        """The rows of a query, which begin with a run's number and are in its order, without that number."""
        rows: Iterable[tuple[Any, ...]] = map(tuple, self._connection.execute(query))
        return {run: [rest for _, *rest in found] for run, found in groupby(rows, itemgetter(0))}  # type: ignore[misc]


def _steps(newest: Select[Any]) -> Select[Any]:
    steps = tables.steps.c
    query = select(steps.run, steps.name, steps.kind, steps.stage, steps.status, steps.cached)
    return query.where(steps.run.in_(newest)).order_by(steps.run, steps.position)


def _named(run: Any, value: Any, newest: Select[Any]) -> Select[Any]:
    return select(run, value).where(run.in_(newest)).order_by(run, run.table.c.position)


def _step(name: str, kind: str, stage: str, status: str, cached: bool) -> PastStep:
    return PastStep(name, StepKind(kind), stage, StepStatus(status), bool(cached))
