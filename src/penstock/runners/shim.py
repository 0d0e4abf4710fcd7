"""The tiny POSIX shell that a process runs under, and the lines it leaves in the record file.

A line is complete only with its closing mark, so a half-written one can never be read as an ending:

    start ID PID [json]    the shim stands; the json says what a handle needs (id, log, log_start, kept, folder)
    begin ID .             a kept process was started once more
    exit ID CODE .         that start of a kept process ended
    end ID CODE .          the shim leaves; the code is that of the (last) command
    settled ID BYTE .      nothing of the tree is left; its log ends at this byte (written by who waited)

`CODE` is what a shell calls `$?`. Codes 129 to 192 are read as "killed by signal CODE-128" and become negative,
so a text that says `exit 137` itself is told as killed by signal 9: a shell cannot tell these apart, nor can we.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.engine.contracts import ProcessSpec
from penstock.errors import EngineError

MARKER = "PENSTOCK_PROCESS"
RECORD_DESCRIPTOR = 9
TEXT_DESCRIPTOR = 8

# Linux refuses a single argument of 128 KiB or more; a longer text travels in an unnamed file instead.
LONGEST_ARGUMENT = 100_000

_ID = re.compile(r"[\w.,:@/+=\[\]-]+", re.ASCII)

# A shim that cannot begin leaves without an end: the process is lost, which is not the command's failure.
_OPENING = """\
printf '\\nstart %s %s %s\\n' "ID" $$ "$1" >&9 || { trap - EXIT; exit 1; }
cd -- "$2" || { trap - EXIT; exit 1; }
unset OLDPWD
"""

# The text runs in the shim itself: one process less. Only for texts that cannot lose the trap.
_FAST = (
    """\
trap 'printf "end %s %s .\\n" "ID" $? >&9' EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
"""
    + _OPENING
    + """\
set -e
eval "$3"
"""
)

# The text runs in a shell of its own, so that `exec`, `trap` and `kill $$` mean there what they always mean. The
# shim outlives a TERM to the session (a handler, unlike an ignored signal, is not inherited) and records how the text
# took it.
_CHILD = (
    "trap : TERM INT HUP\n"
    + _OPENING
    + """\
shift 2
LONG(exec "$@" 8>&- 9>&-)
printf 'end %s %s .\\n' "ID" $? >&9
"""
)

# What a crashed start leaves in the session would keep its port or its GPU, so it is ended before the next start.
# The clock is /proc/uptime because a POSIX shell has no other without a process. Delays are tenths of a second.
_KEPT = (
    """\
