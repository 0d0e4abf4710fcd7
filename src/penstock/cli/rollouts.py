"""Verbs on a rollout that goes on: promote and abort."""

from typing import Annotated

import typer

from penstock.cli.delivering import EnvironmentArgument, ProjectOption, ask, plain_reason, project_here
from penstock.cli.settings import read_settings

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for whoever reads the history.")]


def promote(env: EnvironmentArgument, *, reason: ReasonOption = None, project: ProjectOption = None) -> None:
    """Give a release that is tried all traffic of its environment now, whatever the evidence.

    Example: penstock promote production --reason "the night is quiet"
    """
    _wish("promote", env, reason, project)


def abort(env: EnvironmentArgument, *, reason: ReasonOption = None, project: ProjectOption = None) -> None:
    """End a rollout now: what served before has all traffic again.

    Example: penstock abort production --reason "wrong prices"
    """
    _wish("abort", env, reason, project)


def _wish(kind: str, env: str, reason: str | None, project: str | None) -> None:
    from penstock.cli.wiring import open_world
    from penstock.releases import address

    settings = read_settings()
    why = None if reason is None else plain_reason(reason)
    with open_world(settings) as world:
        chosen = project_here(world, project)
        request = ask(world, settings, kind, {"project": chosen.id, "environment": env, "reason": why})
        release = world.store.releases.get(int((request.result or {})["release"]))
        serving = world.store.releases.serving(chosen.id, env)
    if serving is None:
        typer.echo(f"{release.version} is gone from {env}, and nothing serves there")
        return
    gone = "" if serving.id == release.id else f"{release.version} is gone from {env}: "
    typer.echo(f"{gone}{serving.version} is serving in {env} at {address(serving.spec)}")
