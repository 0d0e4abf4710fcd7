"""Processes of this machine: each in a session of its own under the shell of `shim.py`, told apart by /proc.

Linux only. What holds a tree together is found in `containment.py`; how one is ended stands in `trees.py`.
"""

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.errors import EngineError
from penstock.runners import groups, records, shim, trees
from penstock.runners.containment import SESSION, Containment, find_containment
from penstock.runners.records import Notes, Placed, Terms

# Seconds that what a process leaves behind has between TERM and KILL. Short: nobody waits for it on purpose.
LEFTOVER_GRACE = 1.0

# Seconds in which a masker must have written its last bytes after all that wrote to it has ended.
MASKER_GRACE = 10.0

# Seconds between looks at what a tree holds, where no cgroup enforces its limit.
_MEMORY_LOOK = 0.2

# Seconds that the machine's count of OOM kills is taken as known, because reading it costs as much as a start.
_COUNT_KNOWN = 1.0

# Bytes that a record holds of one process at most, but for a kept one and an absurd path.
_OWN_LINES = 16384

_PASSED = Notes(starts=1, last_code=0, exit_code=0)
_CATCHABLE = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
MASKER = (sys.executable, "-I", str(Path(__file__).with_name("masking.py")))


class _Child(NamedTuple):
    """One of our own children that nobody has reaped: its number is its own beyond doubt, which saves looking again.

    `offset` is the byte of the record where its lines begin; `masker` is the number of the process that masks it.
    """

    start_time: int
    offset: int
    terms: Terms
    masker: int | None


