"""Gates: a metric or evidence against its rule gives a verdict, with reasons in words and numbers.

Numbers are shown as short as they can be without contradicting the verdict, and compared as they are written: `0.7`
is not below `0.8 - 0.1`, although binary fractions say so.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from penstock.baselines import missing
from penstock.charts import Chart
from penstock.errors import ReportError
from penstock.evidence import Evidence, mean
from penstock.pipelines import Gate
from penstock.recordings import ABSENT, SEEN

_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided on a gate, on which value (None where there is none), and why."""

    gate: str
    verdict: Literal["pass", "fail", "inconclusive", "errored"]
    value: float | None
    reasons: tuple[str, ...]
    chart: Chart | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a metric is compared with: its version, its package's digest, its value of the metric (None without one).

    `words` name it in a sentence (`branch main (1.2)`); without any it is the champion. `apart` is what else should be
    known of it, in brackets (`on other data`), and `note` a sentence about it. A number that the file fixes has neither
    version nor digest.
    """

    version: str
    digest: str
    value: float | None
    words: str = ""
    apart: str = ""
    note: str = ""

    @property
    def called(self) -> str:
        """What it is called in a sentence."""
        return self.words or f"the champion {self.version}"


def judge_metric(
    gate: Gate,
    metrics: Mapping[str, float],
    baseline: Baseline | None,
    package: str | None = None,
    cells: Sequence[str] = (),
    lacking: str = "",
) -> Verdict:
    """Judge a metric. `metrics` are the run's, by `STEP.NAME`; `baseline` what it is compared with, None without one.

    `package` is the digest of the run's own package, `cells` the steps whose values an aggregate is made of. Against a
    baseline, higher is better: a metric that should be low needs `at_most`. Before there is a baseline there is nothing
    to be worse than, and that passes with a warning; `lacking` says why there is none, as a clause.
    """
    name = str(gate.metric)
    without = [cell for cell in cells if cell_metric(gate, cell) not in metrics]
    if without:
        return Verdict(gate.name, "errored", None, (_absent(cell_metric(gate, without[0]), metrics),))
    value = aggregated(gate, metrics, cells)
    if value is None:
        return Verdict(gate.name, "errored", None, (_absent(name, metrics),))
    if not math.isfinite(value):
        return Verdict(gate.name, "errored", None, (f"{name} is {value}, and no rule can be held against that",))
    if gate.against is None:
        found = _verdict(gate, value, f": the {gate.aggregate} of {_many(len(cells), 'cell')}" if cells else "")
        more = (SEEN[name],) if found.verdict == "fail" and name in SEEN else ()
        return replace(found, reasons=(*found.reasons, *more))
    return _against(gate, value, baseline, package) if baseline else without_baseline(gate, value, lacking)


def cell_metric(gate: Gate, cell: str) -> str:
    """The metric of one cell that a gate over all cells means: `train[seed=0].accuracy`."""
    return cell + str(gate.metric).removeprefix(gate.step)


def aggregated(gate: Gate, metrics: Mapping[str, float], cells: Sequence[str]) -> float | None:
    """The metric of a gate: its own, or what the gate makes of those of the cells; None where there is none.

    Without `cells` an aggregate is made of all cells that have the metric, as for a run whose cells were others.
    """
    if gate.aggregate is None:
        return metrics.get(str(gate.metric))
    ending = str(gate.metric).removeprefix(gate.step)
    names = [cell_metric(gate, cell) for cell in cells]
    names = names or [n for n in metrics if n.startswith(f"{gate.step}[") and n.endswith(f"]{ending}")]
    values = [metrics[name] for name in names]
    made: Mapping[str, Callable[[list[float]], float]] = {"mean": _mean_as_written, "min": min, "max": max}
    return made[gate.aggregate](values) if values else None


def _mean_as_written(values: Sequence[float]) -> float:
    """The mean of the numbers as they are written: of 0.7, 0.8 and 0.9 exactly 0.8. NaN and infinities stay so."""
    if not all(map(math.isfinite, values)):
        return sum(values)
    return float(sum(Decimal(repr(value)) for value in values) / len(values))


def judge_evidence(gate: Gate, evidence: Evidence | None) -> Verdict:
    """Judge the mean score of these very examples against a bound; None where the step left none.

    What speaks of more than these examples (by an interval, against the champion) is judged by `comparisons.py`.
    Examples without a prediction make it inconclusive: leaving out the hard ones must not help.
    """
    if evidence is None or not evidence:
        return Verdict(gate.name, "errored", None, (f"step {gate.evidence} left no evidence to judge",))
    try:
        verdict = judge_mean(gate, evidence.scored(gate.score or "correct").own.tolist())
    except ReportError as error:
        return Verdict(gate.name, "errored", None, (str(error),))
    doubts = tuple(_doubts(evidence))
    decided = "inconclusive" if evidence.unpredicted else verdict.verdict
    return Verdict(gate.name, decided, verdict.value, (*verdict.reasons, *doubts))


def judge_mean(gate: Gate, scores: Sequence[float]) -> Verdict:
    """Judge the mean of at least one score, with its own sign, against a bound that speaks of these examples only."""
    return _verdict(gate, mean(scores), _count(gate, gate.score or "correct", scores))


def _doubts(evidence: Evidence) -> Iterator[str]:
    if evidence.unpredicted:
        whole = evidence.unpredicted + len(evidence)
        yield f"{evidence.unpredicted} of {whole} examples have no prediction: predict them all to decide"
    if evidence.unlabelled:
        yield f"left out: {evidence.unlabelled} predictions whose id is not among the truth"


# --- rules ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """A bound and what it asks; `met` and `missed` are the words between value and bound, `more` those after it."""

    bound: float
    holds: Callable[[float], bool]
    met: str
    missed: str
    more: str = ""


def _rule(gate: Gate) -> _Rule:
    if gate.at_least is not None:
        least = gate.at_least
        return _Rule(least, lambda value: value >= least, "is at least", "is below")
    if gate.at_most is not None:
        most = gate.at_most
        return _Rule(most, lambda value: value <= most, "is at most", "is above")
    if gate.equals is not None:
        wanted = gate.equals
        return _Rule(wanted, lambda value: math.isclose(value, wanted, rel_tol=_TOLERANCE), "equals", "does not equal")
    if gate.within is not None:
        least, most = gate.within
        words = f" to {written(most)}"
        return _Rule(least, lambda value: least <= value <= most, "is within", "is not within", words)
    raise AssertionError(f"gate {gate.name} has no rule")


def _verdict(gate: Gate, value: float, detail: str) -> Verdict:
    rule = _rule(gate)
    passed = rule.holds(value)
    shown = next(text for text in _texts(value) if rule.holds(float(text)) == passed)
    sentence = f"{shown} {rule.met if passed else rule.missed} {written(rule.bound)}{rule.more}{detail}"
    return Verdict(gate.name, "pass" if passed else "fail", value, (sentence,))


def _count(gate: Gate, kind: str, scores: Sequence[float]) -> str:
    """What the mean is of: how many examples, how many of them correct, and how many that is off the rule."""
    if kind != "correct":
        return f": the mean {kind.replace('_', ' ')} of {_many(len(scores), 'example')}"
    right = round(math.fsum(scores))
    return f": {right} of {_many(len(scores), 'example')} correct{_off(gate, right, len(scores))}"


def _off(gate: Gate, right: int, whole: int) -> str:
    if gate.at_least is not None:
        lacking = math.ceil(Decimal(repr(gate.at_least)) * whole) - right
        return f", {lacking} fewer than needed" if lacking > 0 else ""
    if gate.at_most is not None:
        over = right - math.floor(Decimal(repr(gate.at_most)) * whole)
        return f", {over} more than allowed" if over > 0 else ""
    return ""


def _against(gate: Gate, value: float, baseline: Baseline, package: str | None) -> Verdict:
    if package == baseline.digest:
        return Verdict(gate.name, "pass", value, (f"this is the same package as {baseline.called}",))
    if baseline.value is None or not math.isfinite(baseline.value):
        reason = f"{baseline.called} has no value of {gate.metric}, so there is nothing to compare with"
        return Verdict(gate.name, "inconclusive", value, (reason,))
    less, margin = gate.against == "not_worse_than", _margin(gate, baseline.value)
    floor = Decimal(repr(baseline.value)) + (-margin if less else margin)

    def holds(number: Decimal, bound: Decimal) -> bool:
        return number >= bound if less else number > bound

    passed = holds(Decimal(repr(value)), floor)
    rows = zip(_texts(value), _texts(float(floor)), _texts(baseline.value), strict=True)
    exact = (written(value), f"{floor:f}", written(baseline.value))
    fits = (row for row in rows if holds(Decimal(row[0]), Decimal(row[1])) == passed)
    mine, bound, theirs = next(fits, exact)
    does = (("is at least", "is below") if less else ("is above", "is not above"))[not passed]
    has = f"{'has' if baseline.version else 'is'} {theirs}{f' ({baseline.apart})' if baseline.apart else ''}"
    size = f"{gate.margin} ({float(margin):.4g})" if gate.relative_margin is not None else written(float(margin))
    what = f"{baseline.called} {has}, {'less' if less else 'plus'} the margin of {size}"
    sentence = f"{mine} {does} {bound}: {what}"
    reason = f"{sentence}; {baseline.note}" if baseline.note else sentence
    return Verdict(gate.name, "pass" if passed else "fail", value, (reason,))


def _margin(gate: Gate, theirs: float) -> Decimal:
    """The margin in the unit of the metric: as it is written, or the share of the baseline's value."""
    if gate.relative_margin is None:
        return Decimal(repr(gate.absolute_margin))
    return Decimal(repr(gate.relative_margin)) * abs(Decimal(repr(theirs)))


