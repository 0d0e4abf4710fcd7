"""Layers of images: written as tars that are the same wherever they are made, and kept by their digest.

A layer's bytes follow from what it holds: entries in order, one time, one owner, modes of files and of programs, and
no compression. What is kept here can be made again, so it is never worth an error: what was damaged is made anew.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
import posixpath
import tarfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from penstock.oci import ENVIRONMENT, Blob
from penstock.runtimes import building

EPOCH = 315_532_800
"""Every entry's time: the first of 1980, as no ZIP file can hold an earlier one and some programs write them."""

_PIECE = 1 << 20
_OLD = ".unfinished"


class DamagedError(Exception):
    """What was kept did not match its digest. It is gone now: make it again."""


# --- what is kept --------------------------------------------------------------------------------------------------


class Shelf:
    """A folder of blobs by their SHA-256, and of records: what is known of them. One process at a time has it.

    `blobs/sha256/HEX` is whole as soon as it has its name. A record is a small JSON value under a name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._records = folder / "records"

    @contextmanager
    def held(self, waiting: Callable[[], None]) -> Generator[None]:
        """Have the shelf alone; `waiting` is called once where another process has it."""
        for folder in (self._blobs, self._records):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            for left in self.folder.rglob(f"*{_OLD}"):
                left.unlink(missing_ok=True)
            yield

    def path(self, blob: Blob) -> Path:
        return self._blobs / blob.digest.removeprefix("sha256:")

    def has(self, blob: Blob) -> bool:
        """Whether the blob is there with its size; a yes protects it from `discard` for a while."""
        with suppress(OSError):
            if self.path(blob).stat().st_size == blob.size:
                os.utime(self.path(blob))
                return True
        return False

    def add(self, data: bytes, blob: Blob) -> None:
        if not self.has(blob):
            _write(self.path(blob), data)

    @contextmanager
    def new(self) -> Generator["Written"]:
        """A new blob, written piece by piece; it gets its name at the end."""
        temporary = self._blobs / f"new{_OLD}"
        with temporary.open("wb", buffering=0) as file:
            written = Written(file)
            yield written
            os.fsync(file.fileno())
        temporary.rename(self.path(written.blob))

    def drop(self, blob: Blob) -> None:
        self.path(blob).unlink(missing_ok=True)

    def pour(self, blob: Blob, target: IO[bytes]) -> None:
        """Write a blob's bytes to a file. Raises DamagedError at the end where they were wrong."""
        hasher = hashlib.sha256()
        with self.path(blob).open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                hasher.update(piece)
                target.write(piece)
        if f"sha256:{hasher.hexdigest()}" != blob.digest:
            self.drop(blob)
            raise DamagedError(blob.digest)

    def drop_damaged(self) -> int:
        """Read every blob, remove those that are not what they were, and say how many."""
        found = [Blob(f"sha256:{path.name}", path.stat().st_size) for path in self._blobs.iterdir()]
        return sum(self._is_damaged(blob) for blob in found)

    def _is_damaged(self, blob: Blob) -> bool:
        with Path(os.devnull).open("wb") as nowhere:
            try:
                self.pour(blob, nowhere)
            except DamagedError:
                return True
        return False

    def record(self, name: str) -> Any:
        """The value that was noted under a name, or None; it is kept as the blobs are that are asked for."""
        path = self._records / f"{name}.json"
        try:
            os.utime(path)
            return json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None

    def note(self, name: str, value: Any) -> None:
        _write(self._records / f"{name}.json", json.dumps(value).encode())

    def discard(self, before: float) -> int:
        """Remove what no export used since `before` (seconds since the epoch), and say how many bytes."""
        found = [(path, path.stat()) for folder in (self._blobs, self._records) for path in folder.iterdir()]
        old = [(path, status.st_size) for path, status in found if status.st_mtime < before]
        for path, _ in old:
            path.unlink()
        return sum(size for _, size in old)