class ProcessRunner:
    """The `Runner` contract on this machine. Keeps descriptors of record files, and no thread, between calls.

    Exit codes are the shell's `$?`; 129 to 192 are told as minus the signal (see `records.py`). A record that another
    boot left tells nothing: what it says was written may not have reached the disk. `containment` says what to use;
    by default the best is found by trying. `masker` is the argv that secrets are masked with.
    """

    def __init__(
        self,
        find: Callable[[], Containment] = find_containment,
        memory_base: Callable[[], Path | None] = groups.memory_base,
        masker: Sequence[str] = MASKER,
    ) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._strays = tuple(_strays())
        self._find_containment, self._find_memory_base = find, memory_base
        self._masker = tuple(masker)
        self._counter = trees.Counter()
        self._files = records.Files()
        self._children: dict[int, _Child] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._oom_kills = (-_COUNT_KNOWN, 0)

    @property
    def containment(self) -> str:
        """What holds the processes that ask to be contained, in words; tried out once, at the first question."""
        return self._containment.name

    @cached_property
    def _containment(self) -> Containment:
        return self._find_containment()

    @cached_property
    def _memory_base(self) -> Path | None:
        return self._find_memory_base()

    # --- starting and finding -------------------------------------------------------------------------------------

    def start(self, spec: ProcessSpec) -> Handle:
        """Place the process. Raises EngineError where the spec, its folders or the machine do not allow it."""
        shim.check(spec)
        self._check(spec)
        record = self._record(spec)
        offset = os.fstat(record).st_size
        containment = self._containment if spec.contain else SESSION
        with _opened(spec) as log:
            terms = self._terms(spec, containment)
            placed = shim.place(spec, os.fstat(log).st_size, terms)
            launch = shim.launch(spec, placed)
            launch = replace(launch, argv=(*containment.prefix, *launch.argv))
            try:
                pid, masker = self._spawn(spec, launch, log, record)
            except OSError as error:
                _remove(terms)
                raise EngineError(f"process {spec.id} cannot be started: {_reason(error)}") from None
        handle = self._handle(placed, spec.record, pid, trees.look(pid))
        self._children[pid] = _Child(handle.start_time, offset, terms, masker)
        return handle

    def _check(self, spec: ProcessSpec) -> None:
        """Raise EngineError for what this kind of runner cannot place."""
        if spec.image is not None or not spec.network:
            raise EngineError(f"process {spec.id} wants a container, and this runner has none: ask another one")

    def _record(self, spec: ProcessSpec) -> int:
        try:
            return self._files.at(str(spec.record.absolute()))
        except OSError as error:
            raise _unopened(spec, spec.record, error) from None

    def _terms(self, spec: ProcessSpec, containment: Containment) -> Terms:
        """How it will be held. Its cgroups stand when this returns."""
        marker = shim.marker(spec.id, str(spec.record.absolute()))
        held = []
        memory_base = self._memory_base if spec.memory is not None else None
        if spec.memory is not None and memory_base is not None:
            held.append(str(groups.make(memory_base, marker, spec.memory)))
        if containment.base is not None and containment.base != memory_base:
            held.append(str(groups.make(containment.base, marker, None)))
        return Terms(
            contained=containment.kind == "namespace",
            groups=tuple(held),
            watched=spec.memory if memory_base is None else None,
            masked=bool(spec.secrets),
            oom_kills=self._oom_kills_known(),
        )

    def _oom_kills_known(self) -> int:
        """The machine's count of OOM kills, up to a second old."""
        now = time.monotonic()
        if now - self._oom_kills[0] >= _COUNT_KNOWN:
            self._oom_kills = now, groups.oom_kills_of_the_machine()
        return self._oom_kills[1]

    def _spawn(self, spec: ProcessSpec, launch: shim.Launch, log: int, record: int) -> tuple[int, int | None]:
        """The number of the shim, and of its masker if it has one.

        The masker is first, and the only one to hold the log: should we die in between, it reads the end and leaves.
        """
        if not spec.secrets:
            return _spawn(launch, (None, log, log), record, self._strays), None
        reader, writer = (records.free_of_the_shim(end) for end in os.pipe())
        masking = shim.launch_masker(spec, self._masker)
        try:
            masker = _spawn(masking, (reader, log, None), record, self._strays)
            return _spawn(launch, (None, writer, writer), record, self._strays), masker
        finally:
            os.close(reader)
            os.close(writer)

    def find(self, spec_id: str, record: Path) -> Handle | None:
        """The handle of a process whose start was never recorded by us; None where its shim never stood.

        Its start line names the process; where that was not yet written, or a namespace gave it another number, the
        marker in its environment does.
        """
        marker = shim.marker(spec_id, str(record.absolute()))
        notes = records.read_notes(trees.read(record), spec_id)
        if notes.placed is not None and notes.pid is not None and not notes.terms.contained:
            seen = trees.look(notes.pid) if trees.shim_of(notes.pid, marker) else None
            return self._handle(notes.placed, record, notes.pid, seen)
        for pid in trees.all_numbers():
            placed = trees.shim_of(pid, marker)
            if placed is not None:
                return self._handle(placed, record, pid, trees.look(pid))
        return self._handle(notes.placed, record, 0, None) if notes.placed is not None else None

    def _handle(self, placed: Placed, record: Path, pid: int, seen: trees.Seen | None) -> Handle:
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
            container=placed.terms.container or None,
        )

    # --- looking --------------------------------------------------------------------------------------------------

    def alive(self, handle: Handle) -> bool:
        """Whether the shim of the handle lives: same boot, same number, same start time, and not a zombie."""
        return handle.boot_id == self._boot_id and trees.lives(handle)

    def starts(self, handle: Handle) -> int:
        """How often the command was started so far; more than once only for a kept process."""
        return notes_of_handle(handle).starts

    def last_exit(self, handle: Handle) -> int | None:
        """The exit code of the start that ended last (negative: minus the signal), or None before the first."""
        return notes_of_handle(handle).last_code

    # --- waiting and ending ---------------------------------------------------------------------------------------

    async def wait(self, handle: Handle) -> Ending:
        """Wait for the end of the shim, then end what it left, so that the range of the log is final."""
        if handle.boot_id != self._boot_id:
            return self._settle(handle, None)
        child = self._child(handle)
        watched = await self._shim_gone(handle, child)
        if (ending := self._ends.get(handle.id)) is not None:
            await ending.wait()
        if watched or notes_of_handle(handle).log_end is None:
            await self._clear_leftovers(handle, child, watched=watched)
        self._reap(handle)
        return self._settle(handle, child)

    async def _shim_gone(self, handle: Handle, child: _Child | None) -> bool:
        """Wait while the shim lives; whether it was there when we came."""
        limit = (child.terms if child is not None else notes_of_handle(handle).terms).watched
        guard = asyncio.ensure_future(self._guard(handle, limit)) if limit is not None else None
        try:
            return await _gone(handle, sure=child is not None)
        finally:
            if guard is not None:
                guard.cancel()

    async def _guard(self, handle: Handle, limit: int) -> None:
        """Enforce a memory limit where no cgroup does."""
        while trees.has_number(handle):
            if trees.kill_for_memory(self._tree(handle, notes_of_handle(handle).terms, sure=True), limit):
                with suppress(OSError):
                    records.append(handle.record, records.line("oom", handle.id, 0))
            await asyncio.sleep(_MEMORY_LOOK)

    async def _clear_leftovers(self, handle: Handle, child: _Child | None, *, watched: bool) -> None:
        """End what a process left that ended by itself; where nothing can be left, that is not looked for."""
        terms = child.terms if child is not None else notes_of_handle(handle).terms
        tree = self._tree(handle, terms, sure=watched, ended=True)
        # A namespace's own parent leaves by itself only when nothing is in it any more.
        proven = terms.contained and child is not None and _left_by_itself(handle.pid)
        if terms.contained and not proven:
            # Its parent was killed, or nobody can tell. The namespace dies of that, and must not end as if asked to.
            await trees.clear(tree, 0, 0)
        elif not proven and not (watched and tree.surely_empty()):
            await trees.clear(tree, LEFTOVER_GRACE)
        await self._cleared(handle, terms, asked=False)

    async def _cleared(self, handle: Handle, terms: Terms, *, asked: bool) -> None:
        """Wait for, or end, what the tree does not hold; `asked` where it was ended because somebody asked."""
        del asked
        if terms.masked:
            await _masker_gone(handle)

    async def end(self, handle: Handle, grace: float) -> None:
        """End the whole tree: TERM, `grace` seconds, KILL, looked for again until nothing of it is left."""
        shim.ask_to_stop(handle.folder)
        if handle.boot_id != self._boot_id:
            return
        over = self._ends.setdefault(handle.id, asyncio.Event())
        try:
            await self._stands(handle)
            notes = notes_of_handle(handle)
            if not notes.asked and self.alive(handle):
                with suppress(OSError):
                    records.append(handle.record, records.line("asked", handle.id, 0))
            await trees.clear(self._tree(handle, notes.terms, sure=trees.has_number(handle)), grace)
            await self._cleared(handle, notes.terms, asked=True)
            self._reap(handle)
        finally:
            over.set()
            self._ends.pop(handle.id, None)

    async def _stands(self, handle: Handle) -> None:
        """Wait until a shim that was just started can take a TERM (milliseconds; at most SHIM_GRACE)."""
        deadline = time.monotonic() + trees.SHIM_GRACE
        while self.alive(handle) and notes_of_handle(handle).placed is None and time.monotonic() < deadline:
            await asyncio.sleep(trees.LOOK_SOON)

    def _tree(self, handle: Handle, terms: Terms, *, sure: bool, ended: bool = False) -> trees.Tree:
        return trees.Tree(
            handle=handle,
            counter=self._counter,
            sure=sure,
            ended=ended,
            contained=terms.contained,
            groups=terms.groups,
            others=self._children.keys() - {handle.pid},
            clients=bool(terms.container),
        )

    def _child(self, handle: Handle) -> _Child | None:
        child = self._children.get(handle.pid)
        return child if child is not None and child.start_time == handle.start_time else None

    def _reap(self, handle: Handle) -> None:
        """Take the zombies of our own children away, so that their numbers become free; others' are none of ours."""
        child = self._child(handle)
        if child is None:
            return
        with suppress(ChildProcessError):
            if child.masker is not None:
                os.waitpid(child.masker, os.WNOHANG)
        with suppress(ChildProcessError):
            if os.waitpid(handle.pid, os.WNOHANG) == (0, 0):
                return
        del self._children[handle.pid]

    def _settle(self, handle: Handle, child: _Child | None) -> Ending:
        """How it ended by its record, which is told the end of its log if nobody has settled it before."""
        here = handle.boot_id == self._boot_id
        notes = self._own_notes(handle, child) if child is not None else notes_of_handle(handle)
        log_end, oom = notes.log_end, notes.oom
        if log_end is None:
            log_end = notes.next_log_start if notes.next_log_start is not None else _size(handle.log)
            log_end = max(log_end, handle.log_start)
            oom = oom or (here and _ended_for_memory(notes))
            lines = (records.line("oom", handle.id, 0) if oom else b"") + records.line("settled", handle.id, log_end)
            # A full disk must not hide the ending: who asks again then measures the log again.
            with suppress(OSError):
                self._append(handle, child, lines)
            _remove(child.terms if child is not None else notes.terms)
        exit_code = notes.exit_code if here else None
        return Ending(exit_code, log_end, oom=oom and exit_code != 0, unplaced=here and notes.unplaced)

    def _own_notes(self, handle: Handle, child: _Child) -> Notes:
        """The notes of a process that we started: its lines begin where the record ended then."""
        data = os.pread(self._files.at(handle.record), _OWN_LINES, child.offset)
        if not child.terms.masked and records.just_passed(data, handle.id):
            return _PASSED
        return records.read_notes(data, handle.id) if len(data) < _OWN_LINES else notes_of_handle(handle)

    def _append(self, handle: Handle, child: _Child | None, lines: bytes) -> None:
        if child is None:
            records.append(handle.record, lines)
        else:
            os.write(self._files.at(handle.record), lines)


