"""Verbs that put results before other people: compare, report."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.delivering import ProjectOption, project_here
from penstock.cli.looking import JsonOption, RunArgument
from penstock.cli.settings import read_settings
from penstock.errors import NotFoundError, SourceError

if TYPE_CHECKING:
    from penstock.artifacts import Tree
    from penstock.cli.differences import Differences
    from penstock.engine.world import World
    from penstock.store.contract import Run

_LOOKED = 200
"""How many of the newest runs are looked through for a version, or for one to hold against."""


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run's number, or a version (or its beginning).")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    *,
    project: ProjectOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what differs between two runs: metrics, gates, parameters, inputs, dependencies, files.

    Example: penstock compare 0.1.0.dev3 0.1.0.dev4
    """
    from penstock.cli.wiring import open_world

    with open_world(read_settings()) as world:
        found = _differences(world, _run_of(world, a, project), _run_of(world, b, project))
    if json_:
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(found), indent=2))
        return
    from penstock.cli.differences import render_differences
    from penstock.cli.progress import display

    display(render_differences(found), sys.stdout)


def report(run: RunArgument, *, json_: JsonOption = False) -> None:
    """Print a run as Markdown, to be read in a pull request.

    Example: penstock report 12 > report.md
    """
    from penstock.cli.wiring import open_world
    from penstock.engine.views import to_json, view

    with open_world(read_settings()) as world:
        asked = world.store.runs.get(run)
        shown, earlier = view(world.store, asked), _before(world, asked)
        before = None if earlier is None or json_ else view(world.store, earlier)
    if json_:
        typer.echo(json.dumps(to_json(shown), indent=2))
        return
    from penstock.cli.markdown import written

    typer.echo(written(shown, before))


def _before(world: "World", run: "Run") -> "Run | None":
    """The newest earlier run of another commit that passed on the default branch: what a change is held against."""
    for earlier in world.store.runs.latest(run.project, _LOOKED):
        commit = earlier.commit
        is_other = earlier.id < run.id and commit["sha"] != run.commit["sha"] and not commit["dirty"]
        is_main = commit["branch"] is not None and commit["branch"] == commit["default_branch"]
        if is_other and is_main and earlier.status == "passed" and earlier.options.get("step") is None:
            return earlier
    return None


def _run_of(world: "World", named: str, project: str | None) -> "Run":
    """The run of a number, else the newest run of a version. Raises NotFoundError where there is none."""
    if named.isdecimal():
        return world.store.runs.get(int(named))
    chosen = project_here(world, project)
    runs = world.store.runs.latest(chosen.id, _LOOKED)
    exact = [r for r in runs if named in {r.version, r.version.partition("+")[0]}]
    fitting = exact or [r for r in runs if r.version.startswith(named)]
    versions = list(dict.fromkeys(r.version for r in fitting or runs))
    if len(versions) == 1 and fitting:
        return fitting[0]
    what = (
        f'"{named}" fits more than one version of {chosen.name}'
        if fitting
        else f'{chosen.name} has no run of "{named}"'
    )
    raise NotFoundError(f"{what}: say one of {', '.join(versions[:5]) or 'none yet'}, or a run's number")


def _differences(world: "World", a: "Run", b: "Run") -> "Differences":
    from penstock.cli.differences import Differences, Side, changes, file_changes, flat, metric_rows, pins

    notes: list[str] = []
    runs, sides = world.store.runs, [Side(r.id, r.version, str(r.commit["sha"]), str(r.status)) for r in (a, b)]
    verdicts = [{g.name: g.verdict for g in runs.gates(r.id)} for r in (a, b)]
    locks = [pins(_lock(world, r, notes)) for r in (a, b)]
    trees = [_tree(world, r, notes) for r in (a, b)]
    return Differences(
        a=sides[0],
        b=sides[1],
        metrics=metric_rows(runs.metrics(a.id), runs.metrics(b.id)),
        gates=changes(*verdicts),
        parameters=changes(flat(a.pipeline), flat(b.pipeline)),
        inputs=changes(_inputs(world, a), _inputs(world, b)),
        dependencies=changes(*locks),
        files=() if trees[0] is None or trees[1] is None else file_changes(trees[0], trees[1]),
        notes=tuple(notes),
    )


def _inputs(world: "World", run: "Run") -> dict[str, str | None]:
    """What the key of each step was made of, as far as it was known."""
    steps = world.store.runs.steps(run.id)
    return {f"{s.name} {name}": value for s in steps for name, value in _ingredients(s.ingredients) if value}


def _ingredients(known: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in (known or {}).items() if value]


def _lock(world: "World", run: "Run", notes: list[str]) -> str:
    """The lock of a run as text; none where it locked nothing, or where the cache has it no more, which is noted."""
    from penstock.artifacts import Digest

    steps = [s for s in world.store.runs.steps(run.id) if s.name == "lock" and s.result]
    digest = None if not steps else (steps[0].result or {}).get("lock")
    if digest is None:
        return ""
    if not world.cache.has(Digest(digest)):
        notes.append(f"the lock of run {run.id} is not in the cache any more, so its dependencies are not compared")
        return ""
    return world.cache.read(Digest(digest)).decode(errors="replace")


def _tree(world: "World", run: "Run", notes: list[str]) -> "Tree | None":
    """The files of a run's commit; None where the mirror has it no more, which is noted."""
    from pathlib import Path

    try:
        return world.source.files(Path(run.mirror), str(run.commit["sha"])).tree
    except (SourceError, OSError):
        notes.append(f"the commit of run {run.id} is not in the mirror any more, so files are not compared")
        return None
