"""Gates: the run's metrics and evidence against the file's rules, with the champion where a rule names it."""

from collections.abc import Sequence

from penstock.artifacts import Digest, File
from penstock.engine.context import RunContext
from penstock.errors import ReportError
from penstock.evidence import Evidence, read_evidence
from penstock.gates import Baseline, Verdict, aggregated, judge_evidence, judge_metric
from penstock.matrices import judged_steps
from penstock.pipelines import Gate, Pipeline
from penstock.runs import ENDED_STEP, GREEN_STEP
from penstock.store.contract import StepRecord


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
        """Give a verdict on every gate that has none and whose step has ended."""
        for gate in list(self._waiting):
            steps = [self._context.step(name) for name in judged_steps(self._context.pipeline, gate)]
            if all(step.status in ENDED_STEP for step in steps):
                self._waiting.remove(gate)
                self._judge(gate, steps)

    def _judge(self, gate: Gate, steps: Sequence[StepRecord]) -> None:
        verdict, value = None, None
        red = next((s for s in steps if s.status not in GREEN_STEP and not s.cached), None)
        reasons: tuple[str, ...] = (f"not judged: step {red.name} {red.status}",) if red else ()
        if red is None:
            found = self._verdict(gate, tuple(s.name for s in steps))
            verdict, value, reasons = found.verdict, found.value, found.reasons
        with self._context.world.store.transaction():
            self._runs.judge(self._context.run.id, gate.name, verdict, value, reasons)

    def _verdict(self, gate: Gate, steps: Sequence[str]) -> Verdict:
        try:
            if gate.metric is not None:
                metrics = self._runs.metrics(self._context.run.id)
                cells = steps if gate.aggregate is not None else ()
                return judge_metric(gate, metrics, self._champion(gate), self._package(), cells)
            return judge_evidence(gate, self._evidence(str(gate.evidence)))
        except ReportError as error:
            return Verdict(gate.name, "errored", None, (str(error),))

    def _package(self) -> Digest | None:
        found = self._context.result("package").get("package") if self._context.pipeline.package else None
        return None if found is None else Digest(found)

    def _champion(self, gate: Gate) -> Baseline | None:
        """The champion's value of a metric, from the run that built what now serves."""
        environment = champion_environment(self._context.pipeline)
        if environment is None:
            return None
        release = self._context.world.store.releases.serving(self._context.run.project, environment)
        if release is None:
            return None
        return Baseline(release.version, release.package, aggregated(gate, self._runs.metrics(release.run), ()))

    def _evidence(self, step: str) -> Evidence | None:
        files = self._context.pipeline.steps[step].evidence
        collected = self._context.result(step).get("collected")
        if files is None or collected is None:
            return None
        tree, cache = self._context.world.cache.tree(Digest(collected)), self._context.world.cache

        def content(path: str) -> bytes:
            entry = tree.entries[path]
            return cache.read(entry.digest) if isinstance(entry, File) else b""

        truth = None if files.truth is None else content(files.truth)
        return read_evidence(content(files.predictions), truth, files.predictions, files.truth)
