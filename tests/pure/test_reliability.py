"""The model of reliability: what runs tell, what is foretold from it, and that its intervals hold what they promise."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.plans import StepKind
from penstock.reliability import (
    FEWEST,
    PREDICTORS,
    PRIOR_MEANS,
    STAGES,
    Cycle,
    Learner,
    PastRun,
    PastStep,
    RunEffect,
    Share,
    backtest,
    calibration,
    cycles,
    failures,
    learned,
    passing,
)
from penstock.runs import RunStatus, StepStatus

Draw = np.random.Generator
CHANCES = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6)
EFFECTS = st.builds(RunEffect, st.floats(-2, 2), st.floats(0, 2))
COUNTS = st.integers(0, 4).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
HISTORIES = st.lists(st.builds(Cycle, st.tuples(*[COUNTS] * 4)), max_size=12)
SILENT = Cycle(((0, 0),) * 4)


def chain(*verdicts: bool | None) -> Cycle:
    """A commit's verdicts by stage; None where it told nothing."""
    return Cycle(tuple((0, 0) if v is None else (int(v), 1) for v in verdicts))


GREEN = chain(True, True, True, True)
RED = chain(True, True, False, None)


def played(draw: Draw, n: int, totals: Sequence[int], deviation: float) -> list[Cycle]:
    """Commits with so many checks per stage, at the prior's chances, each with an effect of its own."""
    odds = np.log(PRIOR_MEANS) - np.log1p(-np.array(PRIOR_MEANS))
    shifted = odds + draw.normal(0, deviation, (n, 1))
    passed = draw.binomial(totals, 1 / (1 + np.exp(-shifted)))
    return [Cycle(tuple(zip(row, totals, strict=True))) for row in passed.tolist()]


# --- what is foretold ----------------------------------------------------------------------------------------------


def test_without_history_it_is_the_prior() -> None:
    """The four prior means multiply to .829521, and not to the .8683 that was once printed for them."""
    model = learned([])
    assert model.passing() == pytest.approx(0.829521, abs=1e-9)
    assert model.product == pytest.approx(0.829521, abs=1e-9)
    low, high = model.interval()
    assert low < 0.829521 < high


def test_the_integral_is_right() -> None:
    """Twenty nodes give what a fine sum over the normal law gives."""
    grid = np.linspace(-9, 9, 20_001)
    law = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    for effect in (RunEffect(0.3, 0.5), RunEffect(-0.4, 1.2)):
        u = effect.mean + effect.deviation * grid
        wanted = sum(law * np.prod([1 / (1 + np.exp(-(math.log(p / (1 - p)) + u))) for p in PRIOR_MEANS], axis=0))
        assert passing(PRIOR_MEANS, effect) == pytest.approx(wanted, abs=1e-4)


@settings(deadline=None)
@given(CHANCES, EFFECTS)
def test_a_shared_effect_never_hurts_the_whole(chances: list[float], effect: RunEffect) -> None:
    """The chance of all is at least the product of the single ones, at most the smallest, and just that without τ."""
    alone = [passing([p], effect) for p in chances]
    assert math.prod(alone) - 1e-9 <= passing(chances, effect) <= min(alone) + 1e-9
    assert passing(chances, RunEffect()) == pytest.approx(math.prod(chances))
    assert passing(chances[:-1], effect) >= passing(chances, effect) - 1e-9


@settings(deadline=None)
@given(st.floats(0.5, 50), st.floats(0.5, 50))
def test_intervals_of_a_share_are_nested(passed: float, failed: float) -> None:
    """More confidence gives a wider interval, and both lie between 0 and 1."""
    share = Share(passed, failed)
    (low, high), (lower, higher) = share.interval(0.5), share.interval(0.9)
    assert 0 <= lower <= low <= high <= higher <= 1
    assert 0 < share.mean < 1


@settings(max_examples=15, deadline=None)
@given(HISTORIES)
def test_any_history_gives_chances(history: list[Cycle]) -> None:
    """Whatever was told, the forecast lies strictly within ]0, 1[ and its interval is in order."""
    model = learned(history)
    low, high = model.interval()
    assert 0 <= low <= high <= 1
    assert 0 < model.passing() < 1
    assert model.passing([True, False, False, False]) >= model.passing() - 1e-9
    assert replace(model, effect=RunEffect()).passing() == pytest.approx(model.product)


