"""Processes of this machine: each in a session of its own under the shell of `shim.py`, told apart by /proc.

Linux only: identity, adoption and the sweep of a tree read /proc. Containment is the session, the chain of parents
and a marker variable; what empties its environment and leaves its session and its parents escapes (a pid namespace
would hold it, and would attach where `_spawn` starts and where `tree` looks).
"""

import asyncio
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.errors import EngineError
from penstock.runners import shim

# Seconds that what a process leaves behind has between TERM and KILL. Short: nobody waits for it on purpose.
LEFTOVER_GRACE = 1.0

# Seconds after the KILL of a tree in which its shim may still write how the command took it, before it goes too.
SHIM_GRACE = 0.5

# Seconds between looks where there is nothing to wait on: they grow from the first to the second.
_LOOK_SOON, _LOOK_LATER = 0.005, 0.1

# Seconds that an exec may take until the process shows what it became; and the parent of all kernel threads.
_EXEC = 0.02
_KERNEL = 2

# Only ends of the file are read where they suffice: a record is shared by all processes of a slot.
_TAIL = 4096

_TICKS = os.sysconf("SC_CLK_TCK")
_CATCHABLE = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class ProcessRunner:
    """The `Runner` contract on this machine. Holds no descriptor and no thread between calls.

    Exit codes are the shell's `$?`; 129 to 192 are told as minus the signal (see `shim.py`). A record that another boot
    left tells nothing: what it says was written may not have reached the disk.
    """

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._strays = tuple(_strays())
        # Our own children that nobody has reaped: their number is theirs beyond doubt, which saves looking again.
        self._children: dict[int, int] = {}
        self._ends: dict[str, asyncio.Event] = {}

    def start(self, spec: ProcessSpec) -> Handle:
        """Place the process. Raises EngineError where the spec, its folders or the machine do not allow it."""
        shim.check(spec)
        with _opened(spec, spec.log) as log, _opened(spec, spec.record) as record:
            placed = shim.place(spec, os.fstat(log).st_size)
            try:
                pid = _spawn(shim.launch(spec, placed), log, record, self._strays)
            except OSError as error:
                raise EngineError(f"process {spec.id} cannot be started: {_reason(error)}") from None
        handle = self._handle(placed, spec.record, pid, _look(pid))
        self._children[pid] = handle.start_time
        return handle

    def find(self, spec_id: str, record: Path) -> Handle | None:
        """The handle of a process whose start was never recorded by us; None where its shim never stood.

        Its start line names the process; where that was not yet written, the marker in its environment does.
        """
        marker = shim.marker(spec_id, str(record.absolute()))
        notes = shim.read_notes(_read(record), spec_id)
        if notes.placed is not None and notes.pid is not None:
            seen = _look(notes.pid) if _shim_of(notes.pid, marker) else None
            return self._handle(notes.placed, record, notes.pid, seen)
        for pid in _all_numbers():
            placed = _shim_of(pid, marker)
            if placed is not None:
                return self._handle(placed, record, pid, _look(pid))
        return None

    def alive(self, handle: Handle) -> bool:
        """Whether the shim of the handle lives: same boot, same number, same start time, and not a zombie."""
        return handle.boot_id == self._boot_id and _lives(handle)

    def starts(self, handle: Handle) -> int:
        """How often the command was started so far; more than once only for a kept process."""
        return _notes(handle).starts

    def last_exit(self, handle: Handle) -> int | None:
        """The exit code of the start that ended last (negative: minus the signal), or None before the first."""
        return _notes(handle).last_code

    async def wait(self, handle: Handle) -> Ending:
        """Wait for the end of the shim, then end what it left, so that the range of the log is final."""
        here = handle.boot_id == self._boot_id
        watched = here and await _gone(handle, sure=self._is_child(handle))
        if (ending := self._ends.get(handle.id)) is not None:
            await ending.wait()
        if here and (watched or _notes(handle).log_end is None):
            await _clear(handle, LEFTOVER_GRACE, sure=watched, ended=True)
        self._reap(handle)
        return _settle(handle, here=here)

    async def end(self, handle: Handle, grace: float) -> None:
        """End the whole tree: TERM, `grace` seconds, KILL, looked for again until nothing of it is left."""
        shim.ask_to_stop(handle.folder)
        if handle.boot_id != self._boot_id:
            return
        over = self._ends.setdefault(handle.id, asyncio.Event())
        try:
            await self._stands(handle)
            await _clear(handle, grace, sure=_has_number(handle))
            self._reap(handle)
        finally:
            over.set()
            self._ends.pop(handle.id, None)

    async def _stands(self, handle: Handle) -> None:
        """Wait until a shim that was just started can take a TERM (milliseconds; at most SHIM_GRACE)."""
        deadline = time.monotonic() + SHIM_GRACE
        while self.alive(handle) and _notes(handle).placed is None and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SOON)

    def _is_child(self, handle: Handle) -> bool:
        return self._children.get(handle.pid) == handle.start_time

    def _reap(self, handle: Handle) -> None:
        """Take the zombie of our own child away, so that its number becomes free; others' are none of ours."""
        if self._is_child(handle):
            with suppress(ChildProcessError):
                if os.waitpid(handle.pid, os.WNOHANG) == (0, 0):
                    return
            del self._children[handle.pid]

    def _handle(self, placed: shim.Placed, record: Path, pid: int, seen: "_Seen | None") -> Handle:
        """A handle of a shim; one that is no longer to be seen has start time 0, and so is never alive."""
        return Handle(
            id=placed.id,
            pid=pid,
            start_time=seen.start_time if seen is not None else 0,
            boot_id=self._boot_id,
            log=placed.log,
            log_start=placed.log_start,
            record=str(record.absolute()),
            kept=placed.kept,
            folder=placed.folder,
        )


