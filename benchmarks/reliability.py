"""Whether what `penstock insight` says holds, by simulation: intervals, and forecasts beside two trivial ones.

    python benchmarks/reliability.py failures [--runs 400]     # bounds for the failures of the next commit
    python benchmarks/reliability.py coverage [--runs 400]     # bounds for the chance of the whole path
    python benchmarks/reliability.py calibration [--runs 40]   # Brier, log loss, ECE, coverage, beside the trivial ones
    python benchmarks/reliability.py speed [--rounds 5]        # what 500 commits take

Everything is drawn from a seed (`--seed 1`), and all ends with 0 whatever was found.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from penstock.reliability import (
    PREDICTORS,
    PRIOR_MEANS,
    Calibration,
    Cycle,
    RunEffect,
    backtest,
    failures,
    learned,
    passing,
)
from side_by_side import sub_commands

Floats = npt.NDArray[np.float64]
Draw = np.random.Generator
TOTALS = (10, 20, 200, 5)
"""Checks per stage, where a stage has many that share the commit's effect."""
WORSE = (0.7, 0.8, 0.9, 0.95)


def line(*cells: object, widths: tuple[int, ...] = (44, 11, 11, 11, 11, 11)) -> None:
    """One row of a table: the first cell to the left, the others to the right."""
    shown = zip(cells, widths, strict=False)
    print(" ".join(f"{cell!s:<{w}}" if i == 0 else f"{cell!s:>{w}}" for i, (cell, w) in enumerate(shown)))


def odds_of(chances: Sequence[float]) -> Floats:
    """Log odds."""
    found: Floats = np.log(chances) - np.log1p(-np.asarray(chances))
    return found


def many(draw: Draw, n: int, totals: Sequence[int], deviation: float) -> list[Cycle]:
    """Commits with so many checks per stage."""
    shifted = odds_of(PRIOR_MEANS) + draw.normal(0, deviation, (n, 1))
    passed = draw.binomial(totals, 1 / (1 + np.exp(-shifted)))
    return [Cycle(tuple(zip(row, totals, strict=True))) for row in passed.tolist()]


def path(draw: Draw, odds: Floats, effects: Floats, *, stops: bool) -> Iterator[Cycle]:
    """Commits with a verdict per stage; where it stops, what comes after a red stage tells nothing. One per effect."""
    rows = np.broadcast_to(odds, (len(effects), odds.shape[-1]))
    for row, effect in zip(rows, effects, strict=True):
        passed = (draw.random(len(row)) < 1 / (1 + np.exp(-row - effect))).tolist()
        first = passed.index(False) if stops and False in passed else len(passed)
        yield Cycle(tuple((int(p), 1) if i <= first else (0, 0) for i, p in enumerate(passed)))


# --- intervals -----------------------------------------------------------------------------------------------------


def failing(asked: argparse.Namespace) -> None:
    """Learn from a history, and count how often the next commit's failures are within the bounds."""
    line("failures of the next commit, bounds of 90 %", "with τ", "without", "τ found")
    for deviation in (0.0, 0.5, 1.0, 1.5):
        for n in (20, 60):
            draw, held, found = np.random.default_rng(asked.seed), np.zeros(2), []
            for _ in range(asked.runs):
                *history, last = many(draw, n + 1, TOTALS, deviation)
                model, failed = learned(history), sum(total - passed for passed, total in last.counts)
                found.append(model.effect.deviation)
                for place, independent in enumerate((False, True)):
                    low, high = failures(model, TOTALS, independent=independent)
                    held[place] += low <= failed <= high
            cells = (f"{share:.1%}" for share in held / asked.runs)
            line(f"  τ {deviation}, {n} commits before", *cells, f"{np.mean(found):.2f}")


def coverage(asked: argparse.Namespace) -> None:
    """Learn from a history, and count how often the true chance of the whole path is within the bounds."""
    line("chance of the whole path, bounds of 90 %", "true", "held", "said", "product")
    for chances, name in ((PRIOR_MEANS, "the prior's stages"), (WORSE, "worse stages")):
        for deviation in (0.0, 1.5):
            for stops in (True, False):
                draw, held, said = np.random.default_rng(asked.seed), 0, []
                truth = passing(chances, RunEffect(0.0, deviation))
                for _ in range(asked.runs):
                    model = learned(path(draw, odds_of(chances), draw.normal(0, deviation, 60), stops=stops))
                    low, high = model.interval()
                    held += low <= truth <= high
                    said.append((model.passing(), model.product))
                cells = (f"{truth:.3f}", f"{held / asked.runs:.1%}", *(f"{x:.3f}" for x in np.mean(said, axis=0)))
                line(f"  {name}, τ {deviation}, {'stops at red' if stops else 'goes on'}", *cells)


# --- calibration ---------------------------------------------------------------------------------------------------


def histories(draw: Draw, name: str, n: int = 200) -> list[Cycle]:
    """A project of a kind: steady, with a bad half, drifting, or with commits of different difficulty."""
    odds = np.broadcast_to(odds_of((0.9, 0.92, 0.88, 0.97)), (n, 4)).copy()
    effects = np.zeros(n)
    match name:
        case "a bad half":
            odds[n // 2 :] -= 1.5
        case "drifting":
            odds += np.cumsum(draw.normal(0, 0.15, n))[:, None]
        case "hard and easy commits":
            effects = draw.normal(0, 1.5, n)
    return list(path(draw, odds, effects, stops=True))


def calibrating(asked: argparse.Namespace) -> None:
    """Foretell each commit of many histories from those before it."""
    line("200 commits each", "Brier", "log loss", "ECE", "coverage")
    for kind in ("steady", "a bad half", "drifting", "hard and easy commits"):
        draw = np.random.default_rng(asked.seed)
        found = [backtest(histories(draw, kind))[1] for _ in range(asked.runs)]
        for name in PREDICTORS:
            row = np.mean([_figures(f[name]) for f in found], axis=0)
            line(f"  {kind}: {name}", *(f"{x:.3f}" for x in row[:3]), f"{row[3]:.1%}")


def _figures(found: Calibration) -> tuple[float, ...]:
    return found.brier, found.log_loss, found.calibration_error, found.covered / found.blocks


def speed(asked: argparse.Namespace) -> None:
    """Learn from 500 commits and judge the forecasts made on the way; imports are part of the first round."""
    history = histories(np.random.default_rng(asked.seed), "drifting", 500)
    taken = []
    for _ in range(asked.rounds):
        begin = time.perf_counter()
        learned(history).interval()
        middle = time.perf_counter()
        backtest(history)
        taken.append((middle - begin, time.perf_counter() - middle))
    line("500 commits, seconds", "learn", "judge")
    line("  first", *(f"{x:.2f}" for x in taken[0]))
    line("  best", *(f"{x:.2f}" for x in np.min(taken, axis=0)))


COMMANDS = {
    "failures": (failing, 400),
    "coverage": (coverage, 400),
    "calibration": (calibrating, 40),
    "speed": (speed, 0),
}
"""What each sub-command runs, and how often by default."""


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    sub_commands(__doc__, COMMANDS, rounds=5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
