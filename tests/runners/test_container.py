"""Processes in real containers: what they see of this machine, what they leave, and how nothing of them escapes."""

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from images import podman
from penstock.engine.contracts import ContainerEngine, Handle, Mount, ProcessSpec
from penstock.errors import EngineError
from penstock.runners.container import LABEL, ContainerRunner, container_name, removal, run_arguments
from penstock.runners.shim import marker
from penstock.runners.trees import all_numbers, read
from runners.processes import Bell, run

PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture
def runner(container_engine: ContainerEngine) -> ContainerRunner:
    return ContainerRunner(container_engine)


@pytest.fixture
def inside(spec: ProcessSpec, base_image: str, tmp_path: Path) -> ProcessSpec:
    """A process in a container that finds the bells."""
    bells = (Mount(tmp_path / "bell"), Mount(tmp_path / "gate"))
    return replace(spec, image=base_image, variables={**spec.variables, **PATH}, mounts=bells)


def containers(spec: ProcessSpec) -> list[str]:
    """The containers of a process that the engine knows, running or not."""
    label = f"label={LABEL}={marker(spec.id, str(spec.record.absolute()))}"
    return podman("ps", "--all", "--quiet", "--filter", label).stdout.split()


# --- what it sees and leaves ---------------------------------------------------------------------------------------


def test_what_it_writes_is_ours(
    runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell, tmp_path: Path
) -> None:
    """It works in the workspace at its own path, as our own user, and what it writes there is ours."""
    code, text = run(runner, replace(inside, command="pwd; id -u; mkdir a; echo x >a/b; chmod 700 a"))
    assert (code, text.split()) == (0, [str(inside.workspace), str(os.getuid())])
    left = inside.workspace / "a" / "b"
    assert (left.read_text(), left.stat().st_uid, left.stat().st_gid) == ("x\n", os.getuid(), os.getgid())
    assert not containers(inside)


