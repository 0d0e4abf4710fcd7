"""Verbs that only look: runs, show, logs, explain, status, lineage, doctor."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.delivering import AnyProjectOption, ProjectOption, find_package, project_here
from penstock.cli.deployments import DEPLOY, print_hooks
from penstock.cli.happenings import show_history
from penstock.cli.migrations import MIGRATE, print_migrations
from penstock.cli.probes import PROBE, print_probes
from penstock.cli.settings import Settings, read_settings
from penstock.errors import NotFoundError

if TYPE_CHECKING:
    from penstock.cli.tables import StatusRow
    from penstock.engine.world import World
    from penstock.store.contract import Attempt, Release

RunArgument = Annotated[int, typer.Argument(metavar="RUN", help="The run's number.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout.")]


@contextmanager
def _world() -> "Iterator[tuple[World, Settings]]":
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        yield world, settings


def runs(
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1, max=1_000_000)] = 20,
    project: AnyProjectOption = None,
    json_: JsonOption = False,
) -> None:
    """List runs, newest first.

    Example: penstock runs --limit 5
    """
    from penstock.engine.views import to_json, view

    with _world() as (world, _):
        chosen = None if project is None else project_here(world, project).id
        views = [view(world.store, run) for run in world.store.runs.latest(chosen, limit)]
    if json_:
        typer.echo(json.dumps([to_json(v) for v in views], indent=2))
        return
    from penstock.cli.progress import display, render_runs

    if not views:
        typer.echo("no runs yet: penstock run makes the first")
        return
    display(render_runs(views), sys.stdout)


def show(run: RunArgument, *, json_: JsonOption = False) -> None:
    """Show everything about one run.

    Example: penstock show 12
    """
    from penstock.engine.views import to_json, view

    with _world() as (world, _):
        record = world.store.runs.get(run)
        shown = view(world.store, record)
        versions = {r.id: r.version for r in world.store.releases.of(record.project)}
    if json_:
        typer.echo(json.dumps(to_json(shown), indent=2))
        return
    from penstock.cli.progress import display, render_show
    from penstock.cli.standings import render_standing
    from penstock.standings import standing_of

    display(render_show(shown), sys.stdout)
    for release in shown.releases:
        standing = standing_of(release.rollout, release.status, release.reason)
        if standing is not None:
            stable = versions.get(standing.stable or 0)
            display(render_standing(release.environment, release.version, standing, stable), sys.stdout)


def logs(
    run: RunArgument,
    step: Annotated[
        str | None,
        typer.Argument(metavar="STEP", help="One step, or migrate.ENV, probe.ENV or deploy.ENV; default: all."),
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the step has ended.")] = False,
) -> None:
    """Print the log of a run's steps, migrations, probes and deploy commands, from the beginning.

    Example: penstock logs 12 train -f
    """
    with _world() as (world, _):
        world.store.runs.get(run)
        if step is not None and step.startswith(MIGRATE):
            print_migrations(world, run, step.removeprefix(MIGRATE), follow=follow, heading=False)
            return
        if step is not None and step.startswith(PROBE):
            print_probes(world, run, step.removeprefix(PROBE), follow=follow, heading=False)
            return
        if step is not None and step.startswith(DEPLOY):
            print_hooks(world, run, step.removeprefix(DEPLOY), follow=follow, heading=False)
            return
        names = (
            [s.name for s in world.store.runs.steps(run)] if step is None else [world.store.runs.step(run, step).name]
        )
        for name in names:
            _print_log(world, run, name, follow=follow, heading=step is None)
        if step is None:
            print_migrations(world, run, None, follow=follow, heading=True)
            print_probes(world, run, None, follow=follow, heading=True)
            print_hooks(world, run, None, follow=follow, heading=True)


LOOK, LOOKS = 0.02, 5
"""Seconds between two looks of a follower at the end of a log, and how many of them make one at the store."""


def _print_log(world: "World", run: int, step: str, *, follow: bool, heading: bool) -> None:
    """One step's attempts, one after another; with `follow` until it has ended."""
    from penstock.runs import ENDED_STEP

    done: dict[str, int] = {}
    sizes = _sizes(world.store.runs.attempts(run, step))
    while True:
        ended = world.store.runs.step(run, step).status in ENDED_STEP
        attempts = world.store.runs.attempts(run, step)
        for attempt in attempts:
            if attempt.id not in done:
                done[attempt.id] = 0
                _heading(attempt, heading=heading, several=attempt.number > 1)
            done[attempt.id] = _copy(attempt, done[attempt.id], sizes.get(attempt.id, 0))
        if ended or not follow:
            break
        sizes = _grown(attempts[-1:], sizes)
    if not done and not heading:
        record = world.store.runs.step(run, step)
        typer.echo(f"step {step} has no log: {record.status}{f' ({record.reason})' if record.reason else ''}", err=True)


