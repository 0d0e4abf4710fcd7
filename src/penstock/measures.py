"""Measures: gates on coverage, on benchmarks against a baseline's, and on the model's files.

Each takes what was measured as values and gives a verdict, with sentences that a person can act on. What could not be
measured is errored or inconclusive, never passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from penstock.charts import Chart
from penstock.comparisons import CONFIDENCE, percent, rounded, short
from penstock.coverages import coverage_of_change, neglected
from penstock.decisions import Decision, Rule, decide
from penstock.gates import Verdict, without_baseline, written
from penstock.models import sized
from penstock.ratios import LEAST_ROUNDS, ratio_of_medians

if TYPE_CHECKING:
    from penstock.coverages import Coverage
    from penstock.models import Model
    from penstock.pipelines import Gate

SHOWN = 5
"""Places and files that a reason names, at most."""


# --- coverage ------------------------------------------------------------------------------------------------------


def judge_coverage(gate: Gate, coverage: Coverage | None) -> Verdict:
    """Judge the share of all lines that ran; None where the step left no report."""
    if coverage is None:
        return Verdict(gate.name, "errored", None, (f"step {gate.coverage} left no coverage to judge",))
    if coverage.rate is None:
        return Verdict(gate.name, "errored", None, (f"the coverage of step {gate.coverage} counts no line of code",))
    ran, whole = coverage.covered, coverage.covered + coverage.missed
    return _share_judged(gate, ran, whole, f"{ran:,} of {_many(whole, 'line')} ran", ())


def judge_change(
    gate: Gate, coverage: Coverage | None, changed: Mapping[str, Sequence[range]], paths: Collection[str]
) -> Verdict:
    """Judge the share of changed lines with code that ran.

    `changed` are the lines of the change by path, `paths` all paths of the commit. Of a changed source that the report
    should have measured and did not, every changed line counts as one that did not run. Where no changed line holds
    code, there is nothing to cover, and that passes.
    """
    if coverage is None or coverage.rate is None:
        return judge_coverage(gate, coverage)
    found = coverage_of_change(coverage, changed)
    unknown = neglected(coverage, paths, (path for path in found.unmeasured if any(map(len, changed[path]))))
    missed = {path: tuple(line for part in changed[path] for line in part) for path in unknown} | dict(found.missed)
    ran, not_ran = (sum(map(len, lines.values())) for lines in (found.covered, missed))
    if not ran + not_ran:
        return Verdict(gate.name, "pass", None, ("no changed line holds code: there is nothing to cover",))
    details = [f"not covered: {_shortened(_places(missed))}"] if missed else []
    if unknown:
        details.append(f"not in the report at all: {_shortened(unknown)}")
    what = f"{ran:,} of {_many(ran + not_ran, 'changed line')} with code ran"
    return _share_judged(gate, ran, ran + not_ran, what, details)


def _share_judged(gate: Gate, ran: int, whole: int, what: str, details: Iterable[str]) -> Verdict:
    least = Decimal(repr(gate.at_least or 0.0))
    passed = ran >= least * whole
    lacking = "" if passed else f", {_many(math.ceil(least * whole) - ran, 'line')} fewer than needed"
    does = "at least" if passed else "below"
    (share,) = short([100 * ran / whole], [float(100 * least)])
    share = share.rstrip("0").rstrip(".") if "." in share else share
    sentence = f"{share} % is {does} {written(float(100 * least))} %: {what}{lacking}"
    return Verdict(gate.name, "pass" if passed else "fail", ran / whole, (sentence, *details))


def _places(lines: Mapping[str, Sequence[int]]) -> list[str]:
    """Places in files, neighbours as one: `a.py:3`, `a.py:7-9`."""
    found = []
    for path, numbers in sorted(lines.items()):
        start = None
        for number, after in zip(numbers, [*numbers[1:], None], strict=True):
            start = number if start is None else start
            if after != number + 1:
                found.append(f"{path}:{start}" if start == number else f"{path}:{start}-{number}")
                start = None
    return found


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- benchmarks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timing:
    """A benchmark as one side measured it: its rounds, or the one number there is, and the hardware.

    `hardware` is None where it was not kept.
    """

    value: float
    rounds: Sequence[float] = ()
    hardware: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Rival:
    """The baseline of a benchmark, as `words` name it; without a timing `lacking` says why there is none, a clause.

    `never` says that it was never measured there, as where the benchmark is new.
    """

    words: str
    timing: Timing | None
    lacking: str = "has no such benchmark"
    never: bool = False


def judge_benchmark(
    gate: Gate, timing: Timing | None, rival: Rival | None, absent: str = "", lacking: str = "", *, plain: bool = False
) -> Verdict:
    """Judge how many times as large a benchmark is as the baseline's.

    `timing` is None where the run has no such benchmark, and `absent` says so; `rival` is None where there is no
    baseline yet, and `lacking` says why. With rounds on both sides an interval of the ratio of medians decides; with
    single numbers the ratio itself, unless the gate asks for confidence; `plain` says that the file does not, though a
    gate that this one is a part of may. Other hardware is never compared.
    """
    if timing is None:
        return Verdict(gate.name, "errored", None, (absent,))
    if rival is None or (rival.timing is None and rival.never):
        lacking = lacking if rival is None else f"{rival.words} {rival.lacking}"
        return replace(without_baseline(gate, timing.value, lacking), value=None)
    reason = _apart(timing, rival)
    if rival.timing is None or reason:
        return Verdict(gate.name, "inconclusive", None, (reason,))
    low = min(timing.value, rival.timing.value, *timing.rounds, *rival.timing.rounds)
    if not low > 0:
        reason = f"{gate.benchmark} is {written(low)} in a round, and a ratio takes numbers above 0"
        return Verdict(gate.name, "errored", None, (reason,))
    if min(len(timing.rounds), len(rival.timing.rounds)) >= LEAST_ROUNDS:
        return _by_rounds(gate, timing, rival.timing, rival.words)
    asked = None if plain else gate.confidence
    return _by_numbers(gate, timing, rival.timing, rival.words, asked)


def _apart(timing: Timing, rival: Rival) -> str:
    """Why two timings say nothing of each other, as a sentence; empty where they were made on the same hardware."""
    if rival.timing is None:
        return f"{rival.words} {rival.lacking}, so there is nothing to compare with"
    ours, theirs = timing.hardware, rival.timing.hardware
    if not theirs or not ours:
        whose = rival.words if ours else "this run"
        return f"the hardware of {whose} was not kept, and speeds are compared on the same hardware only"
    if all(ours.get(key) == theirs.get(key) for key in {*ours, *theirs}):
        return ""
    here, there = _hardware(ours), _hardware(theirs)
    return f"this run was on {here}, {rival.words} on {there}: speeds are compared on the same hardware only"


def _hardware(values: Mapping[str, Any]) -> str:
    """A machine in words: processor, how many, accelerators."""
    name = str(values.get("processor") or values.get("machine") or "an unknown processor")
    gpus = [str(gpu) for gpu in values.get("gpus", ())]
    cards = [f"{gpus.count(gpu)} × {gpu}" for gpu in dict.fromkeys(gpus)]
    return " with ".join([f"{values.get('cpus', '?')} × {name}", *([" and ".join(cards)] if cards else [])])


def _by_rounds(gate: Gate, ours: Timing, theirs: Timing, words: str) -> Verdict:
    import numpy as np

    sure = gate.confidence or CONFIDENCE
    rule = Rule("at_most", gate.at_most, confidence=sure) if gate.at_most is not None else _least(gate, sure)
    decision = decide(rule, ratio_of_medians(np.array(ours.rounds), np.array(theirs.rounds), sure))
    found, chart = decision.interval, _chart(gate, decision)
    ratio, low, high = short([found.estimate, found.low, found.high], [rule.bound])
    rounds = f"the medians of {len(ours.rounds):,} and {len(theirs.rounds):,} rounds"
    side = "above" if rule.kind == "at_most" else "below"
    does = {
        "pass": f"are not {side} {written(rule.bound)}",
        "fail": f"are {side} {written(rule.bound)}",
        "inconclusive": f"do not exclude a ratio {side} {written(rule.bound)}",
    }[decision.verdict]
    tail = f"; about {rounded(decision.needed):,} rounds would decide" if decision.needed else ""
    sentence = f"{ratio} times {words} by {rounds}; its {percent(sure)} bounds {low} … {high} {does}"
    return Verdict(gate.name, decision.verdict, found.estimate, (f"{sentence}: {decision.verdict}{tail}",), chart)


def _least(gate: Gate, sure: float) -> Rule:
    return Rule("at_least", gate.at_least or 0.0, confidence=sure)


def _chart(gate: Gate, decision: Decision) -> Chart:
    found = decision.interval
    return Chart(
        kind="ratio",
        score=str(gate.benchmark),
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        least=gate.at_least,
        most=gate.at_most,
        confidence=decision.rule.confidence,
        n=found.n,
        discordant=None,
        method=found.method,
        needed=decision.needed,
    )


def _by_numbers(gate: Gate, ours: Timing, theirs: Timing, words: str, asked: float | None) -> Verdict:
    """Two numbers: what the ratio is can be told, how sure it is cannot."""
    value = ours.value / theirs.value
    numbers = f"{ours.value:.4g} against {theirs.value:.4g} of {words}"
    if asked is None:
        return _bounded(gate, value, f"{numbers}, without bounds, which take {LEAST_ROUNDS} rounds of both", _as_number)
    what = f"a ratio of {value:.4g}, {numbers}, has no bounds, and the gate asks for {percent(asked)}"
    hint = f"{what}: write {LEAST_ROUNDS} or more rounds of the benchmark, or leave confidence out"
    return Verdict(gate.name, "inconclusive", value, (hint,))


# --- the model's files ---------------------------------------------------------------------------------------------


def judge_model(gate: Gate, model: Model | None) -> Verdict:
    """Judge the files of the package's model by what was seen of them; None where it was not looked at."""
    if model is None or not model.files:
        return Verdict(gate.name, "errored", None, ("the package holds no model file to judge",))
    judged: Mapping[str, Callable[[Gate, Model], Verdict]] = {
        "size": _size,
        "parameters": _parameters,
        "format": _format,
        "risks": _risks,
    }
    return judged[str(gate.model)](gate, model)


