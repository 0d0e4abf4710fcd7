"""The reliability of the path: P(CI/CD) = P(code) · P(build) · P(test) · P(deploy), from what commits told before.

Stage s of commit t passes with sigmoid(logit p_s + u_t). p_s has a Beta law from counts that are forgotten
exponentially, around a prior whose weight the project's own history chooses (empirical Bayes); u_t ~ N(μ, τ²) is what
a commit does to all stages at once. What is printed beside every forecast is how forecasts made the same way fared on
this very history, next to two that cost nothing: the base rate, and "same as last time".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from penstock.plans import StepKind
from penstock.runs import ENDED_RUN, GREEN_STEP, RunStatus, StepStatus

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

STAGES = ("code", "build", "test", "deploy")
PRIOR_MEANS = (0.90, 0.95, 0.98, 0.99)
CONFIDENCE = 0.9
"""Of both bounds of an interval together."""
FORGETTING = (0.98, 0.95, 0.9, 0.8)
"""What a verdict weighs when one more of its stage has come. Each must make history e times as likely as the one before
it, so the first holds while little is known."""
WEIGHTS = (10.0, 4.0, 25.0, 60.0)
"""How many verdicts the prior counts as; chosen in the same way."""
BLOCK = 10
"""Forecasts whose failures are counted together."""
FEWEST = 10
"""Forecasts below which nothing is said about calibration; the first needs half as many commits before it."""
_DRAWS, _FEW_DRAWS = 4000, 1000
_CLIPPED = 0.01
_BINS = 10
_NEAR = 0.1
_GROWTH = 1.2
_FADING = 0.95


# --- what a commit told --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one commit told: for each stage (passed, total), both 0 where it told nothing.

    `asked` says which stages it was to go through. A stage that gives one verdict has a total of 1; one with many
    checks that share the commit's effect, of as many.
    """

    counts: tuple[tuple[int, int], ...]
    asked: tuple[bool, ...] = (True,) * len(STAGES)

    @property
    def passed(self) -> bool | None:
        """Whether it went all the way: False with the first failure, None where that is not known."""
        if any(passed < total for passed, total in self.counts):
            return False
        is_known = all(total for (_, total), asked in zip(self.counts, self.asked, strict=True) if asked)
        return True if is_known and any(self.asked) else None


@dataclass(frozen=True, slots=True)
class PastStep:
    """How a step of a run ended."""

    name: str
    kind: StepKind
    stage: str
    status: StepStatus
    cached: bool


@dataclass(frozen=True, slots=True)
class PastRun:
    """What the store knows of a run: its steps, the verdicts of its gates, the status of each environment asked for.

    `is_partial` marks a run of which only one step was asked, `is_dirty` one of a working tree.
    """

    run: int
    sha: str
    status: RunStatus
    is_partial: bool
    is_dirty: bool
    steps: tuple[PastStep, ...]
    verdicts: tuple[str | None, ...]
    targets: tuple[str, ...]


def cycles(runs: Iterable[PastRun]) -> list[Cycle]:
    """What the commits behind some runs told, oldest first; runs are given oldest first.

    A commit tells once: of a stage the first run that says anything counts, so a pass after a rerun hides no failure.
    Runs that go on, of one step only, or of what nobody committed say nothing.
    """
    told: dict[str, Cycle] = {}
    for run in runs:
        if run.status in ENDED_RUN and not run.is_partial and not run.is_dirty:
            told[run.sha] = _joined(told.get(run.sha), _told(run))
    return [cycle for cycle in told.values() if any(total for _, total in cycle.counts)]


def _joined(first: Cycle | None, later: Cycle) -> Cycle:
    if first is None:
        return later
    counts = tuple(a if a[1] else b for a, b in zip(first.counts, later.counts, strict=True))
    return Cycle(counts, tuple(a or b for a, b in zip(first.asked, later.asked, strict=True)))


