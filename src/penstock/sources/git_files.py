"""The files of one commit, read from a bare mirror by streaming `git cat-file`."""

import subprocess
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self

from blake3 import blake3

from penstock.artifacts import Digest, Entry, File, Link, Tree
from penstock.commits import printable
from penstock.engine.contracts import CommitFiles
from penstock.errors import SourceError, UntrustworthyError
from penstock.sources.git_commands import Git, broken, ended

LFS_LARGEST = 1024
_LFS_BEGINNING = b"version https://git-lfs.github.com/spec/"
_CHUNK = 1 << 20
_LINK = "120000"
_EXECUTABLE = "100755"


class BlobDigests(Protocol):
    """Remembers the digest and size of a blob by its git object name, so that each is read once in its life."""

    def get(self, oids: Collection[str]) -> dict[str, File]:
        """What is known of these object names; the others are absent."""
        ...

    def put(self, found: Mapping[str, File]) -> None:
        """Remember; a name's value never changes."""
        ...


class MemoryBlobDigests:
    """BlobDigests that last as long as the process."""

    def __init__(self) -> None:
        self._known: dict[str, File] = {}

    def get(self, oids: Collection[str]) -> dict[str, File]:
        return {oid: self._known[oid] for oid in oids if oid in self._known}

    def put(self, found: Mapping[str, File]) -> None:
        self._known.update(found)


class Listed(NamedTuple):
    """One entry of a commit's tree: file, link or submodule (`commit`), as git lists it."""

    mode: str
    kind: str
    oid: str
    path: str


class GitCommitFiles:
    """CommitFiles of a mirror; a context manager. `read` may be called from several threads.

    One `git cat-file` serves all reads; it starts with the first and ends with `close`, or with this object.
    """

    def __init__(self, git: Git, mirror: Path, tree: Tree, oids: Mapping[Digest, str]) -> None:
        self._git, self._mirror, self._tree, self._oids = git, mirror, tree, oids
        self._lock = threading.Lock()
        self._ender: weakref.finalize[..., Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tree(self) -> Tree:
        return self._tree

    def read(self, digest: Digest) -> bytes:
        """The content of a file. Raises KeyError for a digest of another tree, EngineError for a broken mirror."""
        oid = self._oids[digest]
        with self._lock:
            try:
                return self._ask(oid)
            except (OSError, ValueError) as error:
                self._end()
                raise broken(self._mirror) from error

    def close(self) -> None:
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, oid: str) -> bytes:
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has no pipes")
        process.stdin.write(f"{oid}\n".encode())
        process.stdin.flush()
        size = _size(process.stdout, oid)
        data = process.stdout.read(size + 1)
        if len(data) != size + 1:
            raise ValueError(oid)
        return data[:-1]

    def _start(self) -> "subprocess.Popen[bytes]":
        self._process = _batch(self._git, self._mirror, subprocess.PIPE)
        self._ender = weakref.finalize(self, ended, self._process)
        return self._process

    def _end(self) -> None:
        if self._ender is not None:
            self._ender()
        self._process = self._ender = None


def commit_files(git: Git, mirror: Path, sha: str, known: BlobDigests) -> GitCommitFiles:
    """List a commit's files; read those that are not known yet, once, in one stream.

    Raises SourceError for a commit that is not in the mirror and for paths that no workspace can hold.
    """
    listed = [item for item in listing(git, mirror, sha) if item.kind == "blob"]
    links = {item.oid for item in listed if item.mode == _LINK}
    plain = {item.oid for item in listed if item.mode != _LINK}
    files = known.get(plain)
    targets = {
        oid: b"".join(pieces).decode("utf-8", "surrogateescape") for oid, pieces in _contents(git, mirror, links)
    }
    new = {oid: _digested(pieces) for oid, pieces in _contents(git, mirror, plain - files.keys())}
    if new:
        known.put(new)
    return _assembled(git, mirror, listed, files | new, targets)


def _assembled(
    git: Git, mirror: Path, listed: Iterable[Listed], files: Mapping[str, File], targets: Mapping[str, str]
) -> GitCommitFiles:
    entries: dict[str, Entry] = {}
    oids: dict[Digest, str] = {}
    for item in listed:
        if not item.path.isascii() or ".git" in item.path.lower():
            _refuse_strange(item.path)
        if item.mode == _LINK:
            _refuse_strange_target(item.path, targets[item.oid])
            entries[item.path] = Link(targets[item.oid])
            continue
        file = files[item.oid]
        executable = item.mode == _EXECUTABLE
        entries[item.path] = File(file.digest, file.size, executable=True) if executable else file
        oids[file.digest] = item.oid
    try:
        return GitCommitFiles(git, mirror, Tree(entries), oids)
    except UntrustworthyError as error:
        raise SourceError(f"the commit cannot be laid out: {error}") from error