def test_mounts(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell, tmp_path: Path) -> None:
    """A mount is at its own path, a read-only one cannot be written to, and a neighbour of them is not there."""
    for name in ("a, b", "open", "neighbour"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    mounts = (*inside.mounts, Mount(tmp_path / "a, b", read_only=True), Mount(tmp_path / "open"))
    command = f'cd "{tmp_path}"; cat "a, b/file" open/file; echo y >open/file; ls; ! echo z >"a, b/file"'
    code, text = run(runner, replace(inside, command=command, mounts=mounts))
    assert code == 0, text
    assert text.startswith("a, bopen")
    assert "neighbour" not in text
    assert [(tmp_path / name / "file").read_text() for name in ("a, b", "open")] == ["a, b", "y\n"]


def test_no_socket_of_the_engine(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """Nothing inside leads to the engine or to the home that started it."""
    look = "import os, stat\nfor folder in ('/run', '/var/run', '/tmp'):\n    for at, _, names in os.walk(folder):\n"
    look += "        for name in names:\n            path = os.path.join(at, name)\n"
    look += "            if stat.S_ISSOCK(os.lstat(path).st_mode): print(path)\n"
    look += "print(*sorted(n for n in os.environ if n.startswith(('CONTAINER', 'DOCKER', 'PENSTOCK_PROCESS'))))"
    code, text = run(runner, replace(inside, command=look, shell="python"))  # noqa: S604 - a name of ours
    assert (code, text.strip()) == (0, "")


def test_network(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """It has the machine's network, or by choice none but its own loopback."""
    command = "wc -l </proc/net/dev"
    with_it, without = (run(runner, replace(inside, id=f"n.{n}", command=command, network=n)) for n in (True, False))
    assert int(with_it[1]) == len(Path("/proc/net/dev").read_text().splitlines())
    assert int(without[1]) == 3
    with pytest.raises(EngineError, match="must have no network, which only a container gives"):
        runner.start(replace(inside, image=None, network=False))


def test_variables(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """It gets exactly its own variables over the image's, whatever the engine itself is called with."""
    odd = {"HOME": str(inside.workspace), "ODD": "a 'b' \"c\" $d\nnext=x", "EMPTY": "", **PATH}
    command = "import json, os; print(json.dumps(dict(os.environ)))"
    code, text = run(runner, replace(inside, command=command, shell="python", variables=odd))  # noqa: S604
    found = {**eval(text)}  # noqa: S307 - a literal of strings
    assert (code, {name: found.get(name) for name in odd}) == (0, odd)
    assert found.keys() - odd.keys() <= {"HOSTNAME", "TERM", "container", "PWD", "SHLVL", "LC_CTYPE"}


def test_secrets(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """A secret is masked in the log, and stands on no command line while the process lives."""
    secret = {"TOKEN": "hunter2-hunter2"}
    spec = replace(inside, variables={**inside.variables, **secret}, secrets=("TOKEN",))

    async def told() -> list[bytes]:
        handle = runner.start(replace(spec, command='echo "$TOKEN"; echo >"$BELL"; read -r _ <"$GATE"'))
        bell.line()
        lines = [read(f"/proc/{pid}/cmdline") for pid in all_numbers()]
        gate.ring()
        await runner.wait(handle)
        return lines

    lines = asyncio.run(told())
    assert "hunter2" not in spec.log.read_text()
    assert not [line for line in lines if b"hunter2" in line]
    clash = replace(spec, variables={**spec.variables, "HOME": "x"}, secrets=("HOME",))
    with pytest.raises(EngineError, match="has a secret named HOME, which podman itself reads"):
        runner.start(clash)


# --- its life and its end ------------------------------------------------------------------------------------------


def test_another_runner_goes_on(
    runner: ContainerRunner, container_engine: ContainerEngine, inside: ProcessSpec, bell: Bell, gate: Bell
) -> None:
    """Who comes after the death of the one who started it finds it, waits for it and ends it, by its handle alone."""

    async def adopted() -> int | None:
        runner.start(replace(inside, command='echo >"$BELL"; exec sleep 1000'))
        bell.line()
        other = ContainerRunner(container_engine)
        handle = other.find(inside.id, inside.record)
        assert handle is not None
        assert handle.container == container_name(inside)
        await other.end(handle, 5)
        return (await other.wait(handle)).exit_code

    assert asyncio.run(adopted()) == -15
    assert not containers(inside)


STUBBORN = "trap '' TERM; (trap '' TERM; sleep 1000) & echo >\"$BELL\"; while :; do sleep 1000; done"


def test_end_of_the_deaf(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """What ignores TERM is killed after its grace with all that it started, and its container is gone."""

    async def ended() -> int | None:
        handle = runner.start(replace(inside, command=STUBBORN))
        bell.line()
        await runner.end(handle, 0.2)
        return (await runner.wait(handle)).exit_code

    assert asyncio.run(ended()) == -9
    assert not containers(inside)


def test_children_hear_term(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """TERM reaches every process inside, so that a server below a shell can answer what it has begun."""
    below = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('bye', flush=True), sys.exit(0)))\n"
    )
    below += "open(os.environ['BELL'], 'w').write('\\n')\nsignal.pause()\n"
    (inside.workspace / "below.py").write_text(below)

    async def ended() -> int | None:
        handle = runner.start(replace(inside, command="sh -c 'python3 below.py; true' && echo done"))
        bell.line()
        await runner.end(handle, 20)
        return (await runner.wait(handle)).exit_code

    assert asyncio.run(ended()) == -15
    assert "bye" in inside.log.read_text().splitlines()


@pytest.mark.parametrize("victim", ["the client", "the shim", "both"])
def test_killed_from_outside(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell, victim: str) -> None:
    """Where the engine's client or the shim is killed, who waits is told, and the container goes too."""

    async def killed() -> int | None:
        handle = runner.start(replace(inside, command='echo >"$BELL"; exec sleep 1000'))
        bell.line()
        client = clients(handle)[0]
        os.kill(handle.pid, signal.SIGSTOP)  # so that both die at once
        for pid in {"the client": (client,), "the shim": (handle.pid,), "both": (client, handle.pid)}[victim]:
            os.kill(pid, signal.SIGKILL)
        if victim == "the client":
            os.kill(handle.pid, signal.SIGCONT)
        return (await runner.wait(handle)).exit_code

    assert asyncio.run(killed()) == (-9 if victim == "the client" else None)
    assert not containers(inside)


def clients(handle: Handle) -> list[int]:
    """The processes below the shim: the engine's client first."""
    below = Path(f"/proc/{handle.pid}/task/{handle.pid}/children").read_text().split()
    return [int(pid) for pid in below]


def test_kept(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """A kept process whose container was killed is started again in a new one, and ends for good when asked to."""

    async def kept() -> tuple[int, int | None]:
        handle = runner.start(replace(inside, command='echo >"$BELL"; exec sleep 1000', kept=True))
        bell.line()
        assert len(containers(inside)) == 1
        podman("kill", "--signal", "KILL", container_name(inside))
        bell.line()
        starts = runner.starts(handle)
        await runner.end(handle, 5)
        return starts, (await runner.wait(handle)).exit_code

    assert asyncio.run(kept()) == (2, -15)
    assert not containers(inside)


def test_a_container_that_was_left_is_no_hindrance(
    runner: ContainerRunner, inside: ProcessSpec, base_image: str, bell: Bell, gate: Bell
) -> None:
    """A container of the same name that a killed start left behind is replaced by a kept process."""
    kept = replace(inside, command='echo >"$BELL"; exec sleep 1000', kept=True)
    podman("create", "--name", container_name(kept), base_image, "true")

    async def kept_twice() -> None:
        handle = runner.start(kept)
        bell.line()
        await runner.end(handle, 5)

    asyncio.run(kept_twice())
    assert not podman("ps", "--all", "--quiet", "--filter", f"name={container_name(kept)}").stdout


def test_whole_image(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell, tmp_path: Path) -> None:
    """An image that is started as it is has its own command, folder and user, and only the mounts of this machine."""
    base = inside.image or ""
    made = podman(
        "create", "--user", "1234:1234", "--workdir", "/usr", "--entrypoint", "/bin/sh", base,
        "-c", "id -u; pwd; ls /proc/1/root" + str(tmp_path.parent),
    )  # fmt: skip
    name = f"localhost/penstock-test-whole-{os.getpid()}"
    podman("commit", "--quiet", made.stdout.strip(), name)
    try:
        code, text = run(runner, replace(inside, image=name, whole=True, command="exit 9", mounts=()))
        assert text.split()[:2] == ["1234", "/usr"]
        assert code != 9
        assert "workspace" not in text
    finally:
        podman("rm", "--force", made.stdout.strip())
        podman("image", "rm", "--force", name)


def test_unknown_image(runner: ContainerRunner, inside: ProcessSpec, bell: Bell, gate: Bell) -> None:
    """An image that is not there is not pulled: nobody can tell how the command fares, and the log says why."""
    handle = runner.start(replace(inside, image="localhost/penstock-test-none:1"))
    end = asyncio.run(runner.wait(handle))
    assert (end.exit_code, end.unplaced) == (None, True)
    assert "localhost/penstock-test-none" in inside.log.read_text()


# --- what the engine is told ---------------------------------------------------------------------------------------


def pairs(arguments: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The values of each option."""
    found: dict[str, list[str]] = {}
    for option, value in pairwise(arguments):
        found.setdefault(option, []).append(value)
    return found


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("podman", {"--device": ["nvidia.com/gpu=1", "nvidia.com/gpu=3"]}),
        ("docker", {"--gpus": ['"device=1,3"']}),
    ],
)
def test_gpus(spec: ProcessSpec, kind: str, options: Mapping[str, list[str]]) -> None:
    """Exactly the GPUs that it was given are passed, in the words of its engine, and none where it has none."""
    engine = ContainerEngine("podman" if kind == "podman" else "docker", kind, {})
    told = pairs(run_arguments(replace(spec, image="x", gpus=(1, 3)), engine))
    assert {option: told[option] for option in options} == options
    assert not options.keys() & pairs(run_arguments(replace(spec, image="x"), engine)).keys()


def test_docker_is_told_what_it_knows(spec: ProcessSpec) -> None:
    """No option that only podman has is given to docker."""
    docker = ContainerEngine("docker", "docker", {})
    told = run_arguments(replace(spec, image="x", memory=1 << 30, gpus=(0,), network=False), docker)
    only_podmans = {"--userns", "--log-driver", "--http-proxy=false", "--time", "--ignore", "--replace"}
    assert not only_podmans & {*told, *removal("docker", "x")}
    assert "never" in told


def test_refused(spec: ProcessSpec) -> None:
    """Without an engine, or with a text that is too long for one, it is refused in a sentence that says what to do."""
    with pytest.raises(EngineError, match="runs in an image: install podman or docker"):
        ContainerRunner(None).start(replace(spec, image="x"))
    with pytest.raises(EngineError, match="too long for a container: put it into a script"):
        ContainerRunner(ContainerEngine("podman", "podman", {})).start(replace(spec, image="x", command="#" * 200_000))
