"""A pipeline with what is worked out of it once, and what a flaw of it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.matrices import Cell, cells
from penstock.pipelines import Outputs, Pipeline, Step, needs, sequence
from penstock.values import cell_name, family_of, shortened

Where = tuple[str | int, ...]
"""The keys and list places that lead to a value of the file."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with a value of the file.

    `word` and `known` are a name that does not exist and those that do, for a hint; `lacking` is the value whose
    absence is complained of; `at_key` says that the key is meant, not its value.
    """

    where: Where
    sentence: str
    word: str = ""
    known: tuple[str, ...] = ()
    lacking: Where | None = None
    at_key: bool = False


class Outline:
    """A pipeline with what is worked out of it once."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.outputs = Outputs(pipeline)
        self.needs = needs(pipeline, self.outputs)
        self.variants = {name: cells(s.matrix) for name, s in pipeline.steps.items() if s.matrix is not None}
        self.cells = {name: {cell_name(name, cell): None for cell in found} for name, found in self.variants.items()}
        self.axes = {name: _common_axes(pipeline.steps[name], found) for name, found in self.variants.items()}
        self.names = (*pipeline.steps, *(["package"] if pipeline.package else []))

    def no_cell(self, name: str) -> tuple[str, tuple[str, ...], Where] | None:
        """What is wrong with the name of a cell of a step that exists, the cells there are, and what it is for lack of.

        None where the cell exists.
        """
        family = family_of(name)
        known = self.cells.get(family, {})
        if name in known:
            return None
        lacking = ("steps", family, "matrix")
        if not known:
            return f'"{shortened(name)}" names a cell, but step "{family}" has no matrix', (), lacking
        return f'step "{family}" has no cell "{shortened(name)}"', tuple(known), lacking


def _common_axes(step: Step, found: Iterable[Cell]) -> tuple[str, ...]:
    """What a text of a step with a matrix can name of it: the axes that each of its cells has."""
    every = [list(cell) for cell in found] or [list(step.matrix.axes) if step.matrix is not None else []]
    shared = set(every[0]).intersection(*every)
    return tuple(f"matrix.{axis}" for axis in every[0] if axis in shared)


def loop_of(wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """One loop, from a name back to itself, or nothing."""
    left = set(wanted) - set(sequence(wanted))
    if not left:
        return []
    place = {name: n for n, name in enumerate(wanted)}
    way = {min(left, key=place.__getitem__): 0}
    while True:  # each that is left needs one that is left: the way comes back to itself
        name = min(left.intersection(wanted[next(reversed(way))]), key=place.__getitem__)
        if name in way:
            break
        way[name] = len(way)
    loop = list(way)[way[name] :]
    first = loop.index(min(loop, key=place.__getitem__))
    return [*loop[first:], *loop[: first + 1]]


def told(loop: list[str]) -> str:
    """A loop in words; a long one is shortened."""
    shown = loop if len(loop) <= 12 else [*loop[:10], "…", loop[-1]]
    return " needs ".join(shown)
