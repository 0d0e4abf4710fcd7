"""The processes of a handle as /proc shows them, and how they are ended. Linux only.

They are of the shim's session, carry its marker variable, descend from such, or share a pid namespace or a cgroup
with such. Without namespace and cgroup, what empties its environment and leaves its session and parents escapes.
"""

import asyncio
import os
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple

from penstock.engine.contracts import Handle
from penstock.runners import groups, records, shim

# Seconds after the KILL of a tree in which its shim may still write how the command took it, before it goes too.
SHIM_GRACE = 0.5

# Seconds between looks where there is nothing to wait on: they grow from the first to the second.
LOOK_SOON, LOOK_LATER = 0.005, 0.1

# Seconds that an exec may take until the process shows what it became; and the parent of all kernel threads.
_EXEC = 0.02
_KERNEL = 2
_EXITING = 0x4  # PF_EXITING of the kernel

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_CHUNK = 4096


class Seen(NamedTuple):
    """One process as /proc shows it. `start_time` is in clock ticks since the boot (field 22 of its stat).

    `image` (field 28, where its stack begins) is another after each exec: a shell that has just forked may swallow a
    signal meant for the program that it is about to become. `memory` is its resident set in bytes.
    """

    zombie: bool
    parent: int
    session: int
    exiting: bool
    start_time: int
    memory: int
    image: int


class Counter:
    """Tells the number that the kernel gave out last. Numbers are given out in order, and go round at the end."""

    def __init__(self) -> None:
        # Kept open: a look at it stands at the end of every process, and costs a tenth so.
        self._descriptor = os.open("/proc/loadavg", os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def last(self) -> int:
        return int(os.pread(self._descriptor, _CHUNK, 0).split()[-1])

    def numbers(self, handle: Handle, *, ended: bool) -> range | None:
        """The numbers given out since the shim's (without its own where it `ended`); None where that is not clear.

        Within a second they cannot have gone round. This makes the usual sweep after a short process a hundred times
        cheaper than a reading of all of /proc.
        """
        last = self.last()
        lived = time.clock_gettime(time.CLOCK_BOOTTIME) - handle.start_time / _TICKS
        return range(handle.pid + ended, last + 1) if lived < 1 and 0 <= last - handle.pid < 256 else None


@dataclass(frozen=True, slots=True)
class Tree:
    """By what the processes of a handle are told from all others.

    The session's number proves something only where it is `sure` that the shim has it, or had it until this moment:
    later it may be somebody else's. `ended` says that the shim is gone. `others` are shims of other handles, whose
    numbers are theirs beyond doubt. `clients` says that what is below the shim is the client of a container engine,
    which ends when its container does and is not told to.
    """

    handle: Handle
    counter: Counter
    sure: bool
    ended: bool = False
    contained: bool = False
    groups: tuple[str, ...] = ()
    others: Collection[int] = ()
    clients: bool = False

    def members(self) -> dict[int, Seen]:
        """The living processes, by their numbers, oldest first; without the shim where that is known to have ended.

        A TERM in this order reaches a shell before the child that it waits for, so that its trap decides.
        """
        numbers = self.counter.numbers(self.handle, ended=self.ended)
        pids = (pid for pid in (all_numbers() if numbers is None else numbers) if pid not in self.others)
        seen = {pid: process for pid in pids if (process := look(pid)) is not None}
        living = {pid: it for pid, it in seen.items() if self._possible(pid, it)}
        marker = shim.marker(self.handle.id, self.handle.record)
        grouped = {pid for group in self.groups for pid in groups.members(group)}
        ours = {
            pid
            for pid, it in living.items()
            if (self.sure and it.session == self.handle.pid) or pid in grouped or _marked(pid, marker)
        }
        if self.contained and (spaces := {space(pid) for pid in ours} - {None, space(os.getpid())}):
            ours |= {pid for pid in living if space(pid) in spaces}
        while more := {pid for pid, it in living.items() if it.parent in ours and pid not in ours}:
            ours |= more
        if numbers is not None:  # threads have numbers too, which only a list of all processes leaves out
            ours = {pid for pid in ours if not _is_thread(pid)}
        return {pid: living[pid] for pid in sorted(ours, key=lambda pid: (living[pid].start_time, pid))}

    def surely_empty(self) -> bool:
        """Whether nothing forked since the shim is left, but what is known to be another: cheap, and usual."""
        numbers = self.counter.numbers(self.handle, ended=self.ended)
        if numbers is None or any(pid not in self.others and exists(pid) for pid in numbers):
            return False
        # Forked meanwhile by one that had left when its number was looked at?
        return self.counter.last() < numbers.stop

    def outer(self, members: Mapping[int, Seen]) -> set[int]:
        """The processes that hold a namespace from outside: no signal but a last KILL is for them."""
        if not self.contained:
            return set()
        own = space(os.getpid())
        return {pid for pid in members if space(pid) in {None, own}}

    def last(self, members: Mapping[int, Seen]) -> set[int]:
        """The processes to be killed last, because they tell the ending: the shim, and a namespace's first process."""
        outer = self.outer(members)
        first = {pid for pid, it in members.items() if it.parent in outer or it.parent not in members}
        return {self.handle.pid, *outer, *(first if self.contained else ())}

    def hears(self, pid: int) -> bool:
        """Whether a TERM is for this process of the tree: of a client's, only a shim that would start another."""
        return not self.clients or (self.handle.kept and pid == self.handle.pid)

    def _possible(self, pid: int, it: Seen) -> bool:
        """Whether it could be one of ours: it lives, began after the shim, and is of nobody else's session."""
        if it.zombie or it.start_time < self.handle.start_time or pid == os.getpid():
            return False
        return it.session == self.handle.pid or it.session not in self.others


async def clear(tree: Tree, grace: float, shim_grace: float = SHIM_GRACE) -> None:
    """TERM to the tree, KILL after `grace` seconds, until nothing of it is left; the shim goes `shim_grace` later."""
    deadline = time.monotonic() + grace
    told: set[tuple[int, int]] = set()
    pause = LOOK_SOON
    # Twice: a process forked while the first look went on is older than the second.
    while members := tree.members() or tree.members():
        now = time.monotonic()
        if now >= deadline:
            _kill(tree, members, all_of_them=now >= deadline + shim_grace)
        else:
            _ask(tree, members, told)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LOOK_LATER)


