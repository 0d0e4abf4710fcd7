"""Driving one run: what is ready starts, what cannot run is skipped, gates judge, environments are released to."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from penstock.engine import logfiles
from penstock.engine.approving import UnapprovedError, drop, sought, waiting_words
from penstock.engine.building import OwnSteps
from penstock.engine.configuring import config_mistakes
from penstock.engine.context import RunContext
from penstock.engine.delivery import Delivery, FrozenError, Wanted
from penstock.engine.execution import Execution
from penstock.engine.fingerprints import Fingerprints
from penstock.engine.governing import keep_fixed
from penstock.engine.installing import StoppedRollout
from penstock.engine.judging import Judge
from penstock.engine.opponents import Opponents
from penstock.engine.origins import origin_of
from penstock.engine.replaying import Replays
from penstock.engine.reserving import NO_ROOM
from penstock.engine.serving import PrivateReplica
from penstock.engine.steps import UserSteps
from penstock.engine.turns import Shared
from penstock.engine.variables import passed_on
from penstock.environments import ApprovalRules
from penstock.errors import PenstockError
from penstock.gates import counted
from penstock.pipelines import Environment, Pipeline, interpolate
from penstock.plans import StepKind, missing_inputs
from penstock.recordings import STEP as REPLAY
from penstock.releases import ReleaseStatus, why_not
from penstock.runs import ENDED_RUN, GateView, RunStatus, StepState, StepStatus, outcome
from penstock.store.contract import NOBODY, PackageRecord, Release, Request, Run, Target

MayStart = Callable[[], bool]
BATCH = 64
"""So many ready steps are looked at before others have their turn; what is known of them ends in one transaction."""


class Driver:
    """Brings one run to its end, or watches what of it lives while nobody waits for it."""

    def __init__(self, context: RunContext, delivery: Delivery, shared: Shared, may_start: MayStart) -> None:
        execution = Execution(context)
        self._context = context
        self._world = context.world
        self._runs = context.world.store.runs
        self._delivery = delivery
        self._may_start = may_start
        context.may_start = may_start
        self._replica = PrivateReplica(context, execution)
        self._opponents = Opponents(context, execution)
        self._serves = frozenset(s.name for s in context.plan.steps if s.kind is StepKind.SERVE)
        self._user = UserSteps(context, execution, self._replica, self._opponents, shared)
        self._own = dict(OwnSteps(context, execution, shared.turns).steps())
        self._own[REPLAY] = Replays(context, execution, self._replica, shared.turns).replay
        told = Fingerprints(context, execution, shared.turns, self._user.spec)
        self._own.update(
            {s.name: partial(told.tell, s.name) for s in context.plan.steps if s.kind is StepKind.FINGERPRINT}
        )
        self._judge = Judge(context, self._opponents)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._finished: list[asyncio.Task[None]] = []
        self._endings: list[asyncio.Task[None]] = []
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Something outside changed (a follower died, a run was adopted): look again."""
        self._nudged.set()

    async def stop(self, why: str) -> None:
        """End the live processes of the run, which is canceled, interrupted or superseded.

        Returns when nothing of it is left.
        """
        self._context.stopping = why
        for name, task in self._tasks.items():
            if self._context.step(name).status is StepStatus.QUEUED:
                task.cancel()
        ends = [self._world.runner.end(h, self._world.grace) for h in list(self._context.live.values())]
        await asyncio.gather(*ends)
        self.nudge()

    def cap_logs(self) -> None:
        """Keep head and tail of a live process's log, where its middle has grown beyond the limit."""
        for handle in list(self._context.live.values()):
            path = Path(handle.log)
            with suppress(OSError):
                if path.stat().st_size - handle.log_start > self._world.log_limit:
                    logfiles.cap(path, handle.log_start, self._world.log_limit)

    def open_failed(self) -> list[str]:
        """Open the steps that failed again, and those that were skipped for them; returns their names."""
        opened: list[str] = []
        with self._world.store.transaction():
            for planned in self._context.plan.steps:
                record = self._context.step(planned.name)
                red = record.status in {StepStatus.FAILED, StepStatus.ERRORED}
                missed = record.status is StepStatus.SKIPPED and not record.cached and set(planned.needs) & set(opened)
                if red or (missed and self._context.why_not_wanted(planned.name) is None):
                    self._context.move(planned.name, "reopen", reason="asked to run again")
                    opened.append(planned.name)
        self._judge.reconsider()
        self.nudge()
        return opened

    async def drive(self) -> None:
        """Go on with the run until it has ended, or (for `stop`) until nothing of it lives."""
        run = self._context.run.id
        if self._runs.get(run).status is RunStatus.QUEUED:
            with self._world.store.transaction():
                self._runs.move(run, "start")
        self._context.folder.mkdir(parents=True, exist_ok=True)
        try:
            if await self._steps():
                await self._close_replicas()
                await self._deliver()
            while not await self._finish():  # what waited for approval was approved meanwhile
                await self._deliver()
            if self._runs.status(run) in {*ENDED_RUN, RunStatus.WAITING}:
                await asyncio.to_thread(logfiles.put_to_rest, self._context.folder)
        finally:
            await self._abandon()

    async def _abandon(self) -> None:
        """Leave what still lives to the next coordinator; after a normal end nothing lives."""
        left = [*self._tasks.values(), *self._endings]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for replica in self._replicas:
            await replica.abandon()

    # --- steps

    async def _steps(self) -> bool:
        """Run the steps; True where all have ended, False where the run was stopped before."""
        if not self._refuse_missing_inputs():
            return True
        self._skip_unwanted()
        self._go_on()
        while True:
            self._fail_fast()
            self._skip_unreachable()
            self._judge.judge()
            if self._context.stopping is None and self._may_start() and await self._start_ready():
                continue
            if not self._tasks and self._context.stopping is not None:
                return False
            if not self._tasks and self._all_ended() and self._may_start():
                return True
            await self._next_event()

    def _skip_unwanted(self) -> None:
        """Steps whose condition does not hold for this commit."""
        with self._world.store.transaction():
            for state in self._context.states():
                reason = self._context.why_not_wanted(state.name) if state.status is StepStatus.QUEUED else None
                if reason is not None:
                    self._context.move(state.name, "skip", reason=reason)

    def _fail_fast(self) -> None:
        """After a red step nothing else is begun and what runs is ended, where the file asks for that.

        Steps that run whatever has failed still do.
        """
        red = self._context.red if self._context.pipeline.fail_fast else None
        if red is None or self._context.stopping is not None:
            return
        reason = f"fail_fast: {red.name} {red.status}"
        for state in self._context.states():
            if state.outcome == "passed" and state.name not in self._context.ending:
                self._end_early(state, reason)

    def _end_early(self, state: StepState, reason: str) -> None:
        if state.status is StepStatus.QUEUED:
            with self._world.store.transaction():
                self._context.move(state.name, "skip", reason=reason)
            if state.name in self._tasks:
                self._tasks[state.name].cancel()
        elif state.status is StepStatus.RUNNING and state.name not in self._serves:
            self._context.ending[state.name] = reason
            handle = self._context.live.get(state.name)
            if handle is not None:
                self._endings.append(asyncio.create_task(self._world.runner.end(handle, self._world.grace)))

    def _go_on(self) -> None:
        """Take up the steps that an earlier coordinator began."""
        for state in self._context.states():
            if state.status is StepStatus.RUNNING and state.name not in self._serves:
                self._launch(state.name)

    async def _start_ready(self) -> bool:
        """End some of what is ready and known, and launch what has to be executed; whether there was anything.

        What ended may be judged now, and more may be ready.
        """
        names = [name for name in self._context.frontier.take_ready(BATCH) if name not in self._serves]
        steps = self._context.pipeline.steps
        cacheable = [n for n in names if n in steps and steps[n].cacheable and n not in self._opponents]
        unknown, later = self._user.take_known(cacheable)
        for name in later:
            self._context.frontier.requeue(name)
        wanted = {*names} - {*cacheable} | {*unknown}
        for name in names:
            if name in wanted:
                self._launch(name)
        await asyncio.sleep(0)  # others have their turn
        return bool(names)

    def _launch(self, name: str) -> None:
        self._tasks[name] = task = asyncio.create_task(self._guarded(name), name=name)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._finished.append(task)
        self._nudged.set()

    async def _guarded(self, name: str) -> None:
        """A step whose own machinery fails is errored with the sentence; the run goes on."""
        try:
            await (self._own[name]() if name in self._own else self._user.execute(name))
        except (PenstockError, OSError) as error:
            self._error(name, str(error))

    def _error(self, name: str, reason: str) -> None:
        open_attempts = [a for a in self._runs.attempts(self._context.run.id, name) if a.status != "ended"]
        with self._world.store.transaction():
            for attempt in open_attempts:
                self._runs.end_attempt(attempt, "infrastructure", None, None)
            if name not in self._opponents:
                self._context.move(name, "error", reason=reason)
                return
            if self._context.step(name).status is StepStatus.QUEUED:
                self._context.move(name, "start")
            self._context.move(name, "warn", reason=reason)  # no fault of the commit's

    async def _next_event(self) -> None:
        """Wait until a step's task ended or somebody nudged; a crashed task's error is raised here."""
        await self._nudged.wait()
        self._nudged.clear()
        finished, self._finished = self._finished, []
        for task in finished:
            del self._tasks[task.get_name()]
            if not task.cancelled():
                task.result()
            if self._context.step(task.get_name()).status is StepStatus.QUEUED:
                self._context.frontier.requeue(task.get_name())

    def _skip_unreachable(self) -> None:
        while found := self._context.frontier.take_unreachable():
            with self._world.store.transaction():
                for name, reason in found.items():
                    self._context.move(name, "skip", reason=reason)

    def _all_ended(self) -> bool:
        return self._context.frontier.open <= self._serves

    def _refuse_missing_inputs(self) -> bool:
        """What names nothing, as an input or in a template, is a mistake: the first step says so and nothing runs."""
        pipeline, tree = self._context.pipeline, self._context.files.tree
        problems = missing_inputs(pipeline, tree) or config_mistakes(pipeline, tree, self._context.read)
        first = self._context.states()[0]
        if not problems or first.status is not StepStatus.QUEUED:
            return True
        with self._world.store.transaction():
            self._context.move(first.name, "start")
            self._context.move(first.name, "fail", reason="; ".join(problems))
        self._skip_unreachable()
        self._judge.judge()
        return False

    # --- environments

    async def _deliver(self) -> None:
        """Release to each environment in order; a red run releases to none. What is to be approved first waits."""
        self._pass_package()
        for name in [target.environment for target in self._runs.targets(self._context.run.id)]:
            target, environment = self._targets()[name], self._context.pipeline.environments[name]
            if self._context.stopping is not None or target.status in _OVER or self._needs_waiting(environment):
                continue
            reason = self._why_not(environment)
            if reason is not None:
                self._set(target, "skipped", reason)
            else:
                await self._release(target, environment)

    def _targets(self) -> dict[str, Target]:
        return {t.environment: t for t in self._runs.targets(self._context.run.id)}

    def _needs_waiting(self, environment: Environment) -> bool:
        """Whether an environment that must be released to first waits for approval, or for one that does."""
        targets, environments = self._targets(), self._context.pipeline.environments
        return any(
            targets[name].status == "waiting"
            or (targets[name].status == "queued" and self._needs_waiting(environments[name]))
            for name in environment.needs
        )

    def _why_not(self, environment: Environment) -> str | None:
        """Why this run does not release to an environment, or None."""
        red = self._red()
        if red is not None:
            return red
        others = self._targets()
        for name in environment.needs:
            if others[name].status != "released":
                return f"needs {name}, which was not released to"
        return why_not(environment, self._context.commit)

    def _red(self) -> str | None:
        """The first step or gate that went wrong, in words; or that there is no package, though its step is planned."""
        red = self._context.red
        if red is not None:
            return f"step {red.name} {red.status}"
        package = self._context.records.get("package")
        if package is not None and package.status is not StepStatus.PASSED:
            return f"step package {package.status}"
        for gate in self._runs.gates(self._context.run.id):
            if self._counted(gate) != "pass":
                return f"gate {gate.name} {_VERDICTS.get(gate.verdict, 'was not judged')}"
        only = self._context.options.get("step")
        return None if only is None else f"only step {only} was asked for"

    def _counted(self, gate: GateView) -> str | None:
        """What a gate's verdict is to the run, by what the file says of inconclusive ones."""
        return None if gate.verdict is None else counted(self._context.pipeline.gates[gate.name], gate.verdict)

    def _pass_package(self) -> None:
        """A package whose run is green may be deployed by hand too."""
        run = self._runs.get(self._context.run.id)
        if run.package is None or self._red() is not None or self._context.commit.dirty or self._context.scope:
            return
        for package in self._runs.packages(run.project, run.version):
            if package.digest == run.package and not package.passed:
                self._runs.put_package(_passed(package, run.id))

    async def _release(self, target: Target, environment: Environment) -> None:
        run = self._runs.get(self._context.run.id)
        request = self._world.store.requests.get(run.request)
        spec = release_spec(run, self._context.pipeline, environment, self._context.person)
        wanted = wanted_by(request, run, str(run.package), environment, spec)
        try:
            if environment.approval is not None:
                wanted = replace(wanted, approval=self._approval(wanted, target, environment.approval))
                if self._targets()[environment.name].status == "waiting":
                    return
            self._set(target, "moving", None)
            release = await self._delivery.release(wanted, lambda: self._context.stopping)
        except FrozenError as error:
            self._set(target, "skipped", str(error))
            return
        except UnapprovedError as error:  # what served the same serves no more: it is asked for now
            self._set(target, "queued" if wanted.approval == 0 else "unapproved", str(error))
            return
        except StoppedRollout:
            return
        except (PenstockError, OSError) as error:
            self._set(target, "errored", str(error))
            return
        self._record(target, release)

    def _approval(self, wanted: Wanted, target: Target, rules: ApprovalRules) -> int:
        """The approval by which a release may begin, 0 where none would; it may be that its target waits for it now.

        Raises FrozenError before anybody is asked in vain, UnapprovedError where it was not given.
        """
        frozen = self._world.store.releases.frozen(wanted.project, wanted.environment)
        known = self._world.store.approvals.newest(wanted.run, wanted.environment)
        if frozen is not None and known is None:
            raise FrozenError(frozen.sentence(wanted.environment))
        if known is None and self._delivery.serves(wanted):
            return 0
        return sought(self._world, self._context.run, target, wanted.pinned(self._world), rules).id

    def _record(self, target: Target, release: Release) -> None:
        if release.status is ReleaseStatus.SERVING:
            self._set(target, "released", None, release.id)
        elif release.status in _REFUSED and self._context.stopping is None:
            self._set(target, "errored" if _undecided(release) else "refused", release.reason, release.id)

    def _set(self, target: Target, status: str, reason: str | None, release: int | None = None) -> None:
        with self._world.store.transaction():
            self._runs.set_target(
                Target(target.run, target.environment, target.position, status, reason, release or target.release)
            )

    # --- the end

    async def _finish(self) -> bool:
        """Record how the run ends, or that it waits; False where there is something to release again."""
        run = self._context.run.id
        with suppress(PenstockError):
            await self._close_replicas()
        stopping = self._context.stopping
        if stopping == "interrupted":
            with self._world.store.transaction():
                self._runs.own(run, NOBODY)
                self._runs.move(run, "interrupt", reason="interrupted: penstock resume goes on")
            return True
        if stopping is not None:
            await self._delivery.give_up(self._context.run.request)
            self._cancel_rest(stopping)
            return True
        if any(t.status in {"queued", "waiting"} for t in self._targets().values()):
            return self._wait()
        states = self._context.states()
        gates = [verdict for g in self._runs.gates(run) if (verdict := self._counted(g)) is not None]
        targets = [_ENDS.get(t.status, t.status) for t in self._runs.targets(run)]
        event = "supersede" if self._superseded() else outcome([s.status for s in states], gates, targets)
        origin = origin_of(self._context) if event == "pass" else None
        with self._world.store.transaction():
            self._runs.move(run, event, reason=None if event == "pass" else self._red())
            if origin is not None:
                self._world.store.baselines.keep_origin(run, origin)
                keep_fixed(self._context)
        return True

    def _wait(self) -> bool:
        """The run waits for a person, and nobody for the run; False where it need not."""
        targets, environments = self._targets(), self._context.pipeline.environments
        if any(t.status == "queued" and not self._needs_waiting(environments[name]) for name, t in targets.items()):
            return False
        run = self._context.run
        with self._world.store.transaction(durable=True):
            self._runs.move(run.id, "wait", reason=waiting_words(targets.values()))
            self._world.store.requests.end(run.request, 4, {"run": run.id})
        return True

    @property
    def _replicas(self) -> tuple[PrivateReplica, ...]:
        return (self._replica, *self._opponents.replicas)

    async def _close_replicas(self) -> None:
        for replica in self._replicas:
            await replica.close()

    def _superseded(self) -> bool:
        return any(
            t.status in {"refused", "unapproved"} and "newer release" in (t.reason or "")
            for t in self._runs.targets(self._context.run.id)
        )

    def _cancel_rest(self, why: str) -> None:
        run = self._context.run.id
        with self._world.store.transaction():
            for state in self._context.states():
                if state.status is StepStatus.QUEUED:
                    self._context.move(state.name, "cancel", reason=f"the run was {why}")
            drop(self._world, run, f"the run was {why}")
            if why == "superseded":
                self._runs.move(run, "supersede", reason="a newer run of its group took its place")
            else:
                self._runs.move(run, "cancel", reason="canceled")


