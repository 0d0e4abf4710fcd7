"""What is wrong with a pipeline as a whole, though each value of it is fine: names, loops, collisions."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.matrices import MAX_CELLS, Cell, cells, combinations, filled, fits, in_order, size
from penstock.parts import LOOKED_AT, Matrix
from penstock.patterns import has_wildcard, matches
from penstock.pipelines import (
    MAX_NEEDS,
    METRIC,
    PLACE,
    Gate,
    Outputs,
    Package,
    Pipeline,
    Step,
    TooLargeError,
    needs,
    reads,
    sequence,
)
from penstock.recordings import NAMES
from penstock.recordings import STEP as REPLAY
from penstock.rules import FORMATS
from penstock.values import cell_name, family_of, shortened

MAX_STEPS = 20_000
"""Cells count as steps."""
MAX_AXES = 16
MAX_WILDCARDS = 1_000
"""Different paths with wildcards: each takes a while to prepare."""
MAX_FILLED = 1 << 20
"""Characters of a text once its places are filled in; of all cells' texts together, 16 times as many."""

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


def flaws(pipeline: Pipeline) -> list[Flaw]:
    """What only the whole pipeline can show: names that do not exist, loops, collisions; empty where it is sound.

    The pipeline is as the file has it: its matrices are not expanded.
    """
    if too_large := [*_size_flaws(pipeline)]:
        return too_large
    try:
        return [*_flaws(_Whole(pipeline))]
    except TooLargeError as error:
        return [Flaw(("steps",), str(error))]


class _Whole:
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


def _flaws(whole: _Whole) -> Iterator[Flaw]:
    pipeline = whole.pipeline
    yield from _matrix_flaws(whole)
    yield from _interpolation_flaws(whole)
    yield from _need_flaws(whole)
    yield from _cell_flaws(whole)
    yield from _output_flaws(whole)
    yield from _request_flaws(whole)
    yield from _truth_flaws(pipeline)
    yield from _secret_flaws(pipeline)
    yield from _outside_flaws(pipeline)
    yield from _container_flaws(pipeline)
    yield from _gate_flaws(whole)
    yield from _environment_flaws(pipeline)
    yield from _champion_flaws(pipeline)


# --- matrices and sizes --------------------------------------------------------------------------------------------


def _size_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """What would take too long to work out; nothing else is, where there is any."""
    steps = pipeline.steps.values()
    large = [flaw for step in steps if step.matrix is not None for flaw in _matrix_sizes(step.name, step.matrix)]
    yield from large
    if large:
        return
    matrices = [(size(step.matrix), step, step.matrix) for step in steps if step.matrix is not None]
    count = len(steps) - len(matrices) + sum(cells for cells, _, _ in matrices)
    if count > MAX_STEPS:
        counted = " with the cells of matrices" if matrices else ""
        yield Flaw(("steps",), f"expected at most {MAX_STEPS:,} steps, found {count:,}{counted}")
    if sum(cells * _length(step, matrix) for cells, step, matrix in matrices) > 16 * MAX_FILLED:
        yield Flaw(("steps",), f"the cells of matrices hold more than {16 * MAX_FILLED >> 20} MiB of text: say less")
    if sum(cells * len(matrix.exclude) for cells, _, matrix in matrices) > MAX_NEEDS:
        yield Flaw(("steps",), f"the matrices take more than {MAX_NEEDS:,} comparisons: exclude less")
    patterns = {p for s in steps for p in (*(s.inputs or ()), *(s.outputs or ()))}
    patterns.update(pipeline.package.contents if pipeline.package else ())
    wild = sum(map(has_wildcard, patterns))
    if wild > MAX_WILDCARDS:
        yield Flaw(("steps",), f"expected at most {MAX_WILDCARDS:,} paths with wildcards, found {wild:,}: name folders")


def _matrix_sizes(name: str, matrix: Matrix) -> Iterator[Flaw]:
    where = ("steps", name, "matrix")
    if (found := max(len(matrix.axes), *map(len, matrix.include), *map(len, matrix.exclude), 0)) > MAX_AXES:
        yield Flaw(where, f"expected at most {MAX_AXES} axes, found {found:,}", at_key=True)
    elif size(matrix) > MAX_CELLS:
        yield Flaw(where, f"expected at most {MAX_CELLS} cells, found {size(matrix):,}", at_key=True)


