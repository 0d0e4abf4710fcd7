"""What the rest of Penstock may ask of a cache.

The comments are the contract; `tests/contracts/test_cache.py` is its proof.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from penstock.artifacts import Digest, File, Tree
from penstock.errors import PenstockError, UntrustworthyError


class BlobError(UntrustworthyError):
    """Bytes that were asked for by digest cannot be had: recompute them.

    `digest` names them, and `path` where it is known.
    """

    problem = "cannot be read from the cache"

    def __init__(self, digest: Digest, path: str | None = None) -> None:
        self.digest = digest
        self.path = path
        what = f"the content {digest}" if path is None else f"the content {digest} of {path!r}"
        super().__init__(f"{what} {self.problem}; run again with --no-cache to make it anew")


class BlobMissing(BlobError):  # noqa: N818 (a miss is no fault: it is caught and recomputed)
    """The cache does not hold these bytes (any more)."""

    problem = "is not in the cache"


class BlobCorrupt(BlobError):  # noqa: N818 (as above)
    """The bytes did not match their digest. A cache has set them aside: next time they are missing."""

    problem = "was damaged in the cache and has been set aside"


class CaptureError(PenstockError):
    """A folder holds something that cannot be kept: a device, a link that leaves it, a file nobody may read."""


class Captured(NamedTuple):
    """What `capture` kept, and the patterns that named nothing (an empty folder is nothing), in their order."""

    tree: Tree
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Number of blobs and the bytes they take in store, compressed as they are."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """One blob: the bytes it takes in store, and when it was last added or asked for (seconds since the epoch)."""

    bytes: int
    touched: float


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed: blobs and leftovers, and their bytes in store."""

    count: int
    bytes: int


class Cache(Protocol):
    """Bytes by digest. They may be lost at any time, and are then recomputed; they are never wrong.

    All methods block, and may be called from any thread and from many processes at once. What is added twice is held
    once. Whatever leaves the cache has been verified against its digest, but for what `peek` shows. A part that cannot
    do its work (disk full, no permission) raises EngineError and leaves no partial blob.
    """

    def add_bytes(self, data: bytes) -> Digest:
        """Keep the bytes. An `add` protects them from sweeps for their `older_than`, new or not."""
        ...

    def add_file(self, path: Path) -> File:
        """Keep a regular file's content, in pieces. Raises CaptureError for anything but a readable regular file."""
        ...

    def read(self, digest: Digest) -> bytes:
        """The bytes of a digest. Raises BlobMissing, or BlobCorrupt once and BlobMissing from then on."""
        ...

    def peek(self, digest: Digest, offset: int, length: int) -> bytes | None:
        """Some of the bytes, from an offset on, fewer at their end; None where only all of them can be had.

        They alone are not verified: for who looks at a part of something large, never for who uses it. Raises
        BlobMissing.
        """
        ...

    def has(self, digest: Digest) -> bool:
        """Whether the bytes are there, unread; a yes protects them from sweeps as an `add` does."""
        ...

    def place(self, file: File, target: Path) -> None:
        """Write the content to a new file, which shares nothing with the cache: the owner may change it at will.

        Its folder exists; a file or link of that name is replaced. Mode 0755 or 0644 within the umask. A failure leaves
        no file. Raises BlobMissing or BlobCorrupt.
        """
        ...

    def add_tree(self, tree: Tree) -> Digest:
        """Keep the tree's own bytes; its files are kept by `add_file`, before or after."""
        ...

    def tree(self, digest: Digest) -> Tree:
        """The tree of a digest. Raises BlobMissing, BlobCorrupt, or UntrustworthyError for what is no tree."""
        ...

    def capture(self, root: Path, patterns: Iterable[str]) -> Captured:
        """Keep the files and links under `root` that the patterns name (`patterns.matches`), hidden ones too.

        Links are recorded and never followed; nothing outside `root` is read. Raises CaptureError naming a link that
        is absolute or leaves `root`, a socket, fifo or device, or a pattern that passes through a link.
        """
        ...

    def lay_out(self, tree: Tree, root: Path, elsewhere: Callable[[Digest], bytes] | None = None) -> None:
        """Write the tree's files and links below `root` (made if need be), each as `place` does.

        Content comes from the cache, or from `elsewhere`, which raises KeyError for what it does not know and may be
        called by several threads at once; both are verified. May be repeated after a failure. Raises BlobMissing or
        BlobCorrupt naming digest and path, and EngineError where a link or file of `root` stands in a folder's place.
        """
        ...

    def usage(self) -> Usage: ...

    def stored(self) -> dict[Digest, Stored]:
        """Every blob; takes a look at each, as `usage` does."""
        ...

    def grown(self) -> int:
        """Bytes that were stored through this object since the last time this was asked; costs nothing."""
        ...

    def closure(self, digests: Iterable[Digest]) -> set[Digest]:
        """The digests, and those of all files of the trees among them; what is not there adds nothing."""
        ...

    def sweep(self, keep: Collection[Digest], older_than: float, now: float) -> Swept:
        """Remove every blob that is not in `keep` (a closed set, see `closure`) and was not touched for that long.

        `older_than` is in seconds, `now` in seconds since the epoch. Leftovers of writers that died go too.
        """
        ...


def leaves(path: str, target: str) -> bool:
    """Whether a link at `path` (relative to a root) may lead out of the root.

    Only a target that goes up first and down afterwards is trusted to stay: `a/..` means another folder once `a` is
    a link itself, so links that stay one by one could leave together.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    return target.startswith("/") or ups > path.count("/") or ".." in parts[ups:]
