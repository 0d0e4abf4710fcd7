"""Exports a package as an OCI image: the base's layers, the dependencies, the code, the model, each made once.

`Exports.export` does it here and now; `Exports.command` gives the text by which a runner does it. Either may be
killed at any point and started again: what was finished is on the shelf by its digest, the rest is made anew, and the
image is the same.
"""

import argparse
import fcntl
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from penstock import oci
from penstock.artifacts import Digest, File, Link, Tree, digest_of, digest_of_bytes
from penstock.cache.contract import Cache
from penstock.cache.disk import DiskCache
from penstock.engine.contracts import Command, ContainerEngine, RuntimeRequest, Runtimes
from penstock.errors import EngineError, PenstockError, StateError, UsageError
from penstock.oci import Blob, Exported, Layer
from penstock.packages import LOCK, MANIFEST, served_files
from penstock.runtimes import building
from penstock.runtimes.bases import Base, Engine, layout_folder, make_layout, read_base
from penstock.runtimes.layers import DamagedError, Item, Shelf, dependencies, write_archive, write_layer

Say = Callable[[str], None]

_FORM = 2
"""Part of every layer's key: another number where the same things are written in another way."""
_SMALL = 8 << 20
"""Bytes of a file of the cache that are held in memory; larger ones go by the disk."""
_SERVED = "localhost/penstock/release"
"""The repository of the images of packages that are served."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Part:
    """One layer of an image that was exported. `new` says that it was made by this export."""

    what: str
    digest: str
    size: int
    new: bool


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was exported: where it is, its digest (of its manifest), its id (of its configuration).

    `written` is False where it was there already. Sizes are bytes.
    """

    reference: str
    digest: str
    id: str
    version: str
    package: str
    base: str
    base_digest: str
    size: int
    written: bool
    layers: tuple[Part, ...]


class Exports:
    """Packages of a home as images. `engine` is the person's container engine, None where there is none."""

    def __init__(self, home: Path, engine: ContainerEngine | None) -> None:
        self._home = home
        self._said = engine

    @property
    def _engine(self) -> ContainerEngine:
        if self._said is None:
            raise EngineError("an image needs podman or docker, of which this machine has none: install one of them")
        return self._said

    def command(self, exported: Exported, target: str) -> Command:
        """The command that exports, its last line of output the image as JSON; its runtime is built before.

        `target` is a file's absolute path or a whole reference, as `target_of` gives it.
        """
        engine = self._engine
        argv = [sys.executable, "-I", "-m", __name__, "--home", str(self._home), "--engine", engine.kind]
        argv += ["--program", engine.program, "--to", target, "--", exported.encode()]
        return Command(shlex.join(argv), engine.variables)

    def export(self, exported: Exported, target: str, say: Say) -> Image:
        """Make the image and put it where it is wanted; `say` gets a line for whatever takes a while.

        Raises UsageError for a base that does not fit or a file that cannot be, BlobError where the cache lost a part
        of the package, EngineError where the container engine does not do its work.
        """
        shelf, engine = Shelf(self._home / "images"), Engine(self._engine)
        cache = DiskCache(self._home / "cache")
        with shelf.held(lambda: say("another export of this home is going on: waiting for it")):
            for _ in range(2):
                with suppress(DamagedError):
                    return _Export(self._home, shelf, engine, cache, exported, say).to(target)
                say("something was changed since it was made: it is made anew")
                shelf.drop_damaged()
        raise EngineError("files of the package change while it is exported: end what changes them, then try again")

    def minor(self, environment: Digest) -> str:
        """The minor version (`3.11`) of the Python that a built environment is for."""
        try:
            told = json.loads((self._home / "runtimes" / environment / building.MANIFEST).read_bytes())
            return ".".join(str(told["python"]).split(".")[:2])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"the environment {environment} is not here any more: try again") from error

    def name(self, package: Digest) -> str:
        """What the image of a package that this home serves is called."""
        return f"{_SERVED}:{package[:24]}-{self._own}"

    @property
    def _own(self) -> str:
        return digest_of_bytes(os.fsencode(self._home.absolute()))[:8]

    def discard(self, keep: Collection[Digest], before: float) -> int:
        """Remove what no export used since `before` (seconds since the epoch); the bytes that this freed.

        With it go the images of packages that were served and are not in `keep`. Nothing goes while an export goes on.
        """
        folder = self._home / "images"
        if not folder.is_dir():
            return 0
        shelf, kept = Shelf(folder), {self.name(package) for package in keep}
        with suppress(_BusyError), shelf.held(_busy):
            if self._said is not None:
                engine = Engine(self._said)
                engine.remove(name for name in engine.named(_SERVED) if name.endswith(self._own) and name not in kept)
            return shelf.discard(before)
        return 0


class _BusyError(Exception):
    """An export is going on."""


def _busy() -> None:
    raise _BusyError


def target_of(asked: str, version: str) -> str:
    """A target as a person writes it, as the absolute path of a file or a whole reference. Raises UsageError."""
    if oci.is_file(asked):
        return os.path.abspath(Path(asked).expanduser())  # noqa: PTH100 (without `..`)
    return oci.reference(asked, version)