def _length(step: Step, matrix: Matrix) -> int:
    """Characters that a cell of the step holds, and about 100 for each text or name that has to be made."""
    texts = [step.run, *step.variables.values(), *step.needs]
    return sum(map(len, texts)) + 100 * (len(texts) + len(matrix.axes))


def _matrix_flaws(whole: _Whole) -> Iterator[Flaw]:
    for name in whole.variants:
        matrix = whole.pipeline.steps[name].matrix
        if matrix is not None:
            yield from _axis_flaws(("steps", name, "matrix"), matrix)
            yield from _entry_flaws(("steps", name, "matrix"), name, matrix)
            if not whole.variants[name]:
                sentence = "nothing is left of the matrix: exclude less"
                yield Flaw(("steps", name, "matrix", "exclude"), sentence, at_key=True)


def _axis_flaws(where: Where, matrix: Matrix) -> Iterator[Flaw]:
    for axis, values in matrix.axes.items():
        for n, value in enumerate(values):
            if value in values[:n]:
                yield Flaw((*where, axis, n), f'the value "{shortened(value)}" stands here twice: keep one')


def _entry_flaws(where: Where, name: str, matrix: Matrix) -> Iterator[Flaw]:
    made = list(combinations(matrix))
    axes = tuple(matrix.axes)
    for n, entry in enumerate(matrix.exclude):
        unknown = [axis for axis in entry if axis not in axes]
        for axis in unknown:
            yield Flaw((*where, "exclude", n, axis), f'no axis is named "{shortened(axis)}"', axis, axes, at_key=True)
        if not entry:
            yield Flaw((*where, "exclude", n), "this entry excludes everything: name an axis and its value")
        elif not unknown and not any(fits(entry, cell) for cell in made):
            yield Flaw((*where, "exclude", n), "this entry excludes nothing: no combination has these values")
    kept = {cell_name(name, cell) for cell in made if not any(fits(entry, cell) for entry in matrix.exclude)}
    for n, entry in enumerate(matrix.include):
        cell = cell_name(name, in_order(matrix, entry))
        if not entry:
            yield Flaw((*where, "include", n), "this cell has no values: name axes with one value each")
        elif cell in kept:
            yield Flaw((*where, "include", n), f'"{shortened(cell)}" is a cell already: take it out')
        kept.add(cell)


# --- interpolation -------------------------------------------------------------------------------------------------


def _texts(pipeline: Pipeline) -> Iterator[tuple[Where, str]]:
    """All texts that are interpolated."""
    yield from ((("variables", key), value) for key, value in pipeline.variables.items())
    for name, step in pipeline.steps.items():
        yield ("steps", name, "run"), step.run
        yield from ((("steps", name, "variables", key), value) for key, value in step.variables.items())
        yield from ((("steps", name, "needs", n), need) for n, need in enumerate(step.needs) if "${{" in need)
    if pipeline.package is not None and pipeline.package.serve is not None:
        yield ("package", "serve"), pipeline.package.serve
    for name, environment in pipeline.environments.items():
        yield from ((("environments", name, "variables", k), v) for k, v in environment.variables.items())
        if environment.migrate is not None:
            yield ("environments", name, "migrate", "run"), environment.migrate.run
        if environment.migrate_down is not None:
            yield ("environments", name, "migrate_down"), environment.migrate_down
        if environment.deploy is not None:
            texts = {key: getattr(environment.deploy, key) for key in ("run", "rollback", "health")}
            yield from ((("environments", name, "deploy", k), text) for k, text in texts.items() if text is not None)


def _interpolation_flaws(whole: _Whole) -> Iterator[Flaw]:
    variables = whole.pipeline.variables
    known = ("version", "commit", *(f"variables.{name}" for name in variables))
    for where, text in _texts(whole.pipeline):
        if "${{" not in text:
            continue
        places, length = _places(text, variables)
        here = () if "needs" in where else known
        axes = whole.axes.get(str(where[1]), ()) if where[0] == "steps" else ()
        for word, end in places:
            if not end:
                yield Flaw(where, '"${{" is not closed: expected a name and "}}" after it')
            elif word.startswith("matrix.") and word not in axes:
                yield _axis_flaw(whole, where, word, axes)
            elif word not in here and word not in axes:
                lacking = ("variables", word.partition(".")[2])
                yield Flaw(where, f'"${{{{ {shortened(word)} }}}}" names nothing', word, (*here, *axes), lacking)
            elif "${{" in variables.get(word.removeprefix("variables."), "") and where[-2] == "variables":
                yield Flaw(where, f'"{word}" is interpolated itself: a variable can refer to a plain one only')
        if length > MAX_FILLED:
            yield Flaw(where, f"with its places filled in this is longer than {MAX_FILLED >> 20} MiB: say less")