_ENDS: Mapping[str, str] = {"refused": "rejected", "unapproved": "rejected"}
_OVER = frozenset({"released", "skipped", "refused", "unapproved", "errored"})
"""Where a run stands with an environment that it has done with."""
_REFUSED = frozenset({ReleaseStatus.REJECTED, ReleaseStatus.ROLLED_BACK, ReleaseStatus.DRAINING})
"""The ends of a release that does not serve; one that was tried in traffic may still answer what it has begun."""
_VERDICTS: Mapping[str | None, str] = {
    "fail": "failed",
    "inconclusive": "was inconclusive",
    "errored": "could not be judged",
}


def _undecided(release: Release) -> bool:
    """Whether nothing was shown against a release that did not come through: it could not be judged."""
    rollout = release.rollout or {}
    move, probe = rollout.get("move") or {}, rollout.get("probe") or {}
    untold = move.get("cause") == "deadline" or (not move and probe.get("verdict") == "errored")
    return untold or (release.reason or "").startswith(NO_ROOM)


def _passed(package: PackageRecord, run: int) -> PackageRecord:
    values = {name: getattr(package, name) for name in PackageRecord.__slots__}
    return PackageRecord(**{**values, "passed": True, "run": run})


def wanted_by(
    request: Request, run: Run, package: str, environment: Environment, spec: Mapping[str, Any], *, force: bool = False
) -> Wanted:
    """What a request releases: a package of a run's version. The request is its generation."""
    return Wanted(
        project=run.project,
        environment=environment.name,
        generation=request.id,
        request=request.id,
        run=run.id,
        version=run.version,
        package=package,
        spec=spec,
        actor=request.actor,
        force=force,
    )