def locked_request(runtimes: Runtimes, environment: Digest, lock: bytes, python: str | None) -> RuntimeRequest:
    """The request by which a package's own lock gives its environment again.

    Raises StateError where it does not: then it was locked for another platform or another Python than Penstock's.
    """
    for version in (python, *(f"3.{minor}" for minor in range(8, 30))):
        request = RuntimeRequest("lock", "requirements.lock", version)
        if runtimes.digest(request, lock) == environment:
            return request
    raise StateError("the package's dependencies were locked on another kind of machine: export it on one like that")


# --- one export ----------------------------------------------------------------------------------------------------


class _Export:
    """One export, while its shelf is held."""

    def __init__(self, home: Path, shelf: Shelf, engine: Engine, cache: Cache, exported: Exported, say: Say) -> None:
        self._home = home
        self._shelf = shelf
        self._engine = engine
        self._cache = cache
        self._exported = exported
        self._say = say
        self._new: set[str] = set()

    def to(self, target: str) -> Image:
        exported = self._exported
        base = read_base(self._engine, exported.base, self._shelf, self._say)
        _fits(base, exported)
        layers = [*(Layer("base", blob) for blob in base.layers), *self._layers(base)]
        config = oci.configuration(exported, base.config, base.digest, layers)
        manifest = oci.manifest(oci.blob_of(config), layers)
        for data in (config, manifest):
            self._shelf.add(data, oci.blob_of(data))
        made = _Made(oci.blob_of(config), oci.blob_of(manifest), tuple(layers))
        written = self._to_file(made, Path(target)) if target.startswith("/") else self._to_engine(made, target)
        return Image(
            reference=target,
            digest=made.manifest.digest,
            id=made.config.digest,
            version=exported.version,
            package=exported.package,
            base=exported.base,
            base_digest=base.digest,
            size=sum(layer.blob.size for layer in layers),
            written=written,
            layers=tuple(Part(o.what, o.blob.digest, o.blob.size, o.blob.digest in self._new) for o in layers),
        )

    # --- layers

    def _layers(self, base: Base) -> Iterator[Layer]:
        """Its own layers, from what changes least to what changes most."""
        exported, tree = self._exported, self._cache.tree(Digest(self._exported.package))
        if exported.python is not None:
            yield Layer("dependencies", self._dependencies(base.programs[f"python{exported.python}"], exported.python))
        served = served_files(tree)
        model = served.select(exported.model) if exported.model else Tree()
        code = Tree({path: entry for path, entry in served.entries.items() if path not in model})
        beside = Tree({name: tree.entries[name] for name in (MANIFEST, LOCK) if name in tree})
        key = {"code": code.digest, "beside": beside.digest}
        yield Layer("code", self._layer("code", key, lambda: self._code(code, beside)))
        if model.entries:
            key = {"model": model.digest}
            yield Layer("model", self._layer("model", key, lambda: self._files(model, oci.PACKAGE)))

    def _layer(self, what: str, key: Mapping[str, Any], items: Callable[[], Iterator[Item]]) -> Blob:
        """The layer of a key, from the shelf or made now."""
        name = f"layer-{digest_of('layer', {'form': _FORM, 'what': what, **key})}"
        known = self._shelf.record(name)
        if known is not None and self._shelf.has(Blob(*known)):
            return Blob(*known)
        self._say(f"packing the {what}")
        with self._shelf.new() as written:
            write_layer(items(), written)
        self._shelf.note(name, [written.blob.digest, written.blob.size])
        self._new.add(written.blob.digest)
        return written.blob

    def _dependencies(self, python: str, minor: str) -> Blob:
        folder = self._home / "runtimes" / str(self._exported.environment)
        files = building.recorded(folder)
        if files is None:
            raise EngineError(f"the environment {folder.name} is not here any more: try again")
        told = json.dumps(sorted([path, entry[-1]] for path, entry in files.items())).encode()
        key = {"environment": folder.name, "files": digest_of_bytes(told), "python": python, "minor": minor}
        return self._layer("dependencies", key, lambda: dependencies(folder, python, minor))

    def _code(self, code: Tree, beside: Tree) -> Iterator[Item]:
        """The package's code, what tells of it, and the one folder in which its process may write."""
        above = os.path.dirname(oci.PACKAGE)  # noqa: PTH120 (a path of the image)
        yield Item(oci.HOME, owner=oci.USER)
        yield from self._files(beside, above)
        yield Item(oci.PACKAGE)
        yield from self._files(code, oci.PACKAGE)

    def _files(self, tree: Tree, folder: str) -> Iterator[Item]:
        """The files and links of a tree, one at a time."""
        for path, entry in tree.entries.items():
            name = f"{folder}/{path}"
            if isinstance(entry, Link):
                yield Item(name, target=entry.target)
            elif entry.size <= _SMALL:
                yield Item(name, data=self._cache.read(entry.digest), executable=entry.executable)
            else:
                yield from self._large(name, entry)

    def _large(self, name: str, entry: File) -> Iterator[Item]:
        placed = self._shelf.folder / "content.unfinished"
        self._cache.place(entry, placed)
        try:
            yield Item(name, path=placed, executable=entry.executable)
        finally:
            placed.unlink(missing_ok=True)

    # --- where it goes

    def _to_file(self, made: "_Made", path: Path) -> bool:
        """Write the archive, whole or not at all; False where it lies there as it was written."""
        record = f"file-{digest_of_bytes(str(path).encode())}"
        if self._shelf.record(record) == [made.manifest.digest, *_status(path)]:
            return False
        self._say(f"writing {path}")
        name = oci.name_of(self._exported.title, self._exported.version)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            with _alone(unfinished) as file:
                write_archive(file, made.members(name), self._shelf)
                file.flush()
                os.fsync(file.fileno())
                unfinished.replace(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}): name another file") from error
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        self._shelf.note(record, [made.manifest.digest, *_status(path)])
        return True

    def _to_engine(self, made: "_Made", reference: str) -> bool:
        """Give it to the container engine under its name; False where it has it so."""
        known, layout = self._engine.inspect(reference), layout_folder(_bare(made.manifest.digest))
        if known is not None and _bare(known["Id"]) in {_bare(made.config.digest), _bare(made.manifest.digest)}:
            if layout.exists():  # an earlier export was killed in between
                self._engine.tidy(layout, _bare(made.config.digest))
            return False
        self._say(f"giving {reference} to {self._engine.kind}")
        if self._engine.kind == "podman":
            self._to_podman(made, reference, layout)
        else:
            with self._engine.loading(reference) as file:
                write_archive(file, made.members(reference), self._shelf)
        return True

    def _to_podman(self, made: "_Made", reference: str, layout: Path) -> None:
        """By a folder, of which podman reads the layers that it does not have."""
        make_layout(layout, made.small_files(reference), self._shelf.folder / "blobs")
        try:
            self._engine.load(layout, reference, _bare(made.config.digest))
        except EngineError as error:
            if self._shelf.drop_damaged():
                raise DamagedError(reference) from error
            raise
        finally:
            self._engine.tidy(layout, _bare(made.config.digest))