def _told(run: PastRun) -> Cycle:
    """Code is the step `check`; build and test are the steps of these stages, test the gates too; deploy, releases."""
    by_stage = {stage: [s for s in run.steps if _stage_of(s) == stage] for stage in STAGES}
    counts: list[tuple[int, int]] = []
    is_red = False
    for stage, steps in by_stage.items():
        words = [_word(s, is_red) for s in steps]
        words += [_GATE_WORDS.get(v or "", "silent") for v in run.verdicts] if stage == "test" else []
        words += [_TARGET_WORDS.get(t, "") for t in run.targets] if stage == "deploy" else []
        counts.append(_verdict(words))
        is_red = is_red or any(w in {"failed", "silent"} for w in words)
    has_tests = bool(by_stage["test"] or run.verdicts)
    delivers = is_red or any(t != "skipped" for t in run.targets)
    asked = (True, len(run.steps) > len(by_stage["code"]), has_tests, bool(run.targets) and delivers)
    return Cycle(tuple(counts), asked)


def _stage_of(step: PastStep) -> str:
    return "code" if step.kind is StepKind.CHECK else step.stage


def _word(step: PastStep, is_red: bool) -> str:
    """What a step says of its stage: passed, failed, silent (not to be told), kept (from running), or nothing."""
    if step.status in GREEN_STEP or (step.status is StepStatus.SKIPPED and step.cached):
        return "passed"
    if step.status is StepStatus.FAILED:
        return "failed"
    if step.status is StepStatus.SKIPPED:
        return "kept" if is_red else ""
    return "kept" if is_red and step.status is StepStatus.CANCELED else "silent"


_GATE_WORDS: Mapping[str, str] = {"pass": "passed", "fail": "failed"}
_TARGET_WORDS: Mapping[str, str] = {
    "released": "passed",
    "refused": "failed",
    **dict.fromkeys(("unapproved", "errored", "moving"), "silent"),
}


def _verdict(words: Sequence[str]) -> tuple[int, int]:
    """(passed, total) of a stage.

    What an earlier red stage kept from running makes it silent as a whole, even where a part of it failed: else only
    its failures would be counted.
    """
    if "kept" in words:
        return 0, 0
    if "failed" in words:
        return 0, 1
    return (0, 0) if "silent" in words or "passed" not in words else (1, 1)


