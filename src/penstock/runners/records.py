"""The lines that a process leaves in its record file, and what they say.

A line is complete only with its closing mark, so a half-written one can never be read as an ending:

    start ID PID [json]    the shim stands; the json says what a handle needs (id, log, log_start, kept, folder)
    begin ID .             a kept process was started once more
    exit ID CODE .         that start of a kept process ended
    end ID CODE .          the shim leaves; the code is that of the (last) command
    inside ID 1 .          a container's first process stands, and hears a TERM
    left ID CODE .         the command in a container left: without it the code is the engine's, and of no command
    masked ID CODE .       the masker has left after its last byte; without a 0 here the process is lost
    asked ID 0 .           somebody called `end`: a KILL after this is no want of memory
    oom ID 0 .             it held more memory than its limit, and was killed for that (written by who did)
    settled ID BYTE .      nothing of the tree is left; its log ends at this byte (written by who waited)

`CODE` is what a shell calls `$?`. Codes 129 to 192 are read as "killed by signal CODE-128" and become negative,
so a text that says `exit 137` itself is told as killed by signal 9: a shell cannot tell these apart, nor can we.
"""

import fcntl
import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Descriptors of record files that are kept open at most.
_MOST_OPEN = 64

# Numbers that the shim's own descriptors have; only the end of a record is read where that suffices.
_RESERVED = frozenset({0, 1, 2, 8, 9})
_FREE = 10
_TAIL = 4096


class Terms(NamedTuple):
    """How a process is held. `groups` are its cgroups; `watched` is a limit in bytes that only who waits enforces.

    `contained` is for a namespace of its own, `container` the name of its container, in which it tells its end
    itself where that is `inner`. `oom_kills` is how many the machine had seen when it was started.
    """

    contained: bool = False
    groups: tuple[str, ...] = ()
    watched: int | None = None
    masked: bool = False
    oom_kills: int = 0
    container: str = ""
    inner: bool = False


FREE = Terms()
"""Held by its session alone."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What a start line, or a living shim's arguments, tell so that a handle can be made again."""

    id: str
    log: str
    log_start: int
    kept: bool
    folder: str | None
    terms: Terms = FREE


@dataclass(frozen=True, slots=True)
class Notes:
    """What a record says of one process; None is what nobody wrote.

    `unplaced` says that a container ended without a command in it, `stands` that what was started last hears a TERM.
    `log_end` is where the log was settled; `next_log_start` is where the next process sharing log and record began.
    """

    pid: int | None = None
    placed: Placed | None = None
    starts: int = 0
    last_code: int | None = None
    exit_code: int | None = None
    log_end: int | None = None
    next_log_start: int | None = None
    masked: int | None = None
    asked: bool = False
    oom: bool = False
    unplaced: bool = False
    stands: bool = True

    @property
    def terms(self) -> Terms:
        return self.placed.terms if self.placed is not None else FREE


def describe(placed: Placed) -> str:
    """What `read_description` reads; terms only where there are any."""
    terms = {name: value for name, value in placed.terms._asdict().items() if value}
    plain = [placed.id, placed.log, placed.log_start, placed.kept, placed.folder]
    return json.dumps([*plain, terms] if terms else plain)


def read_description(text: str) -> Placed | None:
    """What a shim was given as its description, or None where `text` is something else."""
    try:
        match json.loads(text):
            case [str(name), str(log), int(log_start), bool(kept), str() | None as folder]:
                return Placed(name, log, log_start, kept, folder)
            case [str(name), str(log), int(log_start), bool(kept), str() | None as folder, {**terms}]:
                return Placed(name, log, log_start, kept, folder, _terms(terms))
    except ValueError:
        pass
    return None


def _terms(given: Mapping[Any, Any]) -> Terms:
    """The terms of a description. What a later Penstock may add is passed over. Raises ValueError for other types."""
    known = {name: value for name, value in given.items() if name in _TYPES}
    if any(not isinstance(value, _TYPES[name]) for name, value in known.items()):
        raise ValueError("a term of another type")
    return Terms(**{**known, "groups": tuple(map(str, known.get("groups", ())))})


_TYPES = {
    "contained": bool,
    "groups": list,
    "watched": int,
    "masked": bool,
    "oom_kills": int,
    "container": str,
    "inner": bool,
}