# --- placing ------------------------------------------------------------------------------------------------------


def _spawn(launch: shim.Launch, streams: tuple[int | None, int, int | None], record: int, strays: Iterable[int]) -> int:
    """Spawn in a session of its own, with nothing of ours but stdin, stdout, stderr (None: nowhere) and the record."""
    stdin, stdout, stderr = streams
    with _unnamed(launch.text) as text:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            _stream(stdin, 0),
            _stream(stdout, 1),
            _stream(stderr, 2),
            (os.POSIX_SPAWN_DUP2, record, shim.RECORD_DESCRIPTOR),
            (os.POSIX_SPAWN_CLOSE, shim.TEXT_DESCRIPTOR)
            if text is None
            else (os.POSIX_SPAWN_DUP2, text, shim.TEXT_DESCRIPTOR),
            # Last, because meanwhile one of these numbers may be that of our log.
            *((os.POSIX_SPAWN_CLOSE, stray) for stray in strays),
        ]
        return os.posix_spawn(
            launch.argv[0],
            launch.argv,
            launch.environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            # What we ignore (SIGPIPE, or SIGHUP under nohup) would be ignored by the process too.
            setsigdef=_CATCHABLE,
        )


def _stream(descriptor: int | None, number: int) -> tuple[int, ...] | tuple[int, int, str, int, int]:
    if descriptor is None:
        return os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0
    return os.POSIX_SPAWN_DUP2, descriptor, number


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
def _opened(spec: ProcessSpec) -> Iterator[int]:
    """A descriptor that appends to the log."""
    try:
        opened = os.open(spec.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        descriptor = records.free_of_the_shim(opened)
    except OSError as error:
        raise _unopened(spec, spec.log, error) from None
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
    descriptor = records.free_of_the_shim(os.memfd_create("penstock"))
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text)
        yield descriptor
    finally:
        os.close(descriptor)


