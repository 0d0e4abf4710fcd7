"""What a step leaves behind: outputs into the cache, metrics, reports and evidence read from its workspace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest, File, Tree
from penstock.cache.contract import BlobError, Cache
from penstock.coverages import parse_coverage
from penstock.engine.hearing import hear
from penstock.pipelines import Step
from penstock.quarantines import Weighed, full_name, stops_early, weigh
from penstock.reports import TestReport, parse_benchmark, parse_junit, parse_metrics


@dataclass(frozen=True, slots=True)
class Collected:
    """What was found. `failure` says what the step promised and did not leave, or which tests failed, in words.

    `told` is what it told of its tests, None where it told nothing.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    told: "Told | None" = None


@dataclass(frozen=True, slots=True)
class Told:
    """The tests of a step and which of their failures count; `whole` says that they are all that may have failed."""

    report: TestReport
    weighed: Weighed
    whole: bool

    @property
    def is_forgiven(self) -> bool:
        """Whether a red exit code means nothing but failures in quarantine."""
        return self.whole and not self.weighed.counted and bool(self.weighed.forgiven)

    @property
    def quarantined(self) -> list[str]:
        """The full names of the tests that failed in quarantine."""
        return sorted({full_name(case.suite, case.name) for case, _ in self.weighed.forgiven})

    @property
    def values(self) -> dict[str, Any]:
        """What stands of them in the step's result."""
        return {"tests": counts_of(self.report), **({"quarantined": self.quarantined} if self.quarantined else {})}


def declared_files(step: Step) -> tuple[str, ...]:
    """The files that are collected from a step beside its outputs."""
    evidence = step.evidence
    named = (
        step.metrics,
        step.report,
        step.benchmark,
        step.coverage,
        evidence.predictions if evidence else None,
        evidence.truth if evidence else None,
    )
    return tuple(path for path in named if path is not None)


def collect(step: Step, workspace: Path, cache: Cache, today: str) -> Collected:
    """Take a green step's outputs and files; `today` is the day in UTC. Raises ReportError for what cannot be read.

    A failed test of a declared report is a failure; what pytest told without one only tells.
    """
    outputs = cache.capture(workspace, step.outputs or ())
    files = cache.capture(workspace, declared_files(step))
    missing = (*outputs.missing, *files.missing)
    if missing:
        return Collected(failure=f"ended well but did not write {' and '.join(missing)}, which it declares")
    values: dict[str, Any] = {
        "outputs": cache.add_tree(outputs.tree) if step.outputs else None,
        "collected": cache.add_tree(files.tree) if files.tree else None,
        "metrics": {f"{step.name}.{k}": v for k, v in _numbers(step, files.tree, cache).items()},
    }
    told = tests_of(step, workspace, files.tree, cache, today)
    if told is None:
        return Collected(values)
    failure = told.weighed.failure if step.report is not None else None
    return Collected({**values, **told.values}, failure, told)


def tests_of(step: Step, workspace: Path, files: Tree, cache: Cache, today: str) -> Told | None:
    """What a step told of its tests, by its report or by the plugin for pytest; None where it told nothing."""
    if step.report is not None:
        if step.report not in files:
            return None
        report = parse_junit(_content(files, step.report, cache), step.report)
        return Told(report, weigh(report, step.quarantine, today), whole=not stops_early(step.run))
    heard = hear(workspace) if step.runs_pytest else None
    if heard is None:
        return None
    return Told(heard.report, weigh(heard.report, step.quarantine, today), heard.whole)


def _numbers(step: Step, files: Tree, cache: Cache) -> dict[str, float]:
    found: dict[str, float] = {}
    if step.metrics is not None:
        found.update(parse_metrics(_content(files, step.metrics, cache), step.metrics))
    if step.benchmark is not None:
        found.update(parse_benchmark(_content(files, step.benchmark, cache), step.benchmark))
    if step.coverage is not None:
        coverage = parse_coverage(_content(files, step.coverage, cache), step.coverage)
        rates = {"coverage": coverage.rate, "branch_coverage": coverage.branch_rate}
        found.update({name: rate for name, rate in rates.items() if rate is not None})
    return found


def _content(files: Tree, path: str, cache: Cache) -> bytes:
    entry = files.entries[path]
    return cache.read(entry.digest) if isinstance(entry, File) else b""


def red_report(step: Step, workspace: Path, cache: Cache, today: str) -> Collected:
    """The tests and the coverage of a step that failed, where it still left them; empty where it did not."""
    files = cache.capture(workspace, [path for path in (step.report, step.coverage) if path is not None]).tree
    told = tests_of(step, workspace, files, cache, today)
    values = _covered(step, files, cache)
    return Collected(values) if told is None else Collected({**values, **told.values}, told.weighed.failure, told)


def _covered(step: Step, files: Tree, cache: Cache) -> dict[str, Any]:
    """The coverage that a step left among these files, as a result has it."""
    entry = files.entries.get(step.coverage or "")
    if step.coverage is None or not isinstance(entry, File):
        return {}
    only = step.model_copy(update={"metrics": None, "benchmark": None})
    rates = {f"{step.name}.{name}": rate for name, rate in _numbers(only, files, cache).items()}
    return {"collected": cache.add_tree(Tree({step.coverage: entry})), "metrics": rates}


def counts_of(report: TestReport) -> dict[str, int]:
    return {
        "passed": report.passed,
        "failed": report.failed,
        "errored": report.errored,
        "skipped": report.skipped,
    }


def is_whole(result: Mapping[str, Any], cache: Cache) -> bool:
    """Whether all bytes of a stored result are still in the cache."""
    try:
        trees = [cache.tree(Digest(d)) for d in _trees(result)]
    except BlobError:
        return False
    return all(cache.has(digest) for tree in trees for digest in tree.digests())


def _trees(result: Mapping[str, Any]) -> Iterable[str]:
    return (result[name] for name in ("outputs", "collected") if result.get(name))
