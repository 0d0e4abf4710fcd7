"""Whether gates keep their promises, by simulation, and how quickly they decide.

    python benchmarks/gates.py examples                 # sample sizes of ease.ml/ci, and ours for the same guarantee
    python benchmarks/gates.py sequential [--runs 400]  # batches: examples, labels, undecided, beside what to beat
    python benchmarks/gates.py reuse [--runs 400]       # 200 equal commits on one test set, by five rules
    python benchmarks/gates.py coverage [--runs 20000]  # bounds that hold the truth, for all kinds of scores
    python benchmarks/gates.py ratios [--runs 4000]     # bounds of a ratio of benchmarks, for all kinds of timings
    python benchmarks/gates.py power [--runs 4000]      # passes at the planned number of examples; the digits gate
    python benchmarks/gates.py flips [--runs 4000]      # a model against itself, by every rule
    python benchmarks/gates.py speed [--rounds 3]       # a million examples: seconds and peak memory

Chances are shares of runs, each sub-command has a seed (`--seed 1`), and all ends with 0 whatever was found.
"""

import argparse
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from penstock.decisions import Kind, Rule, Word, decide
from penstock.gates import Verdict
from penstock.guarantees import (
    disagreement_bound,
    exact_level_examples,
    gain_bound,
    labels,
    level_bound,
    log_histories,
)
from penstock.intervals import Interval
from penstock.means import bootstrap_interval, difference_interval, mean_interval
from penstock.pipelines import Gate
from penstock.proportions import clopper_pearson, mcnemar, paired_shares, tango, wilson
from penstock.ratios import ratio_of_medians
from penstock.reuse_budgets import Ladder, share
from penstock.sample_sizes import (
    level_examples,
    level_power,
    mean_examples,
    normal_power,
    paired_examples,
    paired_power,
    planned_examples,
)
from penstock.samples import level, paired_gain
from penstock.self_tests import against_itself, slices_against_themselves
from penstock.sequences import begun, drawn_order, judged
from penstock.wholes import judge_whole
from side_by_side import sub_commands

Floats = npt.NDArray[np.float64]
Draw = np.random.Generator


def line(*cells: object, widths: tuple[int, ...] = (46, 14, 14, 14, 14)) -> None:
    """One row of a table: the first cell to the left, the others to the right."""
    print(
        " ".join(
            f"{cell!s:<{w}}" if i == 0 else f"{cell!s:>{w}}"
            for i, (cell, w) in enumerate(zip(cells, widths, strict=False))
        )
    )


# --- examples ------------------------------------------------------------------------------------------------------

REFERENCE = {
    (0.01, 0.1): (404, 1340, 1753, 5496),
    (0.01, 0.05): (1615, 5358, 7012, 21984),
    (1e-3, 0.01): (51868, 145443, 221333, 595633),
    (1e-4, 0.01): (63381, 156956, 267385, 641684),
}
"""Examples by risk and tolerance: F1 without and with full adaptivity, F2 without and with; 32 commits."""


def examples(_: argparse.Namespace) -> None:
    """Print the sizes of ease.ml/ci beside the published ones, and smaller ones."""
    line("ease.ml/ci, 32 commits", "F1 none", "F1 full", "F2 none", "F2 full")
    none, full = log_histories(32, "none"), log_histories(32, "full")
    for (delta, epsilon), published in REFERENCE.items():
        found = [size(epsilon, delta, h) for size in (level_bound, gain_bound) for h in (none, full)]
        line(f"  risk {delta:g}, tolerance {epsilon:g}", *(f"{n:,}" for n in found))
        line(
            "    as published",
            *("the same" if n == wanted else f"{wanted:,}" for n, wanted in zip(found, published, strict=True)),
        )
    bennett = partial(disagreement_bound, 0.01, 1e-4)
    for name, histories, wanted in (("none", none, "29,048"), ("full", full, "67,706")):
        n = bennett(histories, 0.1)
        line(f"disagreement .1, {name}: examples, labels", f"{n:,}", f"{labels(n, 0.1):,}", "published", wanted)
    print("smaller, with the same guarantee")
    worst = max((exact_level_examples(c / 100, 0.01, 1e-3, none), c) for c in range(30, 70))
    line("  F1, risk .001, tolerance .01, exact binomial", f"{worst[0]:,}", f"at {worst[1] / 100}", "to beat", "40,086")
    finest = max((exact_level_examples(c / 1000, 0.01, 1e-3, none), c) for c in range(460, 521))
    line("    the worst of levels in thousandths", f"{finest[0]:,}", f"at {finest[1] / 1000}")
    best = max((exact_level_examples(c / 100, 0.01, 1e-3, none), c) for c in range(90, 98))
    line("  the same for accuracies of .9 and more", f"{best[0]:,}", f"at {best[1] / 100}", "to beat", "14,819")
    for count, wanted in ((0, ""), (1, ""), (2, "34,842"), (4, ""), (8, "")):
        n = bennett(log_histories(32, "full", count), 0.1)
        line(f"  full adaptivity, at most {count} promotions", f"{n:,}", f"{labels(n, 0.1):,}", "to beat", wanted)


