"""The image below an exported one, read through the person's container engine; and images given back to it."""

import gzip
import json
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from penstock.engine.contracts import ContainerEngine
from penstock.errors import EngineError, UsageError
from penstock.oci import Blob, apply_layer, find_program, resolve
from penstock.runtimes.layers import Shelf
from penstock.runtimes.pulling import ABSENT

_PYTHON = re.compile(r"python3\.\d+")
_PIECE = 1 << 20
_BROKEN = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""How the end of an archive looks that is none."""


@dataclass(frozen=True, slots=True)
class Base:
    """An image to build upon: its configuration, its layers on the shelf, and what was found in it.

    `digest` names it as its registry does, or as this machine does. `programs` are the absolute paths of `sh` and
    `python3.N` by their names, links followed; `musl` says that its C library is musl.
    """

    digest: str
    config: Mapping[str, Any]
    layers: tuple[Blob, ...]
    programs: Mapping[str, str]
    musl: bool


class Engine:
    """The container engine as far as an export needs it. Errors of the engine end in EngineError, with its words."""

    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine
        self.kind = engine.kind

    def inspect(self, reference: str) -> Mapping[str, Any] | None:
        """What the engine knows of an image that it has; None where it has none of that name."""
        done = self._run("image", "inspect", reference)
        if done.returncode != 0:
            if ABSENT.search(_last(done.stderr)):
                return None
            raise EngineError(f"{self.kind} could not look at the image {reference}: {_last(done.stderr)}")
        return cast("Mapping[str, Any]", json.loads(done.stdout)[0])

    def pull(self, reference: str) -> None:
        """Bring an image here, its progress on stderr."""
        done = self._run("pull", reference)
        if done.returncode != 0:
            raise UsageError(
                f"the base image {reference} is not on this machine and {self.kind} could not pull it "
                f"({_last(done.stderr)}): pull it, or name another with --base"
            )

    @contextmanager
    def saving(self, reference: str) -> Iterator[IO[bytes]]:
        """The image as a tar, while the engine writes it; one that is cut off ends in EngineError too."""
        form = ["--format", "docker-archive"] if self.kind == "podman" else []
        argv = [self._engine.program, "save", *form, reference]
        environment = dict(self._engine.variables)
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            whole = True
            try:
                yield cast("IO[bytes]", process.stdout)
            except _BROKEN:
                whole = False
            except BaseException:
                process.kill()
                raise
            said = process.communicate()[1]
            if process.returncode != 0:
                raise EngineError(f"{self.kind} could not save the image {reference}: {_last(said)}")
            if not whole:
                raise _not_whole(reference)

    def load(self, layout: Path, reference: str, image: str) -> None:
        """Give podman the image of a layout, of which it takes the layers that it does not have.

        The folder's name becomes a name of the image until `tidy`, so it is in lower case.
        """
        for argv in (["load", "--quiet", "--input", str(layout)], ["tag", image, reference]):
            done = self._run(*argv)
            if done.returncode != 0:
                raise EngineError(f"{self.kind} could not take the image {reference}: {_last(done.stderr)}")

    def tidy(self, layout: Path, image: str) -> None:
        """Take away what `load` needed: the folder of the layout, and its name for the image."""
        self._run("untag", image, f"localhost{layout}:latest")
        shutil.rmtree(layout, ignore_errors=True)

    def named(self, repository: str) -> list[str]:
        """The references of a repository that the engine has; none where it does not answer."""
        form = "{{.Repository}}:{{.Tag}}"
        done = self._run("image", "ls", "--format", form, "--filter", f"reference={repository}")
        return done.stdout.decode("utf-8", "replace").split() if done.returncode == 0 else []

    def remove(self, references: Iterable[str]) -> None:
        """Take names from images, which go with their last one; one that a container uses stays."""
        for reference in references:
            self._run("image", "rm", reference)

    @contextmanager
    def loading(self, reference: str) -> Iterator[IO[bytes]]:
        """A pipe into `load`, for the archive of an image."""
        argv = [self._engine.program, "load", "--quiet"]
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, env=dict(self._engine.variables), **quiet) as process:  # type: ignore[call-overload]
            try:
                yield process.stdin
            except BrokenPipeError:
                pass  # the engine says why
            except BaseException:
                process.kill()
                raise
            said = process.communicate()[1]
            if process.returncode != 0:
                raise EngineError(f"{self.kind} could not take the image {reference}: {_last(said)}")

    def _run(self, *argv: str) -> "subprocess.CompletedProcess[bytes]":
        environment = dict(self._engine.variables)
        return subprocess.run([self._engine.program, *argv], env=environment, capture_output=True, check=False)


def _last(said: bytes) -> str:
    """The last line of what a program said, without its full stop; where podman tried several forms, of ours."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    lines = [line for line in lines if line.startswith(" * oci: ")] or lines
    return lines[-1].strip().rstrip(".") if lines else "it does not say why"


# --- reading the image below ---------------------------------------------------------------------------------------


