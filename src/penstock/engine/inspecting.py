"""Inspecting: what the model's files of a package are, read from the cache without loading them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.artifacts import File, Tree
from penstock.cache.contract import Cache
from penstock.models import Model, inspect, model_of
from penstock.packages import served_files
from penstock.readers import BytesReader, Reader

WHOLE = 64 << 20
"""Bytes that are held in memory where a file cannot be read in parts."""


@dataclass(frozen=True, slots=True)
class _Peeked:
    """A file of the cache, as far as it is asked for."""

    cache: Cache
    file: File

    @property
    def size(self) -> int:
        return self.file.size

    def read(self, offset: int, length: int) -> bytes:
        return self.cache.peek(self.file.digest, offset, length) or b""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file of this machine's disk."""

    descriptor: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset)


def inspect_package(cache: Cache, package: Tree, patterns: tuple[str, ...], folder: Path) -> Model:
    """What the files of a package's model are; `folder` is where large ones may lie for a while. Raises BlobError."""
    found = {}
    for path, entry in served_files(package).select(patterns).entries.items():
        if isinstance(entry, File):
            with _reader(cache, entry, folder) as reader:
                found[path] = inspect(reader)
    return model_of(found)


@contextmanager
def _reader(cache: Cache, file: File, folder: Path) -> Iterator[Reader]:
    """A file of the cache in parts, else in memory, else on disk."""
    if cache.peek(file.digest, 0, 1) is not None:
        yield _Peeked(cache, file)
    elif file.size <= WHOLE:
        yield BytesReader(cache.read(file.digest))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="inspected-", dir=folder) as place:
            target = Path(place) / "file"
            cache.place(file, target)
            with target.open("rb") as stream:
                yield _Opened(stream.fileno(), file.size)