@dataclass(frozen=True, slots=True)
class _Made:
    """An image whose blobs are all on the shelf."""

    config: Blob
    manifest: Blob
    layers: tuple[Layer, ...]

    def small_files(self, name: str) -> dict[str, bytes]:
        """The files of its layout that are no blobs."""
        return {"oci-layout": oci.LAYOUT, "index.json": oci.index(self.manifest, name)}

    def members(self, name: str) -> Iterator[tuple[str, bytes | Blob]]:
        """All files of its archive, each blob once: a layout, and what an older `docker load` reads instead."""
        yield from self.small_files(name).items()
        yield "manifest.json", oci.docker_manifest(self.config, self.layers, name)
        yield from ((oci.blob_path(blob), blob) for blob in self.blobs)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return tuple(dict.fromkeys((self.manifest, self.config, *(layer.blob for layer in self.layers))))


def _fits(base: Base, exported: Exported) -> None:
    """Refuse a base that cannot carry the package, in one sentence."""
    name, python = exported.base, f"python{exported.python}"
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    if "sh" not in base.programs:
        raise UsageError(f"the base image {name} has no sh, which starts the server: name another with --base")
    if base.config.get("architecture") != architecture:
        found = base.config.get("architecture")
        raise UsageError(f"the base image {name} is for {found}, this machine is {architecture}: name another")
    if exported.python is None:
        return
    if python not in base.programs:
        others = ", ".join(sorted(p for p in base.programs if p != "sh")) or "none"
        raise UsageError(
            f"the base image {name} has no {python} on its PATH, which the package's dependencies are for "
            f"(it has {others}): name another with --base"
        )
    if base.musl != (platform.libc_ver()[0] != "glibc"):
        raise UsageError(
            f"the base image {name} has another C library than the machine on which the package was tested, "
            "so its dependencies would not work there: name one of the same kind with --base"
        )


def _alone(path: Path) -> IO[bytes]:
    """A new file that nobody else is writing at this moment."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644), "wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        file.close()
        raise StateError(f"another export is writing {path}: try again when it has ended")
    file.truncate()
    return file


def _status(path: Path) -> list[int]:
    """By which a file is known to be as it was written; nothing where none is there."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _bare(digest: object) -> str:
    return str(digest).removeprefix("sha256:")


# --- by a runner ---------------------------------------------------------------------------------------------------


def main() -> int:
    """Export as the arguments say; the last line on stdout is the image, everything before is for people."""
    parser = argparse.ArgumentParser()
    for name in ("--home", "--engine", "--program", "--to"):
        parser.add_argument(name, required=True)
    parser.add_argument("exported")
    said = parser.parse_args()
    engine = ContainerEngine(said.engine, said.program, dict(os.environ))
    try:
        image = Exports(Path(said.home), engine).export(Exported.decode(said.exported), said.to, _print)
    except PenstockError as error:
        _print(str(error))
        return 1
    _print(json.dumps(asdict(image)))
    return 0


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the log of a step is what it prints


if __name__ == "__main__":
    sys.exit(main())
