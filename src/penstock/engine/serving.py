"""Serving a package: laying it out, one process per replica, and a real request as the proof of health.

The private replica of a run stands here; the replicas of a release (`delivery.py`) use the same pieces.
"""

import asyncio
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.artifacts import Digest
from penstock.engine.context import RunContext
from penstock.engine.contracts import Handle, Mount, ProcessSpec
from penstock.engine.execution import Done, Execution, end_sentence
from penstock.engine.variables import inside, with_runtime
from penstock.engine.world import World
from penstock.errors import EngineError, PenstockError
from penstock.opponents import SERVE
from penstock.packages import LOCK, MANIFEST, Manifest, served_files
from penstock.runs import AttemptStatus, EndReason, StepStatus
from penstock.store.contract import Attempt

HEALTH_INTERVAL = 0.05
HEALTH_TIMEOUT = 5.0
CONFIG = "PENSTOCK_CONFIG"
"""The variable that names the folder of a release's config files."""


def free_port(taken: set[int]) -> int:
    """A port of 127.0.0.1 on which nothing listens and that no other replica was given."""
    for _ in range(200):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
    raise EngineError("no free port was found on 127.0.0.1: end some servers of this machine")


async def answers(port: int, path: str) -> int | None:
    """The status of one real GET request to a local server, or None where it does not answer within 5 s."""
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                line = await reader.readline()
                await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    parts = line.split()
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None


async def become_healthy(port: int, path: str) -> None:
    """Ask until the server answers 200; the caller bounds the time."""
    while await answers(port, path) != 200:
        await asyncio.sleep(HEALTH_INTERVAL)


def read_package(world: World, digest: Digest) -> Manifest:
    """The manifest of a package. Raises BlobError where the cache lost it."""
    tree = world.cache.tree(digest)
    return Manifest.decode(world.cache.read(tree.entries[MANIFEST].digest))  # type: ignore[union-attr]


def read_lock(world: World, digest: Digest) -> bytes | None:
    """The lock of a package, or None for one without a runtime."""
    entry = world.cache.tree(digest).entries.get(LOCK)
    return None if entry is None else world.cache.read(entry.digest)  # type: ignore[union-attr]


def lay_out_package(world: World, digest: Digest, folder: Path) -> None:
    """Put what is served into a folder, whole or not at all; one that stands already is left as it is."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    world.cache.lay_out(served_files(world.cache.tree(digest)), unfinished)
    unfinished.mkdir(parents=True, exist_ok=True)
    unfinished.rename(folder)
    world.crash("package.lay_out:after_effect")


def serve_variables(
    world: World, manifest: Manifest, folder: Path, port: int, variables: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a serving process, over what the caller passes on."""
    return {**runtime_variables(world, manifest, folder, variables), "PORT": str(port)}


