"""A step with a matrix, and the cells that stand in its place: one step for each combination of the axes' values."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from math import prod

from penstock.parts import Matrix
from penstock.pipelines import PLACE, Gate, Pipeline, Step
from penstock.values import cell_name, family_of

MAX_CELLS = 256
"""Combinations of one matrix, before any is excluded, with the cells that it includes."""

Cell = Mapping[str, str]


def size(matrix: Matrix) -> int:
    """How many cells a matrix has before any is excluded, without making them."""
    return (prod(map(len, matrix.axes.values())) if matrix.axes else 0) + len(matrix.include)


def combinations(matrix: Matrix) -> Iterator[Cell]:
    """Each value of each axis with each of the others, the last axis changing first; nothing is excluded."""
    if matrix.axes:
        yield from (dict(zip(matrix.axes, values, strict=True)) for values in product(*matrix.axes.values()))


def cells(matrix: Matrix) -> tuple[Cell, ...]:
    """The combinations that are not excluded, then the included cells; a cell's axes stand in the matrix's order."""
    kept = [cell for cell in combinations(matrix) if not any(fits(entry, cell) for entry in matrix.exclude)]
    return (*kept, *(in_order(matrix, cell) for cell in matrix.include))


def fits(entry: Cell, cell: Cell) -> bool:
    """Whether a cell has all the values of an entry, which may name some axes only."""
    return entry.items() <= cell.items()


def in_order(matrix: Matrix, cell: Cell) -> Cell:
    """The cell with the matrix's axes first, in their order, then its own."""
    return {axis: cell[axis] for axis in dict.fromkeys([*matrix.axes, *cell]) if axis in cell}


def cell_names(step: Step) -> tuple[str, ...]:
    """The names of the cells of a step with a matrix: `train[seed=0,lr=0.1]`; none without."""
    return () if step.matrix is None else tuple(cell_name(step.name, cell) for cell in cells(step.matrix))


def filled(text: str, cell: Cell) -> str:
    """The text with `${{ matrix.AXIS }}` replaced; other places stay. Raises KeyError for an axis not of the cell."""
    if "${{" not in text:
        return text

    def value(place: "re.Match[str]") -> str:
        word = place[1].strip()
        return cell[word.removeprefix("matrix.")] if word.startswith("matrix.") else place[0]

    return PLACE.sub(value, text)


def expand(pipeline: Pipeline) -> Pipeline:
    """The pipeline with cells in the place of each step with a matrix, and whoever needs that step needs them all.

    A pipeline that has none, or was expanded before, is returned as it is. Raises KeyError where a text names an axis
    that a cell lacks; a pipeline that was loaded has no such text.
    """
    names = {name: cell_names(step) for name, step in pipeline.steps.items() if step.matrix is not None}
    if not names:
        return pipeline
    steps: dict[str, Step] = {}
    for name, step in pipeline.steps.items():
        for one in _cells_of(step) if name in names else (step,):
            wanted = tuple(dict.fromkeys(cell for need in one.needs for cell in names.get(need, (need,))))
            steps[one.name] = one if wanted == one.needs else one.model_copy(update={"needs": wanted})
    return pipeline.model_copy(update={"steps": steps})


def _cells_of(step: Step) -> Iterator[Step]:
    for cell in cells(step.matrix) if step.matrix is not None else ():
        change = {
            "name": cell_name(step.name, cell),
            "cell": cell,
            "matrix": None,
            "run": filled(step.run, cell),
            "variables": {key: filled(value, cell) for key, value in step.variables.items()},
            "needs": tuple(filled(need, cell) for need in step.needs),
        }
        yield step.model_copy(update=change)


def judged_steps(pipeline: Pipeline, gate: Gate) -> tuple[str, ...]:
    """The steps of an expanded pipeline that a gate waits for: those it names, or all cells that it aggregates."""
    found: dict[str, None] = {}
    for leaf in gate.leaves:
        if leaf.aggregate is None:
            found |= dict.fromkeys(leaf.steps)
        else:
            found |= {name: None for name in pipeline.steps if family_of(name) == leaf.step}
    return tuple(found)
