"""Limits: memory of a whole tree, open files, and an end for want of memory told from all others (FAULTS 18)."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engine.contracts import Ending, ProcessSpec
from penstock.errors import EngineError
from penstock.runners import groups, records
from penstock.runners.process import ProcessRunner
from runners.processes import Bell, gone, run, start_elsewhere, stop

MIB = 1024**2

# Half a GiB, written to, in steps that leave time to be seen.
HOG = """
import time
held = []
for _ in range(64):
    held.append(bytearray(b'x') * (8 << 20))
    time.sleep(0.01)
print('held it all', len(held))
"""


def ending(runner: ProcessRunner, spec: ProcessSpec) -> Ending:
    return asyncio.run(runner.wait(runner.start(spec)))


@pytest.fixture(params=["cgroup", "watched"])
def limiting(request: pytest.FixtureRequest) -> Callable[[], Path | None]:
    """Both ways to enforce a limit; skips where no cgroup can be made."""
    if request.param == "watched":
        return lambda: None
    base = groups.memory_base()
    if base is None:
        pytest.skip("no memory cgroup can be made on this machine")
    return lambda: base


@pytest.fixture(params=[False, True])
def limited(request: pytest.FixtureRequest, spec: ProcessSpec) -> ProcessSpec:
    return replace(spec, contain=request.param, memory=100 * MIB, shell="python", command=HOG)  # noqa: S604 - a name of ours


def test_too_much(limiting: Callable[[], Path | None], limited: ProcessSpec) -> None:
    """A process that takes more than its limit is killed, and that is told from every other end."""
    end = ending(ProcessRunner(memory_base=limiting), limited)
    assert (end.exit_code, end.oom) == (-9, True)


def test_too_much_together(limiting: Callable[[], Path | None], limited: ProcessSpec) -> None:
    """The limit is of the tree: three processes that each stay below it are too much together.

    Which of them the kernel ends is its own choice, so the first one fails when it has lost another.
    """
    held = HOG.replace("range(64)", "range(8)")
    command = (
        "import os\nfirst = os.fork() != 0 and os.fork() != 0\n"
        f"{held}if first:\n    os.wait()\n    raise SystemExit(1)\ntime.sleep(1000)\n"
    )
    assert ending(ProcessRunner(memory_base=limiting), replace(limited, command=command)).oom


def test_enough(limiting: Callable[[], Path | None], limited: ProcessSpec) -> None:
    """A process within its limit notices nothing of it; what it ends with is its own."""
    command = HOG.replace("range(64)", "range(4)") + "raise SystemExit(3)"
    assert ending(ProcessRunner(memory_base=limiting), replace(limited, command=command)).exit_code == 3
    assert not ending(
        ProcessRunner(memory_base=limiting), replace(limited, id="2", command="import os; os.kill(os.getpid(), 9)")
    ).oom


def test_shared_memory_counts_once(spec: ProcessSpec) -> None:
    """What forked processes share is not counted for each of them, where nobody but us counts."""
    command = HOG.replace("range(64)", "range(8)") + "import os\nos.fork(); os.fork()\ntime.sleep(0.7)"
    watched = ProcessRunner(memory_base=lambda: None)
    sharing = replace(spec, memory=150 * MIB, shell="python", command=command)  # noqa: S604 - a name of ours
    assert ending(watched, sharing).exit_code == 0


def test_adopted(limited: ProcessSpec) -> None:
    """Who waits for a process that a killed starter left tells its end for want of memory, and tells it again."""
    handle = start_elsewhere(limited)
    runner = ProcessRunner()
    end = asyncio.run(runner.wait(handle))
    assert end.oom
    assert asyncio.run(ProcessRunner().wait(handle)) == end


def test_no_group_left(limited: ProcessSpec) -> None:
    """The cgroup of a limited process is gone when its ending is told."""
    runner = ProcessRunner()
    handle = runner.start(limited)
    asyncio.run(runner.wait(handle))
    assert not [group for group in records.notes_of(handle.record, handle.id).terms.groups if Path(group).exists()]


def test_survived_child(spec: ProcessSpec) -> None:
    """A step that passes although a child of its was killed for memory has passed."""
    base = groups.memory_base()
    if base is None:
        pytest.skip("no memory cgroup can be made on this machine")
    variables = {**spec.variables, "HOG": HOG}
    limited = replace(spec, memory=100 * MIB, command='python3 -c "$HOG" || exit 0', variables=variables)
    end = ending(ProcessRunner(memory_base=lambda: base), limited)
    assert (end.exit_code, end.oom) == (0, False)


def test_killed_by_somebody(spec: ProcessSpec, bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KILL while the machine's count of OOM kills rose is the kernel's; one without, or after `end`, is not."""
    count = [5]
    monkeypatch.setattr(groups, "oom_kills_of_the_machine", lambda: count[0])
    monkeypatch.setattr(groups, "spared", lambda: False)
    runner = ProcessRunner()
    command = "sh -c 'echo $$ >\"$BELL\"; exec sleep 1000'"

    def killed(name: str, rise: int) -> Ending:
        handle = runner.start(replace(spec, id=name, command=command))
        pid = bell.pid()
        count[0] += rise
        os.kill(pid, signal.SIGKILL)
        return asyncio.run(runner.wait(handle))

    ends = [killed("one", 0), killed("two", 1)]
    assert [(end.exit_code, end.oom) for end in ends] == [(-9, False), (-9, True)]
    starter = ProcessRunner()
    handle = starter.start(replace(spec, id="three", command="trap '' TERM; " + command))
    pid = bell.pid()
    count[0] += 1
    end = stop(runner, handle, grace=0.1)
    assert (end.exit_code, end.oom) == (-9, False)
    assert asyncio.run(starter.wait(handle)) == end
    assert gone(pid)


@pytest.mark.parametrize("contain", [False, True])
def test_open_files(spec: ProcessSpec, *, contain: bool) -> None:
    """A limit of open files holds for the text, in every form of the shim."""
    for number, command in enumerate(("ulimit -n; ulimit -Hn", "ulimit -n; ulimit -Hn; true $$")):
        limited = replace(spec, id=str(number), command=command, open_files=123, contain=contain)
        assert run(ProcessRunner(), limited) == (0, "123\n123\n")


@pytest.mark.parametrize("limit", [15, 2_000_000_000])
def test_open_files_refused(spec: ProcessSpec, limit: int) -> None:
    """A number of files that nobody can be given is refused in a sentence that says what can be."""
    with pytest.raises(EngineError, match=f"is limited to {limit} open files: give it 16 to"):
        ProcessRunner().start(replace(spec, open_files=limit))


def test_group_is_refused(tmp_path: Path, spec: ProcessSpec) -> None:
    """A cgroup that cannot be made any more is one sentence, and nothing is started."""
    runner = ProcessRunner(memory_base=lambda: tmp_path / "gone")
    with pytest.raises(EngineError, match=r"the control group .* cannot be made: no such file"):
        runner.start(replace(spec, memory=100 * MIB))
    assert runner.find(spec.id, spec.record) is None