def read_notes(data: bytes, spec_id: str) -> Notes:
    """What the lines of a record say of the process `spec_id`; lines that are incomplete or damaged say nothing."""
    numbers: dict[str, list[int]] = {word: [] for word in _WORDS}
    pid, placed, following, begun = None, None, None, 0
    ours = max(0, data.find(b"start %s " % spec_id.encode()))
    for line in data[ours:].decode("utf-8", "replace").split("\n"):
        if line.startswith("start "):
            number, found = _start_line(line)
            if found is not None and found.id == spec_id:
                pid, placed = number, found
            elif found is not None and placed is not None and following is None and found.log == placed.log:
                following = found.log_start
        elif line == f"begin {spec_id} .":
            begun += 1
        elif (closed := _CLOSED.fullmatch(line)) and closed["id"] == spec_id:
            numbers[closed["word"]].append(int(closed["number"]))
    ends, exits, masked = numbers["end"][:1], numbers["exit"][-1:], numbers["masked"][:1]
    raw = placed is not None and placed.terms.masked and masked != [0]
    code, unplaced = _code(ends), False
    if placed is not None and placed.terms.inner:
        # Without a word from inside, one that was asked to end was killed; another never ran, whatever its client says.
        untold = not numbers["left"] and code is not None and code >= 0
        unplaced = untold and not numbers["asked"]
        code = _code(numbers["left"][-1:]) if numbers["left"] else -signal.SIGKILL if untold else code
        code = None if unplaced else code
    return Notes(
        pid=pid,
        placed=placed,
        starts=begun or int(placed is not None and not placed.kept),
        last_code=_code(exits or ends),
        exit_code=None if raw else code,
        log_end=numbers["settled"][0] if numbers["settled"] else None,
        next_log_start=following,
        masked=masked[0] if masked else None,
        asked=bool(numbers["asked"]),
        oom=bool(numbers["oom"]),
        unplaced=unplaced,
        stands=placed is None or not placed.terms.inner or len(numbers["inside"]) >= max(begun, 1),
    )


def just_passed(data: bytes, spec_id: str) -> bool:
    """Whether these lines are a start and an end with code 0, and nothing else: usual, and quickly seen."""
    end = b"\nend %s 0 .\n" % spec_id.encode()
    return data.startswith(b"\nstart ") and data.endswith(end) and data.count(b"\n") == 3


def line(word: str, spec_id: str, number: int) -> bytes:
    """A line that is added from outside; it begins on a line of its own, whatever was cut off before it."""
    return f"\n{word} {spec_id} {number} .\n".encode()


def notes_of(record: str, spec_id: str) -> Notes:
    """What the record file says of a process; nothing where it is gone."""
    try:
        with Path(record).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read()
            if b"\nstart %s " % spec_id.encode() not in tail:
                file.seek(0)
                tail = file.read()
    except (FileNotFoundError, PermissionError):
        return Notes()
    return read_notes(tail, spec_id)


def append(record: str, data: bytes) -> None:
    """Add lines to a record that is there. Raises OSError."""
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


class Files:
    """Record files that are kept open, because the processes of a slot share one. Never logs: they may be large.

    The same path gives the same descriptor while the file at that path is the same; numbers are such that a shim can
    be given them.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, int, int]] = {}

    def __del__(self) -> None:
        for descriptor, _, _ in self._open.values():
            os.close(descriptor)

    def at(self, path: str) -> int:
        """The descriptor of the file, made where it is missing; to be used before the next call. Raises OSError."""
        known = self._open.pop(path, None)
        if known is not None:
            with suppress(FileNotFoundError):
                there = os.stat(path)  # noqa: PTH116 - a Path costs more than the call, at every end
                if known[1:] == (there.st_ino, there.st_dev):
                    self._open[path] = known
                    return known[0]
            os.close(known[0])
        while len(self._open) >= _MOST_OPEN:
            os.close(self._open.pop(next(iter(self._open)))[0])
        descriptor = free_of_the_shim(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600))
        opened = os.fstat(descriptor)
        self._open[path] = descriptor, opened.st_ino, opened.st_dev
        return descriptor


def free_of_the_shim(descriptor: int) -> int:
    """The same file at a number that none of the shim's own descriptors has."""
    if descriptor not in _RESERVED:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FREE)
    finally:
        os.close(descriptor)


_WORDS = ("exit", "end", "inside", "left", "masked", "asked", "oom", "settled")
_CLOSED = re.compile(rf"(?P<word>{'|'.join(_WORDS)}) (?P<id>\S+) (?P<number>[0-9]{{1,18}}) \.")
_START = re.compile(r"start (?P<id>\S+) (?P<pid>[0-9]{1,10}) (?P<rest>.*)")


def _start_line(line: str) -> tuple[int, Placed | None]:
    found = _START.fullmatch(line)
    return (int(found["pid"]), read_description(found["rest"])) if found else (0, None)


def _code(codes: Sequence[int]) -> int | None:
    if not codes:
        return None
    return 128 - codes[0] if 128 < codes[0] <= 192 else codes[0]