def _unopened(spec: ProcessSpec, path: Path, error: OSError) -> EngineError:
    return EngineError(f"process {spec.id} cannot be started: {path} cannot be opened: {_reason(error)}")


def _reason(error: OSError) -> str:
    if error.errno == errno.E2BIG:
        return "its variables are too large for the operating system; shorten them"
    return (error.strerror or str(error)).lower()


def _remove(terms: Terms) -> None:
    for group in terms.groups:
        groups.remove(group)


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
        there = sure or trees.has_number(handle)
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
    there, pause = trees.has_number(handle), trees.LOOK_SOON
    while trees.lives(handle):
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, trees.LOOK_LATER)
    return there


async def _masker_gone(handle: Handle) -> None:
    """Wait until the masker has written everything, which its line in the record tells; one that cannot is killed."""
    deadline = time.monotonic() + MASKER_GRACE
    pause = trees.LOOK_SOON
    while notes_of_handle(handle).masked is None:
        maskers = trees.marked(shim.masker_marker(handle.id, handle.record))
        if not maskers:
            return
        if time.monotonic() > deadline:
            trees.kill_all(maskers)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, trees.LOOK_LATER)


def _left_by_itself(pid: int) -> bool:
    """Whether our child, which has ended, was not killed."""
    with suppress(ChildProcessError):
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return status is not None and status.si_code == os.CLD_EXITED
    return False


def _ended_for_memory(notes: Notes) -> bool:
    """Whether the kernel has ended it for want of memory: by its own limit, or by a KILL that nobody asked for."""
    if any(groups.oom_kills(group) for group in notes.terms.groups):
        return True
    killed = notes.exit_code in {None, -signal.SIGKILL} and notes.placed is not None and not notes.asked
    # A container tells itself, from its own group.
    killed = killed and not notes.terms.container
    return killed and groups.oom_kills_of_the_machine() > notes.terms.oom_kills and not groups.spared()


def notes_of_handle(handle: Handle) -> Notes:
    """What the record says of the process of a handle."""
    return records.notes_of(handle.record, handle.id)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path costs more than the call, at every end
    except FileNotFoundError:
        return 0
