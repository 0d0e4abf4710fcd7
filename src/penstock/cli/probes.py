"""The logs of probes, as `penstock logs RUN probe.ENV` prints them."""

import sys
from functools import partial
from typing import TYPE_CHECKING

from penstock.errors import NotFoundError

if TYPE_CHECKING:
    from penstock.engine.world import World

PROBE = "probe."
"""What stands before an environment's name; no step's name has a dot."""


def print_probes(world: "World", run: int, environment: str | None, *, follow: bool, heading: bool) -> None:
    """What the probes of a run's releases said, oldest first; of one environment, or of all."""
    from penstock.cli.migrations import print_command
    from penstock.engine.probing import log_of

    releases = [r for r in world.store.releases.of(world.store.runs.get(run).project) if r.run == run]
    found = [(r, log) for r in releases if environment in {None, r.environment} and (log := log_of(world, r)).exists()]
    if not found and environment is not None:
        sentence = f"run {run} has probed no release to {environment}: penstock show {run} names what it did"
        raise NotFoundError(sentence)
    for release, log in found:
        if heading or len(found) > 1:
            sys.stdout.write(f"=== {PROBE}{release.environment}\n")
            sys.stdout.flush()
        print_command(log, partial(_runs, world, release.id), follow=follow)


def _runs(world: "World", release: int) -> bool:
    return world.store.releases.get(release).status == "probing"
