"""Runs, steps and attempts in the database; every status changes by the tables of `runs.py`, by compare-and-set."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from penstock.charts import Chart, chart_of
from penstock.errors import NotFoundError, TransitionError
from penstock.plans import PlannedStep, StepKind
from penstock.runs import (
    ENDED_RUN,
    ENDED_STEP,
    AttemptStatus,
    GateView,
    RunStatus,
    StepStatus,
    after_attempt,
    after_run,
    after_step,
)
from penstock.store import tables
from penstock.store.contract import Attempt, Follower, PackageRecord, Project, Run, StepRecord, Target
from penstock.store.journal import Journal, inserted


class Runs:
    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    # --- projects and versions

    def project(self, project: Project) -> None:
        """Remember a project; its name and location follow what was seen last."""
        values = {**asdict(project), "created": time.time()}
        changed = {"name": project.name, "location": project.location}
        self._connection.execute(upsert(tables.projects).values(values).on_conflict_do_update(["id"], set_=changed))

    def projects(self) -> list[Project]:
        """All projects of the home, oldest first."""
        columns = [c for c in tables.projects.c if c.name != "created"]
        rows = self._connection.execute(select(*columns).order_by(tables.projects.c.created)).mappings()
        return [Project(**row) for row in rows]

    def freeze_version(self, project: str, sha: str, version: str) -> str:
        """The version of a commit: the one frozen when it was first seen, else this one from now on."""
        row = {"project": project, "sha": sha, "version": version, "created": time.time()}
        self._connection.execute(upsert(tables.versions).values(row).on_conflict_do_nothing())
        query = select(tables.versions.c.version).where(
            tables.versions.c.project == project, tables.versions.c.sha == sha
        )
        return str(self._connection.execute(query).scalar_one())

    def version_of(self, project: str, sha: str) -> str | None:
        query = select(tables.versions.c.version).where(
            tables.versions.c.project == project, tables.versions.c.sha == sha
        )
        return self._connection.execute(query).scalar_one_or_none()

    # --- runs

    def add(self, values: Mapping[str, Any], steps: Sequence[PlannedStep], gates: Sequence[GateView]) -> int:
        """A new run, queued, with its steps and gates. `values` are the columns of the table without id and status."""
        owner = asdict(values["owner"])
        row = {**values, "owner": owner, "status": RunStatus.QUEUED, "created": time.time()}
        number = inserted(self._connection.execute(insert(tables.runs), row))
        rows = [
            {
                "run": number,
                "name": s.name,
                "position": position,
                "kind": s.kind,
                "stage": s.stage,
                "needs": list(s.needs),
                "status": StepStatus.QUEUED,
                "cached": False,
            }
            for position, s in enumerate(steps)
        ]
        self._connection.execute(insert(tables.steps), rows)
        judged = [
            {"run": number, "name": g.name, "position": i, "rule": g.rule, "reasons": []} for i, g in enumerate(gates)
        ]
        if judged:
            self._connection.execute(insert(tables.gates), judged)
        self._journal.record("run", str(number), "add", (None, RunStatus.QUEUED))
        return number

    def get(self, number: int) -> Run:
        if abs(number) >= 1 << 63:  # more than the database can hold, let alone has
            raise _no_run(number)
        row = self._connection.execute(select(tables.runs).where(tables.runs.c.id == number)).mappings().first()
        if row is None:
            raise _no_run(number)
        return _run(row)

    def glance(self, number: int) -> Run:
        """A run without its pipeline and options, which are long: what a picture needs, ten times a second."""
        columns = [c for c in tables.runs.c if c.name not in {"pipeline", "options"}]
        row = self._connection.execute(select(*columns).where(tables.runs.c.id == number)).mappings().first()
        if row is None:
            raise _no_run(number)
        return _run(row, pipeline={}, options={})

    def latest(self, project: str | None = None, limit: int = 20) -> list[Run]:
        """Runs, newest first."""
        query = select(tables.runs).order_by(tables.runs.c.id.desc()).limit(limit)
        if project is not None:
            query = query.where(tables.runs.c.project == project)
        return [_run(row) for row in self._connection.execute(query).mappings()]

    def open(self) -> list[Run]:
        """Runs that have not ended, oldest first."""
        query = select(tables.runs).where(tables.runs.c.status.not_in(ENDED_RUN)).order_by(tables.runs.c.id)
        return [_run(row) for row in self._connection.execute(query).mappings()]

    def status(self, number: int) -> RunStatus:
        """Where a run stands; its pipeline is not read."""
        return RunStatus(
            self._connection.execute(select(tables.runs.c.status).where(tables.runs.c.id == number)).scalar_one()
        )

    def owners(self) -> list[tuple[int, RunStatus, Follower]]:
        """Number, status and owner of the runs that have not ended, oldest first."""
        columns = (tables.runs.c.id, tables.runs.c.status, tables.runs.c.owner)
        query = select(*columns).where(tables.runs.c.status.not_in(ENDED_RUN)).order_by(tables.runs.c.id)
        return [(row.id, RunStatus(row.status), Follower(**row.owner)) for row in self._connection.execute(query)]

    def of_request(self, request: int) -> Run | None:
        row = self._connection.execute(select(tables.runs).where(tables.runs.c.request == request)).mappings().first()
        return None if row is None else _run(row)

    def number_of(self, request: int) -> int | None:
        """The number of a request's run, where there is one."""
        query = select(tables.runs.c.id).where(tables.runs.c.request == request)
        return self._connection.execute(query).scalar_one_or_none()

    def move(self, number: int, event: str, reason: str | None = None) -> RunStatus:
        """One transition of a run. Raises TransitionError where the table forbids it; then nothing changed."""
        before = self.glance(number)
        after = after_run(before.status, event)
        values: dict[str, Any] = {"status": after, "reason": reason}
        if after is RunStatus.RUNNING and before.started is None:
            values["started"] = time.time()
        if after in ENDED_RUN:
            values["ended"] = time.time()
        if self._journal.update("runs", values, {"id": number, "status": before.status}) != 1:
            raise TransitionError(f"run {number} changed meanwhile and cannot {event}")
        self._journal.record("run", str(number), event, (before.status, after), reason)
        return after

    def note(self, number: int, reason: str | None) -> None:
        """Say something of a run without a transition: for whom it waits."""
        self._connection.execute(update(tables.runs).where(tables.runs.c.id == number).values(reason=reason))

    def own(self, number: int, owner: Follower) -> None:
        """From now on new steps of the run start for this follower."""
        self._connection.execute(update(tables.runs).where(tables.runs.c.id == number).values(owner=asdict(owner)))

    def set_package(self, number: int, digest: str, size: int) -> None:
        self._connection.execute(
            update(tables.runs).where(tables.runs.c.id == number).values(package=digest, package_size=size)
        )

    # --- steps

    def steps(self, run: int) -> list[StepRecord]:
        """The steps of a run in the plan's order."""
        query = select(tables.steps).where(tables.steps.c.run == run).order_by(tables.steps.c.position)
        return [_step(row) for row in self._connection.execute(query).mappings()]

    def outline(self, run: int) -> list[StepRecord]:
        """The steps of a run without their ingredients and results: what a picture needs, ten times a second."""
        return [
            StepRecord(
                run, name, position, StepKind(kind), stage, _needs(needs), StepStatus(status), reason, bool(cached),
                key, None, None, started, ended,
            )
            for name, position, kind, stage, needs, status, reason, cached, key, started, ended
            in self._journal.rows(_OUTLINE, run)
        ]  # fmt: skip

    def ends(self, run: int) -> dict[str, tuple[int, int | None, str]]:
        """For each step of a run that was begun: the number of its last attempt, its exit code, and its log."""
        rows = self._journal.rows(_ENDS, run)
        return {step: (number, exit_code, log) for step, number, exit_code, log in rows}

    def step(self, run: int, name: str) -> StepRecord:
        query = select(tables.steps).where(tables.steps.c.run == run, tables.steps.c.name == name)
        row = self._connection.execute(query).mappings().first()
        if row is None:
            known = ", ".join(s.name for s in self.steps(run))
            raise NotFoundError(f'run {run} has no step "{name}"; it has {known}')
        return _step(row)

    def move_step(self, run: int, name: str, event: str, **values: Any) -> StepStatus:
        """One transition of a step, with columns that change with it (reason, cached, key, result …)."""
        return self.apply(self.step(run, name), event, **values).status

    def apply(self, before: StepRecord, event: str, **values: Any) -> StepRecord:
        """One transition of a step that is known to stand as `before`; returns it as it stands now.

        Raises TransitionError where the table forbids it, or where the step changed meanwhile.
        """
        after = after_step(before.status, event)
        values = {"reason": None, **values, "status": after}
        if after is StepStatus.RUNNING and before.started is None:
            values["started"] = time.time()
        if after is StepStatus.QUEUED:
            values.update(started=None, ended=None)
        if after in ENDED_STEP:
            values["ended"] = time.time()
        where = {"run": before.run, "name": before.name, "status": before.status}
        if self._journal.update("steps", values, where) != 1:
            raise TransitionError(f"step {before.name} of run {before.run} changed meanwhile and cannot {event}")
        self._journal.record("step", f"{before.run}/{before.name}", event, (before.status, after), values.get("reason"))
        return replace(before, **values)

    def keep_option(self, run: int, name: str, value: Any) -> None:
        """Keep something beside what was asked of a run, for whoever goes on with it."""
        options = {**self.get(run).options, name: value}
        self._connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(options=options))

    def note_step(self, run: int, name: str, **values: Any) -> None:
        """Change what is known of a step without a transition (ingredients, a word on its progress)."""
        self._connection.execute(
            update(tables.steps).where(tables.steps.c.run == run, tables.steps.c.name == name).values(values)
        )

    def durations(self, project: str, last: int = 5) -> dict[str, list[float]]:
        """How long the steps of a project took that passed lately, by name, newest first, in seconds."""
        recent = select(tables.runs.c.id).where(tables.runs.c.project == project)
        recent = recent.order_by(tables.runs.c.id.desc()).limit(4 * last)
        query = select(tables.steps.c.name, tables.steps.c.ended - tables.steps.c.started).where(
            tables.steps.c.run.in_(recent), tables.steps.c.status == StepStatus.PASSED
        )
        found: dict[str, list[float]] = {}
        for name, seconds in self._connection.execute(query.order_by(tables.steps.c.run.desc())):
            taken = found.setdefault(name, [])
            if len(taken) < last:
                taken.append(max(0.0, float(seconds)))  # a clock may have been set back meanwhile
        return found

    def last_ingredients(self, project: str, name: str, before: int) -> tuple[int, Mapping[str, Any]] | None:
        """The newest earlier run in which a step's ingredients are known, with these."""
        query = (
            select(tables.steps.c.run, tables.steps.c.ingredients)
            .join(tables.runs, tables.runs.c.id == tables.steps.c.run)
            .where(
                tables.runs.c.project == project,
                tables.steps.c.name == name,
                tables.steps.c.run < before,
                tables.steps.c.key.is_not(None),
            )
            .order_by(tables.steps.c.run.desc())
            .limit(1)
        )
        row = self._connection.execute(query).first()
        return None if row is None else (row.run, row.ingredients)

    # --- attempts

    def begin_attempt(self, run: int, step: str, detail: Mapping[str, Any], number: int | None = None) -> Attempt:
        """The intent to start a process, recorded before it exists; `number` counts from 1, None counts here."""
        if number is None:
            count = select(func.count()).where(tables.attempts.c.run == run, tables.attempts.c.step == step)
            number = int(self._connection.execute(count).scalar_one()) + 1
        values: dict[str, Any] = {
            "id": f"{run}.{step}.{number}",
            "run": run,
            "step": step,
            "number": number,
            "status": AttemptStatus.STARTING,
            "reason": None,
            "exit_code": None,
            "detail": detail,
            "handle": None,
            "log_end": None,
            "created": time.time(),
            "ended": None,
        }
        self._journal.insert("attempts", values)
        attempt = Attempt(**values)
        self._journal.record("attempt", attempt.id, "begin", (None, AttemptStatus.STARTING))
        return attempt

    def attempts(self, run: int, step: str | None = None) -> list[Attempt]:
        """The attempts of one step by their numbers, or of a whole run by the clock, which may have jumped between."""
        query = select(tables.attempts).where(tables.attempts.c.run == run)
        if step is not None:
            query = query.where(tables.attempts.c.step == step).order_by(tables.attempts.c.number)
        else:
            query = query.order_by(tables.attempts.c.created, tables.attempts.c.number)
        return [_attempt(row) for row in self._connection.execute(query).mappings()]

    def attempt_started(self, attempt: Attempt, handle: Mapping[str, Any]) -> Attempt:
        """The process of an attempt exists; returns the attempt as it stands now."""
        self._move_attempt(attempt, "started", {"handle": dict(handle)})
        return replace(attempt, status=AttemptStatus.RUNNING, handle=handle)

    def end_attempt(
        self,
        attempt: Attempt,
        reason: str,
        exit_code: int | None,
        log_end: int | None,
        handle: Mapping[str, Any] | None = None,
    ) -> None:
        """The attempt ended; it is never written again. `handle` is given where its start was not recorded yet."""
        values = {"reason": reason, "exit_code": exit_code, "log_end": log_end, "ended": time.time()}
        self._move_attempt(attempt, "end", {**values, "handle": dict(handle)} if handle is not None else values)

    def _move_attempt(self, attempt: Attempt, event: str, values: Mapping[str, Any]) -> None:
        after = after_attempt(attempt.status, event)
        where = {"id": attempt.id, "status": attempt.status}
        if self._journal.update("attempts", {**values, "status": after}, where) != 1:
            raise TransitionError(f"attempt {attempt.id} changed meanwhile and cannot {event}")
        self._journal.record("attempt", attempt.id, event, (attempt.status, after), values.get("reason"))

    # --- metrics, gates, packages, targets

    def set_metrics(self, run: int, step: str, values: Mapping[str, float]) -> None:
        """The metrics of a step, under their full names (`train.accuracy`)."""
        rows = [{"run": run, "name": name, "step": step, "value": value} for name, value in values.items()]
        if rows:
            statement = upsert(tables.metrics)
            self._connection.execute(
                statement.on_conflict_do_update(["run", "name"], set_={"value": statement.excluded.value}), rows
            )

    def metrics(self, run: int) -> dict[str, float]:
        query = select(tables.metrics.c.name, tables.metrics.c.value).where(tables.metrics.c.run == run)
        return {row.name: row.value for row in self._connection.execute(query.order_by(tables.metrics.c.name))}

    def judge(
        self,
        run: int,
        gate: str,
        verdict: str | None,
        value: float | None,
        reasons: Iterable[str],
        chart: Chart | None = None,
    ) -> None:
        self._connection.execute(
            update(tables.gates)
            .where(tables.gates.c.run == run, tables.gates.c.name == gate)
            .values(
                verdict=verdict,
                value=value,
                reasons=list(reasons),
                judged=time.time(),
                chart=None if chart is None else chart.as_json(),
            )
        )

    def gates(self, run: int) -> list[GateView]:
        query = select(tables.gates).where(tables.gates.c.run == run).order_by(tables.gates.c.position)
        return [
            GateView(
                row["name"], row["rule"], row["verdict"], row["value"], tuple(row["reasons"]), chart_of(row["chart"])
            )
            for row in self._connection.execute(query).mappings()
        ]

    def put_package(self, package: PackageRecord) -> None:
        """Record a package of a version; one that passed once keeps the run and lineage with which it passed."""
        values = asdict(package)
        changed = {name: values[name] for name in ("run", "lineage", "size", "created", "passed")}
        statement = upsert(tables.packages).values(values)
        first = tables.packages.c.passed.is_(False)
        keys = ["project", "version", "digest"]
        self._connection.execute(
            statement.on_conflict_do_update(keys, set_=changed, where=None if package.passed else first)
        )

    def packages(self, project: str, version: str | None = None) -> list[PackageRecord]:
        """Packages of a project, newest first."""
        query = select(tables.packages).where(tables.packages.c.project == project)
        if version is not None:
            query = query.where(tables.packages.c.version == version)
        rows = self._connection.execute(query.order_by(tables.packages.c.created.desc())).mappings()
        return [PackageRecord(**row) for row in rows]

    def set_target(self, target: Target) -> None:
        """Where a run stands with one environment."""
        values = asdict(target)
        changed = {k: values[k] for k in ("status", "reason", "release")}
        statement = upsert(tables.targets).values(values)
        self._connection.execute(statement.on_conflict_do_update(["run", "environment"], set_=changed))

    def targets(self, run: int) -> list[Target]:
        query = select(tables.targets).where(tables.targets.c.run == run).order_by(tables.targets.c.position)
        return [Target(**row) for row in self._connection.execute(query).mappings()]