# --- sequential ----------------------------------------------------------------------------------------------------

CAP, BATCH = 29_048, 10
TO_BEAT = {0.0: (2113, 211, 0.0), 0.02: (8254, 826, 0.0), 0.03: (23451, 2345, 0.115), 0.06: (1861, 186, 0.0)}
"""By true gain: mean examples, labels, share undecided at the cap."""


def results(draw: Draw, n: int, disagreement: float, gain: float) -> Floats:
    """Differences of two models' scores of 0 and 1: -1, 0 and 1."""
    chances = [(disagreement - gain) / 2, 1 - disagreement, (disagreement + gain) / 2]
    return draw.choice([-1.0, 0.0, 1.0], n, p=chances)


def sequential(asked: argparse.Namespace) -> None:
    """Play "gain > .02 ± .01" in batches, at the guarantee of ease.ml/ci for 32 commits and a risk of 1e-4."""
    draw = np.random.default_rng(asked.seed)
    rule = Rule("better_than", 0.02, indifference=0.01, confidence=1 - 1e-4 / 32 / 2)
    line("gain > .02 ± .01, d = .1, 32 commits, δ = 1e-4", "examples", "labels", "undecided", "to beat")
    for gain, (n, labelled, undecided) in TO_BEAT.items():
        ends = [judged(begun(rule), results(draw, CAP, 0.1, gain), BATCH) for _ in range(asked.runs)]
        seen, moved = np.mean([end.n for end in ends]), np.mean([end.discordant for end in ends])
        open_ = np.mean([end.verdict == "inconclusive" for end in ends])
        beat = f"{n} {labelled} {undecided:.1%}"
        line(f"  true gain {gain}", f"{seen:,.0f}", f"{moved:,.0f}", f"{open_:.1%}", beat)
    for margin in (0.01, 0.03):
        rule = Rule("not_worse_than", margin)
        ends = [judged(begun(rule), results(draw, 360, 0.02, 0.0), BATCH) for _ in range(4 * asked.runs)]
        passed = np.mean([end.verdict == "pass" for end in ends])
        line(f"  passes within 360 examples, margin {margin}, d = .02", f"{passed:.1%}")
    line("no gain at all: passes at any time, d = .1, α = .05", "", "promised", "5 %")
    rule = Rule("better_than", 0.0)
    ends = [judged(begun(rule), results(draw, CAP, 0.1, 0.0), 100) for _ in range(asked.runs)]
    line("  within 29,048 examples", f"{np.mean([end.verdict == 'pass' for end in ends]):.1%}")


# --- reuse ---------------------------------------------------------------------------------------------------------

ALPHA = 0.05
Promotes = Callable[[int, int, int, int, float], bool]
"""Whether to promote, by wins, losses, number of the decision, examples, and the champion's accuracy."""


def _naive(wins: int, losses: int, _k: int, _n: int, _best: float) -> bool:
    return wins > losses


def _tested(wins: int, losses: int, _k: int, _n: int, _best: float) -> bool:
    return mcnemar(wins, losses) <= ALPHA