def release_spec(run: Run, pipeline: Pipeline, environment: Environment, person: Mapping[str, str]) -> dict[str, Any]:
    """All that the replicas of a release need beside the package: port, number, variables, the person's PATH …"""
    declared = pipeline.variables
    values = {**declared, **environment.variables}
    sha = str(run.commit["sha"])
    return {
        "declared": dict(declared),
        "commit": sha,
        "port": environment.port,
        "replicas": environment.replicas if environment.deploy is None else 0,
        "secrets": list(environment.secrets),
        "variables": {k: interpolate(v, declared, run.version, sha) for k, v in values.items()},
        "person": passed_on(person),
        **({"as": environment.placed_as} if environment.placed_as != "process" else {}),
        **({"resources": environment.resources.model_dump(mode="json")} if environment.resources is not None else {}),
        **({"keep": environment.keep} if environment.keep != 1 else {}),
        **({"drain": environment.drain} if environment.drain is not None else {}),
        **({"probe": environment.probe.model_dump(mode="json")} if environment.probe is not None else {}),
        **({"rollout": environment.rollout.model_dump(mode="json")} if environment.rollout is not None else {}),
        **({"watch": environment.watch.model_dump(mode="json")} if environment.watch is not None else {}),
        **({"drift": environment.drift.model_dump(mode="json")} if environment.drift is not None else {}),
        **_config_spec(environment),
        **_deploy_spec(environment, lambda text: interpolate(text, declared, run.version, sha)),
        **_door_spec(environment),
        **_migrate_spec(environment, lambda text: interpolate(text, declared, run.version, sha)),
    }


