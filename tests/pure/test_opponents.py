"""Opponents: an evidence step that needs the package is asked once more for every baseline that a gate names."""

import pytest

from penstock.matrices import expand
from penstock.opponents import opponents, with_opponents
from penstock.pipelines import Pipeline
from penstock.plans import StepKind, plan

EVALUATE = {"run": "ask", "needs": "package", "inputs": ["ask.py"], "evidence": "p.csv", "metrics": "m.json"}


def pipeline(gates: dict[str, object], **evaluate: object) -> Pipeline:
    steps = {"train": {"run": "train", "outputs": ["model/"]}, "evaluate": {**EVALUATE, **evaluate}}
    package = {"model": ["model/"], "serve": "serve"}
    return Pipeline.model_validate({"name": "x", "steps": steps, "package": package, "gates": gates})


def against(baseline: str, step: str = "evaluate") -> dict[str, object]:
    return {"evidence": step, "not_worse_than": baseline, "margin": 0.1}


def test_every_baseline_has_one() -> None:
    """One step for each step and baseline, however many gates name them, within a whole too; each with its replica."""
    gates = {
        "a": against("champion"),
        "b": against("champion"),
        "c": {"any_of": [against("branch:main"), {"metric": "evaluate.x", "at_least": 1}]},
    }
    found = opponents(pipeline(gates))
    assert {name: (one.step, one.baseline.name, one.serve) for name, one in found.items()} == {
        "evaluate.champion": ("evaluate", "champion", "serve.champion"),
        "evaluate.branch-main": ("evaluate", "branch:main", "serve.branch-main"),
    }


def test_only_evidence_of_the_package_has_one() -> None:
    """A bound, a metric, and a step that asks no package have none, and the pipeline stays as it is."""
    metric = {"metric": "evaluate.x", "not_worse_than": "champion", "margin": 0.1}
    without = pipeline({"a": {"evidence": "evaluate", "at_least": 1}, "b": metric})
    assert with_opponents(without) is without
    assert not opponents(pipeline({"a": against("champion")}, needs=()))


def test_an_opponent_leaves_evidence_alone() -> None:
    """It comes after the step that it repeats, has its command, inputs and retries, and only warns."""
    found = with_opponents(pipeline({"a": against("champion")}, retry=2))
    step = found.steps["evaluate.champion"]
    assert (step.run, step.inputs, step.evidence) == ("ask", ("ask.py",), found.steps["evaluate"].evidence)
    assert (step.metrics, step.outputs, step.report, step.benchmark, step.allow_failure) == (None,) * 4 + (True,)
    assert step.retry is not None
    assert with_opponents(found) is found


def test_the_plan_has_them() -> None:
    """An opponent needs the package and the step it repeats; it is a test, and what it asks is served."""
    planned = plan(with_opponents(pipeline({"a": against("champion")})))
    step = planned["evaluate.champion"]
    assert (step.kind, step.stage, {"package", "evaluate"} <= set(step.needs)) == (StepKind.STEP, "test", True)
    assert planned["serve.champion"].kind is StepKind.SERVE
    assert "evaluate.champion" not in planned.only("evaluate")


@pytest.mark.parametrize("cell", ["evaluate[seed=0]", "evaluate[seed=1]"])
def test_a_cell_keeps_its_values(cell: str) -> None:
    """The opponent of a cell is a cell too, of a family of its own, which no gate over cells takes for the step's."""
    found = with_opponents(expand(pipeline({"a": against("champion", cell)}, matrix={"seed": ["0", "1"]})))
    name = cell.replace("evaluate", "evaluate.champion")
    assert found.steps[name].family == "evaluate.champion"
    assert found.steps[name].cell == found.steps[cell].cell
