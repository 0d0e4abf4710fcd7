"""Comparisons: a gate on evidence that speaks of more than these examples is decided by an interval.

With `confidence` a level is judged by its interval; against the champion a gain always is, on the same examples. Where
the gate names slices, the same rule is held in these (`slicings.py`). The sentence says what was found, its bounds,
whether they leave the forbidden side open, and what would decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from penstock.charts import Chart
from penstock.decisions import Decision, Kind, Rule, Word, decide, flipped, refusal
from penstock.errors import ReportError
from penstock.evidence import ERRORS, paired
from penstock.families import all_of
from penstock.gates import Verdict, judge_evidence, judge_mean, no_baseline, without_baseline, written
from penstock.reuse_budgets import Budget
from penstock.samples import is_binary, level, paired_gain
from penstock.slicings import Claim, judge_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from penstock.evidence import Evidence, Pairs, Scores, Slices
    from penstock.pipelines import Gate
    from penstock.texts import Places

    Floats = npt.NDArray[np.float64]

MINUS = "\N{MINUS SIGN}"
_LEFT_OUT = "left out: "
"""How a reason begins that counts what did not match."""
CONFIDENCE = 0.95
"""Of a comparison with the champion where the file names none."""


@dataclass(frozen=True, slots=True)
class Champion:
    """What evidence is compared with, most often the package in production: version, digest, and its evidence on this
    run's test set.

    Without evidence `lacking` says why there is none, as a clause. `words` name it in a sentence (`branch main (1.2)`);
    without any it is the champion.
    """

    version: str
    digest: str
    evidence: Evidence | None
    lacking: str = "has no evidence on this test set"
    words: str = ""

    @property
    def called(self) -> str:
        """What it is called in a sentence."""
        return self.words or f"the champion {self.version}"

    @property
    def short(self) -> str:
        """The same, with the champion's version alone."""
        return self.called.removeprefix("the champion ")


def judge_examples(
    gate: Gate,
    evidence: Evidence | None,
    champion: Champion | None,
    package: str | None,
    budget: Budget | None = None,
    lacking: str = "",
) -> Verdict:
    """Judge a step's evidence; None where the step left none.

    `champion` is looked at only where the gate compares with it: None before the first release, which passes with a
    warning unless the gate says `required`. `package` is the digest of the run's own package; the champion itself is
    never worse than itself. Examples without a prediction make a verdict inconclusive, whatever the others say.
    `budget` counts the packages that were decided on this test set; where the gate enforces it, only pass or fail is
    told, with what is left of the risk for this package.
    """
    counts = () if budget is None or package is None else (budget.sentence(package),)
    if evidence is None or not len(evidence) or (not gate.by_interval and gate.slices is None):
        found = judge_evidence(gate, evidence)
        return replace(found, reasons=(*found.reasons, *counts))
    is_enforced = gate.reuse == "enforce" and budget is not None and package is not None
    if is_enforced and budget is not None and package is not None:
        gate = gate.model_copy(update={"confidence": budget.confidence_for(package)})
    try:
        scores = evidence.scored(gate.score or "correct")
        slices = evidence.sliced(gate.slices.by) if gate.slices is not None else ()
        if gate.against is not None:
            if champion is None:
                found = without_baseline(gate, float(scores.own.mean()), lacking)
            else:
                found = _compared(gate, scores, slices, evidence, champion, package)
        else:
            found = _everywhere(gate, slices, _of_levels(gate, scores.own))
    except ReportError as error:
        return Verdict(gate.name, "errored", None, (str(error),))
    found = _hidden(gate, found, champion, lacking) if is_enforced else found
    doubts = tuple(_doubts(evidence))
    decided = "inconclusive" if evidence.unpredicted and found.verdict != "errored" else found.verdict
    return Verdict(gate.name, decided, found.value, (*found.reasons, *doubts, *counts), found.chart)