def _size(gate: Gate, model: Model) -> Verdict:
    return _bounded(gate, model.size, _many(len(model.files), "file"), sized)


def _as_count(number: float, digits: int) -> str:
    return f"{number:,.{max(digits, 12)}g}"


def _as_number(number: float, digits: int) -> str:
    return f"{number:.{digits}g}"


def _parameters(gate: Gate, model: Model) -> Verdict:
    weights = model.weights
    if model.parameters is None:
        unknown = [f"{path} ({file.doubt or file.format})" for path, file in weights.items() if file.parameters is None]
        reason = f"the parameters cannot be counted without loading {_shortened(unknown)}"
        return Verdict(gate.name, "errored", None, (reason,))
    return _bounded(gate, model.parameters, f"the numbers in the tensors of {_many(len(weights), 'file')}", _as_count)


def _format(gate: Gate, model: Model) -> Verdict:
    allowed = gate.one_of or ()
    others = [f"{path} is {_kind(file.format)}" for path, file in model.weights.items() if file.format not in allowed]
    words = " or ".join(allowed)
    if others:
        return Verdict(gate.name, "fail", None, (f"{_shortened(others)}, not {words}",))
    kinds = " and ".join(model.formats)
    return Verdict(gate.name, "pass", None, (f"{_many(len(model.weights), 'file')} of format {kinds}",))