def without_baseline(gate: Gate, value: float, lacking: str = "") -> Verdict:
    """Without a baseline there is nothing to be worse than: a warning, or a fail where the gate requires one.

    `lacking` says why there is none, as a clause.
    """
    lacking = lacking or no_baseline(gate)
    if gate.required:
        reason = f"{lacking}, and the gate requires a baseline: leave required out at first"
        return Verdict(gate.name, "fail", value, (reason,))
    reason = f"warning: {value:.4g} was compared with nothing, because {lacking}"
    return Verdict(gate.name, "pass", value, (reason,))


def no_baseline(gate: Gate) -> str:
    """That there is nothing yet under the name that the gate compares with, as a clause."""
    return "there is no baseline" if gate.baseline is None else missing(gate.baseline)


def counted(gate: Gate, verdict: str) -> str:
    """What a verdict is to its run: an inconclusive one fails, holds (stays inconclusive) or passes, by the file."""
    if verdict != "inconclusive":
        return verdict
    return {"fail": "fail", "hold": "inconclusive", "warn": "pass"}[gate.inconclusive]


def with_consequence(gate: Gate, found: Verdict) -> Verdict:
    """The verdict, with what the file makes of an inconclusive one among its reasons."""
    words = {"fail": (), "hold": ("held: nothing is released",), "warn": ("a warning only: the run goes on",)}
    more = words[gate.inconclusive] if found.verdict == "inconclusive" else ()
    return replace(found, reasons=(*found.reasons, *more))


# --- words and numbers ---------------------------------------------------------------------------------------------


def written(value: float) -> str:
    """A number as a person writes it, exactly: `50`, `0.85`, `1e-09`."""
    return repr(value).removesuffix(".0")


def _texts(value: float) -> Iterator[str]:
    """The number with 4, 5, … significant digits (whole numbers are never cut), and at last exactly."""
    size = math.floor(math.log10(abs(value))) if value else 0
    for digits in range(4, 17):
        if -5 <= size < 15:
            text = f"{value:.{max(digits - 1 - size, 0)}f}"
            yield text.rstrip("0").rstrip(".") if "." in text else text
        else:
            yield f"{value:.{digits}g}"
    yield written(value)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _absent(name: str, metrics: Mapping[str, float]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 (loaded for a mistake only)

    if name in ABSENT or not metrics:
        return f"there is no metric {name}: {ABSENT.get(name, 'no step of this run left any')}"
    nearest = get_close_matches(name, metrics, 1, 0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(sorted(metrics)[:5])}"
    return f"there is no metric {name}: {hint}"
