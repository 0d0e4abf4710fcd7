"""What is wrong with a pipeline as a whole, though each value of it is fine: names, loops, collisions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from penstock.patterns import has_wildcard, matches
from penstock.pipelines import PLACE, Outputs, Pipeline, needs, shortened

MAX_STEPS = 500
MAX_WILDCARDS = 100
MAX_PATHS = 2_000

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
    """What only the whole pipeline can show: names that do not exist, loops, collisions; empty where it is sound."""
    if too_many := list(_size_flaws(pipeline)):
        return too_many
    found = [*_interpolation_flaws(pipeline), *_need_flaws(pipeline), *_output_flaws(pipeline)]
    found += [*_truth_flaws(pipeline), *_gate_flaws(pipeline), *_environment_flaws(pipeline)]
    return [*found, *_champion_flaws(pipeline)]


def _size_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    if len(pipeline.steps) > MAX_STEPS:
        yield Flaw(("steps",), f"expected at most {MAX_STEPS} steps, found {len(pipeline.steps)}")
    steps = pipeline.steps.values()
    patterns = {p for s in steps for p in (*(s.inputs or ()), *(s.outputs or ()))}
    patterns.update(pipeline.package.contents if pipeline.package else ())
    if len(patterns) > MAX_PATHS:
        yield Flaw(("steps",), f"expected at most {MAX_PATHS:,} different paths, found {len(patterns):,}: name folders")
    wild = sum(map(has_wildcard, patterns))
    if wild > MAX_WILDCARDS:
        yield Flaw(("steps",), f"expected at most {MAX_WILDCARDS} paths with wildcards, found {wild}: name folders")


def _texts(pipeline: Pipeline) -> Iterator[tuple[Where, str]]:
    """All texts that are interpolated."""
    yield from ((("variables", key), value) for key, value in pipeline.variables.items())
    for name, step in pipeline.steps.items():
        yield ("steps", name, "run"), step.run
        yield from ((("steps", name, "variables", key), value) for key, value in step.variables.items())
    if pipeline.package is not None and pipeline.package.serve is not None:
        yield ("package", "serve"), pipeline.package.serve
    for name, environment in pipeline.environments.items():
        yield from ((("environments", name, "variables", k), v) for k, v in environment.variables.items())


def _interpolation_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    known = ("version", "commit", *(f"variables.{name}" for name in pipeline.variables))
    for where, text in _texts(pipeline):
        for inside, end in dict.fromkeys(PLACE.findall(text)):
            word = inside.strip()
            if not end:
                yield Flaw(where, '"${{" is not closed: expected a name and "}}" after it')
            elif word.startswith("matrix."):
                yield Flaw(where, '"matrix" is not available yet')
            elif word not in known:
                lacking = ("variables", word.partition(".")[2])
                yield Flaw(where, f'"${{{{ {shortened(word)} }}}}" names nothing', word, known, lacking)
            elif "${{" in pipeline.variables.get(word.removeprefix("variables."), "") and where[-2] == "variables":
                yield Flaw(where, f'"{word}" is interpolated itself: a variable can refer to a plain one only')


def _need_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    known = (*pipeline.steps, *(["package"] if pipeline.package else []))
    for name, step in pipeline.steps.items():
        for n, need in enumerate(step.needs):
            where = ("steps", name, "needs", n)
            if need == "package" and pipeline.package is None:
                yield Flaw(where, '"package" is needed, but the file has no package', lacking=("package",))
            elif need == name:
                yield Flaw(where, f'step "{name}" needs itself')
            elif need.partition("[")[0] in pipeline.steps and "[" in need:
                yield Flaw(where, f'"{shortened(need)}" names a cell of a matrix, which is not available yet')
            elif need not in known:
                yield Flaw(where, f'no step is named "{shortened(need)}"', need, known, ("steps", need))
    if loop := _loop(needs(pipeline)):
        yield Flaw(_culprit(pipeline, loop), f"the steps need each other in a loop: {_told(loop)}")


def _loop(wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """One loop, from a name back to itself, or nothing."""
    try:
        TopologicalSorter({name: sorted(others) for name, others in wanted.items()}).prepare()
    except CycleError as error:
        loop: list[str] = error.args[1][::-1]
        names = list(wanted)
        first = min(range(len(loop) - 1), key=lambda n: names.index(loop[n]))
        return [*loop[first:-1], *loop[: first + 1]]
    return []


def _told(loop: list[str]) -> str:
    shown = loop if len(loop) <= 12 else [*loop[:10], "…", loop[-1]]
    return " needs ".join(shown)


def _culprit(pipeline: Pipeline, loop: list[str]) -> Where:
    """The value by which the first of a loop needs the second; the package's by which it does, where it is first."""
    name, need = loop[0], loop[1]
    step = pipeline.steps[name]
    if need in step.needs:
        return ("steps", name, "needs", step.needs.index(need))
    outputs = Outputs(pipeline)
    places = (n for n, pattern in enumerate(step.inputs or ()) if need in outputs.owners(pattern))
    place = next(places, None)
    return ("steps", name, "evidence", "truth") if place is None else ("steps", name, "inputs", place)


