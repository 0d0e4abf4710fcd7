"""Whether the judgement of canaries keeps its promises, by simulation, and how soon it decides.

    python benchmarks/canary.py reference [--runs 1000]  # equal and worse releases, looked at after every error
    python benchmarks/canary.py widening [--runs 1000]   # requests until a width widens, by base error rate and road
    python benchmarks/canary.py rollouts [--runs 1000]   # whole rollouts by widths, drifting traffic and error rate
    python benchmarks/canary.py judges [--runs 200]      # 30 minutes at 10 %, beside Mann-Whitney on a point a minute
    python benchmarks/canary.py missing [--runs 400]     # "about N more requests" beside what it took
    python benchmarks/canary.py split [--runs 2000]      # how often the alarm of the split is raised
    python benchmarks/canary.py speed                    # microseconds per look, bytes of the written state

Requests are those of both arms unless it says "canary". Shares are of runs; each sub-command has a seed (`--seed 1`),
and all ends with 0 whatever was found.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from penstock.canaries import Limits, gathered, judged, nothing_seen
from penstock.error_counts import bounded, compared, looking_for_harm, looking_for_safety, unbounded
from penstock.latencies import LatencyRule
from penstock.rollouts import Observed, Rollout, Terms, advanced, begin, taken_up, written
from penstock.traffic import Arm, Increment, log_edges, split_alarm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pure.simulated_rollouts import Draw, Floats, drifting, play

ALPHA = 0.05
BAR = -math.log(ALPHA)
EDGES = log_edges(1.0, math.sqrt(1.5), 44)
"""Milliseconds, up to 6 s: what the router would be set to for a ratio of 1.5."""


def line(*cells: object, widths: tuple[int, ...] = (44, 14, 14, 14, 14, 14)) -> None:
    """One row of a table: the first cell to the left, the others to the right."""
    print(
        " ".join(
            f"{cell!s:<{w}}" if i == 0 else f"{cell!s:>{w}}"
            for i, (cell, w) in enumerate(zip(cells, widths, strict=False))
        ),
        flush=True,
    )


def median(values: Sequence[float] | Floats) -> str:
    return f"{np.median(values):,.0f}" if len(values) else "-"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


# --- reference -----------------------------------------------------------------------------------------------------

REFERENCE = {
    (0.1, 1.0): "3 % back, promotes at 10,200",
    (0.1, 2.0): "96 % back, 9,500",
    (0.1, 5.0): "971",
    (0.1, 10.0): "350",
    (0.5, 1.0): "promotes at 4,800",
    (0.5, 3.0): "1,200",
}
"""By the canary's share of traffic and its relative risk, at a base rate of 1 % and a tolerated ratio of 2."""
CAP = 100_000


def race(draw: Draw, part: float, risk: float, base: float) -> tuple[str, int]:
    """What is decided first, looked at after every error, and after how many requests."""
    rate, at_canary = base * (risk * part + 1 - part), risk * part / (risk * part + 1 - part)
    harm, safety, n = looking_for_harm(), looking_for_safety(2.0), 0
    requests = (round(1000 * part), 1000 - round(1000 * part))  # only their share matters
    while (n := n + int(draw.geometric(rate))) <= CAP:
        events = (1, 0) if draw.random() < at_canary else (0, 1)
        harm, safety = compared(harm, events, requests), compared(safety, events, requests)
        if harm.wealth >= BAR:
            return "back", n
        if safety.wealth >= BAR:
            return "promoted", n
    return "open", CAP


def reference(asked: argparse.Namespace) -> None:
    """Print how errors alone decide, beside the reference."""
    draw = np.random.default_rng(asked.seed)
    line("1 % errors, tolerated ratio 2, α = 5 %", "rolled back", "median", "promoted", "median", "open")
    for (part, risk), wanted in REFERENCE.items():
        ends = [race(draw, part, risk, 0.01) for _ in range(asked.runs)]
        cells: list[str] = []
        for word in ("back", "promoted"):
            sizes = [n for found, n in ends if found == word]
            cells += [share(len(sizes), len(ends)), median(sizes)]
        open_ = share(sum(word == "open" for word, _ in ends), len(ends))
        line(f"  {part:.0%} of traffic, {risk:g} times", *cells, open_)
        print(f"    reference: {wanted}")


