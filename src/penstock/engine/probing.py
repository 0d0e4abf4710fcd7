"""The probe of a release: before any traffic its replicas are asked the package's recorded requests.

The asking is a process of its own (`comparing`). A coordinator that dies leaves nothing to go on with: the next one
ends what is left of the probe and probes again.
"""

import asyncio
import json
from pathlib import Path

import penstock
from penstock.engine.comparing import Probing
from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.engine.execution import ending_words
from penstock.engine.installing import StoppedRollout, Stopping, last_line, package_folder
from penstock.engine.serving import HEALTH_INTERVAL
from penstock.engine.variables import passed_on
from penstock.engine.world import World
from penstock.errors import PenstockError
from penstock.probes import Probed, Rules
from penstock.runs import EndReason
from penstock.store.contract import Release

SPARE = 90.0
"""Seconds that the process may take beyond its own limit: it begins, ends its last requests and judges."""
RESULT = "probe.json"


class Prober:
    """Probes releases. The caller has the turn of the environment."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def probe(self, release: Release, stable: Release | None, stopping: Stopping) -> Probed:
        """Ask a release, and the one that serves where there is one, by the rules of the release's `probe`.

        Never raises for what a server or the package's file does: that is the verdict. Raises StoppedRollout.
        """
        rules = Rules.of(release.spec["probe"])
        await self.end(release)
        if stopping() is not None:
            raise StoppedRollout
        folder = self._folder(release)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)
        try:
            handle = self._world.runner.start(self._spec(release, stable))
        except PenstockError as error:
            return Probed("errored", f"the recorded requests could not be asked: {error}")
        self._world.crash("probe.start:after_effect")
        reason, ending = await self._until_end(handle, rules.timeout + SPARE, stopping)
        self._world.crash("probe.end:after_effect")
        return _left(folder / RESULT) or _untold(reason, ending, rules.timeout + SPARE, Path(handle.log))

    async def end(self, release: Release) -> None:
        """End what lives of a release's probes, as those that a coordinator left which died."""
        for handle in self._found(release):
            await self._world.runner.end(handle, self._world.grace)

    def _folder(self, release: Release) -> Path:
        return self._world.home.release(release.id) / "probe"

    def _found(self, release: Release) -> list[Handle]:
        """The processes of all probes of a release so far, in their order."""
        found: list[Handle] = []
        folder = self._folder(release)
        if not folder.exists():  # looking for a process that never was takes a look at all of the machine's
            return found
        while (handle := self._world.runner.find(_name(release, len(found) + 1), folder / "record")) is not None:
            found.append(handle)
        return found

    def _spec(self, release: Release, stable: Release | None) -> ProcessSpec:
        folder = self._folder(release)
        wanted = Probing(
            rules=release.spec["probe"],
            folder=str(package_folder(self._world, release)),
            candidate=self._ports(release),
            stable=None if stable is None else self._ports(stable),
            result=str(folder / RESULT),
        )
        return ProcessSpec(
            id=_name(release, len(self._found(release)) + 1),
            command=wanted.command,
            workspace=folder,
            variables={
                **passed_on(self._world.environment),
                "HOME": str(folder),
                "PYTHONPATH": str(Path(penstock.__file__).parents[1]),
            },
            log=log_of(self._world, release),
            record=folder / "record",
            contain=False,
        )

    def _ports(self, release: Release) -> tuple[int, ...]:
        return tuple(replica.port for replica in self._world.store.releases.replicas(release.id))

    async def _until_end(self, handle: Handle, limit: float, stopping: Stopping) -> tuple[EndReason, Ending]:
        """Wait for the end, or end it. Raises StoppedRollout where it was ended on request."""
        world, began = self._world, self._world.clock.monotonic()
        waiting = asyncio.ensure_future(world.runner.wait(handle))
        try:
            while not (await asyncio.wait({waiting}, timeout=HEALTH_INTERVAL))[0]:
                late = world.clock.monotonic() - began > limit
                if late or stopping() is not None:
                    await world.runner.end(handle, world.grace)
                    if not late:
                        raise StoppedRollout
                    return EndReason.TIMEOUT, await world.runner.wait(handle)
            ending = await waiting
        finally:
            waiting.cancel()
        reason = EndReason.OOM if ending.oom else EndReason.LOST if ending.lost else EndReason.EXIT
        return reason, ending


def log_of(world: World, release: Release) -> Path:
    """What the probes of a release said; not there where it was never probed."""
    return world.home.release(release.id) / "probe" / "log"


def _name(release: Release, number: int) -> str:
    """What the runner knows the process of a probe by."""
    return f"probe-{release.id}.{number}"


def _left(path: Path) -> Probed | None:
    """The verdict that the process left, None where it left nothing whole."""
    try:
        found = json.loads(path.read_bytes())
        return Probed(found["verdict"], found["reason"], found["values"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _untold(reason: EndReason, ending: Ending, limit: float, log: Path) -> Probed:
    words = ending_words(reason, ending.exit_code, limit)
    return Probed("errored", f"the recorded requests could not be asked: {words}{last_line(log)}")