def _hidden(gate: Gate, found: Verdict, champion: Champion | None, lacking: str) -> Verdict:
    """A verdict that tells nothing but pass or fail: who knows more writes the next commit with it in mind."""
    if found.chart is not None:
        word: Word = "pass" if found.verdict == "pass" else "fail"
        risk = f"{100 * (1 - (gate.confidence or CONFIDENCE)):.2g} %"
        reason = f"{word} with a risk of {risk}, this package's share; reuse: enforce tells no more"
        unmatched = (said for said in found.reasons if said.startswith(_LEFT_OUT))
        return Verdict(found.gate, word, None, (reason, *unmatched))
    if champion is None and found.verdict == "pass":
        reason = f"warning: nothing was compared, because {lacking or no_baseline(gate)}"
        return Verdict(found.gate, "pass", None, (reason,))
    return replace(found, value=None)


def _doubts(evidence: Evidence) -> list[str]:
    whole = evidence.unpredicted + len(evidence)
    lacking = f"{evidence.unpredicted:,} of {whole:,} examples have no prediction: predict them all to decide"
    beyond = f"{_LEFT_OUT}{evidence.unlabelled:,} predictions whose id is not among the truth"
    return [lacking] * bool(evidence.unpredicted) + [beyond] * bool(evidence.unlabelled)


def _everywhere(gate: Gate, slices: Sequence[Slices], claim: Claim) -> Verdict:
    """What a gate claims, judged of all examples, or in slices of them where it names some."""
    sure = gate.confidence or CONFIDENCE
    return judge_slices(gate, slices, claim, sure) if slices else claim.judge(slice(None), sure)


def _with(gate: Gate, confidence: float) -> Gate:
    return gate.model_copy(update={"confidence": confidence})


def rules_of(gate: Gate) -> tuple[Rule, ...]:
    """What a gate that an interval decides claims: one rule, or the two sides of a range. None for other gates."""
    if not gate.by_interval:
        return ()

    def rule(kind: Kind, bound: float) -> Rule:
        sure, is_error = gate.confidence or CONFIDENCE, gate.score in ERRORS
        share = gate.relative_margin is not None
        return Rule(kind, bound, share, gate.indifference or 0.0, sure, lower_is_better=is_error)

    if gate.against is not None:
        return (rule(gate.against, gate.relative_margin or gate.absolute_margin),)
    least, most = gate.within or (gate.at_least, gate.at_most)
    sides: tuple[tuple[Kind, float | None], ...] = (("at_least", least), ("at_most", most))
    return tuple(rule(kind, bound) for kind, bound in sides if bound is not None)


# --- levels --------------------------------------------------------------------------------------------------------


def _of_levels(gate: Gate, scores: Floats) -> Claim:
    """What a gate says of the mean scores of one model, with their own sign: of these examples, or by an interval."""

    def judged(places: Places | slice, confidence: float) -> Verdict:
        own = scores[places]
        return _level(_with(gate, confidence), own) if gate.by_interval else judge_mean(gate, own.tolist())

    return Claim(judged, _word_of(judged), lambda places: _distance(gate, float(scores[places].mean())))


def _word_of(judge: Callable[[Places | slice, float], Verdict]) -> Callable[[Places, float], str]:
    return lambda places, confidence: judge(places, confidence).verdict


def _distance(gate: Gate, mean: float) -> float:
    """How far a level is on the wrong side of a bound; less than 0 where it is on the right one."""
    if gate.equals is not None:
        return abs(mean - gate.equals)
    least, most = gate.within or (gate.at_least, gate.at_most)
    below = -math.inf if least is None else least - mean
    return max(below, -math.inf if most is None else mean - most)


