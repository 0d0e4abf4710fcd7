"""Processes in containers of podman or docker, by the same shim, log and record as all others.

The shim of `shim.py` stays on this machine, and its command is the engine's own `run`, in the foreground: so the log,
the exit record, adoption and ending are those of `process.py`. The engine's client passes a TERM on; inside, a shell as
the first process hands it to everything there, and all of that dies with it. What only the engine can end (a container
whose client was killed) is removed by its name.
"""

import asyncio
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from penstock.artifacts import digest_of
from penstock.engine.contracts import ContainerEngine, Handle, Mount, ProcessSpec
from penstock.errors import EngineError
from penstock.runners import shim
from penstock.runners.containment import Containment, find_containment
from penstock.runners.process import ProcessRunner, notes_of_handle
from penstock.runners.records import Terms

LABEL = "penstock.process"
"""The label by which a container of ours is known; its value is the id and record of its process."""

SHARED_MEMORY = "8g"
"""The most that /dev/shm may hold, through which data loaders share batches; the engines' own 64 MiB are too little."""

# Seconds for which the engine may be busy with one call, and after which it is asked again for what just begins.
_CALL_SECONDS = 60
_ASK_AGAIN = 0.05

# A first process is spared every signal that it does not handle, and a shell that waits in the foreground handles none.
# Its end is that of all others, so once they were asked to end it waits for the last of them.
_FIRST = """\
_penstock_asked=
trap '_penstock_asked=1; kill -TERM -1 2>/dev/null' TERM INT HUP
"$@" &
_penstock_child=$!
[ -z "$_penstock_asked" ] || kill -TERM -1 2>/dev/null
_penstock_note inside 1
while :; do
  wait "$_penstock_child"
  _penstock_code=$?
  kill -0 "$_penstock_child" 2>/dev/null || break
done
# A signal may have cut the wait off just when the child left: its code is still to be had then; else it says 127.
wait "$_penstock_child" 2>/dev/null
_penstock_again=$?
[ "$_penstock_again" = 127 ] || _penstock_code=$_penstock_again
while [ -n "$_penstock_asked" ] && kill -0 -1 2>/dev/null; do sleep 0.05 || sleep 1 || break; done 2>/dev/null
_penstock_tell
exit "$_penstock_code"
"""

# It tells in the record how the command left: what the engine's client says of that is wrong at times, for one that was
# told to end in its first moments leaves with 0. The container's own group tells of a kill for want of memory.
_TELLING = """\
_penstock_id=$1 _penstock_record=$2
shift 2
_penstock_note() {
  printf '\\n%s %s %s .\\n' "$1" "$_penstock_id" "$2" >>"$_penstock_record"
}
_penstock_memory() {
  while read -r _penstock_name _penstock_number; do
    [ "$_penstock_name" != oom_kill ] || [ "$_penstock_number" = 0 ] || _penstock_note oom 0
  done
} 2>/dev/null
_penstock_tell() {
  for _penstock_file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ "$_penstock_code" != 137 ] || [ ! -r "$_penstock_file" ] || _penstock_memory <"$_penstock_file"
  done
  _penstock_note left "$_penstock_code"
}
"""


class ContainerRunner(ProcessRunner):
    """The `Runner` contract in containers for specs with an image, and without for all others.

    `engine` is the person's; without one a spec with an image is refused. The image must be there: nothing is pulled.
    """

    def __init__(self, engine: ContainerEngine | None, find: Callable[[], Containment] = find_containment) -> None:
        super().__init__(find)
        self._engine = engine

    def start(self, spec: ProcessSpec) -> Handle:
        """Place the process. Raises EngineError where the spec, its folders, the engine or the machine do not allow."""
        if spec.image is None:
            return super().start(spec)
        shim.check(spec)
        return super().start(_outside(spec, self._engine_for(spec)))

    def _check(self, spec: ProcessSpec) -> None:
        if spec.image is None and not spec.network:
            raise EngineError(f"process {spec.id} must have no network, which only a container gives: give it an image")

    def _engine_for(self, spec: ProcessSpec) -> ContainerEngine:
        if self._engine is None:
            raise EngineError(f"process {spec.id} runs in an image: install podman or docker on this machine")
        return self._engine

    def _terms(self, spec: ProcessSpec, containment: Containment) -> Terms:
        if spec.image is None:
            return super()._terms(spec, containment)
        terms = super()._terms(replace(spec, memory=None), containment)
        return terms._replace(container=container_name(spec), inner=not spec.whole)

    async def end(self, handle: Handle, grace: float) -> None:
        """End the container and its client: TERM, `grace` seconds, KILL; returns when nothing of it is left."""
        if handle.container is None:
            await super().end(handle, grace)
            return
        asking = asyncio.ensure_future(self._ask(handle, handle.container))
        try:
            await super().end(handle, grace)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, handle: Handle, name: str) -> None:
        """TERM to the first process of a container, as soon as it listens and the engine knows it to run.

        Not by the client: one that hears a TERM in its first moments leaves with 0, and lets the container be.
        """
        while self.alive(handle):
            if notes_of_handle(handle).stands and (await self._call("kill", "--signal", "TERM", name))[0] == 0:
                return
            await asyncio.sleep(_ASK_AGAIN)

    async def _cleared(self, handle: Handle, terms: Terms, *, asked: bool) -> None:
        """A container goes with its client, unless the client was killed: that is what the exit code may mean."""
        code = notes_of_handle(handle).exit_code
        if terms.container and (asked or handle.kept or code is None or code < 0):
            await self._remove(terms.container)
        await super()._cleared(handle, terms, asked=asked)

    async def _remove(self, name: str) -> None:
        """End and remove a container, if it is there. Raises EngineError where the engine cannot."""
        kind = "podman" if self._engine is None else self._engine.kind
        code, said = await self._call(*removal(kind, name))
        if code != 0 and "o such container" not in said:
            raise EngineError(f"container {name} could not be removed: {said.strip().rpartition(chr(10))[2]}")

    async def _call(self, *arguments: str) -> tuple[int | None, str]:
        """The exit code of a call of the engine, and what it said on stderr."""
        if self._engine is None:
            raise EngineError(f"container {arguments[-1]} is out of reach: this machine has neither podman nor docker")
        process = await asyncio.create_subprocess_exec(
            self._engine.program, *arguments,
            env=dict(self._engine.variables), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), _CALL_SECONDS)
        except TimeoutError:
            said = b"it took too long"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, said.decode("utf-8", "replace")


