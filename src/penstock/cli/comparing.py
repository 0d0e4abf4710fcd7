"""The verb `compare`: what differs between two runs."""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.delivering import ProjectOption, project_here
from penstock.cli.looking import JsonOption
from penstock.cli.settings import read_settings
from penstock.errors import NotFoundError, SourceError

if TYPE_CHECKING:
    from penstock.artifacts import Tree
    from penstock.cli.differences import Differences, FileChange, OutputChange, Side
    from penstock.engine.contracts import CommitFiles
    from penstock.engine.world import World
    from penstock.store.contract import Run

_LOOKED = 200
"""How many of the newest runs are looked through for a version."""


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run's number, or a version (or its beginning).")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    *,
    examples: Annotated[
        int, typer.Option("--examples", help="How many flipped examples are shown.", min=0, max=1000)
    ] = 10,
    project: ProjectOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what differs between two runs: metrics, evidence, gates, parameters, data, dependencies, code.

    Example: penstock compare 0.1.0.dev3 0.1.0.dev4
    """
    from penstock.cli.wiring import open_world

    with open_world(read_settings()) as world:
        found = _differences(world, _run_of(world, a, project), _run_of(world, b, project))
    if json_:
        typer.echo(json.dumps(found.as_json(), indent=2))
        return
    from penstock.cli.differences import render_differences
    from penstock.cli.progress import display

    display(render_differences(found, examples), sys.stdout)


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
    from penstock.cli.differences import Differences, changes, flat, metric_rows, pins
    from penstock.cli.pairing import paired_runs

    notes: list[str] = []
    runs = world.store.runs
    verdicts = [{g.name: g.verdict for g in runs.gates(r.id)} for r in (a, b)]
    locks = [pins(_lock(world, r, notes)) for r in (a, b)]
    paired = paired_runs(world, a, b)
    return Differences(
        a=_side(a),
        b=_side(b),
        metrics=metric_rows(runs.metrics(a.id), runs.metrics(b.id)),
        evidence=paired.flips,
        gates=changes(*verdicts),
        parameters=changes(flat(a.pipeline), flat(b.pipeline)),
        outputs=_outputs(world, a, b),
        dependencies=changes(*locks),
        files=_files(world, a, b, notes),
        inputs=changes(*_inputs(world, a, b)),
        notes=(*notes, *paired.notes),
    )


def _side(run: "Run") -> "Side":
    from penstock.cli.differences import Side

    commit = run.commit
    texts = (run.version, str(commit["sha"]), str(run.status), commit["branch"], str(commit["title"]))
    return Side(run.id, *texts, dirty=bool(commit["dirty"]))


def _outputs(world: "World", a: "Run", b: "Run") -> "tuple[OutputChange, ...]":
    """What the steps of both runs made and did not make alike; its files too, where the cache still has them."""
    from penstock.cli.differences import changes, output_change

    made = [
        {s.name: (s.result or {}).get("outputs") for s in world.store.runs.steps(run.id) if s.result} for run in (a, b)
    ]
    return tuple(
        output_change(c.name, c.a, c.b, _kept(world, c.a), _kept(world, c.b))
        for c in changes(*made)
        if c.name in made[0] and c.name in made[1]
    )


def _kept(world: "World", digest: str | None) -> "Tree | None":
    from penstock.artifacts import Digest, Tree
    from penstock.cache.contract import BlobError

    try:
        return Tree() if digest is None else world.cache.tree(Digest(digest))
    except BlobError:
        return None


def _inputs(world: "World", a: "Run", b: "Run") -> list[dict[str, str | None]]:
    """What the key of each step of both runs was made of, as far as it was known."""
    known = [{s.name: s.ingredients for s in world.store.runs.steps(run.id) if s.ingredients} for run in (a, b)]
    both = known[0].keys() & known[1].keys()
    return [
        {f"{step} {name}": value for step, found in side.items() if step in both for name, value in _ingredients(found)}
        for side in known
    ]


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


_READ, _READ_BYTES = 200, 1 << 20
"""So many files are read to count their lines, none larger than this."""


def _files(world: "World", a: "Run", b: "Run", notes: list[str]) -> "tuple[FileChange, ...]":
    """The files that differ between the commits; none where one is gone from its mirror, which is noted."""
    from penstock.cli.differences import file_changes, with_renames

    with ExitStack() as stack:
        sides = [_commit_files(world, run, notes) for run in (a, b)]
        for side in filter(None, sides):
            stack.callback(side.close)
        old, new = sides
        if old is None or new is None:
            return ()
        found = with_renames(file_changes(old.tree, new.tree), old.tree, new.tree)
        return (*(_counted(change, old, new) for change in found[:_READ]), *found[_READ:])


def _commit_files(world: "World", run: "Run", notes: list[str]) -> "CommitFiles | None":
    from pathlib import Path

    try:
        return world.source.files(Path(run.mirror), str(run.commit["sha"]))
    except (SourceError, OSError):
        notes.append(f"the commit of run {run.id} is not in the mirror any more, so files are not compared")
        return None


def _counted(change: "FileChange", old: "CommitFiles", new: "CommitFiles") -> "FileChange":
    """The same with its lines counted, where it is a text of bearable size."""
    from penstock.cli.differences import file_of, line_counts

    entries = [file_of(side.tree, change.path) for side in (old, new)]
    if change.change == "renamed" or any(entry is not None and entry.size > _READ_BYTES for entry in entries):
        return change
    texts = [b"" if entry is None else side.read(entry.digest) for side, entry in zip((old, new), entries, strict=True)]
    counts = line_counts(*texts)
    return change if counts is None else replace(change, lines_added=counts[0], lines_removed=counts[1])