# --- widening ------------------------------------------------------------------------------------------------------


def until_bounded(draw: Draw, rate: float, chunk: int = 5) -> int:
    """Requests of the canary until its own bound widens, looked at every few requests; at most 20,000."""
    bound, seen = unbounded(0.01), 0
    while bound.wealth < BAR and seen < 20_000:
        seen += chunk
        bound = bounded(bound, int(draw.binomial(chunk, rate)) if rate else 0, chunk)
    return seen


def until_compared(draw: Draw, rate: float, part: float) -> int:
    """Requests of both arms until the ratio widens, errors being as likely at the canary; rolled back runs go on."""
    safety, n = looking_for_safety(2.0), 0
    requests = (round(1000 * part), 1000 - round(1000 * part))
    while safety.wealth < BAR:
        n += int(draw.geometric(rate))
        safety = compared(safety, (1, 0) if draw.random() < part else (0, 1), requests)
    return n


def widening(asked: argparse.Namespace) -> None:
    """Print requests until a width of 5 % widens with equal releases."""
    draw = np.random.default_rng(asked.seed)
    line("5 % width, equal releases, limit 1 %", "alone, median", "mean", "within 1,000", "ratio, all", "canary's")
    for rate in (0.0, 1e-4, 1e-3, 2e-3, 5e-3):
        alone = np.array([until_bounded(draw, rate) for _ in range(asked.runs)])
        both = [until_compared(draw, rate, 0.05) for _ in range(min(asked.runs, 300))] if rate else []
        within = share(int((alone <= 1000).sum()), len(alone))
        cells = (median(alone), f"{alone.mean():,.0f}", within, median(both), median([n * 0.05 for n in both]))
        line(f"  error rate {rate:.2%}", *cells)
    wrong = sum(until_bounded(draw, 0.01, 20) < 20_000 for _ in range(min(asked.runs, 400)))
    line("  error rate 1 %: widens within 20,000", share(wrong, min(asked.runs, 400)), "promised", "5 %")


# --- rollouts ------------------------------------------------------------------------------------------------------


