"""Known results: what an earlier run left for a key, why there is none, and what this run leaves for later ones.

An untrusted run reads what is trusted and what its own scope has, and writes to its own scope alone.
"""

from collections.abc import Mapping
from typing import Any

from penstock.artifacts import Digest, Tree
from penstock.cache.contract import BlobError
from penstock.engine.context import RunContext
from penstock.engine.results import is_whole
from penstock.pipelines import Step
from penstock.plans import changed_paths, why_run
from penstock.runs import GREEN_STEP
from penstock.store.contract import Action, StepRecord


def may_be_reused(result: Mapping[str, Any]) -> bool:
    """Whether a green result stays green: not where tests failed in quarantine, which ends."""
    return not result.get("quarantined")


class Results:
    """The stored results that one run may read and write."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._world = context.world
        self._cache = context.world.cache
        self._actions = context.world.store.actions

    def find(self, key: str) -> Action | None:
        """The stored result of a key, if the cache still holds all of it and this run reuses any."""
        if self._context.options.get("no_cache"):
            return None
        action = self._actions.find(key, self._context.scope)
        if action is None or is_whole(action.result, self._cache):
            return action
        with self._world.store.transaction():
            self._actions.forget(key, action.scope)
        return None

    def keep(self, record: StepRecord, result: Mapping[str, Any], seconds: float) -> None:
        """Store what a step that took so long left, in the caller's transaction."""
        self._actions.put(
            Action(
                key=str(record.key),
                project=self._context.run.project,
                step=record.name,
                run=self._context.run.id,
                ingredients=record.ingredients or {},
                result=dict(result),
                seconds=seconds,
                created=self._world.clock.now(),
                scope=self._context.scope,
            )
        )

    def reuse(self, step: Step, key: Digest, ingredients: Mapping[str, Any]) -> bool:
        """Take the stored result of the key, where there is one that the step may reuse."""
        action = self.known(step, key)
        if action is None:
            return False
        self.take(step.name, action, ingredients)
        return True

    def known(self, step: Step, key: Digest) -> Action | None:
        """The stored result that a step may reuse, or None."""
        if not step.cacheable or step.name in self._context.refreshed:
            return None
        return self.find(key)

    def take(self, name: str, action: Action, ingredients: Mapping[str, Any]) -> None:
        """End a queued step with a stored result."""
        with self._world.store.transaction():
            self._actions.used(action.key, action.scope)
            self._context.move(
                name,
                "skip",
                reason=f"nothing changed since run {action.run}",
                cached=True,
                key=action.key,
                ingredients=dict(ingredients),
                result=dict(action.result),
            )
            self._world.store.runs.set_metrics(self._context.run.id, name, action.result.get("metrics", {}))

    def take_over(self, step: Step, key: Digest, ingredients: Mapping[str, Any]) -> bool:
        """In a rerun of what failed: what passed in the run before passes, even where it is never cached."""
        before = self._context.options.get("failed_of")
        if before is None:
            return False
        old = self._world.store.runs.step(int(before), step.name)
        if (
            old.key != key
            or not may_be_reused(old.result or {})
            or not (old.status in GREEN_STEP or old.cached)
            or not is_whole(old.result or {}, self._cache)
        ):
            return False
        result = dict(old.result or {})
        values = {"key": key, "ingredients": dict(ingredients), "result": result}
        with self._world.store.transaction():
            self._context.move(step.name, "skip", reason=f"passed in run {before}", cached=True, **values)
            self._world.store.runs.set_metrics(self._context.run.id, step.name, result.get("metrics", {}))
        return True

    def why(self, step: Step, key: Digest, ingredients: Mapping[str, str | None], inputs: Tree) -> str:
        """Why a step has to run, in words."""
        if not step.cacheable:
            declared = "cache: false" if step.cache is False else "it declares neither inputs nor outputs"
            return f"always runs: {declared}"
        if self._context.options.get("no_cache"):
            return "asked to run without the cache"
        if step.name in self._context.refreshed:
            return f"fresh: nothing is reused under the trigger {self._context.run.trigger}"
        evicted = self._actions.eviction(key, self._context.scope)
        if evicted is not None:
            return evicted.sentence
        before = self._actions.newest(self._context.run.project, step.name, self._context.scope)
        if before is None:
            return why_run(ingredients, None)
        try:
            changed = changed_paths(inputs, self._cache.tree(Digest(str(before.ingredients["inputs"]))))
        except BlobError:
            changed = []
        return why_run(ingredients, before.ingredients, changed)
