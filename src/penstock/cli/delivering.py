"""Verbs on environments and on what the home keeps: deploy, rollback, stop, gc."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.settings import Settings, read_settings
from penstock.errors import NotFoundError, StateError, UsageError

if TYPE_CHECKING:
    from penstock.engine.world import World
    from penstock.store.contract import PackageRecord, Project, Release, Request

EnvironmentArgument = Annotated[str, typer.Argument(metavar="ENV", help="The environment.")]
ProjectOption = Annotated[
    str | None, typer.Option("--project", help="The project's name or id; default (and `.`): the current folder's.")
]
AnyProjectOption = Annotated[
    str | None, typer.Option("--project", help="One project, by name or id; `.` is the current folder's; default: all.")
]
_StopProject = Annotated[
    str | None,
    typer.Option("--project", help="The project's name or id; `.` (and the default with ENV): the current folder's."),
]


def ask(world: "World", settings: Settings, kind: str, payload: Mapping[str, Any]) -> "Request":
    """Ask for something and wait for its end, telling on stderr what moves. Raises its refusal.

    A rollback is to a release that somebody else asked for: of it is told what was not so before.
    """
    from penstock.cli.answers import refused
    from penstock.cli.following import Follower

    def moving() -> "dict[str, Release]":
        found = world.store.releases.of(payload.get("project"), payload.get("environment"))
        return {f"{r.environment}: {r.version} {r.phase}": r for r in found if r.phase}

    told = set(moving()) if kind == "rollback" else set[str]()

    def show(request: "Request") -> None:
        for line, release in moving().items():
            if line not in told and (kind == "rollback" or release.request == request.id):
                told.add(line)
                typer.echo(line, err=True)

    request = Follower(world, settings.actor, show).ask(kind, payload)
    refused(request)
    return request


def project_here(world: "World", named: str | None) -> "Project":
    """The project that a verb acts on."""
    from penstock.cli.asking import current_project

    return current_project(world.source, world.store.runs.projects(), named)


def deploy(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version, or VERSION@DIGEST.")],
    env: EnvironmentArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also back across a migration marked contract.")] = False,
    project: ProjectOption = None,
) -> None:
    """Release a version that passed before to an environment.

    Example: penstock deploy 0.1.0.dev4+g1a2b3c4 production
    """
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        chosen = project_here(world, project)
        package = find_package(world, chosen, version)
        _check_environment(world, package, env)
        payload = {
            "project": chosen.id,
            "environment": env,
            "package": package.digest,
            "run": package.run,
            "person": _person(settings),
            "force": force,
        }
        request = ask(world, settings, "deploy", payload)
        _tell(world, request)


def _person(settings: Settings) -> dict[str, str]:
    from penstock.cli.asking import NEVER_STORED
    from penstock.engine.variables import passed_on

    return {k: v for k, v in passed_on(settings.environment).items() if k not in NEVER_STORED}


def find_package(world: "World", project: "Project", version: str) -> "PackageRecord":
    """The newest passed package of a version (`VERSION`, its beginning, or `VERSION@DIGEST`)."""
    wanted, _, digest = version.partition("@")
    packages = world.store.runs.packages(project.id)
    exact = [p for p in packages if p.version == wanted] or [p for p in packages if p.version.startswith(wanted)]
    named = [p for p in exact if p.digest.startswith(digest)]
    if not named:
        if world.store.releases.of(project.id, version):
            told = f"penstock status {version} tells what it serves"
            raise NotFoundError(f'"{version}" is an environment of {project.name}, no version: {told}')
        known = ", ".join(list(dict.fromkeys(p.version for p in packages))[:5]) or "none yet"
        raise NotFoundError(f'{project.name} has no package of version "{version}"; it has {known}')
    if len({p.version for p in named}) > 1:
        fits = ", ".join(sorted({p.version for p in named}))
        raise NotFoundError(f'"{version}" fits more than one version of {project.name}: {fits}')
    passed = [p for p in named if p.passed]
    if not passed:
        raise StateError(
            f"{named[0].version} did not pass all its steps and gates, so it is not deployed (run {named[0].run})"
        )
    return passed[0]


def _check_environment(world: "World", package: "PackageRecord", env: str) -> None:
    """The environment exists, and the commit may go there. Raises NotFoundError or StateError."""
    from penstock.commits import Commit
    from penstock.pipelines import Pipeline
    from penstock.releases import why_not

    run = world.store.runs.get(package.run)
    pipeline = Pipeline.model_validate(run.pipeline)
    if env not in pipeline.environments:
        known = ", ".join(pipeline.environments) or "none"
        raise NotFoundError(f'version {package.version} has no environment "{env}"; its file has {known}')
    commit = Commit(**{**run.commit, "branches": tuple(run.commit["branches"])})
    reason = why_not(pipeline.environments[env], commit)
    if reason is not None:
        raise StateError(f"{package.version} is not released to {env}: {reason}")


def _tell(world: "World", request: "Request") -> None:
    from penstock.releases import address

    release = world.store.releases.get(int((request.result or {})["release"]))
    typer.echo(f"{release.version} is serving in {release.environment} at {address(release.spec)}")


LONGEST = 1000
"""Characters of a reason."""


def plain_reason(text: str) -> str:
    """A person's reason on one line. Raises UsageError for none, and for one that is no text."""
    line = " ".join(text.split())
    if not line or len(line) > LONGEST or not line.isprintable():
        raise UsageError(f"expected a reason of 1 to {LONGEST} characters: say why, as --reason TEXT")
    return line