def _places(text: str, variables: Mapping[str, str]) -> tuple[dict[tuple[str, bool], None], int]:
    """The first of a text's different places, each with whether it is closed, and the filled text's length."""
    found: dict[tuple[str, bool], None] = {}
    length = len(text)
    for match in PLACE.finditer(text):
        word = match[1].strip()
        length += len(variables.get(word.removeprefix("variables."), ""))
        if len(found) < 1000:
            found[word, match[2] is not None] = None
    return found, length


def _common_axes(step: Step, found: Iterable[Cell]) -> tuple[str, ...]:
    """What a text of a step with a matrix can name of it: the axes that each of its cells has."""
    every = [list(cell) for cell in found] or [list(step.matrix.axes) if step.matrix is not None else []]
    shared = set(every[0]).intersection(*every)
    return tuple(f"matrix.{axis}" for axis in every[0] if axis in shared)


def _axis_flaw(whole: _Whole, where: Where, word: str, axes: tuple[str, ...]) -> Flaw:
    lacking = (*where[:2], "matrix")
    if not axes and where[0] != "steps":
        return Flaw(where, f'"{shortened(word)}" is known in steps with a matrix only', lacking=lacking)
    step = whole.pipeline.steps[str(where[1])]
    if step.matrix is None:
        return Flaw(where, f'"{shortened(word)}" names nothing: step "{step.name}" has no matrix', lacking=lacking)
    axis = word.removeprefix("matrix.")
    found = whole.variants[step.name]
    without = [cell for cell in found if axis not in cell]
    if 0 < len(without) < len(found):
        sentence = f'the cell "{shortened(cell_name(step.name, without[0]))}" has no "{axis}": give it one'
        return Flaw(where, sentence, lacking=lacking)
    return Flaw(where, f'"${{{{ {shortened(word)} }}}}" names nothing', word, axes, lacking)


# --- steps ---------------------------------------------------------------------------------------------------------


def _need_flaws(whole: _Whole) -> Iterator[Flaw]:
    pipeline = whole.pipeline
    for name, step in pipeline.steps.items():
        for n, written in enumerate(step.needs):
            where = ("steps", name, "needs", n)
            for need in _filled(written, step, whole.variants.get(name, ({},))):
                if flaw := _need_flaw(whole, where, name, need):
                    yield flaw
                    break
        if step.when.outcome == "failed" and not whole.needs[name]:
            sentence = "this never comes: the step needs nothing that could fail: name it in needs"
            yield Flaw(("steps", name, "when"), sentence, lacking=("steps", name, "needs"))
    if loop := _loop(whole.needs):
        yield Flaw(_culprit(whole, loop), f"the steps need each other in a loop: {_told(loop)}")


def _filled(need: str, step: Step, variants: Iterable[Cell]) -> Iterator[str]:
    """What a written need means in some cells of its step; nothing where it names no axis, which is told already."""
    if "${{" not in need:
        yield need
        return
    try:
        found = [filled(need, cell) for cell in variants] if step.matrix is not None else []
    except KeyError:
        return
    yield from (name for name in found if "${{" not in name)


def _need_flaw(whole: _Whole, where: Where, name: str, need: str) -> Flaw | None:
    steps = whole.pipeline.steps
    if family_of(need) == name:
        return Flaw(where, f'step "{name}" needs itself')
    if need in steps or (need == "package" and whole.pipeline.package is not None):
        return None
    if need == "package":
        return Flaw(where, '"package" is needed, but the file has no package', lacking=("package",))
    if "[" in need and family_of(need) in steps:
        fault = whole.no_cell(need)
        return Flaw(where, fault[0], need, fault[1], fault[2]) if fault else None
    return Flaw(where, f'no step is named "{shortened(need)}"', need, whole.names, ("steps", need))


def _loop(wanted: Mapping[str, Iterable[str]]) -> list[str]:
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


