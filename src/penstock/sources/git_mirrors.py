"""Bare mirrors: one per project, in which every location of the project has references of its own.

`refs/from/<location>/heads|tags|remotes/*` and `HEAD` are what a location showed last; `kept/*` are commits that it
has under no reference. `refs/snapshots/*` are working trees. Nothing here is ever pruned by another location.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.artifacts import digest_of
from penstock.commits import Address, Reach
from penstock.errors import EngineError, SourceError
from penstock.sources.git_commands import Answer, Git

if TYPE_CHECKING:
    import psutil

_LOCK = "penstock-lock"
_STATES = "penstock-seen"
_SNAPSHOT = "penstock-snapshot-"
_NEW = ".new-"
_PATIENCE = 5.0
_REMOTE_HEAD = "refs/remotes/origin/HEAD"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a location shows: its references, the branch that HEAD names, and its own default branch."""

    refs: Mapping[str, str]
    head: str | None
    default: str | None

    def state(self) -> "State":
        rows = {"refs": dict(self.refs), "head": self.head, "default": self.default}
        return State(str(digest_of("references", rows)), self.head, self.default)


@dataclass(frozen=True, slots=True)
class State:
    """What a mirror holds of a location: the digest of what was seen, HEAD's branch, the default branch."""

    seen: str
    head: str | None
    default: str | None


def space(location: str) -> str:
    """The beginning of the references that belong to a location."""
    return f"refs/from/{_short(location)}"


def _short(text: str) -> str:
    return digest_of("location", text)[:20]


class Mirrors:
    """The mirrors in a folder, which is made when it is needed."""

    def __init__(self, git: Git, folder: Path) -> None:
        self._git, self._folder = git, folder

    def bring(self, address: Address, identity: str, seen: Seen, first: Callable[[], None] | None = None) -> Path:
        """Make the mirror of a project hold what an address shows; quick where it does already.

        `first` is done before a fetch (a shallow clone's origin is brought near). Raises SourceError where the
        fetch fails. Safe beside other processes, and after any of them was killed.
        """
        mirror = self._folder / f"{digest_of('mirror', identity)[:20]}.git"
        if self._is_current(mirror, address, seen):
            with suppress(FileNotFoundError):
                os.utime(_state_file(mirror, address.url))  # by which `discard` knows what is used
            return mirror
        if not (mirror / "HEAD").exists():
            self._make(mirror, next(iter(seen.refs.values())))
        if first is not None:
            first()
        with alone(mirror):
            if not self._is_current(mirror, address, seen):
                self._fetch(mirror, address, _refspecs(address, seen))
                _write_state(_state_file(mirror, address.url), seen.state())
        return mirror

    def state(self, mirror: Path, location: str) -> State:
        """What was brought of a location. Raises SourceError where nothing was."""
        state = _read_state(_state_file(mirror, location))
        if state is None:
            raise SourceError(f"the mirror of {location} is gone: run the command again")
        return state

    def keep(self, mirror: Path, address: Address, sha: str) -> bool:
        """Fetch one commit by its full name, which no reference leads to; False where the address refuses it."""
        with alone(mirror):
            try:
                self._fetch(mirror, address, [f"{sha}:{space(address.url)}/kept/{sha}"], prune=False)
            except SourceError:
                return False  # the caller says that there is no such commit, which is what the person needs to know
        return True

    def discard(self, keep: Collection[Path], before: float) -> int:
        """Remove the mirrors outside `keep` that nobody brought near since `before` (epoch seconds); how many.

        What somebody writes to at this moment stays.
        """
        kept = {mirror.absolute() for mirror in keep}
        found = [mirror for mirror in self._folder.glob("*.git") if mirror.absolute() not in kept]
        return sum(self._discard(mirror, before) for mirror in found if _last_seen(mirror) < before)

    def _discard(self, mirror: Path, before: float) -> bool:
        gone = self._folder / f"{_NEW}gone-{mirror.name}"  # by its name the next `_make` clears it up after a kill
        with suppress(BlockingIOError), _locked(mirror / _LOCK, wait=False):
            if _last_seen(mirror) < before:
                shutil.rmtree(gone, ignore_errors=True)
                mirror.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
                return True
        return False

    def _is_current(self, mirror: Path, address: Address, seen: Seen) -> bool:
        return _read_state(_state_file(mirror, address.url)) == seen.state() and (mirror / "HEAD").exists()

    def _make(self, mirror: Path, oid: str) -> None:
        make_folder(self._folder)
        with _locked(self._folder / ".lock"):
            for left in self._folder.glob(f"{_NEW}*"):
                shutil.rmtree(left)  # of a process that was killed here: whoever lives holds the lock
            if (mirror / "HEAD").exists():
                return
            if mirror.exists():
                shutil.rmtree(mirror)
            new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._folder))
            kind = "sha256" if len(oid) == 64 else "sha1"
            self._git.run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", ".", folder=new)
            (new / _STATES).mkdir()
            new.rename(mirror)

    def _fetch(self, mirror: Path, address: Address, refspecs: list[str], *, prune: bool = True) -> Answer:
        command = (
            *("--git-dir=.", "-c", "fetch.writeCommitGraph=false", "-c", "fetch.pruneTags=false"),
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force"),
            *(("--prune",) if prune else ()),
            *("--", address.url, *refspecs),
        )
        answer = self._git.reach(address, *command, folder=mirror)
        if "shallow roots are not allowed" in answer.complaint:
            raise SourceError(
                f"{address.url} is a shallow clone whose history could not be completed, and versions count "
                "commits: run `git fetch --unshallow` there"
            )
        return answer


