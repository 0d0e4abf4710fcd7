"""What the start of a step in a container costs, beside the same engine's bare `run --rm IMAGE true`.

    python benchmarks/containers.py [--image NAME] [--rounds 20] [--steps 5]

The runner's time is from `start` to the `Ending` of a `true`; the engine's is a run of a chain of steps more minus one
of a single step, per step, in a new home each time. The bare command is shown as people type it, which makes a network
for the container, and with the machine's network, which is what steps have. Without `--image` the tests' own is used.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.cli.settings import find_container_engine
from penstock.engine.contracts import ContainerEngine, ProcessSpec
from penstock.runners.container import ContainerRunner
from side_by_side import (
    PENSTOCK,
    by_turns,
    environment,
    new_home,
    prepared_home,
    ratio,
    repository,
    scratch,
    table,
    taken,
    two_processors,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import images

PROMISED = 1.3


def bare(engine: ContainerEngine, image: str, *options: str) -> Callable[[], float]:
    """The engine's own command, by itself."""
    argv = [engine.program, "run", "--rm", *options, image, "true"]

    def turn() -> float:
        begin = time.perf_counter()
        subprocess.run(argv, env=dict(engine.variables), stdin=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begin

    return turn


def by_runner(engine: ContainerEngine, image: str, place: Path) -> Callable[[], float]:
    """The same by the container runner: shim, log and record included."""
    runner, workspace = ContainerRunner(engine), place / "workspace"
    workspace.mkdir()

    def turn() -> float:
        name = f"bench-{time.monotonic_ns()}"
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        spec = ProcessSpec(name, "true", workspace, variables, place / "log", place / f"{name}.record", image=image)

        async def whole() -> int | None:
            return (await runner.wait(runner.start(spec))).exit_code

        begin = time.perf_counter()
        code = asyncio.run(whole())
        seconds = time.perf_counter() - begin
        assert code == 0, (place / "log").read_text()
        return seconds

    return turn


def by_engine(engine: ContainerEngine, image: str, place: Path, count: int) -> Callable[[], float]:
    """A step of a whole run: what a longer chain takes more than one step."""
    prepared_home(place)

    def seconds(steps: int) -> float:
        folder = place / f"chain-{steps}"
        if not folder.exists():
            repository(folder, {"penstock.yaml": chain(image, steps)})
        new_home(place, place / "home")
        variables: Mapping[str, str] = {**environment(place / "home"), **engine.variables}
        return taken((*PENSTOCK, "run"), folder, variables).seconds

    return lambda: (seconds(count + 1) - seconds(1)) / count


def chain(image: str, count: int) -> str:
    """A pipeline of steps that do nothing, one after the other."""
    steps = [f"  s{n}: {{run: 'true', needs: [{f's{n - 1}' if n else ''}]}}\n" for n in range(count)]
    return f"name: nothing\nruntime: {{image: '{image}'}}\nsteps:\n{''.join(steps)}"


def engine_and_image(asked: str | None) -> tuple[ContainerEngine, str]:
    """The person's engine and image, or with none asked for the tests' image and settings."""
    if asked is None:
        return images.engine(), images.base_image()
    found = find_container_engine(os.environ)
    if found is None:
        sys.exit("neither podman nor docker is on PATH: install one of them")
    return found, asked


def main() -> None:
    """Print medians and ratios; no timing fails anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="an image of this machine that has `true` and `sh`")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5, help="of the chain")
    asked = parser.parse_args()
    two_processors()
    engine, image = engine_and_image(asked.image)
    usual, same = f"{engine.kind} run --rm", f"{engine.kind} run --rm --network host"
    with scratch() as place:
        contenders = {
            usual: bare(engine, image),
            same: bare(engine, image, "--network", "host"),
            "the runner": by_runner(engine, image, place),
            "a step of a run": by_engine(engine, image, place, asked.steps),
        }
        found = by_turns(contenders, asked.rounds)
    table("the start of `true` in a container", found, usual)
    for name in ("the runner", "a step of a run"):
        print(f"  {name}: {ratio(found[name], found[usual]):.2f}× (promised: {PROMISED}×), "
              f"{ratio(found[name], found[same]):.2f}× with the same network")  # fmt: skip


if __name__ == "__main__":
    main()
