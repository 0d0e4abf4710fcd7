"""The Runner contract, on every implementation. What only real processes can show is in tests/runners."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from engine.invented import play
from penstock.engine.contracts import Ending, Handle, ProcessSpec, Runner
from penstock.errors import EngineError
from penstock.runners import groups
from penstock.runners.container import ContainerRunner
from penstock.runners.process import ProcessRunner
from penstock.runners.scripted import LOST, NEVER, Act, ScriptedRunner


class Counting(Runner, Protocol):
    """A runner that also tells how often a kept process was started."""

    def starts(self, handle: Handle) -> int: ...

    def last_exit(self, handle: Handle) -> int | None: ...


LOSE = "kill -9 $PPID"
SLEEP = "exec sleep 1000"
HOG = "held = bytearray(b'x') * (256 << 20)"


def scripted() -> ScriptedRunner:
    """What the commands of this suite do, as a script."""
    return ScriptedRunner(
        {
            "exit 3": 3,
            "kill -9 $$": -9,
            LOSE: LOST,
            SLEEP: NEVER,
            HOG: Act(exit_code=-9, oom=True),
            "echo one": Act(output="one\n"),
            "echo two": Act(output="two\n", exit_code=1),
        }
    )


@pytest.fixture(params=["process", "scripted", "container"])
def runner(request: pytest.FixtureRequest) -> Counting:
    if request.param == "container":
        return ContainerRunner(request.getfixturevalue("container_engine"))
    makes: dict[str, Callable[[], Counting]] = {"process": ProcessRunner, "scripted": scripted}
    return makes[request.param]()


@pytest.fixture
def plain(tmp_path: Path) -> ProcessSpec:
    """A process without an image."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return ProcessSpec(
        id="r1/train[seed=0].1",
        command="true",
        workspace=workspace,
        variables={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        log=tmp_path / "log",
        record=tmp_path / "record",
    )


@pytest.fixture
def spec(runner: Counting, plain: ProcessSpec, request: pytest.FixtureRequest) -> ProcessSpec:
    if isinstance(runner, ContainerRunner):
        return replace(plain, image=request.getfixturevalue("base_image"))
    return plain


def ending(runner: Runner, spec: ProcessSpec) -> Ending:
    return asyncio.run(runner.wait(runner.start(spec)))


def output(handle: Handle, end: Ending) -> bytes:
    return Path(handle.log).read_bytes()[handle.log_start : end.log_end]


async def stop(runner: Runner, handle: Handle) -> Ending:
    await runner.end(handle, 5)
    return await runner.wait(handle)


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", -9)])
def test_exit_code(runner: Counting, spec: ProcessSpec, command: str, code: int) -> None:
    """The ending tells the exit code, and minus the signal for one that was killed."""
    assert ending(runner, replace(spec, command=command)).exit_code == code


def test_lost(runner: Counting, spec: ProcessSpec) -> None:
    """A process that nobody recorded the end of is lost, and has no exit code."""

    async def lost() -> Ending:
        if not isinstance(runner, ContainerRunner):
            return await runner.wait(runner.start(replace(spec, command=LOSE)))
        # From inside a container nothing reaches the shim.
        handle = runner.start(replace(spec, command=SLEEP))
        os.kill(handle.pid, signal.SIGKILL)
        return await runner.wait(handle)

    end = asyncio.run(lost())
    assert end.lost
    assert end.exit_code is None


def test_shared_log(runner: Counting, spec: ProcessSpec) -> None:
    """Two processes that share log and record one after the other each have their own range and code."""

    async def both() -> list[tuple[Handle, Ending]]:
        pairs = []
        for name in ("one", "two"):
            code = {"one": "", "two": "; exit 1"}[name]
            handle = runner.start(replace(spec, id=name, command=f"echo {name}{code}"))
            pairs.append((handle, await runner.wait(handle)))
        return pairs

    (one, first), (two, second) = asyncio.run(both())
    assert output(one, first) == b"one\n"
    assert output(two, second) == b"two\n"
    assert (first.exit_code, second.exit_code) == (0, 1)


def test_late_wait(runner: Counting, spec: ProcessSpec) -> None:
    """Whoever waits after the end, even after a successor wrote to the same log, gets the same ending again."""
    handle = runner.start(replace(spec, id="one", command="echo one"))
    first = asyncio.run(runner.wait(handle))
    ending(runner, replace(spec, id="two", command="echo two; exit 1"))
    assert asyncio.run(runner.wait(handle)) == first
    assert output(handle, first) == b"one\n"