class Written:
    """A file that is being written, with the digest and the number of the bytes so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        self._size += len(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        return len(data)

    @property
    def blob(self) -> Blob:
        return Blob(f"sha256:{self._hasher.hexdigest()}", self._size)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}{_OLD}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


# --- a layer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One file, link or folder of a layer, at an absolute path of the image.

    A file's content is its `data`, else what `path` holds, whose SHA-256 is `sha256` where that is known. `target` is
    a link's; a folder has neither. `owner` is user and group at once.
    """

    name: str
    data: bytes | None = None
    path: Path | None = None
    target: str | None = None
    executable: bool = False
    sha256: str | None = None
    owner: int = 0

    @property
    def is_folder(self) -> bool:
        return self.data is None and self.path is None and self.target is None


def write_layer(items: Iterable[Item], file: Written) -> None:
    """Write a layer's tar: the items in their order, folders before what they hold. Raises DamagedError for a file
    that changed since its digest was told.
    """
    made: set[str] = set()
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as tar:  # type: ignore[call-overload]
        tar.copybufsize = _PIECE
        for item in items:
            _add_folders(tar, posixpath.dirname(item.name), made)
            if not (item.is_folder and item.name in made):
                _add(tar, item)
                made.add(item.name)


def _add_folders(tar: tarfile.TarFile, folder: str, made: set[str]) -> None:
    if folder not in {"/", ""} and folder not in made:
        _add_folders(tar, posixpath.dirname(folder), made)
        made.add(folder)
        _add(tar, Item(folder))


def _add(tar: tarfile.TarFile, item: Item) -> None:
    entry = tarfile.TarInfo(item.name.lstrip("/"))
    entry.mtime, entry.uid, entry.gid = EPOCH, item.owner, item.owner
    if item.target is not None:
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, item.target, 0o777
        tar.addfile(entry)
    elif item.data is not None:
        entry.size, entry.mode = len(item.data), 0o755 if item.executable else 0o644
        tar.addfile(entry, io.BytesIO(item.data))
    elif item.path is not None:
        _add_file(tar, item, entry)
    else:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o700 if item.owner else 0o755
        tar.addfile(entry)


def _add_file(tar: tarfile.TarFile, item: Item, entry: tarfile.TarInfo) -> None:
    if item.path is None:
        raise AssertionError("no file")
    with item.path.open("rb") as file:
        entry.size, entry.mode = os.fstat(file.fileno()).st_size, 0o755 if item.executable else 0o644
        reader = _Hashed(file)
        tar.addfile(entry, reader)
    if item.sha256 is not None and reader.digest != item.sha256:
        raise DamagedError(str(item.path))


class _Hashed:
    """A file as it is read, with the digest of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hasher = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hasher.update(data)
        return data

    @property
    def digest(self) -> str:
        return self._hasher.hexdigest()


# --- the layer of dependencies -------------------------------------------------------------------------------------

_OURS = frozenset({"pyvenv.cfg", ".gitignore", "CACHEDIR.TAG", ".lock", "penstock.lock", "pylock.toml"})
_VARYING = frozenset({"uv_cache.json", "uv_build.json"})
"""Beside a package's metadata: when and whence this machine got it."""
_SEEDED = frozenset({"_virtualenv.py", "_virtualenv.pth"})


def dependencies(folder: Path, python: str, minor: str) -> Iterator[Item]:
    """An environment of uv's as a virtual environment of the image: the same packages, with the image's own Python.

    `python` is the absolute path of the image's interpreter, `minor` its version (`3.11`). Only what was there when
    the environment was made is taken, as it was then. Scripts are told their new interpreter, the lists of files
    follow; bytecode and what differs between machines stay behind.
    """
    recorded = building.recorded(folder) or {}
    listed = _listed(folder)
    kept = {path: entry for path, entry in recorded.items() if _is_kept(path, listed)}
    scripts = {path: _script(folder, path) for path in kept if path.startswith("bin/") and len(kept[path]) > 1}
    changed = {path: data for path, data in scripts.items() if data is not None}
    items = [*_interpreter(python, minor)]
    for path, entry in kept.items():
        executable = len(entry) > 1 and os.access(folder / path, os.X_OK)
        if len(entry) == 1:
            items.append(Item(f"{ENVIRONMENT}/{path}", target=entry[0]))
        elif path in changed:
            items.append(Item(f"{ENVIRONMENT}/{path}", data=changed[path], executable=executable))
        elif path.endswith(".dist-info/RECORD"):
            items.append(Item(f"{ENVIRONMENT}/{path}", data=_record(folder, path, kept, changed)))
        else:
            items.append(Item(f"{ENVIRONMENT}/{path}", path=folder / path, executable=executable, sha256=entry[2]))
    yield from sorted(items, key=lambda item: item.name)


