"""The verb `report`: a run as it is put before other people, as Markdown, as JSON or as a page."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.looking import RunArgument
from penstock.cli.settings import read_settings
from penstock.errors import SourceError, UsageError

if TYPE_CHECKING:
    from penstock.cli.sheets import Opponent, Sheet, StepTests
    from penstock.commits import Commit
    from penstock.engine.world import World
    from penstock.pipelines import Pipeline
    from penstock.store.contract import Run

_LOOKED = 200
"""How many of the newest runs are looked through for one to hold against."""


def report(
    run: RunArgument,
    *,
    html: Annotated[bool, typer.Option("--html", help="Print one self-contained page.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one documented JSON object.")] = False,
) -> None:
    """Print a run as Markdown, to be read in a pull request, or as a page of its own.

    Example: penstock report 12 --html > report.html
    """
    from penstock.cli.wiring import open_world
    from penstock.engine.views import to_json

    if html and json_:
        raise UsageError("penstock report prints --html or --json: choose one of them")
    with open_world(read_settings()) as world:
        sheet = sheet_of(world, world.store.runs.get(run))
    if json_:
        typer.echo(json.dumps(sheet.as_json(to_json(sheet.view)), indent=2))
    elif html:
        from penstock.cli.pages import page

        typer.echo(page(sheet))
    else:
        from penstock.cli.markdown import written

        typer.echo(written(sheet))


def sheet_of(world: "World", run: "Run") -> "Sheet":
    """Everything that a report shows of a run."""
    from penstock.cli.pairing import Paired, paired_runs
    from penstock.cli.sheets import Opponent, Sheet
    from penstock.engine.views import view

    before, opponent = _before(world, run), _baseline(_Past.of(world, run))
    if opponent is None and before is not None:
        opponent = Opponent(before.id, before.version, "the newest run that passed before on the default branch")
    paired = Paired() if opponent is None else paired_runs(world, world.store.runs.get(opponent.run), run)
    packages = world.store.runs.packages(run.project, run.version)
    return Sheet(
        view=view(world.store, run),
        before=None if before is None else view(world.store, before),
        tests=_tests(world, run),
        opponent=opponent,
        evidence=paired.flips,
        gaps=paired.notes,
        lineage=next((p.lineage for p in packages if p.digest == run.package), None),
    )


def _before(world: "World", run: "Run") -> "Run | None":
    """The newest earlier run of another commit that passed on the default branch: what a change is held against."""
    for earlier in world.store.runs.latest(run.project, _LOOKED):
        commit = earlier.commit
        is_other = earlier.id < run.id and commit["sha"] != run.commit["sha"] and not commit["dirty"]
        is_main = commit["branch"] is not None and commit["branch"] == commit["default_branch"]
        if is_other and is_main and earlier.status == "passed" and earlier.options.get("step") is None:
            return earlier
    return None


@dataclass(frozen=True, slots=True)
class _Past:
    """A run that is looked back at."""

    world: "World"
    run: "Run"
    pipeline: "Pipeline"
    commit: "Commit"

    @classmethod
    def of(cls, world: "World", run: "Run") -> "_Past":
        from penstock.commits import Commit
        from penstock.pipelines import Pipeline

        commit = Commit(**{**run.commit, "branches": tuple(run.commit["branches"])})
        return cls(world, run, Pipeline.model_validate(run.pipeline), commit)


def _baseline(past: _Past) -> "Opponent | None":
    """What the first gate that compares evidence names, as it stood when the run began; else the champion of then."""
    from penstock.cli.sheets import Opponent
    from penstock.engine.baselines import Baselines
    from penstock.pipelines import BaselineName

    leaves = [leaf for gate in past.pipeline.gates.values() for leaf in gate.leaves if leaf.evidence is not None]
    name = next((leaf.baseline for leaf in leaves if leaf.baseline is not None), BaselineName(name="champion"))
    if name.kind == "champion" and (name.detail or past.pipeline.environments):
        return _champion(past, name.detail)
    try:
        found = Baselines(past).find(name)
    except SourceError:
        return None
    return None if found is None else Opponent(found.run, found.version, name.words)


def _champion(past: _Past, named: str) -> "Opponent | None":
    """What had the traffic of the champion's environment when the run began."""
    from penstock.cli.sheets import Opponent
    from penstock.engine.baselines import champion_environment

    environment = named or champion_environment(past.pipeline)
    if environment is None:
        return None
    run, then = past.run, past.run.started or past.run.created
    released = past.world.store.releases.of(run.project, environment)
    served = [r for r in released if r.since is not None and r.run != run.id]
    found = [r for r in served if (r.since or then) <= then and (r.ended is None or r.ended >= then)]
    newest = max(found, key=lambda release: release.since or 0.0, default=None)
    return None if newest is None else Opponent(newest.run, newest.version, f"the champion in {environment}")


def _tests(world: "World", run: "Run") -> "tuple[StepTests, ...]":
    """What the reports of the run's steps came to, in the plan's order."""
    from penstock.cli.sheets import StepTests

    found = []
    for step in world.store.runs.steps(run.id):
        counts = (step.result or {}).get("tests")
        if counts:
            passed, failed, errored, skipped = (
                int(counts.get(word, 0)) for word in ("passed", "failed", "errored", "skipped")
            )
            reason = step.reason if failed or errored else None
            found.append(StepTests(step.name, passed, failed, errored, skipped, reason))
    return tuple(found)