def _ask(tree: Tree, members: Mapping[int, Seen], told: set[tuple[int, int]]) -> None:
    outer = tree.outer(members)
    for pid, seen in members.items():
        if (pid, seen.image) not in told and pid not in outer and tree.hears(pid):
            told.add((pid, seen.image))
            _send(pid, seen, signal.SIGTERM, signal.SIGCONT)


def _kill(tree: Tree, members: Mapping[int, Seen], *, all_of_them: bool) -> None:
    spared = set() if all_of_them else tree.last(members)
    with ExitStack() as stack:
        for group in tree.groups:
            stack.enter_context(groups.frozen(group))
        for pid, seen in members.items():
            if pid not in spared:
                _send(pid, seen, signal.SIGKILL)


def _send(pid: int, seen: Seen, *signals: signal.Signals) -> None:
    """Signal the very process that was seen; SIGCONT lets a stopped one hear the TERM."""
    with suppress(ProcessLookupError, PermissionError):
        for number in signals:
            if (now := look(pid)) is not None and now.start_time == seen.start_time:
                os.kill(pid, number)


def kill_for_memory(tree: Tree, limit: int) -> bool:
    """KILL the tree if it holds more than `limit` bytes; whether it did.

    What forked processes share is counted once (PSS) before anything is killed; that takes long, so it is asked for
    only where the plain sum is over the limit.
    """
    members = tree.members()
    if sum(seen.memory for seen in members.values()) <= limit or sum(map(_share, members)) <= limit:
        return False
    _kill(tree, members, all_of_them=False)
    return True


def kill_all(pids: Collection[int]) -> None:
    """KILL processes that were seen a moment ago."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _share(pid: int) -> int:
    for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


# --- one process --------------------------------------------------------------------------------------------------


def look(pid: int) -> Seen | None:
    """What /proc shows of a process, or None where there is none of this number."""
    stat = read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name in brackets may itself hold brackets and spaces: count from the last one.
    f = stat[stat.rindex(b")") + 2 :].split(None, 26)
    exiting = bool(int(f[6]) & _EXITING)
    return Seen(f[0] in b"ZX", int(f[1]), int(f[3]), exiting, int(f[19]), int(f[21]) * _PAGE, int(f[25]))


def has_number(handle: Handle) -> bool:
    """Whether the handle's number is still its shim's, be that a zombie."""
    seen = look(handle.pid)
    return seen is not None and seen.start_time == handle.start_time


def lives(handle: Handle) -> bool:
    seen = look(handle.pid)
    return seen is not None and not seen.zombie and seen.start_time == handle.start_time


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def space(pid: int) -> str | None:
    """The name of a process's pid namespace; None where that is not ours to know."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - read process by process
    except OSError:
        return None


def shim_of(pid: int, marker: str) -> records.Placed | None:
    """What the process is, if it is the shim with this marker: a session's leader that was given a description."""
    seen = look(pid)
    if seen is None or seen.session != pid or not _marked(pid, marker):
        return None
    arguments = read(f"/proc/{pid}/cmdline").split(b"\0")
    return next(filter(None, (records.read_description(os.fsdecode(argument)) for argument in arguments)), None)


def _is_thread(pid: int) -> bool:
    status = read(f"/proc/{pid}/status")
    return bool(status) and b"\nTgid:\t%d\n" % pid not in status


def marked(marker: str) -> list[int]:
    """The numbers of all living processes that carry this marker."""
    return [pid for pid in all_numbers() if _marked(pid, marker)]


def _marked(pid: int, marker: str) -> bool:
    return os.fsencode(f"\0{shim.MARKER}={marker}\0") in b"\0" + _environment(pid)


def _environment(pid: int) -> bytes:
    """The environment a process began with; nothing for a kernel thread, a zombie or what is not ours to read.

    In the midst of an exec a process shows neither environment nor arguments: it is asked again until it is through.
    One that is about to leave shows neither too, and leaves.
    """
    deadline = time.monotonic() + _EXEC
    while True:
        environment = read(f"/proc/{pid}/environ")
        if environment or read(f"/proc/{pid}/cmdline") or time.monotonic() > deadline:
            return environment
        seen = look(pid)
        if seen is None or seen.zombie or seen.exiting or seen.parent == _KERNEL:
            return b""
        os.sched_yield()


# --- all processes ------------------------------------------------------------------------------------------------


def all_numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - names are enough


def read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; nothing where it is not there or no longer ours to read.

    By the system's calls and not by `open`, which takes three times as long: this reads /proc, process by process.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        parts = [os.read(descriptor, _CHUNK)]
        while len(parts[-1]) >= _CHUNK:
            parts.append(os.read(descriptor, 16 * _CHUNK))
        return b"".join(parts)
    except (ProcessLookupError, PermissionError):
        return b""
    finally:
        os.close(descriptor)
