"""Ratios: how many times as large one benchmark is as another, from the rounds of both.

Timings have long tails to one side, and often two modes, so medians are compared, and their ratio is bounded by the
bootstrap (Efron and Tibshirani 1993, percentile method): it was closer to its promise than closed formulae, which fail
where the middle of a sample is sparse (the figures are in docs/statistics.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import ReportError
from penstock.intervals import Interval, risk

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEAST_ROUNDS = 5
"""Fewer rounds bound nothing."""
RESAMPLES = 4_000


def ratio_of_medians(new: Floats, old: Floats, confidence: float, seed: int = 0) -> Interval:
    """The median of the new rounds over that of the old; `n` is the smaller number of rounds.

    Raises ReportError for fewer than `LEAST_ROUNDS` rounds, and for any that is not a positive, finite number.
    """
    import numpy as np

    for rounds in (new, old):
        if len(rounds) < LEAST_ROUNDS:
            raise ReportError(f"{len(rounds)} rounds bound no ratio: it takes {LEAST_ROUNDS} on both sides")
        if not np.isfinite(rounds).all() or not (rounds > 0).all():
            raise ReportError("a ratio takes rounds that are finite and above 0")
    alpha, draw = risk(confidence), np.random.default_rng(seed)
    ratios = _medians(np.sort(new), draw) / _medians(np.sort(old), draw)
    low, high = (float(bound) for bound in np.quantile(ratios, [alpha, 1 - alpha]))
    center = float(np.median(new) / np.median(old))
    method = "ratio of medians, bootstrap"
    return Interval(center, min(low, center), max(high, center), min(len(new), len(old)), None, method, confidence)


def _medians(ordered: Floats, draw: np.random.Generator) -> Floats:
    """Medians of resamples of sorted numbers.

    A resample is n uniform draws of a place, so its k-th smallest place is that of a Beta(k, n + 1 - k), and the one
    below the (k+1)-th is that times the k-th root of a uniform number: two draws for a resample of any size.
    """
    import numpy as np

    n = len(ordered)
    if n % 2:
        middle = draw.beta((n + 1) / 2, (n + 1) / 2, RESAMPLES)
        found: Floats = ordered[_places(middle, n)]
        return found
    upper = draw.beta(n / 2 + 1, n / 2, RESAMPLES)
    lower = upper * draw.random(RESAMPLES) ** (2 / n)
    both: Floats = (ordered[_places(lower, n)] + ordered[_places(upper, n)]) / 2
    return np.asarray(both)


def _places(uniform: Floats, n: int) -> npt.NDArray[np.int64]:
    import numpy as np

    return np.minimum((uniform * n).astype(np.int64), n - 1)