def _told(loop: list[str]) -> str:
    shown = loop if len(loop) <= 12 else [*loop[:10], "…", loop[-1]]
    return " needs ".join(shown)


def _culprit(whole: _Whole, loop: list[str]) -> Where:
    """The value by which the first of a loop needs the second; the package's by which it does, where it is first."""
    name, need = loop[0], loop[1]
    step = whole.pipeline.steps[name]
    named = next((n for n, written in enumerate(step.needs) if family_of(written) == need), None)
    if named is not None:
        return ("steps", name, "needs", named)
    places = (n for n, pattern in enumerate(step.inputs or ()) if need in whole.outputs.owners(pattern))
    place = next(places, None)
    return ("steps", name, "evidence", "truth") if place is None else ("steps", name, "inputs", place)


def _cell_flaws(whole: _Whole) -> Iterator[Flaw]:
    """Who takes files of a step with cells must say of which cell."""
    count = 0
    for step in whole.pipeline.steps.values() if whole.cells else ():
        read = _read_of_cells(whole, step)
        for wanted in _wanted(whole, step):
            count += sum(len(whole.cells.get(need, (need,))) for need in wanted)
            if flaw := _choice_flaw(whole, step, read, _chosen(whole, wanted)):
                yield flaw
                break
        if count > MAX_NEEDS:
            raise TooLargeError(f"the steps need each other's cells more than {MAX_NEEDS:,} times: name fewer")
    if whole.pipeline.package is not None:
        yield from _package_flaws(whole, whole.pipeline.package)


def _wanted(whole: _Whole, step: Step) -> Iterator[list[str]]:
    """The needs of each cell of a step, or of the step itself."""
    for cell in whole.variants.get(step.name, ({},)):
        yield [name for need in step.needs for name in _filled(need, step, (cell,))]


def _read_of_cells(whole: _Whole, step: Step) -> dict[str, tuple[Where, str]]:
    """The steps with cells whose outputs a step reads, each with the first pattern that does and its place."""
    read: dict[str, tuple[Where, str]] = {}
    inputs = len(step.inputs or ())
    for n, pattern in enumerate(reads(step)):
        where = ("steps", step.name, *(("inputs", n) if n < inputs else ("evidence", "truth")))
        for owner in sorted(whole.outputs.owners(pattern) & whole.cells.keys() - {step.name}):
            read.setdefault(owner, (where, pattern))
    return read


def _choice_flaw(
    whole: _Whole, step: Step, read: Mapping[str, tuple[Where, str]], chosen: Mapping[str, set[str]]
) -> Flaw | None:
    for owner, (where, pattern) in read.items():
        if len(chosen.get(owner, ())) != 1:
            return _cells_told(whole, where, f'"{shortened(pattern)}" is an output of', owner, "name one in needs")
    if step.inputs is None:
        for owner, names in chosen.items():
            if len(names) > 1 and whole.pipeline.steps[owner].outputs:
                what = "without inputs, the workspace would hold the outputs of"
                return _cells_told(whole, ("steps", step.name, "needs"), what, owner, "declare inputs, or need one")
    return None


def _chosen(whole: _Whole, wanted: Iterable[str]) -> dict[str, set[str]]:
    """The cells that are needed, by their step; a step's name means them all."""
    chosen: dict[str, set[str]] = {}
    for need in wanted:
        if family_of(need) in whole.cells:
            chosen.setdefault(family_of(need), set()).update(whole.cells.get(need, (need,)))
    return chosen


def _cells_told(whole: _Whole, where: Where, what: str, owner: str, hint: str) -> Flaw:
    names = [*whole.cells[owner]]
    shown = ", ".join(f'"{name}"' for name in names[:5]) + (" …" if len(names) > 5 else "")
    lacking = ("steps", owner, "matrix")
    return Flaw(where, f'{what} step "{owner}", which has cells: {hint}, of {shown}', lacking=lacking)


def _package_flaws(whole: _Whole, package: Package) -> Iterator[Flaw]:
    for n, need in enumerate(package.needs):
        if flaw := _package_need_flaw(whole, ("package", "needs", n), need):
            yield flaw
    chosen = _chosen(whole, package.needs)
    patterns = [("model", n, p) for n, p in enumerate(package.model or ())]
    for key, n, pattern in [*patterns, *(("code", n, p) for n, p in enumerate(package.code))]:
        for owner in sorted(whole.outputs.owners(pattern) & whole.cells.keys()):
            if len(chosen.get(owner, ())) != 1:
                what, hint = f'"{shortened(pattern)}" is an output of', "name one as needs of the package"
                yield _cells_told(whole, ("package", key, n), what, owner, hint)


