"""What is wrong with a pipeline as a whole, though each value of it is fine: names, loops, collisions."""

from collections.abc import Container, Iterable, Iterator, Mapping

from penstock.environment_flaws import champion_flaws, environment_flaws
from penstock.gate_flaws import gate_flaws
from penstock.matrices import MAX_CELLS, Cell, combinations, filled, fits, in_order, size
from penstock.outlines import Flaw, Outline, Where, loop_of, told
from penstock.parts import LOOKED_AT, Matrix
from penstock.patterns import has_wildcard, matches
from penstock.pipelines import (
    MAX_NEEDS,
    PLACE,
    Package,
    Pipeline,
    Step,
    TooLargeError,
    reads,
)
from penstock.values import cell_name, family_of, shortened

MAX_STEPS = 20_000
"""Cells count as steps."""
MAX_AXES = 16
MAX_WILDCARDS = 1_000
"""Different paths with wildcards: each takes a while to prepare."""
MAX_FILLED = 1 << 20
"""Characters of a text once its places are filled in; of all cells' texts together, 16 times as many."""


def flaws(pipeline: Pipeline) -> list[Flaw]:
    """What only the whole pipeline can show: names that do not exist, loops, collisions; empty where it is sound.

    The pipeline is as the file has it: its matrices are not expanded.
    """
    if too_large := [*_size_flaws(pipeline)]:
        return too_large
    try:
        return [*_flaws(Outline(pipeline))]
    except TooLargeError as error:
        return [Flaw(("steps",), str(error))]


def _flaws(whole: Outline) -> Iterator[Flaw]:
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
    yield from gate_flaws(whole)
    yield from environment_flaws(pipeline)
    yield from champion_flaws(pipeline)


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


def _matrix_flaws(whole: Outline) -> Iterator[Flaw]:
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


def _interpolation_flaws(whole: Outline) -> Iterator[Flaw]:
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


def _axis_flaw(whole: Outline, where: Where, word: str, axes: tuple[str, ...]) -> Flaw:
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


def _need_flaws(whole: Outline) -> Iterator[Flaw]:
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
    if loop := loop_of(whole.needs):
        yield Flaw(_culprit(whole, loop), f"the steps need each other in a loop: {told(loop)}")


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


def _need_flaw(whole: Outline, where: Where, name: str, need: str) -> Flaw | None:
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


def _culprit(whole: Outline, loop: list[str]) -> Where:
    """The value by which the first of a loop needs the second; the package's by which it does, where it is first."""
    name, need = loop[0], loop[1]
    step = whole.pipeline.steps[name]
    named = next((n for n, written in enumerate(step.needs) if family_of(written) == need), None)
    if named is not None:
        return ("steps", name, "needs", named)
    places = (n for n, pattern in enumerate(step.inputs or ()) if need in whole.outputs.owners(pattern))
    place = next(places, None)
    return ("steps", name, "evidence", "truth") if place is None else ("steps", name, "inputs", place)


def _cell_flaws(whole: Outline) -> Iterator[Flaw]:
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


def _wanted(whole: Outline, step: Step) -> Iterator[list[str]]:
    """The needs of each cell of a step, or of the step itself."""
    for cell in whole.variants.get(step.name, ({},)):
        yield [name for need in step.needs for name in _filled(need, step, (cell,))]


def _read_of_cells(whole: Outline, step: Step) -> dict[str, tuple[Where, str]]:
    """The steps with cells whose outputs a step reads, each with the first pattern that does and its place."""
    read: dict[str, tuple[Where, str]] = {}
    inputs = len(step.inputs or ())
    for n, pattern in enumerate(reads(step)):
        where = ("steps", step.name, *(("inputs", n) if n < inputs else ("evidence", "truth")))
        for owner in sorted(whole.outputs.owners(pattern) & whole.cells.keys() - {step.name}):
            read.setdefault(owner, (where, pattern))
    return read


def _choice_flaw(
    whole: Outline, step: Step, read: Mapping[str, tuple[Where, str]], chosen: Mapping[str, set[str]]
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


def _chosen(whole: Outline, wanted: Iterable[str]) -> dict[str, set[str]]:
    """The cells that are needed, by their step; a step's name means them all."""
    chosen: dict[str, set[str]] = {}
    for need in wanted:
        if family_of(need) in whole.cells:
            chosen.setdefault(family_of(need), set()).update(whole.cells.get(need, (need,)))
    return chosen


def _cells_told(whole: Outline, where: Where, what: str, owner: str, hint: str) -> Flaw:
    names = [*whole.cells[owner]]
    shown = ", ".join(f'"{name}"' for name in names[:5]) + (" …" if len(names) > 5 else "")
    lacking = ("steps", owner, "matrix")
    return Flaw(where, f'{what} step "{owner}", which has cells: {hint}, of {shown}', lacking=lacking)


def _package_flaws(whole: Outline, package: Package) -> Iterator[Flaw]:
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


def _request_flaws(whole: Outline) -> Iterator[Flaw]:
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


def _package_need_flaw(whole: Outline, where: Where, need: str) -> Flaw | None:
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


def _output_flaws(whole: Outline) -> Iterator[Flaw]:
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