def _config_spec(environment: Environment) -> dict[str, Any]:
    """Which config files a release has; nothing where the file names none."""
    files = [{"template": f.template, "to": f.target, "as": f.told_as} for f in environment.config]
    return {"config": files} if files else {}


def _deploy_spec(environment: Environment, fill: Callable[[str], str]) -> dict[str, Any]:
    """By which commands a release is deployed, filled in; nothing where Penstock serves it itself."""
    wanted = environment.deploy
    if wanted is None:
        return {}
    texts = {
        key: value if value is None else fill(value) for key, value in wanted.model_dump(exclude={"timeout"}).items()
    }
    return {"deploy": {**texts, "timeout": wanted.timeout}}


def _door_spec(environment: Environment) -> dict[str, Any]:
    """How the router receives callers; nothing where the file says nothing."""
    parts = {"sticky": environment.sticky, "tls": environment.tls}
    return {key: part.model_dump(exclude_none=True) for key, part in parts.items() if part is not None}


def _migrate_spec(environment: Environment, fill: Callable[[str], str]) -> dict[str, Any]:
    """What a release's migration needs; nothing where the file names none."""
    wanted = environment.migrate
    if wanted is None:
        return {}
    down = None if environment.migrate_down is None else fill(environment.migrate_down)
    return {"migrate": {**wanted.model_dump(), "run": fill(wanted.run), "down": down}}
