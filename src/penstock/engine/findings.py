"""Findings: what steps and the package left for gates on coverage, on benchmarks and on the model's files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import median

from penstock.artifacts import Digest, File
from penstock.cache.contract import BlobError
from penstock.coverages import Coverage, endings_of, parse_coverage
from penstock.engine.baselines import Reference, located
from penstock.engine.context import RunContext
from penstock.engine.inspecting import inspect_package
from penstock.engine.origins import hardware
from penstock.gates import Verdict
from penstock.measures import Rival, Timing, judge_benchmark, judge_change, judge_coverage, judge_model
from penstock.models import Model, model_from
from penstock.pipelines import Gate
from penstock.regressions import TestBaseline, judge_tests
from penstock.reports import Status, benchmark_rounds
from penstock.store.contract import TestRecord

_SINGLE = ("", ".median_ms", ".median")
"""What a benchmark without rounds is called among the metrics, beside its own name."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """The benchmarks of one side: rounds by name, and the step's metrics by name."""

    rounds: Mapping[str, list[float]]
    metrics: Mapping[str, float]


class Findings:
    """What one run's steps and package left, judged."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._world = context.world
        self._runs = context.world.store.runs

    # --- coverage

    def coverage(self, gate: Gate) -> Verdict:
        """The verdict on a step's coverage. Raises BlobError, ReportError or SourceError."""
        step = str(gate.coverage)
        file, collected = self._context.pipeline.steps[step].coverage, self._context.result(step).get("collected")
        data = None if file is None or collected is None else self._content(Digest(collected), file)
        found = None if data is None else parse_coverage(data, str(file))
        if gate.of == "all" or found is None:
            return judge_coverage(gate, found)
        return judge_change(gate, found, self._changed(found), self._context.files.tree.entries.keys())

    def _changed(self, coverage: Coverage) -> Mapping[str, Sequence[range]]:
        """The changed lines of all files with the ending of one that was measured."""
        endings = tuple(endings_of(coverage))
        wanted = lambda path: path.endswith(endings)  # noqa: E731 - used once, below
        there = located(self._world, self._context.run)
        return self._world.source.changed_lines(there, self._context.commit, wanted)

    def _content(self, collected: Digest, file: str) -> bytes | None:
        """A file among those that a step left; None where it is not there."""
        entry = self._world.cache.tree(collected).entries.get(file)
        return self._world.cache.read(entry.digest) if isinstance(entry, File) else None

    # --- benchmarks

    def benchmark(self, gate: Gate, baseline: Reference | None, lacking: str) -> Verdict:
        """The verdict on a benchmark against a baseline's. Raises BlobError or ReportError for the run's own file."""
        step, name = gate.step, str(gate.benchmark).removeprefix(f"{gate.step}.")
        mine = self._measured(step, self._context.run.id, self._context.result(step).get("collected"))
        if baseline is None:
            return judge_benchmark(gate, self._alone(mine, name), None, _absent(gate, mine, name), lacking)
        theirs, why = self._of_baseline(step, baseline)
        ours, other = _alike(mine, theirs, name)
        kept = {} if baseline.origin is None else baseline.origin.hardware
        there, here = self._machine(baseline.run, step, kept), self._machine(self._context.run.id, step, self._hardware)
        rival = Rival(baseline.words, _timing(other, there), why or "has no such benchmark", never=not why)
        timing, plain = _timing(ours, here), self._is_plain(gate)
        if timing is not None and not here:
            reason = f"it is not known on which hardware step {step} was measured: run it --no-cache"
            return Verdict(gate.name, "inconclusive", None, (reason,))
        return judge_benchmark(gate, timing, rival, _absent(gate, mine, name), plain=plain)

    def _is_plain(self, gate: Gate) -> bool:
        """Whether the file names no confidence for a gate, which may have got one as a part of others."""
        leaves = (leaf for whole in self._context.pipeline.gates.values() for leaf in whole.leaves)
        alike = (leaf for leaf in leaves if leaf.model_copy(update={"confidence": gate.confidence}) == gate)
        return any(leaf.confidence is None for leaf in alike)

    @property
    def _hardware(self) -> Mapping[str, object]:
        return hardware(self._world.capacity)

    def _machine(self, run: int, step: str, own: Mapping[str, object]) -> Mapping[str, object]:
        """The hardware that what a run has of a step was measured on, which is its own unless it was taken over.

        A run that did not pass kept none: it is believed to be that of who took it over, unless the last sound run
        before was on another; then it is empty.
        """
        measured = self._measurer(run, step)
        if measured == run:
            return own
        kept = self._world.store.baselines.origin(measured)
        if kept is not None:
            return kept.hardware
        before = self._world.store.baselines.sound(self._context.run.project, 1, below=measured)
        origin = self._world.store.baselines.origin(before[0].run) if before else None
        return own if origin is None or origin.hardware == own else {}

    def _measurer(self, run: int, step: str) -> int:
        """The run in which a step ran whose result a run has: the reason of a step that was taken over names it."""
        found = next((record for record in self._runs.steps(run) if record.name == step and record.cached), None)
        named = re.search(r" run (\d+)$", found.reason or "") if found is not None else None
        before = int(named[1]) if named is not None else run
        return self._measurer(before, step) if before < run else run

    def _alone(self, mine: _Measured, name: str) -> Timing | None:
        return _timing(_alike(mine, mine, name)[0], self._hardware)

    def _measured(self, step: str, run: int, collected: str | None) -> _Measured:
        """What a step of a run left: the rounds in its file, where that is as our step declares it, and its metrics."""
        file = self._context.pipeline.steps[step].benchmark
        data = None if file is None or collected is None else self._content(Digest(collected), file)
        before = f"{step}."
        metrics = {n.removeprefix(before): v for n, v in self._runs.metrics(run).items() if n.startswith(before)}
        return _Measured({} if data is None else benchmark_rounds(data, str(file)), metrics)

    def _of_baseline(self, step: str, baseline: Reference) -> tuple[_Measured, str]:
        """What a baseline's run left, or why that cannot be told, as a clause."""
        results = (record.result or {} for record in self._runs.steps(baseline.run) if record.name == step)
        try:
            return self._measured(step, baseline.run, next(results, {}).get("collected")), ""
        except BlobError:
            return _Measured({}, {}), "has benchmarks that are no longer in the cache"

    # --- tests

    def tests(self, gate: Gate, baseline: Reference | None, lacking: str) -> Verdict:
        """The verdict on a step's tests against a baseline's."""
        step, run = str(gate.tests), self._context.run.id
        mine = self._world.store.cases.of_step(run, step)
        if mine is None and self._context.result(step).get("observed") is not None:
            reason = f"the results of step {step} are from a run whose tests are not kept any more: run it --no-cache"
            return Verdict(gate.name, "errored", None, (reason,))
        theirs = None if baseline is None else self._world.store.cases.of_step(baseline.run, step)
        rival = (
            None if baseline is None else TestBaseline(baseline.words, _statuses(theirs), self._never(baseline, step))
        )
        quarantined = frozenset(test.full_name for test in mine or () if test.quarantined)
        return judge_tests(gate, _statuses(mine), rival, quarantined, lacking)

    def _never(self, baseline: Reference, step: str) -> bool:
        """Whether a baseline's run told of no tests of a step, as where the step or its report is new."""
        results = [record.result or {} for record in self._runs.steps(baseline.run) if record.name == step]
        return not any("observed" in result or "tests" in result for result in results)

    # --- the model

    def model(self, gate: Gate) -> Verdict:
        """The verdict on the files of the run's own package. Raises BlobError."""
        step = self._context.step("package")
        if not self._context.result("package").get("package"):
            reason = f"there is no package to look at: step package {step.status}"
            return Verdict(gate.name, "errored", None, (reason,))
        return judge_model(gate, self._model())

    def _model(self) -> Model:
        """What was seen of the model when the package was made, else by a look at its files."""
        digest, package = str(self._context.result("package")["package"]), self._context.pipeline.package
        run = self._context.run
        known = (p.lineage.get("model") for p in self._runs.packages(run.project, run.version) if p.digest == digest)
        seen = next((model for model in known if model), None)
        if seen is not None:
            return model_from(seen)
        tree = self._world.cache.tree(Digest(digest))
        patterns = (package.model or ()) if package is not None else ()
        return inspect_package(self._world.cache, tree, patterns, self._context.folder)


