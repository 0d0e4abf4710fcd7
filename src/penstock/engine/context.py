"""One run as its driver sees it: what was asked for, what stands in the store, and what its steps produced."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest, Tree, digest_of
from penstock.commits import Commit
from penstock.engine.contracts import CommitFiles, Handle, RuntimeRequest
from penstock.engine.scheduling import Need, why_never
from penstock.engine.turns import Turns
from penstock.engine.variables import SEED, passed_on
from penstock.engine.workspaces import Workspaces
from penstock.engine.world import World
from penstock.errors import StateError
from penstock.pipelines import Pipeline, Step, interpolate
from penstock.plans import Plan, StepKind, refreshed, remaining, why_not_wanted
from penstock.runs import ENDED_STEP, RED_STEP, AttemptStatus, Frontier, Outcome, StepState, StepStatus
from penstock.store.contract import Run, StepRecord

BARRED = "waits for a release to end: its replicas hold what this needs (see penstock status)"
"""What is said of a step that does not fit beside the replicas of the home."""


@dataclass(slots=True)
class RunContext:
    """The state of one driven run. `live` are the processes that run now, by step; `stopping` is why they must end.

    `ending` are sentences for single steps that must end while the run goes on.
    """

    world: World
    run: Run
    pipeline: Pipeline
    plan: Plan
    commit: Commit
    files: CommitFiles
    live: dict[str, Handle] = field(default_factory=dict)
    stopping: str | None = None
    ending: dict[str, str] = field(default_factory=dict)
    may_start: Callable[[], bool] = lambda: True
    remade: set[str] = field(default_factory=set)
    reading: threading.Lock = field(default_factory=threading.Lock)
    slots: set[int] = field(init=False)
    held: dict[str, tuple[int, ...]] = field(init=False)
    attempts: Counter[str] = field(init=False)
    priorities: Mapping[str, float] = field(init=False)
    refreshed: frozenset[str] = field(init=False)
    has_red: bool = field(init=False)
    workspaces: Workspaces = field(init=False)
    bases: dict[tuple[str, ...], Mapping[str, str]] = field(default_factory=dict)
    records: dict[str, StepRecord] = field(init=False)
    frontier: Frontier = field(init=False)

    @property
    def folder(self) -> Path:
        return self.world.home.run(self.run.id)

    @property
    def options(self) -> Mapping[str, Any]:
        return self.run.options

    @property
    def scope(self) -> str:
        """The trust scope of the run's results: empty for a trusted run."""
        return str(self.options.get("scope") or "")

    @property
    def home(self) -> Path:
        """The private HOME of the run's steps: one for each project, and apart for each untrusted scope."""
        person = self.world.home.person(self.run.project)
        return person.with_name(f"{person.name}.{digest_of('scope', self.scope)[:12]}") if self.scope else person

    @property
    def person(self) -> Mapping[str, str]:
        """The environment of whoever asked for the run, over the coordinator's own."""
        return {**self.world.environment, **self.options.get("environment", {})}

    def read(self, digest: Digest) -> bytes:
        """Content of a file of the commit; one reader at a time."""
        with self.reading:
            return self.files.read(digest)

    def __post_init__(self) -> None:
        self.records = {r.name: r for r in self.world.store.runs.steps(self.run.id)}
        self.has_red = any(r.status in RED_STEP for r in self.records.values())
        self.frontier = Frontier(self.states())
        self.workspaces = Workspaces(self.world.cache, self.read)
        attempts = self.world.store.runs.attempts(self.run.id)
        live = [a for a in attempts if a.status is not AttemptStatus.ENDED]
        self.slots = {int(a.detail["slot"]) for a in live}
        self.held = {a.step: tuple(a.detail.get("gpus", ())) for a in live}
        self.attempts = Counter(a.step for a in attempts)
        self.priorities = remaining(self.plan, self.world.store.runs.durations(self.run.project))
        self.refreshed = refreshed(self.pipeline, self.plan, self.run.trigger)

    def step(self, name: str) -> StepRecord:
        return self.records[name]

    def states(self) -> list[StepState]:
        """Every step with its needs and status, for the pure rules of `runs.py`."""
        return [self._state(r) for r in self.records.values()]

    def _state(self, record: StepRecord) -> StepState:
        step = self.pipeline.steps.get(record.name)
        outcome: Outcome = "passed" if step is None else step.when.outcome
        return StepState(record.name, record.needs, record.status, record.cached, outcome)

    def why_end(self, name: str) -> str | None:
        """Why a step must not go on (as an end reason), or None where it may."""
        return self.stopping or ("canceled" if name in self.ending else None)

    def is_too_late(self, step: Step) -> bool:
        """Whether a step must not begin any more, because another one is red and the file says fail_fast."""
        return self.has_red and self.pipeline.fail_fast and step.when.outcome == "passed"

    def why_not_wanted(self, name: str) -> str | None:
        """Why the condition of a step does not hold for this commit, in words, or None."""
        step = self.pipeline.steps.get(name)
        return None if step is None else why_not_wanted(step.when, self.commit, self.run.change)

    @property
    def red(self) -> StepState | None:
        """The first step that went wrong, in the plan's order; a failed one before others."""
        for statuses in ({StepStatus.FAILED}, RED_STEP) if self.has_red else ():
            for record in self.records.values():
                if record.status in statuses:
                    return self._state(record)
        return None

    def move(self, name: str, event: str, **values: Any) -> None:
        """One transition of a step, in the caller's transaction; what it makes ready is kept for the driver."""
        before = self.records[name]
        after = self.world.store.runs.apply(before, event, **values)
        self.records[name] = after
        self.has_red = self.has_red or after.status in RED_STEP
        if event == "reopen":
            self.frontier.reopen(self._state(before))
        elif after.status in ENDED_STEP:
            self.frontier.settle(self._state(after))
        elif after.status is StepStatus.QUEUED:
            self.frontier.requeue(name)

    def result(self, name: str) -> Mapping[str, Any]:
        """What a finished step left: digests of its outputs and collected files; empty where there is none."""
        return self.step(name).result or {}

    def outputs(self, names: tuple[str, ...]) -> Tree:
        """The merged outputs of the named steps."""
        merged = Tree()
        for name in names:
            digest = self.result(name).get("outputs")
            if digest is not None:
                merged = merged.merge(self.world.cache.tree(digest))
        return merged

    @property
    def environment(self) -> Digest | None:
        """The digest of the run's runtime, once its lock is known; None too where it could not be made.

        Only steps that run whatever has failed come to see that.
        """
        if StepKind.LOCK not in self.records or self.step(StepKind.RUNTIME).status in RED_STEP:
            return None
        found = self.result(StepKind.LOCK).get("environment")
        return None if found is None else Digest(found)

    @property
    def has_image(self) -> bool:
        """Whether the run's steps are processes in containers."""
        return self.pipeline.runtime is not None and self.pipeline.runtime.is_image

    @property
    def runtime_request(self) -> RuntimeRequest:
        return runtime_request(self.pipeline)

    def note(self, name: str, reason: str) -> None:
        """Say something of a step that goes on."""
        self.world.store.runs.note_step(self.run.id, name, reason=reason)
        self.records[name] = replace(self.records[name], reason=reason)

    def keep(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep what a step that goes on has left so far, in the caller's transaction."""
        self.world.store.runs.note_step(self.run.id, name, result=dict(result))
        self.records[name] = replace(self.records[name], result=dict(result))

    def turn(self, step: str, turns: Turns) -> AbstractAsyncContextManager[tuple[int, ...]]:
        """A share of the home for a step: at once where its process lives already, else when it is its turn.

        Gives the indices of the step's GPUs. Raises StateError for a step that can never have its turn here.
        """
        key = (self.run.id, step)
        need = need_of(self.pipeline.steps[step]) if step in self.pipeline.steps else Need()
        never = why_never(need, turns.capacity)
        if never is not None:
            raise StateError(f"step {step} {never}")
        if step in self.held:
            return turns.taken(key, need, self.held.pop(step))
        if turns.is_barred(need):
            self.note(step, BARRED)
        return turns.turn(key, need, self.priorities[step])

    def count_attempt(self, step: str) -> int:
        """The number of a step's next attempt, from 1."""
        self.attempts[step] += 1
        return self.attempts[step]

    def fill(self, text: str) -> str:
        """The text with `${{ variables.x }}`, `${{ version }}` and `${{ commit }}` filled in."""
        return interpolate(text, self.pipeline.variables, self.run.version, self.commit.sha)

    def filled(self, values: Mapping[str, str]) -> dict[str, str]:
        """Declared variables with their values filled in."""
        return {name: self.fill(value) for name, value in values.items()}

    def claim_slot(self) -> int:
        """The smallest free slot of the run: the name of the log and record that processes share one after another."""
        slot = next(i for i in range(len(self.slots) + 1) if i not in self.slots)
        self.slots.add(slot)
        return slot

    def variables(self, step: str, attempt: int, more: tuple[str, ...] = ()) -> dict[str, str]:
        """What is set for every process of the run (DESIGN: the step contract), before its own variables."""
        if more not in self.bases:
            self.bases[more] = self._base(more)
        return {**self.bases[more], "PENSTOCK_STEP": step, "PENSTOCK_ATTEMPT": str(attempt)}

    def _base(self, more: tuple[str, ...]) -> dict[str, str]:
        """The same for every process of the run that is passed on these variables of the person."""
        return {
            **passed_on(self.person, () if self.scope else more),
            "HOME": str(self.home),
            "CI": "true",
            "PENSTOCK_RUN": str(self.run.id),
            "PENSTOCK_VERSION": self.run.version,
            "PENSTOCK_COMMIT": self.commit.sha,
            "PENSTOCK_BRANCH": self.commit.branch or "",
            "PENSTOCK_TRIGGER": self.run.trigger,
            "PENSTOCK_SEED": SEED,
        }


def need_of(step: Step) -> Need:
    """What a step holds of its home while it runs."""
    wanted = step.resources
    return Need(wanted.cpu, wanted.memory or 0, wanted.gpu.count, wanted.gpu.type)


def runtime_request(pipeline: Pipeline) -> RuntimeRequest:
    """What a pipeline with a lock step asks of its runtime."""
    runtime = pipeline.runtime
    if runtime is None:
        raise AssertionError("a pipeline without a runtime has no lock step")
    if runtime.image is not None:
        return RuntimeRequest("image", runtime.image, runtime.python)
    if runtime.dockerfile is not None:
        return RuntimeRequest("dockerfile", runtime.dockerfile, runtime.python)
    if runtime.lock is not None:
        return RuntimeRequest("lock", runtime.lock, runtime.python)
    if runtime.requirements is not None:
        return RuntimeRequest("requirements", runtime.requirements, runtime.python)
    return RuntimeRequest("pyproject", runtime.pyproject or ".", runtime.python)
