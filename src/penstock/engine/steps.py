"""The user's steps: known result, or workspace, process and result."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from penstock.artifacts import Digest, File, Tree, digest_of
from penstock.cache.contract import BlobError
from penstock.engine.batching import Batches
from penstock.engine.concluding import Conclusion, conclude, has_to_be_read, keep_tests
from penstock.engine.context import RunContext
from penstock.engine.contracts import Mount, ProcessSpec
from penstock.engine.examples import Examples
from penstock.engine.execution import Done, Execution
from penstock.engine.hearing import listen
from penstock.engine.opponents import Opponents
from penstock.engine.results import declared_files
from penstock.engine.reuse import Results, may_be_reused
from penstock.engine.serving import PrivateReplica
from penstock.engine.turns import Shared
from penstock.engine.variables import inside, with_runtime
from penstock.errors import PenstockError, SourceError, StateError
from penstock.pipelines import Step
from penstock.plans import fingerprint_name, key_of, step_ingredients, step_inputs, way_of
from penstock.runs import ENDED_STEP, StepStatus
from penstock.store.contract import Action, Attempt

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_LIMIT = 1024
"""Bytes: a pointer is smaller, by its specification."""

LOOKING = 0.05
"""Seconds that looking for known results may take before others have their turn."""


class UserSteps:
    """Executes the steps of the pipeline file."""

    def __init__(
        self, context: RunContext, execution: Execution, replica: PrivateReplica, opponents: Opponents, shared: Shared
    ) -> None:
        self._context = context
        self._execution = execution
        self._own_replica = replica
        self._opponents = opponents
        self._batches = Batches(context, opponents, Examples(context))
        self._turns = shared.turns
        self._flights = shared.flights
        self._world = context.world
        self._cache = context.world.cache
        self._results = Results(context)
        self._no_pointers: set[Digest] = set()
        self._kept: dict[Digest, asyncio.Task[Digest]] = {}

    async def execute(self, name: str) -> None:
        """Bring one queued or running step to its end; errors that are not the step's fault are raised.

        Where the cache lost what a needed step gave, that step is opened again and this one waits for it.
        """
        step = self._context.pipeline.steps[name]
        try:
            await self._execute(step)
        except BlobError as error:
            if not self._make_again(step, error.digest):
                raise

    def take_known(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """End the steps whose result is known, in one transaction.

        Returns those that have to be executed, and those that were not looked at because that would take too long at
        once. Nothing is written before all of it is known, and what cannot be read is left to the steps themselves.
        """
        found: dict[str, tuple[Action, dict[str, str | None]]] = {}
        until, clock = self._world.clock.monotonic() + LOOKING, self._world.clock
        looked = 0
        while looked < len(names) and (not looked or clock.monotonic() < until):
            step = self._context.pipeline.steps[names[looked]]
            looked += 1
            with suppress(PenstockError, OSError):
                ingredients = self.ingredients(step, step_inputs(step, self._context.files.tree, self._outputs(step)))
                action = self._results.known(step, key_of(ingredients))
                if action is not None:
                    found[step.name] = action, ingredients
        if found:
            with self._world.store.transaction():
                for name, (action, ingredients) in found.items():
                    self._results.take(name, action, ingredients)
        return [name for name in names[:looked] if name not in found], list(names[looked:])

    async def _execute(self, step: Step) -> None:
        if self._context.step(step.name).status is StepStatus.RUNNING:
            await self._attempts(step, None, {})
            return
        inputs = step_inputs(step, self._context.files.tree, self._outputs(step))
        if step.name in self._opponents and self._is_not_asked(step, inputs):
            return
        ingredients = self.ingredients(step, inputs)
        key = key_of(ingredients)
        if self._results.reuse(step, key, ingredients):
            return
        if step.name not in self._opponents and self._results.take_over(step, key, ingredients):
            return
        replica = self._replica(step)
        if replica is not None and not await replica.ready():
            self._leave_out(step.name, "the package did not become healthy")
            return
        async with self._flights.alone(key if step.cacheable else None) as waited:
            if waited and self._results.reuse(step, key, ingredients):
                return
            reason = self._results.why(step, key, ingredients, inputs)
            await self._keep(inputs)
            await self._attempts(step, inputs, {"reason": reason, "key": key, "ingredients": ingredients})

    def _replica(self, step: Step) -> PrivateReplica | None:
        """The replica of the package that a step needs; None where it needs none."""
        if "package" not in step.needs:
            return None
        return self._opponents.replica(step.name) if step.name in self._opponents else self._own_replica

    def _is_not_asked(self, step: Step, inputs: Tree) -> bool:
        """End an opponent that need not, or cannot, be asked."""
        try:
            asked = self._batches.drawn(step, inputs) if self._batches.has(step) else None
            way = way_of(self.ingredients(step, inputs))
            reason = self._opponents.needless(step.name, way, asked)
            hindrance = None if reason is not None else self._opponents.hindrance(step.name)
        except PenstockError as error:
            reason, hindrance = None, f"cannot be found ({error})"
        if reason is not None:
            self._skip(step.name, reason, cached=True)
        elif hindrance is not None:
            self._leave_out(step.name, f"not asked: it {hindrance}")
        return reason is not None or hindrance is not None

    def _leave_out(self, name: str, reason: str) -> None:
        """End a step that cannot run: skipped, an opponent with a warning, so that what comes after it goes on."""
        if name not in self._opponents:
            self._skip(name, reason)
        elif self._context.step(name).status is StepStatus.QUEUED and self._context.stopping is None:
            with self._world.store.transaction():
                self._context.move(name, "start")
                self._context.move(name, "warn", reason=reason)

    async def _keep(self, inputs: Tree) -> None:
        """Keep the tree that a step reads, so that a later miss can name what changed; once for all steps with it."""
        if not inputs:
            return
        keeping = self._kept.get(inputs.digest)
        if keeping is None:
            adding = asyncio.to_thread(self._cache.add_tree, inputs)
            keeping = self._kept[inputs.digest] = asyncio.create_task(adding)
        try:
            await asyncio.shield(keeping)
        except PenstockError:
            self._kept.pop(inputs.digest, None)
            raise

    async def _attempts(self, step: Step, inputs: Tree | None, start: Mapping[str, Any]) -> None:
        """Attempts until one decides; between two the step holds nothing of the home.

        `inputs` is None where an earlier coordinator began the step.
        """
        pause: float | None = 0.0
        while pause is not None:
            await self._pause(step, pause)
            async with self._context.turn(step.name, self._turns) as gpus:
                if self._may_not_start(step):
                    return
                pause = await self._run(step, inputs, start, gpus)

    def _may_not_start(self, step: Step) -> bool:
        """Whether nothing new may start: the run is stopped, nobody waits for it, or what it needs is made again."""
        may_go_on = self._context.why_end(step.name) is None and self._context.may_start()
        may_go_on = may_go_on and self._context.frontier.may_start(step.name)
        if self._context.step(step.name).status is StepStatus.QUEUED:
            return not may_go_on or self._context.is_too_late(step)
        if may_go_on:
            return False
        return self._execution.open_attempt(step.name) is None and self._put_off(step)

    def _put_off(self, step: Step) -> bool:
        """A step between two attempts goes back to the queue."""
        why = self._context.why_end(step.name)
        event = "cancel" if why in {"canceled", "superseded"} else "interrupt"
        with self._world.store.transaction():
            self._context.move(step.name, event, reason="stopped between two attempts")
        return True

    async def _pause(self, step: Step, seconds: float) -> None:
        """Wait before the next attempt; not longer than until the run is stopped."""
        until = self._world.clock.monotonic() + seconds
        while self._context.why_end(step.name) is None and (left := until - self._world.clock.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.2))

    def _make_again(self, step: Step, digest: Digest) -> bool:
        """Open the needed step again whose output the cache lost, or wait for it where another one did so before.

        False where none gave it, or it was made again already.
        """
        for name in self._context.plan[step.name].needs:
            if name not in self._context.pipeline.steps or not self._gave(name, digest):
                continue
            is_open = self._context.step(name).status not in ENDED_STEP
            if not is_open and name in self._context.remade:
                continue
            with self._world.store.transaction():
                if not is_open:
                    self._reopen(name)
                if self._context.step(step.name).status is StepStatus.RUNNING:
                    self._context.move(step.name, "interrupt", reason=f"waits for {name} to be made again")
            return True
        return False

    def _reopen(self, name: str) -> None:
        self._context.remade.add(name)
        key = self._context.step(name).key
        if key is not None:
            self._world.store.actions.forget(key)
        self._context.move(name, "reopen", reason="made again: the cache lost its result")

    def _gave(self, name: str, digest: Digest) -> bool:
        outputs = self._context.result(name).get("outputs")
        if outputs is None or outputs == digest:
            return outputs is not None
        try:
            return digest in self._cache.tree(Digest(outputs)).digests()
        except BlobError:
            return True

    def ingredients(self, step: Step, inputs: Tree) -> dict[str, str | None]:
        """What the step's result depends on in this run."""
        run = self._context.run
        package = self._package(step) if "package" in step.needs else None
        stakes = {"stakes": self._batches.stakes(step)} if self._batches.has(step) else {}
        return stakes | step_ingredients(
            step,
            inputs=inputs,
            pipeline=self._context.pipeline,
            version=run.version,
            commit=self._context.commit.sha,
            environment=self._context.environment,
            package=package,
            outside=self._outside(step),
        )

    def _package(self, step: Step) -> Digest | None:
        """The package that a step asks, by its digest."""
        if step.name in self._opponents:
            return self._opponents.package(step.name)
        found = self._context.result("package").get("package")
        return None if found is None else Digest(found)

    def _outside(self, step: Step) -> Digest | None:
        """The state of the step's outside data, as its fingerprint told it."""
        if not step.external and step.fingerprint is None:
            return None
        told = self._context.result(fingerprint_name(step)).get("outside")
        return digest_of("outside", [list(step.external), step.fingerprint, told])

    def _outputs(self, step: Step) -> Tree:
        asked = self._opponents.asked_by(step.name)  # an opponent must not find what was answered before
        own = (n for n in self._context.plan[step.name].needs if n in self._context.pipeline.steps and n != asked)
        return self._context.outputs(tuple(own))

    def _skip(self, name: str, reason: str, *, cached: bool = False) -> None:
        if self._context.step(name).status is StepStatus.QUEUED and self._context.stopping is None:
            with self._world.store.transaction():
                self._context.move(name, "skip", reason=reason, cached=cached)

    async def _run(
        self, step: Step, inputs: Tree | None, start: Mapping[str, Any], gpus: tuple[int, ...]
    ) -> float | None:
        """One attempt; gives the seconds until the next one, or None where this one decided."""

        async def prepare(attempt: Attempt, workspace: Path) -> ProcessSpec:
            tree = inputs
            if tree is None:
                tree = step_inputs(step, self._context.files.tree, self._outputs(step))
            await self._refuse_pointers(tree)
            await self._context.workspaces.lay_out(workspace, tree)
            spec = self.spec(step, attempt, workspace, gpus)
            return self._batches.asking(step, spec, tree) if self._batches.has(step) else spec

        replica = self._replica(step)
        if replica is not None:
            await replica.ready()
        done = await self._execution.place(step.name, prepare, step.timeout, start, gpus)
        return None if self._execution.stopped(done) else await self._conclude(step, done)

    async def _refuse_pointers(self, inputs: Tree) -> None:
        """A Git LFS pointer is not the data that the step would read. Raises SourceError."""
        unread = {p: e for p, e in inputs.entries.items() if isinstance(e, File) and e.size < LFS_LIMIT}
        if self._no_pointers.issuperset(e.digest for e in unread.values()):
            return
        commit = self._context.files.tree.entries
        ours = {path: entry for path, entry in unread.items() if commit.get(path) == entry}
        await asyncio.to_thread(self._look_for_pointers, ours)
        self._no_pointers.update(e.digest for e in unread.values())

    def _look_for_pointers(self, files: Mapping[str, File]) -> None:
        for path, entry in files.items():
            if self._context.read(entry.digest).startswith(LFS_POINTER):
                raise SourceError(f"{path} is a Git LFS pointer, not the data: fetching LFS files is not available yet")

    def spec(self, step: Step, attempt: Attempt, workspace: Path, gpus: tuple[int, ...]) -> ProcessSpec:
        """The process of a step's attempt: its command and variables, its limits, its runtime."""
        context = self._context
        found = context.environment
        image = self._world.runtimes.image(found) if found is not None and context.has_image else None
        variables = context.variables(step.name, attempt.number, step.env)
        if image is not None:
            variables = inside(variables)
        variables.update(context.filled({**context.pipeline.variables, **step.variables}))
        variables["PENSTOCK_METRICS"] = str(workspace / (step.metrics or "metrics.json"))
        replica = self._replica(step)
        if replica is not None:
            variables["PENSTOCK_PACKAGE"] = str(replica.folder)
            if replica.url is not None:
                variables["PENSTOCK_URL"] = replica.url
        runtime = context.pipeline.runtime
        using = self._world.runtimes.variables(found) if found is not None else {}
        with_runtime(variables, using, workspace, runtime.path if runtime else ())
        if step.resources.gpu.count:
            # A container has its own GPUs alone, counted from 0.
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus if image is None else range(len(gpus))))
        if step.checkpoint is not None:
            variables["PENSTOCK_CHECKPOINT"] = str(self._checkpoint(step, workspace))
        if step.secrets and context.scope:
            raise StateError(f"step {step.name} names secrets, and a change that is not trusted is given none")
        if step.secrets:
            variables.update(self._world.secrets(context.run.project, step.secrets, ""))
        before, listening = listen(step, workspace, variables, inside=image is not None)
        spec = self._execution.spec(attempt, workspace, before + context.fill(step.run), variables, step)
        if image is None:
            return spec
        mounts = (*self._mounts(step, variables), *listening)
        return replace(spec, image=image, mounts=mounts, gpus=gpus, network=step.network)

    def _mounts(self, step: Step, variables: Mapping[str, str]) -> tuple[Mount, ...]:
        """What a step finds of this machine beside its workspace."""
        found = [Mount(self._context.home)]
        if step.checkpoint is not None:
            found.append(Mount(Path(variables["PENSTOCK_CHECKPOINT"])))
        replica = self._replica(step)
        if replica is not None:
            found.append(Mount(replica.folder, read_only=True))
        return tuple(found)

    def _checkpoint(self, step: Step, workspace: Path) -> Path:
        """The folder that every attempt of the step finds as the one before left it, linked into the workspace."""
        folder = self._context.folder / "checkpoints" / quote(step.name, safe="[]=,")
        folder.mkdir(parents=True, exist_ok=True)
        place = workspace / (step.checkpoint or "").rstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(folder, target_is_directory=True)
        return folder

    async def _conclude(self, step: Step, done: Done) -> float | None:
        """What a process that ended by itself means for its step; seconds until another attempt, or None."""
        found = Conclusion("pass")
        if has_to_be_read(step, done):
            found = await asyncio.to_thread(conclude, step, done, self._cache, self._world.clock.now())
        if done.succeeded and (step.outputs or declared_files(step)):
            self._world.crash("outputs.collect:after_effect")
        if found.event == "pass" and self._batches.has(step):
            inputs = step_inputs(step, self._context.files.tree, self._outputs(step))
            found, batches = await self._batches.conclude(step, found, inputs)
            if batches is not None:
                self._go_on(step, done, batches)
                return 0.0
        if found.event != "pass" and (pause := self._retry(step, done, found)) is not None:
            return pause
        if found.event != "pass" and step.allow_failure:
            found = replace(found, event="warn")
        self._record(step, done, found)
        return None

    def _go_on(self, step: Step, done: Done, batches: Sequence[Digest]) -> None:
        """End a batch; what all of them left so far is kept with the step, before the next one begins."""
        with self._world.store.transaction():
            self._execution.end(done)
            self._context.keep(step.name, {**self._context.result(step.name), **self._batches.kept(step, batches)})

    def _retry(self, step: Step, done: Done, found: Conclusion) -> float | None:
        """Seconds until another attempt, where the file asks for one after such an end; else None."""
        policy = step.retry
        if policy is None or done.reason not in policy.reasons:
            return None
        red = policy.reasons
        ended = [a for a in self._world.store.runs.attempts(self._context.run.id, step.name) if a.reason in red]
        if len(ended) >= policy.max:
            return None
        pause = policy.wait(len(ended) + 1)
        words = f"attempt {done.attempt.number} {found.reason}; another one in {pause:g} s"
        with self._world.store.transaction():
            keep_tests(self._context, step, done, found.collected)
            self._execution.end(done)
            self._context.note(step.name, words)
        return pause

    def _record(self, step: Step, done: Done, found: Conclusion) -> None:
        runs = self._world.store.runs
        record = self._context.step(step.name)
        again = done.attempt.number > 1 and step.retry is not None
        reason = f"passed at attempt {done.attempt.number}" if again else record.reason
        reason = found.reason or reason if found.event == "pass" else found.reason
        with self._world.store.transaction():
            values = {**found.collected.values, **keep_tests(self._context, step, done, found.collected)}
            self._execution.finish(done, found.event, reason=reason, result=values)
            runs.set_metrics(self._context.run.id, step.name, values.get("metrics", {}))
            if found.event == "pass" and step.cacheable and record.key and may_be_reused(values):
                self._results.keep(record, values, self._world.clock.now() - done.attempt.created)
