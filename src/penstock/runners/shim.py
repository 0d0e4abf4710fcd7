"""The tiny POSIX shell that a process runs under; what it leaves in the record file is told in `records.py`."""

import os
import re
import resource
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.engine.contracts import ProcessSpec
from penstock.errors import EngineError
from penstock.runners.records import FREE, Placed, Terms, describe

MARKER = "PENSTOCK_PROCESS"
MASK = "PENSTOCK_MASK"
RECORD_DESCRIPTOR = 9
TEXT_DESCRIPTOR = 8

# Linux refuses a single argument of 128 KiB or more; a longer text travels in an unnamed file instead.
LONGEST_ARGUMENT = 100_000

# Less kills the shim, or keeps it from opening what it needs.
LEAST_MEMORY = 4 * 1024**2
LEAST_FILES = 16

# Where only who waits enforces a memory limit, each process alone is refused this many times as much (RLIMIT_DATA,
# because RLIMIT_AS would count what torch and CUDA only reserve). Not once: stacks of threads count though unused.
BACKSTOP = 2

_ID = re.compile(r"[\w.,:@/+=\[\]-]+", re.ASCII)

# A shim that cannot begin leaves without an end: the process is lost, which is not the command's failure.
_OPENING = """\
printf '\\nstart %s %s %s\\n' "ID" $$ "$1" >&9 || { trap - EXIT; exit 1; }
cd -- "$2" || { trap - EXIT; exit 1; }
unset OLDPWD
%LIMITS%"""

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

# One process for every byte that may hold a secret: it stays until the last writer has closed its end.
_MASKED = """\
trap '' TERM INT HUP
"$@" 9>&-
printf 'masked %s %s .\\n' "ID" $? >&9
"""

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

# In a namespace the shim is the first process, and everything else there is of the tree.
_SWEEP = """\
  for _penstock_entry in /proc/[0-9]*; do
    read -r _penstock_line <"$_penstock_entry/stat" || continue
    set -- ${_penstock_line##*) }
    [ "$4" != $$ ] || [ "$_penstock_entry" = "/proc/$$" ] || kill -KILL "${_penstock_entry#/proc/}"
  done 2>/dev/null
"""
# Only as pid 1 of a namespace of its own: anywhere else -1 would mean everything that we may signal.
_SWEEP_NAMESPACE = "  [ $$ -ne 1 ] || kill -KILL -1 2>/dev/null\n"