def _level(gate: Gate, scores: Floats) -> Verdict:
    """The mean score of one model against a bound, or a range that it must lie in."""
    rule, *others = rules_of(gate)
    if others:
        return _range(gate, (rule, others[0]), scores)
    decision = decide(rule, level(scores, rule.confidence))
    is_least = rule.kind == "at_least"
    chart = _chart(gate, decision, *((rule.bound, None) if is_least else (None, rule.bound)))
    side = "below" if is_least else "above"
    does = {
        "pass": f"are not {side} {written(rule.bound)}",
        "fail": f"are {side} {written(exact(decision.edge))}",
        "inconclusive": f"do not exclude a level {side} {written(rule.bound)}",
    }
    return _judged(gate, chart, decision.verdict, does[decision.verdict], _tail(decision, scores))


def _range(gate: Gate, rules: tuple[Rule, Rule], scores: Floats) -> Verdict:
    """Both sides must pass; since either may fail by chance, a fail needs Holm's confidence."""

    def held(rule: Rule, confidence: float) -> Decision:
        return decide(replace(rule, confidence=confidence), level(scores, confidence))

    word, _ = all_of([lambda sure, rule=rule: held(rule, sure).verdict for rule in rules], rules[0].confidence)  # type: ignore[misc]
    decisions = [held(rule, rule.confidence) for rule in rules]
    doubtful = next((d for d in decisions if d.verdict == "inconclusive"), decisions[0])
    does = {"pass": "are within", "fail": "are outside", "inconclusive": "are not all within"}[word]
    least, most = (rule.bound for rule in rules)
    words = f"{does} {written(least)} to {written(most)}"
    return _judged(gate, _chart(gate, doubtful, least, most), word, words, _tail(doubtful, scores))


def _judged(gate: Gate, chart: Chart, word: Word, does: str, tail: str) -> Verdict:
    edges = [edge for edge in (chart.least, chart.most) if edge is not None]
    mean, low, high = short([chart.estimate, chart.low, chart.high], edges)
    kind = chart.score.replace("_", " ")
    what = f"{mean} correct on {chart.n:,} examples"
    what = what if kind == "correct" else f"a mean {kind} of {mean} on {chart.n:,} examples"
    sentence = f"{what}; its {percent(chart.confidence)} bounds {low} … {high} {does}: {word}{tail}"
    return Verdict(gate.name, word, chart.estimate, (sentence,), chart)


# --- the champion --------------------------------------------------------------------------------------------------


def _compared(
    gate: Gate,
    scores: Scores,
    slices: Sequence[Slices],
    evidence: Evidence,
    champion: Champion,
    package: str | None,
) -> Verdict:
    value = float(scores.own.mean())
    if package == champion.digest:
        return Verdict(gate.name, "pass", value, (f"this is the same package as {champion.called}",))
    if champion.evidence is None:
        reason = f"{champion.called} {champion.lacking}, so there is nothing to compare with"
        return Verdict(gate.name, "inconclusive", value, (reason,))
    pairs = paired(evidence, champion.evidence)
    if not len(pairs):
        reason = f"no example of this run is among those of {champion.called}"
        return Verdict(gate.name, "inconclusive", value, (f"{reason}: there is nothing to compare with",))
    new, old = pairs.scores(scores, champion.evidence.scored(scores.name))
    seed = int(evidence.test_set[:8], 16)
    claim = _of_gains(gate, champion, (new, old), scores.sign, seed)
    found = _everywhere(gate, [one.at(pairs.new) for one in slices], claim)
    return replace(found, reasons=(*found.reasons, *_left_out(pairs, champion)))


def _left_out(pairs: Pairs, champion: Champion) -> list[str]:
    other = champion.called.removesuffix(f" {champion.version}")
    apart = f"{pairs.only_new:,} examples that only this run has and {pairs.only_old:,} that only {other} has"
    found = [f"{_LEFT_OUT}{apart}"] if pairs.only_new or pairs.only_old else []
    return found + ([f"{_LEFT_OUT}{pairs.relabelled:,} examples with another truth"] if pairs.relabelled else [])