def rollouts(asked: argparse.Namespace) -> None:
    """Print how whole rollouts end: 5, 25, 50 %, 50 requests a second, an interval of 1 s, a deadline of an hour."""
    draw = np.random.default_rng(asked.seed)
    line("5, 25, 50 %; drifting traffic and errors", "promoted", "harm", "too late", "requests", "within 1,000")
    terms = Terms("canary", (500, 2500, 5000), interval=1.0, deadline=3600.0)
    for base, risk in ((0.0, 1), (0.001, 1), (0.01, 1), (0.03, 1), (0.01, 2), (0.01, 10), (0.001, 10)):
        runs = asked.runs if risk == 1 else max(50, asked.runs // 4)
        ends = [play(draw, base, risk, terms) for _ in range(runs)]
        late, promoted = (sum(played.end == word for played in ends) for word in ("late", "promoted"))
        widths = [n for played in ends for n in played.widened]
        quick = share(sum(n <= 1000 for n in widths), len(widths)) if widths else "-"
        back = share(runs - promoted - late, runs)
        sizes = median([played.requests for played in ends])
        line(f"  base {base:.1%}, {risk} times", share(promoted, runs), back, share(late, runs), sizes, quick)


# --- judges --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What differs at the canary: its relative risk of errors, and the part of its requests that takes three times."""

    name: str
    risk: float = 1.0
    slow: float = 0.0


SCENES = (
    Scene("equal"),
    Scene("2 times the errors", risk=2),
    Scene("10 times the errors", risk=10),
    Scene("20 % of requests 3 times slower", slow=0.2),
    Scene("10 % of requests 3 times slower", slow=0.1),
)


def counted(latencies: Floats) -> tuple[int, ...]:
    places = np.searchsorted(EDGES, latencies)
    return tuple(int(n) for n in np.bincount(places, minlength=len(EDGES) + 1))


def judge(draw: Draw, scene: Scene, limits: Limits) -> tuple[int | None, bool]:
    """Requests until ours rolls back within 30 minutes (None: never), and whether the other one ever does."""
    traffic, rates, slowness = drifting(draw, 360, 0.3), 0.01 * drifting(draw, 360, 0.5), drifting(draw, 360, 0.1)
    evidence, total, ours, points = nothing_seen(limits), 0, None, np.zeros((30, 2, 2))
    tails: list[list[list[Floats]]] = [[[], []] for _ in range(30)]
    for look in range(360):
        n = int(draw.poisson(50 * traffic[look]))
        k = int(draw.binomial(n, 0.1))
        took = [slowness[look] * draw.lognormal(3.0, 0.5, size) for size in (k, n - k)]
        took[0][draw.random(k) < scene.slow] *= 3
        arms = []
        for arm, (size, rate) in enumerate(((k, rates[look] * scene.risk), (n - k, rates[look]))):
            errors = int(draw.binomial(size, min(1.0, rate)))
            points[look // 12, arm] += (errors, size)
            tails[look // 12][arm].append(took[arm])
            arms.append(Arm(size, errors, counted(took[arm])))
        total += n
        if ours is None:
            evidence = gathered(evidence, limits, Increment(arms[0], arms[1]))
            ours = total if judged(evidence, limits, 0.1).verdict == "fail" else None
    return ours, scraped(points, tails)


def scraped(points: Floats, tails: list[list[list[Floats]]]) -> bool:
    """Whether Mann-Whitney on a point a minute, at 5 % halved between errors and p99, rolls back at some minute."""
    errors = points[:, :, 0] / np.maximum(points[:, :, 1], 1)
    p99 = np.array([[np.quantile(np.concatenate(arm), 0.99) for arm in minute] for minute in tails])
    return any(
        mannwhitneyu(series[:minute, 0], series[:minute, 1], alternative="greater").pvalue < ALPHA / 2
        for minute in range(5, 31)
        for series in (errors, p99)
    )


def judges(asked: argparse.Namespace) -> None:
    """Print roll-backs at 10 % of 10 requests a second, errors and p50, p90, p99 with a ratio of 1.5 watched."""
    draw = np.random.default_rng(asked.seed)
    limits = Limits(latencies=tuple(LatencyRule(q, 1.5) for q in (0.5, 0.9, 0.99)), edges=EDGES)
    line("30 minutes at 10 %, 1 % errors, drifting", "rolled back", "median", "Mann-Whitney")
    for scene in SCENES:
        ends = [judge(draw, scene, limits) for _ in range(asked.runs)]
        sizes = [n for n, _ in ends if n is not None]
        line(f"  {scene.name}", share(len(sizes), len(ends)), median(sizes), share(sum(o for _, o in ends), len(ends)))


# --- what is missing -----------------------------------------------------------------------------------------------


def foretold(draw: Draw, base: float, limits: Limits) -> list[float]:
    """What was said to be missing over what it took, at 10, 50 and 90 % of the way."""
    evidence, said = nothing_seen(limits), []
    while True:
        k = int(draw.binomial(100, 0.1))
        errors = int(draw.binomial(k, base)), int(draw.binomial(100 - k, base))
        evidence = gathered(evidence, limits, Increment(Arm(k, errors[0]), Arm(100 - k, errors[1])))
        found = judged(evidence, limits, 0.1)
        if found.verdict != "inconclusive" or evidence.canary.requests > 20_000:
            break
        said.append((evidence.canary.requests, found.missing))
    if found.verdict != "pass" or len(said) < 10:
        return []
    took = evidence.canary.requests
    picks = [said[int(len(said) * at)] for at in (0.1, 0.5, 0.9)]
    return [math.nan if missing is None else (seen + missing) / took for seen, missing in picks]


def missing(asked: argparse.Namespace) -> None:
    """Print how the total foretold compares with the total it took, in canary requests."""
    draw = np.random.default_rng(asked.seed)
    line("foretold / taken: median (10 to 90 %)", "at 10 %", "at 50 %", "at 90 %", "none said")
    for base, limits in (
        (0.0, Limits()),
        (1e-3, Limits()),
        (5e-3, Limits()),
        (1e-2, Limits(error_rate_at_most=None)),
        (5e-2, Limits()),
    ):
        rows = np.array([row for _ in range(asked.runs) if (row := foretold(draw, base, limits))])
        known = np.nanquantile(rows, [0.1, 0.5, 0.9], axis=0)
        cells = [f"{known[1, i]:.2f} ({known[0, i]:.1f}-{known[2, i]:.1f})" for i in range(3)]
        line(f"  error rate {base:.1%}", *cells, share(int(np.isnan(rows).any(axis=1).sum()), len(rows)))


# --- split and speed -----------------------------------------------------------------------------------------------


def split(asked: argparse.Namespace) -> None:
    """Print how often the split raises an alarm within 20,000 requests, looked at every 50."""
    draw = np.random.default_rng(asked.seed)
    line("5 % set, tolerance 10 %", "alarms", "median")
    for true in (0.05, 0.04, 0.06, 0.1, 0.0):
        found = []
        for _ in range(asked.runs if true == 0.05 else asked.runs // 10):
            steps = np.cumsum(draw.binomial(50, true, 400))
            alarms = (
                50 * (i + 1) for i, k in enumerate(steps) if split_alarm((int(k), 50 * (i + 1) - int(k)), 0.05, 0.1)
            )
            found.append(next(alarms, 0))
        raised = [n for n in found if n]
        line(f"  {true:.0%} seen", share(len(raised), len(found)), median(raised))


def speed(asked: argparse.Namespace) -> None:
    """Print what a look costs with three latency rules, and what the state weighs."""
    draw = np.random.default_rng(asked.seed)
    limits = Limits(latencies=tuple(LatencyRule(q, 1.5) for q in (0.5, 0.9, 0.99)), edges=EDGES)
    rollout, _ = begin(Terms("canary", (1000,), limits=limits), 0.0)
    counts = Increment(*(Arm(n, n // 100, counted(draw.lognormal(3.0, 0.5, n))) for n in (100, 900)))
    best = min(_seconds(rollout, counts) for _ in range(5))
    rollout, _ = advanced(rollout, Observed(1.0, 1000, counts))
    taken_up(written(rollout))  # the first time also makes the form
    start = time.perf_counter()
    text = json.dumps(written(rollout))
    same = taken_up(json.loads(text)) == rollout
    took = time.perf_counter() - start
    line("a look with three latency rules", f"{best * 1e6:,.0f} µs")
    line("state written and taken up", f"{took * 1e6:,.0f} µs", f"{len(text):,} bytes", "the same" if same else "NOT")


def _seconds(rollout: Rollout, counts: Increment, looks: int = 200) -> float:
    start = time.perf_counter()
    for i in range(looks):
        rollout, _ = advanced(rollout, Observed(float(i), 1000, counts))
    return (time.perf_counter() - start) / looks


PARTS = {
    "reference": (reference, 1000),
    "widening": (widening, 1000),
    "rollouts": (rollouts, 1000),
    "judges": (judges, 200),
    "missing": (missing, 400),
    "split": (split, 2000),
    "speed": (speed, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for name, (_, runs) in PARTS.items():
        part = parts.add_parser(name)
        part.add_argument("--runs", type=int, default=runs)
        part.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    PARTS[asked.part][0](asked)
    return 0


if __name__ == "__main__":
    sys.exit(main())
