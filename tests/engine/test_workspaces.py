"""Workspaces hold exactly their tree, whatever the step before left, and are left alone where nothing changed."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.artifacts import Digest, File, Tree
from penstock.cache.disk import DiskCache
from penstock.engine.workspaces import SMALL_BYTES, SMALL_ENTRIES, Workspaces, state_of


class Room:
    """A workspace, its cache, and the trees that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.cache = DiskCache(folder / "cache")
        self.workspace = folder / "work" / "0"
        self.workspaces = Workspaces(self.cache, self.unknown)

    def unknown(self, digest: Digest) -> bytes:
        raise KeyError(digest)

    def tree(self, **files: str) -> Tree:
        added = {name: (self.cache.add_bytes(text.encode()), len(text)) for name, text in files.items()}
        return Tree({name.replace("__", "/"): File(digest, size) for name, (digest, size) in added.items()})

    def lay_out(self, tree: Tree) -> set[str]:
        asyncio.run(self.workspaces.lay_out(self.workspace, tree))
        return {str(p.relative_to(self.workspace)) for p in self.workspace.rglob("*")}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_an_untouched_workspace_is_left_as_it_is(room: Room) -> None:
    """Where a step changed nothing, the next one that reads the same finds the same files, and none was made anew."""
    tree = room.tree(a="1", b__c="2")
    room.lay_out(tree)
    before = state_of(room.workspace)
    assert room.lay_out(tree) == {"a", "b", "b/c"}
    assert state_of(room.workspace) == before
    assert room.lay_out(room.tree(a="1")) == {"a"}


def _write(workspace: Path) -> None:
    (workspace / "new").write_text("x")


def _rewrite_alike(workspace: Path) -> None:
    """As long as before, and with the same time of change."""
    status = (workspace / "a").stat()
    (workspace / "a").write_text("9")
    os.utime(workspace / "a", ns=(status.st_atime_ns, status.st_mtime_ns))


def _make_and_remove(workspace: Path) -> None:
    (workspace / "b" / "new").write_text("x")
    (workspace / "b" / "new").unlink()


def _forbid(workspace: Path) -> None:
    workspace.chmod(0o500)


def _remove(workspace: Path) -> None:
    (workspace / "a").unlink()


@pytest.mark.parametrize("change", [_write, _rewrite_alike, _make_and_remove, _forbid, _remove])
def test_what_a_step_changed_is_gone(room: Room, change: Callable[[Path], None]) -> None:
    """Anything that a step made, changed or took away in its workspace is as before for the next one."""
    tree = room.tree(a="1", b__c="2")
    room.lay_out(tree)
    change(room.workspace)
    assert room.lay_out(tree) == {"a", "b", "b/c"}
    assert (room.workspace / "a").read_text() == "1"
    assert os.access(room.workspace, os.W_OK)
    assert room.workspace.stat().st_mode & 0o700 == 0o700


def test_a_large_file_is_remembered_too(room: Room) -> None:
    """To look at a file takes as long whatever its size."""
    tree = room.tree(a="x" * (SMALL_BYTES + 1))
    room.lay_out(tree)
    before = state_of(room.workspace)
    room.lay_out(tree)
    assert state_of(room.workspace) == before


def test_a_large_tree_is_always_made_anew(room: Room) -> None:
    """Nothing is remembered of a tree with many files."""
    tree = room.tree(**{f"f{n}": "x" for n in range(SMALL_ENTRIES + 1)})
    room.lay_out(tree)
    (room.workspace / "new").write_text("x")
    assert len(room.lay_out(tree)) == len(tree)


def test_a_workspace_that_is_gone_is_made_again(room: Room) -> None:
    """A step may remove the very folder that it ran in."""
    tree = room.tree(a="1")
    room.lay_out(tree)
    (room.workspace / "a").unlink()
    room.workspace.rmdir()
    assert room.lay_out(tree) == {"a"}