def rollback(
    env: EnvironmentArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also back across a migration marked contract.")] = False,
    migrate_down: Annotated[
        bool, typer.Option("--migrate-down", help="Undo the migrations that are crossed, by the file's migrate_down.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for whoever reads the history.")] = None,
    project: ProjectOption = None,
) -> None:
    """Give an environment's traffic back to the release that served before.

    Example: penstock rollback production
    """
    from penstock.cli.wiring import open_world

    settings = read_settings()
    why = None if reason is None else plain_reason(reason)
    with open_world(settings) as world:
        chosen = project_here(world, project)
        payload = {"project": chosen.id, "environment": env, "force": force, "down": migrate_down, "reason": why}
        request = ask(world, settings, "rollback", payload)
        _tell(world, request)


def stop(
    env: Annotated[str | None, typer.Argument(metavar="ENV", help="One environment; default: the whole home.")] = None,
    *,
    project: _StopProject = None,
) -> None:
    """End what this home serves: one environment, one project, or everything and the router.

    Example: penstock stop staging
    """
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        chosen = project_here(world, project).id if env is not None or project is not None else None
        request = ask(world, settings, "stop", {"project": chosen, "environment": env})
        stopped = (request.result or {}).get("stopped") or []
    typer.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was serving")


def gc(
    *,
    days: Annotated[float, typer.Option("--days", help="Keep results that were used within so many days.", min=0)] = 30,
) -> None:
    """Remove what no release, no recent run and no recent result needs, and more where the cache is over its cap.

    Example: penstock gc --days 7
    """
    from penstock.cli.pictures import size
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        freed = ask(world, settings, "gc", {"days": days}).result or {}
    more = [f"{freed[name]} {name}" for name in ("mirrors", "runtimes") if freed.get(name)]
    removed = [f"{freed['results']} results, {freed['blobs']} blobs, {freed['folders']} work folders", *more]
    typer.echo(f"freed {size(int(freed['bytes']))}: {', '.join(removed)}", file=sys.stdout)
    cap = f" of {size(int(freed['cap']))}" if freed.get("cap") else ""
    typer.echo(f"the cache holds {size(int(freed.get('held', 0)))}{cap}", file=sys.stdout)
