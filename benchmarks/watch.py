"""What a watch promises, by simulation: false alarms within a day, and requests until a breach is seen.

    python benchmarks/watch.py {errors|latency} [RUNS]

Requests come at a rate that drifts, and fail at a rate that drifts below the limit of 1 %; a look each second, in a day
every five seconds. Then the error rate is so many times the limit from the promotion on, or from the middle of a watch
of an hour. Latencies are lognormal, and the release before had 20,000 requests in its rollout.
"""

import sys
from collections.abc import Iterator

import numpy as np

from penstock.environments import WatchRules
from penstock.traffic import EDGES_MS, NOTHING, Arm, Reading
from penstock.watches import begun, looked

LIMIT = 0.01
PER_SECOND = 10
HOUR = 3600


def drifting(draw: np.random.Generator, seconds: int, spread: float) -> np.ndarray:
    """A factor for each second around 1: ln is autoregressive, with a memory of about ten minutes."""
    steps = draw.normal(0, spread * np.sqrt(1 - 0.998**2), seconds)
    found, level = np.empty(seconds), draw.normal(0, spread)
    for n, step in enumerate(steps):
        found[n] = level = 0.998 * level + step
    return np.exp(found)


def watch(seconds: int, requests: np.ndarray, errors: np.ndarray, every: int = 1) -> tuple[str, int]:
    """How a watch of these counts a second ends, and after how many requests; a look at `every` so many seconds."""
    rules = WatchRules.model_validate({"for": seconds, "error_rate_at_most": LIMIT})
    state = begun(rules, 0.0, Reading("1", NOTHING, NOTHING))
    all_requests, all_errors = np.cumsum(requests), np.cumsum(errors)
    for second in range(every - 1, seconds, every):
        arm = Arm(int(all_requests[second]), int(all_errors[second]))
        state = looked(state, second + 1.0, Reading("1", arm, NOTHING))
        if state.ended is not None:
            return state.ended.kind, int(all_requests[second])
    return "open", int(all_requests[-1])


def sound(draw: np.random.Generator, seconds: int, base: float) -> tuple[str, int]:
    """A release that keeps the limit at every moment."""
    requests = draw.poisson(PER_SECOND * drifting(draw, seconds, 0.5))
    rates = np.minimum(base * drifting(draw, seconds, 0.7), LIMIT)
    return watch(seconds, requests, draw.binomial(requests, rates), every=5)


def broken(draw: np.random.Generator, risk: float, onset: int) -> tuple[str, int]:
    """A release that fails so many times as often as it may, from a second of the hour on; requests since then."""
    requests = draw.poisson(PER_SECOND * drifting(draw, HOUR, 0.5))
    rates = np.where(np.arange(HOUR) < onset, 0.001, risk * LIMIT)
    kind, seen = watch(HOUR, requests, draw.binomial(requests, rates))
    return kind, seen - int(requests[:onset].sum())


def slow(draw: np.random.Generator, factor: float, share: float) -> tuple[str, int]:
    """An hour of a release of which a share of the requests take so many times as long; requests until its end."""
    edges = np.array(EDGES_MS)
    slots = len(EDGES_MS) + 1
    reference = np.bincount(np.searchsorted(edges, draw.lognormal(3, 0.5, 20_000)), minlength=slots)
    rules = WatchRules.model_validate({"latency_p99_ratio": 1.5})
    state = begun(rules, 0.0, Reading("1", NOTHING, NOTHING), tuple(map(int, reference)))
    total = np.zeros(slots, dtype=int)
    for second in range(1, HOUR + 1):
        requests = draw.poisson(PER_SECOND)
        took = draw.lognormal(3, 0.5, requests) * np.where(draw.random(requests) < share, factor, 1)
        total += np.bincount(np.searchsorted(edges, took), minlength=slots)
        arm = Arm(int(total.sum()), 0, tuple(map(int, total)))
        state = looked(state, float(second), Reading("1", arm, NOTHING))
        if state.ended is not None:
            break
    return ("open" if state.ended is None else state.ended.kind), int(total.sum())


def slowness(runs: int) -> Iterator[str]:
    """The figures on latency, a line each."""
    draw = np.random.default_rng(7)
    yield f"{runs} watches of an hour each, latency_p99_ratio: 1.5, about {PER_SECOND} requests a second"
    for factor, share in ((1, 1), (1.5, 1), (2, 1), (3, 0.2), (3, 0.1)):
        found = [slow(draw, factor, share) for _ in range(runs)]
        seen = [n for kind, n in found if kind == "breach"]
        median = f", median {np.median(seen):,.0f} requests" if seen else ""
        what = f"{share * 100:g} % of requests {factor:g} times as slow"
        yield f"{what}: {len(seen) / runs * 100:.1f} % broken{median}"


def report(runs: int) -> Iterator[str]:
    """The figures, a line each."""
    draw = np.random.default_rng(6)
    yield f"{runs} watches each, limit 1 %, about {PER_SECOND} requests a second, confidence .95"
    for base in (0.001, 0.005, LIMIT):
        ends = [sound(draw, 24 * HOUR, base)[0] for _ in range(runs)]
        yield f"a day at {base * 100:g} % drifting below the limit: {ends.count('breach') / runs * 100:.1f} % broken"
    ends = [watch(24 * HOUR, *at_limit(draw, 24 * HOUR), every=5)[0] for _ in range(runs)]
    yield f"a day at exactly 1 %: {ends.count('breach') / runs * 100:.1f} % broken (5 % are promised)"
    for risk in (2, 5, 10, 50):
        for onset in (0, HOUR // 2):
            found = [broken(draw, risk, onset) for _ in range(runs)]
            seen = [n for kind, n in found if kind == "breach" and n > 0]
            share = len(seen) / runs * 100
            where = "from the middle" if onset else "from promotion"
            yield f"{risk} times the limit {where}: {share:.1f} % seen, median {np.median(seen):,.0f} requests"


def at_limit(draw: np.random.Generator, seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """Requests and errors of each second, at the limit."""
    requests = draw.poisson(PER_SECOND * drifting(draw, seconds, 0.5))
    return requests, draw.binomial(requests, LIMIT)


if __name__ == "__main__":
    figures = {"errors": report, "latency": slowness}[sys.argv[1] if sys.argv[1:] else "errors"]
    for line in figures(int(sys.argv[2]) if sys.argv[2:] else 100):
        print(line, flush=True)