# --- placing ------------------------------------------------------------------------------------------------------


def _spawn(launch: shim.Launch, log: int, record: int, strays: Iterable[int]) -> int:
    """Spawn the shim in a session of its own; it has nothing of ours but the descriptors named here."""
    with _unnamed(launch.text) as text:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
            (os.POSIX_SPAWN_DUP2, record, shim.RECORD_DESCRIPTOR),
            (os.POSIX_SPAWN_CLOSE, shim.TEXT_DESCRIPTOR),
            # Last, because meanwhile one of these numbers may be that of our log.
            *((os.POSIX_SPAWN_CLOSE, stray) for stray in strays),
        ]
        if text is not None:
            actions[4] = (os.POSIX_SPAWN_DUP2, text, shim.TEXT_DESCRIPTOR)
        return os.posix_spawn(
            "/bin/sh",
            launch.argv,
            launch.environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            # What we ignore (SIGPIPE, or SIGHUP under nohup) would be ignored by the process too.
            setsigdef=_CATCHABLE,
        )


def _strays() -> Iterator[int]:
    """Descriptors that whoever started us left open for our children too, say a pipe of a CI server.

    Looked up once: what is opened in Python later closes itself on exec.
    """
    ours = {0, 1, 2, shim.TEXT_DESCRIPTOR, shim.RECORD_DESCRIPTOR}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are enough
        with suppress(OSError):
            if int(name) not in ours and os.get_inheritable(int(name)):
                yield int(name)


@contextmanager
def _opened(spec: ProcessSpec, path: Path) -> Iterator[int]:
    """A descriptor that appends to the file. Opening an existing file costs 3 us, so none is kept open for later."""
    try:
        descriptor = _high(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise EngineError(f"process {spec.id} cannot be started: {path} cannot be opened: {_reason(error)}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _unnamed(text: bytes | None) -> Iterator[int | None]:
    """A descriptor of a file without a name that holds the text."""
    if text is None:
        yield None
        return
    descriptor = _high(os.memfd_create("penstock"))
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text)
        yield descriptor
    finally:
        os.close(descriptor)


def _high(descriptor: int) -> int:
    """The same file at a number that none of the shim's own descriptors has."""
    if descriptor > shim.RECORD_DESCRIPTOR:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, shim.RECORD_DESCRIPTOR + 1)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno == errno.E2BIG:
        return "its variables are too large for the operating system; shorten them"
    return (error.strerror or str(error)).lower()