def _request_flaws(whole: _Whole) -> Iterator[Flaw]:
    package = whole.pipeline.package
    if package is None or package.requests is None:
        return
    if package.serve is None:
        sentence = "recorded requests are asked of what is served: add serve: COMMAND to the package"
        yield Flaw(("package", "requests"), sentence, lacking=("package", "serve"), at_key=True)
    chosen = _chosen(whole, package.needs)
    for owner in sorted(whole.outputs.owners(package.requests.file) & whole.cells.keys()):
        if len(chosen.get(owner, ())) != 1:
            what = f'"{shortened(package.requests.file)}" is an output of'
            yield _cells_told(whole, ("package", "requests"), what, owner, "name one as needs of the package")


def _package_need_flaw(whole: _Whole, where: Where, need: str) -> Flaw | None:
    family = family_of(need)
    if family not in whole.pipeline.steps:
        names = tuple(whole.pipeline.steps)
        return Flaw(where, f'no step is named "{shortened(family)}"', family, names, ("steps", family))
    if need in whole.cells:
        return Flaw(where, f'step "{family}" has cells: name one, such as "{next(iter(whole.cells[need]))}"')
    if "[" not in need:
        sentence = f'step "{family}" has no cells: leave it out, the package needs what its paths name'
        return Flaw(where, sentence, lacking=("steps", family, "matrix"))
    fault = whole.no_cell(need)
    return Flaw(where, fault[0], need, fault[1], fault[2]) if fault else None


def _output_flaws(whole: _Whole) -> Iterator[Flaw]:
    place = {name: n for n, name in enumerate(whole.pipeline.steps)}
    first: dict[str, str] = {}
    for at, (name, step) in enumerate(whole.pipeline.steps.items()):
        for n, pattern in enumerate(step.outputs or ()):
            if pattern not in first:
                first[pattern] = min(whole.outputs.owners(pattern), key=place.__getitem__)
            other = first[pattern]
            if place[other] < at:
                sentence = f'the output "{shortened(pattern)}" collides with an output of step "{other}": '
                yield Flaw(("steps", name, "outputs", n), sentence + "give each step files of its own")


def _truth_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    for name, step in pipeline.steps.items():
        truth = step.evidence.truth if step.evidence else None
        if truth is None or step.inputs is None:
            continue
        if not any(matches(pattern, truth) for pattern in (*step.inputs, *(step.outputs or ()))):
            sentence = f'the truth "{shortened(truth)}" is not among the inputs of the step: add it there'
            yield Flaw(("steps", name, "evidence", "truth"), sentence, lacking=("steps", name, "inputs"))


def _secret_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    for name, step in pipeline.steps.items():
        env = set(step.env) if step.secrets else ()
        for n, secret in enumerate(step.secrets):
            yield from _twice(("steps", name, "secrets", n), secret, step.variables, env, pipeline.variables)
    for name, environment in pipeline.environments.items():
        for n, secret in enumerate(environment.secrets):
            where = ("environments", name, "secrets", n)
            yield from _twice(where, secret, environment.variables, (), pipeline.variables)


def _outside_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    for name, step in pipeline.steps.items():
        for n, address in enumerate(step.external if step.fingerprint is None else ()):
            scheme = address.partition("://")[0]
            if scheme not in LOOKED_AT:
                sentence = f"Penstock cannot look at {scheme}:// itself: add fingerprint: COMMAND that tells its state"
                yield Flaw(("steps", name, "external", n), sentence, lacking=("steps", name, "fingerprint"))


def _twice(
    where: Where, secret: str, own: Container[str], env: Container[str], pipeline: Container[str]
) -> Iterator[Flaw]:
    places = {"variables": own, "env": env, "the pipeline's variables": pipeline}
    for place, names in places.items():
        if secret in names:
            yield Flaw(where, f'the secret "{secret}" stands in {place} too: take it out of one of them')
            return


# --- gates ---------------------------------------------------------------------------------------------------------


