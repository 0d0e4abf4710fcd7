"""What a run would do, foreseen from the store without changing anything."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from penstock.artifacts import Digest, File, Tree, digest_of_bytes
from penstock.cache.contract import BlobError
from penstock.cli.asking import Found
from penstock.cli.tables import PlanRow
from penstock.commits import Trigger
from penstock.engine.configuring import config_mistakes
from penstock.engine.context import runtime_request
from penstock.engine.contracts import CommitFiles
from penstock.engine.results import is_whole
from penstock.engine.world import World
from penstock.errors import UsageError
from penstock.opponents import SERVE, opponents, with_opponents
from penstock.packages import assemble, manifest_of
from penstock.plans import (
    PlannedStep,
    StepKind,
    changed_paths,
    check_ingredients,
    key_of,
    lock_ingredients,
    missing_inputs,
    own_key,
    package_needs,
    plan,
    refreshed,
    replay_ingredients,
    request_files,
    step_ingredients,
    step_inputs,
    why_not_wanted,
    why_run,
)

_FRESH = "fresh: nothing is reused under the trigger manual"


def foresee(world: World, found: Found) -> list[PlanRow]:
    """Each step with what would happen to it. Raises UsageError for what names nothing."""
    files = world.source.files(found.located.mirror, found.commit.sha)
    with closing(files):
        problems = missing_inputs(found.pipeline, files.tree)
        problems = problems or config_mistakes(found.pipeline, files.tree, files.read)
        if problems:
            raise UsageError("; ".join(problems))
        foresight = Foresight(world, found, files)
        return [foresight.row(step) for step in plan(with_opponents(found.pipeline)).steps]


class Foresight:
    """Walks a plan in order, with the results that are known already; what depends on an unknown one waits."""

    def __init__(self, world: World, found: Found, files: CommitFiles) -> None:
        self._world = world
        self._found = found
        self._pipeline = with_opponents(found.pipeline)
        self._files = files
        self._opponents = opponents(found.pipeline)
        self._version = world.store.runs.version_of(found.project.id, found.commit.sha) or world.source.version(
            found.located, found.commit
        )
        self._change = world.source.change(found.located, found.commit).paths
        self._refreshed = refreshed(self._pipeline, plan(self._pipeline), Trigger.MANUAL)
        self._known: dict[str, Mapping[str, Any]] = {}

    def row(self, step: PlannedStep) -> PlanRow:
        unwanted = self._why_not_wanted(step.name)
        if unwanted is not None:
            return PlanRow(step.name, step.stage, "skip", unwanted)
        if step.name in self._opponents:
            return PlanRow(step.name, step.stage, "wait", "asked if it has not answered this test set")
        if self._is_in_batches(step.name):
            return PlanRow(step.name, step.stage, "wait", "asked in batches until its gates are decided")
        open_needs = [n for n in step.needs if n not in self._known]
        if open_needs and step.kind is not StepKind.SERVE:
            if self._never_gave_a_result(step):
                return PlanRow(step.name, step.stage, "run", "no earlier result")
            return PlanRow(step.name, step.stage, "wait", f"depends on what {' and '.join(open_needs)} gives")
        return {
            StepKind.CHECK: self._check,
            StepKind.LOCK: self._lock,
            StepKind.RUNTIME: self._runtime,
            StepKind.FINGERPRINT: self._fingerprint,
            StepKind.PACKAGE: self._package,
            StepKind.SERVE: self._serve,
            StepKind.REPLAY: self._replay,
            StepKind.STEP: self._step,
        }[step.kind](step)

    def _is_in_batches(self, name: str) -> bool:
        """Whether what a step's result depends on is only known once the baseline has been asked."""
        files = self._pipeline.steps[name].evidence if name in self._pipeline.steps else None
        return files is not None and files.batch is not None

    def _why_not_wanted(self, name: str) -> str | None:
        """Why a step is left out of a run of this commit, or waits for a failure; None where it is not."""
        step = self._pipeline.steps.get(name)
        if step is None:
            return None
        if step.when.outcome == "failed":
            return "its condition: only where something that it needs failed"
        return why_not_wanted(step.when, self._found.commit, self._change)

    def _never_gave_a_result(self, step: PlannedStep) -> bool:
        """Whether it will run whatever the steps before it give; a package is no stored result but has a record."""
        store, project = self._world.store, self._found.project.id
        if step.kind is StepKind.PACKAGE:
            return not store.runs.packages(project)
        return step.kind is not StepKind.RUNTIME and store.actions.newest(project, step.name) is None

    def _check(self, step: PlannedStep) -> PlanRow:
        self._known[step.name] = {}
        return self._own(step, check_ingredients(self._pipeline, self._files.tree))

    def _lock(self, step: PlannedStep) -> PlanRow:
        request = runtime_request(self._pipeline)
        files = self._world.runtimes.files(request, self._read, self._files.tree.entries)
        commit = self._files.tree.entries
        tree = Tree({p: commit.get(p) or File(digest_of_bytes(data), len(data)) for p, data in files.items()})
        return self._own(step, lock_ingredients(tree, self._world.runtimes.key(request, files)))

    def _read(self, path: str) -> bytes | None:
        entry = self._files.tree.entries.get(path)
        return self._files.read(entry.digest) if isinstance(entry, File) else None

    def _own(self, step: PlannedStep, ingredients: Mapping[str, str | None]) -> PlanRow:
        return self._judged(step, own_key(step.name, ingredients), ingredients)

    def _runtime(self, step: PlannedStep) -> PlanRow:
        self._known[step.name] = {}
        lock = Digest(self._known["lock"]["lock"])
        try:
            data = self._world.cache.read(lock)
        except BlobError:
            return PlanRow(step.name, step.stage, "run", "its lock is gone from the cache")
        request = runtime_request(self._pipeline)
        command = self._world.runtimes.build(request, data)
        from penstock.runtimes.images import described

        pinned = f": {described(data)}" if request.kind in {"image", "dockerfile"} else ""
        if command is None:
            return PlanRow(step.name, step.stage, "cached", f"made by an earlier run{pinned}")
        return PlanRow(step.name, step.stage, "run", command.reason or "no environment of this lock stands here")

    def _fingerprint(self, step: PlannedStep) -> PlanRow:
        return PlanRow(step.name, step.stage, "run", "always runs: it tells what the outside data is now")

    def _step(self, step: PlannedStep) -> PlanRow:
        wanted = self._pipeline.steps[step.name]
        outputs = self._outputs(step.needs)
        inputs = step_inputs(wanted, self._files.tree, outputs)
        package = self._known.get("package", {}).get("package")
        environment = self._known.get("lock", {}).get("environment")
        ingredients = step_ingredients(
            wanted,
            inputs=inputs,
            pipeline=self._pipeline,
            version=self._version,
            commit=self._found.commit.sha,
            environment=environment,
            package=package,
        )
        if not wanted.cacheable:
            declared = "cache: false" if wanted.cache is False else "it declares neither inputs nor outputs"
            return PlanRow(step.name, step.stage, "run", f"always runs: {declared}")
        if step.name in self._refreshed:
            return PlanRow(step.name, step.stage, "run", _FRESH)
        return self._judged(step, key_of(ingredients), ingredients, inputs)

    def _outputs(self, names: tuple[str, ...]) -> Tree:
        merged = Tree()
        for name in names:
            digest = self._known.get(name, {}).get("outputs")
            if digest is not None:
                merged = merged.merge(self._world.cache.tree(Digest(digest)))
        return merged

    def _judged(
        self,
        step: PlannedStep,
        key: Digest,
        ingredients: Mapping[str, str | None],
        inputs: Tree | None = None,
    ) -> PlanRow:
        action = self._world.store.actions.find(key)
        if action is not None and is_whole(action.result, self._world.cache):
            self._known[step.name] = action.result
            return PlanRow(step.name, step.stage, "cached", f"nothing changed since run {action.run}")
        evicted = self._world.store.actions.eviction(key) if action is None else None
        if evicted is not None:
            return PlanRow(step.name, step.stage, "run", evicted.sentence)
        before = self._world.store.actions.newest(self._found.project.id, step.name)
        changed: list[str] = []
        if before is not None and inputs is not None:
            try:
                changed = changed_paths(inputs, self._world.cache.tree(Digest(str(before.ingredients["inputs"]))))
            except BlobError:
                changed = []
        return PlanRow(
            step.name, step.stage, "run", why_run(ingredients, before.ingredients if before else None, changed)
        )

    def _package(self, step: PlannedStep) -> PlanRow:
        """The digest is known without making it, so steps on the package can be foreseen too."""
        package = self._pipeline.package
        locked = self._known.get("lock", {})
        everything = self._files.tree.merge(self._outputs(step.needs))
        lock = File(Digest(locked["lock"]), int(locked["size"])) if locked else None
        environment = Digest(locked["environment"]) if locked else None
        data = manifest_of(self._pipeline, lock.digest if lock else None, environment).encode()
        manifest = File(digest_of_bytes(data), len(data))
        tree = assemble(everything.select(package_needs(package)) if package else Tree(), manifest, lock)
        self._known[step.name] = {"package": tree.digest}
        known = {p.digest for p in self._world.store.runs.packages(self._found.project.id)}
        if tree.digest in known:
            return PlanRow(step.name, step.stage, "cached", "the same package as before")
        return PlanRow(step.name, step.stage, "run", "a new package")

    def _replay(self, step: PlannedStep) -> PlanRow:
        if step.name in self._refreshed:
            return PlanRow(step.name, step.stage, "run", _FRESH)
        files = request_files(self._pipeline, self._files.tree.merge(self._outputs(step.needs)))
        package, sha = self._known["package"]["package"], self._found.commit.sha
        return self._own(step, replay_ingredients(self._pipeline, files, package, self._version, sha))

    def _serve(self, step: PlannedStep) -> PlanRow:
        which = "the package" if step.name == SERVE else "that package"
        return PlanRow(step.name, step.stage, "wait", f"started if a step that needs {which} has to run")
