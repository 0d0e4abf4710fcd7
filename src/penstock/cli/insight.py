"""The verb `insight`: how likely a commit passes each stage, and how well that was foretold so far."""

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from penstock.cli.delivering import ProjectOption, project_here
from penstock.cli.looking import JsonOption
from penstock.cli.settings import read_settings

if TYPE_CHECKING:
    from penstock.cli.chances import CalibrationRow, Chances, DurationRow, StageRow
    from penstock.engine.world import World
    from penstock.reliability import Cycle, Reliability
    from penstock.store.contract import Project


def insight(*, project: ProjectOption = None, json_: JsonOption = False) -> None:
    """Say how likely the next commit passes, from history, and how well that was foretold.

    Example: penstock insight
    """
    from penstock.cli.wiring import open_world

    with open_world(read_settings()) as world:
        found = _chances(world, project_here(world, project))
    if json_:
        typer.echo(json.dumps(_to_json(found), indent=2))
        return
    from penstock.cli.chances import render_chances
    from penstock.cli.progress import display

    display(render_chances(found), sys.stdout)


def _chances(world: "World", project: "Project") -> "Chances":
    from penstock.cli.chances import Chances
    from penstock.reliability import STAGES, backtest, cycles, learned

    told = cycles(world.store.history.outcomes(project.id))
    model = learned(told)
    asked = told[-1].asked if told else (True,) * len(STAGES)
    foretold, calibrations = backtest(told)
    return Chances(
        project=project.name,
        commits=len(told),
        stages=_stage_rows(model, told),
        product=model.product,
        asked=tuple(stage for stage, is_asked in zip(STAGES, asked, strict=True) if is_asked),
        forecast=(model.passing(asked), *model.interval(asked)),
        effect=(model.effect.mean, model.effect.deviation),
        forgetting=model.forgetting,
        weight=model.weight,
        foretold=foretold,
        calibrations=_calibration_rows(calibrations),
        durations=_duration_rows(world, project),
    )


def _stage_rows(model: "Reliability", told: "list[Cycle]") -> "tuple[StageRow, ...]":
    from penstock.cli.chances import StageRow
    from penstock.reliability import PRIOR_MEANS, STAGES

    sums = [[sum(c.counts[i][part] for c in told) for part in (0, 1)] for i in range(len(STAGES))]
    rows = zip(STAGES, sums, model.shares, PRIOR_MEANS, strict=True)
    return tuple(
        StageRow(stage, passed, total, share.mean, *share.interval(), prior)
        for stage, (passed, total), share, prior in rows
    )


def _calibration_rows(found: Any) -> "tuple[CalibrationRow, ...]":
    from penstock.cli.chances import CalibrationRow

    return tuple(
        CalibrationRow(name, c.brier, c.log_loss, c.calibration_error, c.covered, c.blocks) for name, c in found.items()
    )


def _duration_rows(world: "World", project: "Project") -> "tuple[DurationRow, ...]":
    """The median of the last five times that each step ran and passed, longest first."""
    from statistics import median

    from penstock.cli.chances import DurationRow

    taken = world.store.runs.durations(project.id)
    rows = [DurationRow(step, median(seconds), len(seconds)) for step, seconds in taken.items()]
    return tuple(sorted(rows, key=lambda row: -row.seconds))


def _to_json(found: "Chances") -> dict[str, Any]:
    """The documented object of `insight --json`."""
    from dataclasses import asdict

    estimate, low, high = found.forecast
    return {
        "project": found.project,
        "commits": found.commits,
        "stages": [asdict(row) for row in found.stages],
        "product": found.product,
        "forecast": {"stages": list(found.asked), "estimate": estimate, "low": low, "high": high},
        "run_effect": {"mean": found.effect[0], "deviation": found.effect[1]},
        "forgetting": found.forgetting,
        "prior_weight": found.weight,
        "foretold": found.foretold,
        "calibration": [asdict(row) for row in found.calibrations],
        "durations": [asdict(row) for row in found.durations],
    }