def container_name(spec: ProcessSpec) -> str:
    """The name of a process's container; that of another home's process is another."""
    return f"penstock-{digest_of('container', shim.marker(spec.id, str(spec.record.absolute())))[:24]}"


def removal(kind: Literal["podman", "docker"], name: str) -> tuple[str, ...]:
    """The arguments that end and remove a container at once."""
    return ("rm", "--force", *(("--time", "0", "--ignore") if kind == "podman" else ()), name)


def _outside(spec: ProcessSpec, engine: ContainerEngine) -> ProcessSpec:
    """The client of the engine as a process of this machine, which runs the process of the spec in a container.

    Its variables are the engine's and, for the engine to hand on, those of the spec: values stay off the command line,
    which everybody may read, but for what the engine itself needs another value of.
    """
    clash = next((name for name in spec.secrets if name in engine.variables), None)
    if clash is not None:
        raise EngineError(
            f"process {spec.id} has a secret named {clash}, which {engine.kind} itself reads: give it another name"
        )
    if len(os.fsencode(spec.command)) > shim.LONGEST_ARGUMENT:
        raise EngineError(
            f"the command of process {spec.id} is longer than {shim.LONGEST_ARGUMENT} bytes, too long for a container: "
            "put it into a script"
        )
    return replace(  # noqa: S604 - the shim's shell, which gets words that were quoted
        spec,
        command=_client(spec, engine),
        shell="sh",
        variables={**spec.variables, **engine.variables},
        open_files=None,
        contain=False,
    )


def _client(spec: ProcessSpec, engine: ContainerEngine) -> str:
    """The shell text that runs the process in a container, and leaves none behind."""
    text = f"exec {shlex.join((engine.program, *run_arguments(spec, engine)))}"
    if not spec.kept:
        return text
    # A start before may have left its container, as a start that was killed does.
    return f"{shlex.join((engine.program, *removal(engine.kind, container_name(spec))))} >/dev/null 2>&1 || :\n{text}"


def run_arguments(spec: ProcessSpec, engine: ContainerEngine) -> tuple[str, ...]:
    """The arguments of the engine's `run` for a process."""
    return (
        "run",
        "--rm",
        *("--name", container_name(spec), "--label", f"{LABEL}={shim.marker(spec.id, str(spec.record.absolute()))}"),
        *("--pull", "never", "--network", "host" if spec.network else "none"),
        *("--security-opt", "label=disable", "--shm-size", SHARED_MEMORY),
        *(_PODMAN if engine.kind == "podman" else ()),
        *(() if spec.memory is None else ("--memory", str(spec.memory), "--memory-swap", str(spec.memory))),
        *_gpus(spec, engine),
        *_mounts(spec),
        *_variables(spec, engine),
        *(("--log-driver", "none") if spec.whole else _as_ours(spec, engine)),
        str(spec.image),
        *(() if spec.whole else _first(spec)),
    )


# Proxies are among the variables where they are wanted.
_PODMAN = ("--http-proxy=false",)


def _as_ours(spec: ProcessSpec, engine: ContainerEngine) -> Iterator[str]:
    """As our own user, so that what it writes is ours, in the workspace, with a text of ours."""
    yield from ("--user", f"{os.getuid()}:{os.getgid()}", "--workdir", str(spec.workspace.absolute()))
    yield from ("--entrypoint", "/bin/sh")
    if engine.kind == "podman":
        # Output goes straight to where ours goes. Not for a user of the image's: the log would become that user's file.
        yield from ("--log-driver", "passthrough")
    if engine.kind == "podman" and os.getuid() != 0:
        yield from ("--userns", "keep-id")


def _first(spec: ProcessSpec) -> tuple[str, ...]:
    """The first process, which has the shell of the spec below it.

    It limits open files itself: engines that are told to may refuse all limits.
    """
    files = f"ulimit -n {spec.open_files} || exit 125\n" if spec.open_files is not None else ""
    return ("-c", files + _TELLING + _FIRST, "sh", spec.id, str(spec.record.absolute()), *shim.shell_argv(spec))


def _gpus(spec: ProcessSpec, engine: ContainerEngine) -> Iterator[str]:
    """NVIDIA's devices: by their names of the Container Device Interface, or by docker's own option."""
    if engine.kind == "podman":
        for index in spec.gpus:
            yield from ("--device", f"nvidia.com/gpu={index}")
    elif spec.gpus:
        yield from ("--gpus", f'"device={",".join(map(str, spec.gpus))}"')


def _mounts(spec: ProcessSpec) -> Iterator[str]:
    own = () if spec.whole else (Mount(spec.workspace), Mount(spec.record))
    for mount in (*own, *spec.mounts):
        place = mount.path.absolute()
        yield from ("--mount", f'type=bind,"source={place}","target={place}"{",readonly" if mount.read_only else ""}')


def _variables(spec: ProcessSpec, engine: ContainerEngine) -> Iterator[str]:
    for name, value in spec.variables.items():
        yield from ("--env", f"{name}={value}" if name in engine.variables else name)
