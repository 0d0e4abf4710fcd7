"""Verbs that build: check, plan, run, resume, cancel."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.settings import read_settings
from penstock.errors import StateError, UsageError

if TYPE_CHECKING:
    from penstock.engine.world import World
    from penstock.pipelines import Pipeline
    from penstock.runs import RunView
    from penstock.store.contract import Request, Run

LocationArgument = Annotated[str, typer.Argument(metavar="PATH", help="A checkout, a repository or a clone URL.")]
FileOption = Annotated[str | None, typer.Option("--file", "-f", help="The pipeline file, from the repository's root.")]
RefOption = Annotated[str | None, typer.Option("--ref", help="A branch, tag or commit; default: what is checked out.")]
WorktreeOption = Annotated[
    bool, typer.Option("--worktree", help="Take the files as they lie there; such a version is never deployed.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout.")]


def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder, or a pipeline file itself.")] = ".",
    *,
    file: Annotated[str | None, typer.Option("--file", "-f", help="The pipeline file, from that folder.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file, for editors.")] = False,
) -> None:
    """Validate penstock.yaml and compile the Python files that it uses.

    Example: penstock check
    """
    from penstock.sources.definitions import MAX_BYTES, load
    from penstock.sources.definitions import schema as json_schema

    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
        return
    folder = Path(path)
    target = folder if folder.is_file() else folder / (file or "penstock.yaml")
    try:
        with target.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{target} cannot be read ({reason}): penstock init writes one") from error
    pipeline = load(data, str(target))
    _check_files(pipeline, target)


def _check_files(pipeline: "Pipeline", target: Path) -> None:
    """The `check` step over the files as they lie beside the pipeline file; the exit code tells."""
    import subprocess

    from penstock.cli.checking import check_recordings, command_for

    root, command, count = command_for(pipeline, target, read_settings())
    check_recordings(pipeline, root)
    result = subprocess.run(["/bin/sh", "-ec", command.text], cwd=root, env=dict(command.variables), check=False)
    if result.returncode != 0:
        raise typer.Exit(1)
    steps, gates, places = len(pipeline.steps), len(pipeline.gates), len(pipeline.environments)
    typer.echo(
        f"{target}: fine ({_count(steps, 'step')}, {_count(gates, 'gate')}, {_count(places, 'environment')}; "
        f"{_count(count, 'file')} checked)"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plan(
    path: LocationArgument = ".",
    *,
    file: FileOption = None,
    ref: RefOption = None,
    worktree: WorktreeOption = False,
    json_: JsonOption = False,
) -> None:
    """Show what a run would do, and why.

    Example: penstock plan --ref main
    """
    from penstock.cli.asking import Wish, find
    from penstock.cli.planning import foresee
    from penstock.cli.wiring import open_world

    with open_world(read_settings()) as world:
        found = find(world.source, Wish(path, file, ref, worktree))
        rows = foresee(world, found)
    if json_:
        from dataclasses import asdict

        typer.echo(json.dumps({"commit": found.commit.sha, "steps": [asdict(row) for row in rows]}, indent=2))
        return
    from penstock.cli.progress import display, render_plan

    _notes(found.notes)
    display(render_plan(rows), sys.stdout)


def _notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def run(
    path: LocationArgument = ".",
    *,
    file: FileOption = None,
    ref: RefOption = None,
    worktree: WorktreeOption = False,
    step: Annotated[str | None, typer.Option("--step", help="Only this step and what it needs.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="ENV", help="Release up to this environment.")] = None,
    no_deploy: Annotated[bool, typer.Option("--no-deploy", help="Build, test and gate; release nothing.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Reuse nothing; results are still stored.")] = False,
    untrusted: Annotated[
        bool, typer.Option("--untrusted", help="A stranger's change: no secrets, no release, results kept apart.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build, test, gate and release one commit.

    Example: penstock run --to staging
    """
    from dataclasses import replace

    from penstock.cli.asking import Wish, check_resources, find, room_notes, run_payload
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        found = find(world.source, Wish(path, file, ref, worktree))
        _check_names(found.pipeline, step, to)
        check_resources(found.pipeline, world.capacity)
        found = replace(found, notes=(*found.notes, *room_notes(found.pipeline, world.capacity)))
        if untrusted and to is not None:
            raise UsageError("--untrusted and --to exclude each other: a change that is not trusted is never released")
        scope = (found.commit.branch or found.commit.sha) if untrusted else ""
        options: dict[str, Any] = {"step": step, "to": to, "no_deploy": no_deploy or untrusted, "no_cache": no_cache}
        options["scope"] = scope
        payload = run_payload(world.source, found, options, settings.environment)
        code = _follow(world, settings.actor, "run", payload, json_)
    raise typer.Exit(code)


def _check_names(pipeline: "Pipeline", step: str | None, to: str | None) -> None:
    from penstock.plans import plan as planned

    if step is not None and step not in (names := planned(pipeline).names):
        raise UsageError(f'there is no step "{step}"; the steps are {", ".join(names)}')
    if to is not None and to not in pipeline.environments:
        known = ", ".join(pipeline.environments) or "none"
        raise UsageError(f'there is no environment "{to}"; the file has {known}')


def resume(
    run: Annotated[int | None, typer.Argument(metavar="RUN", help="One run; default: every open run.")] = None,
    *,
    json_: JsonOption = False,
) -> None:
    """Go on with runs that were interrupted or whose command died.

    Example: penstock resume
    """
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        if run is not None:
            world.store.runs.get(run)
        code = _follow(world, settings.actor, "resume", {"run": run}, json_)
    raise typer.Exit(code)