def _container_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """What only steps in an image can have, and what only steps outside of one can."""
    if pipeline.runtime is not None and pipeline.runtime.is_image:
        for name, step in pipeline.steps.items():
            if step.external and step.fingerprint is not None:
                sentence = 'in an image a step has either "external" or "fingerprint": let the fingerprint tell all'
                yield Flaw(("steps", name, "fingerprint"), sentence, at_key=True)
        return
    for name, step in pipeline.steps.items():
        if not step.network:
            sentence = "only a container can be without a network: give the runtime an image or a dockerfile"
            yield Flaw(("steps", name, "network"), sentence, lacking=("runtime", "image"))


def _gate_flaws(whole: _Whole) -> Iterator[Flaw]:
    for name, gate in whole.pipeline.gates.items():
        for where, leaf in _leaves(("gates", name), gate):
            yield from _leaf_flaws(whole, where, leaf)


def _leaves(where: Where, gate: Gate) -> Iterator[tuple[Where, Gate]]:
    """The gates that a gate is made of, or itself, each with its place in the file."""
    if not gate.is_whole:
        yield where, gate
    for n, member in enumerate(gate.members):
        yield from _leaves((*where, gate.subject, n), member)


_FILES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "metric": (("metrics", "benchmark", "coverage"), "has neither metrics nor benchmark: add metrics: FILE to it"),
    "benchmark": (("benchmark",), "has no benchmark: add benchmark: FILE to it"),
    "evidence": (("evidence",), "has no evidence: add evidence: FILE to it"),
    "same_as": (("evidence",), "has no evidence: add evidence: FILE to it"),
    "tests": (("report", "runs_pytest"), "has no report: add report: FILE to it"),
    "coverage": (("coverage",), "has no coverage: add coverage: FILE to it"),
}
"""What a step must leave for a gate on it, and the sentence where it does not."""


def _leaf_flaws(whole: _Whole, where: Where, gate: Gate) -> Iterator[Flaw]:
    yield from _baseline_flaws(whole, where, gate)
    if gate.model is not None:
        package = whole.pipeline.package
        if package is None or not package.model:
            sentence = "there are no model files to judge: add model: FILES to the package"
            yield Flaw((*where, "model"), sentence, lacking=("package", "model"))
        for n, kind in enumerate(gate.one_of or ()):
            if kind not in FORMATS:
                sentence = f'no model file has the format "{shortened(kind)}"'
                yield Flaw((*where, "one_of", n), sentence, kind, FORMATS)
        return
    named = gate.metric or gate.benchmark
    if named is not None and not METRIC.fullmatch(named):
        words = f'expected a {gate.subject} as STEP.NAME, such as train.accuracy, found "{shortened(named)}"'
        yield Flaw((*where, gate.subject), words)
        return
    if gate.metric is not None and gate.step == REPLAY:
        yield from _replay_flaws(whole, where, gate)
        return
    yield from _subject_flaws(whole, where, gate, gate.subject, gate.step)
    if gate.same_as is not None:
        yield from _subject_flaws(whole, where, gate, "same_as", gate.same_as)


def _replay_flaws(whole: _Whole, where: Where, gate: Gate) -> Iterator[Flaw]:
    """What is wrong with a gate on what the replay of recorded requests measures."""
    metric, package = str(gate.metric), whole.pipeline.package
    known = tuple(f"{REPLAY}.{name}" for name in NAMES)
    if package is None or package.requests is None:
        sentence = f'"{shortened(metric)}" is measured with recorded requests: add requests: FILE to the package'
        yield Flaw((*where, "metric"), sentence, lacking=("package", "requests"))
    elif metric not in known:
        sentence = f'a replay does not measure "{shortened(metric)}", but {", ".join(known[:-1])} and {known[-1]}'
        yield Flaw((*where, "metric"), sentence, metric, known)
    else:
        yield from _aggregate_flaws(whole, where, gate, "metric", REPLAY)


def _subject_flaws(whole: _Whole, where: Where, gate: Gate, key: str, named: str) -> Iterator[Flaw]:
    """What is wrong with the step that a gate names under a key."""
    step = whole.pipeline.steps.get(family_of(named))
    keys, sentence = _FILES[key]
    if step is None:
        known = tuple(whole.pipeline.steps)
        yield Flaw((*where, key), f'no step is named "{shortened(named)}"', named, known, ("steps", named))
    elif "[" in named and (fault := whole.no_cell(named)):
        yield Flaw((*where, key), fault[0], named, fault[1], fault[2])
    elif not any(getattr(step, name, None) for name in keys):
        yield Flaw((*where, key), f'step "{step.name}" {sentence}', lacking=("steps", step.name, keys[0]))
    else:
        yield from _aggregate_flaws(whole, where, gate, key, named)
        if gate.evidence is not None:
            yield from _batch_flaws(where, gate, step)


