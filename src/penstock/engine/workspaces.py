"""The workspaces of a run's slots: each holds exactly what its step may read, and is left as it is where it still does.

Making files and folders is the dear part of a small step, so a workspace in which a step changed nothing serves the
next one that reads the same.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.artifacts import Digest, Tree
from penstock.cache.contract import Cache

SMALL_ENTRIES = 32
"""A tree of at most so many entries is remembered: to look at more takes longer than to lay them out again."""

SMALL_BYTES = 1 << 18
"""A tree of at most so many bytes is laid out at once: handing it to a thread would take longer."""

State = tuple[tuple[str, int, int, int, int, int], ...]
"""Path, inode, mode, size, and times of change of content and of anything, of each entry of a folder and of itself."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """What a workspace was made to hold, and how it stood then."""

    digest: Digest
    state: State


class Workspaces:
    """The workspaces of one run. `read` gives the content of the commit's files."""

    def __init__(self, cache: Cache, read: Callable[[Digest], bytes]) -> None:
        self._cache = cache
        self._read = read
        self._laid: dict[Path, _Laid] = {}

    async def lay_out(self, workspace: Path, tree: Tree) -> None:
        """Make a workspace hold exactly the tree. Raises BlobError, EngineError or OSError."""
        laid = self._laid.pop(workspace, None)
        if laid is not None and laid.digest == tree.digest and state_of(workspace) == laid.state:
            self._laid[workspace] = laid
            return
        if _is_there(workspace) or len(tree) > SMALL_ENTRIES or tree.size > SMALL_BYTES:
            await asyncio.to_thread(self._make, workspace, tree)
        else:
            self._make(workspace, tree)
        state = state_of(workspace) if len(tree) <= SMALL_ENTRIES else None
        if state is not None:
            self._laid[workspace] = _Laid(tree.digest, state)

    def _make(self, workspace: Path, tree: Tree) -> None:
        if _is_there(workspace):
            shutil.rmtree(workspace)
        workspace.mkdir(parents=True)
        if tree:
            self._cache.lay_out(tree, workspace, self._read)


def _is_there(folder: Path) -> bool:
    return folder.exists()


def state_of(folder: Path) -> State | None:
    """How a folder stands, beyond what a process can make look the same.

    None for more than a small tree has, and for one that cannot be looked at (any more).
    """
    found: list[tuple[str, int, int, int, int, int]] = []
    try:
        for path, status in _look(str(folder)):
            if len(found) > 2 * SMALL_ENTRIES:
                return None
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found.append((path, status.st_ino, status.st_mode, status.st_size, *times))
    except OSError:
        return None
    return tuple(sorted(found))


def _look(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    yield folder, os.stat(folder)  # noqa: PTH116 - before every step
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _look(entry.path)
            else:
                yield entry.path, entry.stat(follow_symlinks=False)
