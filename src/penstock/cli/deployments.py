"""The logs of deploy commands, as `penstock logs RUN deploy.ENV` prints them."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import NotFoundError

if TYPE_CHECKING:
    from penstock.engine.world import World

DEPLOY = "deploy."
"""What stands before an environment's name; no step's name has a dot."""


def print_hooks(world: "World", run: int, environment: str | None, *, follow: bool, heading: bool) -> None:
    """What the commands wrote that deployed a run's releases elsewhere, oldest first; of one environment, or of all."""
    from penstock.cli.migrations import print_command
    from penstock.engine.hooking import commands_of

    releases = [r for r in world.store.releases.of(world.store.runs.get(run).project) if r.run == run]
    found = [(r, c) for r in releases for c in commands_of(r) if environment in {None, r.environment}]
    if not found and environment is not None:
        sentence = f"run {run} has deployed by no command to {environment}: penstock show {run} names what it did"
        raise NotFoundError(sentence)
    for release, command in found:
        if heading or len(found) > 1:
            back = " (rollback)" if command["kind"] == "rollback" else ""
            sys.stdout.write(f"=== {DEPLOY}{release.environment}{back}\n")
            sys.stdout.flush()
        print_command(Path(command["log"]), partial(_runs, world, release.id, command), follow=follow)


def _runs(world: "World", release: int, command: Mapping[str, Any]) -> bool:
    from penstock.engine.hooking import commands_of

    known = commands_of(world.store.releases.get(release))
    return any(c["number"] == command["number"] and c["status"] == "running" for c in known)