_OUTLINE = (
    "SELECT name, position, kind, stage, needs, status, reason, cached, key, started, ended FROM steps "
    "WHERE run = ? ORDER BY position"
)
# Beside a maximum the other columns are those of its row.
_ENDS = "SELECT step, max(number), exit_code, json_extract(detail, '$.log') FROM attempts WHERE run = ? GROUP BY step"


@lru_cache(maxsize=4096)
def _needs(text: str) -> tuple[str, ...]:
    """Needs as they are stored; many steps of a run have the same."""
    return tuple(json.loads(text))


def _no_run(number: int) -> NotFoundError:
    return NotFoundError(f"there is no run {number} in this home: penstock runs lists them")


def _run(row: RowMapping, **more: Any) -> Run:
    return Run(
        **{
            **row,
            **more,
            "owner": Follower(**row["owner"]),
            "change": tuple(row["change"]),
            "notes": tuple(row["notes"]),
            "status": RunStatus(row["status"]),
        }
    )


def _step(row: RowMapping) -> StepRecord:
    return StepRecord(
        **{
            **row,
            "kind": StepKind(row["kind"]),
            "needs": tuple(row["needs"]),
            "status": StepStatus(row["status"]),
        }
    )


def _attempt(row: RowMapping) -> Attempt:
    return Attempt(**{**row, "status": AttemptStatus(row["status"])})