# What a crashed start leaves in the session would keep its port or its GPU, so it is ended before the next start.
# The clock is /proc/uptime because a POSIX shell has no other without a process. Delays are tenths of a second.
_KEPT = (
    """\
_penstock_stop= _penstock_child= _penstock_code=0 _penstock_delay=2
_penstock_pass_on() {
  %PASS%[ -z "$_penstock_child" ] || kill -TERM "$_penstock_child" 2>/dev/null
}
trap '_penstock_stop=1; _penstock_pass_on' TERM INT HUP
_penstock_sweep() {
%SWEEP%}
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
  [ -z "$_penstock_stop" ] || _penstock_pass_on
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


def place(spec: ProcessSpec, log_start: int, terms: Terms = FREE) -> Placed:
    """The description of a process whose output begins at byte `log_start` of its log, held on these terms."""
    folder = str(spec.folder.absolute()) if spec.folder else None
    return Placed(spec.id, str(spec.log.absolute()), log_start, spec.kept, folder, terms)


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
    command = _LONG_SHELLS[spec.shell] if long else shell_argv(spec)
    if spec.kept and spec.folder is not None:
        script, arguments = _KEPT, (*opening, str(stop_file(spec.folder)), *command)
    elif spec.shell == "sh" and not long and keeps_trap(spec.command):
        script, arguments = _FAST, (*opening, spec.command)
    else:
        script, arguments = _CHILD, (*opening, *command)
    script = script.replace("LONG", _LONG if long else "").replace("ID", spec.id)
    # A container is told to end by its engine; its client then ends by itself.
    script = script.replace("%PASS%", "return 0; " if placed.terms.container else "")
    script = script.replace("%SWEEP%", _SWEEP_NAMESPACE if placed.terms.contained else _SWEEP)
    return Launch(
        ("/bin/sh", "-c", script.replace("%LIMITS%", _limits(spec, placed.terms)), "sh", *arguments),
        {**spec.variables, MARKER: marker(spec.id, str(spec.record.absolute()))},
        text if long else None,
    )


def shell_argv(spec: ProcessSpec) -> tuple[str, ...]:
    """The shell that executes the spec's text, with the text."""
    return (*_SHELLS[spec.shell], spec.command)


def launch_masker(spec: ProcessSpec, masker: Sequence[str]) -> Launch:
    """The masker of a process, under a shell that records how it left. It knows the secrets and nothing else."""
    secrets = {name: spec.variables[name] for name in spec.secrets}
    mark = masker_marker(spec.id, str(spec.record.absolute()))
    return Launch(
        ("/bin/sh", "-c", _MASKED.replace("ID", spec.id), "sh", *masker),
        {**secrets, MASK: ",".join(spec.secrets), MARKER: mark},
        None,
    )


def _limits(spec: ProcessSpec, terms: Terms) -> str:
    """The lines that put the shim under its limits; where one is refused the text is not begun."""
    lines = [f"echo 0 >{shlex.quote(group + '/cgroup.procs')}" for group in terms.groups]
    if terms.watched is not None:
        lines.append(f"ulimit -d {terms.watched * BACKSTOP // 1024}")
    if spec.open_files is not None:
        lines.append(f"ulimit -n {spec.open_files}")
    return "".join(f"{line} || {{ trap - EXIT; exit 1; }}\n" for line in lines)


def marker(spec_id: str, record: str) -> str:
    """The value of the marker variable: the id alone could be that of a process of another home on this machine."""
    return f"{spec_id}@{record}"


def masker_marker(spec_id: str, record: str) -> str:
    """The marker of the masker: another than the process's, which is signalled while the masker must live."""
    return f"masker:{marker(spec_id, record)}"


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
    _check_variables(spec)
    _check_limits(spec)
    if not os.path.isdir(spec.workspace):  # noqa: PTH112 - half the time, at every start
        raise EngineError(f"process {spec.id} cannot start in {spec.workspace}: there is no such folder")
    if spec.kept and (spec.folder is None or not spec.folder.is_dir()):
        raise EngineError(f"process {spec.id} is to be kept but has no folder at {spec.folder}: make one first")


def _check_variables(spec: ProcessSpec) -> None:
    for name in spec.variables:
        if not name or "=" in name:
            raise EngineError(f"process {spec.id} has a variable named {name!r}: a name needs a character, and no '='")
    for name in spec.secrets:
        if name not in spec.variables or "," in name:
            raise EngineError(f"process {spec.id} has a secret {name!r} that is none of its variables: set it")
    try:
        # All at once first, which is ten times as fast.
        _check_text("", "".join((*spec.variables, *spec.variables.values())))
    except EngineError:
        for name, value in spec.variables.items():
            _check_text(f"the variable {name!r} of process {spec.id}", name + value)


def _check_limits(spec: ProcessSpec) -> None:
    if spec.memory is not None and spec.memory < LEAST_MEMORY:
        raise EngineError(f"process {spec.id} is limited to {spec.memory} bytes of memory: give it at least 4 MiB")
    if spec.open_files is None:
        return
    most = most_open_files()
    if not LEAST_FILES <= spec.open_files <= most:
        raise EngineError(
            f"process {spec.id} is limited to {spec.open_files} open files: give it {LEAST_FILES} to {most} "
            "(what this machine allows us)"
        )


def most_open_files() -> int:
    """The highest limit of open files that this user may set."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    unbound = most == resource.RLIM_INFINITY or os.geteuid() == 0
    return int(Path("/proc/sys/fs/nr_open").read_text()) if unbound else most


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
