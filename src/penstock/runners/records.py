"""The lines that a process leaves in its record file, and what they say.

A line is complete only with its closing mark, so a half-written one can never be read as an ending:

    start ID PID [json]    the shim stands; the json says what a handle needs (id, log, log_start, kept, folder)
    begin ID .             a kept process was started once more
    exit ID CODE .         that start of a kept process ended
    end ID CODE .          the shim leaves; the code is that of the (last) command
    masked ID CODE .       the masker has left after its last byte; without a 0 here the process is lost
    asked ID 0 .           somebody called `end`: a KILL after this is no want of memory
    oom ID 0 .             it held more memory than its limit, and was killed for that (written by who did)
    settled ID BYTE .      nothing of the tree is left; its log ends at this byte (written by who waited)

`CODE` is what a shell calls `$?`. Codes 129 to 192 are read as "killed by signal CODE-128" and become negative,
so a text that says `exit 137` itself is told as killed by signal 9: a shell cannot tell these apart, nor can we.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple



class Terms(NamedTuple):
    """How a process is held. `groups` are its cgroups; `watched` is a limit in bytes that only who waits enforces.

    `contained` is for a namespace of its own. `oom_kills` is how many the machine had seen when it was started.
    """

    contained: bool = False
    groups: tuple[str, ...] = ()
    memory: int | None = None
    watched: int | None = None
    masked: bool = False
    oom_kills: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """What a start line, or a living shim's arguments, tell so that a handle can be made again."""

    id: str
    log: str
    log_start: int
    kept: bool
    folder: str | None
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True)
class Notes:
    """What a record says of one process; None is what nobody wrote.

    `log_end` is where the log was settled; `next_log_start` is where the next process sharing log and record began.
    """

    pid: int | None = None
    placed: Placed | None = None
    starts: int = 0
    last_code: int | None = None
    exit_code: int | None = None
    log_end: int | None = None
    next_log_start: int | None = None


def describe(placed: Placed) -> str:
    return json.dumps([placed.id, placed.log, placed.log_start, placed.kept, placed.folder])


def read_description(text: str) -> Placed | None:
    """What a shim was given as its description, or None where `text` is something else."""
    try:
        match json.loads(text):
            case [str(name), str(log), int(log_start), bool(kept), str() | None as folder]:
                return Placed(name, log, log_start, kept, folder)
    except ValueError:
        pass
    return None


def read_notes(data: bytes, spec_id: str) -> Notes:
    """What the lines of a record say of the process `spec_id`; lines that are incomplete or damaged say nothing."""
    numbers: dict[str, list[int]] = {"exit": [], "end": [], "settled": []}
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
    ends, exits = numbers["end"][:1], numbers["exit"][-1:]
    return Notes(
        pid=pid,
        placed=placed,
        starts=begun or int(placed is not None and not placed.kept),
        last_code=_code(exits or ends),
        exit_code=_code(ends),
        log_end=numbers["settled"][0] if numbers["settled"] else None,
        next_log_start=following,
    )


def settled_line(spec_id: str, log_end: int) -> bytes:
    return f"\nsettled {spec_id} {log_end} .\n".encode()


_CLOSED = re.compile(r"(?P<word>exit|end|settled) (?P<id>\S+) (?P<number>[0-9]{1,18}) \.")
_START = re.compile(r"start (?P<id>\S+) (?P<pid>[0-9]{1,10}) (?P<rest>.*)")


def _start_line(line: str) -> tuple[int, Placed | None]:
    found = _START.fullmatch(line)
    return (int(found["pid"]), read_description(found["rest"])) if found else (0, None)


def _code(codes: Sequence[int]) -> int | None:
    if not codes:
        return None
    return 128 - codes[0] if 128 < codes[0] <= 192 else codes[0]
