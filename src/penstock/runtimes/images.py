"""Container images as runtimes: pinned by a lock, pulled or built once, found again by the lock's digest."""

import fcntl
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest, digest_of, digest_of_bytes, is_digest
from penstock.engine.contracts import Command, ContainerEngine, RuntimeRequest
from penstock.errors import EngineError, SourceError
from penstock.images import ImageName, parse_image
from penstock.runtimes import building, imaging
from penstock.runtimes.contexts import context_files, is_narrowed, read_dockerfile
from penstock.runtimes.dockerfiles import DockerfileError, Upon, bases
from penstock.runtimes.pulling import Calls, ImageError, architecture

_SHOWN_DIGITS = 12


class ImageRuntimes:
    """The `Runtimes` of `engine.contracts` for the kinds `image` and `dockerfile`, by podman or docker.

    `home` is Penstock's home: what is known of an image lies in `home/runtimes/DIGEST/`, the image in the engine's own
    storage. `engine` is the person's; where it is None, asking for an image raises EngineError.
    """

    def __init__(self, home: Path, engine: ContainerEngine | None) -> None:
        self._folder = home / "runtimes"
        self._home = digest_of_bytes(os.fsencode(home.absolute()))[:8]
        self._said = engine

    def files(
        self, request: RuntimeRequest, read: Callable[[str], bytes | None], paths: Collection[str] = ()
    ) -> Mapping[str, bytes]:
        """The Dockerfile and what it takes of its folder; nothing for an image by its name.

        A link has no bytes here. Raises SourceError for what is missing or cannot be read, EngineError where there is
        no container engine.
        """
        self._engine(request)
        if request.kind == "image":
            _name(request.file)
            return {}
        found = context_files(request.file, read, paths)
        _bases(request.file, found)  # what is wrong with them is told before anything is begun
        return found

    def key(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Digest:
        """What a lock depends on: names, files, platform, engine, and the images that tags name here now."""
        engine = self._engine(request)
        upon = [Upon(request.file, None, 0)] if request.kind == "image" else _bases(request.file, files)
        value = {
            "kind": request.kind,
            "file": request.file,
            "files": {path: digest_of_bytes(data) for path, data in files.items()},
            "platform": f"linux/{architecture()}",
            "engine": engine.kind,
            "here": {one.image: self._here(_name(one.image), engine) for one in upon},
        }
        return digest_of("runtime", value)

    def _here(self, name: ImageName, engine: ContainerEngine) -> str | None:
        """The ID of the image that a tag names on this machine, if any; a digest says all by itself."""
        if name.pinned:
            return None
        try:
            found = _calls(engine).look(name.reference)
        except ImageError as error:
            raise EngineError(str(error)) from error
        return found.id if found else None

    def resolve(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Command:
        """The command that pins the image, or what the Dockerfile builds upon, pulling what is not here."""
        if request.kind == "image":
            return self._command(request, ["pin-image", request.file])
        dockerfile = read_dockerfile(request.file, files.get(request.file))
        flags = ["--narrowed"] if is_narrowed(dockerfile) else []
        return self._command(request, ["pin-dockerfile", request.file, *flags])

    def digest(self, request: RuntimeRequest, lock: bytes) -> Digest:
        """The name of the environment of a lock: the image, or the context and the images that it builds upon."""
        pinned = _lock(lock)
        if request.kind == "image":
            return digest_of("image", {"id": pinned["id"], "platform": pinned["platform"]})
        value = {key: pinned[key] for key in ("dockerfile", "context", "platform")}
        return digest_of("built image", {**value, "bases": [one["id"] for one in pinned["bases"]]})

    def build(self, request: RuntimeRequest, lock: bytes) -> Command | None:
        """The command that pulls or builds the image of a lock; None where the engine has it."""
        environment = self.digest(request, lock)
        folder, calls = self._folder / environment, _calls(self._engine(request))
        made = imaging.manifest(folder)
        if made is not None and self._stands(made, calls):
            os.utime(folder / imaging.MANIFEST)  # by which `discard` knows what is used
            return None
        gone = f"the image was removed from {calls.kind} since then" if made else None
        if request.kind == "image":
            return self._command(request, ["take", str(folder)], lock, gone or f"{described(lock)} is not here yet")
        return self._command(request, ["build", str(folder), "--tag", self._tag(environment)], lock, gone)

    def _stands(self, made: Mapping[str, Any], calls: Calls) -> bool:
        try:
            return calls.look(made["image"]) is not None
        except ImageError as error:
            raise EngineError(str(error)) from error

    def _tag(self, environment: str) -> str:
        """The name of an image that we build: of this home alone, so that discarding it takes it from no other."""
        return f"localhost/penstock/runtime:{environment[:32]}-{self._home}"

    def image(self, environment: Digest) -> str | None:
        """The ID of a built environment's image; None where it is none, or none yet."""
        made = imaging.manifest(self._folder / environment)
        return None if made is None else str(made["image"])

    def variables(self, environment: Digest) -> Mapping[str, str]:
        """Nothing: what a process needs is in the image."""
        del environment
        return {}

    def environments(self) -> frozenset[Digest]:
        """The environments of this home that are images, finished or begun."""
        found = (path.parent for name in (imaging.MANIFEST, imaging.INTENT) for path in self._folder.glob(f"*/{name}"))
        return frozenset(
            Digest(folder.name)
            for folder in found
            if is_digest(folder.name) and ((folder / imaging.INTENT).exists() or imaging.manifest(folder) is not None)
        )

    def discard(self, keep: Collection[Digest], before: float) -> int:
        """Remove environments that nobody needs, and the images that we built for them; pulled ones are the person's.

        Raises nothing: what cannot go now, as a container uses it or there is no engine, goes later.
        """
        return sum(self._discard(name, before) for name in sorted(self.environments()) if name not in keep)

    def _discard(self, name: str, before: float) -> bool:
        folder = self._folder / name
        with (self._folder / f"{name}.flock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False  # somebody makes it at this moment
            made, intent = folder / imaging.MANIFEST, folder / imaging.INTENT
            used = made if made.exists() else intent
            if not used.exists() or used.stat().st_mtime >= before:
                return False
            made.unlink(missing_ok=True)  # first: no half of it is ever taken for whole
            if intent.exists():
                os.utime(intent, (before - 1, before - 1))  # old the next time too
                if not self._remove(self._tag(name)):
                    return False
            shutil.rmtree(folder, ignore_errors=True)
            return True

    def _remove(self, tag: str) -> bool:
        """Take our name from an image, with which it goes unless somebody else has named it too."""
        if self._said is None:
            return False
        calls = _calls(self._said)
        try:
            return calls.look(tag) is None or calls.quietly("rmi", tag)
        except ImageError:
            return False

    def _engine(self, request: RuntimeRequest) -> ContainerEngine:
        if self._said is None:
            what = "an image is" if request.kind == "image" else "a Dockerfile is"
            raise EngineError(
                f"runtime names {request.file}, and this machine has no container engine: {what} run by podman or "
                "docker, so install one of them"
            )
        return self._said

    def _command(
        self, request: RuntimeRequest, verb: list[str], lock: bytes | None = None, reason: str | None = None
    ) -> Command:
        engine = self._engine(request)
        argv = [sys.executable, "-I", imaging.__file__, "--kind", engine.kind, "--program", engine.program]
        argv += ["--keep", ",".join(sorted(engine.variables)), *verb]
        variables = {**engine.variables, **(building.packed("PENSTOCK_LOCK", lock) if lock else {})}
        return Command(f"exec {shlex.join(argv)}", variables, reason)


def described(lock: bytes) -> str:
    """What a lock pins, in words: `python:3.11-slim at sha256:1a2b3c4d5e6f…`. Raises EngineError where it is none."""
    pinned = _lock(lock)
    if "image" in pinned:
        return _pinned_in_words(pinned)
    upon = [_pinned_in_words(one) for one in pinned["bases"]]
    return f"{pinned['dockerfile']} upon {', '.join(upon) or 'scratch'}"


def _pinned_in_words(pinned: Mapping[str, Any]) -> str:
    name = str(pinned["image"]).partition("@")[0]
    algorithm, _, digits = str(pinned["pinned"]).rpartition("@")[2].partition(":")
    return f"{name} at {algorithm}:{digits[:_SHOWN_DIGITS]}…"


def _lock(lock: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(lock)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not ({"id", "pinned", "image"} <= found.keys() or "bases" in found):
        raise EngineError("the lock of the image cannot be read: run with --no-cache, and it is made anew")
    return found


def _calls(engine: ContainerEngine) -> Calls:
    return Calls(engine.kind, engine.program, engine.variables)


def _name(text: str) -> ImageName:
    try:
        return parse_image(text)
    except ValueError as error:
        raise SourceError(f"runtime.image: {error}") from error


def _bases(file: str, files: Mapping[str, bytes]) -> tuple[Upon, ...]:
    """The images that a Dockerfile builds upon. Raises SourceError where one cannot be told or has no such name."""
    dockerfile = read_dockerfile(file, files.get(file))
    try:
        found = bases(dockerfile, architecture())
    except DockerfileError as error:
        raise SourceError(str(error)) from error
    for upon in found:
        try:
            parse_image(upon.image)
        except ValueError as error:
            raise SourceError(f"{dockerfile.place(upon.line)}: {error}") from error
    return found