def _batch_flaws(where: Where, gate: Gate, step: Step) -> Iterator[Flaw]:
    """What bets on examples that come in batches cannot decide."""
    if step.evidence is None or step.evidence.batch is None:
        return
    for key, is_wrong, hint in (
        ("score", gate.score not in {None, "correct"}, "only correct has bounds that bets need: leave it out"),
        ("slices", gate.slices is not None, "slices are judged at the end: leave batch out"),
        ("same_as", gate.same_as is not None, "all predictions are looked at: leave batch out"),
        ("within", gate.within is not None, "write at_least and at_most as two gates"),
        ("margin", gate.relative_margin is not None, "write the margin as a number"),
        ("reuse", gate.reuse == "enforce", "where it stops tells more than pass or fail: leave batch out"),
    ):
        if is_wrong:
            yield Flaw((*where, key), f'step "{step.name}" is asked in batches: {hint}', at_key=True)
    room = 2 * (gate.indifference or 0)
    for key, bound in (("at_least", gate.at_least), ("at_most", gate.at_most), ("margin", gate.absolute_margin)):
        edge = bound if key != "at_most" or bound is None else 1 - bound
        is_floor = key != "margin"
        if edge is not None and (edge + room >= 1 or (is_floor and edge <= 0)):
            sentence = (
                f'step "{step.name}" is asked in batches, and no bet is won on that: write a bound within 0 and 1'
            )
            yield Flaw((*where, key), sentence)
    if len(where) > 2:
        sentence = f'step "{step.name}" is asked in batches until its gate is decided: make it a gate of its own'
        yield Flaw((*where, "evidence"), sentence, at_key=True)
    if not gate.by_interval and gate.same_as is None:
        sentence = f'step "{step.name}" is asked in batches, so the gate needs a confidence: such as 0.95'
        yield Flaw((*where, "evidence"), sentence, lacking=(*where, "confidence"), at_key=True)


def _aggregate_flaws(whole: _Whole, where: Where, gate: Gate, key: str, named: str) -> Iterator[Flaw]:
    lacking: Where = ("steps", family_of(named), "matrix")
    known = [*whole.cells.get(named, ())]
    if gate.aggregate is not None and not known:
        one = "[" in named
        sentence = "one cell is named: leave it out" if one else f'step "{named}" has no matrix: leave it out'
        yield Flaw((*where, "aggregate"), f'"aggregate" is over all cells, but {sentence}', lacking=lacking)
    elif known and key != "metric":
        rest = (gate.benchmark or "").removeprefix(named) if key == "benchmark" else ""
        yield Flaw((*where, key), f'step "{named}" has cells: name one, such as "{known[0]}{rest}"')
    elif known and gate.aggregate is None:
        metric = f"{known[0]}.{(gate.metric or '').removeprefix(f'{named}.')}"
        sentence = f'step "{named}" has cells: add aggregate: mean, min or max, or name one, as "{metric}"'
        yield Flaw((*where, "metric"), sentence, lacking=(*where, "aggregate"))


def _baseline_flaws(whole: _Whole, where: Where, gate: Gate) -> Iterator[Flaw]:
    baseline, known = gate.baseline, tuple(whole.pipeline.environments)
    if baseline is not None and baseline.kind == "champion" and baseline.detail and baseline.detail not in known:
        sentence = f'no environment is named "{shortened(baseline.detail)}"'
        place = (*where, str(gate.baseline_key))
        yield Flaw(place, sentence, baseline.detail, known, ("environments", baseline.detail))


# --- environments --------------------------------------------------------------------------------------------------


