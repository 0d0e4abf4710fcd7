"""The deciding loop of a home: requests become runs and releases, and whatever lives is watched.

There is one coordinator per home (the holder of its lock). It can be killed at any point: all it knows is in the
store, and processes go on without it. The next one takes up every open run and every unfinished release.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any, Literal

from penstock.commits import Commit
from penstock.engine.approving import decide, drop, refuse_unapproved, tend
from penstock.engine.context import RunContext, need_of
from penstock.engine.delivery import Delivery
from penstock.engine.driving import Driver, release_spec, wanted_by
from penstock.engine.followers import is_alive
from penstock.engine.freezing import freeze
from penstock.engine.governing import approve
from penstock.engine.installing import StoppedRollout
from penstock.engine.scheduling import Need
from penstock.engine.sweeping import sweep, sweep_over_cap
from penstock.engine.turns import Flights, Shared, Turns
from penstock.engine.world import World
from penstock.errors import NotFoundError, PenstockError, StateError
from penstock.opponents import opponents, with_opponents
from penstock.parts import Concurrency
from penstock.pipelines import Pipeline
from penstock.plans import Plan, StepKind, plan
from penstock.releases import ReleaseStatus
from penstock.rollouts import Asked
from penstock.runs import ENDED_RUN, AttemptStatus, GateView, Member, RunStatus, StepStatus, admit
from penstock.store.contract import NOBODY, Project, Request, Run, Target

TICK = 0.5
"""Seconds between two looks at what no poke tells: followers that died."""

EXIT_CODES: Mapping[RunStatus, int] = {
    RunStatus.PASSED: 0,
    RunStatus.FAILED: 1,
    RunStatus.ERRORED: 3,
    RunStatus.CANCELED: 3,
    RunStatus.SUPERSEDED: 3,
    RunStatus.WAITING: 4,
    RunStatus.QUEUED: 130,
}

TAKE_TURNS = frozenset({StepKind.CHECK, StepKind.LOCK, StepKind.FINGERPRINT, StepKind.STEP, StepKind.REPLAY})
"""The kinds of steps that hold a share of the home while they run."""

log = logging.getLogger("penstock")


class Coordinator:
    """Coordinates one home while it holds the lock."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.store
        self._shared = Shared(Turns(world.capacity), Flights())
        self._delivery = Delivery(world, self._shared.turns)
        self._drivers: dict[int, Driver] = {}
        self._driving: dict[int, asyncio.Task[None]] = {}
        self._handling: dict[int, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()
        self._news = asyncio.Event()
        self._owned: dict[int, bool] = {}
        self._groups: dict[int, tuple[tuple[str, ...], Concurrency] | None] = {}
        self._waiting: Mapping[int, int] = {}
        self._superseding: dict[int, asyncio.Task[None]] = {}
        self._begun: dict[int, tuple[Pipeline, Plan]] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def coordinate(self, done: Callable[[], bool]) -> None:
        """Work on all open requests of the home until `done`; then leave everything as it lives."""
        loop = asyncio.get_running_loop()
        fifo = os.open(self._world.home.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(fifo, self._poked, fifo)
        self._store.take_charge()
        self._hold_runs()
        self._delivery.hold_live()
        recovering = asyncio.create_task(self._recover())
        try:
            while not done() or self._is_tidying:
                self._store.insist()
                self._look()
                await self._event()
            await recovering
        finally:
            loop.remove_reader(fifo)
            os.close(fifo)
            await self._leave(recovering)

    async def _recover(self) -> None:
        try:
            await self._delivery.recover()
        except Exception:  # the loop's edge: what serves must not depend on this command
            log.exception("what this home serves could not be brought up as it should")

    def _poked(self, fifo: int) -> None:
        os.read(fifo, 65536)
        self._moved.set()

    async def _event(self) -> None:
        self._moved.clear()
        await self._wait_for(self._moved)

    async def _wait_for(self, event: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await event.wait()

    async def _leave(self, *others: asyncio.Task[None]) -> None:
        sweeping = [self._sweeping] if self._sweeping is not None else []
        handling = [*self._superseding.values(), *self._handling.values(), *self._driving.values()]
        tasks = [*others, *sweeping, *self._delivery.watches, *handling]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self) -> None:
        """One look at the store: take up new requests and runs, and notice followers that died."""
        tend(self._world)
        for number in self._store.requests.open_numbers():
            if number not in self._handling:
                self._take_up(self._store.requests.get(number))
        for driver in self._drivers.values():
            driver.cap_logs()
        self._admit()

    def _admit(self) -> None:
        """Drive the open runs that may go on, those of concurrency groups as their limits allow."""
        members: list[Member] = []
        for run, status, owner in self._store.runs.owners():
            if status is RunStatus.WAITING:
                continue
            owned = is_alive(owner)
            if owned or status is RunStatus.RUNNING:
                members += self._member(run, active=run in self._driving or status is RunStatus.RUNNING)
            if self._owned.get(run) != owned:
                self._owned[run] = owned
                self._tell()
                if run in self._drivers:
                    self._drivers[run].nudge()
        admission = admit(members)
        active = [m.run for m in members if m.active and m.run not in admission.superseded]
        for run in (*active, *admission.start):
            if run not in self._driving:
                self._drive(self._store.runs.get(run))
        for run in admission.superseded:
            if run not in self._superseding:
                self._superseding[run] = asyncio.create_task(self._supersede(run))
        self._note_waiting(admission.waiting)

    def _member(self, run: int, *, active: bool) -> Iterator[Member]:
        """The run as a member of its group; a run without one is alone in its own."""
        if run not in self._groups:
            found = self._store.runs.get(run)
            self._groups[run] = _group_of(found.project, found.commit, Pipeline.model_validate(found.pipeline))
        group = self._groups[run]
        if group is None:
            yield Member(run, ("", str(run)), 1, "wait", active)
        else:
            yield Member(run, group[0], group[1].limit, group[1].older, active)

    def _note_waiting(self, waiting: Mapping[int, int]) -> None:
        """Say of each run that waits for whom, once."""
        news = {run: other for run, other in waiting.items() if self._waiting.get(run) != other}
        if news:
            with self._store.transaction():
                for run, other in news.items():
                    self._store.runs.note(run, f"waits for run {other} of its concurrency group")
        self._waiting = waiting

    async def _supersede(self, run: int) -> None:
        try:
            await self._stop_one(run, "superseded", 0.0)
        except StateError:
            log.info("run %s ended before it could be superseded", run)
        finally:
            del self._superseding[run]
            self._moved.set()

    def _take_up(self, request: Request) -> None:
        """Begin with a request; only a run may be asked for by somebody who is gone."""
        if request.kind != "run" and not is_alive(request.follower):
            self._store.requests.refuse(request.id, 3, "the command that asked for it died: ask again")
        else:
            self._handling[request.id] = asyncio.create_task(self._handle(request))

    # --- runs

    def _drive(self, run: Run) -> None:
        """Start (or go on) driving a run in a task of its own."""
        commit = Commit(**{**run.commit, "branches": tuple(run.commit["branches"])})
        pipeline, planned = self._begun.pop(run.id) if run.id in self._begun else _planned(run.pipeline)
        self._owned[run.id] = is_alive(run.owner)
        self._hold_live(run, pipeline, planned)

        async def drive() -> None:
            try:
                files = self._world.source.files(self._world.home.path / run.mirror, commit.sha)
                context = RunContext(self._world, run, pipeline, planned, commit, files)
                driver = Driver(context, self._delivery, self._shared, lambda: self._owned.get(run.id, False))
                self._drivers[run.id] = driver
                with closing(files):
                    await driver.drive()
            except asyncio.CancelledError:
                raise
            except PenstockError as error:
                self._give_up(run.id, str(error))
            except Exception as error:  # the loop's edge: one run's defect must not stop the others
                log.exception("run %s met a defect of Penstock", run.id)
                self._give_up(run.id, f"a defect of Penstock ({type(error).__name__}: {error}): please report it")
            finally:
                self._drivers.pop(run.id, None)
                self._driving.pop(run.id, None)
                self._groups.pop(run.id, None)
                self._shared.turns.drop(run.id)
                self._moved.set()
                self._tidy()

        self._driving[run.id] = asyncio.create_task(drive())
        self._tell()

    def _tidy(self) -> None:
        """After a run the cache is brought back under its cap, by one sweep at a time; nobody waits for it."""
        if not self._is_tidying:
            self._sweeping = asyncio.create_task(self._sweep())

    @property
    def _is_tidying(self) -> bool:
        return self._sweeping is not None and not self._sweeping.done()

    async def _sweep(self) -> None:
        try:
            await sweep_over_cap(self._world, quiet=not self._driving)
        except Exception:  # the loop's edge: what cannot be tidied up now is so after the next run
            log.exception("the cache could not be brought under its cap")
        finally:
            self._moved.set()

    def _hold_runs(self) -> None:
        """What lives of all runs holds its share before a release chooses GPUs."""
        for run in self._store.runs.open():
            if run.status is RunStatus.RUNNING:
                self._begun[run.id] = _planned(run.pipeline)
                self._hold_live(run, *self._begun[run.id])

    def _hold_live(self, run: Run, pipeline: Pipeline, planned: Plan) -> None:
        """What lives of a run holds its share before anything else starts, of this run or of another."""
        if run.status is not RunStatus.RUNNING:
            return
        for attempt in self._store.runs.attempts(run.id):
            if attempt.status is not AttemptStatus.ENDED and planned[attempt.step].kind in TAKE_TURNS:
                step = pipeline.steps.get(attempt.step)
                need = Need() if step is None else need_of(step)
                self._shared.turns.hold((run.id, attempt.step), need, tuple(attempt.detail.get("gpus", ())))

    def _give_up(self, run: int, reason: str) -> None:
        """A run that cannot be driven is errored, whatever its steps' state."""
        runs = self._store.runs
        status = runs.status(run)
        if status in ENDED_RUN or status is RunStatus.WAITING:
            return
        with self._store.transaction():
            if status is RunStatus.QUEUED:
                runs.move(run, "start")
            runs.move(run, "error", reason=reason)

    async def _until_ended(self, run: int) -> RunStatus:
        """Wait until a run has ended, was interrupted, or waits for a person."""
        while True:
            status = self._store.runs.status(run)
            task = self._driving.get(run)
            if status in ENDED_RUN or status is RunStatus.WAITING:
                return status
            if task is None:
                if status is RunStatus.QUEUED and not self._owned.get(run, True):
                    return status
                await self._wait_for(self._news)
            else:
                await asyncio.wait({task}, timeout=TICK)

    def _tell(self) -> None:
        """Wake whoever waits for a run that is not driven."""
        self._news.set()
        self._news = asyncio.Event()

    async def _tick(self) -> None:
        await asyncio.sleep(0.02)

    # --- requests

    async def _handle(self, request: Request) -> None:
        """Carry out one request; what cannot be carried out is refused with its sentence."""
        verbs: Mapping[str, Callable[[Request], Awaitable[None]]] = {
            "run": self._run,
            "rerun": self._rerun,
            "resume": self._resume,
            "cancel": self._stop_run,
            "interrupt": self._stop_run,
            "deploy": self._deploy,
            "rollback": self._rollback,
            "approve": self._approve,
            "promote": self._wish,
            "abort": self._wish,
            "stop": self._stop,
            "freeze": self._freeze,
            "unfreeze": self._freeze,
            "gc": self._gc,
            "approve_baseline": self._approve_baseline,
        }
        try:
            await verbs[request.kind](request)
        except PenstockError as error:
            self._store.requests.refuse(request.id, error.exit_code, str(error))
        except StoppedRollout:
            self._store.requests.refuse(request.id, 130, "interrupted before its turn came")
        except Exception as error:  # the loop's edge: one request's defect must not stop the others
            log.exception("request %s met a defect of Penstock", request.id)
            sentence = f"a defect of Penstock ({type(error).__name__}: {error}): please report it"
            self._store.requests.refuse(request.id, 3, sentence)
        finally:
            self._moved.set()

    async def _run(self, request: Request) -> None:
        number = self._store.runs.number_of(request.id) or self._add_run(request)
        self._admit()
        status = await self._until_ended(number)
        if status is not RunStatus.QUEUED:
            self._store.requests.end(request.id, EXIT_CODES[status], {"run": number})

    def _add_run(self, request: Request) -> int:
        """The run of a request, in one transaction: a request never makes two."""
        wanted = request.payload
        pipeline, planned = _planned(wanted["pipeline"])
        options = wanted["options"]
        runs = self._store.runs
        with self._store.transaction():
            runs.project(Project(**wanted["project"]))
            project = str(wanted["project"]["id"])
            version = runs.freeze_version(project, wanted["commit"]["sha"], wanted["version"])
            number = runs.add(
                {
                    "request": request.id,
                    "project": project,
                    "owner": request.follower,
                    "version": version,
                    "commit": wanted["commit"],
                    "change": wanted["change"],
                    "trigger": wanted["trigger"],
                    "mirror": wanted["mirror"],
                    "pipeline": wanted["pipeline"],
                    "options": options,
                    "notes": wanted["notes"],
                },
                planned.steps,
                [GateView(g.name, g.rule) for g in pipeline.gates.values()],
            )
            self._narrow(number, pipeline, planned, options)
        self._begun[number] = pipeline, planned
        self._groups[number] = _group_of(project, wanted["commit"], pipeline)
        return number

    def _narrow(self, run: int, pipeline: Pipeline, planned: Plan, options: Mapping[str, Any]) -> None:
        """Leave out what was not asked for: other steps, environments after the wanted one, or all of them."""
        only = options.get("step")
        if only is not None:
            asked = {name for name, one in opponents(pipeline).items() if one.step == only}
            wanted = planned.only(only) | asked | {s.name for s in planned.steps if s.kind is StepKind.SERVE}
            for name in planned.names:
                if name not in wanted:
                    self._store.runs.move_step(run, name, "skip", reason="not asked for")
        for position, name in enumerate(environment_order(pipeline, options.get("to"))):
            if only is None and not options.get("no_deploy"):
                self._store.runs.set_target(Target(run, name, position, "queued", None, None))

    async def _rerun(self, request: Request) -> None:
        """Open the failed steps of a run that goes on; one that has ended is run anew by a request of its own."""
        number = int(request.payload["run"])
        run = self._store.runs.get(number)
        if run.status in ENDED_RUN:
            raise StateError(f"run {number} has already {_HAS[run.status]}: rerun it once more, as a new run")
        while number not in self._drivers and number in self._driving:
            await self._tick()
        opened = self._drivers[number].open_failed() if number in self._drivers else []
        self._store.requests.end(request.id, 0, {"run": number, "steps": opened})

    async def _resume(self, request: Request) -> None:
        wanted = request.payload.get("run")
        runs = [r for r in self._store.runs.open() if r.id == (wanted or r.id)]
        if wanted is None:
            runs = [r for r in runs if r.status is not RunStatus.WAITING]
        if not runs and wanted is not None:
            raise StateError(f"nothing to resume: run {wanted} has already {_HAS[self._store.runs.get(wanted).status]}")
        for run in runs:
            if run.status is not RunStatus.WAITING and not is_alive(
                run.owner
            ):  # else its own command goes on, also when this one dies
                self._store.runs.own(run.id, request.follower)
            self._owned[run.id] = True
            if run.id in self._drivers:
                self._drivers[run.id].nudge()
        self._admit()
        statuses = [await self._until_ended(run.id) for run in runs]
        codes = {EXIT_CODES[status] for status in statuses}
        for run in runs:
            status = self._store.runs.status(run.id)
            if status is not RunStatus.QUEUED:  # else it was interrupted once more, and goes on with the next `resume`
                self._store.requests.end(run.request, EXIT_CODES[status], {"run": run.id})
        worst = next((code for code in (130, 1, 3, 4) if code in codes), 0)
        self._store.requests.end(request.id, worst, {"runs": [run.id for run in runs]})

    async def _stop_run(self, request: Request) -> None:
        """End the processes of runs: `cancel` for good, `interrupt` until `resume`."""
        for number in self._wanted_runs(request.payload):
            await self._stop_one(number, "canceled" if request.kind == "cancel" else "interrupted", request.created)
        self._store.requests.end(request.id, 0)

    async def _stop_one(self, number: int, why: str, asked: float) -> None:
        run = self._store.runs.get(number)
        if run.status is RunStatus.CANCELED and why == "canceled" and (run.ended or 0.0) >= asked:
            return  # by this very request, whose end an earlier coordinator did not come to record
        if run.status in ENDED_RUN:
            raise StateError(f"run {number} has already {_HAS[run.status]}")
        waits = number not in self._driving and run.status in {RunStatus.QUEUED, RunStatus.WAITING}
        if waits and why != "interrupted":
            await self._delivery.give_up(run.request)  # what it had begun to release before it was interrupted
        if waits:
            self._close(run, why)
        elif number not in self._driving:
            self._drive(run)
        while number not in self._drivers and number in self._driving:
            await self._tick()
        if number in self._drivers:
            await self._drivers[number].stop(why)
        task = self._driving.get(number)
        if task is not None:
            await asyncio.wait({task})
        after = self._store.runs.get(number)
        if after.status in ENDED_RUN:
            self._store.requests.end(after.request, EXIT_CODES[after.status], {"run": number})

    def _close(self, run: Run, why: str) -> None:
        """End a run that waits and of which nothing lives; an interrupted one only loses who waited for it."""
        runs = self._store.runs
        self._groups.pop(run.id, None)
        self._begun.pop(run.id, None)
        with self._store.transaction():
            if why == "interrupted":
                runs.own(run.id, NOBODY)
                return
            for step in runs.steps(run.id):
                if step.status is StepStatus.QUEUED:
                    runs.apply(step, "cancel", reason=f"the run was {why}")
            drop(self._world, run.id, f"the run was {why}")
            runs.move(run.id, "supersede" if why == "superseded" else "cancel", reason=why)
        self._tell()

    def _wanted_runs(self, payload: Mapping[str, Any]) -> list[int]:
        if "runs" in payload:
            return [int(number) for number in payload["runs"]]
        run = self._store.runs.number_of(int(payload["request"]))
        if run is None:
            raise NotFoundError("the run was not begun yet")
        return [run]

    # --- environments

    async def _deploy(self, request: Request) -> None:
        """Release a package that passed before, by hand; a person's deploy is a new generation."""
        wanted = request.payload
        run = self._store.runs.get(int(wanted["run"]))
        pipeline = Pipeline.model_validate(run.pipeline)
        environment = pipeline.environments[wanted["environment"]]
        person = {**self._world.environment, **wanted["person"]}
        spec, force = release_spec(run, pipeline, environment, person), bool(wanted.get("force"))
        to_release = wanted_by(request, run, str(wanted["package"]), environment, spec, force=force)
        if environment.approval is not None:
            refuse_unapproved(self._world, run.project, to_release.pinned(self._world))
        release = await self._delivery.release(
            to_release, lambda: None if is_alive(request.follower) else "interrupted"
        )
        if release.status is not ReleaseStatus.SERVING:
            self._store.requests.refuse(request.id, 1, f"{environment.name} keeps what it had: {release.reason}")
            return
        self._store.requests.end(request.id, 0, {"release": release.id})

    async def _rollback(self, request: Request) -> None:
        wanted = request.payload
        release = await self._delivery.rollback(
            wanted["project"],
            wanted["environment"],
            request.id,
            request.actor,
            force=bool(wanted.get("force")),
            down=bool(wanted.get("down")),
            why=wanted.get("reason"),
        )
        self._store.requests.end(request.id, 0, {"release": release.id})

    async def _approve(self, request: Request) -> None:
        """Take a person's word on what waits for it, and follow the run, which goes on by it."""
        run = decide(self._world, request)
        self._owned[run.id] = True
        self._admit()
        status = await self._until_ended(run.id)
        for number in (request.id,) if status is RunStatus.QUEUED else (run.request, request.id):
            self._store.requests.end(number, EXIT_CODES[status], {"run": run.id})

    async def _wish(self, request: Request) -> None:
        """End the rollout of an environment by a person's word."""
        wanted, now = request.payload, self._world.clock.now()
        wish: Literal["promote", "abort"] = "promote" if request.kind == "promote" else "abort"
        asked = Asked(now, wish, request.actor, wanted.get("reason") or "")
        release = await self._delivery.wish(wanted["project"], wanted["environment"], asked)
        if (release.status is ReleaseStatus.SERVING) is (wish == "promote"):
            self._store.requests.end(request.id, 0, {"release": release.id})
            return
        went = "serves" if release.status is ReleaseStatus.SERVING else f"does not serve: {release.reason}"
        self._store.requests.refuse(request.id, 1, f"too late to {wish} it: {release.version} {went}")

    async def _freeze(self, request: Request) -> None:
        freeze(self._world, request)

    async def _stop(self, request: Request) -> None:
        stopped = await self._delivery.stop(request.payload.get("project"), request.payload.get("environment"))
        self._store.requests.end(request.id, 0, {"stopped": stopped})

    async def _approve_baseline(self, request: Request) -> None:
        approve(self._world, request)

    async def _gc(self, request: Request) -> None:
        swept = await sweep(self._world, request.payload)
        self._store.requests.end(request.id, 0, asdict(swept))


_HAS = {
    RunStatus.PASSED: "passed",
    RunStatus.FAILED: "failed",
    RunStatus.ERRORED: "errored",
    RunStatus.CANCELED: "been canceled",
    RunStatus.SUPERSEDED: "been superseded",
}


def _planned(pipeline: Mapping[str, Any]) -> tuple[Pipeline, Plan]:
    """A pipeline as it is recorded, and its plan."""
    found = with_opponents(Pipeline.model_validate(pipeline))
    return found, plan(found)


def _group_of(
    project: str, commit: Mapping[str, Any], pipeline: Pipeline
) -> tuple[tuple[str, ...], Concurrency] | None:
    """The name of a run's concurrency group beyond doubt, and what the run's file says of it; None without one."""
    concurrency = pipeline.concurrency
    if concurrency is None:
        return None
    branch = str(commit["branch"] or commit["sha"]) if concurrency.per == "branch" else ""
    return (project, concurrency.group, branch), concurrency


def environment_order(pipeline: Pipeline, last: str | None = None) -> list[str]:
    """Environments so that each comes after those it needs; with `last`, only that one and what it needs."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name not in ordered:
            for need in pipeline.environments[name].needs:
                visit(need)
            ordered.append(name)

    for name in pipeline.environments if last is None else (last,):
        visit(name)
    return ordered