def listing(git: Git, mirror: Path, sha: str, path: str | None = None) -> list[Listed]:
    """All entries of a commit, or those of one path. Raises SourceError where the mirror has no such commit."""
    chosen = [] if path is None else ["--", path]
    deep = ["-r"] if path is None else []
    command = ("--literal-pathspecs", "--git-dir=.", "ls-tree", "-z", "--full-tree", *deep, sha, *chosen)
    answer = git.run(*command, folder=mirror, codes=None)
    if answer.code:
        raise SourceError(f"the commit {sha} is not in the mirror {mirror}: name a commit of the repository")
    return [_listed(row) for row in answer.out.decode("utf-8", "surrogateescape").split("\0") if row]


def _listed(row: str) -> Listed:
    head, _, path = row.partition("\t")
    mode, kind, oid = head.split(" ")
    return Listed(mode, kind, oid, path)


def _contents(git: Git, mirror: Path, oids: Collection[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
    if not oids:
        return
    # The names lie in a file, so that writing them never waits for reading the contents.
    with tempfile.TemporaryFile() as wanted:
        wanted.write("".join(f"{oid}\n" for oid in sorted(oids)).encode())
        wanted.seek(0)
        process = _batch(git, mirror, wanted, "--buffer")
        pipe = process.stdout or wanted
        try:
            for oid in sorted(oids):
                yield oid, _pieces(pipe, _size(pipe, oid))
        except ValueError as error:
            raise broken(mirror) from error
        finally:
            ended(process)


def _batch(git: Git, mirror: Path, source: IO[bytes] | int, *options: str) -> "subprocess.Popen[bytes]":
    return git.stream("--git-dir=.", "cat-file", "--batch", *options, folder=mirror, source=source)


def _pieces(pipe: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = pipe.read(min(left, _CHUNK))
        if not piece:
            raise ValueError("the stream ended early")
        left -= len(piece)
        yield piece
    pipe.read(1)


def _size(pipe: IO[bytes], oid: str) -> int:
    """The size that the header of an answer tells. Raises ValueError where git says anything else."""
    name, _, rest = pipe.readline().decode().partition(" ")
    kind, _, size = rest.partition(" ")
    if name != oid or kind != "blob":
        raise ValueError(f"{name} {rest}")
    return int(size)


def _digested(pieces: Iterable[bytes]) -> File:
    hasher, size = blake3(), 0
    for piece in pieces:
        hasher.update(piece)
        size += len(piece)
    return File(Digest(hasher.hexdigest()), size)


def _refuse_strange(path: str) -> None:
    if not _is_text(path):
        shown = printable(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
        raise SourceError(f"the file name {shown!r} is not UTF-8: rename the file and commit")
    if any(part.lower() == ".git" for part in path.split("/")):
        # git refuses to make such an entry; in a workspace it would be a repository that somebody else set up.
        raise SourceError(f"the commit holds {printable(path)!r}, a name that git keeps for itself: remove it")


def _refuse_strange_target(path: str, target: str) -> None:
    if not _is_text(target) or "\0" in target or not target:
        raise SourceError(f"the symbolic link {printable(path)!r} has a target that is not UTF-8: make it again")


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= c <= "\udcff" for c in value)


def blob(git: Git, mirror: Path, sha: str, path: str, limit: int) -> bytes | None:
    """The first `limit` bytes of one file of a commit; None where the commit has no file (a link is none) there."""
    if not path or "\0" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        return None
    found = [i for i in listing(git, mirror, sha, path) if i.path == path and i.kind == "blob" and i.mode != _LINK]
    if not found:
        return None
    process = git.stream("--git-dir=.", "cat-file", "blob", found[0].oid, folder=mirror, source=subprocess.DEVNULL)
    try:
        return b"" if process.stdout is None else process.stdout.read(limit)
    finally:
        ended(process)


def lfs_pointers(files: CommitFiles, paths: Iterable[str]) -> tuple[str, ...]:
    """Those of the paths that hold a Git LFS pointer instead of the content it stands for, in order."""
    entries = files.tree.entries
    return tuple(path for path in sorted(set(paths)) if _is_pointer(files, entries.get(path)))


def _is_pointer(files: CommitFiles, entry: Entry | None) -> bool:
    small = isinstance(entry, File) and len(_LFS_BEGINNING) < entry.size < LFS_LARGEST
    return small and isinstance(entry, File) and files.read(entry.digest).startswith(_LFS_BEGINNING)
