"""Secrets: what a process writes goes through a masker before it reaches the disk, or not at all."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engine.contracts import Ending, ProcessSpec
from penstock.errors import EngineError
from penstock.runners import shim, trees
from penstock.runners.process import MASKER, ProcessRunner
from runners.processes import Bell, children, gone, output, run, start_elsewhere, stop

SECRET = "correct horse battery"

# A masker that is slow to begin and says what it was given.
SLOW_TEXT = """
import os, sys, time
data = sys.stdin.buffer.read()
time.sleep(0.2)
print(len(data), os.environ["PENSTOCK_MASK"], len(os.environ))
"""
SLOW = (sys.executable, "-I", "-c", SLOW_TEXT)


@pytest.fixture(params=[False, True])
def secretive(request: pytest.FixtureRequest, spec: ProcessSpec) -> ProcessSpec:
    variables = {**spec.variables, "TOKEN": SECRET}
    return replace(spec, variables=variables, secrets=("TOKEN",), contain=request.param)


def ending(runner: ProcessRunner, spec: ProcessSpec) -> Ending:
    return asyncio.run(runner.wait(runner.start(spec)))


def nowhere(folder: Path) -> bool:
    """Whether no file below the folder holds the secret."""
    return not [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    "command", ['echo "$TOKEN"; echo "$TOKEN" >&2; exit 3', 'env | grep TOKEN; cat "$TOKEN"; exit 3']
)
def test_masked(secretive: ProcessSpec, tmp_path: Path, command: str) -> None:
    """Neither stdout nor stderr shows the secret anywhere on disk; the exit code is the text's own."""
    code, said = run(ProcessRunner(), replace(secretive, command="set +e; " + command))
    assert code == 3
    assert "***" in said
    assert nowhere(tmp_path)


def test_not_before_the_masker(secretive: ProcessSpec) -> None:
    """The ending is told only when the masker has written everything; it knows the secrets and nothing else."""
    runner = ProcessRunner(masker=SLOW)
    handle = runner.start(replace(secretive, command="echo hello; exit 4"))
    end = asyncio.run(runner.wait(handle))
    # PENSTOCK_MASK, TOKEN, the marker, and what a shell and an interpreter set.
    size, names, variables = output(handle, end).split()
    assert (end.exit_code, size, names) == (4, "6", "TOKEN")
    assert int(variables) <= 6


@pytest.mark.parametrize("masker", [("/bin/false",), ("/nowhere",), ("/bin/sh", "-c", "kill -9 $$")])
def test_broken_masker(secretive: ProcessSpec, tmp_path: Path, masker: tuple[str, ...]) -> None:
    """A masker that fails, is missing or dies loses the process, and nothing raw reaches the disk."""
    end = ending(ProcessRunner(masker=masker), replace(secretive, command='echo "$TOKEN"; exit 0'))
    assert end.lost
    assert nowhere(tmp_path)


def test_masker_killed(secretive: ProcessSpec, tmp_path: Path, bell: Bell) -> None:
    """A masker that is killed in the midst loses the process, whose writes then fail; nothing raw is left."""
    runner = ProcessRunner()
    command = 'echo up >"$BELL"; while :; do echo "$TOKEN"; sleep 0.01; done'
    handle = runner.start(replace(secretive, command=command))
    bell.line()
    for pid in trees.marked(shim.masker_marker(handle.id, handle.record)):
        os.kill(pid, signal.SIGKILL)
    assert asyncio.run(runner.wait(handle)).lost
    assert nowhere(tmp_path)


def test_adopted(secretive: ProcessSpec, tmp_path: Path, bell: Bell, gate: Bell) -> None:
    """The masker outlives a killed starter as its process does, and who finds the process gets all of its output."""
    command = 'echo up >"$BELL"; read -r x <"$GATE"; echo "late $TOKEN"; exit 5'
    handle = start_elsewhere(replace(secretive, command=command))
    bell.line()
    runner = ProcessRunner()
    assert runner.find(handle.id, secretive.record) == handle
    gate.ring()
    end = asyncio.run(runner.wait(handle))
    assert (end.exit_code, output(handle, end)) == (5, "late ***\n")
    assert asyncio.run(ProcessRunner().wait(handle)) == end
    assert nowhere(tmp_path)


def test_leftovers(secretive: ProcessSpec, bell: Bell) -> None:
    """What a process leaves behind does not keep its masker: it is ended, and the masker reads the end."""
    command = "setsid sh -c 'trap \"\" TERM; sleep 1000' & echo said; exit 2"
    code, text = run(ProcessRunner(), replace(secretive, command=command))
    assert (code, text.splitlines()[0]) == (2, "said")  # what is left may have its own shell say "Killed"


def test_end(secretive: ProcessSpec, bell: Bell) -> None:
    """What is written in the grace after a TERM is masked and kept, and no masker is left."""
    command = 'trap \'echo "saved $TOKEN"; exit 4\' TERM; echo up >"$BELL"; sleep 1000 & wait'
    runner = ProcessRunner()
    handle = runner.start(replace(secretive, command=command))
    bell.line()
    end = stop(runner, handle)
    assert (end.exit_code, output(handle, end)) == (4, "saved ***\n")
    assert not trees.marked(shim.masker_marker(handle.id, handle.record))
    assert gone(handle.pid)


def test_kept(secretive: ProcessSpec, bell: Bell) -> None:
    """A kept process has one masker over all its starts."""
    runner = ProcessRunner()
    command = 'echo "$TOKEN" x; echo up >"$BELL"; exit 1'
    handle = runner.start(replace(secretive, command=command, kept=True))
    bell.line()
    bell.line()
    end = stop(runner, handle)
    assert output(handle, end).startswith("*** x\n*** x\n")


def test_live(secretive: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """A follower sees a line while the process still runs."""
    runner = ProcessRunner()
    command = 'echo line; echo up >"$BELL"; read -r x <"$GATE"; exit 0'
    handle = runner.start(replace(secretive, command=command))
    bell.line()
    while secretive.log.read_bytes() != b"line\n":
        os.sched_yield()
    gate.ring()
    assert asyncio.run(runner.wait(handle)).exit_code == 0


def test_no_leak(secretive: ProcessSpec) -> None:
    """Masked processes leave no descriptor and no zombie with us."""
    ours, runner = children(), ProcessRunner()
    run(runner, secretive)
    before = set(Path("/proc/self/fd").iterdir())
    run(runner, replace(secretive, id="2"))
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert children() <= ours


def test_unknown_secret(spec: ProcessSpec) -> None:
    """A secret that is none of the variables is refused, since nothing could be masked."""
    with pytest.raises(EngineError, match="has a secret 'TOKEN' that is none of its variables: set it"):
        ProcessRunner().start(replace(spec, secrets=("TOKEN",)))


def test_masker_stands() -> None:
    """The masker that is used is the one that ships."""
    assert Path(MASKER[-1]).is_file()