_penstock_stop= _penstock_child= _penstock_code=0 _penstock_delay=2
trap '_penstock_stop=1; [ -z "$_penstock_child" ] || kill -TERM "$_penstock_child" 2>/dev/null' TERM INT HUP
_penstock_sweep() {
  for _penstock_entry in /proc/[0-9]*; do
    read -r _penstock_line <"$_penstock_entry/stat" || continue
    set -- ${_penstock_line##*) }
    [ "$4" != $$ ] || [ "$_penstock_entry" = "/proc/$$" ] || kill -KILL "${_penstock_entry#/proc/}"
  done 2>/dev/null
}
"""
    + _OPENING
    + """\
_penstock_file=$3
shift 3
LONGwhile [ -z "$_penstock_stop" ] && [ ! -e "$_penstock_file" ]; do
  printf 'begin %s .\\n' "ID" >&9
  read -r _penstock_began _penstock_idle </proc/uptime
  "$@" 8>&- 9>&- &
  _penstock_child=$!
  [ -z "$_penstock_stop" ] || kill -TERM "$_penstock_child" 2>/dev/null
  wait "$_penstock_child"
  _penstock_code=$?
  while [ "$_penstock_code" -gt 128 ] && [ -n "$_penstock_stop" ] && kill -0 "$_penstock_child" 2>/dev/null; do
    wait "$_penstock_child"
    _penstock_code=$?
  done
  _penstock_child=
  printf 'exit %s %s .\\n' "ID" "$_penstock_code" >&9
  _penstock_sweep
  [ -z "$_penstock_stop" ] && [ ! -e "$_penstock_file" ] || break
  read -r _penstock_ended _penstock_idle </proc/uptime
  [ $((${_penstock_ended%.*} - ${_penstock_began%.*})) -lt 10 ] || _penstock_delay=2
  sleep "$((_penstock_delay / 10)).$((_penstock_delay % 10))" 8>&- 9>&- &
  _penstock_child=$!
  wait "$_penstock_child"
  _penstock_child=
  _penstock_delay=$((_penstock_delay * 2))
  [ "$_penstock_delay" -le 50 ] || _penstock_delay=50
done
printf 'end %s %s .\\n' "ID" "$_penstock_code" >&9
"""
)

# A long text is read through the shim's own descriptor, so that the child inherits none.
_LONG = 'set -- "$@" "/proc/$$/fd/8"\n'
_LONG_PYTHON = "import sys; exec(compile(open(sys.argv.pop(), encoding='utf-8').read(), '<string>', 'exec'))"

_SHELLS: Mapping[str, tuple[str, ...]] = {
    "sh": ("/bin/sh", "-e", "-c", "--"),
    "bash": ("bash", "-e", "-c", "--"),
    "python": ("python3", "-c"),
}
_LONG_SHELLS: Mapping[str, tuple[str, ...]] = {
    "sh": ("/bin/sh", "-e"),
    "bash": ("bash", "-e"),
    "python": ("python3", "-c", _LONG_PYTHON),
}


@dataclass(frozen=True, slots=True)
class Placed:
    """What a start line, or a living shim's arguments, tell so that a handle can be made again."""

    id: str
    log: str
    log_start: int
    kept: bool
    folder: str | None


def place(spec: ProcessSpec, log_start: int) -> Placed:
    """The description of a process whose output begins at byte `log_start` of its log."""
    folder = str(spec.folder.absolute()) if spec.folder else None
    return Placed(spec.id, str(spec.log.absolute()), log_start, spec.kept, folder)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to spawn: `argv` of /bin/sh, its whole environment, and the text's bytes where too long for argv."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    text: bytes | None


def launch(spec: ProcessSpec, placed: Placed) -> Launch:
    """The shim for a process that is placed so. The spec was checked before."""
    text = os.fsencode(spec.command)
    long = len(text) > LONGEST_ARGUMENT
    opening = (describe(placed), str(spec.workspace.absolute()))
    command = _LONG_SHELLS[spec.shell] if long else (*_SHELLS[spec.shell], spec.command)
    if spec.kept and spec.folder is not None:
        script, arguments = _KEPT, (*opening, str(stop_file(spec.folder)), *command)
    elif spec.shell == "sh" and not long and keeps_trap(spec.command):
        script, arguments = _FAST, (*opening, spec.command)
    else:
        script, arguments = _CHILD, (*opening, *command)
    script = script.replace("LONG", _LONG if long else "").replace("ID", spec.id)
    return Launch(
        ("sh", "-c", script, "sh", *arguments),
        {**spec.variables, MARKER: marker(spec.id, str(spec.record.absolute()))},
        text if long else None,
    )


def marker(spec_id: str, record: str) -> str:
    """The value of the marker variable: the id alone could be that of a process of another home on this machine."""
    return f"{spec_id}@{record}"


def stop_file(folder: Path) -> Path:
    """The file whose presence tells a kept process's shim to leave."""
    return folder.absolute() / "stop"


def ask_to_stop(folder: str | None) -> None:
    """Leave the stop file in a kept process's folder, if it has one and that is still there."""
    if folder is not None:
        with suppress(FileNotFoundError):
            stop_file(Path(folder)).touch()


def check(spec: ProcessSpec) -> None:
    """Raise EngineError where no process can be made of the spec, in one sentence that says what to change."""
    if not _ID.fullmatch(spec.id):
        raise EngineError(f"a process cannot be named {spec.id!r}: use letters, digits and .,:@/+=[]_- only")
    if spec.shell not in _SHELLS:
        raise EngineError(f"process {spec.id} asks for the shell {spec.shell!r}: use one of {', '.join(_SHELLS)}")
    _check_text(f"the command of process {spec.id}", spec.command)
    for name, value in spec.variables.items():
        if not name or "=" in name:
            raise EngineError(f"process {spec.id} has a variable named {name!r}: a name needs a character, and no '='")
        _check_text(f"the variable {name!r} of process {spec.id}", name + value)
    if not spec.workspace.is_dir():
        raise EngineError(f"process {spec.id} cannot start in {spec.workspace}: there is no such folder")
    if spec.kept and (spec.folder is None or not spec.folder.is_dir()):
        raise EngineError(f"process {spec.id} is to be kept but has no folder at {spec.folder}: make one first")


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise EngineError(f"{what} holds a NUL character, which no process can be given: remove it")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise EngineError(f"{what} holds a character that cannot be encoded ({error.reason}): remove it") from None


# --- which texts may run in the shim itself -----------------------------------------------------------------------

_HARMLESS = re.compile(r"2>&1|&&")
_PLAIN = re.compile(r"""[\w\s./=:,+@%"'>|;-]*""")
_LOSES_TRAP = re.compile(r"exec|trap|eval|source|kill|alias|enable|\d>|(?:^|[\s;|])\.(?:\s|$)")


def keeps_trap(text: str) -> bool:
    """Whether a text surely cannot lose the trap that writes the exit record.

    It holds no expansion, no escape, nothing in the background, and none of the words that replace or end the shell;
    quotes are taken out before looking for these, so that `ex''ec` is seen. When in doubt the answer is no, which
    costs one more process (about half a millisecond).
    """
    bare = _HARMLESS.sub(" ", text)
    return _PLAIN.fullmatch(bare) is not None and _LOSES_TRAP.search(re.sub("[\"']", "", bare)) is None


# --- reading the record ---------------------------------------------------------------------------------------------


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
