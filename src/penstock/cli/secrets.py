"""The verb `secret`: values that steps and environments name, kept encrypted, never shown."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.delivering import ProjectOption
from penstock.cli.settings import Settings, read_settings
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.store.contract import Project
    from penstock.store.secrets import Secrets

app = typer.Typer(help="Keep the values that steps and environments name under `secrets:`.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The variable that will hold the value.")]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", help="Only for this environment, before the project's own of the same name.")
]


@contextmanager
def _secrets(named: str | None) -> "Iterator[tuple[Secrets, Project, Settings]]":
    from penstock.cli.asking import project_to_be
    from penstock.cli.wiring import open_world
    from penstock.store.secrets import KEY_FILE, Secrets

    settings = read_settings()
    with open_world(settings) as world:
        project = project_to_be(world.source, world.store.runs.projects(), named)
        yield Secrets(world.store, world.home.path / KEY_FILE), project, settings


@app.command("set", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def set_(
    context: typer.Context, name: NameArgument, *, environment: EnvironmentOption = "", project: ProjectOption = None
) -> None:
    """Keep a value, read from stdin (asked for without echo on a terminal).

    Example: penstock secret set HF_TOKEN < token.txt
    """
    from penstock.store.secrets import check_name

    before, equals, _ = name.partition("=")
    if equals or context.args:
        raise UsageError(
            f"a value on the command line can be seen by everybody on this machine: give it on stdin, "
            f"as in penstock secret set {before} < file, and consider this value known"
        )
    check_name(name)
    with _secrets(project) as (secrets, chosen, settings):
        secrets.put(chosen.id, name, _value(name), settings.actor, environment=environment)
    typer.echo(f"{_named(name, environment)} of {chosen.name} is set")


@app.command("list")
def list_(
    *,
    project: ProjectOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one documented JSON object on stdout.")] = False,
) -> None:
    """List the names of a project's secrets, when they were set and by whom; never their values.

    Example: penstock secret list
    """
    with _secrets(project) as (secrets, chosen, _):
        found = secrets.names(chosen.id)
    if json_:
        rows = [{"name": s.name, "environment": s.environment or None, "set": s.created, "by": s.actor} for s in found]
        typer.echo(json.dumps({"project": chosen.name, "secrets": rows}, indent=2))
        return
    from penstock.cli.pictures import clean, moment

    if not found:
        typer.echo(f"{chosen.name} has no secrets: penstock secret set NAME keeps one")
        return
    wide = max(len(_named(s.name, s.environment)) for s in found)
    for s in found:
        typer.echo(f"{_named(s.name, s.environment):<{wide}}  set {moment(s.created)} by {clean(s.actor)}")


@app.command("remove")
def remove(name: NameArgument, *, environment: EnvironmentOption = "", project: ProjectOption = None) -> None:
    """Forget a secret. Steps and environments that name it cannot start until it is set again.

    Example: penstock secret remove HF_TOKEN
    """
    with _secrets(project) as (secrets, chosen, _):
        secrets.remove(chosen.id, name, environment=environment)
    typer.echo(f"{_named(name, environment)} of {chosen.name} is removed")


def _named(name: str, environment: str) -> str:
    return f"{name} ({environment})" if environment else name


def _value(name: str) -> bytes:
    """The value from a terminal without echo, or all of stdin up to a little more than is allowed.

    The end of a single line is no part of the value; of several lines (a key file, say) every byte is.
    """
    from penstock.store.secrets import LONGEST

    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"value of {name} (not shown): ").encode()
    data = sys.stdin.buffer.read(LONGEST + 2)
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    return data if b"\n" in line else line
