"""A step with a matrix and its cells."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.flaws import flaws
from penstock.matrices import MAX_CELLS, cell_names, cells, expand, filled, judged_steps, size
from penstock.parts import Matrix
from penstock.pipelines import Pipeline, needs, order, stages
from penstock.plans import plan
from penstock.values import cell_name, family_of


def pipeline(steps: dict[str, Any], **rest: Any) -> Pipeline:
    return Pipeline.model_validate({"name": "digits", "steps": steps, **rest})


def matrix(**written: Any) -> Matrix:
    return Matrix.model_validate(written)


SEEDS = {"seed": [0, 1, 2], "lr": [0.1], "include": [{"seed": 9}], "exclude": [{"seed": 1, "lr": 0.1}]}
NAMES = ("train[seed=0,lr=0.1]", "train[seed=2,lr=0.1]", "train[seed=9]")
DIGITS = pipeline(
    {
        "data": {"run": "data", "outputs": "data/"},
        "train": {
            "run": "train --seed ${{ matrix.seed }} ${{ variables.A }}",
            "inputs": ["src/", "data/"],
            "outputs": "model/",
            "metrics": "m.json",
            "variables": {"SEED": "${{matrix.seed}}", "V": "${{ version }}"},
            "env": ["HF_HOME"],
            "matrix": SEEDS,
        },
        "report": {"run": "report", "needs": "train", "inputs": "src/"},
        "evaluate": {"run": "evaluate", "needs": "train[seed=9]", "inputs": "model/"},
        "serve-test": {"run": "x", "needs": "package", "inputs": []},
    },
    variables={"A": "b"},
    package={"model": "model/", "code": "src/", "needs": "train[seed=2,lr=0.1]", "serve": "x"},
    gates={
        "all": {"metric": "train.accuracy", "aggregate": "min", "at_least": 0.9},
        "one": {"metric": "train[seed=0,lr=0.1].accuracy", "at_least": 0.9},
    },
)


def test_cells() -> None:
    """Combinations come in the order of the axes, without what is excluded, then what is included as it stands."""
    assert cell_names(DIGITS.steps["train"]) == NAMES
    assert cell_names(DIGITS.steps["data"]) == ()
    two = cells(matrix(a=["x", "y"], b=[1, 2]))
    assert [cell_name("s", cell) for cell in two] == ["s[a=x,b=1]", "s[a=x,b=2]", "s[a=y,b=1]", "s[a=y,b=2]"]
    own = cells(matrix(a=["x"], include=[{"c": 3, "a": 2}], exclude=[{"a": "x"}]))
    assert [*own] == [{"a": "2", "c": "3"}]
    assert list(own[0]) == ["a", "c"]
    assert cells(matrix(include=[{"a": 1}])) == ({"a": "1"},)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 3), min_size=1, unique=True), min_size=1),
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1), max_size=3),
)
def test_cells_are_the_combinations_that_no_entry_excludes(axes: Any, exclude: list[dict[str, int]]) -> None:
    """Each combination is a cell, once, exactly where no entry has only values of it."""
    made = cells(matrix(**axes, exclude=exclude))
    assert len({cell_name("s", cell) for cell in made}) == len(made) <= size(matrix(**axes))
    for cell in made:
        assert list(cell) == list(axes)
        assert not any(all(cell.get(k) == str(v) for k, v in entry.items()) for entry in exclude)
    if not exclude:
        assert len(made) == size(matrix(**axes))


def test_matrix_is_dumped_as_it_is_written() -> None:
    """What was dumped is read back the same way, also an axis that is named axes."""
    for written in (SEEDS, {"axes": [1, 2]}, {"include": [{"a": "b"}]}):
        found = matrix(**written)
        assert matrix(**found.model_dump()) == found
        assert Matrix.model_validate_json(found.model_dump_json()) == found


def test_expanded_steps() -> None:
    """Cells stand in the place of their step, with its values filled in, and all else as the step has it."""
    found = expand(DIGITS)
    assert tuple(found.steps) == ("data", *NAMES, "report", "evaluate", "serve-test")
    cell = found.steps[NAMES[0]]
    assert (cell.name, cell.cell, cell.matrix) == (NAMES[0], {"seed": "0", "lr": "0.1"}, None)
    assert cell.run == "train --seed 0 ${{ variables.A }}"
    assert cell.variables == {"SEED": "0", "V": "${{ version }}"}
    assert (cell.env, cell.outputs, cell.metrics) == (("HF_HOME",), ("model/",), "m.json")
    assert cell.family == "train"
    assert found.steps["report"].needs == NAMES
    assert found.steps["evaluate"].needs == ("train[seed=9]",)


def test_expanded_pipeline_can_be_kept() -> None:
    """An expanded pipeline is read back from its dump, and expanding it again, or one without a matrix, is nothing."""
    found = expand(DIGITS)
    assert Pipeline.model_validate(found.model_dump(mode="json")) == found
    assert Pipeline.model_validate_json(found.model_dump_json(exclude_defaults=True)) == found
    assert expand(found) is found
    assert flaws(DIGITS) == []


def test_needs_of_cells() -> None:
    """Who reads outputs of cells needs the cell that it names; the package too; cells never need each other by them."""
    wanted = needs(expand(DIGITS))
    assert wanted == {
        "data": frozenset(),
        **{name: {"data"} for name in NAMES},
        "report": {*NAMES},
        "evaluate": {"train[seed=9]"},
        "serve-test": {"package"},
        "package": {"train[seed=2,lr=0.1]"},
    }
    assert needs(DIGITS)["report"] == needs(DIGITS)["evaluate"] == needs(DIGITS)["package"] == {"train"}


def test_order_stages_and_plan_of_cells() -> None:
    """The order, the stages and the plan know cells; all cells of a step have one stage."""
    found = expand(DIGITS)
    assert order(found) == ("data", *NAMES, "report", "evaluate", "package", "serve-test")
    assert {stages(found)[name] for name in NAMES} == {stages(DIGITS)["train"]} == {"build"}
    assert stages(found)["evaluate"] == "test"
    planned = plan(found)
    assert set(NAMES) < set(planned.names)
    assert planned["package"].needs[-1] == "train[seed=2,lr=0.1]"


def test_stages_of_cells_without_package() -> None:
    """Without a package, all cells of a step whose outputs are read are build."""
    steps = {
        "a": {"run": "x", "outputs": "o/", "matrix": {"s": [0, 1]}},
        "b": {"run": "x", "inputs": "o/", "needs": "a[s=0]"},
    }
    assert stages(expand(pipeline(steps))) == {"a[s=0]": "build", "a[s=1]": "build", "b": "test"}


def test_cell_needs_a_cell() -> None:
    """A step with a matrix can need one cell of another for each of its own."""
    steps = {
        "train": {"run": "x", "outputs": "o/", "matrix": {"s": [0, 1]}},
        "test": {"run": "x", "inputs": "o/", "needs": "train[s=${{ matrix.s }}]", "matrix": {"s": [0, 1]}},
    }
    whole = pipeline(steps)
    assert flaws(whole) == []
    assert needs(expand(whole))["test[s=1]"] == {"train[s=1]"}


def test_judged_steps() -> None:
    """A gate waits for the cell that it names, or for all where it aggregates."""
    found = expand(DIGITS)
    assert judged_steps(found, found.gates["all"]) == NAMES
    assert judged_steps(found, found.gates["one"]) == (NAMES[0],)
    assert found.gates["all"].rule == "min over cells at least 0.9"
    assert DIGITS.gates["one"].step == NAMES[0]


def test_filled() -> None:
    """Only places of the matrix are filled in; one that the cell lacks raises."""
    assert filled("${{matrix.a}} ${{ version }} $a", {"a": "1"}) == "1 ${{ version }} $a"
    with pytest.raises(KeyError):
        filled("${{ matrix.b }}", {"a": "1"})


def test_family() -> None:
    """The step of a cell is what stands before its bracket."""
    assert [family_of(name) for name in ("train", "train[seed=0]")] == ["train", "train"]


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ({"a": {"run": "x", "matrix": {"s": list(range(MAX_CELLS + 1))}}}, "at most 256 cells, found 257"),
        ({"a": {"run": "x", "matrix": {f"a{n}": [1] for n in range(17)}}}, "at most 16 axes, found 17"),
        (
            {f"a{n}": {"run": "x", "matrix": {"s": list(range(256))}} for n in range(79)},
            "at most 20,000 steps, found 20,224 with the cells of matrices",
        ),
        (
            {"a": {"run": "x" * 100_000, "matrix": {"s": list(range(256))}}},
            "hold more than 16 MiB of text",
        ),
        (
            {"a": {"run": "x", "matrix": {"s": list(range(256)), "exclude": [{"s": 0}] * 1000}}},
            "take more than 250,000 comparisons",
        ),
        (
            {
                "a": {"run": "x", "matrix": {"s": list(range(256))}},
                **{f"b{n}": {"run": "x", "needs": "a"} for n in range(1000)},
            },
            "need each other's cells more than 250,000 times",
        ),
    ],
)
def test_sizes(steps: Mapping[str, Any], sentence: str) -> None:
    """What would be too large when expanded is refused before it is."""
    (flaw,) = flaws(pipeline(dict(steps)))
    assert sentence in flaw.sentence
