"""Contained processes: nothing of a tree gets away, by whatever this machine holds it (FAULTS 3, 4, 16)."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from penstock.engine.contracts import Handle, ProcessSpec
from penstock.runners import containment, groups, records, shim, trees
from penstock.runners.containment import SESSION, Containment
from penstock.runners.process import ProcessRunner
from runners.processes import PATIENCE, Bell, children, output, run, start_elsewhere, stop


def namespaces() -> dict[str, Containment]:
    return {found.name: found for found in containment._namespaces()}


def by_name(name: str) -> Containment:
    """The way to contain with this name; skips, or fails under CI, where this machine has it not."""
    if name == "session and sweeps":
        return SESSION
    if name == "cgroup":
        base = groups.freezing_base()
        found = Containment("cgroup", "cgroup", base=base) if base is not None else None
    else:
        found = namespaces().get(name)
        found = found if found is not None and containment._works(found.prefix) else None
    if found is None:
        reason = f"no {name} on this machine"
        if os.environ.get("CI") == "true" and name in {
            "pid namespace (unshare, user namespace)",
            "pid namespace (bwrap)",
        }:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


NAMESPACES = ["pid namespace (unshare)", "pid namespace (unshare, user namespace)", "pid namespace (bwrap)"]
Way = Callable[[], Containment]


@pytest.fixture(params=NAMESPACES)
def namespace(request: pytest.FixtureRequest) -> Way:
    found = by_name(request.param)
    return lambda: found


@pytest.fixture(params=[*NAMESPACES, "cgroup"])
def tight(request: pytest.FixtureRequest) -> Way:
    """What nothing escapes from."""
    found = by_name(request.param)
    return lambda: found


@pytest.fixture(params=[*NAMESPACES, "cgroup", "session and sweeps"])
def way(request: pytest.FixtureRequest) -> Way:
    found = by_name(request.param)
    return lambda: found


@pytest.fixture
def contained(spec: ProcessSpec) -> ProcessSpec:
    return replace(spec, contain=True)


class Victim:
    """A sleep with a length that no other has, so that it is found whatever it did to its environment."""

    def __init__(self) -> None:
        self.seconds = f"{10_000 + uuid4().int % 1_000_000}"
        self.sleep = f"sleep {self.seconds}"

    def survivors(self) -> list[int]:
        return [pid for pid in trees.all_numbers() if b"\0%s\0" % self.seconds.encode() in cmdline(pid)]


def cmdline(pid: int) -> bytes:
    return trees.read(f"/proc/{pid}/cmdline")


@pytest.fixture
def victim() -> Victim:
    return Victim()


def test_found() -> None:
    """The containment that is used is told in words, and passed its trial."""
    runner = ProcessRunner()
    assert runner.containment in {*NAMESPACES, "cgroup", SESSION.name}
    if os.geteuid() == 0 and shutil.which("unshare"):
        assert "namespace" in runner.containment or "CAP_SYS_ADMIN" not in os.environ


def test_not_asked_for(contained: ProcessSpec) -> None:
    """A process that does not ask to be contained costs no trial and no namespace."""

    def refuse() -> Containment:
        raise AssertionError("nobody asked for it")

    said = run(ProcessRunner(refuse), replace(contained, contain=False, command="readlink /proc/self/ns/pid"))
    assert said == (0, f"{trees.space(os.getpid())}\n")


def test_a_bad_tool_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An `unshare` that does not do what is needed (say busybox's) is found out, and the next way is taken."""
    fake = tmp_path / "unshare"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert containment.find_containment().kind in {"cgroup", "session"}


@pytest.mark.parametrize(
    ("command", "code"),
    [("true", 0), ("exit 3", 3), ("exec sh -c 'exit 6'", 6), ("kill -9 $$", -9), ("kill $$; sleep 1000", -15),
     ("if", 2), ("nosuchcommand", 127), ("trap 'exit 7' EXIT", 7), ("sh -c 'kill -9 $$'", -9),
     ("exit 255", 255)],
)  # fmt: skip
def test_codes(way: Way, contained: ProcessSpec, command: str, code: int) -> None:
    """The exit code passes through whatever contains the process."""
    assert run(ProcessRunner(way), replace(contained, command=command))[0] == code


def test_same_person_same_files(way: Way, contained: ProcessSpec) -> None:
    """Inside are the same user, the same files and the variables that were given; what is written stays."""
    command = 'id -u; pwd; ls -A /; echo "$A" >written; true $$'
    _, said = run(
        ProcessRunner(way), replace(contained, command=command, variables={"PATH": "/usr/bin:/bin", "A": "b"})
    )
    assert said.split() == [
        str(os.getuid()),
        str(contained.workspace),
        *sorted(path.name for path in Path("/").iterdir()),
    ]
    assert (contained.workspace / "written").read_text() == "b\n"


