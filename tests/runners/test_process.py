"""Real processes: what shells, signals, kills and half-written files do, and what is left (FAULTS 3, 4, 5, 16)."""

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine.contracts import Ending, Handle, ProcessSpec
from penstock.errors import EngineError
from penstock.runners import records, shim
from penstock.runners.process import ProcessRunner
from runners.processes import PATIENCE, Bell, children, gone, output, run, start_elsewhere, stop

SERVER = 'echo $$ >"$BELL"; exec sleep 1000'


# --- exit codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("false", 1),
        ("false\ntrue", 1),
        ("set +e; false; true", 0),
        ("return 4", 4),
        ("exit 128", 128),
        ("exit 137", -9),
        ("exit 192", -64),
        ("exit 193", 193),
        ("exit 255", 255),
        ("nosuchcommand", 127),
        ("-c", 127),
        ("-c $HOME", 127),
        ("if", 2),
        ("if (", 2),
        ('echo "unbalanced', 2),
        ("exec sh -c 'exit 6'", 6),
        ("trap 'exit 7' EXIT", 7),
        ("trap - EXIT; exit 8", 8),
        ("kill -9 $$", -9),
        ("kill $$; sleep 1000", -15),
        ("sh -c 'kill -9 $$'", -9),
        ("exec 9>&-; exit 5", 5),
        ("exec 9>lock; flock 9; exit 5", 5),
        ("set -u; echo $MISSING", 2),
        ("", 0),
        ("# nothing", 0),
    ],
)
def test_codes(runner: ProcessRunner, spec: ProcessSpec, command: str, code: int) -> None:
    """Whatever a text does to its own shell, the exit code is what a person would see (minus the signal if killed)."""
    assert run(runner, replace(spec, command=command))[0] == code


@pytest.mark.parametrize(
    ("shell", "command", "code"),
    [
        ("bash", "[[ a == a ]]; false; exit 9", 1),
        ("bash", "exec false", 1),
        ("python", "import sys; sys.exit(5)", 5),
        ("python", "import os; os.kill(os.getpid(), 9)", -9),
        ("python", "raise ValueError", 1),
    ],
)
def test_shells(runner: ProcessRunner, spec: ProcessSpec, shell: str, command: str, code: int) -> None:
    """Bash stops at the first failure as sh does, and python gets its text as a program."""
    assert run(runner, replace(spec, command=command, shell=shell))[0] == code


