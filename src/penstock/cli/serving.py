"""Verbs that stay: serve, and the Git hooks that wake it."""

import errno
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.settings import read_settings
from penstock.errors import StateError, UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

hook_app = typer.Typer(help="Let a commit wake penstock serve at once, by a Git hook.", no_args_is_help=True)

RepositoryArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A Git repository of this machine.")]
LOCAL_TIME = Path("/etc/localtime")


def serve(
    *,
    repo: Annotated[
        list[str] | None,
        typer.Option("--repo", metavar="PATH_OR_URL", help="A repository to watch; again for each further one."),
    ] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="The pipeline file, from their roots.")] = None,
    poll: Annotated[float, typer.Option("--poll", metavar="SECONDS", help="How often to look.", min=0.05)] = 30.0,
    port: Annotated[int, typer.Option("--port", help="Of the page, on 127.0.0.1; 0: any.", min=0, max=65535)] = 8700,
) -> None:
    """Coordinate this home for good, and run what is pushed and what is scheduled.

    Example: penstock serve --repo .
    """
    from penstock.cli.asking import check_file
    from penstock.cli.watching import Repository, place_of
    from penstock.cli.wiring import open_world

    settings = read_settings()
    zone = zone_of(settings.environment)
    places = list(dict.fromkeys(map(place_of, repo or ())))
    if file is not None:
        check_file(file)
    with open_world(settings) as world, _alone(world.home.serve_lock), _listen(port) as listener:
        from penstock.server.holding import Duty, hold

        readers = [Repository(world.source, place, file, settings.environment) for place in places]
        hold(world, Duty(readers, zone, settings.actor, poll, listener, _say))


def _say(line: str) -> None:
    """A line for whoever looks; that nobody looks any more must not end what we do."""
    try:
        sys.stderr.write(f"{_clean(line)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def _clean(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in line)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only `serve` of the home. Raises StateError where there is one."""
    from penstock.engine.followers import CoordinatorLock

    lock = CoordinatorLock(path)
    if not lock.acquire():
        number = path.read_text(encoding="ascii", errors="replace").strip()
        raise StateError(
            f"penstock serve is there already for this home{f' (pid {number})' if number else ''}: "
            "end it first, or set PENSTOCK_HOME to another"
        )
    try:
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        lock.release()


@contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    """A socket for the page, on loopback alone. Raises UsageError where the port cannot be had."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise UsageError(f"port {port} of 127.0.0.1 {why}: choose another with --port") from error
        yield listener


def zone_of(environment: Mapping[str, str]) -> "tzinfo":
    """The clock of schedules: TZ, else the machine's zone, else UTC. Raises UsageError for a TZ that is no zone."""
    from datetime import UTC
    from zoneinfo import ZoneInfo

    named = environment.get("TZ", "").removeprefix(":")
    try:
        if named.startswith("/") or not named:
            file = Path(named or LOCAL_TIME)
            if not named and not file.exists():
                return UTC
            with file.open("rb") as stream:
                return ZoneInfo.from_file(stream, key=str(file))
        return ZoneInfo(named)
    except (OSError, ValueError, KeyError) as error:
        what = f"TZ={named}" if named else str(LOCAL_TIME)
        raise UsageError(
            f"{what} names no time zone that is known here: set TZ to one such as Europe/Berlin"
        ) from error


# --- hooks ---------------------------------------------------------------------------------------------------------


@hook_app.command("install")
def install(path: RepositoryArgument = Path()) -> None:
    """Write a hook that wakes penstock serve when a commit arrives; one that is there already goes on working.

    Example: penstock hook install ~/digits
    """
    from penstock.cli import hooks
    from penstock.engine.world import Home

    settings = read_settings()
    hook = hooks.find_hook(path, settings.environment)
    kept = hooks.install(hook, Home(settings.home).pushed)
    beside = f"; {hook.kept.name} beside it is executed as before" if kept else ""
    typer.echo(f"wrote {hook.path}{beside}")


@hook_app.command("remove")
def remove(path: RepositoryArgument = Path()) -> None:
    """Take the hook away again, and put back the one that was there before.

    Example: penstock hook remove ~/digits
    """
    from penstock.cli import hooks

    hook = hooks.find_hook(path, read_settings().environment)
    if not hooks.remove(hook):
        raise StateError(f"{hook.path} is no hook of Penstock's: there is nothing to remove")
    typer.echo(f"removed {hook.path}")
