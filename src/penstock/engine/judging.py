"""Gates: the run's metrics and evidence against the file's rules, with the champion where a rule names it."""

from collections.abc import Iterator, Sequence

from penstock.artifacts import Digest, File
from penstock.cache.contract import BlobError, Cache
from penstock.comparisons import CONFIDENCE, Champion, judge_examples
from penstock.engine.context import RunContext
from penstock.errors import ReportError
from penstock.evidence import Evidence, read_evidence
from penstock.gates import Baseline, Verdict, aggregated, judge_metric, with_consequence
from penstock.matrices import judged_steps
from penstock.parts import EvidenceFiles
from penstock.pipelines import Gate, Pipeline
from penstock.reuse_budgets import Budget
from penstock.runs import ENDED_STEP, GREEN_STEP
from penstock.store.contract import Release, StepRecord


def champion_environment(pipeline: Pipeline) -> str | None:
    """The environment whose release is the champion: the named one, else the one that no other needs."""
    if pipeline.champion is not None:
        return pipeline.champion
    needed = {name for e in pipeline.environments.values() for name in e.needs}
    last = [name for name in pipeline.environments if name not in needed]
    return last[0] if len(last) == 1 else None


class Judge:
    """Judges the gates of one run, each as soon as its step has ended."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._runs = context.world.store.runs
        self._waiting: list[Gate] = []
        self.reconsider()

    def reconsider(self) -> None:
        """Wait again for the gates that have no verdict: a step of theirs was opened again."""
        judged = {g.name for g in self._runs.gates(self._context.run.id) if g.verdict is not None}
        self._waiting = [g for g in self._context.pipeline.gates.values() if g.name not in judged]

    def judge(self) -> None:
        """Give a verdict on every gate that has none and whose step has ended, with evidence the package's too."""
        for gate in list(self._waiting):
            steps = [self._context.step(name) for name in judged_steps(self._context.pipeline, gate)]
            if all(step.status in ENDED_STEP for step in (*steps, *self._package_of(gate))):
                self._waiting.remove(gate)
                self._judge(gate, steps)

    def _package_of(self, gate: Gate) -> Iterator[StepRecord]:
        """The step that makes the package, where a gate must know whose answers it judges."""
        if gate.metric is None and "package" in self._context.records:
            yield self._context.step("package")

    def _judge(self, gate: Gate, steps: Sequence[StepRecord]) -> None:
        found = Verdict(gate.name, "errored", None, ())
        red = next((s for s in steps if s.status not in GREEN_STEP and not s.cached), None)
        if red is None:
            found = self._verdict(gate, tuple(s.name for s in steps))
        verdict = found.verdict if red is None else None
        reasons = found.reasons if red is None else (f"not judged: step {red.name} {red.status}",)
        with self._context.world.store.transaction():
            self._runs.judge(self._context.run.id, gate.name, verdict, found.value, reasons, found.chart)

    def _verdict(self, gate: Gate, steps: Sequence[str]) -> Verdict:
        try:
            if gate.metric is None:
                return with_consequence(gate, self._judge_examples(gate))
            metrics = self._runs.metrics(self._context.run.id)
            cells = steps if gate.aggregate is not None else ()
            found = judge_metric(gate, metrics, self._champion(gate), self._package(), cells)
            return with_consequence(gate, found)
        except (ReportError, BlobError) as error:
            return Verdict(gate.name, "errored", None, (str(error),))

    def _package(self) -> Digest | None:
        found = self._context.result("package").get("package") if self._context.pipeline.package else None
        return None if found is None else Digest(found)

    def _serving(self) -> Release | None:
        """The champion: what has the traffic of its environment."""
        environment = champion_environment(self._context.pipeline)
        if environment is None:
            return None
        return self._context.world.store.releases.serving(self._context.run.project, environment)

    def _champion(self, gate: Gate) -> Baseline | None:
        """The champion's value of a metric, from the run that built what now serves."""
        release = self._serving()
        if release is None:
            return None
        return Baseline(release.version, release.package, aggregated(gate, self._runs.metrics(release.run), ()))

    # --- evidence

    def _judge_examples(self, gate: Gate) -> Verdict:
        step = str(gate.evidence)
        files, collected = self._context.pipeline.steps[step].evidence, self._context.result(step).get("collected")
        if files is None or collected is None:
            return judge_examples(gate, None, None, None)
        evidence, package = self._read(step, files, Digest(collected)), self._package()
        if package is not None:
            self._remember(step, evidence, package, files, Digest(collected))
        met = self._context.world.store.evidence.met(self._context.run.project, step, evidence.test_set)
        budget = Budget(gate.confidence or CONFIDENCE, tuple(met))
        return judge_examples(gate, evidence, self._opponent(gate, step, evidence), package, budget)

    def _remember(
        self, step: str, evidence: Evidence, package: Digest, files: EvidenceFiles, collected: Digest
    ) -> None:
        """Keep what a package answered, for later runs to be compared with.

        The first answers stay while their bytes are there, so a rerun cannot choose among several; what an untrusted
        run or a dirty working tree measured is not kept at all.
        """
        context, store = self._context, self._context.world.store
        if context.scope or context.commit.dirty:
            return
        key = context.run.project, step, evidence.test_set, package
        found = store.evidence.find(*key)
        if found is None or not context.world.cache.has(Digest(found.collected)):
            with store.transaction():
                store.evidence.put(*key, run=context.run.id, files=files.model_dump(), collected=collected)

    def _opponent(self, gate: Gate, step: str, evidence: Evidence) -> Champion | None:
        """The champion with its evidence on this run's test set, from whichever run measured it."""
        release = self._serving() if gate.against is not None else None
        if release is None:
            return None
        lacking = "has no evidence of this step"
        for files, collected in self._measured(release, step, evidence.test_set):
            try:
                found = self._read(step, files, collected)
            except BlobError:
                lacking = "has evidence that is no longer in the cache"
            except ReportError as error:
                lacking = f"has evidence that cannot be read ({error})"
            else:
                if found.test_set == evidence.test_set:
                    return Champion(release.version, release.package, found)
                lacking = "has no evidence on this test set, but on another"
        return Champion(release.version, release.package, None, lacking)

    def _measured(self, release: Release, step: str, test_set: Digest) -> Iterator[tuple[EvidenceFiles, Digest]]:
        """Where the evidence of a release may be: what is known of this test set, then what its own run left."""
        known = self._context.world.store.evidence.find(release.project, step, test_set, release.package)
        if known is not None:
            yield EvidenceFiles.model_validate(known.files), Digest(known.collected)
        files = self._context.pipeline.steps[step].evidence
        for record in self._runs.steps(release.run):
            collected = (record.result or {}).get("collected") if record.name == step else None
            if files is not None and collected is not None:
                yield files, Digest(collected)

    def _read(self, step: str, files: EvidenceFiles, collected: Digest) -> Evidence:
        """The evidence in a tree of the cache. Raises BlobError, or ReportError for files that are no evidence."""
        scores = {g.score or "correct": None for g in self._context.pipeline.gates.values() if g.evidence == step}
        return read_tree(self._context.world.cache, files, collected, tuple(scores))


def read_tree(cache: Cache, files: EvidenceFiles, collected: Digest, scores: Sequence[str]) -> Evidence:
    """The evidence in a tree of the cache, to be scored in these ways. Raises BlobError or ReportError."""
    tree = cache.tree(collected)

    def content(path: str) -> bytes:
        entry = tree.entries.get(path)
        if not isinstance(entry, File):
            raise ReportError(f"{path} is not among the files that the step left")
        return cache.read(entry.digest)

    truth = None if files.truth is None else content(files.truth)
    return read_evidence(content(files.predictions), truth, files.predictions, files.truth, scores)