def _statuses(tests: Sequence[TestRecord] | None) -> dict[str, Status] | None:
    return None if tests is None else {test.full_name: test.status for test in tests}


def _alike(mine: _Measured, theirs: _Measured, name: str) -> tuple[list[float], list[float]]:
    """A benchmark of both sides in the same unit: its rounds where both have them, else the same single number."""
    if name in mine.rounds and name in theirs.rounds:
        return mine.rounds[name], theirs.rounds[name]
    for ending in _SINGLE:
        if name + ending in mine.metrics:
            other = theirs.metrics.get(name + ending)
            return [mine.metrics[name + ending]], [] if other is None else [other]
    return [], []


def _timing(numbers: list[float], there: Mapping[str, object]) -> Timing | None:
    if not numbers:
        return None
    return Timing(median(numbers), numbers if len(numbers) > 1 else (), there)


def _absent(gate: Gate, mine: _Measured, name: str) -> str:
    """That a step left no such benchmark, in a sentence with those it left."""
    known = sorted({*mine.rounds, *mine.metrics})
    near = get_close_matches(name, known, 1, 0.5)
    if not known:
        return f"there is no benchmark {gate.benchmark}: step {gate.step} left none"
    hint = f"did you mean {gate.step}.{near[0]}?" if near else f"there are {', '.join(known[:5])}"
    return f"there is no benchmark {gate.benchmark}: {hint}"
