"""Opponents: an evidence step asked once more, of the package that a gate compares with.

`evaluate` compared with `champion` gives the step `evaluate.champion`: the same command, inputs and runtime, only the
package is the champion's. It runs where the champion has no evidence on the test set. A step that does not need the
package has no opponent: its answers are not a package's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.pipelines import BaselineName, Pipeline, Step
from penstock.values import family_of

SERVE = "serve"


@dataclass(frozen=True, slots=True)
class Opponent:
    """A step that asks a baseline's package what `step` asks this run's; `serve` is the step that serves it."""

    name: str
    step: str
    baseline: BaselineName
    serve: str


def opponents(pipeline: Pipeline) -> Mapping[str, Opponent]:
    """The opponents of an expanded pipeline, by their names, which have a dot as no name of the file has."""
    found: dict[str, Opponent] = {}
    for gate in pipeline.gates.values():
        for leaf in gate.leaves:
            step = pipeline.steps.get(leaf.evidence or "")
            if step is None or leaf.baseline is None or "package" not in step.needs:
                continue
            opponent = _opponent(step, leaf.baseline)
            found[opponent.name] = opponent
    return found


def _opponent(step: Step, baseline: BaselineName) -> Opponent:
    word = baseline.name.replace(":", "-")
    family = family_of(step.name)
    cell = step.name.removeprefix(family)
    return Opponent(f"{family}.{word}{cell}", step.name, baseline, f"{SERVE}.{word}")


def with_opponents(pipeline: Pipeline) -> Pipeline:
    """An expanded pipeline with the opponents among its steps; as it is where there are none, or they are there.

    An opponent leaves evidence and nothing else, and only warns where it cannot be asked: that is no fault of the
    commit's. It comes after the step that it repeats, whose test set it needs to know; before it where that is asked
    in batches, whose test set is among the inputs and whose end depends on what the baseline answers.
    """
    found = {name: one for name, one in opponents(pipeline).items() if name not in pipeline.steps}
    if not found:
        return pipeline
    steps = dict(pipeline.steps)
    for name, opponent in found.items():
        asked = pipeline.steps[opponent.step]
        in_batches = asked.evidence is not None and asked.evidence.batch is not None
        if in_batches:
            steps[asked.name] = steps[asked.name].model_copy(update={"needs": (*steps[asked.name].needs, name)})
        change = {
            "name": name,
            "needs": asked.needs if in_batches else (*asked.needs, asked.name),
            "outputs": None,
            "metrics": None,
            "report": None,
            "benchmark": None,
            "coverage": None,
            "allow_failure": True,
        }
        steps[name] = asked.model_copy(update=change)
    return pipeline.model_copy(update={"steps": steps})