def runtime_variables(world: World, manifest: Manifest, folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process in a package's folder, with the package's runtime, over what is passed on."""
    found = dict(variables)
    environment = Digest(manifest.environment) if manifest.environment else None
    with_runtime(found, world.runtimes.variables(environment) if environment else {}, folder, manifest.path)
    return found


def image_of(world: World, manifest: Manifest) -> str | None:
    """The image that a package is served in; None for one that needs none. Raises EngineError where it is gone."""
    if not manifest.image or manifest.environment is None:
        return None
    found = world.runtimes.image(Digest(manifest.environment))
    if found is None:
        raise EngineError("the image of the package's runtime is not here any more: run its commit again")
    return found


def in_image(spec: ProcessSpec, image: str | None) -> ProcessSpec:
    """A serving process in a container of the image, with its HOME and its config; as it is where there is none."""
    if image is None:
        return spec
    config = spec.variables.get(CONFIG)
    configs = () if config is None else (Mount(Path(config), read_only=True),)
    return replace(spec, image=image, mounts=(Mount(Path(spec.variables["HOME"])), *configs))


@dataclass(frozen=True)
class Served:
    """The package that a private replica serves: here this run's own, by the step `serve`."""

    context: RunContext
    step: str = SERVE

    @property
    def folder(self) -> str:
        """The name of the folder, in that of the run, where it lies."""
        return "package"

    @property
    def digest(self) -> Digest | None:
        found = self.context.result("package").get("package") if "package" in self.context.records else None
        return None if found is None else Digest(found)

    def fill(self, text: str) -> str:
        """The text with its places filled in, as the package's run declares them."""
        return self.context.fill(text)

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables that the package's run declares."""
        return self.context.filled(self.context.pipeline.variables)


class PrivateReplica:
    """A package served once for the tests of a run, on a free port, while a step needs it."""

    def __init__(self, context: RunContext, execution: Execution, served: Served | None = None) -> None:
        self._context = context
        self._execution = execution
        self._world = context.world
        self._served = served or Served(context)
        self._step = self._served.step
        self._starting: asyncio.Future[bool] | None = None
        self._ending = False
        self._serving: asyncio.Task[None] | None = None
        self.exists = self._step in context.plan.names
        self.url: str | None = None

    @property
    def folder(self) -> Path:
        """Where the package lies for the steps of this run."""
        folder = self._context.folder / self._served.folder
        digest = None if folder.exists() else self._served.digest
        if digest is not None:
            lay_out_package(self._world, digest, folder)
        return folder

    async def ready(self) -> bool:
        """Start the replica if nobody has; True once it answered its health path, False where it never does.

        A package that does not serve is ready as it lies there.
        """
        if not self.exists:
            return True
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_future()
            self._serving = asyncio.create_task(self._serve(self._starting))
        return await asyncio.shield(self._starting)

    async def _serve(self, starting: asyncio.Future[bool]) -> None:
        """The serving step from start to end; settles `starting` whatever happens.

        Raises what keeps this run's own package from being served; a baseline's only warns.
        """
        try:
            await self._live(starting)
        except (PenstockError, OSError) as error:
            if self._step == SERVE:
                raise
            self._give_up(str(error))
        finally:
            if not starting.done():
                starting.set_result(False)

    async def _live(self, starting: asyncio.Future[bool]) -> None:
        record = self._context.step(self._step)
        digest = self._served.digest
        if digest is None:
            return
        manifest = read_package(self._world, digest)
        if record.status is StepStatus.QUEUED:
            with self._world.store.transaction():
                port = free_port({r.port for r in self._world.store.releases.all_replicas()})
                self._context.move(self._step, "start", result={"port": port})
        elif record.status is not StepStatus.RUNNING:
            return
        port = int(self._context.result(self._step)["port"])

        async def prepare(attempt: Attempt, _workspace: Path) -> ProcessSpec:
            return self._spec(attempt, manifest, port)

        process = asyncio.create_task(self._execution.place(self._step, prepare, None))
        healthy = asyncio.create_task(become_healthy(port, manifest.health))
        finished, _ = await asyncio.wait(
            {process, healthy}, timeout=manifest.start_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        healthy.cancel()
        if process not in finished and healthy in finished:
            self._world.crash("private.healthy:after_effect")
            self.url = f"http://127.0.0.1:{port}"
            starting.set_result(True)
            self._conclude(await process, None)
            return
        never = None
        if not finished:
            never = f"did not answer {manifest.health} with 200 within {manifest.start_timeout:g} s"
            await self._end(self._context.live.get(self._step))
        self._conclude(await process, never or "ended before it was healthy")

    def _give_up(self, reason: str) -> None:
        """End the step of a baseline's package that cannot be served."""
        runs, run = self._world.store.runs, self._context.run.id
        status = self._context.step(self._step).status
        if status not in {StepStatus.QUEUED, StepStatus.RUNNING} or self._context.stopping is not None:
            return
        with self._world.store.transaction():
            for attempt in runs.attempts(run, self._step):
                if attempt.status is not AttemptStatus.ENDED:
                    runs.end_attempt(attempt, EndReason.INFRASTRUCTURE, None, None)
            if status is StepStatus.QUEUED:
                self._context.move(self._step, "start")
            self._context.move(self._step, "warn", reason=reason)

    def _spec(self, attempt: Attempt, manifest: Manifest, port: int) -> ProcessSpec:
        context = self._context
        base = context.variables(self._step, attempt.number)
        base = inside(base) if manifest.image else base
        variables = {**base, **self._served.variables}
        found = serve_variables(self._world, manifest, self.folder, port, variables)
        command = self._served.fill(manifest.serve or "")
        return in_image(self._execution.spec(attempt, self.folder, command, found), image_of(self._world, manifest))

    def _conclude(self, done: Done, unhealthy: str | None) -> None:
        """Record how the replica ended: well where nobody needed it any more (also where an earlier coordinator had
        begun to end it), which includes that it was healthy while somebody did.
        """
        if self._execution.stopped(done):
            return
        if self._ending:
            event, reason = "pass", "ended after the last step that needed it"
        elif unhealthy is not None and "ended" not in unhealthy:
            event, reason = "fail", unhealthy
        else:
            event, reason = "fail", f"{unhealthy or 'ended while steps used it'}: {end_sentence(done, None)}"
        if event == "fail" and self._step != SERVE:
            event = "warn"  # a baseline that cannot be asked is no fault of this commit's
        with self._world.store.transaction():
            self._execution.finish(done, event, reason=reason)

    async def _end(self, handle: Handle | None) -> None:
        if handle is not None:
            await self._world.runner.end(handle, self._world.grace)
            self._world.crash("private.end:after_effect")

    async def close(self) -> None:
        """End the replica, or say that nobody needed it."""
        self._ending = True
        if self._serving is None and self.exists and self._context.step(self._step).status is StepStatus.RUNNING:
            await self.ready()
        if self._serving is not None:
            await self._end(self._context.live.get(self._step))
            await self._serving
        elif self.exists and self._is_unneeded():
            with self._world.store.transaction():
                self._context.move(self._step, "skip", reason="no step needed it", cached=True)

    def _is_unneeded(self) -> bool:
        return self._context.stopping is None and self._context.step(self._step).status is StepStatus.QUEUED

    async def abandon(self) -> None:
        """Stop watching without ending the process: the next coordinator finds it."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
