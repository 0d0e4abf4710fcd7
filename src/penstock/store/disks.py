"""The disk under the database: blocks kept for its writes, and what a write that failed means.

SQLite writes a commit to the write-ahead log first. That log has its blocks before they are needed, so that a step
which fills the disk fails alone, and how it failed can still be recorded. Between commands, when there is no log, a
file of the same size holds them.
"""

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from penstock.errors import DiskError

RESERVE = 8 << 20
"""Bytes kept for the write-ahead log: some thousand transitions."""

_MORE = 256 << 10
"""Bytes that the file between commands holds beside these, for what SQLite makes to open a database."""

_KEEP_SIZE = 1

_TROUBLES = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)


def keep_room(database: Path) -> None:
    """Give the write-ahead log its blocks; where the disk has no more, those of the reserve."""
    log = database.with_name(f"{database.name}-wal")
    if not _allocate(log) and release_room(database):
        _allocate(log)


def release_room(database: Path) -> bool:
    """Give back what `reserve_room` holds: even to open the database takes a little. False where nothing is held."""
    try:
        _reserve(database).unlink()
    except OSError:
        return False
    return True


def reserve_room(database: Path) -> None:
    """Hold the same number of blocks while there is no write-ahead log; fewer where the disk has not so many."""
    place = _reserve(database)
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return  # it is there already, or nothing can be written here
    try:
        whole = any(_allocated(descriptor, size) for size in (RESERVE + _MORE, RESERVE, RESERVE // 2))
    finally:
        os.close(descriptor)
    if not whole:
        place.unlink(missing_ok=True)


def trouble(error: BaseException, database: Path) -> DiskError | None:
    """The sentence for a database that cannot be written (or read) any more; None for every other error."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", 0)
    if not isinstance(cause, sqlite3.Error) or code & 0xFF not in _TROUBLES:
        return None
    remedy = {
        sqlite3.SQLITE_FULL: "make room, then penstock resume",
        sqlite3.SQLITE_READONLY: "make the disk writable again, then penstock resume",
    }.get(code & 0xFF, "see to the disk and run penstock doctor, then penstock resume")
    return DiskError(f"nothing can be recorded in {database} any more ({cause}); what runs goes on: {remedy}")


def _reserve(database: Path) -> Path:
    return database.with_name(f"{database.name}-reserve")


def _allocate(path: Path) -> bool:
    """Whether a file that is there has its blocks now, or cannot have any; False where the disk is full."""
    with suppress(OSError):
        # SQLite locks the database and never its log: to close a descriptor of the log lets no lock go.
        descriptor = os.open(path, os.O_WRONLY)
        try:
            return _allocated(descriptor, RESERVE)
        finally:
            os.close(descriptor)
    return True


def _allocated(descriptor: int, size: int) -> bool:
    """Allocate without a change of size, so that SQLite sees nothing of it; False where the disk is full."""
    import ctypes  # noqa: PLC0415 - only who writes needs it

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if call is None:
        return True
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(call(descriptor, _KEEP_SIZE, 0, size) == 0) or ctypes.get_errno() != errno.ENOSPC
