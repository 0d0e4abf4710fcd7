"""The logs of migrations, as `penstock logs RUN migrate.ENV` prints them."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import NotFoundError

if TYPE_CHECKING:
    from penstock.engine.world import World
    from penstock.migrations import Migration

MIGRATE = "migrate."
"""What stands before an environment's name; no step's name has a dot."""

_LOOK = 0.1


def print_migrations(world: "World", run: int, environment: str | None, *, follow: bool, heading: bool) -> None:
    """What the migrations of a run's releases wrote, oldest first; of one environment, or of all."""
    found = [m for m in _of_run(world, run) if environment in {None, m.environment}]
    if not found and environment is not None:
        sentence = f"run {run} has migrated no environment {environment}: penstock show {run} names what it did"
        raise NotFoundError(sentence)
    for row in found:
        if heading or len(found) > 1:
            sys.stdout.write(f"=== {MIGRATE}{row.environment}{' (down)' if row.reverts is not None else ''}\n")
            sys.stdout.flush()
        print_command(Path(row.log), partial(_runs, world, row.id), follow=follow)


def _of_run(world: "World", run: int) -> "list[Migration]":
    releases = world.store.releases.of(world.store.runs.get(run).project)
    return [m for r in releases if r.run == run for m in world.store.migrations.of_release(r.id)]


def _runs(world: "World", migration: int) -> bool:
    return world.store.migrations.get(migration).status == "running"


def print_command(log: Path, is_running: Callable[[], bool], *, follow: bool) -> None:
    """The log of a command as it is; with `follow` until the command has ended."""
    import time

    from penstock.engine.logfiles import pieces, size

    done = 0
    while True:
        running = is_running()
        for piece in pieces(log, done, size(log)):
            sys.stdout.buffer.write(piece.data)
            done = piece.position
        sys.stdout.buffer.flush()
        if not (follow and running):
            return
        time.sleep(_LOOK)
