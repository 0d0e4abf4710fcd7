"""Evidence steps that are asked in batches: which examples come next, what was answered so far, and when to stop.

Each batch is an attempt of its own. What a batch left is kept in the step's result before the next one begins, so that
a death in between costs one batch at most.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock.artifacts import Digest, File, Tree, digest_of
from penstock.batches import Drawn, decided, drawn, joined, unanswered
from penstock.cache.contract import BlobError
from penstock.comparisons import Champion
from penstock.engine.concluding import Conclusion
from penstock.engine.context import RunContext
from penstock.engine.contracts import Mount, ProcessSpec
from penstock.engine.examples import Examples
from penstock.engine.opponents import Opponents
from penstock.errors import PenstockError, ReportError
from penstock.evidence import read_evidence, read_truth
from penstock.pipelines import Gate, Step

VARIABLE = "PENSTOCK_BATCH"

Rivals = Sequence[tuple[Gate, Champion | None]]
"""The gates on a step, each with what it compares with."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a step in batches may ask, and the trees that earlier batches of this run left."""

    drawn: Drawn
    before: tuple[Digest, ...]

    @property
    def count(self) -> int:
        """How many examples were asked before."""
        return min(len(self.before) * self.drawn.batch, len(self.drawn.ids))


class Batches:
    """The steps of one run that are asked in batches."""

    def __init__(self, context: RunContext, opponents: Opponents, examples: Examples) -> None:
        self._context = context
        self._cache = context.world.cache
        self._opponents = opponents
        self._examples = examples
        self._drawn: dict[tuple[Digest, int, int | None], Drawn] = {}
        self._rivals: dict[tuple[str, str, str | None], Champion] = {}

    def has(self, step: Step) -> bool:
        """Whether a step is asked in batches."""
        return step.evidence is not None and step.evidence.batch is not None

    def drawn(self, step: Step, inputs: Tree) -> Drawn:
        """The examples that a step may ask, by the truth among its inputs. Raises ReportError, BlobError."""
        files = step.evidence
        if files is None or files.batch is None or files.truth is None:
            raise AssertionError(f"step {step.name} is not asked in batches")
        entry = inputs.entries.get(files.truth)
        if not isinstance(entry, File):
            raise ReportError(f"{files.truth} is not among the inputs of step {step.name}, so no batch can be drawn")
        key = entry.digest, files.batch, files.at_most
        if key not in self._drawn:
            is_ours = self._context.files.tree.entries.get(files.truth) == entry
            data = self._context.read(entry.digest) if is_ours else self._cache.read(entry.digest)
            self._drawn[key] = drawn(read_truth(data, files.truth), files.batch, files.at_most)
        return self._drawn[key]

    def wanted(self, step: Step, inputs: Tree) -> tuple[str, ...]:
        """The ids of a step's next batch; an opponent is asked all that its step may ask, at once."""
        asked = self._asked(step, inputs)
        return asked.drawn.ids if step.name in self._opponents else asked.drawn.batches(asked.count)

    def _asked(self, step: Step, inputs: Tree) -> Asked:
        """What may be asked, and was: batches of another key, as of another package, are none of ours."""
        result, key = self._context.result(step.name), self._context.step(step.name).key
        found = result.get("batches", ()) if result.get("of") == key else ()
        return Asked(self.drawn(step, inputs), tuple(map(Digest, found)))

    def kept(self, step: Step, batches: Sequence[Digest]) -> dict[str, Any]:
        """What is kept with a step that goes on."""
        return {"batches": list(batches), "of": self._context.step(step.name).key}

    def asking(self, step: Step, spec: ProcessSpec, inputs: Tree) -> ProcessSpec:
        """The process of a batch, told by a file beside its workspace which ids are asked, one in a line."""
        path = spec.workspace.with_name(f"{spec.workspace.name}.batch")
        lines = [f"{one}\n" for one in self.wanted(step, inputs)]
        path.write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
        mounts = spec.mounts if spec.image is None else (*spec.mounts, Mount(path, read_only=True))
        return replace(spec, variables={**spec.variables, VARIABLE: str(path)}, mounts=mounts)

    def stakes(self, step: Step) -> Digest:
        """What a result in batches depends on beside the inputs: the rules that stop it, and who is compared with."""
        leaves = [] if step.name in self._opponents else self._leaves(step)
        against = [None if g.baseline is None else self._opponents.reference(g.baseline) for g in leaves]
        return digest_of(
            "stakes", [[g.model_dump(mode="json") for g in leaves], [None if r is None else r.package for r in against]]
        )

    def _leaves(self, step: Step) -> Sequence[Gate]:
        gates = self._context.pipeline.gates.values()
        return [leaf for gate in gates for leaf in gate.leaves if leaf.evidence == step.name]

    # --- after a batch

    async def conclude(
        self, step: Step, found: Conclusion, inputs: Tree
    ) -> tuple[Conclusion, tuple[Digest, ...] | None]:
        """What a green attempt means: the step's end with all its answers, or the batches so far where it goes on.

        Where the cache lost those of before it goes on from the first. A batch that was not answered leaves nothing to
        be judged.
        """
        try:
            asked = self._asked(step, inputs)
            new = (*asked.before, Digest(str(found.collected.values["collected"])))
            rivals = [
                (leaf, self._champion(leaf, asked.drawn, self._examples.way(step.name))) for leaf in self._leaves(step)
            ]
            reason, whole = await asyncio.to_thread(self._looked_at, step, asked, new, rivals)
        except BlobError as error:
            if not self._context.result(step.name).get("batches"):
                return Conclusion("error", str(error)), None
            return found, ()
        except PenstockError as error:
            return Conclusion("fail", str(error)), None
        if reason is None:
            return found, new
        values: dict[str, Any] = {**found.collected.values, "collected": self._cache.add_tree(whole)}
        return replace(found, reason=reason, collected=replace(found.collected, values=values)), None

    def _looked_at(
        self, step: Step, asked: Asked, batches: Sequence[Digest], rivals: Rivals
    ) -> tuple[str | None, Tree]:
        """Why the step may end, see `_verdict`, and its answers so far. For a thread of its own."""
        whole = self._joined(step, batches)
        return self._verdict(step, asked, batches, whole, rivals), whole

    def _joined(self, step: Step, batches: Sequence[Digest]) -> Tree:
        """The files of all batches as those of one."""
        if step.evidence is None:
            raise AssertionError("evidence in batches has files")
        path, trees = step.evidence.predictions, [self._cache.tree(digest) for digest in batches]
        entries = [tree.entries[path] for tree in trees]
        data = joined([self._cache.read(entry.digest) for entry in entries if isinstance(entry, File)], path)
        return Tree({**trees[-1].entries, path: File(self._cache.add_bytes(data), len(data))})

    def _verdict(self, step: Step, asked: Asked, batches: Sequence[Digest], whole: Tree, rivals: Rivals) -> str | None:
        """Why the step may end, in words; None where it has to go on. Raises ReportError for an id left unanswered."""
        files = step.evidence
        if files is None or files.truth is None:
            raise AssertionError("evidence in batches has a truth")

        def content(path: str) -> bytes:
            entry = whole.entries[path]
            return self._cache.read(entry.digest) if isinstance(entry, File) else b""

        evidence = read_evidence(content(files.predictions), content(files.truth), files.predictions, files.truth)
        is_opponent = step.name in self._opponents
        count = len(asked.drawn.ids) if is_opponent else min(len(batches) * asked.drawn.batch, len(asked.drawn.ids))
        lacking = unanswered(evidence, asked.drawn.ids[:count])
        if lacking:
            what = f"left {len(lacking):,} of the examples that it was asked without a prediction"
            raise ReportError(f'{what}, such as "{lacking[0]}": predict every id in the file that ${VARIABLE} names')
        if is_opponent:
            return f"answered {count:,} examples, for all runs that compare with it"
        package = self._opponents.own_package
        stands = all(decided(leaf, evidence, asked.drawn, rival, package) for leaf, rival in rivals)
        if count == len(asked.drawn.ids):
            return f"asked {count:,} examples"
        spared = len(asked.drawn.ids) - count
        return f"every verdict stands after {count:,} examples: {spared:,} were spared" if stands else None

    def _champion(self, gate: Gate, asked: Drawn, way: str | None) -> Champion | None:
        """What a gate compares with; read once, for its answers are all there before the first batch is asked."""
        found = None if gate.baseline is None else self._opponents.reference(gate.baseline)
        if found is None or gate.baseline is None:
            return None
        step = str(gate.evidence)
        key = step, gate.baseline.name, way
        if key not in self._rivals:
            opponent = self._opponents.name_of(step, gate.baseline)
            self._rivals[key] = self._examples.opponent(found, step, asked.test_set, opponent, None, opponent and way)
        return self._rivals[key]
