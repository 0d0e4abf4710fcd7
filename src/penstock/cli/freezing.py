"""The verbs freeze and unfreeze: no release to an environment for a while, with the reason."""

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.delivering import EnvironmentArgument, ProjectOption, ask, plain_reason, project_here
from penstock.cli.settings import read_settings
from penstock.errors import NotFoundError

if TYPE_CHECKING:
    from penstock.engine.world import World
    from penstock.store.contract import Project


def freeze(
    env: EnvironmentArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever meets it.")],
    project: ProjectOption = None,
) -> None:
    """Let nothing be released to an environment until it is unfrozen; what serves goes on.

    Example: penstock freeze production --reason "the audit lasts until Friday"
    """
    _ask("freeze", env, project, {"reason": plain_reason(reason)})
    typer.echo(f"{env} is frozen: penstock unfreeze {env} lets releases through again")


def unfreeze(env: EnvironmentArgument, *, project: ProjectOption = None) -> None:
    """Let releases to an environment through again.

    Example: penstock unfreeze production
    """
    _ask("unfreeze", env, project, {})
    typer.echo(f"{env} takes releases again")


def _ask(kind: str, env: str, named: str | None, more: dict[str, str]) -> None:
    from penstock.cli.wiring import open_world

    settings = read_settings()
    with open_world(settings) as world:
        chosen = project_here(world, named)
        known = environments_of(world, chosen)
        if env not in known:
            raise NotFoundError(f'{chosen.name} has no environment "{env}"; it has {", ".join(known) or "none"}')
        ask(world, settings, kind, {"project": chosen.id, "environment": env, **more})


def environments_of(world: "World", project: "Project") -> list[str]:
    """The environments that the file of a project's newest run has, then those that once had a release."""
    newest = world.store.runs.latest(project.id, 1)
    named = [name for run in newest for name in (run.pipeline.get("environments") or {})]
    return list(dict.fromkeys([*named, *(r.environment for r in world.store.releases.of(project.id))]))