def test_two_waiters(runner: Counting, spec: ProcessSpec) -> None:
    """Two who wait at once get the same ending."""

    async def two() -> tuple[Ending, Ending]:
        handle = runner.start(replace(spec, command="exit 3"))
        return await asyncio.gather(runner.wait(handle), runner.wait(handle))

    first, second = asyncio.run(two())
    assert first == second == Ending(3, 0)


def test_cancelled_wait(runner: Counting, spec: ProcessSpec) -> None:
    """A wait that is cancelled leaves the process alone; a later one works."""

    async def cancelled() -> Ending:
        handle = runner.start(replace(spec, command=SLEEP))
        waiting = asyncio.ensure_future(runner.wait(handle))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert runner.alive(handle)
        return await stop(runner, handle)

    assert asyncio.run(cancelled()).exit_code == -15


def test_end(runner: Counting, spec: ProcessSpec) -> None:
    """After `end` the process lives no more, who waited is told, and a second `end` is nothing."""

    async def ended() -> Ending:
        handle = runner.start(replace(spec, command=SLEEP))
        waiting = asyncio.ensure_future(runner.wait(handle))
        await runner.end(handle, 5)
        assert not runner.alive(handle)
        await runner.end(handle, 5)
        return await waiting

    assert asyncio.run(ended()).exit_code == -15


def test_find(runner: Counting, spec: ProcessSpec) -> None:
    """A process is found by its id and record, with the very handle of its start; others are None."""
    handle = runner.start(replace(spec, command=SLEEP))
    assert runner.find(spec.id, spec.record) == handle
    assert runner.find("another", spec.record) is None
    assert runner.find(spec.id + "1", spec.record) is None
    asyncio.run(stop(runner, handle))


def test_find_nothing(runner: Counting, spec: ProcessSpec) -> None:
    """Where nothing was ever started nothing is found, be there a record or not."""
    assert runner.find(spec.id, spec.record) is None
    spec.record.touch()
    assert runner.find(spec.id, spec.record) is None


def test_stranger(runner: Counting, spec: ProcessSpec) -> None:
    """A handle whose number is somebody else's by now is not alive, and was lost."""
    handle = runner.start(replace(spec, command=SLEEP))
    stranger = replace(handle, id="stranger", start_time=handle.start_time - 1)
    assert not runner.alive(stranger)
    assert asyncio.run(runner.wait(stranger)).lost
    asyncio.run(runner.end(stranger, 0))
    assert runner.alive(handle)
    asyncio.run(stop(runner, handle))


