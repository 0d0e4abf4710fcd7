"""Gates: the run's metrics and evidence against the file's rules, with the baseline where a rule names one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from penstock.artifacts import Digest
from penstock.batches import judge_batches
from penstock.cache.contract import BlobError
from penstock.comparisons import CONFIDENCE, Champion, judge_examples
from penstock.engine.baselines import Baselines
from penstock.engine.context import RunContext
from penstock.engine.examples import Examples
from penstock.engine.findings import Findings
from penstock.engine.governing import fixed_baseline, metric_baseline
from penstock.engine.opponents import Opponents
from penstock.errors import ReportError, SourceError
from penstock.gates import Baseline, Verdict, judge_metric, with_consequence
from penstock.matrices import judged_steps
from penstock.parities import judge_parity
from penstock.pipelines import Gate
from penstock.reuse_budgets import Budget
from penstock.runs import ENDED_STEP, GREEN_STEP
from penstock.store.contract import StepRecord
from penstock.wholes import judge_whole

_UNCOUNTED = (
    "reuse: enforce counts what is decided on the test set, and neither a working tree nor an untrusted change is "
    "counted: nothing is told of it"
)


class Judge:
    """Judges the gates of one run, each as soon as its step has ended."""

    def __init__(self, context: RunContext, opponents: Opponents) -> None:
        self._context = context
        self._runs = context.world.store.runs
        self._opponents = opponents
        self._baselines = Baselines(context)
        self._examples = Examples(context, keeps=True)
        self._findings = Findings(context)
        self._subjects: Mapping[str, Callable[[Gate], Verdict]] = {
            "metric": self._judge_metric,
            "evidence": self._judge_examples,
            "tests": self._judge_tests,
            "coverage": self._findings.coverage,
            "benchmark": self._judge_benchmark,
            "model": self._findings.model,
            "all_of": lambda gate: judge_whole(gate, self._verdict),
            "any_of": lambda gate: judge_whole(gate, self._verdict),
        }
        self._waiting: list[Gate] = []
        self.reconsider()

    def reconsider(self) -> None:
        """Wait again for the gates that have no verdict: a step of theirs was opened again."""
        judged = {g.name for g in self._runs.gates(self._context.run.id) if g.verdict is not None}
        self._waiting = [g for g in self._context.pipeline.gates.values() if g.name not in judged]

    def judge(self) -> None:
        """Give a verdict on every gate that has none and whose step has ended, with evidence the package's too.

        A gate that compares evidence waits for the baseline's too, where that is asked in this run.
        """
        for gate in list(self._waiting):
            steps = [self._context.step(name) for name in judged_steps(self._context.pipeline, gate)]
            if all(step.status in ENDED_STEP for step in (*steps, *self._others_of(gate))):
                self._waiting.remove(gate)
                self._judge(gate, steps)
        self._examples.forget()

    def _others_of(self, gate: Gate) -> Iterator[StepRecord]:
        """The steps whose failure is not the gate's: what makes the package that it judges, what asks the baseline."""
        is_of_metrics = all(leaf.metric is not None for leaf in gate.leaves)
        if not is_of_metrics and "package" in self._context.records:
            yield self._context.step("package")
        for leaf in gate.leaves:
            opponent = self._opponent(leaf)
            if opponent is not None:
                yield self._context.step(opponent)

    def _opponent(self, gate: Gate) -> str | None:
        """The step that asks the baseline of a gate on evidence; None where the plan has none."""
        if gate.evidence is None or gate.baseline is None:
            return None
        return self._opponents.name_of(gate.evidence, gate.baseline)

    def _judge(self, gate: Gate, steps: Sequence[StepRecord]) -> None:
        found = Verdict(gate.name, "errored", None, ())
        red = next((s for s in steps if s.status not in GREEN_STEP and not s.cached), None)
        if red is None:
            found = self._verdict(gate)
        verdict = found.verdict if red is None else None
        reasons = found.reasons if red is None else (f"not judged: step {red.name} {red.status}",)
        with self._context.world.store.transaction():
            self._runs.judge(self._context.run.id, gate.name, verdict, found.value, reasons, found.chart)

    def _verdict(self, gate: Gate) -> Verdict:
        try:
            return with_consequence(gate, self._subjects[gate.subject](gate))
        except (ReportError, BlobError, SourceError) as error:
            return Verdict(gate.name, "errored", None, (str(error),))

    def _package(self) -> Digest | None:
        found = self._context.result("package").get("package") if self._context.pipeline.package else None
        return None if found is None else Digest(found)

    # --- subjects

    def _judge_metric(self, gate: Gate) -> Verdict:
        metrics = self._runs.metrics(self._context.run.id)
        cells = judged_steps(self._context.pipeline, gate) if gate.aggregate is not None else ()
        baseline = self._baseline(gate)
        return judge_metric(gate, metrics, baseline, self._package(), cells, self._lacking(gate, baseline))

    def _baseline(self, gate: Gate) -> Baseline | None:
        """The baseline's value of a metric, from the run that built it, or the number that the file fixes."""
        if gate.baseline is None:
            return None
        if gate.baseline.kind == "fixed":
            return fixed_baseline(self._context, gate, gate.baseline)
        found = self._opponents.reference(gate.baseline)
        return None if found is None else metric_baseline(self._context, gate, found)

    def _lacking(self, gate: Gate, baseline: object) -> str:
        """Why there is no baseline, as a clause; empty where there is one, or the gate names none."""
        return "" if baseline is not None or gate.baseline is None else self._baselines.lacking(gate.baseline)

    def _judge_tests(self, gate: Gate) -> Verdict:
        found = None if gate.baseline is None else self._opponents.reference(gate.baseline)
        return self._findings.tests(gate, found, self._lacking(gate, found))

    def _judge_benchmark(self, gate: Gate) -> Verdict:
        found = None if gate.baseline is None else self._opponents.reference(gate.baseline)
        return self._findings.benchmark(gate, found, self._lacking(gate, found))

    def _judge_examples(self, gate: Gate) -> Verdict:
        step = str(gate.evidence)
        if gate.same_as is not None:
            return judge_parity(gate, self._examples.answers(step), self._examples.answers(gate.same_as))
        evidence, package = self._examples.own(step, gate), self._package()
        if evidence is None:
            return judge_examples(gate, None, None, None)
        if gate.reuse == "enforce" and (self._context.scope or self._context.commit.dirty):
            return Verdict(gate.name, "inconclusive", None, (_UNCOUNTED,))
        if package is not None:
            self._examples.remember(step, evidence, package)
        budget = Budget(gate.confidence or CONFIDENCE, self._examples.met(step, evidence.test_set))
        opponent, drawn = self._compared_with(gate, step, evidence.test_set), self._examples.drawn(step)
        if drawn is not None:
            found = judge_batches(gate, evidence, drawn, opponent, package)
            counts = () if package is None else (budget.sentence(package),)
            return replace(found, reasons=(*found.reasons, *counts))
        return judge_examples(gate, evidence, opponent, package, budget, self._lacking(gate, opponent))

    def _compared_with(self, gate: Gate, step: str, test_set: Digest) -> Champion | None:
        """The baseline with its evidence; None where there is none yet, or the gate names none."""
        found = None if gate.baseline is None else self._opponents.reference(gate.baseline)
        if found is None:
            return None
        asked = self._opponent(gate)
        if asked is None:
            return self._examples.opponent(found, step, test_set, gate=gate)
        if found.package is not None:
            self._examples.remember_opponent(asked, step, Digest(found.package), gate)
        return self._examples.opponent(found, step, test_set, asked, gate, self._examples.way(step))
