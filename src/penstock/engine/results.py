"""What a step leaves behind: outputs into the cache, metrics, reports and evidence read from its workspace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest, File, Tree
from penstock.cache.contract import BlobError, Cache
from penstock.pipelines import Step
from penstock.reports import TestReport, parse_benchmark, parse_junit, parse_metrics


@dataclass(frozen=True, slots=True)
class Collected:
    """What was found. `failure` says what the step promised and did not leave, in words."""

    values: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None


def declared_files(step: Step) -> tuple[str, ...]:
    """The files that are collected from a step beside its outputs."""
    evidence = step.evidence
    named = (
        step.metrics,
        step.report,
        step.benchmark,
        evidence.predictions if evidence else None,
        evidence.truth if evidence else None,
    )
    return tuple(path for path in named if path is not None)


def collect(step: Step, workspace: Path, cache: Cache) -> Collected:
    """Take a green step's outputs and files. Raises ReportError for a file that cannot be read."""
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
    failure = None
    if step.report is not None:
        report = parse_junit(_content(files.tree, step.report, cache), step.report)
        values["tests"] = test_counts(report)
        failure = failed_tests(report)
    return Collected(values, failure)


def _numbers(step: Step, files: Tree, cache: Cache) -> dict[str, float]:
    found: dict[str, float] = {}
    if step.metrics is not None:
        found.update(parse_metrics(_content(files, step.metrics, cache), step.metrics))
    if step.benchmark is not None:
        found.update(parse_benchmark(_content(files, step.benchmark, cache), step.benchmark))
    return found


def _content(files: Tree, path: str, cache: Cache) -> bytes:
    entry = files.entries[path]
    return cache.read(entry.digest) if isinstance(entry, File) else b""


def red_report(step: Step, workspace: Path, cache: Cache) -> Mapping[str, Any]:
    """The tests of a step that failed, where it still wrote its report; empty where it did not."""
    if step.report is None:
        return {}
    files = cache.capture(workspace, (step.report,)).tree
    if step.report not in files:
        return {}
    report = parse_junit(_content(files, step.report, cache), step.report)
    return {"tests": test_counts(report), "failed_tests": failed_tests(report)}


def test_counts(report: TestReport) -> dict[str, int]:
    return {
        "passed": report.passed,
        "failed": report.failed,
        "errored": report.errored,
        "skipped": report.skipped,
    }


def failed_tests(report: TestReport) -> str | None:
    """Which tests failed, in words, or None where none did."""
    names = [case.name for case in report.cases if case.status in {"failed", "errored"}]
    if not names:
        return None
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{len(names)} of {len(report.cases)} tests failed: {shown}"


def is_whole(result: Mapping[str, Any], cache: Cache) -> bool:
    """Whether all bytes of a stored result are still in the cache."""
    try:
        trees = [cache.tree(Digest(d)) for d in _trees(result)]
    except BlobError:
        return False
    return all(cache.has(digest) for tree in trees for digest in tree.digests())


def _trees(result: Mapping[str, Any]) -> Iterable[str]:
    return (result[name] for name in ("outputs", "collected") if result.get(name))