def _enforced(wins: int, losses: int, k: int, n: int, _best: float) -> bool:
    rule = Rule("better_than", 0.0, confidence=1 - share(k, ALPHA))
    return mcnemar(wins, losses) <= 2 * share(k, ALPHA) and _passes(rule, wins, losses, n)


@cache
def _passes(rule: Rule, wins: int, losses: int, n: int) -> bool:
    return decide(rule, paired_shares(wins, losses, n, rule.confidence)).verdict == "pass"


def _ladder(wins: int, losses: int, _k: int, n: int, best: float) -> bool:
    return Ladder(best, n).climbs(best + (wins - losses) / n)


RULES: dict[str, Promotes] = {
    "new > old": _naive,
    "McNemar p < .05, each": _tested,
    "reuse: enforce (α_k = 6α/π²k²)": _enforced,
    "Ladder, step 1/√n": _ladder,
}


def commits(draw: Draw, promotes: Promotes, relearned: float, n: int = 2000, count: int = 200) -> tuple[int, float]:
    """Promotions among as many commits of true accuracy .8, and by how much the last champion's is overstated.

    Each commit answers a share of the examples anew, as well as the champion would on new ones.
    """
    champion, promotions = draw.random(n) < 0.8, 0
    for k in range(1, count + 1):
        new = np.where(draw.random(n) < relearned, draw.random(n) < 0.8, champion)
        wins, losses = int((new & ~champion).sum()), int((champion & ~new).sum())
        if promotes(wins, losses, k, n, float(champion.mean())):
            champion, promotions = new, promotions + 1
    return promotions, 100 * (float(champion.mean()) - 0.8)


def reuse(asked: argparse.Namespace) -> None:
    """Play 200 commits, none better than the champion, on one test set of 2,000 examples."""
    for relearned in (0.1, 0.3125):
        title = f"200 equal commits, {32 * relearned:.1f} % of answers differ"
        line(title, "promoted", "any", "inflation", "± points")
        for name, promotes in RULES.items():
            draw = np.random.default_rng(asked.seed)
            ends = [commits(draw, promotes, relearned) for _ in range(asked.runs)]
            counts, inflation = np.array([c for c, _ in ends]), np.array([i for _, i in ends])
            error = inflation.std() / math.sqrt(len(ends))
            cells = f"{counts.mean():.2f}", f"{(counts > 0).mean():.1%}", f"{inflation.mean():+.2f}", f"{error:.2f}"
            line(f"  {name}", *cells)


# --- coverage ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Scores whose truth is known, and the interval that is to hold it."""

    name: str
    draw: Callable[[Draw], Interval]
    truth: float
    dear: bool = False


def _pairs(n: int, d: float, gain: float, how: Callable[[int, int, int, float], Interval], draw: Draw) -> Interval:
    wins, losses, _ = draw.multinomial(n, [(d + gain) / 2, (d - gain) / 2, 1 - d]).tolist()
    return how(wins, losses, n, 0.95)


def _clustered(n: int, repeats: int, draw: Draw) -> Interval:
    """Examples of different difficulty, scored by several seeds each, as 0 or 1."""
    hard = draw.beta(0.3, 0.1, n)
    one, other = (draw.random((n, repeats)) < hard[:, None] for _ in range(2))
    numbers = np.repeat(np.arange(n), repeats)
    return paired_gain(one.ravel().astype(float), other.ravel().astype(float), 0.95, numbers)


def _clustered_level(n: int, repeats: int, draw: Draw) -> Interval:
    right = draw.random((n, repeats)) < draw.beta(0.9, 0.3, n)[:, None]
    return level(right.ravel().astype(float), 0.95, np.repeat(np.arange(n), repeats))


def _heavy(n: int, draw: Draw) -> Interval:
    """Squared errors of two models whose errors have Student's law with 5 degrees of freedom."""
    return difference_interval(draw.standard_t(5, n) ** 2 - draw.standard_t(5, n) ** 2, 0.95)


def _sparse(n: int, draw: Draw) -> Interval:
    """Differences of which nine of ten are 0."""
    moved = draw.beta(2, 2, n) - draw.beta(2, 2, n)
    return difference_interval(moved * (draw.random(n) < 0.1), 0.95)