WORDS = st.sampled_from(
    ["true", "false", "exit 3", "exec true", "exec", "trap", "'", '"', "\\", "$X", ";", "&&", "||", "|", "\n", " ", ".",
     "(", ")", "ex", "ec", "eval exit", "cd /", "echo", "if", "then", "fi", "!", "#", "set +e", "kill -9 $$", "unset X",
     ">/dev/null", "2>&1", "return 2", "{", "}", "-"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(WORDS, max_size=7).map(" ".join) | st.lists(WORDS, max_size=5).map("".join))
def test_like_sh(runner: ProcessRunner, spec: ProcessSpec, text: str) -> None:
    """Any text ends as it does under `sh -e -c`, whichever form of the shim it runs in."""
    variables = {**spec.variables, "X": "exit"}
    plain = subprocess.run(  # the shell under which texts are promised to run, with a text of this test
        ["/bin/sh", "-e", "-c", "--", text],
        env=variables, stdin=subprocess.DEVNULL, capture_output=True, cwd=spec.workspace, check=False,
    )  # fmt: skip
    expected = 128 - plain.returncode if 128 < plain.returncode <= 192 else plain.returncode
    spec.record.unlink(missing_ok=True)
    assert run(runner, replace(spec, command=text, variables=variables))[0] == expected


@pytest.mark.parametrize("text", ["true", "python train.py --epochs 4", "echo 'a b' && ls | cat >out 2>&1", "cd x; ls"])
def test_fast_form(text: str) -> None:
    """Plain texts run in the shim itself, without another shell."""
    assert shim.keeps_trap(text)


@pytest.mark.parametrize(
    "text",
    ["exec true", "e'xe'c true", 'ex""ec true', "trap true EXIT", ". ./env", "$X true", "e\\xec true", "x &",
     "9>x true", "true\n. env", "kill 1", "eval x", "`x`", "(true)", "true >&9", "alias a=b", "x <&9", "{ x", "f() x"],
)  # fmt: skip
def test_careful_form(text: str) -> None:
    """Texts that could replace their shell, or lose its trap or its record, get a shell of their own."""
    assert not shim.keeps_trap(text)


@pytest.mark.parametrize(
    ("shell", "command", "said"),
    [
        ("sh", "echo $0 | tail -c 5; exit 3 #", "fd/8\n"),
        ("bash", "echo $BASH | tail -c 5; exit 3 #", "bash\n"),
        ("python", "import os, sys; print(len(os.listdir('/proc/self/fd'))); sys.exit(3) #", "4\n"),
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_huge(runner: ProcessRunner, spec: ProcessSpec, shell: str, command: str, said: str, *, kept: bool) -> None:
    """A text longer than any argument may be (200 KB) runs like another, and leaves no file in the workspace."""
    command = command + "x" * 200_000
    handle = runner.start(replace(spec, command=command, shell=shell, kept=kept, variables={**spec.variables}))
    if kept:
        while runner.last_exit(handle) is None:
            os.sched_yield()
        end = stop(runner, handle)
    else:
        end = asyncio.run(runner.wait(handle))
    assert end.exit_code == 3
    assert output(handle, end).startswith(said)
    assert not list(spec.workspace.iterdir())


# --- what a process is given ---------------------------------------------------------------------------------------


def test_environment(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """The environment is what was given, with odd characters and all, plus the marker and the PWD that a shell sets."""
    given_ = {"PATH": "/usr/bin:/bin", "A": "b=c  'd' \"e\"\n$f\\", "EMPTY": "", "LANG": "ünï"}
    _, said = run(runner, replace(spec, command="env -0; true $$", variables=given_))
    seen = dict(entry.split("=", 1) for entry in said.split("\0") if entry)
    marker = {"PENSTOCK_PROCESS": f"{spec.id}@{spec.record}", "PWD": str(spec.workspace)}
    assert {key: value for key, value in seen.items() if key not in {"_", "SHLVL"}} == given_ | marker


@pytest.mark.parametrize("name", ["a b", "it's", 'say "x"', "$HOME `x` *", "-n", "ünï\ncode"])
@pytest.mark.parametrize("command", ["pwd", "pwd; true $$"])
def test_workspace(runner: ProcessRunner, spec: ProcessSpec, name: str, command: str) -> None:
    """The text runs in its workspace, whatever characters that has in its path."""
    workspace = spec.workspace / name
    workspace.mkdir()
    assert run(runner, replace(spec, command=command, workspace=workspace)) == (0, f"{workspace}\n")


def test_stdin(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """Nothing can be read from stdin."""
    assert run(runner, replace(spec, command="cat; echo $(wc -c)")) == (0, "0\n")


def test_signals(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """No signal is ignored or blocked, though Python itself ignores SIGPIPE."""
    said = run(runner, replace(spec, command="grep -E '^Sig(Ign|Blk)' /proc/self/status; true $$"))[1]
    _, blocked, _, ignored = said.split()
    # Those that a program can name; 32 and 33 are the C library's own.
    assert (int(blocked, 16) | int(ignored, 16)) & 0x7FFFFFFF == 0


def test_descriptors(spec: ProcessSpec, tmp_path: Path) -> None:
    """A process has stdin, stdout, stderr and in the fast form the record; nothing that we hold, leaked or locked."""
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "leak").open("w") as leak:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(leak.fileno(), True)
        runner = ProcessRunner()
        listing = "import os; print(*sorted(map(int, os.listdir('/proc/self/fd'))))"
        assert run(runner, replace(spec, command=listing, shell="python"))[1] == "0 1 2 3\n"  # noqa: S604 - a name of ours
        assert run(runner, replace(spec, id="fast", command="ls /proc/self/fd"))[1].split() == ["0", "1", "2", "3", "9"]


def test_lock(runner: ProcessRunner, spec: ProcessSpec, bell: Bell, tmp_path: Path) -> None:
    """A lock that we hold is free when we let go of it, though a process that we started lives on."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        handle = runner.start(replace(spec, command=SERVER))
        bell.pid()
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    stop(runner, handle)


def test_no_leak(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """Starting, waiting and refusing leave no zombie with us, and no descriptor but that of the record."""
    ours = children()
    run(runner, spec)
    before = set(Path("/proc/self/fd").iterdir())
    for number in range(5):
        run(runner, replace(spec, id=str(number), command="exit 1 #" + "x" * 150_000 * (number % 2)))
        with pytest.raises(EngineError):
            runner.start(replace(spec, variables={"X": "x" * 3_000_000}))
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert children() <= ours


def test_refused_by_the_system(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    """What the operating system refuses is one sentence that says what to change."""
    with pytest.raises(EngineError, match="its variables are too large for the operating system; shorten them"):
        runner.start(replace(spec, variables={"X": "x" * 3_000_000}))
    with pytest.raises(EngineError, match="nowhere/log cannot be opened: no such file"):
        runner.start(replace(spec, log=tmp_path / "nowhere" / "log"))
    with pytest.raises(EngineError, match="cannot be opened: is a directory"):
        runner.start(replace(spec, record=tmp_path))


def test_workspace_vanished(runner: ProcessRunner, spec: ProcessSpec, tmp_path: Path) -> None:
    """A workspace that cannot be entered is no failure of the command: the process is lost, and the log says why."""
    locked = tmp_path / "n"
    locked.symlink_to(spec.workspace)
    launch = shim.launch(replace(spec, workspace=locked), shim.place(spec, 0))
    locked.unlink()
    record = spec.record.open("ab")
    with record:
        subprocess.run(
            ["/bin/sh", "-c", 'shift; exec 9>>"$0"; exec "$@"', str(spec.record), "-", *launch.argv],
            check=False, capture_output=True,
        )  # fmt: skip
    assert records.read_notes(spec.record.read_bytes(), spec.id).exit_code is None


def test_many(runner: ProcessRunner, spec: ProcessSpec, gate: Bell) -> None:
    """Two hundred processes live at once, and each has its own exit code and log."""
    command = 'read -r x <"$GATE" || true; echo $N; exit $((N % 100))'

    async def all_of_them() -> list[tuple[Handle, Ending]]:
        handles = []
        for number in range(200):
            log, record = (spec.log.with_name(f"{kind}{number}") for kind in ("log", "record"))
            variables = {**spec.variables, "N": str(number)}
            handles.append(
                runner.start(
                    replace(spec, id=str(number), command=command, log=log, record=record, variables=variables)
                )
            )
        waiting = asyncio.gather(*(runner.wait(handle) for handle in handles))
        gate.ring(200)
        return list(zip(handles, await waiting, strict=True))

    for number, (handle, end) in enumerate(asyncio.run(all_of_them())):
        assert (end.exit_code, output(handle, end)) == (number % 100, f"{number}\n")


# --- records -------------------------------------------------------------------------------------------------------


@given(cut=st.integers(0), code=st.integers(0, 255))
def test_half_written(cut: int, code: int) -> None:
    """A record cut off at any byte, even with a successor after it, tells the right code or none; never a wrong one."""
    start = b'\nstart a 7 ["a", "/log", 5, false, null]\n'
    whole = start + b"end a %d .\n" % code
    cut %= len(whole) + 1
    told = {records.read_notes(whole[:cut] + rest, "a").exit_code for rest in (b"", start.replace(b"a", b"b"))}
    right = records.read_notes(whole, "a").exit_code
    assert right is not None
    assert told == ({right} if cut >= len(whole) - 1 else {None})


@given(data=st.binary() | st.text(st.sampled_from('start end exit settled begin a 0 1 .[]",\n')).map(str.encode))
def test_damaged(data: bytes) -> None:
    """Whatever bytes a record holds, reading it raises nothing."""
    records.read_notes(data, "a")


def test_record_lost(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """A process whose record was cut off or removed is lost."""
    handle = runner.start(replace(spec, command="exit 3"))
    assert asyncio.run(runner.wait(handle)).exit_code == 3
    spec.record.write_bytes(spec.record.read_bytes().partition(b"end")[0] + b"end r1/serve.1 3")
    assert asyncio.run(runner.wait(handle)).lost
    spec.record.unlink()
    assert asyncio.run(runner.wait(handle)).lost


def test_unsettled_log(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """Where nobody waited before the next process began in the same log, the range still ends where that began."""
    one = runner.start(replace(spec, id="one", command="echo one"))
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    two = runner.start(replace(spec, id="two", command="echo two"))
    assert output(two, asyncio.run(runner.wait(two))) == "two\n"
    assert output(one, asyncio.run(runner.wait(one))) == "one\n"


def test_other_boot(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """What another boot left is lost, even with a complete record, and nothing that lives now is touched for it."""
    handle = runner.start(replace(spec, command="exit 3"))
    asyncio.run(runner.wait(handle))
    other = replace(handle, boot_id="another", pid=os.getpid())
    assert not runner.alive(other)
    assert asyncio.run(runner.wait(other)).lost
    asyncio.run(runner.end(other, 0))


def test_reused_number(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """A number that somebody else has by now is not alive, is not waited for, and is not killed."""
    handle = runner.start(replace(spec, command="exit 3"))
    asyncio.run(runner.wait(handle))
    reused = replace(handle, pid=os.getpid())
    assert not runner.alive(reused)
    assert asyncio.run(runner.wait(reused)).exit_code == 3
    asyncio.run(runner.end(reused, 0))


# --- adoption ------------------------------------------------------------------------------------------------------


def test_adopted(runner: ProcessRunner, spec: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """A process outlives its killed starter; who has the handle waits for it and gets its code and all its output."""
    command = 'echo before; echo up >"$BELL"; read -r x <"$GATE"; echo after; exit 5'
    handle = start_elsewhere(replace(spec, command=command))
    assert bell.line() == "up"
    assert runner.alive(handle)

    async def wait() -> Ending:
        waiting = asyncio.ensure_future(runner.wait(handle))
        await asyncio.sleep(0)
        gate.ring()
        return await waiting

    end = asyncio.run(wait())
    assert (end.exit_code, output(handle, end)) == (5, "before\nafter\n")


def test_adopted_late(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A process that ended while nobody was there is found with its code, and what it left behind is ended."""
    handle = start_elsewhere(replace(spec, command="setsid sh -c 'echo $$ >\"$BELL\"; exec sleep 1000' & exit 6"))
    left = bell.pid()
    while runner.alive(handle):
        os.sched_yield()
    assert asyncio.run(runner.wait(handle)).exit_code == 6
    assert gone(left)


@pytest.mark.parametrize("recorded", [True, False])
def test_found(runner: ProcessRunner, spec: ProcessSpec, bell: Bell, *, recorded: bool) -> None:
    """A start that was never recorded by its killed starter is found, even before its shim wrote its first line."""
    handle = start_elsewhere(replace(spec, command=SERVER))
    bell.pid()
    if not recorded:
        spec.record.write_bytes(b"\nstart r1/ser")
    assert runner.find(spec.id, spec.record) == handle
    assert runner.find(spec.id, spec.record.with_name("another")) is None
    stop(runner, handle)


def test_found_ended(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """A process that was never recorded and has ended is found too, is not alive, and has its exit code."""
    handle = runner.start(replace(spec, command="echo x; exit 3"))
    asyncio.run(runner.wait(handle))
    found = runner.find(spec.id, spec.record)
    assert found is not None
    assert not runner.alive(found)
    assert asyncio.run(runner.wait(found)) == Ending(3, 2)
    assert runner.starts(found) == 1


def test_without_pidfd(runner: ProcessRunner, spec: ProcessSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel gives no pidfd, waiting works all the same."""

    def refuse(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "no pidfd here")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert run(runner, replace(spec, command="echo x; exit 3")) == (3, "x\n")


# --- ending a tree -------------------------------------------------------------------------------------------------

IGNORE = "trap '' TERM; echo $$ >\"$BELL\"; while :; do sleep 1000; done"


def test_end_tree(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A child that ignores TERM, a grandchild, and a double-forked child in a session of its own are all ended."""
    command = f"(setsid sh -c '(setsid sh -c \"$IGNORE\" &)' &)\nsh -c 'sh -c \"$IGNORE\" & {SERVER}' &\n{IGNORE}"
    variables = {**spec.variables, "IGNORE": IGNORE}
    handle = runner.start(replace(spec, command=command, variables=variables))
    pids = [bell.pid() for _ in range(4)]
    assert len(set(pids)) == 4
    end = stop(runner, handle, grace=0.1)
    assert all(gone(pid) for pid in [*pids, handle.pid])
    assert end.exit_code == -9


def test_end_forking(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A tree that goes on forking while it is killed is ended, and `end` returns only when nothing is left."""
    command = (
        "trap '' TERM; (setsid sh -c 'while :; do sleep 999 & sleep 0.02; done' &); echo $$ >\"$BELL\"; sleep 1000"
    )
    handle = runner.start(replace(spec, command=command))
    bell.pid()
    stop(runner, handle, grace=0.1)
    mark = f"PENSTOCK_PROCESS={spec.id}@{spec.record}".encode()
    assert not [entry for entry in Path("/proc").glob("[0-9]*/environ") if mark in read(entry)]


def test_end_gently(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A process that takes TERM to save its work has its grace, and its own exit code counts."""
    command = "trap 'echo saved; exit 4' TERM; echo $$ >\"$BELL\"; sleep 1000 & wait"
    handle = runner.start(replace(spec, command=command))
    bell.pid()
    end = stop(runner, handle, grace=PATIENCE)
    assert (end.exit_code, output(handle, end)) == (4, "saved\n")


def test_end_stopped(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A process that was stopped (SIGSTOP) hears the TERM."""
    handle = runner.start(replace(spec, command=SERVER))
    os.kill(bell.pid(), signal.SIGSTOP)
    assert stop(runner, handle, grace=PATIENCE).exit_code == -15


@pytest.mark.parametrize("command", ["true", "true $$", "sleep 1000"])
def test_end_at_once(runner: ProcessRunner, spec: ProcessSpec, command: str) -> None:
    """Ending a process in the moment of its start ends it, whatever its shim was just doing."""
    for number in range(10):
        handle = runner.start(replace(spec, id=str(number), command=command))
        assert stop(runner, handle).exit_code in {0, -15, None}
        assert gone(handle.pid)


@pytest.mark.parametrize("detach", ["", "setsid "])
def test_leftovers(runner: ProcessRunner, spec: ProcessSpec, bell: Bell, detach: str) -> None:
    """What a process leaves in the background is ended before `wait` returns, so that the log's range is final."""
    command = f'{detach}sh -c \'trap "" TERM; echo $$ >"$BELL"; sleep 1000; echo late\' & read -r x <"$GATE"; exit 2'
    gate = Bell(spec.log.with_name("gate"))
    handle = runner.start(replace(spec, command=command))
    left = bell.pid()
    gate.ring()
    end = asyncio.run(runner.wait(handle))
    gate.close()
    assert gone(left)
    assert (end.exit_code, end.log_end) == (2, spec.log.stat().st_size)


def test_leftovers_in_exec(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """What is left in the very moment of becoming another program in another session is not overlooked."""
    for number in range(20):
        run(runner, replace(spec, id=str(number), command="setsid sleep 7654 & exit 0"))
    sleeping = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"7654" in read(entry)]
    assert not sleeping


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def test_shim_killed(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A shim that is killed with -9 is seen at once; the rest of its tree is ended and the process is lost."""
    handle = runner.start(replace(spec, command=SERVER))
    left = bell.pid()
    os.kill(handle.pid, signal.SIGKILL)

    async def quickly() -> Ending:
        return await asyncio.wait_for(runner.wait(handle), 2)

    assert asyncio.run(quickly()).lost
    assert gone(left)
    assert not runner.alive(handle)


def test_ended_while_waiting(runner: ProcessRunner, spec: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """Who waits does not cut short the grace of who ends, even where the shim has died."""
    save = 'trap "read x <\\"$GATE\\"; echo saved; exit" TERM; echo $$ >"$BELL"; sleep 1000 & wait'
    variables = {**spec.variables, "SAVE": save}
    command = 'trap : TERM; sh -c "$SAVE"; exit 1'
    handle = runner.start(replace(spec, command=command, variables=variables))
    left = bell.pid()

    async def both() -> Ending:
        waiting = asyncio.ensure_future(runner.wait(handle))
        await asyncio.sleep(0)
        ending = asyncio.ensure_future(runner.end(handle, PATIENCE))
        await asyncio.sleep(0)
        os.kill(handle.pid, signal.SIGKILL)
        gate.ring()
        end = await waiting
        assert ending.done()
        await ending
        return end

    end = asyncio.run(both())
    assert end.lost
    assert output(handle, end) == "saved\n"
    assert gone(left)


# --- kept processes ------------------------------------------------------------------------------------------------


def test_kept_restarts(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """A kept process whose starter is dead comes back after kill -9, is counted, and leaves by its stop file."""
    handle = start_elsewhere(replace(spec, command=SERVER, kept=True))
    first = bell.pid()
    assert (runner.alive(handle), runner.starts(handle), runner.last_exit(handle)) == (True, 1, None)
    os.kill(first, signal.SIGKILL)
    second = bell.pid()
    assert (runner.alive(handle), runner.starts(handle), runner.last_exit(handle)) == (True, 2, -9)
    assert runner.find(spec.id, spec.record) == handle
    assert handle.folder is not None
    (Path(handle.folder) / "stop").touch()
    os.kill(second, signal.SIGTERM)
    assert asyncio.run(runner.wait(handle)).exit_code == -15
    assert runner.starts(handle) == 2


def test_kept_forwards(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """TERM to the shim alone reaches the server, whose graceful end is waited for; it is not started again."""
    command = "trap 'exit 5' TERM; echo $$ >\"$BELL\"; sleep 1000 & wait"
    handle = runner.start(replace(spec, command=command, kept=True))
    server = bell.pid()
    os.kill(handle.pid, signal.SIGTERM)
    assert asyncio.run(runner.wait(handle)).exit_code == 5
    assert gone(server)
    assert runner.starts(handle) == 1


def test_kept_sweeps(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """What a crashed server left in its session is ended before the next start, since it would hold the port."""
    command = 'sh -c \'echo $$ >"$BELL"; exec sleep 1000\' & read -r x <"$GATE"; exit 1'
    gate = Bell(spec.log.with_name("gate"))
    handle = runner.start(replace(spec, command=command, kept=True))
    left = bell.pid()
    gate.ring()
    assert bell.pid() != left
    assert gone(left)
    stop(runner, handle)
    gate.close()
    assert runner.last_exit(handle) == -15


def test_kept_backs_off(runner: ProcessRunner, spec: ProcessSpec, bell: Bell) -> None:
    """Between the starts of a server that ends at once the shim waits 0.2 s, then twice as long."""
    handle = runner.start(replace(spec, command='cut -d" " -f1 /proc/uptime >"$BELL"; exit 3', kept=True))
    first, second, third = (float(bell.line()) for _ in range(3))
    assert second - first >= 0.19
    assert third - second >= 0.39
    stop(runner, handle)
    assert runner.starts(handle) == 3


def test_kept_stopped_before(runner: ProcessRunner, spec: ProcessSpec) -> None:
    """A kept process whose stop file is there already starts nothing."""
    assert spec.folder is not None
    shim.stop_file(spec.folder).touch()
    handle = runner.start(replace(spec, command=SERVER, kept=True))
    assert asyncio.run(runner.wait(handle)) == Ending(0, 0)
    assert runner.starts(handle) == 0


@pytest.mark.parametrize(
    ("terms", "read"),
    [
        ('{"groups": ["/g"], "masked": true, "later": 1}', records.Terms(groups=("/g",), masked=True)),
        ('{"oom_kills": "x"}', None),
        ('{"groups": "/g"}', None),
        ("[]", None),
    ],
)
def test_terms(terms: str, read: records.Terms | None) -> None:
    """A description tells how a process is held; what a later version adds is passed over, damage is no description."""
    placed = records.read_description(f'["a", "/log", 5, false, null, {terms}]')
    assert (placed.terms if placed is not None else None) == read