@settings(max_examples=30, deadline=None)
@given(HISTORIES)
def test_silence_changes_nothing_and_a_pass_never_hurts(history: list[Cycle]) -> None:
    """A commit that told nothing leaves every share as it was; a green one raises, a red one lowers its stage's."""

    def shares(last: Cycle) -> list[float]:
        learner = Learner()
        for cycle in [*history, last]:
            learner.learn(cycle)
        kept = learner._kept + 1.0
        return [float(x) for x in (kept[0, :, 0] / kept[0].sum(axis=1))]

    before = shares(SILENT)
    assert before == shares(SILENT)
    assert all(a >= b - 1e-12 for a, b in zip(shares(GREEN), before, strict=True))
    assert shares(RED)[2] <= before[2] + 1e-12
    assert shares(RED)[3] == before[3]


def test_history_is_forgotten() -> None:
    """A project that was red for long and then green for long is foretold to be green."""
    red, green = [RED] * 60, [GREEN] * 60
    assert learned(red + green).passing() > 0.85
    assert learned(green + red).passing() < 0.6


def test_equal_histories_give_equal_answers() -> None:
    """Nothing is left to chance: the same history gives the same bounds and figures."""
    history = played(np.random.default_rng(4), 40, (1, 1, 1, 1), 1.0)
    assert learned(history) == learned(history)
    assert learned(history).interval() == learned(history).interval()
    assert backtest(history) == backtest(history)


# --- intervals hold ------------------------------------------------------------------------------------------------


def test_intervals_of_failures_hold_with_the_run_effect_and_not_without() -> None:
    """Bounds of 90 % for the failures of the next commit hold about 90 % of the time; as if independent, under 60 %."""
    draw, totals, runs = np.random.default_rng(1), (10, 20, 200, 5), 40
    within = {False: 0, True: 0}
    for _ in range(runs):
        *history, last = played(draw, 31, totals, 1.0)
        model, failed = learned(history), sum(total - passed for passed, total in last.counts)
        for independent in within:
            low, high = failures(model, totals, independent=independent)
            within[independent] += low <= failed <= high
    assert 0.82 <= within[False] / runs <= 0.98
    assert within[True] / runs < 0.6


def test_the_run_effect_is_found() -> None:
    """With many checks τ is estimated to what it is; without any effect it is found to be none."""
    for deviation in (0.0, 1.0):
        model = learned(played(np.random.default_rng(2), 200, (10, 20, 100, 10), deviation))
        assert model.effect.deviation == pytest.approx(deviation, abs=0.2)


def test_intervals_of_the_forecast_hold() -> None:
    """Bounds of 90 % for the chance of the whole path hold it in at least 85 % of histories."""
    draw, runs = np.random.default_rng(3), 40
    truth, held = passing(PRIOR_MEANS, RunEffect(0, 1.0)), 0
    for _ in range(runs):
        low, high = learned(played(draw, 40, (1, 1, 1, 1), 1.0)).interval()
        held += low <= truth <= high
    assert held / runs >= 0.85


# --- calibration ---------------------------------------------------------------------------------------------------


def test_the_figures_by_hand() -> None:
    """Brier, log loss, calibration error and coverage of four forecasts, reckoned by hand."""
    found = calibration([0.8, 0.8, 0.2, 1.0], [True, False, False, True], [True, False])
    assert found.brier == pytest.approx((0.04 + 0.64 + 0.04 + 0) / 4)
    assert found.log_loss == pytest.approx(-(2 * math.log(0.8) + math.log(0.2) + math.log(0.99)) / 4)
    assert found.calibration_error == pytest.approx((0.6 + 0.2 + 0.0) / 4)
    assert (found.covered, found.blocks) == (1, 2)


