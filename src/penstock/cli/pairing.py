"""Pairing: the evidence of two runs, read from the cache and held against each other, step by step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.artifacts import Digest, File
from penstock.errors import PenstockError, ReportError

if TYPE_CHECKING:
    from penstock.engine.world import World
    from penstock.evidence import Evidence
    from penstock.flips import Flips, Judged
    from penstock.parts import EvidenceFiles
    from penstock.store.contract import Run


@dataclass(frozen=True, slots=True)
class Paired:
    """What could be compared, a step and a score at a time, and sentences on what could not."""

    flips: tuple["Flips", ...] = ()
    notes: tuple[str, ...] = ()


def paired_runs(world: "World", a: "Run", b: "Run") -> Paired:
    """Hold the evidence of run `b` against that of run `a`, in every step that writes some."""
    found: list[Flips] = []
    notes: list[str] = []
    sides = [_Side.of(world, run) for run in (a, b)]
    for step in dict.fromkeys(name for side in reversed(sides) for name in side.files):
        try:
            found += _paired_step(step, sides[0], sides[1], notes)
        except PenstockError as error:
            notes.append(f"the evidence of {step} is not compared: {error}")
    return Paired(tuple(found), tuple(notes))


def _paired_step(step: str, a: "_Side", b: "_Side", notes: list[str]) -> "Iterator[Flips]":
    from penstock.flips import flips, guessed_score, slices_of

    judged = [side.judged(step) for side in (a, b)]
    hides = next((rule.enforced_by for rule in judged if rule.enforced_by), None)
    if hides is not None:
        raise ReportError(f"gate {hides} says reuse: enforce, which tells nothing of the test set but pass or fail")
    scores = judged[1].scores or judged[0].scores
    new = b.own(step, scores)
    old = _opponent(step, a, new, scores)
    columns, gaps = slices_of(new.evidence, new.files, (*judged[0].columns, *judged[1].columns))
    notes += gaps
    for score in scores or (guessed_score(new.evidence),):
        yield flips(step, new.evidence, old, score, columns)


def _opponent(step: str, side: "_Side", new: "_Answers", scores: Sequence[str]) -> "Evidence":
    """What the first run answered.

    Where its test set is another, or it answered less of it (a step in batches stops early), what its package answered
    elsewhere is taken if that is more.
    """
    asked = new.evidence
    try:
        own = side.own(step, scores).evidence
    except PenstockError:
        elsewhere = side.elsewhere(step, asked.test_set, scores)
        if elsewhere is None:
            raise
        return elsewhere
    is_same = own.test_set == asked.test_set
    if is_same and len(own) >= len(asked):
        return own
    elsewhere = side.elsewhere(step, asked.test_set, scores)
    return own if elsewhere is None or (is_same and len(elsewhere) <= len(own)) else elsewhere


@dataclass(frozen=True, slots=True)
class _Answers:
    """Evidence with the files that it was read from."""

    evidence: "Evidence"
    files: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two runs; `files` are the steps of its pipeline that write evidence."""

    world: "World"
    run: "Run"
    files: Mapping[str, "EvidenceFiles"]
    rules: Mapping[str, "Judged"]

    @classmethod
    def of(cls, world: "World", run: "Run") -> "_Side":
        from penstock.flips import judged
        from penstock.matrices import expand
        from penstock.pipelines import Pipeline

        pipeline = expand(Pipeline.model_validate(run.pipeline))
        files = {name: step.evidence for name, step in pipeline.steps.items() if step.evidence is not None}
        return cls(world, run, files, judged(pipeline.gates.values()))

    def judged(self, step: str) -> "Judged":
        from penstock.flips import Judged

        return self.rules.get(step) or self.rules.get(step.partition("[")[0]) or Judged()

    def own(self, step: str, scores: Sequence[str]) -> _Answers:
        """What the run itself left. Raises ReportError where there is none, BlobError where its bytes are gone."""
        if step not in self.files:
            raise ReportError(f"run {self.run.id} has no step {step} that writes evidence")
        record = self.world.store.runs.step(self.run.id, step)
        collected = (record.result or {}).get("collected")
        if collected is None:
            raise ReportError(f"step {step} of run {self.run.id} is {record.status} and left no evidence")
        return self._read(self.files[step], Digest(collected), scores)

    def elsewhere(self, step: str, test_set: Digest, scores: Sequence[str]) -> "Evidence | None":
        """What the run's package answered to a test set in whichever run, None where that is not known any more."""
        from penstock.engine.examples import files_of

        package = self.run.package
        found = package and self.world.store.evidence.find(self.run.project, step, test_set, package)
        if not found:
            return None
        try:
            return self._read(files_of(found), Digest(found.collected), scores).evidence
        except PenstockError:
            return None

    def _read(self, files: "EvidenceFiles", collected: Digest, scores: Sequence[str]) -> _Answers:
        from penstock.evidence import read_evidence

        tree = self.world.cache.tree(collected)

        def content(path: str) -> tuple[str, bytes]:
            entry = tree.entries.get(path)
            if not isinstance(entry, File):
                raise ReportError(f"{path} is not among the files that the step left")
            return path, self.world.cache.read(entry.digest)

        contents = [content(path) for path in (files.predictions, files.truth) if path is not None]
        truth = contents[1][1] if files.truth is not None else None
        evidence = read_evidence(contents[0][1], truth, files.predictions, files.truth, scores or ("correct",))
        return _Answers(evidence, tuple(contents))