def test_own_processes(namespace: Way, contained: ProcessSpec) -> None:
    """In a namespace `ps` and /proc show what is inside and nothing else."""
    _, said = run(ProcessRunner(namespace), replace(contained, command="echo /proc/[0-9]*; true $$"))
    assert len(said.split()) == 2


@pytest.mark.parametrize("length", [0, 200_000])
def test_long_text(way: Way, contained: ProcessSpec, length: int) -> None:
    """A text of any length runs contained."""
    assert run(ProcessRunner(way), replace(contained, command="echo $((1 + 1)); exit 3 #" + "x" * length)) == (3, "2\n")


ESCAPES = {
    "ignores TERM": "trap '' TERM; $SLEEP & echo up >\"$BELL\"; while :; do sleep 1000; done",
    "forks twice into a session": "(setsid sh -c '($SLEEP &)' &); echo up >\"$BELL\"; sleep 1000",
    "empties its environment": 'setsid env -i sh -c "$SLEEP & $SLEEP" & $SLEEP & echo up >"$BELL"; sleep 1000',
    "forks while killed": "trap '' TERM; (setsid env -i sh -c \"while :; do setsid $SLEEP & sleep 0.01; done\" &);"
    ' echo up >"$BELL"; sleep 1000',
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_escapes(tight: Way, contained: ProcessSpec, bell: Bell, victim: Victim, escape: str) -> None:
    """What forks, hides and ignores is gone when `end` returns, and the ending is told."""
    variables = {**contained.variables, "SLEEP": victim.sleep}
    runner = ProcessRunner(tight)
    handle = runner.start(replace(contained, command=ESCAPES[escape], variables=variables))
    bell.line()
    while not victim.survivors():
        os.sched_yield()
    end = stop(runner, handle, grace=0.1)
    assert not victim.survivors()
    assert end.exit_code in {-9, -15}


@pytest.mark.parametrize("escape", ["setsid env -i sh -c '{}' &", "(setsid env -i {} &);"])
def test_leftovers(tight: Way, contained: ProcessSpec, victim: Victim, escape: str) -> None:
    """What a process leaves when it ends by itself is gone when `wait` returns, whatever it did to hide."""
    command = escape.format(victim.sleep) + " exit 5"
    assert run(ProcessRunner(tight), replace(contained, command=command))[0] == 5
    assert not victim.survivors()


def test_end_gently(way: Way, contained: ProcessSpec, bell: Bell) -> None:
    """TERM reaches what is inside, which has its grace, and its own exit code counts."""
    command = "trap 'echo saved; exit 4' TERM; echo up >\"$BELL\"; sleep 1000 & wait"
    runner = ProcessRunner(way)
    handle = runner.start(replace(contained, command=command))
    bell.line()
    end = stop(runner, handle, grace=PATIENCE)
    assert (end.exit_code, output(handle, end)) == (4, "saved\n")


def test_end_stopped(way: Way, contained: ProcessSpec, bell: Bell) -> None:
    """What stopped itself (SIGSTOP) hears the TERM."""
    runner = ProcessRunner(way)
    handle = runner.start(replace(contained, command='(echo up >"$BELL"; kill -STOP $$); sleep 1000; true $$'))
    bell.line()
    assert stop(runner, handle, grace=PATIENCE).exit_code == -15


@pytest.mark.parametrize("command", ["true", "true $$", "sleep 1000"])
def test_end_at_once(way: Way, contained: ProcessSpec, command: str) -> None:
    """Ending a process in the moment of its start ends it, whatever its shim was just doing."""
    runner = ProcessRunner(way)
    for number in range(10):
        handle = runner.start(replace(contained, id=str(number), command=command))
        assert stop(runner, handle).exit_code in {0, -15, None}
        assert not trees.lives(handle)


def test_adopted(way: Way, contained: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """A contained process outlives its killed starter, is found by its id, and is waited for by who finds it."""
    command = 'echo before; echo up >"$BELL"; read -r x <"$GATE"; echo after; exit 5'
    handle = start_elsewhere(replace(contained, command=command), way())
    bell.line()
    runner = ProcessRunner(way)
    assert runner.find(contained.id, contained.record) == handle
    assert runner.alive(handle)

    async def wait() -> tuple[int | None, str]:
        waiting = asyncio.ensure_future(runner.wait(handle))
        await asyncio.sleep(0)
        gate.ring()
        end = await waiting
        return end.exit_code, output(handle, end)

    assert asyncio.run(wait()) == (5, "before\nafter\n")


def test_adopted_and_ended(tight: Way, contained: ProcessSpec, bell: Bell, victim: Victim) -> None:
    """Who has only the handle of a contained process ends all of it."""
    handle = start_elsewhere(
        replace(contained, command=f"trap '' TERM; setsid env -i {victim.sleep} & echo up >\"$BELL\"; {victim.sleep}"),
        tight(),
    )
    bell.line()
    assert stop(ProcessRunner(tight), handle, grace=0.1).exit_code == -9
    assert not victim.survivors()


def test_found_ended(way: Way, contained: ProcessSpec) -> None:
    """A contained process that ended before it was found has its exit code, and nobody else's number."""
    runner = ProcessRunner(way)
    asyncio.run(runner.wait(runner.start(replace(contained, command="echo x; exit 3"))))
    found = runner.find(contained.id, contained.record)
    assert found is not None
    assert not runner.alive(found)
    end = asyncio.run(runner.wait(found))
    assert (end.exit_code, end.log_end, runner.starts(found)) == (3, 2, 1)


def test_shim_killed(tight: Way, contained: ProcessSpec, bell: Bell, victim: Victim) -> None:
    """A shim that is killed with -9 is seen at once, its whole tree goes with it, and the process is lost."""
    command = f'setsid env -i {victim.sleep} & echo up >"$BELL"; {victim.sleep}'
    runner = ProcessRunner(tight)
    handle = runner.start(replace(contained, command=command))
    bell.line()
    os.kill(handle.pid, signal.SIGKILL)

    async def quickly() -> bool:
        return (await asyncio.wait_for(runner.wait(handle), 2)).lost

    assert asyncio.run(quickly())
    assert not victim.survivors()


def test_first_killed(namespace: Way, contained: ProcessSpec, bell: Bell, victim: Victim) -> None:
    """A namespace whose first process is killed from outside takes everything with it, and the process is lost."""
    runner = ProcessRunner(namespace)
    handle = runner.start(replace(contained, command=f'echo up >"$BELL"; {victim.sleep}; true $$'))
    bell.line()
    tree = runner._tree(handle, records.notes_of(handle.record, handle.id).terms, sure=True)
    members = tree.members()
    inside = members.keys() - tree.outer(members)
    (first,) = [pid for pid in inside if members[pid].parent not in inside]
    os.kill(first, signal.SIGKILL)
    assert asyncio.run(runner.wait(handle)).lost
    assert not victim.survivors()


def test_kept(way: Way, contained: ProcessSpec, bell: Bell, victim: Victim) -> None:
    """A kept process is restarted inside; what a crashed start left there is ended before the next one."""
    command = '$SLEEP & echo up >"$BELL"; read -r x <"$GATE"; exit 1'
    gate = Bell(contained.log.with_name("gate"))
    runner = ProcessRunner(way)
    variables = {**contained.variables, "SLEEP": victim.sleep}
    handle = runner.start(replace(contained, command=command, kept=True, variables=variables))
    bell.line()
    gate.ring()
    bell.line()
    while len(victim.survivors()) > 1:
        os.sched_yield()
    assert (runner.alive(handle), runner.starts(handle), runner.last_exit(handle)) == (True, 2, 1)
    stop(runner, handle)
    gate.close()
    assert not victim.survivors()
    assert shim.stop_file(Path(handle.folder or "")).exists()


def test_no_traces(way: Way, contained: ProcessSpec) -> None:
    """A contained process leaves no cgroup, no mount and no zombie behind."""
    ours, mounts = children(), Path("/proc/self/mountinfo").read_text()
    runner = ProcessRunner(way)
    handle = runner.start(contained)
    asyncio.run(runner.wait(handle))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    held = records.notes_of(handle.record, handle.id).terms.groups
    assert bool(held) == (way().kind == "cgroup")
    assert not any(Path(group).exists() for group in held), "only its own: others' processes live beside it"
    assert children() <= ours


def test_other_shims_are_spared(way: Way, contained: ProcessSpec, bell: Bell) -> None:
    """Ending one process leaves its neighbour alone."""
    runner = ProcessRunner(way)
    handles: list[Handle] = []
    for name in ("one", "two"):
        record = contained.record.with_name(name)
        handles.append(runner.start(replace(contained, id=name, record=record, command='echo up >"$BELL"; sleep 1000')))
        bell.line()
    stop(runner, handles[0])
    assert runner.alive(handles[1])
    stop(runner, handles[1])


def test_trial_is_quick_to_refuse() -> None:
    """A way that cannot be executed is no way."""
    assert not containment._works(("/nowhere/unshare",))
    assert not containment._works(("/bin/true",))


def test_without_util_linux_there_is_still_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither tool in the PATH a cgroup, else the session, is used."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert containment.find_containment().kind in {"cgroup", "session"}
    assert subprocess.run(["/bin/sh", "-c", "true"], check=False).returncode == 0
