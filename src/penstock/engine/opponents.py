"""Asking a baseline's package what this run's was asked, where it has no evidence on the test set yet."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest
from penstock.baselines import missing
from penstock.batches import Drawn, answers_all, unanswered
from penstock.cache.contract import BlobError
from penstock.engine.baselines import Baselines, Reference
from penstock.engine.context import RunContext
from penstock.engine.examples import Examples
from penstock.engine.execution import Execution
from penstock.engine.serving import PrivateReplica, Served, read_package
from penstock.errors import PenstockError
from penstock.opponents import opponents
from penstock.pipelines import BaselineName, Pipeline, interpolate

_KEPT = "references"
_PARTS = ("words", "version", "run", "package", "sha", "since")


@dataclass(frozen=True)
class ServedOpponent(Served):
    """A baseline's package, served under its own lock and filled in as its own run declared."""

    opponents: "Opponents | None" = None
    baseline: BaselineName = field(default_factory=lambda: BaselineName(name="champion"))

    @property
    def _reference(self) -> Reference | None:
        return None if self.opponents is None else self.opponents.reference(self.baseline)

    @property
    def folder(self) -> str:
        return f"package.{self.step}.{(self.digest or '')[:12]}"

    @property
    def digest(self) -> Digest | None:
        found = self._reference
        return None if found is None or found.package is None else Digest(found.package)

    def fill(self, text: str) -> str:
        declared, version, sha = self._origin
        return interpolate(text, declared, version, sha)

    @property
    def variables(self) -> Mapping[str, str]:
        declared, version, sha = self._origin
        return {name: interpolate(text, declared, version, sha) for name, text in declared.items()}

    @cached_property
    def _origin(self) -> tuple[Mapping[str, str], str, str]:
        """The variables, version and commit of the run that built the package."""
        found = self._reference
        if found is None:
            raise AssertionError("a package that is served has a run")
        run = self.context.world.store.runs.get(found.run)
        return Pipeline.model_validate(run.pipeline).variables, run.version, str(run.commit["sha"])


class Opponents:
    """The opponents of one run: which of them have to be asked, and the replicas that answer.

    What a baseline's name stands for is looked up once in a run, and kept with it: who is asked is who is compared
    with, also where another coordinator goes on after the champion has changed.
    """

    def __init__(self, context: RunContext, execution: Execution) -> None:
        self._context = context
        self._baselines = Baselines(context)
        self._examples = Examples(context)
        self._found = {name: self._kept(values) for name, values in context.options.get(_KEPT, {}).items()}
        self._all = {n: o for n, o in opponents(context.pipeline).items() if n in context.records}
        self._replicas = {
            one.serve: PrivateReplica(context, execution, ServedOpponent(context, one.serve, self, one.baseline))
            for one in self._all.values()
        }

    def __contains__(self, name: object) -> bool:
        return name in self._all

    @property
    def replicas(self) -> Iterable[PrivateReplica]:
        return self._replicas.values()

    def replica(self, name: str) -> PrivateReplica:
        """The replica that an opponent asks."""
        return self._replicas[self._all[name].serve]

    def asked_by(self, name: str) -> str | None:
        """The step of this run that an opponent asks once more; None where it is none."""
        return self._all[name].step if name in self._all else None

    def reference(self, baseline: BaselineName) -> Reference | None:
        """What a baseline's name stands for in this run. Raises SourceError where that cannot be found out."""
        if baseline.name not in self._found:
            found = self._found[baseline.name] = self._baselines.find(baseline)
            runs, run = self._context.world.store.runs, self._context.run.id
            known = runs.get(run).options.get(_KEPT, {})
            values = None if found is None else {name: getattr(found, name) for name in _PARTS}
            with self._context.world.store.transaction():
                runs.keep_option(run, _KEPT, {**known, baseline.name: values})
        return self._found[baseline.name]

    def _kept(self, values: Mapping[str, Any] | None) -> Reference | None:
        if values is None:
            return None
        return Reference(**values, origin=self._context.world.store.baselines.origin(int(values["run"])))

    def package(self, name: str) -> Digest | None:
        """The package that an opponent asks."""
        found = self.reference(self._all[name].baseline)
        return None if found is None or found.package is None else Digest(found.package)

    @property
    def own_package(self) -> str | None:
        """The package of this run, by its digest."""
        found = self._context.result("package").get("package") if "package" in self._context.records else None
        return None if found is None else str(found)

    def name_of(self, step: str, baseline: BaselineName) -> str | None:
        """The opponent of an evidence step, where the plan has one."""
        found = (o.name for o in self._all.values() if (o.step, o.baseline) == (step, baseline))
        return next(found, None)

    def needless(self, name: str, way: Digest, asked: Drawn | None = None) -> str | None:
        """Why an opponent need not be asked, in words; None where it has to be.

        `way` is how it would be asked, `asked` are the examples of a step in batches, which its own answers do not
        tell yet. Answers that go less far than those of this run are none.
        """
        opponent = self._all[name]
        found = self.reference(opponent.baseline)
        if found is None:
            return f"there is nothing to ask: {missing(opponent.baseline)}"
        if found.package == self.own_package:
            return f"the same package as {found.words}"
        if asked is not None:
            known = self._examples.opponent(found, opponent.step, asked.test_set, way=way).evidence
            is_known = known is not None and not unanswered(known, asked.ids)
        else:
            evidence = self._examples.own(opponent.step)
            if evidence is None:
                return f"step {opponent.step} left no evidence"
            known = self._examples.opponent(found, opponent.step, evidence.test_set, way=way).evidence
            is_known = known is not None and answers_all(known, evidence)
        return f"{found.words} has answered this test set before" if is_known else None

    def hindrance(self, name: str) -> str | None:
        """Why an opponent cannot be asked, as a clause; None where it can."""
        found, world = self.reference(self._all[name].baseline), self._context.world
        if found is None or found.package is None:
            return "has no package"
        try:
            manifest = read_package(world, Digest(found.package))
            is_there = all(map(world.cache.has, world.cache.tree(Digest(found.package)).digests()))
        except (BlobError, PenstockError, KeyError):
            is_there = False
        if not is_there:
            return "has a package that is no longer in the cache"
        if not self._needs_url:
            return None
        if manifest.serve is None:
            return "has a package that does not serve"
        if manifest.environment is not None and not self._stands(Digest(manifest.environment)):
            return "has a runtime that is no longer here"
        return None

    def _stands(self, environment: Digest) -> bool:
        runtimes = self._context.world.runtimes
        folder = runtimes.variables(environment).get("VIRTUAL_ENV")
        return runtimes.image(environment) is not None or (folder is not None and Path(folder).is_dir())

    @property
    def _needs_url(self) -> bool:
        package = self._context.pipeline.package
        return package is not None and package.serve is not None
