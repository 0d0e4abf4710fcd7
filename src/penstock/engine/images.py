"""The image of a release that is served as a container: made by a process of its own, once, before its replicas."""

import asyncio
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest
from penstock.engine.contracts import Handle, ProcessSpec
from penstock.engine.serving import image_of, read_package
from penstock.engine.variables import passed_on
from penstock.engine.world import World
from penstock.errors import EngineError
from penstock.oci import Exported, base_of, exported_of
from penstock.packages import Manifest
from penstock.store.contract import Release

MADE = "image.json"
"""What the release's folder tells of its image: what its export said."""

Stopping = Callable[[], str | None]


class ReleaseImages:
    """Makes the images of releases. The process that does it survives us, and its end is read by who comes next."""

    def __init__(self, world: World) -> None:
        self._world = world

    def of(self, release: Release) -> str:
        """The image of a release that was made, by its id."""
        return str(json.loads((self._folder(release) / MADE).read_bytes())["id"])

    async def make(self, release: Release, stopping: Stopping) -> None:
        """Have the image of a release in the container engine; one that is there takes a moment.

        Nothing for a release that is served as it is. Raises EngineError where it cannot be made.
        """
        if not is_container(release):
            return
        exported = await asyncio.to_thread(self._exported, release)
        handle = self._handle(release, exported)
        ended = asyncio.ensure_future(self._world.runner.wait(handle))
        while not (await asyncio.wait({ended}, timeout=0.2))[0]:
            if stopping() is not None:
                await self._world.runner.end(handle, self._world.grace)
        end = await ended
        if stopping() is not None:
            return
        said = await asyncio.to_thread(_said, handle, end.log_end)
        if end.exit_code != 0:
            raise EngineError(f"its image could not be made: {said[-1] if said else 'its process vanished'}")
        self._keep(release, json.loads(said[-1]))
        self._world.crash("image.make:after_effect")

    def _handle(self, release: Release, exported: Exported) -> Handle:
        """The process that makes the image: the one that an earlier coordinator started, where it lives, or a new one.

        The number in its name is that of the try, so that no record of an earlier end is taken for this one's.
        """
        folder = self._folder(release)
        record = folder / "image.record"
        number = 1
        while (found := self._world.runner.find(_name(release, number), record)) is not None:
            if self._world.runner.alive(found):
                return found
            number += 1
        command = self._world.images.command(exported, self._world.images.name(Digest(release.package)))
        spec = ProcessSpec(
            id=_name(release, number),
            command=command.text,
            workspace=folder,
            variables={**passed_on(self._world.environment), "HOME": str(self._person(release)), **command.variables},
            log=folder / "image.log",
            record=record,
            contain=False,  # in another pid namespace podman does not find its own processes by their numbers
        )
        return self._world.runner.start(spec)

    def _exported(self, release: Release) -> Exported:
        manifest = read_package(self._world, Digest(release.package))
        python, base = self._base(manifest)
        return exported_of(
            manifest,
            release.package,
            version=release.version,
            commit=release.spec["commit"],
            identity=next(p.identity for p in self._world.store.runs.projects() if p.id == release.project),
            base=manifest.base or base,
            python=python,
            variables=release.spec["declared"],
        )

    def _base(self, manifest: Manifest) -> tuple[str | None, str]:
        """The Python that the dependencies are for, if the image needs any, and what the image stands on."""
        image = image_of(self._world, manifest)
        if image is not None:
            return None, image
        if manifest.environment is None:
            own = manifest.python or platform.python_version()
            return None, base_of(".".join(own.split(".")[:2]))
        python = self._world.images.minor(Digest(manifest.environment))
        return python, base_of(python)

    def _keep(self, release: Release, made: Any) -> None:
        folder = self._folder(release)
        fresh = folder / f".{MADE}.new"
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(made, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / MADE)

    def _folder(self, release: Release) -> Path:
        folder = self._world.home.release(release.id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _person(self, release: Release) -> Path:
        home = self._world.home.person(release.project)
        home.mkdir(parents=True, exist_ok=True)
        return home


def _said(handle: Handle, end: int) -> list[str]:
    return Path(handle.log).read_bytes()[handle.log_start : end].decode("utf-8", "replace").splitlines()


def is_container(release: Release) -> bool:
    """Whether a release is served as an image of its own."""
    return release.spec.get("as") == "container"


def _name(release: Release, number: int) -> str:
    return f"release-{release.id}/image.{number}"
