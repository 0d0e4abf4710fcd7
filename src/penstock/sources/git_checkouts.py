"""The person's own repository: where it is, what is uncommitted, and its working tree as a commit.

Nothing of it is ever written: not its index, its references or its objects. Its `.git/config` may come from
somebody else (an unpacked archive), so that no command named there is executed: filters apply as the person's
own settings have them.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.artifacts import digest_of
from penstock.commits import Commit
from penstock.errors import SourceError
from penstock.sources.git_commands import Git, explain
from penstock.sources.git_mirrors import alone, snapshot_folder

_LOCAL = frozenset({"local", "worktree"})
_ASKED = r"^(filter\..*|url\..*\.insteadof|remote\.origin\.url|remote\..*\.promisor)$"
_INDEXES = "penstock-indexes"
_STATUS = ("status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=all")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of this machine; `checkout` is its working tree, None for a bare one.

    `folder` is what git reads it by: the working tree, else the git folder. `common` is the folder that all its
    working trees share. `head` is the commit of HEAD and `branch` the branch that HEAD names, None where detached.
    """

    folder: Path
    git_folder: Path
    common: Path
    checkout: Path | None
    shallow: bool
    head: str
    branch: str | None


def find_repository(git: Git, path: Path) -> Repository:
    """The repository that a folder (or file) belongs to. Raises SourceError where there is none, or no commit."""
    if not exists(path):
        raise SourceError(f"{path} does not exist: give a folder inside a Git repository, or a clone URL")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    asked = ("--path-format=absolute", "--absolute-git-dir", "--git-common-dir", "--is-shallow-repository")
    head = ("HEAD", "--symbolic-full-name", "HEAD", "--show-toplevel")
    answer = git.run("rev-parse", *asked, *head, folder=folder, codes=None)
    lines = answer.lines()
    if len(lines) < 3:
        raise explain(answer.complaint, str(path))
    if len(lines) < 5:
        raise SourceError(f"{path} has no commits yet: commit something first (`git add -A`, `git commit`)")
    git_folder, common, shallow, sha, branch = lines[:5]
    checkout = Path(lines[5]) if len(lines) > 5 else None
    named = branch.removeprefix("refs/heads/") if branch.startswith("refs/heads/") else None
    return Repository(
        checkout or Path(git_folder), Path(git_folder), Path(common).resolve(), checkout, shallow == "true", sha, named
    )


def exists(path: Path) -> bool:
    """Whether there is something at a path that a person wrote, however odd (too long, below a file)."""
    try:
        return path.exists()
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Settings:
    """Those settings of a repository that matter here, as (scope, name, value)."""

    rows: tuple[tuple[str, str, str], ...]

    @property
    def origin(self) -> str | None:
        return next((value for _, name, value in self.rows if name == "remote.origin.url"), None)

    @property
    def rules(self) -> list[tuple[str, str]]:
        """The rewriting of URLs, as (base, prefix)."""
        found = ((name, value) for _, name, value in self.rows if name.endswith(".insteadof"))
        return [(name.removeprefix("url.").removesuffix(".insteadof"), value) for name, value in found]

    @property
    def partial(self) -> bool:
        """Whether objects may be missing because the clone left them at its origin."""
        return any(name.endswith(".promisor") for _, name, _ in self.rows)

    def harmless(self) -> list[tuple[str, str]]:
        """Settings to add so that no filter of the repository's own config is executed."""
        own = {name for scope, name, _ in self.rows if scope in _LOCAL and _is_filter(name)}
        usual = {name: value for scope, name, value in self.rows if scope not in _LOCAL}
        found = {name: usual.get(name, "") for name in own if not name.endswith(".required")}
        for driver in {name.rpartition(".")[0] for name in own}:
            # A filter that is required and has no command would fail instead of doing nothing.
            name = f"{driver}.required"
            off = any(not value for other, value in found.items() if other.startswith(f"{driver}."))
            found[name] = "false" if off else usual.get(name, "false")
        return sorted(found.items())


def _is_filter(name: str) -> bool:
    return name.startswith("filter.") and name.count(".") > 1


def read_settings(git: Git, folder: Path, variables: Mapping[str, str] | None = None) -> Settings:
    """The settings that git has in a folder: the person's, and the repository's if it is one."""
    asked = ("config", "--null", "--show-scope", "--get-regexp", _ASKED)
    answer = git.run(*asked, folder=folder, codes=(0, 1), variables=variables)
    pieces = answer.out.decode("utf-8", "surrogateescape").split("\0")
    pairs = zip(pieces[::2], pieces[1::2], strict=False)
    return Settings(tuple((scope, *_halves(row)) for scope, row in pairs))


def _halves(row: str) -> tuple[str, str]:
    name, newline, value = row.partition("\n")
    return name, value if newline else "true"


