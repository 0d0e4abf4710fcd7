"""What happened to an environment, as `penstock status ENV --history` shows it."""

import json
import sys
from typing import TYPE_CHECKING

import typer

from penstock.cli.delivering import project_here
from penstock.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from penstock.cli.pictures import Picture
    from penstock.engine.happenings import Happening
    from penstock.engine.world import World


def show_history(world: "World", environment: str | None, project: str | None, *, json_: bool) -> None:
    """Print the history of an environment. Raises UsageError without one, NotFoundError for an unknown one."""
    from dataclasses import asdict

    from penstock.cli.freezing import environments_of
    from penstock.engine.happenings import happenings

    if environment is None:
        raise UsageError("name the environment: penstock status ENV --history")
    chosen = project_here(world, project)
    known = environments_of(world, chosen)
    if environment not in known:
        has = ", ".join(known) or "none"
        raise NotFoundError(f'{chosen.name} has no environment "{environment}"; it has {has}')
    found = happenings(world.store, chosen.id, environment)
    if json_:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    elif not found:
        typer.echo(f"nothing has happened to {environment} yet")
    else:
        from penstock.cli.progress import display

        display(render_history(found), sys.stdout)


def render_history(found: "list[Happening]") -> "Picture":
    """One line each: when, what, which version, who, and why."""
    from rich.text import Text

    from penstock.cli.pictures import Picture, Row, moment, safe, stacked

    titles = Row(Text(" "), tuple(Text(t, "dim") for t in ("when", "what", "version", "who")), Text("why", "dim"))
    rows = [
        Row(
            Text(" "),
            (safe(moment(one.at)), safe(one.what, "bold"), safe(one.version or ""), safe(one.who)),
            safe(one.why or "", "dim"),
            tall=4,
        )
        for one in found
    ]
    return Picture(lambda width: stacked([titles, *rows], width))
