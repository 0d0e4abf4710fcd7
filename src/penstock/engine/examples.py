"""Examples: what the steps of a run, and the packages of other runs, answered on test sets."""

from collections.abc import Iterator

from penstock.artifacts import Digest, File
from penstock.batches import Drawn, drawn
from penstock.cache.contract import BlobError
from penstock.columns import Columns
from penstock.comparisons import Champion
from penstock.engine.baselines import Reference
from penstock.engine.context import RunContext
from penstock.engine.readings import Readings, Wanted
from penstock.errors import ReportError
from penstock.evidence import Evidence, read_truth
from penstock.parts import EvidenceFiles
from penstock.pipelines import Gate
from penstock.plans import way_of
from penstock.runs import StepStatus
from penstock.store.contract import EvidenceRecord

_WAY = "way"
"""Beside the names of an evidence's files: how it was asked."""


def files_of(record: EvidenceRecord) -> EvidenceFiles:
    """The files of evidence that is kept, by their roles."""
    return EvidenceFiles.model_validate({name: path for name, path in record.files.items() if name != _WAY})


class Examples:
    """The evidence of one run's steps, and of the packages that they are compared with.

    Where it `keeps`, each file is read once until `forget` is called.
    """

    def __init__(self, context: RunContext, *, keeps: bool = False) -> None:
        self._context = context
        self._store = context.world.store
        self._readings = Readings(context.world.cache, keeps=keeps)

    def forget(self) -> None:
        """Keep nothing of what was read."""
        self._readings.forget()

    def own(self, step: str, gate: Gate | None = None) -> Evidence | None:
        """What a step of this run left, to be judged by a gate or by any; None where it left none.

        Raises BlobError or ReportError.
        """
        found = self._left(step)
        return None if found is None else self._read(step, *found, gate)

    def answers(self, step: str) -> Columns | None:
        """The predictions that a step of this run left, without truth. Raises BlobError or ReportError."""
        found = self._left(step)
        return None if found is None else self._readings.answers(*found)

    def _left(self, step: str) -> tuple[EvidenceFiles, Digest] | None:
        files, collected = self._context.pipeline.steps[step].evidence, self._context.result(step).get("collected")
        return None if files is None or collected is None else (files, Digest(collected))

    def drawn(self, step: str) -> Drawn | None:
        """What a step of this run was asked in batches; None for one that answers at once, or left nothing."""
        files, collected = self._context.pipeline.steps[step].evidence, self._context.result(step).get("collected")
        if files is None or files.batch is None or files.truth is None or collected is None:
            return None
        entry = self._context.world.cache.tree(Digest(collected)).entries[files.truth]
        data = self._context.world.cache.read(entry.digest) if isinstance(entry, File) else b""
        return drawn(read_truth(data, files.truth), files.batch, files.at_most)

    def remember(self, step: str, evidence: Evidence, package: Digest) -> None:
        """Keep what a package answered, for later runs to be compared with.

        The first answers stay while their bytes are there, so a rerun cannot choose among several; what an untrusted
        run or a dirty working tree measured is not kept at all.
        """
        context = self._context
        files, collected = context.pipeline.steps[step].evidence, context.result(step)["collected"]
        if context.scope or context.commit.dirty or files is None:
            return
        key = context.run.project, step, evidence.test_set, package
        found, way = self._store.evidence.find(*key), self.way(step)
        is_kept = found is not None and context.world.cache.has(Digest(found.collected))
        is_kept = is_kept and found is not None and found.files.get(_WAY) == way
        with self._store.transaction():
            if not is_kept:
                named = {**files.model_dump(), _WAY: way}
                self._store.evidence.put(*key, run=context.run.id, files=named, collected=collected)
            if found is None or not found.number:
                self._store.evidence.count(*key)

    def remember_opponent(self, opponent: str, step: str, package: Digest, gate: Gate | None = None) -> None:
        """Keep what a baseline's package answered when an opponent of this run asked it.

        It was asked because what it had answered before was not enough, or asked in another way.
        """
        context = self._context
        files, collected = context.pipeline.steps[step].evidence, self._answered(opponent, package)
        if context.scope or context.commit.dirty or files is None or collected is None:
            return
        evidence = self._read(step, files, collected, gate, with_slices=False)
        key = context.run.project, step, evidence.test_set, package
        known, named = self._store.evidence.find(*key), {**files.model_dump(), _WAY: self.way(opponent)}
        if known is None or known.collected != collected or known.files != named:
            with self._store.transaction():
                self._store.evidence.put(*key, run=context.run.id, files=named, collected=collected)

    def _answered(self, opponent: str | None, package: str | None) -> Digest | None:
        """What an opponent of this run left, where it is this package that it asked, and with success."""
        record = None if opponent is None else self._context.step(opponent)
        if record is None or (record.status is not StepStatus.PASSED and not record.cached):
            return None
        collected = (record.result or {}).get("collected")
        is_its = (record.ingredients or {}).get("package") == package
        return Digest(collected) if is_its and collected is not None else None

    def way(self, step: str) -> str | None:
        """How a step of this run asks, see `plans.way_of`; None where that is not known."""
        ingredients = self._context.step(step).ingredients
        return None if ingredients is None else way_of(ingredients)

    def met(self, step: str, test_set: str) -> tuple[str, ...]:
        """The packages that met a test set in a step, in the order in which they did."""
        return tuple(self._store.evidence.met(self._context.run.project, step, test_set))

    def opponent(
        self,
        reference: Reference,
        step: str,
        test_set: Digest,
        asked: str | None = None,
        gate: Gate | None = None,
        way: str | None = None,
    ) -> Champion:
        """A baseline with its evidence on a test set, from whichever run measured it.

        `asked` is the step of this run that asked it anew, where the plan has one. `way` is how this run asks: what
        was answered in another way is no evidence. None where nobody can be asked anew, so that any way will do.
        """
        lacking = "has no evidence of this step, asked in this way"
        for files, collected in self._measured(reference, step, test_set, asked, way):
            try:
                found = self._read(step, files, collected, gate, with_slices=False)
            except BlobError:
                lacking = "has evidence that is no longer in the cache"
            except ReportError as error:
                lacking = f"has evidence that cannot be read ({error})"
            else:
                if found.test_set == test_set:
                    return Champion(reference.version, str(reference.package), found, words=reference.words)
                lacking = "has no evidence on this test set, but on another"
        why = self._why_not(asked) or lacking
        return Champion(reference.version, str(reference.package), None, why, reference.words)

    def _why_not(self, asked: str | None) -> str | None:
        """Why a baseline that should have been asked has no evidence, as a clause."""
        record = None if asked is None else self._context.step(asked)
        if record is None or record.status is StepStatus.PASSED or record.cached:
            return None
        return f"could not be asked ({record.name}: {record.reason or record.status})"

    def _measured(
        self, reference: Reference, step: str, test_set: Digest, asked: str | None, way: str | None
    ) -> Iterator[tuple[EvidenceFiles, Digest]]:
        """Where the evidence of a baseline may be: what this run asked, what is known, then what its own run left.

        This run asks only where nothing that is known will do, so a rerun cannot choose among several answers.
        """
        files = self._context.pipeline.steps[step].evidence
        new = self._answered(asked, reference.package)
        if files is not None and new is not None:
            yield files, new
        project = self._context.run.project
        known = None
        if reference.package is not None:
            known = self._store.evidence.find(project, step, test_set, reference.package)
        if known is not None and way in {None, known.files.get(_WAY)}:
            yield files_of(known), Digest(known.collected)
        for record in self._store.runs.steps(reference.run):
            collected = (record.result or {}).get("collected") if record.name == step else None
            is_green = record.status is StepStatus.PASSED or record.cached
            own_way = None if record.ingredients is None else way_of(record.ingredients)
            if files is not None and collected is not None and is_green and way in {None, own_way}:
                yield files, Digest(collected)

    def _read(
        self, step: str, files: EvidenceFiles, collected: Digest, gate: Gate | None, *, with_slices: bool = True
    ) -> Evidence:
        """The evidence in a tree of the cache, for all gates on the step, or for one where it is not fit for all.

        Slices are those of this run's examples, a baseline is read without. Raises BlobError, or ReportError for files
        that are no evidence.
        """
        leaves = [leaf for one in self._context.pipeline.gates.values() for leaf in one.leaves]
        wanted = Wanted.of(leaf for leaf in leaves if leaf.evidence == step)
        try:
            return self._readings.evidence(files, collected, wanted if with_slices else wanted.whole)
        except ReportError:
            alone = wanted if gate is None else Wanted.of([gate])
            if alone == wanted:
                raise
        return self._readings.evidence(files, collected, alone if with_slices else alone.whole)
