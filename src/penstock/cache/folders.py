"""Folders as the cache meets them: what a pattern names below a root, and files, links and folders written anew.

Links are never followed, on the way in or out. Paths are strings here, since a path object costs more than the look
at a small file.
"""
# ruff: noqa: PTH102, PTH108, PTH115, PTH211

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from penstock.artifacts import Link
from penstock.cache.contract import CaptureError, leaves
from penstock.errors import EngineError
from penstock.patterns import has_wildcard, matches, parts_of

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

T = TypeVar("T")


# --- reading folders -----------------------------------------------------------------------------------------------


@contextmanager
def regular(path: str, name: str) -> Generator[tuple[int, os.stat_result]]:
    """An open regular file and its status; never waits for a fifo and never follows a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _unkeepable(name, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CaptureError(f"{name!r} is no regular file, so it cannot be kept: remove it or name other files")
        yield descriptor, status
    finally:
        os.close(descriptor)


def named_by(root: str, pattern: str) -> Iterator[tuple[str, int]]:
    """Paths below the root that a pattern names, with their type bits; links stand for themselves."""
    start = _literal(pattern)
    if start is None:
        return
    for path, mode in _walk(root, pattern, start):
        if matches(pattern, path):
            if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
                raise CaptureError(f"{path!r} is a socket, fifo or device, so it cannot be kept: remove it")
            yield path, mode


def _literal(pattern: str) -> str | None:
    """The path up to a pattern's first wildcard, where a search for it begins; None if it cannot name anything."""
    parts = parts_of(pattern)
    if ".." in parts:
        return None
    fixed = next((i for i, part in enumerate(parts) if has_wildcard(part)), len(parts))
    return "/".join(parts[:fixed])


def _walk(root: str, pattern: str, start: str) -> Iterator[tuple[str, int]]:
    """All that lies at or below a start, folders excepted."""
    mode = _mode_below(root, pattern, start)
    if mode is not None and not stat.S_ISDIR(mode):
        yield start, mode
    folders = [start] if mode is not None and stat.S_ISDIR(mode) else []
    while folders:
        folder = folders.pop()
        for path, kind in _list(root, folder):
            if stat.S_ISDIR(kind):
                folders.append(path)
            else:
                yield path, kind


def _mode_below(root: str, pattern: str, start: str) -> int | None:
    """The type bits of a path, None where nothing is; refuses a link on the way, or at its end if that is a folder."""
    parts = start.split("/") if start else []
    mode: int | None = stat.S_IFDIR
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        try:
            mode = os.lstat(f"{root}/{path}").st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unkeepable(path, error) from error
        if stat.S_ISLNK(mode) and not matches(pattern, path):
            raise CaptureError(f"{pattern!r} leads through the link {path!r}, and links are not followed: use a folder")
    return mode


def _list(root: str, folder: str) -> list[tuple[str, int]]:
    prefix = f"{folder}/" if folder else ""
    try:
        with os.scandir(f"{root}/{folder}") as found:
            return [(prefix + entry.name, _kind(entry)) for entry in found]
    except OSError as error:
        raise _unkeepable(folder or ".", error) from error


def _kind(entry: os.DirEntry[str]) -> int:
    """The type bits of a folder's entry; the folder's listing knows the usual ones without a look at the file."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else stat.S_IFSOCK


def read_link(root: str, path: str) -> Link:
    try:
        target = os.readlink(f"{root}/{path}")
    except OSError as error:
        raise _unkeepable(path, error) from error
    if leaves(path, target):
        raise CaptureError(
            f"the link {path!r} leads to {target!r}, which may lie outside: link to a path inside instead"
        )
    return Link(target)


def _unkeepable(path: str, error: OSError) -> CaptureError:
    return CaptureError(f"{path!r} cannot be read, so it cannot be kept: {_reason(error)}")


# --- writing folders -----------------------------------------------------------------------------------------------


@contextmanager
def laying_out(target: object) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(f"{target} cannot be written", error) from error


@contextmanager
def new_file(path: str, *, executable: bool) -> Generator[int]:
    """A new file in the place of whatever file or link was there; removed again where writing it fails."""
    with laying_out(path):
        descriptor = _replacing(path, lambda: os.open(path, _NEW, 0o755 if executable else 0o644))
        try:
            yield descriptor
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        finally:
            os.close(descriptor)


def _replacing(path: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except FileExistsError:
        os.unlink(path)
        return make()


def make_link(path: str, target: str) -> None:
    with laying_out(path):
        _replacing(path, lambda: os.symlink(target, path))


def make_folders(root: str, folder: str, made: set[str]) -> None:
    """Make a folder and those above it, each a real one: through a link we would write elsewhere."""
    if not folder or folder in made:
        return
    make_folders(root, folder.rpartition("/")[0], made)
    path = f"{root}/{folder}"
    with laying_out(path):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise EngineError(f"a file or link stands at {path}, where a folder is needed: remove it") from None
    made.add(folder)


def disk_error(trouble: str, error: OSError) -> EngineError:
    """The sentence of a disk that did not do its work; `trouble` says what that made impossible."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return EngineError(f"{trouble} because the disk is full: free some space, or run penstock gc")
    return EngineError(f"{trouble}: {_reason(error)}")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
