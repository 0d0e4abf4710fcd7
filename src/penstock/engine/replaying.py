"""The `replay` step: the private replica of a run is asked the package's recorded requests, for gates to judge."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import penstock
from penstock.artifacts import Digest, Tree
from penstock.engine.context import RunContext
from penstock.engine.contracts import ProcessSpec
from penstock.engine.execution import Done, Execution, Prepare, end_sentence
from penstock.engine.measuring import Measurement
from penstock.engine.reuse import Results
from penstock.engine.serving import PrivateReplica
from penstock.engine.turns import Turns
from penstock.plans import own_key, replay_ingredients, request_files, requests_of
from penstock.recordings import STEP
from penstock.runs import StepStatus
from penstock.store.contract import Attempt

RESULT = ".penstock-replay.json"
PATIENCE = 3600.0
"""Seconds that a replay may take."""


class Replays:
    """Executes the replay of one run. Its metrics are judged by gates: what they say never fails the step itself."""

    def __init__(self, context: RunContext, execution: Execution, replica: PrivateReplica, turns: Turns) -> None:
        self._context = context
        self._execution = execution
        self._replica = replica
        self._turns = turns
        self._results = Results(context)

    async def replay(self) -> None:
        """Bring the queued or running step to its end."""
        start: Mapping[str, Any] = {}
        files = self._files()
        if self._is_queued:
            if not files:
                self._fail(f"there is no file {requests_of(self._context.pipeline).file} to take requests from")
                return
            ingredients = self._ingredients(files)
            start = {"key": own_key(STEP, ingredients), "ingredients": ingredients}
            if self._is_known(start):
                return
        if not await self._replica.ready() and self._is_queued:
            self._skip("the package did not become healthy")
            return
        async with self._context.turn(STEP, self._turns):
            if self._is_queued and self._may_not_start():
                return
            done = await self._execution.place(STEP, self._prepare(files), PATIENCE, start)
        if not self._execution.stopped(done):
            self._conclude(done)

    @property
    def _is_queued(self) -> bool:
        return self._context.step(STEP).status is StepStatus.QUEUED

    def _may_not_start(self) -> bool:
        why = self._context.why_end(STEP)
        return why is not None or not self._context.may_start() or not self._context.frontier.may_start(STEP)

    def _files(self) -> Tree:
        """The file of the requests alone, of the commit or of the step that writes it; empty where there is none."""
        own = tuple(n for n in self._context.plan[STEP].needs if n in self._context.pipeline.steps)
        return request_files(self._context.pipeline, self._context.files.tree.merge(self._context.outputs(own)))

    def _ingredients(self, files: Tree) -> dict[str, str | None]:
        run, package = self._context.run, self._context.result("package").get("package")
        digest = None if package is None else Digest(package)
        return replay_ingredients(self._context.pipeline, files, digest, run.version, self._context.commit.sha)

    def _is_known(self, start: Mapping[str, Any]) -> bool:
        """Whether an earlier run measured the same; then its result is taken."""
        action = None if STEP in self._context.refreshed else self._results.find(start["key"])
        if action is not None:
            self._results.take(STEP, action, start["ingredients"])
        return action is not None

    def _fail(self, reason: str) -> None:
        with self._context.world.store.transaction():
            self._context.move(STEP, "start")
            self._context.move(STEP, "fail", reason=reason)

    def _skip(self, reason: str) -> None:
        if self._context.stopping is None:
            with self._context.world.store.transaction():
                self._context.move(STEP, "skip", reason=reason)

    def _prepare(self, files: Tree) -> Prepare:
        async def prepare(attempt: Attempt, workspace: Path) -> ProcessSpec:
            await self._context.workspaces.lay_out(workspace, files)
            variables = self._context.variables(STEP, attempt.number)
            variables["PYTHONPATH"] = str(Path(penstock.__file__).parents[1])
            spec = self._execution.spec(attempt, workspace, self._measurement().command, variables)
            return replace(spec, contain=False)  # from a pid namespace of its own it would not see what serves

        return prepare

    def _measurement(self) -> Measurement:
        wanted, handle = requests_of(self._context.pipeline), self._context.live.get("serve")
        port = int(self._context.result("serve").get("port", 0))
        pid = None if handle is None or handle.container is not None else handle.pid
        return Measurement(wanted.file, port, wanted.tolerance, wanted.repeat, pid, RESULT)

    def _conclude(self, done: Done) -> None:
        found = _left(done.workspace / RESULT)
        store = self._context.world.store
        if not done.succeeded or "metrics" not in found:
            reason = found.get("fault") or f"the requests could not be asked: {end_sentence(done, PATIENCE)}"
            with store.transaction():
                self._execution.finish(done, "error" if done.untold else "fail", reason=reason)
            return
        result = {"metrics": {f"{STEP}.{name}": value for name, value in found["metrics"].items()}}
        with store.transaction():
            self._execution.finish(done, "pass", reason=found.get("note"), result=result)
            store.runs.set_metrics(self._context.run.id, STEP, result["metrics"])
            record = self._context.step(STEP)
            if record.key and not found["metrics"].get("errors"):  # what went wrong may have been the machine's fault
                self._results.keep(record, result, self._context.world.clock.now() - done.attempt.created)


def _left(path: Path) -> Mapping[str, Any]:
    """What the program left, empty where it left nothing whole."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