def _of_gains(gate: Gate, champion: Champion, pair: tuple[Floats, Floats], sign: int, seed: int) -> Claim:
    """What a gate says of the gain over the champion on the same examples, whose scores are higher is better."""
    new, old = pair
    scale = rules_of(gate)[0].scale
    if scale != 1 and sign == 1 and bool((old < 0).any()):
        reason = f"a share of the {gate.score} of {champion.called} needs values of 0 or more"
        raise ReportError(f"{reason}, and it has {old.min():.4g}: write the margin as a number")

    def judged(places: Places | slice, confidence: float) -> Verdict:
        return _gain(_with(gate, confidence), champion, (new[places], old[places]), sign, seed)

    def word(places: Places, confidence: float) -> str:
        wins, losses = int((new[places] > old[places]).sum()), int((new[places] < old[places]).sum())
        return flipped(rules_of(gate)[0], wins, losses, len(places), confidence)

    def distance(places: Places) -> float:
        return float(scale * old[places].mean() - new[places].mean())

    is_counted = scale == 1 and is_binary(new) and is_binary(old)
    return Claim(judged, word if is_counted else _word_of(judged), distance)


def _gain(gate: Gate, champion: Champion, pair: tuple[Floats, Floats], sign: int, seed: int) -> Verdict:
    new, old = pair
    (rule,) = rules_of(gate)
    decision = decide(rule, paired_gain(new, old, rule.confidence, scale=rule.scale, seed=seed))
    if rule.relative:
        decision = _in_shares(decision, float(old.mean()))
    chart = _chart(gate, decision, decision.edge if rule.relative else rule.threshold, None)
    reason = _gain_sentence(decision, chart, champion, pair)
    return Verdict(gate.name, decision.verdict, sign * float(new.mean()), (reason,), chart)


def _in_shares(decision: Decision, mean: float) -> Decision:
    """The same decision in shares of the other model's mean score, in which a relative margin is written.

    Decided is whether new - scale * old is above 0; that over the mean of old, less the margin, is the gain as a share.
    It is exact at the edge, so bounds and edge stand to each other as they did. Raises ReportError for a mean of 0.
    """
    if not mean:
        raise ReportError("the baseline's mean is 0, and no share of that is a margin: write the margin as a number")
    rule, found = decision.rule, decision.interval
    edge = -rule.bound if rule.kind == "not_worse_than" else rule.bound
    shares = [number / abs(mean) + edge for number in (found.estimate, found.low, found.high)]
    interval = replace(found, estimate=shares[0], low=shares[1], high=shares[2])
    return replace(decision, interval=interval, edge=edge)


def _gain_sentence(decision: Decision, chart: Chart, champion: Champion, pair: tuple[Floats, Floats]) -> str:
    in_points = chart.score == "correct" and not chart.relative
    factor = 100 if in_points or chart.relative else 1
    edge = exact(factor * decision.edge)
    gain, low, high = short([factor * n for n in (chart.estimate, chart.low, chart.high)], [edge], signed=True)
    unit = " points" if in_points else " %" if chart.relative else ""
    size = f"{gain.lstrip(f'+{MINUS}')}{unit}"
    what = {"+": f"{size} better than", MINUS: f"{size} worse than"}.get(gain[0], "as good as")
    whose = f"the {abs(float(pair[1].mean())):.4g} of {champion.short}" if chart.relative else champion.short
    of = "" if chart.score == "correct" else f" by the mean {chart.score.replace('_', ' ')}"
    counts = f" ({_flips(*pair)})" if chart.score == "correct" and chart.discordant else ""
    where = f"{what} {whose}{of} on the same {chart.n:,} examples{counts}"
    unit = " point" if in_points and abs(edge) == 1 else unit
    does = _gain_words(decision, f"{written(abs(edge))}{unit}" if edge else "")
    bounds = f"its {percent(chart.confidence)} bounds {low} … {high}{' %' * chart.relative} {does}"
    return f"{where}; {bounds}: {decision.verdict}{_tail(decision, *pair)}"