def _output_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    outputs, names = Outputs(pipeline), list(pipeline.steps)
    for at, (name, step) in enumerate(pipeline.steps.items()):
        earlier = set(names[:at])
        for n, pattern in enumerate(step.outputs or ()):
            for other in sorted(outputs.owners(pattern) & earlier, key=names.index)[:1]:
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


def _gate_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    for name, gate in pipeline.gates.items():
        key = "evidence" if gate.evidence is not None else "metric"
        where = ("gates", name, key)
        step = pipeline.steps.get(gate.step)
        if key == "metric" and not re.fullmatch(r"[^.]+\.\S*[^\s.]", gate.metric or ""):
            yield Flaw(where, f'expected a metric as STEP.NAME, such as train.accuracy, found "{gate.metric}"')
        elif step is None:
            sentence = f'no step is named "{shortened(gate.step)}"'
            yield Flaw(where, sentence, gate.step, tuple(pipeline.steps), ("steps", gate.step))
        elif key == "evidence" and step.evidence is None:
            sentence = f'step "{step.name}" has no evidence: add evidence: FILE to it'
            yield Flaw(where, sentence, lacking=("steps", step.name, "evidence"))
        elif key == "metric" and step.metrics is None and step.benchmark is None:
            sentence = f'step "{step.name}" has neither metrics nor benchmark: add metrics: FILE to it'
            yield Flaw(where, sentence, lacking=("steps", step.name, "metrics"))


def _environment_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    ports: dict[int, str] = {}
    known = tuple(pipeline.environments)
    for name, environment in pipeline.environments.items():
        for n, need in enumerate(environment.needs):
            if need == name:
                yield Flaw(("environments", name, "needs", n), f'environment "{name}" needs itself')
            elif need not in known:
                sentence = f'no environment is named "{shortened(need)}"'
                yield Flaw(("environments", name, "needs", n), sentence, need, known, ("environments", need))
        if (other := ports.setdefault(environment.port, name)) != name:
            sentence = f'the port {environment.port} is that of environment "{other}" too: choose another'
            yield Flaw(("environments", name, "port"), sentence)
    wanted = {name: [n for n in e.needs if n in known and n != name] for name, e in pipeline.environments.items()}
    if loop := _loop(wanted):
        place = pipeline.environments[loop[0]].needs.index(loop[1])
        sentence = f"the environments need each other in a loop: {_told(loop)}"
        yield Flaw(("environments", loop[0], "needs", place), sentence)
    yield from _serve_flaws(pipeline)


def _serve_flaws(pipeline: Pipeline) -> Iterator[Flaw]:
    if not pipeline.environments:
        return
    if pipeline.package is None:
        sentence = "an environment needs a package to release: add package with model, code and serve"
        yield Flaw(("environments",), sentence, lacking=("package",), at_key=True)
    elif pipeline.package.serve is None:
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
