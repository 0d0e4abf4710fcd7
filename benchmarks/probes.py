"""How well probes tell a slow release: bounds of ratios of latencies, and how many answers it takes.

`bounds` draws answers of two equal releases and counts how often each bound is on its side of 1; `power` counts how
often a limit of 1.5 is shown to be kept by an equal release, and broken by one that takes twice as long.
"""

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from penstock.intervals import Interval
from penstock.probes import QUANTILES, ratio_of_quantiles

Floats = npt.NDArray[np.float64]
Pair = Callable[[np.random.Generator, int], tuple[Floats, Floats]]
ANSWERS = (20, 100, 500, 2000)
LIMIT = 1.5


def lognormal(spread: float) -> Pair:
    """Answers that have nothing to do with each other."""
    return lambda draw, n: (draw.lognormal(3, spread, n), draw.lognormal(3, spread, n))


def tail(draw: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Now and then an answer takes very long."""
    return draw.pareto(1.2, n) + 1, draw.pareto(1.2, n) + 1


def alike(draw: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """The same ten requests of both, some of which take far longer than others."""
    base = np.resize(draw.lognormal(3, 1.5, 10), n)
    return base * draw.lognormal(0, 0.1, n), base * draw.lognormal(0, 0.1, n)


LAWS: dict[str, Pair] = {
    "lognormal, spread .1": lognormal(0.1),
    "lognormal, spread .3": lognormal(0.3),
    "lognormal, spread .5": lognormal(0.5),
    "tail of Pareto(1.2)": tail,
    "ten requests, spread 1.5 between and .1 within": alike,
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("bounds", "power"))
    parser.add_argument("--runs", type=int, default=2000, help="samples for each figure")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    (bounds if asked.what == "bounds" else power)(np.random.default_rng(asked.seed), asked.runs)


def ratio(new: Floats, old: Floats, share: float) -> Interval:
    return ratio_of_quantiles(np.sort(new).tolist(), np.sort(old).tolist(), share, 0.95)


def bounds(draw: np.random.Generator, runs: int) -> None:
    """The share of samples in which the lower bound is at most 1, and the upper one at least."""
    for name, law in LAWS.items():
        for n in ANSWERS:
            cells = []
            for share in QUANTILES:
                found = [ratio(*law(draw, n), share) for _ in range(runs)]
                low, high = np.mean([(one.low <= 1, one.high >= 1) for one in found], axis=0)
                cells.append(f"p{share * 100:g} {low:.3f} {high:.3f}")
            print(f"{name}, {n:,} answers: {', '.join(cells)}")


def power(draw: np.random.Generator, runs: int) -> None:
    """The share of samples in which an equal release keeps the limit, and one twice as slow is caught."""
    for name, law in LAWS.items():
        for n in ANSWERS:
            cells = []
            for share in QUANTILES:
                kept = np.mean([ratio(*law(draw, n), share).high <= LIMIT for _ in range(runs)])
                slow = (law(draw, n) for _ in range(runs))
                caught = np.mean([ratio(2 * new, old, share).low > LIMIT for new, old in slow])
                cells.append(f"p{share * 100:g} {kept:.3f} {caught:.3f}")
            print(f"{name}, {n:,} answers: {', '.join(cells)}")


if __name__ == "__main__":
    main()
