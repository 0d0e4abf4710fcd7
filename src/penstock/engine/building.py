"""Penstock's own steps: check the files, lock the packages, make the runtime, assemble the package."""

import asyncio
import json
import os
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest, File, Link, Tree
from penstock.cache.contract import BlobMissing
from penstock.engine.context import RunContext
from penstock.engine.contracts import Command, ProcessSpec
from penstock.engine.execution import Done, Execution, end_sentence
from penstock.engine.inspecting import inspect_package
from penstock.engine.reuse import Results
from penstock.engine.turns import Turns
from penstock.packages import Manifest, assemble, lineage, manifest_of
from penstock.plans import (
    check_ingredients,
    checked_files,
    fingerprint_name,
    lock_ingredients,
    own_key,
    package_needs,
)
from penstock.runs import StepStatus
from penstock.store.contract import Attempt, PackageRecord

LOCK_FILE = "penstock.lock"


class OwnSteps:
    """Executes `check`, `lock`, `runtime` and `package` of one run."""

    def __init__(self, context: RunContext, execution: Execution, turns: Turns) -> None:
        self._context = context
        self._execution = execution
        self._world = context.world
        self._turns = turns
        self._results = Results(context)

    async def check(self) -> None:
        """Python files that are used must compile; other files that do not parse are warned of."""
        pipeline, tree = self._context.pipeline, self._context.files.tree
        python = pipeline.runtime.python if pipeline.runtime else None
        strict, lenient = checked_files(pipeline, tree)
        files = Tree({p: tree.entries[p] for p in (*strict, *lenient)})
        await self._action(
            "check",
            check_ingredients(pipeline, tree),
            files,
            lambda: self._world.runtimes.check(python, strict, lenient),
            lambda _done: {},
        )

    async def lock(self) -> None:
        """Exactly which packages, with hashes: the file's own lock, or one resolved and kept."""
        world, request = self._world, self._context.runtime_request
        files = await asyncio.to_thread(self._runtime_files)
        tree = self._kept(files)
        key = await asyncio.to_thread(world.runtimes.key, request, files)
        ingredients = lock_ingredients(tree, key)

        def result(done: Done) -> Mapping[str, Any]:
            content = (done.workspace / LOCK_FILE).read_bytes()
            environment = world.runtimes.digest(request, content)
            return {"lock": world.cache.add_bytes(content), "size": len(content), "environment": environment}

        await self._action("lock", ingredients, tree, lambda: world.runtimes.resolve(request, files), result)

    def _runtime_files(self) -> Mapping[str, bytes]:
        """The commit's files that say what the runtime holds."""
        return self._world.runtimes.files(self._context.runtime_request, self._read, self._context.files.tree.entries)

    def _kept(self, files: Mapping[str, bytes]) -> Tree:
        """These files as the commit has them; what is made of them is kept."""

        def entry(path: str, data: bytes) -> File | Link:
            known = self._context.files.tree.entries.get(path)
            return known or File(self._world.cache.add_bytes(data), len(data))

        return Tree({path: entry(path, data) for path, data in files.items()})

    def _read(self, path: str) -> bytes | None:
        entry = self._context.files.tree.entries.get(path)
        return self._context.read(entry.digest) if isinstance(entry, File) else None

    async def runtime(self) -> None:
        """The environment of the lock, made once and shared by every run with the same lock."""
        lock = self._world.cache.read(Digest(self._context.result("lock")["lock"]))
        command = await asyncio.to_thread(self._world.runtimes.build, self._context.runtime_request, lock)
        if command is None and self._context.step("runtime").status is StepStatus.QUEUED:
            with self._world.store.transaction():
                self._context.move("runtime", "skip", reason="made by an earlier run", cached=True)
            return
        start = {"reason": command.reason} if command and command.reason else {}
        files = self._kept(await asyncio.to_thread(self._runtime_files))
        done = await self._place("runtime", command or Command("true"), files, start)
        self._conclude("runtime", done, lambda _done: {})

    async def _action(
        self,
        name: str,
        ingredients: Mapping[str, str | None],
        files: Tree,
        command: Callable[[], Command],
        result: Callable[[Done], Mapping[str, Any]],
    ) -> None:
        """A step of ours whose result depends on its ingredients alone."""
        key = own_key(name, ingredients)
        if self._context.step(name).status is StepStatus.QUEUED:
            action = self._results.find(key)
            if action is not None and self._is_there(action.result):
                self._results.take(name, action, ingredients)
                return
        async with self._context.turn(name, self._turns):
            if self._context.stopping is not None and self._context.step(name).status is StepStatus.QUEUED:
                return
            done = await self._place(name, command(), files, {"key": key, "ingredients": dict(ingredients)})
        self._conclude(name, done, result)

    def _is_there(self, result: Mapping[str, Any]) -> bool:
        return "lock" not in result or self._world.cache.has(Digest(result["lock"]))

    async def _place(self, name: str, command: Command, files: Tree, start: Mapping[str, Any]) -> Done:
        async def prepare(attempt: Attempt, workspace: Path) -> ProcessSpec:
            await self._context.workspaces.lay_out(workspace, files)
            variables = {**self._context.variables(name, attempt.number), **command.variables}
            spec = self._execution.spec(attempt, workspace, command.text, variables)
            # A container engine has namespaces of its own, which it cannot always make within another.
            return replace(spec, contain=False) if self._context.has_image and name in _WHAT_OF_IMAGES else spec

        return await self._execution.place(name, prepare, None, start)

    def _conclude(self, name: str, done: Done, result: Callable[[Done], Mapping[str, Any]]) -> None:
        if self._execution.stopped(done):
            return
        store, record = self._world.store, self._context.step(name)
        if not done.succeeded:
            event = "error" if done.untold else "fail"
            with store.transaction():
                what = _WHAT_OF_IMAGES if self._context.has_image else _WHAT
                self._execution.finish(done, event, reason=f"{what.get(name, _WHAT[name])}: {end_sentence(done, None)}")
            return
        values = dict(result(done))
        with store.transaction():
            self._execution.finish(done, "pass", result=values)
            if record.key:
                self._results.keep(record, values, self._world.clock.now() - done.attempt.created)

    async def package(self) -> None:
        """Model, code, lock, serve command and manifest as one tree, with its lineage beside it."""
        runs, run = self._world.store.runs, self._context.run
        if self._context.step("package").status is StepStatus.QUEUED:
            with self._world.store.transaction():
                self._context.move("package", "start")
        tree, manifest = await asyncio.to_thread(self._assemble, *self._materials())
        same = [p.lineage for p in runs.packages(run.project) if p.digest == tree.digest]
        record = self._lineage(tree, manifest, await self._seen(tree, manifest, same))
        reason = "the same package as before" if same else None
        with self._world.store.transaction():
            runs.put_package(record)
            runs.set_package(run.id, tree.digest, tree.size)
            self._context.move("package", "pass", reason=reason, result={"package": tree.digest})

    async def _seen(
        self, tree: Tree, manifest: Manifest, same: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any] | None:
        """What the model's files are, as the lineage of the same package says already, or by a look at them."""
        known = next((lineage["model"] for lineage in same if "model" in lineage), None)
        if known is not None or not manifest.model:
            return known
        looking = (self._world.cache, tree, manifest.model, self._context.folder)
        return (await asyncio.to_thread(inspect_package, *looking)).as_json()

    def _materials(self) -> tuple[Tree, Mapping[str, Any]]:
        """What the package is made of, read from the store before the slow part."""
        package = self._context.pipeline.package
        if package is None:
            raise AssertionError("a package step without a package")
        own = tuple(n for n in self._context.plan["package"].needs if n in self._context.pipeline.steps)
        everything = self._context.files.tree.merge(self._context.outputs(own))
        locked = self._context.result("lock") if self._context.environment else {}
        return everything.select(package_needs(package)), locked

    def _assemble(self, files: Tree, locked: Mapping[str, Any]) -> tuple[Tree, Manifest]:
        cache = self._world.cache
        for entry in files.entries.values():
            if isinstance(entry, File) and not cache.has(entry.digest):
                try:
                    cache.add_bytes(self._context.read(entry.digest))
                except KeyError:
                    raise BlobMissing(entry.digest) from None
        lock = File(Digest(locked["lock"]), int(locked["size"])) if locked else None
        environment = Digest(locked["environment"]) if locked else None
        manifest = manifest_of(self._context.pipeline, lock.digest if lock else None, environment)
        data = manifest.encode()
        tree = assemble(files, File(cache.add_bytes(data), len(data)), lock)
        cache.add_tree(tree)
        return tree, manifest

    def _lineage(self, tree: Tree, manifest: Manifest, model: Mapping[str, Any] | None) -> PackageRecord:
        context, run = self._context, self._context.run
        runs = self._world.store.runs
        inputs = {s.name: str(s.ingredients["inputs"]) for s in context.records.values() if s.ingredients}
        inputs.update(self._outside())
        return PackageRecord(
            project=run.project,
            version=run.version,
            digest=tree.digest,
            run=run.id,
            passed=False,
            size=tree.size,
            lineage=lineage(
                commit=run.commit,
                version=run.version,
                package=tree,
                manifest=manifest,
                inputs=inputs,
                metrics=runs.metrics(run.id),
                hardware=hardware(),
                variables=context.pipeline.variables,
            )
            | ({} if model is None else {"model": model})
            | self._pinned(manifest),
            created=self._world.clock.now(),
        )

    def _pinned(self, manifest: Manifest) -> dict[str, Any]:
        """What the lock of an image pins: names with their digests."""
        if not manifest.image or manifest.lock is None:
            return {}
        return {"image": json.loads(self._world.cache.read(Digest(manifest.lock)))}

    def _outside(self) -> dict[str, str]:
        """The state of the outside data of this run, by address, else by what told it."""
        found: dict[str, str] = {}
        for step in self._context.pipeline.steps.values():
            told = fingerprint_name(step)
            state = self._context.result(told).get("outside") if told in self._context.records else None
            if state is not None:
                found.update(dict.fromkeys(step.external or (told,), state))
        return found

    def steps(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Our steps by name."""
        return {"check": self.check, "lock": self.lock, "runtime": self.runtime, "package": self.package}


_WHAT = {
    "check": "a file does not compile (its log names file and line)",
    "lock": "the runtime's packages cannot be locked (its log says why)",
    "runtime": "the runtime cannot be made (its log says why)",
}
_WHAT_OF_IMAGES = {
    "lock": "the runtime's image cannot be pinned (its log says why)",
    "runtime": "the runtime's image cannot be had (its log says why)",
}


def hardware() -> dict[str, Any]:
    """What this machine is, as far as results depend on it."""
    return {"machine": platform.machine(), "system": platform.platform(), "cpus": os.cpu_count()}
