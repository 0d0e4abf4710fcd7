"""Outside data: what it is now, told by a process before the steps that read it, so that their keys can hold it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from penstock.artifacts import Tree, digest_of_bytes
from penstock.engine.context import RunContext
from penstock.engine.contracts import ProcessSpec
from penstock.engine.execution import Done, Execution, Prepare, end_sentence
from penstock.engine.turns import Turns
from penstock.parts import Resources
from penstock.pipelines import Step
from penstock.plans import fingerprint_name, step_inputs
from penstock.runs import StepStatus
from penstock.store.contract import Attempt

FILE = ".penstock-fingerprint"
LIMIT = 1 << 20
"""Bytes: a fingerprint that is longer is data itself."""
PATIENCE = 300.0
"""Seconds that telling a fingerprint may take, where the step says nothing of its own."""

MakeSpec = Callable[[Step, Attempt, Path, tuple[int, ...]], ProcessSpec]


class Fingerprints:
    """Executes the fingerprints of one run: one for each step with outside data, which its cells share.

    It runs as its step would, with the same runtime, variables and secrets, over the commit's part of the step's
    inputs; what it prints on stdout is the fingerprint. It always runs.
    """

    def __init__(self, context: RunContext, execution: Execution, turns: Turns, spec: MakeSpec) -> None:
        self._context = context
        self._execution = execution
        self._turns = turns
        self._spec = spec

    async def tell(self, name: str) -> None:
        """Bring one queued or running fingerprint to its end."""
        step = next(s for s in self._context.pipeline.steps.values() if fingerprint_name(s) == name)
        limit = step.timeout or PATIENCE
        async with self._context.turn(name, self._turns):
            if self._context.why_end(name) is not None and self._context.step(name).status is StepStatus.QUEUED:
                return
            done = await self._execution.place(name, self._prepare(name, step), limit)
        if not self._execution.stopped(done):
            self._conclude(step, done, limit)

    def _prepare(self, name: str, step: Step) -> Prepare:
        told = step.model_copy(update={**_PLAIN, "name": name, "run": self._text(step)})

        async def prepare(attempt: Attempt, workspace: Path) -> ProcessSpec:
            files = step_inputs(step, self._context.files.tree, Tree())
            await self._context.workspaces.lay_out(workspace, files)
            spec = self._spec(told, attempt, workspace, ())
            # Addresses are looked at by Penstock's own Python, which no image has.
            return replace(spec, image=None, mounts=(), network=True) if step.external else spec

        return prepare

    def _text(self, step: Step) -> str:
        """What is executed: the addresses are looked at, then the command prints; both end up in one file."""
        looked = self._context.world.runtimes.fingerprint(step.external).text if step.external else ":"
        asked = step.fingerprint or ":"
        return f"{looked} >{FILE}\n(\n{asked}\n) >>{FILE}\ncat {FILE}"

    def _conclude(self, step: Step, done: Done, limit: float) -> None:
        told = (done.workspace / FILE).read_bytes() if done.succeeded else b""
        reason = None
        if not done.succeeded:
            reason = f"the outside data of {step.family} could not be told: {end_sentence(done, limit)}"
        elif not told.strip() or len(told) > LIMIT:
            what = "nothing" if not told.strip() else f"more than {LIMIT >> 20} MiB"
            reason = f"the fingerprint of {step.family} printed {what}: print a short text that changes with the data"
        event = "error" if done.untold else "fail" if reason else "pass"
        with self._context.world.store.transaction():
            result = None if reason else {"outside": digest_of_bytes(told)}
            self._execution.finish(done, event, reason=reason, result=result)


_PLAIN = {"shell": "sh", "checkpoint": None, "metrics": None, "resources": Resources(), "needs": ()}
"""What of a step its fingerprint does not have."""