def cancel(run: Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")]) -> None:
    """End a run and everything it started; what serves already goes on serving.

    Example: penstock cancel 12
    """
    from penstock.cli.following import Follower
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        world.store.runs.get(run)
        request = Follower(world, settings.actor, lambda _request: None).ask("cancel", {"runs": [run]})
        _raise_refused(request)
        typer.echo(f"run {run} is {world.store.runs.get(run).status}")


def approve(
    run: Annotated[int, typer.Argument(metavar="RUN", help="The run that waits.")],
    env: Annotated[str, typer.Argument(metavar="ENV", help="The environment that it waits to release to.")],
    *,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse it instead: the run fails with the reason.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for whoever reads the history.")] = None,
    json_: JsonOption = False,
) -> None:
    """Approve a release that waits for it, and go on with its run to its end.

    Example: penstock approve 12 production --reason "looked at the canary of staging"
    """
    from penstock.cli.delivering import plain_reason
    from penstock.cli.wiring import open_world

    settings = read_settings()
    why = None if reason is None else plain_reason(reason)
    with open_world(settings) as world:
        world.store.runs.get(run)
        payload = {"run": run, "environment": env, "reject": reject, "reason": why}
        code = _follow(world, settings.actor, "approve", payload, json_)
    raise typer.Exit(code)


def rerun(
    run: Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")],
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed; the rest is taken over.")] = False,
    json_: JsonOption = False,
) -> None:
    """Run a run's commit once more, all of it or only what failed.

    While the run still goes on, --failed opens its failed steps again. Example: penstock rerun 12 --failed
    """
    from penstock.cli.following import Follower
    from penstock.cli.wiring import open_world
    from penstock.runs import ENDED_RUN

    settings = read_settings()
    with open_world(settings) as world:
        old = world.store.runs.get(run)
        if old.status not in ENDED_RUN:
            if not failed:
                raise StateError(f"run {run} still goes on: --failed opens its failed steps again, or cancel it first")
            request = Follower(world, settings.actor, lambda _request: None).ask("rerun", {"run": run})
            _raise_refused(request)
            opened = (request.result or {}).get("steps") or []
            typer.echo(f"run {run} goes on with {', '.join(opened)}" if opened else f"no step of run {run} has failed")
            return
        code = _follow(world, settings.actor, "run", _payload_again(world, old, failed=failed), json_)
    raise typer.Exit(code)


def _payload_again(world: "World", old: "Run", *, failed: bool) -> dict[str, Any]:
    """The request for a run of the same commit and file as an old one."""
    from dataclasses import asdict

    project = next(p for p in world.store.runs.projects() if p.id == old.project)
    options = {**old.options, "no_cache": not failed, "failed_of": old.id if failed else None}
    return {
        "project": asdict(project),
        "commit": dict(old.commit),
        "change": list(old.change),
        "version": old.version,
        "mirror": old.mirror,
        "pipeline": dict(old.pipeline),
        "options": options,
        "trigger": "manual",
        "notes": [f"{'what failed in' if failed else 'all of'} run {old.id} once more"],
    }


def _raise_refused(request: "Request") -> None:
    from penstock.cli.answers import refused

    refused(request)


def _follow(world: "World", actor: str, kind: str, payload: Mapping[str, Any], as_json: bool) -> int:
    """Ask for a run, show it while it goes on, sum it up; returns the exit code."""
    from penstock.cli.answers import refused, sum_up
    from penstock.cli.following import Follower
    from penstock.cli.progress import LiveProgress
    from penstock.engine.views import view

    shown: dict[str, Any] = {}

    def latest(request: "Request") -> "RunView | None":
        number = _run_of(world, request)
        if request.kind == "approve" and not _is_decided(world, request):
            return None  # a refusal is one sentence
        return None if number is None else view(world.store, world.store.runs.glance(number))

    with LiveProgress(sys.stderr, time.time) as live:

        def show(request: "Request") -> None:
            now = world.store.changes()
            if shown.get("changes") != now:
                shown["changes"] = now
                shown["view"] = latest(request)
            if shown["view"] is not None:
                live.update(shown["view"])

        request = Follower(world, actor, show).ask(kind, payload)
    refused(request)
    if kind == "resume" and not (request.result or {"runs": True}).get("runs"):
        typer.echo(_nothing_to_resume(world))
        return 0
    return sum_up(world, request, _run_of(world, request), as_json=as_json)


def _is_decided(world: "World", request: "Request") -> bool:
    asked = world.store.approvals.newest(int(request.payload["run"]), str(request.payload["environment"]))
    return asked is not None and asked.decision == request.id


def _nothing_to_resume(world: "World") -> str:
    waiting = [f"run {r.id} waits: {r.reason}" for r in world.store.runs.open() if r.status == "waiting"]
    return f"nothing to resume: {'; '.join(waiting) or 'no run is open'}"


def _run_of(world: "World", request: "Request") -> int | None:
    """The run that a request is about; of several that `resume` took up, the one that moved last."""
    number = world.store.runs.number_of(request.id)
    if number is not None:
        return number
    if request.payload.get("run") is not None:
        return int(request.payload["run"])
    if request.kind != "resume":
        return None
    mine = (request.result or {}).get("runs") or [r.id for r in world.store.runs.open() if r.status != "waiting"]
    return int(mine[-1]) if mine else None
