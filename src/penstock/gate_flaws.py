"""What is wrong with gates, though each value of them is fine: steps, files and baselines that they name."""

from collections.abc import Iterator, Mapping

from penstock.outlines import Flaw, Outline, Where
from penstock.pipelines import METRIC, Gate, Step
from penstock.recordings import NAMES
from penstock.recordings import STEP as REPLAY
from penstock.rules import FORMATS
from penstock.values import family_of, shortened


def gate_flaws(whole: Outline) -> Iterator[Flaw]:
    """What is wrong with gates, and with those that they are made of."""
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


def _leaf_flaws(whole: Outline, where: Where, gate: Gate) -> Iterator[Flaw]:
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


def _replay_flaws(whole: Outline, where: Where, gate: Gate) -> Iterator[Flaw]:
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


def _subject_flaws(whole: Outline, where: Where, gate: Gate, key: str, named: str) -> Iterator[Flaw]:
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


def _aggregate_flaws(whole: Outline, where: Where, gate: Gate, key: str, named: str) -> Iterator[Flaw]:
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


def _baseline_flaws(whole: Outline, where: Where, gate: Gate) -> Iterator[Flaw]:
    baseline, known = gate.baseline, tuple(whole.pipeline.environments)
    if baseline is not None and baseline.kind == "champion" and baseline.detail and baseline.detail not in known:
        sentence = f'no environment is named "{shortened(baseline.detail)}"'
        place = (*where, str(gate.baseline_key))
        yield Flaw(place, sentence, baseline.detail, known, ("environments", baseline.detail))
