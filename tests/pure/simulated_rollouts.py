"""Whole rollouts by simulation: requests that come and fail as chance and drift have it, looked at until the end."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.rollouts import FULL, Move, Observed, Terms, advanced, begin
from penstock.traffic import Arm, Increment

Floats = npt.NDArray[np.float64]
Draw = np.random.Generator
RATE = 50.0
"""Requests a second in the mean, of both arms."""
LONGEST = 3700
"""Seconds after which a rollout must have ended."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a rollout ended: its last move, all requests, and those of the canary at each width that widened."""

    move: Move
    requests: int
    widened: tuple[int, ...]

    @property
    def end(self) -> str:
        """`promoted`, `back` for harm that was shown, or `late`."""
        if self.move.kind == "promote":
            return "promoted"
        return "late" if self.move.cause == "deadline" else "back"


def drifting(draw: Draw, n: int, spread: float, memory: float = 0.9) -> Floats:
    """Factors with a mean of 1 that drift: exp of an autoregressive series."""
    noise = draw.normal(0.0, spread * math.sqrt(1 - memory**2), n)
    series = np.empty(n)
    level = draw.normal(0.0, spread)
    for i in range(n):
        level = memory * level + noise[i]
        series[i] = level
    return np.exp(series - spread**2 / 2)


def play(draw: Draw, base: float, risk: float, terms: Terms, every: int = 1) -> Played:
    """A whole rollout at a base error rate, `risk` times that at the canary, with a look each so many seconds."""
    looks = LONGEST // every
    traffic, rates = drifting(draw, looks, 0.5), base * drifting(draw, looks, 0.7)
    rollout, move = begin(terms, 0.0)
    total, widened = 0, []
    for look in range(1, looks):
        n = int(draw.poisson(RATE * every * traffic[look]))
        at_canary = int(draw.binomial(n, rollout.width / FULL))
        errors = [
            int(draw.binomial(k, min(1.0, p)))
            for k, p in zip((at_canary, n - at_canary), (rates[look] * risk, rates[look]), strict=True)
        ]
        total += n
        counts = Increment(Arm(at_canary, errors[0]), Arm(n - at_canary, errors[1]))
        before = rollout.evidence.canary.requests + at_canary
        rollout, move = advanced(rollout, Observed(float(look * every), rollout.width, counts))
        if move.kind in ("widen", "promote"):
            widened.append(before)
        if rollout.ended:
            break
    return Played(move, total, tuple(widened))