def _refspecs(address: Address, seen: Seen) -> list[str]:
    mine = space(address.url)
    found = [f"+refs/heads/*:{mine}/heads/*", f"+refs/tags/*:{mine}/tags/*"]
    if "HEAD" in seen.refs:
        found.append(f"+HEAD:{mine}/HEAD")
    if address.reach is Reach.FOLDER:
        found += [f"+refs/remotes/origin/*:{mine}/remotes/*", f"^{_REMOTE_HEAD}"]
    return found


# --- what a location shows -------------------------------------------------------------------------------------------


def seen_afar(git: Git, address: Address, folder: Path) -> Seen:
    """What a clone URL shows. Raises SourceError where it cannot be read or is empty."""
    asked = ("ls-remote", "--symref", "--", address.url, "HEAD", "refs/heads/*", "refs/tags/*")
    refs: dict[str, str] = {}
    head = None
    for line in git.reach(address, *asked, folder=folder).lines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            head = value.removeprefix("ref: refs/heads/")
        elif not value.startswith("ref: ") and not name.endswith("^{}"):
            refs[name] = value
    if not refs:
        raise SourceError(f"{address.url} has no commits yet: commit and push something first")
    return Seen(refs, head, head)


def seen_here(git: Git, folder: Path, head: tuple[str, str | None], *, bare: bool) -> Seen:
    """What a repository of this machine shows; `head` is its HEAD: object name and branch."""
    sha, branch = head
    form = "--format=%(objectname) %(refname) %(symref)"
    refs, default = {"HEAD": sha}, branch if bare else None
    for line in git.run("for-each-ref", form, "refs/heads", "refs/tags", "refs/remotes/origin", folder=folder).lines():
        oid, name, target = line.split(" ", 2)
        if name == _REMOTE_HEAD:
            default = target.removeprefix("refs/remotes/origin/") or default
        else:
            refs[name] = oid
    return Seen(refs, branch, default)


# --- states and locks ------------------------------------------------------------------------------------------------


def _state_file(mirror: Path, location: str) -> Path:
    return mirror / _STATES / f"{_short(location)}.json"


def _read_state(file: Path) -> State | None:
    """The state in a file, or None: it only saves a fetch, so that a torn one is as good as none."""
    try:
        return State(**json.loads(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def _write_state(file: Path, state: State) -> None:
    file.parent.mkdir(exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(asdict(state)))
    new.replace(file)


def make_folder(folder: Path) -> None:
    """Make the folder of the mirrors. Raises EngineError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> EngineError:
    return EngineError(f"the mirrors in {folder} cannot be written: {error.strerror}: check the folder")


def _last_seen(mirror: Path) -> float:
    """When a location was last brought near, in seconds since the epoch."""
    files = [mirror, *(mirror / _STATES).glob("*.json")]
    return max((status.st_mtime for status in map(_status, files) if status is not None), default=0.0)


def _status(file: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return file.stat()
    return None


@contextmanager
def _locked(file: Path, *, wait: bool = True) -> Iterator[int]:
    # Python's descriptors close on exec: a git that outlives us never holds the lock.
    try:
        held = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(file.parent, error) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield held
    finally:
        os.close(held)


@contextmanager
def alone(mirror: Path) -> Iterator[None]:
    """Be the only one who writes to a mirror; waits for others.

    The lock's file is not empty while somebody writes, so that the next holder knows of one who was killed
    and clears up what he left.
    """
    with _locked(mirror / _LOCK) as held:
        if os.read(held, 1):
            _repair(mirror)
        os.pwrite(held, b"1", 0)
        yield
        os.ftruncate(held, 0)


def snapshot_folder(mirror: Path) -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder in a mirror, cleared up even after a kill; only for who is `alone`."""
    return tempfile.TemporaryDirectory(prefix=_SNAPSHOT, dir=mirror)


def _repair(mirror: Path) -> None:
    _end_orphans(mirror)
    for left in [*mirror.glob("*.lock"), *(mirror / "refs").rglob("*.lock")]:
        left.unlink(missing_ok=True)
    for pattern in ("pack/tmp_*", "pack/.tmp-*", "pack/*.keep", "??/tmp_obj_*"):
        for left in (mirror / "objects").glob(pattern):
            left.unlink(missing_ok=True)
    for folder in mirror.glob(f"{_SNAPSHOT}*"):
        shutil.rmtree(folder)


def _end_orphans(mirror: Path) -> None:
    """End a fetch that goes on although who started it was killed; it leads a process group of its own."""
    import psutil  # noqa: PLC0415 (only after a kill)

    found = [p for p in psutil.process_iter(["cwd", "cmdline"]) if _is_fetch(p.info, mirror)]
    orphans = [process for leader in found for process in _family(leader)]
    for orphan in orphans:
        with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
            orphan.kill()
    # Killed is as good as gone; an init that does not collect its dead must not hold us up.
    psutil.wait_procs(orphans, timeout=_PATIENCE)


def _family(leader: "psutil.Process") -> list["psutil.Process"]:
    import psutil  # noqa: PLC0415 (see above)

    try:
        return [*leader.children(recursive=True), leader]
    except psutil.NoSuchProcess:
        return []


def _is_fetch(info: Mapping[str, object], mirror: Path) -> bool:
    words = info["cmdline"]
    return info["cwd"] == str(mirror.resolve()) and isinstance(words, list) and "fetch" in words