def uncommitted(git: Git, repository: Repository, variables: Mapping[str, str]) -> tuple[str, ...]:
    """The paths that differ from HEAD, for display; a new folder is one path that ends with a slash."""
    answer = git.run(*_STATUS, "--untracked-files=normal", folder=repository.folder, variables=variables)
    return tuple(sorted(path.decode("utf-8", "backslashreplace") for path in _paths(answer.out)))


def _paths(out: bytes) -> Iterator[bytes]:
    return (row[3:] for row in out.split(b"\0") if row)


def snapshot(git: Git, repository: Repository, mirror: Path, head: Commit, filters: Mapping[str, str]) -> str | None:
    """Write the working tree as a commit on top of `head` into the mirror; None where it is equal to `head`.

    The same working tree on the same commit gives the same object name.
    """
    with alone(mirror), snapshot_folder(mirror) as name:
        folder = Path(name).resolve()
        variables = {**filters, **_apart(folder, repository, mirror)}
        tree = _tree(git, repository, variables, lambda: Refreshed(repository, mirror).take(folder / "index"))
        if tree == _one(
            git.run("rev-parse", f"{head.sha}^{{tree}}", folder=repository.folder, variables=variables).out
        ):
            return None
        title = f"Working tree on {head.short}: {head.title}"
        command = ("commit-tree", tree, "-p", head.sha, "-m", title)
        sha = _one(git.run(*command, folder=repository.folder, variables=variables | _signature(head)).out)
        wanted = f"{sha}\n^{head.sha}\n".encode()
        pack = str(mirror.resolve() / "objects" / "pack" / "pack")
        git.run("pack-objects", "--quiet", "--revs", pack, folder=repository.folder, text=wanted, variables=variables)
        git.run("--git-dir=.", "update-ref", f"refs/snapshots/{sha}", sha, folder=mirror)
        return sha


def _one(out: bytes) -> str:
    return out.decode().strip()


def _apart(folder: Path, repository: Repository, mirror: Path) -> dict[str, str]:
    """Variables by which git writes index and objects into `folder` and reads the person's objects besides."""
    objects = folder / "objects"
    objects.mkdir()
    Refreshed(repository, mirror).give(folder / "index")
    others = [repository.common / "objects", mirror.resolve() / "objects"]
    return {
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_OPTIONAL_LOCKS": "1",  # a look at the files writes what it found into this index of ours
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(_quoted(str(other)) for other in others),
    }


class Refreshed:
    """The index of a checkout with what git learnt by looking at the files, kept in the mirror.

    Git reads every file whose size or time is not that of its index, and writes down what it found; the person's own
    index is never written, so that without this every snapshot would read them again. A new index of theirs counts.
    """

    def __init__(self, repository: Repository, mirror: Path) -> None:
        name = digest_of("checkout", [str(repository.folder), str(repository.git_folder)])[:20]
        self._theirs = repository.git_folder / "index"
        self._ours, self._note = mirror / _INDEXES / name, mirror / _INDEXES / f"{name}.of"

    def give(self, target: Path) -> None:
        """Copy the index to start from, with its time, by which git tells files that changed just now."""
        with suppress(FileNotFoundError):
            fresh = self._note.read_text() == self._stamp() and self._ours.exists()
            shutil.copy2(self._ours if fresh else self._theirs, target)
            return
        if self._theirs.exists():
            shutil.copy2(self._theirs, target)

    def take(self, index: Path) -> None:
        """Keep what a look at the files made of the index; nothing is lost where a kill comes between."""
        if not index.exists() or not self._theirs.exists():
            return
        self._ours.parent.mkdir(exist_ok=True)
        self._note.unlink(missing_ok=True)
        new = self._ours.with_suffix(".new")
        shutil.copy2(index, new)
        new.replace(self._ours)
        self._note.write_text(self._stamp())

    def _stamp(self) -> str:
        status = self._theirs.stat()
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tree(git: Git, repository: Repository, variables: Mapping[str, str], looked: Callable[[], None]) -> str:
    where = repository.folder
    plain = ("-c", "core.splitIndex=false")  # a shared index would lie in the person's own folder
    status = git.run(*plain, *_STATUS, "--untracked-files=all", folder=where, variables=variables)
    looked()
    # A path that ends with a slash is another repository inside this one, absent like a submodule.
    changed = b"".join(path + b"\0" for path in _paths(status.out) if not path.endswith(b"/"))
    update = (*plain, "update-index", "-z", "--add", "--remove", "--replace", "--stdin")
    git.run(*update, folder=where, text=changed, variables=variables)
    return _one(git.run(*plain, "write-tree", folder=where, variables=variables).out)


def _signature(head: Commit) -> dict[str, str]:
    found = {}
    for role in ("AUTHOR", "COMMITTER"):
        found[f"GIT_{role}_NAME"] = "Penstock"
        found[f"GIT_{role}_EMAIL"] = "snapshot@localhost"
        found[f"GIT_{role}_DATE"] = head.committed_at
    return found
