"""Who waits for a request, and the lock that makes one of them the coordinator of the home."""

import fcntl
import os
from pathlib import Path

from penstock.store.contract import Follower


def boot_id() -> str:
    """The machine's present boot; another one after a power cut."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, or None where it is gone or a zombie."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = line[line.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def myself() -> Follower:
    """The calling process as a follower."""
    return Follower(os.getpid(), start_time(os.getpid()) or 0, boot_id())


def is_alive(follower: Follower) -> bool:
    """Whether the very process still lives, not another one with its pid."""
    return follower.boot_id == boot_id() and start_time(follower.pid) == follower.start_time


class CoordinatorLock:
    """An exclusive `flock` on a file of the home. The kernel releases it when its holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it; True where we hold it now."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def poke(fifo: Path) -> None:
    """Wake the coordinator, if there is one; facts are in the store, this only saves it a wait."""
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, b"!")
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