# --- waiting ------------------------------------------------------------------------------------------------------


async def _gone(handle: Handle, *, sure: bool) -> bool:
    """Wait while the shim lives; whether it was there (a zombie will do) when we came.

    `sure` says that the number is the shim's, which is then not looked up.
    """
    try:
        descriptor = os.pidfd_open(handle.pid)
    except ProcessLookupError:
        return False
    except OSError:
        return await _gone_by_looking(handle)
    try:
        there = sure or _has_number(handle)
        if there:
            await _readable(descriptor)
    finally:
        os.close(descriptor)
    return there


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


async def _gone_by_looking(handle: Handle) -> bool:
    """The same where the kernel gives no pidfd (before Linux 5.3, some sandboxes): seen up to 0.1 s late."""
    there, pause = _has_number(handle), _LOOK_SOON
    while _lives(handle):
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LOOK_LATER)
    return there


def _notes(handle: Handle) -> shim.Notes:
    tail = _read(handle.record, last=_TAIL)
    data = tail if b"\nstart %s " % handle.id.encode() in tail else _read(handle.record)
    return shim.read_notes(data, handle.id)


def _settle(handle: Handle, *, here: bool) -> Ending:
    """How it ended by its record, which is told the end of its log if nobody has settled it before."""
    notes = _notes(handle)
    log_end = notes.log_end
    if log_end is None:
        log_end = notes.next_log_start if notes.next_log_start is not None else _size(handle.log)
        log_end = max(log_end, handle.log_start)
        # A full disk must not hide the ending: who asks again then measures the log again.
        with suppress(OSError):
            _append(handle.record, shim.settled_line(handle.id, log_end))
    return Ending(notes.exit_code if here else None, log_end)