def test_too_short_a_history_is_not_judged() -> None:
    """Below ten forecasts no figure is given; the first commits are only learned from."""
    assert backtest([GREEN] * (FEWEST // 2 + FEWEST - 1)) == (FEWEST - 1, {})
    foretold, found = backtest([GREEN] * (FEWEST // 2 + FEWEST))
    assert (foretold, tuple(found)) == (FEWEST, PREDICTORS)
    assert all(c.blocks == 1 for c in found.values())


def test_nothing_of_the_future_is_used() -> None:
    """What comes after a commit changes no forecast of it: the figures of a beginning are those of the whole's."""
    history = played(np.random.default_rng(5), 30, (1, 1, 1, 1), 1.0)
    learner = Learner()
    for cycle in history:
        learner.learn(cycle)
    first = learned(history).shares
    learned([*history, RED, RED])
    assert learner.model.shares == first


def test_a_steady_project_is_foretold_better_than_by_the_last_time() -> None:
    """Where commits are independent, the model is about as good as the base rate and better than the last verdict."""
    _, found = backtest(played(np.random.default_rng(6), 150, (1, 1, 1, 1), 0.0))
    model, base, last = (found[name] for name in PREDICTORS)
    assert model.brier < last.brier
    assert model.log_loss < last.log_loss
    assert model.brier == pytest.approx(base.brier, abs=0.02)
    assert model.covered >= 0.8 * model.blocks


# --- what runs tell ------------------------------------------------------------------------------------------------


def step(name: str, stage: str, status: str = "passed", kind: str = "step", *, cached: bool = False) -> PastStep:
    return PastStep(name, StepKind(kind), stage, StepStatus(status), cached)


def run(
    *steps: PastStep,
    status: str = "passed",
    verdicts: tuple[str | None, ...] = (),
    targets: tuple[str, ...] = (),
    sha: str = "a",
    check: str = "passed",
) -> PastRun:
    whole = (step("check", "build", check, "check"), *steps)
    return PastRun(1, sha, RunStatus(status), False, False, whole, verdicts, targets)


TRAIN, UNIT = step("train", "build"), step("unit", "test")


def told(*runs: PastRun) -> list[tuple[bool | None, ...]]:
    return [tuple(None if not total else passed == total for passed, total in c.counts) for c in cycles(runs)]


@pytest.mark.parametrize(
    ("past", "wanted"),
    [
        (run(TRAIN, UNIT, verdicts=("pass",), targets=("released",)), (True, True, True, True)),
        (run(TRAIN, UNIT), (True, True, True, None)),
        (run(step("train", "build", "skipped", cached=True), UNIT), (True, True, True, None)),
        (run(TRAIN, step("unit", "test", "warned")), (True, True, True, None)),
        (run(step("train", "build", "skipped"), step("unit", "test", "skipped"), check="failed"), (False, *[None] * 3)),
        (run(step("train", "build", "failed"), UNIT), (True, False, True, None)),
        (
            run(step("train", "build", "failed"), step("unit", "test", "failed"), step("ask", "test", "skipped")),
            (True, False, None, None),
        ),
        (run(TRAIN, UNIT, verdicts=("pass", "fail"), targets=("skipped",)), (True, True, False, None)),
        (run(TRAIN, UNIT, verdicts=("inconclusive",), targets=("skipped",)), (True, True, None, None)),
        (run(TRAIN, step("unit", "test", "errored"), status="errored"), (True, True, None, None)),
        (run(TRAIN, step("unit", "test", "canceled"), status="canceled"), (True, True, None, None)),
        (run(TRAIN, UNIT, targets=("released", "refused"), status="failed"), (True, True, True, False)),
        (run(TRAIN, UNIT, targets=("released", "unapproved"), status="failed"), (True, True, True, None)),
        (run(TRAIN, UNIT, targets=("released", "errored"), status="errored"), (True, True, True, None)),
        (run(TRAIN, UNIT, step("night", "test", "skipped")), (True, True, True, None)),
    ],
)
def test_what_a_run_tells(past: PastRun, wanted: tuple[bool | None, ...]) -> None:
    """Each way for a run to end, and the verdict of each stage that follows; what could not be told is silent."""
    assert told(past) == [wanted]


def test_what_says_nothing_of_a_commit() -> None:
    """Runs that go on, of one step only, or of a working tree do not count."""
    whole = run(TRAIN, UNIT)
    silent = (replace(whole, status=RunStatus.RUNNING), replace(whole, is_partial=True), replace(whole, is_dirty=True))
    assert told(*silent) == []


def test_a_commit_tells_once() -> None:
    """A pass after a rerun hides no failure, and fills in what the first run could not tell."""
    failed = run(TRAIN, step("unit", "test", "failed"), status="failed", targets=("skipped",))
    passed = run(TRAIN, UNIT, targets=("released",))
    assert told(failed, passed) == [(True, True, False, True)]
    assert told(run(TRAIN, step("unit", "test", "errored"), status="errored"), passed) == [(True,) * 4]
    assert told(failed, replace(passed, sha="b")) == [(True, True, False, None), (True,) * 4]


def test_whether_a_commit_went_all_the_way() -> None:
    """All that was asked passed, or something failed, or that is not known."""
    (not_delivered,) = cycles([run(TRAIN, UNIT)])
    (not_there,) = cycles([run(TRAIN, UNIT, targets=("skipped",))])
    (untold,) = cycles([run(TRAIN, UNIT, targets=("errored",))])
    assert (not_delivered.asked, not_delivered.passed) == ((True, True, True, False), True)
    assert (not_there.asked, not_there.passed) == (not_delivered.asked, True)
    assert (untold.asked, untold.passed) == ((True,) * len(STAGES), None)
    (red,) = cycles([run(TRAIN, step("unit", "test", "failed"), targets=("skipped",))])
    assert (red.asked[3], red.passed) == (True, False)
