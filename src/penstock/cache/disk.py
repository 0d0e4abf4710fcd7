"""Bytes by digest in a folder of the local disk.

`blobs/ab/cdef…` holds content as it is, `blobs/ab/cdef….zst` the same compressed: the form is in the name, since
content may itself begin like a zstd frame. `temp/` holds what is being written, `corrupt/` what failed its digest.
Nothing is synced to disk: a power cut may lose or tear a blob, a torn one is found by its digest when it is read, and
lost bytes are recomputed. So a blob needs only to be whole when it gets its name, which the rename gives it.
"""
# Paths are strings here, as in `folders`.
# ruff: noqa: PTH103, PTH105, PTH108, PTH104, PTH116, PTH120, PTH208

import fcntl
import os
import stat
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from threading import Lock

import zstandard
from blake3 import blake3

from penstock.artifacts import Digest, Entry, File, Link, Tree, digest_of_bytes
from penstock.cache.contract import BlobCorrupt, BlobError, BlobMissing, Captured, Stored, Swept, Usage
from penstock.cache.copying import at_once, pieces, pour, unpacked, write_all
from penstock.cache.folders import (
    disk_error,
    laying_out,
    make_folders,
    make_link,
    named_by,
    new_file,
    read_link,
    regular,
)
from penstock.errors import UntrustworthyError

_SMALL = 1 << 20  # content up to this size is held in memory
_BLOCK = 4096  # a file takes at least a block on most disks: compressing less saves nothing
_LARGE = 64 << 20  # beyond this, time counts more than space
_SAMPLE = 256 << 10
_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_ABANDONED = 3600.0  # seconds without a write after which a temporary file's writer is dead
_FORMS = ("", ".zst")