def _shares(n: int, level: float, flips: float, share: float, draw: Draw) -> Interval:
    """Scores of 0 and 1 at the very edge of a relative margin: new is by this share less than old."""
    lost, won = (flips + share * level) / 2, (flips - share * level) / 2
    counts = draw.multinomial(n, [won, lost, level - lost, 1 - level - won])
    old, new = np.repeat([0.0, 1.0, 1.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)
    return paired_gain(new, old, 0.95, scale=1 - share)


def _more_errors(n: int, share: float, draw: Draw) -> Interval:
    """Errors at the very edge of a relative margin: new are by this share more than old."""
    old = draw.lognormal(0, 0.5, n)
    return paired_gain(-(1 + share) * old * draw.lognormal(-0.02, 0.2, n), -old, 0.95, scale=1 + share)


def _pareto(n: int, draw: Draw) -> Interval:
    """Differences without a third moment."""
    return difference_interval(draw.pareto(2.2, n) - draw.pareto(2.2, n), 0.95)


def binary(draw: Draw, n: int) -> tuple[Floats, Floats]:
    """Scores of 0 and 1 of two models that differ on 5 %."""
    old = draw.random(n) < 0.8
    return (old ^ (draw.random(n) < 0.05)).astype(float), old.astype(float)


def worlds() -> Iterator[World]:
    """All that coverage is measured on."""
    counted = cache(paired_shares)
    for n, d, gain in ((360, 0.02, 0.0), (360, 0.04, -0.03), (360, 0.1, 0.05), (1000, 0.05, -0.01), (5000, 0.1, 0.02)):
        yield World(f"0/1 paired, n {n}, d {d}, gain {gain}", partial(_pairs, n, d, gain, counted), gain)
    yield World("  the same by Tango alone, n 360, d .04", partial(_pairs, 360, 0.04, -0.03, cache(tango)), -0.03)
    yield World("0/1 level .9, n 360, exact", lambda r: clopper_pearson(r.binomial(360, 0.9), 360, 0.95), 0.9)
    yield World("0/1 level .9, n 360, Wilson", lambda r: wilson(r.binomial(360, 0.9), 360, 0.95), 0.9)
    beta = 0.3 / 2.3
    yield World("bounded, Beta(.3, 2), n 360", lambda r: mean_interval(r.beta(0.3, 2, 360), 0.95), beta)
    yield World("  the same by BCa", lambda r: bootstrap_interval(r.beta(0.3, 2, 360), 0.95), beta, dear=True)
    yield World("bounded differences, 90 % of them 0, n 360", partial(_sparse, 360), 0.0)
    yield World("heavy: differences of squares, t(5), n 360", partial(_heavy, 360), 0.0)
    yield World("heavy: t(3), n 360", lambda r: difference_interval(r.standard_t(3, 360), 0.95), 0.0)
    yield World("heavy: differences of Pareto(2.2), n 360", partial(_pareto, 360), 0.0)
    for n, less, moved in ((360, 0.02, 0.04), (360, 0.02, 0.03), (100, 0.05, 0.1), (1000, 0.01, 0.05)):
        yield World(f"0/1, {less:.0%} less of .9, n {n}, d {moved}", partial(_shares, n, 0.9, moved, less), 0.0)
    yield World("errors, 5 % more, lognormal, n 360", partial(_more_errors, 360, 0.05), 0.0)
    yield World(
        "heavy and skewed: lognormal, n 360", lambda r: mean_interval(r.lognormal(size=360), 0.95), math.exp(0.5)
    )
    yield World("clusters: 200 examples × 5 seeds, gain", partial(_clustered, 200, 5), 0.0)
    yield World("clusters: 200 examples × 5 seeds, level", partial(_clustered_level, 200, 5), 0.75)


def coverage(asked: argparse.Namespace) -> None:
    """Draw samples, and count how often each bound is on the right side of the truth."""
    draw = np.random.default_rng(asked.seed)
    line("bounds of 95 %, both of 90 %", "low", "high", "both")
    for world in worlds():
        runs = asked.runs // 10 if world.dear else asked.runs
        found = [world.draw(draw) for _ in range(runs)]
        low = np.array([interval.low <= world.truth + 1e-12 for interval in found])
        high = np.array([interval.high >= world.truth - 1e-12 for interval in found])
        line(world.name, f"{low.mean():.3f}", f"{high.mean():.3f}", f"{(low & high).mean():.3f}")


# --- ratios --------------------------------------------------------------------------------------------------------

TIMINGS: dict[str, Callable[[Draw, int], Floats]] = {
    "lognormal, deviation .1": lambda draw, n: draw.lognormal(0, 0.1, n),
    "tail of Pareto(1.2)": lambda draw, n: 1 + 0.1 * draw.pareto(1.2, n),
    "a tenth of rounds slow": lambda draw, n: np.where(
        draw.random(n) < 0.1, 1.6 * np.exp(draw.exponential(2, n)), draw.lognormal(0, 0.02, n)
    ),
    "two modes, half each": lambda draw, n: np.where(draw.random(n) < 0.5, 1.35, 1) * draw.lognormal(0, 0.03, n),
}


def ratios(asked: argparse.Namespace) -> None:
    """Draw rounds of two equal benchmarks, and count how often each bound is on its side of 1."""
    draw = np.random.default_rng(asked.seed)
    line("bounds of 95 % of the ratio of medians", "low", "high")
    for name, rounds in TIMINGS.items():
        for new, old in ((5, 5), (20, 20), (200, 30), (1000, 1000)):
            found = [ratio_of_medians(rounds(draw, new), rounds(draw, old), 0.95, n) for n in range(asked.runs)]
            low, high = np.mean([(one.low <= 1, one.high >= 1) for one in found], axis=0)
            line(f"{name}, {new:,} and {old:,}", f"{low:.3f}", f"{high:.3f}")


# --- power ---------------------------------------------------------------------------------------------------------


def power(asked: argparse.Namespace) -> None:
    """Plan for a power of .8, and count passes at the planned number."""
    draw = np.random.default_rng(asked.seed)
    line("planned for 80 %, 0/1 scores", "normal law", "planned", "counted out", "simulated")
    for margin, d, gain in (
        (0.01, 0.02, 0.0),
        (0.03, 0.02, 0.0),
        (0.01, 0.1, 0.0),
        (0.02, 0.1, 0.005),
        (0.0, 0.1, 0.03),
    ):
        n = planned_examples(margin, d, gain)
        rule = Rule("not_worse_than", margin) if margin else Rule("better_than", 0.0)
        ends = draw.multinomial(n, [(d + gain) / 2, (d - gain) / 2, 1 - d], asked.runs).tolist()
        passed = np.mean([_passes(rule, wins, losses, n) for wins, losses, _ in ends])
        cells = f"{paired_examples(margin, d, gain):,}", f"{n:,}", f"{paired_power(n, margin, d, gain):.3f}"
        line(f"  margin {margin}, d {d}, gain {gain}", *cells, f"{passed:.3f}")
    rule = Rule("at_least", 0.85)
    n = level_examples(rule, 0.9)
    line("  at least .85, true .9", "", f"{n:,}", f"{level_power(n, rule, 0.9):.3f}")
    n = mean_examples(0.1, 1.0)
    rule = Rule("not_worse_than", 0.1)
    samples = (draw.standard_t(5, n) * math.sqrt(3 / 5) for _ in range(asked.runs))
    passed = np.mean([decide(rule, difference_interval(sample, 0.95)).verdict == "pass" for sample in samples])
    line("  numeric, margin .1 deviations, t(5)", "", f"{n:,}", "", f"{passed:.3f}")
    line("passes on 360 examples, d = .02, no change", "normal law", "", "counted out")
    for margin in (0.01, 0.03):
        law, counted = normal_power(360, margin, 0.02), paired_power(360, margin, 0.02)
        line(f"  margin {margin}", f"{law:.3f}", "", f"{counted:.3f}")
        line("    the most of any test that errs with 5 %", "", "", f"{most_power(360, margin, 0.02):.3f}")


def most_power(n: int, margin: float, disagreement: float) -> float:
    """The largest chance of a pass of equal models that any test has which errs with at most 5 % at the margin.

    By linear programming over the chance to pass at each result, randomised tests included, with the risk held at 26
    disagreements from the margin up to .08.
    """
    from scipy.optimize import linprog  # noqa: PLC0415 (a second, for this figure only)
    from scipy.special import gammaln, xlogy  # noqa: PLC0415

    wins, losses = np.arange(30.0)[:, None], np.arange(40.0)[None, :]
    ways = gammaln(n + 1) - gammaln(wins + 1) - gammaln(losses + 1) - gammaln(n - wins - losses + 1)

    def chances(d: float, gain: float) -> Floats:
        logs = xlogy(wins, max((d + gain) / 2, 0)) + xlogy(losses, (d - gain) / 2) + xlogy(n - wins - losses, 1 - d)
        found: Floats = np.exp(ways + logs).ravel()
        return found

    held = np.array([chances(d, -margin) for d in np.linspace(margin, 0.08, 26)])
    return -float(linprog(-chances(disagreement, 0.0), A_ub=held, b_ub=np.full(26, 0.05), bounds=(0, 1)).fun)


# --- flips ---------------------------------------------------------------------------------------------------------


def flips(asked: argparse.Namespace) -> None:
    """Judge models against themselves by every rule, ten times as often where counting is quick; slices and wholes."""
    draw = np.random.default_rng(asked.seed)
    new, old = binary(draw, 2000)
    numeric = np.abs(draw.standard_t(5, 2000))
    other = np.abs(draw.standard_t(5, 2000))
    rules = [Rule("better_than"), Rule("not_worse_than"), Rule("not_worse_than", 0.01, indifference=0.005)]
    rules += [Rule("better_than", 0.01, relative=True), Rule("not_worse_than", 0.02, relative=True)]
    line("a model against itself, α = 5 %", "0/1", "numeric")
    for rule in rules:
        runs = asked.runs // 4 if rule.relative else asked.runs
        pairs = ((new, old, runs if rule.relative else 10 * runs), (other, numeric, runs))
        found = [against_itself(rule, mine, theirs, rounds, asked.seed) for mine, theirs, rounds in pairs]
        name = f"{rule.kind} {rule.bound:g}{' relative' * rule.relative}, ε {rule.indifference:g}"
        line(f"  {name}", *(f"{test.flip_rate:.2%}" for test in found))
    kinds: tuple[Kind, ...] = ("at_least", "at_most")
    for kind in kinds:
        samples = ((old, 10 * asked.runs), (numeric, asked.runs))
        tests = [against_itself(Rule(kind, float(s.mean())), s, None, runs, asked.seed) for s, runs in samples]
        line(f"  {kind} at the very level", *(f"{test.flip_rate:.2%}" for test in tests))
    _slices(asked)
    line("eight comparisons of equal models as one gate", "wrong")
    for whole, wrong in (("all_of", "fail"), ("any_of", "pass")):
        line(f"  {whole}, better than 0: {wrong}", f"{_wholes(draw, whole, wrong, asked.runs):.2%}")


def _slices(asked: argparse.Namespace) -> None:
    """Two equal models in ten slices, of 200 examples each and of very different sizes."""
    names = [f"{which}{like}" for like in ("", ", uneven", ", numeric") for which in WAYS]
    line("ten slices of 2,000 examples, equal models", *names, widths=(42, *[15] * 6))
    draw = np.random.default_rng(asked.seed)
    new, old = binary(draw, 2000)
    numeric, other = np.abs(draw.standard_t(5, 2000)), np.abs(draw.standard_t(5, 2000))
    even = np.arange(0, 2001, 200)
    uneven = np.array([0, 20, 50, 100, 180, 300, 500, 750, 1050, 1450, 2000])
    rules = [Rule("better_than"), Rule("not_worse_than"), Rule("not_worse_than", 0.02, indifference=0.01)]
    rules += [Rule("not_worse_than", 0.02, relative=True), Rule("at_least", float(old.mean()))]
    for rule in rules:
        runs = max(asked.runs // 4, 100)
        found = [
            slices_against_themselves(rule, _cut(rule, (mine, theirs), cuts), which, runs, asked.seed).flip_rate
            for mine, theirs, cuts, runs in (
                (new, old, even, runs),
                (new, old, uneven, runs),
                (numeric, other, even, runs // 5),
            )
            for which in WAYS
        ]
        name = f"{rule.kind} {rule.bound:.3g}{' relative' * rule.relative}, ε {rule.indifference:g}"
        line(f"  {name}", *(f"{rate:.2%}" for rate in found), widths=(42, *[15] * 6))


WAYS: tuple[Literal["each", "worst"], ...] = ("each", "worst")


def _cut(rule: Rule, pair: tuple[Floats, Floats], cuts: npt.NDArray[np.int64]) -> list[tuple[Floats, Floats | None]]:
    places = [slice(int(start), int(end)) for start, end in pairwise(cuts.tolist())]
    return [(pair[0][part], pair[1][part] if rule.paired else None) for part in places]


def _wholes(draw: Draw, kind: str, wrong: str, runs: int) -> float:
    """How often eight comparisons of two equal models with each other, made one gate, say what is wrong."""
    members = [{"evidence": str(n), "better_than": "champion"} for n in range(8)]
    gate = Gate.model_validate({"name": "g", kind: members})
    seen = 0
    for _ in range(runs):
        rows = draw.multinomial(200, [0.05, 0.05, 0.9], 8).tolist()

        def judge(gate: Gate, rows: list[list[int]] = rows) -> Verdict:
            wins, losses, _ = rows[int(gate.about)]
            return Verdict(gate.name, _compared(wins, losses, gate.confidence or 0.95), None, ("",))

        seen += judge_whole(gate, judge).verdict == wrong
    return seen / runs


@cache
def _compared(wins: int, losses: int, confidence: float) -> Word:
    rule = Rule("better_than", confidence=confidence)
    return decide(rule, paired_shares(wins, losses, 200, confidence)).verdict


# --- speed ---------------------------------------------------------------------------------------------------------


def speed(asked: argparse.Namespace) -> None:
    """Decide on a million examples, from arrays of scores; the imports of numpy and scipy are part of the first."""
    n = 1_000_000
    draw = np.random.default_rng(asked.seed)
    new, old = binary(draw, n)
    numeric = draw.standard_t(4, n)
    other = numeric + draw.standard_t(4, n)
    rule = Rule("not_worse_than", 0.01)
    numbers = np.arange(n) // 4
    contenders: dict[str, Callable[[], object]] = {
        "0/1, paired": lambda: decide(rule, paired_gain(new, old, 0.95)),
        "numeric, paired": lambda: decide(rule, paired_gain(other, numeric, 0.95)),
        "numeric, 4 repeats each": lambda: decide(rule, paired_gain(other, numeric, 0.95, numbers)),
        "relative margin": lambda: decide(replace(rule, relative=True), paired_gain(new, old, 0.95, scale=0.99)),
        "level, exact": lambda: decide(Rule("at_least", 0.79), level(new, 0.95)),
        "0/1, order drawn, batches of 1,000, all played": lambda: _played(new, old),
        "numeric in [0, 1], one batch": lambda: judged(begun(rule), np.tanh(other) / 2 - np.tanh(numeric) / 2, n),
    }
    line("a million examples", "seconds", "promised 2 s")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, decides in contenders.items():
        taken = [_seconds(decides) for _ in range(asked.rounds)]
        line(f"  {name}", f"{min(taken):.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line("peak memory, MB; before any decision", f"{peak / 1024:.0f}", f"{before / 1024:.0f}", "promised 500")


def _played(new: Floats, old: Floats) -> object:
    order = drawn_order("c0ffee", len(new))
    strict = Rule("not_worse_than", 0.0, confidence=1 - 1e-9)
    return judged(begun(strict), (new - old)[order], 1000)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


COMMANDS = {
    "examples": (examples, 0),
    "sequential": (sequential, 400),
    "reuse": (reuse, 400),
    "coverage": (coverage, 20_000),
    "ratios": (ratios, 4_000),
    "power": (power, 4000),
    "flips": (flips, 4000),
    "speed": (speed, 0),
}
"""What each sub-command runs, and how often by default."""


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    sub_commands(__doc__, COMMANDS, rounds=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