def read_base(engine: Engine, reference: str, shelf: Shelf, say: Callable[[str], None]) -> Base:
    """The image of a reference, pulled where it is not here, and read into the shelf where it is not there yet."""
    known = engine.inspect(reference)
    if known is None:
        say(f"pulling the base image {reference}")
        engine.pull(reference)
        known = engine.inspect(reference)
    if known is None:
        raise EngineError(f"{engine.kind} pulled {reference} and does not have it: name another image with --base")
    image = str(known["Id"]).removeprefix("sha256:")
    record = shelf.record(f"base-{image}")
    if record is None or not all(shelf.has(Blob(*blob)) for blob in record["layers"]):
        say(f"reading the base image {reference}")
        record = _read(engine, reference, shelf)
        shelf.note(f"base-{image}", record)
    layers = tuple(Blob(*blob) for blob in record["layers"])
    return Base(_digest(reference, known), record["config"], layers, record["programs"], bool(record["musl"]))


def _digest(reference: str, known: Mapping[str, Any]) -> str:
    """By which digest the image is known: the reference's own, its registry's, else its own here."""
    name, _, said = reference.partition("@")
    if said:
        return said
    repository = name[: name.rindex(":")] if ":" in name.rpartition("/")[2] else name
    told = sorted(str(found) for found in known.get("RepoDigests") or ())
    own = [found.partition("@")[2] for found in told if found.partition("@")[0].endswith(repository)]
    return own[0] if own else f"sha256:{str(known['Id']).removeprefix('sha256:')}"


def _read(engine: Engine, reference: str, shelf: Shelf) -> dict[str, Any]:
    with engine.saving(reference) as stream:
        config, layers = _unpack(stream, shelf, reference)
    entries: dict[str, str | None] = {}
    for layer in layers:
        apply_layer(entries, _names(shelf.path(layer)))
    names = {name for name in (path.rpartition("/")[2] for path in entries) if _PYTHON.fullmatch(name)}
    found = {name: find_program(name, config, entries) for name in ("sh", *sorted(names))}
    programs = {name: f"/{resolve(path, entries)}" for name, path in found.items() if path is not None}
    musl = any(path.startswith("lib/ld-musl-") for path in entries)
    blobs = [[layer.digest, layer.size] for layer in layers]
    return {"config": config, "layers": blobs, "programs": programs, "musl": musl}


def _unpack(stream: IO[bytes], shelf: Shelf, reference: str) -> tuple[dict[str, Any], list[Blob]]:
    """Put the layers of a saved image on the shelf; its configuration, and they in order, uncompressed."""
    found: dict[str, Blob] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if member.issym() or member.islnk():
                below = posixpath.dirname(member.name) if member.issym() else ""
                links[member.name] = posixpath.normpath(posixpath.join(below, member.linkname))
            elif content := tar.extractfile(member):
                found[member.name] = _keep(content, shelf)
        while stream.read(_PIECE):
            pass  # what follows the archive's end, lest the engine wait for a reader
    try:
        listed = json.loads(shelf.path(found["manifest.json"]).read_bytes())[0]
        config = json.loads(shelf.path(found[listed["Config"]]).read_bytes())
        layers = [found[links.get(name, name)] for name in listed["Layers"]]
        whole = [layer.digest for layer in layers] == config["rootfs"]["diff_ids"]
    except (KeyError, ValueError, IndexError, OSError):
        whole = False
    if not whole:
        raise _not_whole(reference)
    for other in set(found.values()) - set(layers):
        shelf.drop(other)
    return config, layers


def _not_whole(reference: str) -> EngineError:
    return EngineError(f"the image {reference} was not saved whole: try again, or name another base")


def _keep(content: IO[bytes], shelf: Shelf) -> Blob:
    with shelf.new() as written:
        shutil.copyfileobj(_uncompressed(content), written, _PIECE)
    return written.blob


def _uncompressed(content: IO[bytes]) -> IO[bytes]:
    """A layer may have been saved as it came from a registry; its digest here is that of the tar itself."""
    head = content.read(4)
    whole = cast("IO[bytes]", _Rejoined(head, content))
    if head[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=whole))
    if head == b"\x28\xb5\x2f\xfd":
        return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(whole, read_across_frames=True))
    return whole


class _Rejoined:
    """A stream whose first bytes were looked at."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._head:
            taken = self._head if size < 0 else self._head[:size]
            self._head = self._head[len(taken) :]
            return taken + self._rest.read() if size < 0 else taken
        return self._rest.read(size)


def _names(path: Path) -> list[tuple[str, str | None]]:
    """The paths of a layer, and where those that are symbolic links lead."""
    with tarfile.open(path) as tar:
        plain = ((posixpath.normpath(m.name).lstrip("/"), m) for m in tar)
        return [(name, m.linkname if m.issym() else None) for name, m in plain if name != "."]


def make_layout(folder: Path, files: Mapping[str, bytes], blobs: Path) -> None:
    """A folder by which an engine reads an image: its small files, and a link to all blobs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "blobs").symlink_to(blobs)


def layout_folder(image: str) -> Path:
    """Where the layout of an image lies for a moment: a name that podman takes, the same at the next try."""
    return Path(f"/tmp/penstock-export-{os.getuid()}-{image[:16]}")  # noqa: S108 (made anew, for its owner alone)