def _append(path: str, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path costs more than the call, at every end
    except FileNotFoundError:
        return 0


def _read(path: Path | str, *, last: int | None = None) -> bytes:
    """The bytes of a file, or its last ones; nothing where it is not there or no longer ours to read.

    By the system's calls and not by `open`, which takes three times as long: this reads /proc, process by process.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        if last is not None:
            os.lseek(descriptor, max(0, os.fstat(descriptor).st_size - last), os.SEEK_SET)
        parts = [os.read(descriptor, _TAIL)]
        while len(parts[-1]) >= _TAIL:
            parts.append(os.read(descriptor, 16 * _TAIL))
        return b"".join(parts)
    except (ProcessLookupError, PermissionError):
        return b""
    finally:
        os.close(descriptor)


# --- the tree -----------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """One process as /proc shows it. `start_time` is in clock ticks since the boot (field 22 of its stat).

    `image` (field 28, where its stack begins) is another after each exec: a shell that has just forked may swallow a
    signal meant for the program that it is about to become.
    """

    zombie: bool
    parent: int
    session: int
    start_time: int
    image: int


def tree(handle: Handle, *, sure: bool, ended: bool = False) -> dict[int, _Seen]:
    """The living processes of a handle, by their numbers; without its shim where that is known to have `ended`.

    They are of its session, or carry its marker, or descend from such. The session's number proves something only
    where it is `sure` that the shim has it, or had it until this moment: later it may be somebody else's.
    """
    marker = shim.marker(handle.id, handle.record)
    seen = {pid: process for pid in _numbers(handle, ended=ended) if (process := _look(pid)) is not None}
    living = {
        pid: process
        for pid, process in seen.items()
        if not process.zombie and process.start_time >= handle.start_time and pid != os.getpid()
    }
    ours = {pid for pid, it in living.items() if (sure and it.session == handle.pid) or _marked(pid, marker)}
    while more := {pid for pid, it in living.items() if it.parent in ours and pid not in ours}:
        ours |= more
    return {pid: living[pid] for pid in ours}


async def _clear(handle: Handle, grace: float, *, sure: bool, ended: bool = False) -> None:
    """TERM to the tree, KILL after `grace` seconds, until nothing of it is left; the shim goes last."""
    deadline = time.monotonic() + grace
    told: set[tuple[int, int]] = set()
    pause = _LOOK_SOON
    # Twice: a process forked while the first look went on is older than the second.
    while members := tree(handle, sure=sure, ended=ended) or tree(handle, sure=sure, ended=ended):
        now = time.monotonic()
        for pid, seen in members.items():
            if now >= deadline and (pid != handle.pid or now >= deadline + SHIM_GRACE):
                _send(pid, seen, signal.SIGKILL)
            elif (pid, seen.image) not in told:
                told.add((pid, seen.image))
                _send(pid, seen, signal.SIGTERM, signal.SIGCONT)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LOOK_LATER)


def _send(pid: int, seen: _Seen, *signals: signal.Signals) -> None:
    """Signal the very process that was seen; SIGCONT lets a stopped one hear the TERM."""
    with suppress(ProcessLookupError, PermissionError):
        for number in signals:
            now = _look(pid)
            if now is not None and now.start_time == seen.start_time:
                os.kill(pid, number)


def _numbers(handle: Handle, *, ended: bool) -> Iterable[int]:
    """The numbers among which a tree is to be sought: all, or those given out since it started where that is sure.

    Numbers are given out in order and the kernel tells the last one; within a second they cannot have gone round.
    This makes the usual sweep after a short process a hundred times cheaper than a reading of all of /proc.
    """
    lived = time.clock_gettime(time.CLOCK_BOOTTIME) - handle.start_time / _TICKS
    last = int(_read("/proc/loadavg").split()[-1])
    if lived < 1 and 0 <= last - handle.pid < 256:
        return range(handle.pid + ended, last + 1)
    return _all_numbers()


def _all_numbers() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - names are enough


def _look(pid: int) -> _Seen | None:
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name in brackets may itself hold brackets and spaces: count from the last one.
    fields = stat[stat.rindex(b")") + 2 :].split(None, 26)
    return _Seen(fields[0] in b"ZX", int(fields[1]), int(fields[3]), int(fields[19]), int(fields[25]))


def _has_number(handle: Handle) -> bool:
    seen = _look(handle.pid)
    return seen is not None and seen.start_time == handle.start_time


def _lives(handle: Handle) -> bool:
    seen = _look(handle.pid)
    return seen is not None and not seen.zombie and seen.start_time == handle.start_time


def _marked(pid: int, marker: str) -> bool:
    return os.fsencode(f"\0{shim.MARKER}={marker}\0") in b"\0" + _environment(pid)


def _environment(pid: int) -> bytes:
    """The environment a process began with; nothing for a kernel thread, a zombie or what is not ours to read.

    In the midst of an exec a process shows neither environment nor arguments: it is asked again until it is through.
    """
    deadline = time.monotonic() + _EXEC
    while True:
        environment = _read(f"/proc/{pid}/environ")
        if environment or _read(f"/proc/{pid}/cmdline") or time.monotonic() > deadline:
            return environment
        seen = _look(pid)
        if seen is None or seen.zombie or seen.parent == _KERNEL:
            return b""
        os.sched_yield()


def _shim_of(pid: int, marker: str) -> shim.Placed | None:
    """What the process is, if it is the shim with this marker: a session's leader that was given a description."""
    seen = _look(pid)
    if seen is None or seen.session != pid or not _marked(pid, marker):
        return None
    arguments = _read(f"/proc/{pid}/cmdline").split(b"\0")
    return next(filter(None, (shim.read_description(os.fsdecode(argument)) for argument in arguments)), None)