def _interpreter(python: str, minor: str) -> Iterator[Item]:
    home = posixpath.dirname(python)
    told = f"home = {home}\ninclude-system-site-packages = false\nversion = {minor}\n"
    yield Item(f"{ENVIRONMENT}/pyvenv.cfg", data=told.encode())
    yield Item(f"{ENVIRONMENT}/bin/python", target=python)
    for name in ("python3", f"python{minor}"):
        yield Item(f"{ENVIRONMENT}/bin/{name}", target="python")


def _is_kept(path: str, listed: set[str]) -> bool:
    folder, _, name = path.rpartition("/")
    if folder == "bin":
        return path in listed
    return path not in _OURS and name not in _VARYING | _SEEDED and not path.endswith(".pyc")


def _rows(folder: Path, path: str) -> list[list[str]]:
    with (folder / path).open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row]


def _listed(folder: Path) -> set[str]:
    """Every path that a package says it installed."""
    found: set[str] = set()
    for record in folder.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        site = record.parent.parent.relative_to(folder)
        rows = _rows(folder, str(record.relative_to(folder)))
        found.update(posixpath.normpath(posixpath.join(site, row[0])) for row in rows)
    return found


def _script(folder: Path, path: str) -> bytes | None:
    """A script of this environment with the interpreter of the image; None for what is none.

    uv writes `#!/…/bin/python`, or where that line would be too long three lines by which sh starts it.
    """
    with (folder / path).open("rb") as file:
        if file.read(2) != b"#!":
            return None
        lines = (b"#!" + file.read()).split(b"\n")
    ours = f"/{folder.name}/bin/python".encode()
    for first, end in ((0, 1), (1, 3)):
        if len(lines) > end and ours in lines[first] and (first == 0 or lines[1].startswith(b"'''exec'")):
            return b"\n".join([f"#!{ENVIRONMENT}/bin/python".encode(), *lines[end:]])
    return None


def _record(folder: Path, path: str, kept: dict[str, list[Any]], changed: dict[str, bytes]) -> bytes:
    """A package's list of its files as they are in the image."""
    site = posixpath.dirname(posixpath.dirname(path))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in sorted(_rows(folder, path)):
        where = posixpath.normpath(posixpath.join(site, row[0]))
        if where in changed:
            hashed = urlsafe_b64encode(hashlib.sha256(changed[where]).digest()).rstrip(b"=").decode()
            writer.writerow([row[0], f"sha256={hashed}", len(changed[where])])
        elif where in kept:
            writer.writerow(row)
    return out.getvalue().encode()


# --- one file that holds an image ----------------------------------------------------------------------------------


def write_archive(file: IO[bytes], members: Iterable[tuple[str, bytes | Blob]], shelf: Shelf) -> None:
    """Write a tar of small files and of blobs of the shelf, in their order. Raises DamagedError as `Shelf.pour`."""
    for name, content in members:
        size = content.size if isinstance(content, Blob) else len(content)
        entry = tarfile.TarInfo(name)
        entry.mtime, entry.mode, entry.size = EPOCH, 0o644, size
        file.write(entry.tobuf(tarfile.PAX_FORMAT))
        if isinstance(content, Blob):
            shelf.pour(content, file)
        else:
            file.write(content)
        file.write(b"\0" * (-size % tarfile.BLOCKSIZE))
    file.write(b"\0" * 2 * tarfile.BLOCKSIZE)