class DiskCache:
    """The cache (see `contract.Cache`) in one folder, which is made if need be.

    `reflinks` says whether its filesystem can clone files (as Btrfs and XFS can); None finds out. Where it can,
    content is stored as it is, because only that can be cloned; elsewhere it is compressed where that helps.
    """

    def __init__(self, folder: Path, *, reflinks: bool | None = None) -> None:
        self._folder = folder
        self._blobs, self._temp, self._corrupt = (f"{folder}/{name}" for name in ("blobs", "temp", "corrupt"))
        self._wanted = reflinks
        self._grown, self._counting = 0, Lock()
        with self._working():
            for made in (self._blobs, self._temp, self._corrupt):
                os.makedirs(made, exist_ok=True)

    # --- blobs -----------------------------------------------------------------------------------------------------

    def add_bytes(self, data: bytes) -> Digest:
        digest = digest_of_bytes(data)
        if not self.has(digest):
            packed = self._shrinks(data[:_SAMPLE], len(data))
            with self._working(), self._temporary() as (descriptor, temporary):
                write_all(descriptor, zstandard.ZstdCompressor().compress(data) if packed else data)
                self._settle(temporary, digest, packed=packed)
        return digest

    def add_file(self, path: Path) -> File:
        return self._add_file(str(path), str(path))

    def _add_file(self, path: str, name: str) -> File:
        with regular(path, name) as (descriptor, status):
            executable = bool(status.st_mode & stat.S_IXUSR)
            if status.st_size <= _SMALL:
                data = b"".join(map(bytes, pieces(descriptor, status.st_size)))
                return File(self.add_bytes(data), len(data), executable)
            digest, size = _digest(descriptor)
            if not self.has(digest):
                digest, size = self._store(descriptor, size)
        return File(digest, size, executable)

    def _store(self, descriptor: int, size: int) -> tuple[Digest, int]:
        """Copy an open file into the cache; it may have changed since it was hashed, so the copy is what counts."""
        packed = self._shrinks(os.pread(descriptor, _SAMPLE, 0), size)
        os.lseek(descriptor, 0, os.SEEK_SET)
        with self._working(), self._temporary() as (copy, temporary):
            if not packed and self.reflinks and _clone(descriptor, copy):
                digest, size = _digest(copy)
            else:
                digest, size = _copy(descriptor, copy, size, packed=packed)
            self._settle(temporary, digest, packed=packed)
        return digest, size

    def read(self, digest: Digest) -> bytes:
        with self._opened(digest) as (descriptor, form):
            size = -1 if form else os.fstat(descriptor).st_size
            return b"".join(map(bytes, self._verified(digest, descriptor, form, size)))

    def peek(self, digest: Digest, offset: int, length: int) -> bytes | None:
        with self._opened(digest) as (descriptor, form), self._working():
            return None if form else os.pread(descriptor, length, offset)

    def has(self, digest: Digest) -> bool:
        with self._working():
            for form in _FORMS:
                with suppress(FileNotFoundError):
                    os.utime(self._path(digest) + form)
                    return True
        return False

    def place(self, file: File, target: Path) -> None:
        self._place(file, str(target))

    def _place(self, file: File, target: str) -> None:
        with self._opened(file.digest) as (blob, form), new_file(target, executable=file.executable) as written:
            if not form and self.reflinks and _clone(blob, written):
                # The clone is what gets verified: nobody else can change it any more.
                deque(self._verified(file.digest, written, form, file.size), maxlen=0)
                return
            pour(self._verified(file.digest, blob, form, file.size), written, file.size)

    @contextmanager
    def _opened(self, digest: Digest) -> Generator[tuple[int, str]]:
        """The blob's descriptor and its form. Raises BlobMissing."""
        descriptor, form = self._open(digest)
        try:
            yield descriptor, form
        finally:
            os.close(descriptor)

    def _open(self, digest: Digest) -> tuple[int, str]:
        with self._working():
            for form in _FORMS:
                with suppress(FileNotFoundError):
                    return os.open(self._path(digest) + form, os.O_RDONLY), form
        raise BlobMissing(digest)

    def _verified(self, digest: Digest, descriptor: int, form: str, size: int = -1) -> Iterator[memoryview]:
        """The content in pieces; only when all were given is it sure that they are the right ones.

        `size` is what the content should have, where that is known: one look fewer at its end.
        """
        hasher = blake3()
        try:
            for piece in unpacked(descriptor) if form else pieces(descriptor, size):
                hasher.update(piece)
                yield piece
        except (OSError, zstandard.ZstdError):
            hasher.update(b"unreadable")
        if hasher.hexdigest() != digest:
            self._set_aside(digest, form)
            raise BlobCorrupt(digest)

    def _set_aside(self, digest: Digest, form: str) -> None:
        with self._working(), suppress(FileNotFoundError):
            os.replace(self._path(digest) + form, f"{self._corrupt}/{digest}{form}")

    def corrupted(self) -> tuple[Digest, ...]:
        """The digests whose bytes were found damaged since the last sweep that was long enough ago, sorted."""
        return tuple(sorted(Digest(name.removesuffix(_FORMS[1])) for name in os.listdir(self._corrupt)))

    # --- writing ---------------------------------------------------------------------------------------------------

    @cached_property
    def reflinks(self) -> bool:
        """Whether this folder's filesystem clones files; tried once."""
        if self._wanted is not None:
            return self._wanted
        with self._working(), self._temporary() as (one, _), self._temporary() as (other, _):
            write_all(one, bytes(_BLOCK))
            return _clone(one, other)

    def _shrinks(self, sample: bytes, size: int) -> bool:
        """Whether compressing is worth it, judged by the content's beginning; large content must shrink by half."""
        if size <= _BLOCK or self.reflinks:
            return False
        return len(zstandard.ZstdCompressor().compress(sample)) < len(sample) * (0.5 if size > _LARGE else 0.9)

    def _path(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest[:2]}/{digest[2:]}"

    def _settle(self, temporary: str, digest: Digest, *, packed: bool) -> None:
        target = self._path(digest) + _FORMS[packed]
        with self._counting:
            self._grown += os.stat(temporary).st_size
        try:
            os.replace(temporary, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(temporary, target)

    @contextmanager
    def _temporary(self) -> Generator[tuple[int, str]]:
        path = f"{self._temp}/{os.urandom(16).hex()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            yield descriptor, path
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(path)

    @contextmanager
    def _working(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(f"the cache in {self._folder} cannot be used", error) from error

    # --- trees -----------------------------------------------------------------------------------------------------

    def add_tree(self, tree: Tree) -> Digest:
        return self.add_bytes(tree.encode())

    def tree(self, digest: Digest) -> Tree:
        return Tree.decode(self.read(digest))

    def capture(self, root: Path, patterns: Iterable[str]) -> Captured:
        found: dict[str, int] = {}
        missing = []
        for pattern in patterns:
            named = dict(named_by(str(root), pattern))
            found.update(named)
            if not named:
                missing.append(pattern)
        entries: dict[str, Entry] = {}

        def keep(path: str) -> None:
            entries[path] = self._keep(str(root), path, found[path])

        at_once(sorted(found), lambda path: _size(f"{root}/{path}"), keep)
        return Captured(Tree(entries), tuple(missing))

    def _keep(self, root: str, path: str, mode: int) -> Entry:
        if stat.S_ISLNK(mode):
            return read_link(root, path)
        return self._add_file(f"{root}/{path}", path)

    def lay_out(self, tree: Tree, root: Path, elsewhere: Callable[[Digest], bytes] | None = None) -> None:
        folders: set[str] = set()
        files = []
        with laying_out(root):
            os.makedirs(root, exist_ok=True)
        for path, entry in tree.entries.items():
            make_folders(str(root), path.rpartition("/")[0], folders)
            if isinstance(entry, Link):
                make_link(f"{root}/{path}", entry.target)
            else:
                files.append((path, entry))
        at_once(
            files, lambda item: item[1].size, lambda item: self._fill(item[1], f"{root}/{item[0]}", item[0], elsewhere)
        )

    def _fill(self, file: File, target: str, path: str, elsewhere: Callable[[Digest], bytes] | None) -> None:
        try:
            self._place(file, target)
        except BlobError as miss:
            data = _fetch(file.digest, elsewhere)
            if data is None:
                raise type(miss)(file.digest, path) from miss
            if digest_of_bytes(data) != file.digest:
                raise BlobCorrupt(file.digest, path) from miss
            with new_file(target, executable=file.executable) as descriptor:
                write_all(descriptor, data)

    # --- what is kept ----------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        count = size = 0
        for _, status in self._stored():
            count += 1
            size += status.st_size
        return Usage(count, size)

    def stored(self) -> dict[Digest, Stored]:
        return {Digest(_digest_in(path)): Stored(status.st_size, status.st_mtime) for path, status in self._stored()}

    def grown(self) -> int:
        with self._counting:
            grown, self._grown = self._grown, 0
        return grown

    def closure(self, digests: Iterable[Digest]) -> set[Digest]:
        known = set(digests)
        return known.union(*map(self._files_of, known))

    def _files_of(self, digest: Digest) -> set[Digest]:
        with suppress(UntrustworthyError):
            if self._is_tree(digest):
                return self.tree(digest).digests()
        return set()

    def _is_tree(self, digest: Digest) -> bool:
        """Whether the content begins as a tree does; the rest of a large file stays unread."""
        with self._opened(digest) as (descriptor, form):
            return bytes(next(self._verified(digest, descriptor, form), b"")[:5]) == b"tree\0"

    def sweep(self, keep: Collection[Digest], older_than: float, now: float) -> Swept:
        kept = frozenset(keep)
        removed = [
            self._remove(path, now - older_than)
            for path, status in self._stored()
            if _digest_in(path) not in kept and status.st_mtime <= now - older_than
        ]
        removed += [_remove_old(path, now - older_than) for path in _children(self._corrupt)]
        removed += [_remove_old(path, now - max(older_than, _ABANDONED)) for path in _children(self._temp)]
        sizes = [size for size in removed if size is not None]
        return Swept(len(sizes), sum(sizes))

    def _remove(self, path: str, limit: float) -> int | None:
        """Remove a blob unless somebody touched it meanwhile: out of sight first, so that a later touch must fail."""
        aside = f"{self._temp}/{os.urandom(16).hex()}"
        with suppress(FileNotFoundError):
            os.rename(path, aside)
            size = _remove_old(aside, limit)
            if size is None:
                os.replace(aside, path)
            return size
        return None

    def _stored(self) -> Iterator[tuple[str, os.stat_result]]:
        for path in chain.from_iterable(map(_children, _children(self._blobs))):
            with suppress(FileNotFoundError):
                yield path, os.stat(path)


# --- descriptors ---------------------------------------------------------------------------------------------------


def _digest(descriptor: int) -> tuple[Digest, int]:
    """Digest and size of an open file's content, from its beginning."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    hasher = blake3()
    size = 0
    for piece in pieces(descriptor):
        hasher.update(piece)
        size += len(piece)
    return Digest(hasher.hexdigest()), size


def _copy(source: int, target: int, size: int, *, packed: bool) -> tuple[Digest, int]:
    """Copy from one descriptor to another, compressing if asked; digest and size are those of the plain content."""
    hasher = blake3()
    copied = 0
    packer = zstandard.ZstdCompressor().compressobj() if packed else None

    def content() -> Iterator[bytes | memoryview]:
        nonlocal copied
        for piece in pieces(source, size):
            hasher.update(piece)
            copied += len(piece)
            yield packer.compress(piece) if packer else piece
        if packer:
            yield packer.flush()

    pour(content(), target, size)
    return Digest(hasher.hexdigest()), copied


def _size(path: str) -> int:
    """What a file holds, by a look; nothing where there is none (the error is whoever opens it)."""
    with suppress(OSError):
        return os.lstat(path).st_size
    return 0


def _clone(source: int, target: int) -> bool:
    """Let the target share the source's blocks until either is written; False where the filesystem cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


# --- stored files --------------------------------------------------------------------------------------------------


def _children(folder: str) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return [entry.path for entry in found]
    return []


def _digest_in(path: str) -> str:
    """The digest that a blob's path spells."""
    folder, name = path.rsplit("/", 2)[-2:]
    return folder + name.removesuffix(_FORMS[1])


def _remove_old(path: str, limit: float) -> int | None:
    """Remove a file last touched at or before the limit; its size, or None where it stays or is gone."""
    with suppress(FileNotFoundError):
        status = os.stat(path)
        if status.st_mtime <= limit:
            os.unlink(path)
            return status.st_size
    return None


def _fetch(digest: Digest, elsewhere: Callable[[Digest], bytes] | None) -> bytes | None:
    if elsewhere is not None:
        with suppress(KeyError):
            return elsewhere(digest)
    return None