def exact(number: float) -> float:
    """A scaled bound as a person would write it: 3, not 3.0000000000000004."""
    return float(f"{number:.12g}")


def _flips(new: Floats, old: Floats) -> str:
    return f"{int((new > old).sum()):,} newly right, {int((new < old).sum()):,} newly wrong"


def _gain_words(decision: Decision, size: str) -> str:
    """What the bounds do with the edge of the rule, in words; `size` is the edge's, empty at zero."""
    better = decision.rule.kind == "better_than"
    is_gain = decision.edge > 0 or (decision.edge == 0 and better)
    amount = f"a {'gain' if is_gain else 'loss'}{f' of {size}' if size else ''}"
    shown = f"are beyond {amount}" if size else f"show {amount}"
    if decision.verdict == "pass":
        return shown if better else f"exclude {amount}"
    if decision.verdict == "fail":
        return f"exclude {amount}" if is_gain else shown
    return f"do not show {amount}" if better else f"do not exclude {amount}"


# --- words and numbers ---------------------------------------------------------------------------------------------


def _chart(gate: Gate, decision: Decision, least: float | None, most: float | None) -> Chart:
    found, score = decision.interval, gate.score or "correct"
    return Chart(
        kind="gain" if decision.rule.paired else "level",
        score=score,
        estimate=found.estimate,
        low=found.low,
        high=found.high,
        least=least,
        most=most,
        confidence=decision.rule.confidence,
        n=found.n,
        discordant=found.discordant,
        method=found.method,
        needed=decision.needed,
        relative=decision.rule.relative,
    )


def _tail(decision: Decision, *scores: Floats) -> str:
    """What would decide, where nothing is decided: never more than a test set can do."""
    if decision.verdict != "inconclusive":
        return ""
    never = refusal(decision.rule, decision.interval.n) if all(map(is_binary, scores)) else None
    if never is not None:
        return f"; {never}"
    return f"; about {rounded(decision.needed):,} examples would decide" if decision.needed else ""


def rounded(count: int) -> int:
    """A count in two digits, rounded up: a promise of 2,100 is not made where 2,140 are needed."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


def percent(confidence: float) -> str:
    """A confidence or a risk in percent, with three digits of the smaller side: `95 %`, `99.9 %`, `99.286 %`."""
    number = Decimal(repr(confidence)) * 100
    decimals = max(2 - min(number, 100 - number).adjusted(), 0)
    text = f"{number:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def short(numbers: Sequence[float], edges: Sequence[float], *, signed: bool = False) -> list[str]:
    """Numbers in as few decimals as keep each on its side of every edge: gains in one or more, levels in four.

    Between the outermost numbers lie two digits or more, so that small doubts can be seen.
    """
    size = max((abs(n) for n in (*numbers, *edges)), default=0.0)
    width = max(numbers) - min(numbers)
    fewest = max(int(signed), (1 if signed else 3) - _magnitude(size), 1 - _magnitude(width))
    for decimals in range(min(fewest, 12), 13):
        if all(_side(round(n, decimals), e) == _side(n, e) for n in numbers for e in edges):
            return [_text(n, decimals, signed=signed) for n in numbers]
    return [_text(n, 12, signed=signed) for n in numbers]


def _magnitude(number: float) -> int:
    """The power of ten of the first digit; 0 where there is none to show."""
    return math.floor(math.log10(number)) if number >= 1e-12 else 0


def _side(number: float, edge: float) -> int:
    near = math.isclose(number, edge, rel_tol=1e-12, abs_tol=1e-15)
    return 0 if near else 1 if number > edge else -1


def _text(number: float, decimals: int, *, signed: bool) -> str:
    text = f"{abs(number):.{decimals}f}"
    if not float(text):
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{MINUS if number < 0 else '+' if signed else ''}{text}"