def _kind(kind: str) -> str:
    return "of no known format" if kind == "unknown" else kind


def _risks(gate: Gate, model: Model) -> Verdict:
    """A file that was not seen to its end may hold anything, so that it never passes."""
    found = [f"{path}: {risk}" for path, file in model.files.items() for risk in file.risks]
    doubts = [f"{path}: {file.doubt}" for path, file in model.files.items() if file.doubt is not None]
    told = f"loading the model could call {_shortened(found)}" if found else "loading the model only puts data together"
    verdict = _bounded(gate, len(found), told, _as_count)
    if verdict.verdict == "fail" or not doubts:
        return verdict
    reason = f"what loading the model could do cannot be told: {_shortened(doubts)}"
    return Verdict(gate.name, "errored", None, (reason, *(verdict.reasons if found else ())))


# --- bounds --------------------------------------------------------------------------------------------------------


def _bounded(gate: Gate, value: float, detail: str, text: Callable[[float, int], str]) -> Verdict:
    """A number against a bound; `text` writes it with so many digits, which are as many as do not contradict."""
    passed, does, edges = _held(gate, value)
    exact = 17
    others = [edge for edge in edges if edge != value]
    fits = (n for n in range(4, exact) if all(f"{value:.{n}g}" != f"{edge:.{n}g}" for edge in others))
    digits = next(fits, exact)
    bounds = " to ".join(text(edge, digits) for edge in edges)
    return Verdict(
        gate.name, "pass" if passed else "fail", value, (f"{text(value, digits)} {does} {bounds}: {detail}",)
    )


def _held(gate: Gate, value: float) -> tuple[bool, str, tuple[float, ...]]:
    """Whether a number meets the rule, in words, and the bounds of the rule."""
    if gate.at_least is not None:
        passed = value >= gate.at_least
        return passed, "is at least" if passed else "is below", (gate.at_least,)
    if gate.at_most is not None:
        passed = value <= gate.at_most
        return passed, "is at most" if passed else "is above", (gate.at_most,)
    if gate.equals is not None:
        passed = math.isclose(value, gate.equals, rel_tol=1e-12)
        return passed, "equals" if passed else "does not equal", (gate.equals,)
    least, most = gate.within or (-math.inf, math.inf)
    passed = least <= value <= most
    return passed, "is within" if passed else "is not within", (least, most)