def _sizes(attempts: "list[Attempt]") -> dict[str, int]:
    """How far the logs of attempts reach now. The next attempt may go on in the same file as soon as one has ended.

    So a size counts only if the store, asked afterwards, does not know of an end.
    """
    from penstock.engine.logfiles import size

    return {attempt.id: size(Path(str(attempt.detail["log"]))) for attempt in attempts}


def _grown(attempts: "list[Attempt]", sizes: dict[str, int]) -> dict[str, int]:
    """Wait until the log of an attempt has grown; but not for long, as it may have ended."""
    import time

    for _ in range(LOOKS):
        time.sleep(LOOK)
        now = _sizes(attempts)
        if any(now[number] > sizes.get(number, 0) for number in now):
            return now
    return now


def _heading(attempt: "Attempt", *, heading: bool, several: bool) -> None:
    if heading or several:
        sys.stdout.write(f"=== {attempt.step}{f' (attempt {attempt.number})' if several else ''}\n")
        sys.stdout.flush()


def _copy(attempt: "Attempt", done: int, size: int) -> int:
    """Write what the log has beyond `done` bytes to stdout, as it is; returns how far that leads.

    It goes to the attempt's end, or to byte `size` of the log while it has none.
    """
    from penstock.engine.logfiles import pieces
    from penstock.engine.views import log_range

    path, start, end = log_range(attempt)
    for piece in pieces(Path(path), start + done, size if end is None else end):
        sys.stdout.buffer.write(piece.data)
        done = piece.position - start
    sys.stdout.buffer.flush()
    return done


def explain(run: RunArgument, step: Annotated[str, typer.Argument(metavar="STEP", help="The step's name.")]) -> None:
    """Say why a step ran, was cached or was skipped.

    Example: penstock explain 12 train
    """
    with _world() as (world, _):
        world.store.runs.get(run)
        record = world.store.runs.step(run, step)
        lines = [f"{step} of run {run}: {'cached' if record.cached else record.status}"]
        if record.reason:
            lines.append(f"because {record.reason}")
        if record.needs:
            lines.append(f"needs    {', '.join(record.needs)}")
        if record.key:
            lines.append(f"key      {record.key}")
        lines += [f"  {name:<10} {value}" for name, value in (record.ingredients or {}).items() if value]
        lines += [
            f"attempt {a.number}: {a.reason or a.status}"
            + (f", exit code {a.exit_code}" if a.exit_code is not None else "")
            for a in world.store.runs.attempts(run, step)
        ]
    typer.echo("\n".join(lines))