@dataclass(frozen=True, slots=True)
class Share:
    """A chance with a Beta law, of `passed` and `failed` verdicts with those of the prior."""

    passed: float
    failed: float

    @property
    def mean(self) -> float:
        return self.passed / (self.passed + self.failed)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The bounds that leave out as much on either side."""
        from scipy.special import betaincinv

        tail = (1 - confidence) / 2
        return tuple(float(betaincinv(self.passed, self.failed, x)) for x in (tail, 1 - tail))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class RunEffect:
    """What a commit adds to the log odds of all stages: its mean μ and standard deviation τ, each with its error."""

    mean: float = 0.0
    deviation: float = 0.0
    mean_error: float = 0.0
    deviation_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Reliability:
    """What history says of the next commit: a share per stage, the run effect, and how history was forgotten."""

    shares: tuple[Share, ...]
    effect: RunEffect
    forgetting: float
    weight: float

    @property
    def product(self) -> float:
        """The product of the stages' means, as if they were independent."""
        return math.prod(share.mean for share in self.shares)

    def passing(self, asked: Sequence[bool] | None = None) -> float:
        """The chance that a commit passes all stages, or those that are asked."""
        chosen = _chosen(self.shares, asked)
        return passing([share.mean for share in chosen], self.effect)

    def interval(self, asked: Sequence[bool] | None = None, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The bounds of that chance, since the shares are not known for sure; equal histories give equal bounds."""
        import numpy as np

        tail = (1 - confidence) / 2
        low, high = np.quantile(_drawn_chances(_chosen(self.shares, asked), self.effect), [tail, 1 - tail])
        return float(low), float(high)


def _chosen(shares: Sequence[Share], asked: Sequence[bool] | None) -> list[Share]:
    wanted = (True,) * len(shares) if asked is None else asked
    return [share for share, is_asked in zip(shares, wanted, strict=True) if is_asked]


def passing(chances: Sequence[float], effect: RunEffect) -> float:
    """E[∏ sigmoid(logit p + u)] over u ~ N(μ, τ²), by 20-point Gauss-Hermite; `chances` are the p, within ]0, 1[.

    Without an effect it is the product. With one it is at least the product of the single expectations: what goes
    wrong together goes wrong less often.
    """
    import numpy as np

    if not chances:
        return 1.0
    odds = np.log(chances) - np.log1p(-np.asarray(chances))
    return float(_expected(odds[None, :], effect)[0])


def _expected(odds: Floats, effect: RunEffect) -> Floats:
    """For each row of log odds the chance that all pass."""
    import numpy as np

    return _integrated(odds, np.full(len(odds), effect.mean), np.full(len(odds), effect.deviation))


def _integrated(odds: Floats, means: Floats, deviations: Floats) -> Floats:
    import numpy as np

    nodes, logs = _nodes(20)
    shifted = odds[:, None, :] + (means[:, None] + deviations[:, None] * nodes)[:, :, None]
    found: Floats = np.exp(logs - np.logaddexp(0.0, -shifted).sum(axis=2)).sum(axis=1)
    return np.minimum(found, 1.0)


@cache
def _nodes(count: int) -> tuple[Floats, Floats]:
    """Gauss-Hermite nodes for a standard normal law, with the logs of their weights."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, np.log(weights) - math.log(math.sqrt(2 * math.pi))


def _drawn_chances(shares: Sequence[Share], effect: RunEffect, count: int = _DRAWS) -> Floats:
    means, deviations = _drawn_effects(effect)
    return _integrated(_drawn_odds(shares)[:count], means[:count], deviations[:count])


def _drawn_effects(effect: RunEffect) -> tuple[Floats, Floats]:
    """μ and τ, drawn around their estimates."""
    import numpy as np

    draw = np.random.default_rng(3)
    means = draw.normal(effect.mean, effect.mean_error, _DRAWS)
    return means, np.abs(draw.normal(effect.deviation, effect.deviation_error, _DRAWS))


def _drawn_odds(shares: Sequence[Share]) -> Floats:
    """Log odds of the shares, drawn from their laws by a fixed seed."""
    import numpy as np

    draw = np.random.default_rng(0)
    drawn = draw.beta([s.passed for s in shares], [s.failed for s in shares], (_DRAWS, len(shares)))
    drawn = np.clip(drawn, 1e-12, 1 - 1e-12)
    odds: Floats = np.log(drawn) - np.log1p(-drawn)
    return odds


def failures(
    model: Reliability, totals: Sequence[int], confidence: float = CONFIDENCE, *, independent: bool = False
) -> tuple[int, int]:
    """The bounds of how many checks fail in the next commit, of so many per stage.

    `independent` leaves the run effect out, to show what that costs: its bounds are far too narrow.
    """
    import numpy as np

    draw = np.random.default_rng(1)
    means, deviations = _drawn_effects(RunEffect() if independent else model.effect)
    shifted = _drawn_odds(model.shares) + (means + deviations * draw.standard_normal(_DRAWS))[:, None]
    counts = draw.binomial(totals, 1 / (1 + np.exp(shifted))).sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(counts, [tail, 1 - tail], method="inverted_cdf")
    return int(low), int(high)


# --- learning ------------------------------------------------------------------------------------------------------


class Learner:
    """Learns from cycles, oldest first; `model` is what it would say of the next one.

    For each way to forget and each weight of the prior it keeps the shares, and how well they foretold what came.
    """

    def __init__(self) -> None:
        import numpy as np

        self._kept = np.zeros((len(FORGETTING), len(STAGES), 2))
        self._scores = -np.add.outer(np.arange(len(FORGETTING)), np.arange(len(WEIGHTS))).astype(np.float64)
        self._foretold: list[Floats] = []
        self._counts: list[Floats] = []
        self._effect = RunEffect()
        self._settled = 0

    def learn(self, cycle: Cycle) -> None:
        """Take in what a commit told. A stage forgets only when it has something new."""
        import numpy as np

        passed, total = np.array(cycle.counts, dtype=np.float64).T
        told = np.stack([passed, total - passed], axis=1)
        means = self._means()
        self._scores += (told[:, 0] * np.log(means) + told[:, 1] * np.log1p(-means)).sum(axis=2)
        self._foretold.append(means)
        self._counts.append(told)
        faded = np.array(FORGETTING)[:, None, None] * self._kept + told
        self._kept = np.where((total > 0)[None, :, None], faded, self._kept)

    def _means(self) -> Floats:
        """The shares' means: way to forget × weight × stage."""
        import numpy as np

        prior = np.array(WEIGHTS)[:, None] * np.array(PRIOR_MEANS)
        whole = self._kept.sum(axis=2)[:, None, :] + np.array(WEIGHTS)[None, :, None]
        means: Floats = (self._kept[:, None, :, 0] + prior[None]) / whole
        return means

    def _best(self) -> tuple[int, int]:
        place = int(self._scores.argmax())
        return divmod(place, len(WEIGHTS))

    def settle(self, growth: float = 1.0) -> None:
        """Estimate the run effect anew, from how far what each commit told was from what was foretold of it.

        Only where history is `growth` times as long as the last time, since it takes longer the longer it is.
        """
        import numpy as np

        if self._counts and len(self._counts) >= growth * self._settled:
            self._settled = len(self._counts)
            way, weight = self._best()
            means = np.array([foretold[way, weight] for foretold in self._foretold])
            self._effect = run_effect(np.log(means) - np.log1p(-means), np.array(self._counts), self._effect)

    @property
    def model(self) -> Reliability:
        way, weight = self._best()
        kept, own = self._kept[way], WEIGHTS[weight]
        shares = tuple(
            Share(float(passed + own * mean), float(failed + own * (1 - mean)))
            for (passed, failed), mean in zip(kept, PRIOR_MEANS, strict=True)
        )
        return Reliability(shares, self._effect, FORGETTING[way], own)


def run_effect(odds: Floats, counts: Floats, start: RunEffect | None = None) -> RunEffect:
    """The run effect that makes what was seen most likely, given the foretold log odds.

    `odds` is commits × stages, `counts` commits × stages × (passed, failed). The marginal likelihood integrates u out
    by Gauss-Hermite. A commit weighs .95 of the one after it, since less was known when it was foretold. Weak laws keep
    the effect near none while little is known: μ ~ N(0, .5²), τ half normal of scale 1. A path that always stops at its
    first red stage says nothing of τ: its shares are conditional, and their product holds already.
    """
    import numpy as np
    from scipy.optimize import minimize

    count = 20 if counts.sum(axis=2).max(initial=0) <= 20 else 100  # many checks give a likelihood narrower than 20 see
    nodes, logs = _nodes(count)
    fading = _FADING ** np.arange(len(counts))[::-1]

    def loss(mean: float, deviation: float) -> float:
        shifted = odds[:, None, :] + (mean + deviation * nodes)[None, :, None]
        passes = np.logaddexp(0.0, -shifted)
        chances = logs - (counts[:, None, :, 0] * passes + counts[:, None, :, 1] * (passes + shifted)).sum(axis=2)
        return float(2 * mean**2 + deviation**2 / 2 - (fading * np.logaddexp.reduce(chances, axis=1)).sum())

    before = start or RunEffect()
    begin = np.array([before.mean, max(before.deviation, 0.3)])
    options = {"xatol": 1e-3, "fatol": 1e-4}
    found = minimize(lambda x: loss(x[0], abs(x[1])), begin, method="Nelder-Mead", options=options)
    mean, deviation = float(found.x[0]), abs(float(found.x[1]))
    deviation = deviation if deviation > 5e-3 else 0.0
    around = [loss(mean + h, deviation) for h in (-_NEAR, 0.0, _NEAR)]
    beside = [loss(mean, abs(deviation + h)) for h in (-_NEAR, 0.0, _NEAR)]
    return RunEffect(mean, deviation, _error(around), _error(beside))


def _error(losses: Sequence[float]) -> float:
    """The standard error of an estimate by the curvature of the loss around it; at most that of its prior, 1."""
    curvature = (losses[0] - 2 * losses[1] + losses[2]) / _NEAR**2
    return min(1.0, 1 / math.sqrt(max(curvature, 1.0)))


def learned(cycles: Iterable[Cycle]) -> Reliability:
    """What a whole history says, oldest first. Without any it is the prior: .829521 for all four stages."""
    learner = Learner()
    for cycle in cycles:
        learner.learn(cycle)
    learner.settle()
    return learner.model


# --- calibration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """How forecasts fared. All but `covered` are better when smaller.

    `calibration_error` is the mean distance of the forecast from the share that passed, in ten bins (ECE); `covered`
    of `blocks` blocks of ten commits had a number of failures within the bounds that were foretold with 90 %.
    """

    brier: float
    log_loss: float
    calibration_error: float
    covered: int
    blocks: int


def calibration(forecasts: Sequence[float], passed: Sequence[bool], covered: Sequence[bool] = ()) -> Calibration:
    """The figures of some forecasts (chances of a pass) beside what came; at least one.

    For the log loss alone a forecast counts as at least .01 and at most .99, since 0 and 1 would cost infinitely much.
    """
    import numpy as np

    said, came = np.array(forecasts), np.array(passed, dtype=np.float64)
    careful = np.clip(said, _CLIPPED, 1 - _CLIPPED)
    bins = np.minimum((said * _BINS).astype(np.int64), _BINS - 1)
    distance = sum(abs(float((said - came)[bins == b].sum())) for b in range(_BINS))
    losses = came * np.log(careful) + (1 - came) * np.log1p(-careful)
    brier = float(((said - came) ** 2).mean())
    return Calibration(brier, -float(losses.mean()), distance / len(said), sum(covered), len(covered))


PREDICTORS = ("this model", "base rate", "same as last time")


@dataclass
class _Trial:
    """Forecasts of one predictor, and whether its bounds for each whole block held."""

    forecasts: list[float]
    covered: list[bool]


def backtest(cycles: Sequence[Cycle]) -> tuple[int, Mapping[str, Calibration]]:
    """How many commits could be foretold from those before them, and how each predictor did; none below `FEWEST`.

    Nothing that came later is used: forgetting, weights and the run effect are those that the past alone had chosen.
    """
    learner = Learner()
    past: list[bool] = []
    came: list[bool] = []
    trials = {name: _Trial([], []) for name in PREDICTORS}
    bounds: dict[str, tuple[int, int]] = {}
    for cycle in cycles:
        if cycle.passed is not None and len(past) >= FEWEST // 2:
            if len(came) % BLOCK == 0:
                learner.settle(_GROWTH)
                bounds = _bounds(learner.model, cycle, past)
            for name, chance in _forecasts(learner.model, cycle, past).items():
                trials[name].forecasts.append(chance)
            came.append(cycle.passed)
            if len(came) % BLOCK == 0:
                _close(trials, bounds, came[-BLOCK:].count(False))
        learner.learn(cycle)
        past += [] if cycle.passed is None else [cycle.passed]
    if len(came) < FEWEST:
        return len(came), {}
    return len(came), {name: calibration(trial.forecasts, came, trial.covered) for name, trial in trials.items()}


def _forecasts(model: Reliability, cycle: Cycle, past: Sequence[bool]) -> dict[str, float]:
    chances = (model.passing(cycle.asked), (sum(past) + 1) / (len(past) + 2), float(past[-1]))
    return dict(zip(PREDICTORS, chances, strict=True))


def _bounds(model: Reliability, cycle: Cycle, past: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """For each predictor the bounds of the failures among the next commits."""
    import numpy as np

    said = _forecasts(model, cycle, past)
    chances: dict[str, Floats | float] = {name: np.clip(p, _CLIPPED, 1 - _CLIPPED) for name, p in said.items()}
    chances[PREDICTORS[0]] = _drawn_chances(_chosen(model.shares, cycle.asked), model.effect, _FEW_DRAWS)
    return {name: _most(chance) for name, chance in chances.items()}


def _most(chance: Floats | float) -> tuple[int, int]:
    import numpy as np

    counts = np.random.default_rng(2).binomial(BLOCK, 1 - np.asarray(chance), _FEW_DRAWS)
    low, high = np.quantile(counts, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return int(low), int(high)


def _close(trials: Mapping[str, _Trial], bounds: Mapping[str, tuple[int, int]], failed: int) -> None:
    for name, trial in trials.items():
        low, high = bounds[name]
        trial.covered.append(low <= failed <= high)