def test_kept(runner: Counting, spec: ProcessSpec, tmp_path: Path) -> None:
    """A kept process lives until it is ended, which leaves a stop file in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()

    async def kept() -> None:
        handle = runner.start(replace(spec, command=SLEEP, kept=True, folder=folder))
        assert runner.alive(handle)
        assert runner.last_exit(handle) is None
        await stop(runner, handle)
        assert not runner.alive(handle)
        assert runner.starts(handle) <= 1
        assert (folder / "stop").exists()

    asyncio.run(kept())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": "a b"}, "cannot be named 'a b'"),
        ({"id": ""}, "cannot be named ''"),
        ({"shell": "fish"}, "asks for the shell 'fish': use one of sh, bash, python"),
        ({"command": "echo \0"}, "the command of process .* holds a NUL character"),
        ({"command": "echo \ud800"}, "cannot be encoded"),
        ({"variables": {"A": "\0"}}, "the variable 'A' of process .* holds a NUL character"),
        ({"variables": {"A=B": "1"}}, "a variable named 'A=B'"),
        ({"workspace": Path("/nowhere/at all")}, "cannot start in /nowhere/at all: there is no such folder"),
        ({"memory": 1024}, "is limited to 1024 bytes of memory: give it at least 4 MiB"),
        ({"open_files": 3}, "is limited to 3 open files: give it 16 to"),
        ({"secrets": ("TOKEN",)}, "has a secret 'TOKEN' that is none of its variables"),
        ({"kept": True}, "is to be kept but has no folder"),
        ({"kept": True, "folder": Path("/nowhere")}, "no folder at /nowhere"),
    ],
)
def test_refused(runner: Counting, spec: ProcessSpec, change: dict[str, object], sentence: str) -> None:
    """A spec of which no process can be made is refused in one sentence, and nothing is started."""
    with pytest.raises(EngineError, match=sentence):
        runner.start(replace(spec, **change))  # type: ignore[arg-type]
    assert runner.find(spec.id, spec.record) is None


@pytest.mark.parametrize("command", ["exit 3", "kill -9 $$"])
@pytest.mark.parametrize(
    "change",
    [
        {"contain": True},
        {"memory": 256 * 1024**2},
        {"open_files": 64},
        {"variables": {"PATH": "/usr/bin:/bin", "TOKEN": "secret"}, "secrets": ("TOKEN",)},
    ],
    ids=["contain", "memory", "open_files", "secrets"],
)
def test_held(runner: Counting, spec: ProcessSpec, command: str, change: dict[str, object]) -> None:
    """However a process is held, its exit code is its own, and no limit that it kept is told as broken."""
    held = replace(spec, command=command, **change)  # type: ignore[arg-type]
    plain = ending(runner, replace(spec, command=command))
    end = ending(runner, replace(held, id="held"))
    assert (end.exit_code, end.oom) == (plain.exit_code, False)


@pytest.mark.parametrize("contain", [False, True])
def test_held_end(runner: Counting, spec: ProcessSpec, *, contain: bool) -> None:
    """A process that is held in every way at once lives, is found and is ended like another."""
    variables = {"PATH": "/usr/bin:/bin", "TOKEN": "secret"}
    held = replace(
        spec, command=SLEEP, contain=contain, memory=256 * 1024**2, open_files=64, variables=variables,
        secrets=("TOKEN",),
    )  # fmt: skip
    handle = runner.start(held)
    assert runner.alive(handle)
    assert runner.find(spec.id, spec.record) == handle
    assert asyncio.run(stop(runner, handle)).exit_code == -15
    assert not runner.alive(handle)


def test_oom(runner: Counting, spec: ProcessSpec) -> None:
    """A process that its memory limit ended says so."""
    if type(runner) is ProcessRunner and groups.memory_base() is None:
        pytest.skip("no memory cgroup can be made on this machine; tests/runners shows the other way")
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if isinstance(runner, ContainerRunner) and os.geteuid() != 0 and not unified:
        pytest.skip("container engines of a person enforce no memory limit where cgroups are of version 1")
    hog = replace(spec, command=HOG, shell="python", memory=64 * 1024**2)  # noqa: S604 - a name of ours
    end = ending(runner, hog)
    assert (end.exit_code, end.oom) == (-9, True)


def test_finish(plain: ProcessSpec) -> None:
    """A scripted process that never ends by itself ends when the test says so, with that code and output."""
    runner = ScriptedRunner({plain.id: NEVER, "nothing": 1})

    async def finished() -> Ending:
        early = asyncio.ensure_future(runner.finish(plain.id, 7, "bye\n"))
        await asyncio.sleep(0)
        handle = runner.start(plain)
        await early
        return await runner.wait(handle)

    assert asyncio.run(finished()) == Ending(7, 4)
    assert runner.started == (plain,)


def test_scripted_files(plain: ProcessSpec) -> None:
    """A scripted process leaves the files that its act names in its workspace."""
    runner = ScriptedRunner({"true": Act(files={"model/weights": "w"})})
    ending(runner, plain)
    assert (plain.workspace / "model" / "weights").read_text() == "w"


def test_scripted_seconds(plain: ProcessSpec) -> None:
    """A scripted process that lives a while is alive until then, and leaves its files and its log at its end."""
    runner = ScriptedRunner({"true": Act(3, seconds=0.01, output="late\n", files={"late": ""})})

    async def lived() -> Ending:
        handle = runner.start(plain)
        assert runner.alive(handle)
        assert not (plain.workspace / "late").exists()
        return await runner.wait(handle)

    assert play(lived()) == Ending(3, 5)
    assert (plain.workspace / "late").exists()


def test_scripted_deaf(plain: ProcessSpec) -> None:
    """A scripted process that is deaf to TERM lives until its grace is over; its own end comes too late then."""
    runner = ScriptedRunner({"true": Act(seconds=0.05, deaf=True, output="never")})

    async def killed() -> Ending:
        handle = runner.start(plain)
        await runner.end(handle, 0.01)
        ending = await runner.wait(handle)
        await asyncio.sleep(0.1)
        assert await runner.wait(handle) == ending
        return ending

    assert play(killed()) == Ending(-9, 0)


def test_scripted_crash(plain: ProcessSpec, tmp_path: Path) -> None:
    """A crash of a scripted kept process counts as a start more, and tells the code."""
    runner = ScriptedRunner()
    handle = runner.start(replace(plain, kept=True, folder=tmp_path))
    runner.crash(plain.id, 1)
    assert (runner.alive(handle), runner.starts(handle), runner.last_exit(handle)) == (True, 2, 1)