def _environment_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    ports: dict[int, str] = {}
    known = tuple(pipeline.environments)
    for name, environment in pipeline.environments.items():
        for n, need in enumerate(environment.needs):
            if need == name:
                yield Flaw(("environments", name, "needs", n), f'environment "{name}" needs itself')
            elif need not in pipeline.environments:
                sentence = f'no environment is named "{shortened(need)}"'
                yield Flaw(("environments", name, "needs", n), sentence, need, known, ("environments", need))
        if environment.port is not None and (other := ports.setdefault(environment.port, name)) != name:
            sentence = f'the port {environment.port} is that of environment "{other}" too: choose another'
            yield Flaw(("environments", name, "port"), sentence)
    wanted = {
        name: [n for n in e.needs if n in pipeline.environments and n != name]
        for name, e in pipeline.environments.items()
    }
    if loop := _loop(wanted):
        place = pipeline.environments[loop[0]].needs.index(loop[1])
        sentence = f"the environments need each other in a loop: {_told(loop)}"
        yield Flaw(("environments", loop[0], "needs", place), sentence)
    yield from _config_flaws(pipeline)
    yield from _probe_flaws(pipeline)
    yield from _drift_flaws(pipeline)
    yield from _serve_flaws(pipeline)


def _config_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """Templates that the package does not hold, and names of files that the pipeline has for something else."""
    contents = () if pipeline.package is None else pipeline.package.contents
    for name, environment in pipeline.environments.items():
        for n, file in enumerate(environment.config):
            where = ("environments", name, "config")
            if contents and not any(matches(pattern, file.template) for pattern in contents):
                sentence = f'the template "{shortened(file.template)}" is no file of the package: add it to its code'
                yield Flaw((*where, n, "template"), sentence, lacking=("package", "code"))
            if file.told_as is not None and file.told_as in pipeline.variables:
                sentence = f'"{file.told_as}" is a variable of the pipeline already: choose another name'
                yield Flaw((*where, n, "as"), sentence)


def _probe_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """Recorded requests that no release could be asked, for the package does not hold them."""
    contents = () if pipeline.package is None else pipeline.package.contents
    for name, environment in pipeline.environments.items():
        file = None if environment.probe is None else environment.probe.requests
        if file is not None and contents and not any(matches(pattern, file) for pattern in contents):
            sentence = f'the recorded requests "{shortened(file)}" are no file of the package: add them to its code'
            yield Flaw(("environments", name, "probe", "requests"), sentence, lacking=("package", "code"))


def _drift_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    """Samples that the package does not hold, and runs asked for by environments that watch nothing."""
    contents = () if pipeline.package is None else pipeline.package.contents
    for name, environment in pipeline.environments.items():
        rules = environment.drift
        if rules is not None and contents and not any(matches(pattern, rules.reference) for pattern in contents):
            sentence = f'the sample "{shortened(rules.reference)}" is no file of the package: add it to its code'
            yield Flaw(("environments", name, "drift", "reference"), sentence, lacking=("package", "code"))
    known = tuple(pipeline.environments)
    for n, name in enumerate(() if pipeline.on is None else pipeline.on.drift):
        if name not in pipeline.environments:
            sentence = f'no environment is named "{shortened(name)}"'
            yield Flaw(("on", "drift", n), sentence, name, known, ("environments", name))
        elif pipeline.environments[name].drift is None:
            sentence = (
                f'environment "{name}" does not watch for drift: add drift: FILE to it, with a sample of requests'
            )
            yield Flaw(("on", "drift", n), sentence, lacking=("environments", name, "drift"))


def _serve_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    if not pipeline.environments:
        return
    if pipeline.package is None:
        sentence = "an environment needs a package to release: add package with model, code and serve"
        yield Flaw(("environments",), sentence, lacking=("package",), at_key=True)
    elif pipeline.package.serve is None and any(e.deploy is None for e in pipeline.environments.values()):
        sentence = "an environment needs a package that serves: add serve: COMMAND to the package"
        yield Flaw(("environments",), sentence, lacking=("package", "serve"), at_key=True)


def _champion_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    known = tuple(pipeline.environments)
    if pipeline.champion is not None:
        if pipeline.champion not in known:
            sentence = f'no environment is named "{shortened(pipeline.champion)}"'
            yield Flaw(("champion",), sentence, pipeline.champion, known, ("environments", pipeline.champion))
        return
    needed = {need for environment in pipeline.environments.values() for need in environment.needs}
    last = [name for name in known if name not in needed]
    if len(last) > 1 and needed.issubset(known):  # else a misspelt need is the mistake, and told already
        sentence = f'no environment needs "{last[0]}" or "{last[1]}": say which holds the champion, as champion: NAME'
        yield Flaw(("environments",), sentence, lacking=("champion",), at_key=True)