def status(
    env: Annotated[str | None, typer.Argument(metavar="ENV", help="One environment; default: all.")] = None,
    *,
    history: Annotated[bool, typer.Option("--history", help="All that happened to ENV, oldest first.")] = False,
    project: AnyProjectOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what this home serves: environments, releases, replicas; or all that happened to one environment.

    Example: penstock status production --history
    """
    if history:
        with _world() as (world, _):
            show_history(world, env, project, json_=json_)
        return
    with _world() as (world, _):
        chosen = None if project is None else project_here(world, project).id
        found = [*_status_rows(world, chosen), *_first_rows(world, chosen)]
        rows = [row for row in found if env in {None, row.environment.rpartition("/")[2]}]
        versions = {r.id: r.version for r in world.store.releases.of(chosen)}
    if json_:
        typer.echo(json.dumps({"environments": [row.as_json() for row in rows]}, indent=2))
        return
    from penstock.cli.progress import display, render_status
    from penstock.cli.standings import render_standing

    if not rows:
        where = f"to {env} " if env else ""
        typer.echo(f"nothing is released {where}yet: penstock run releases what passes")
        return
    display(render_status(rows), sys.stdout)
    for row in rows:
        if row.rollout is not None and (row.rollout.going_on or (env is not None and _is_news(row))):
            stable = versions.get(row.rollout.stable or 0)
            display(render_standing(row.environment, row.tried or "", row.rollout, stable), sys.stdout)


def _is_news(row: "StatusRow") -> bool:
    """Whether the last rollout is that of what serves, or ended after that began to serve."""
    moves = () if row.rollout is None else row.rollout.moves
    return row.tried == row.version or not moves or row.since is None or moves[-1].at >= row.since


def _status_rows(world: "World", project: str | None) -> "list[StatusRow]":
    """One row per environment that ever had a release: the serving one, else what something happened to last."""
    releases = world.store.releases.of(project)
    current = {(r.project, r.environment): r for r in world.store.releases.current()}
    names = {p.id: p.name for p in world.store.runs.projects()}
    several = len({r.project for r in releases}) > 1
    found = []
    for key in dict.fromkeys((r.project, r.environment) for r in releases):
        own = [r for r in releases if (r.project, r.environment) == key]
        label = f"{names[key[0]]}/{key[1]}" if several else key[1]
        found.append(_status_row(world, current[key], label, own))
    return found


def _status_row(world: "World", release: "Release", label: str, own: "list[Release]") -> "StatusRow":
    from penstock.cli.tables import StatusRow
    from penstock.cli.watched import is_attended, watch_words
    from penstock.engine.contracts import Handle
    from penstock.engine.reserving import reserved
    from penstock.releases import address, is_hooked
    from penstock.standings import standing_of

    replicas = world.store.releases.replicas(release.id)
    lives = sum(1 for r in replicas if r.handle is not None and world.runner.alive(Handle(**r.handle)))
    serves = release.status == "serving"
    warm = [
        r.version for r in own if r.id != release.id and r.status == "retired" and world.store.releases.replicas(r.id)
    ]
    frozen = world.store.releases.frozen(release.project, release.environment)
    tried = next((r for r in reversed(own) if r.rollout), None)
    news = _news(world, release, own) if serves else None
    warmth = f"{warm[-1]} is kept warm for rollback" if warm else None
    held = reserved(release) if replicas else None
    share = f"reserves {held}" if held else None
    said = f"frozen by {frozen.by}: {frozen.reason}" if frozen else None
    look = world.store.drifts.newest(release.id) if serves else None
    watched = watch_words(release, own[-1], lambda: is_attended(world)) if serves else None
    asked = _asked(world, release.project, release.environment)
    drifted = look.sentence if look else None
    words = (asked, said, release.phase or release.reason, news, watched, drifted, share, warmth)
    return StatusRow(
        environment=label,
        status=str(release.status),
        version=release.version,
        url=address(release.spec) if serves else None,
        replicas="-" if is_hooked(release.spec) else f"{lives} of {release.spec['replicas']}",
        since=release.since,
        notes=tuple(dict.fromkeys(filter(None, words))),
        tried=tried.version if tried else None,
        rollout=standing_of(tried.rollout, tried.status, tried.reason) if tried else None,
        drift=look,
    )


def _asked(world: "World", project: str, environment: str) -> str | None:
    """What waits for somebody's approval to be released to an environment."""
    found = [a for a in world.store.approvals.pending() if (a.project, a.environment) == (project, environment)]
    return f"{found[-1].pinned.version} {found[-1].sentence}" if found else None


def _first_rows(world: "World", project: str | None) -> "list[StatusRow]":
    """Environments that never had a release and to which one waits to be approved."""
    from penstock.cli.tables import StatusRow

    known = {(r.project, r.environment) for r in world.store.releases.of(project)}
    names = {p.id: p.name for p in world.store.runs.projects()}
    several = len(names) > 1 and project is None
    return [
        StatusRow(
            environment=f"{names[asked.project]}/{asked.environment}" if several else asked.environment,
            status="waiting",
            version=asked.pinned.version,
            url=None,
            replicas="-",
            since=None,
            notes=(asked.sentence,),
        )
        for asked in world.store.approvals.pending()
        if project in {None, asked.project} and (asked.project, asked.environment) not in known
    ]


def _news(world: "World", serving: "Release", own: "list[Release]") -> str | None:
    """What a person should know of the other releases of an environment: what moves, else what ended last, and why.

    What ended before the release that serves began to is no news.
    """
    from penstock.cli.watched import is_attended
    from penstock.releases import MOVING

    newest = own[-1]
    if newest.status in MOVING:
        alone = "" if is_attended(world) else ", unattended: penstock resume goes on with it"
        return f"{newest.version}: {newest.phase or newest.status}{alone}"
    ended = [r for r in own if r.status in {"rejected", "rolled_back"} and (r.ended or 0.0) >= (serving.since or 0.0)]
    if not ended:
        return None
    last = max(ended, key=lambda r: (r.ended or 0.0, r.id))
    word, reason = str(last.status).replace("_", " "), last.reason or "by hand"
    return f"{last.version} was {reason if reason.startswith(f'{word} to ') else f'{word}: {reason}'}"


def lineage(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version (or its beginning), VERSION@DIGEST.")],
    *,
    project: ProjectOption = None,
    json_: JsonOption = False,
) -> None:
    """Follow a version back to its commit, data and gates, and forward to where it serves.

    Example: penstock lineage 0.1.0.dev4
    """
    with _world() as (world, _):
        chosen = project_here(world, project)
        facts = _lineage(world, chosen.id, version, chosen.name)
    if json_:
        typer.echo(json.dumps(facts, indent=2))
        return
    commit = facts["lineage"]["commit"]
    typer.echo(f"{facts['project']} {facts['version']}  {'passed' if facts['passed'] else 'did not pass'}")
    rows = [
        ("commit", f"{commit['sha']}  {commit['title']}"),
        ("author", f"{commit['author']}, {commit['committed_at']}"),
        ("branch", commit["branch"] or "-"),
        ("run", f"{facts['run']}  {facts['status']}"),
        ("package", facts["digest"]),
        ("lock", facts["lineage"]["lock"] or "-"),
        *(("model", text) for text in _model(facts["lineage"].get("model"))),
        *(("image", f"{name}  {pinned}") for name, pinned in _pinned(facts["lineage"].get("image"))),
        *(("input", f"{name}  {digest}") for name, digest in facts["lineage"]["inputs"].items()),
        *(("metric", f"{name}  {value:g}") for name, value in facts["metrics"].items()),
        *(("gate", f"{g['name']}  {g['verdict']}  {'; '.join(g['reasons'])}") for g in facts["gates"]),
        *(row for release in facts["releases"] for row in _release_rows(release)),
    ]
    typer.echo("\n".join(f"  {label:<8} {text}" for label, text in rows))


def _release_rows(release: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A release and all that happened to it: when, what, by whom, why."""
    from penstock.cli.pictures import moment

    said = f"{release['environment']}  {release['status'].replace('_', ' ')}  by {release['actor']}"
    yield "release", f"{said}: {release['reason']}" if release["reason"] else said
    for one in release["history"]:
        yield "", f"  {moment(one['at'])}  {one['what']}  by {one['who']}{': ' + one['why'] if one['why'] else ''}"


def _model(model: Mapping[str, Any] | None) -> list[str]:
    """What the model's files are, and what a person should know of them; nothing of packages without any."""
    from penstock.models import model_from

    found = None if model is None else model_from(model)
    return [] if found is None or not found.files else [found.words, *found.remarks]


def _pinned(image: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The images of a runtime, each with what it is pinned to."""
    if image is None:
        return []
    return [(one["image"], one["pinned"]) for one in image.get("bases", (image,))]


def _lineage(world: "World", project: str, version: str, name: str) -> dict[str, Any]:
    from penstock.engine.views import to_json, view

    chosen = next(p for p in world.store.runs.projects() if p.id == project)
    wanted, _, digest = version.partition("@")
    packages = [
        p for p in world.store.runs.packages(project) if p.version.startswith(wanted) and p.digest.startswith(digest)
    ]
    if not packages:
        find_package(world, chosen, version)
        raise NotFoundError(f'{name} has no version "{version}"')
    package = packages[0]
    run = world.store.runs.get(package.run)
    shown = to_json(view(world.store, run))
    releases = [r for r in world.store.releases.of(project) if r.version == package.version]
    return {
        "project": name,
        "version": package.version,
        "digest": package.digest,
        "passed": package.passed,
        "run": run.id,
        "status": str(run.status),
        "lineage": dict(package.lineage),
        "metrics": shown["metrics"],
        "gates": shown["gates"],
        "releases": [_released(world, release) for release in releases],
    }


def _released(world: "World", release: "Release") -> dict[str, Any]:
    """Where a version was released to: how it stands there, its rollout, and all that happened to it."""
    from dataclasses import asdict

    from penstock.engine.happenings import happenings
    from penstock.engine.views import rollout_json

    return {
        "environment": release.environment,
        "status": str(release.status),
        "actor": release.actor,
        "since": release.since,
        "release": release.id,
        "ended": release.ended,
        "reason": release.reason,
        "rollout": rollout_json(release.rollout, release.status, release.reason),
        "history": [
            asdict(one)
            for one in happenings(world.store, release.project, release.environment)
            if one.release == release.id
        ],
    }


def doctor(*, json_: JsonOption = False) -> None:
    """Check what Penstock needs on this machine, and the health of this home.

    Example: penstock doctor
    """
    from penstock.cli.checkup import examine

    with _world() as (world, settings):
        findings = examine(world, settings)
    if json_:
        typer.echo(json.dumps([{"what": f.what, "fine": f.fine, "detail": f.detail} for f in findings], indent=2))
    else:
        width = max(len(f.what) for f in findings)
        typer.echo("\n".join(f"{'ok ' if f.fine else 'BAD'}  {f.what:<{width}}  {f.detail}" for f in findings))
    if not all(f.fine for f in findings):
        raise typer.Exit(3)
