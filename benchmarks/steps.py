"""What a step costs that does nothing (`true`), beside build tools: independent steps, or a chain.

    python benchmarks/steps.py [--steps 1000] [--rounds 5] [--peers ninja,make,doit,snakemake,dvc]
    python benchmarks/steps.py --chain 150
    python benchmarks/steps.py --steps 10000 --memory

The engine's time is the command of n steps minus the command of one step, so start-up is apart; it is shown per step.
Every turn of Penstock has a new home (only its tables are there), `PENSTOCK_CONTAIN=session`, and beside it the
default: a process namespace around each step. Slow peers get fewer steps (Snakemake 100, DVC 20); a chain is run with
`needs`. `--memory` shows peak memory and time per step of 1,000 and of `--steps` steps, of Penstock alone.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from side_by_side import (
    COMMANDS,
    PENSTOCK,
    Taken,
    begin,
    by_turns,
    chosen,
    environment,
    lay_out,
    new_home,
    prepared_home,
    program,
    repository,
    scratch,
    table,
    taken,
    two_processors,
)

PROMISED = {"steps": 2.0, "chain": 2.5}
FEWER = {"snakemake": 100, "dvc": 20}
"""Steps of those peers that would take minutes for a thousand."""


# --- the same project for each of them -----------------------------------------------------------------------------


def before(number: int, chain: bool) -> list[str]:
    """The step that a step needs."""
    return [f"s{number - 1}"] if chain and number else []


def penstock_files(count: int, chain: bool) -> dict[str, str]:
    """A pipeline; its commit holds nothing else."""
    steps = [f"  s{n}: {{run: 'true', needs: {json.dumps(before(n, chain))}}}\n" for n in range(count)]
    return {"penstock.yaml": "name: nothing\nsteps:\n" + "".join(steps)}


def ninja_files(count: int, chain: bool) -> dict[str, str]:
    """Outputs that never appear: every one is made, every time."""
    edges = [f"build s{n}: nothing {' '.join(before(n, chain))}\n" for n in range(count)]
    return {"build.ninja": "rule nothing\n  command = true\n" + "".join(edges)}


def make_files(count: int, chain: bool) -> dict[str, str]:
    """Phony targets."""
    names = " ".join(f"s{n}" for n in range(count))
    rules = [f"s{n}: {' '.join(before(n, chain))}\n\ttrue\n" for n in range(count)]
    return {"Makefile": f".PHONY: all {names}\nall: {names}\n" + "".join(rules)}


def doit_files(count: int, chain: bool) -> dict[str, str]:
    """One subtask each."""
    tasks = [
        {"name": f"s{n}", "actions": ["true"], "task_dep": [f"t:{b}" for b in before(n, chain)]} for n in range(count)
    ]
    return {"dodo.py": f"def task_t():\n    yield from {tasks!r}\n"}


def snakemake_files(count: int, chain: bool) -> dict[str, str]:
    """One rule with a wildcard or, as a chain, a rule each; a job needs an output, which Snakemake touches itself."""
    everything = f"rule all:\n    input: expand('s{{n}}', n=range({count}))\n"
    if not chain:
        return {"Snakefile": everything + "rule s:\n    output: touch('s{n}')\n    shell: 'true'\n"}
    rules = [
        f"rule s{n}:\n    input: {before(n, chain)!r}\n    output: touch('s{n}')\n    shell: 'true'\n"
        for n in range(count)
    ]
    return {"Snakefile": everything + "".join(rules)}


def dvc_files(count: int, chain: bool) -> dict[str, str]:
    """A stage each that always counts as changed; a chain needs files to go from one to the next."""
    if not chain:
        return {
            "dvc.yaml": json.dumps({"stages": {f"s{n}": {"cmd": "true", "always_changed": True} for n in range(count)}})
        }
    stages = {f"s{n}": {"cmd": f"echo >s{n}", "deps": before(n, chain), "outs": [f"s{n}"]} for n in range(count)}
    return {"dvc.yaml": json.dumps({"stages": stages})}


FILES: Mapping[str, Callable[[int, bool], dict[str, str]]] = {
    "ninja": ninja_files,
    "make": make_files,
    "doit": doit_files,
    "snakemake": snakemake_files,
    "dvc": dvc_files,
}

# --- turns ---------------------------------------------------------------------------------------------------------


def penstock_turn(place: Path, count: int, chain: bool, variables: Mapping[str, str]) -> Callable[[], Taken]:
    """A run of all steps in a new home."""
    folder = place / f"penstock-{count}"
    if not folder.exists():
        repository(folder, penstock_files(count, chain))
    home = place / "home"

    def turn() -> Taken:
        new_home(place, home)
        return taken((*PENSTOCK, "run"), folder, {**environment(home), **variables})

    return turn


def peer_turn(name: str, place: Path, count: int, chain: bool) -> Callable[[], Taken]:
    """The peer's command in a folder that holds only its file."""
    path, folder = program(name), place / f"{name}-{count}"

    def turn() -> Taken:
        shutil.rmtree(folder, ignore_errors=True)
        lay_out(folder, FILES[name](count, chain))
        begin(name, folder)
        return taken((path, *COMMANDS[name]), folder, environment(folder))

    return turn


Turn = Callable[[int], Callable[[], Taken]]
"""For a number of steps: one turn."""


class Engine:
    """What the engine takes per step: the command of n steps minus that of one. Seconds of processors are noted."""

    def __init__(self, turn: Turn, count: int) -> None:
        self._turn, self._count = turn, count
        self.processor: list[float] = []
        self.peak = 0

    def seconds(self) -> float:
        one, many = self._turn(1)(), self._turn(self._count)()
        self.processor.append((many.processor - one.processor) / (self._count - 1))
        self.peak = max(self.peak, many.memory)
        return (many.seconds - one.seconds) / (self._count - 1)


def compare(place: Path, count: int, chain: bool, peers: list[str], rounds: int) -> None:
    """Penstock and its peers by turns; a table of seconds, and one of what the processors did."""
    session = partial(penstock_turn, place, chain=chain, variables={"PENSTOCK_CONTAIN": "session"})
    contained = partial(penstock_turn, place, chain=chain, variables={"PENSTOCK_CONTAIN": ""})
    engines = {"penstock": Engine(session, count)}
    for name in peers:
        fewer = min(count, FEWER.get(name, count))
        label = name if fewer == count else f"{name} ({fewer} steps)"
        engines[label] = Engine(partial(peer_turn, name, place, chain=chain), fewer)
    engines["penstock, namespaces"] = Engine(contained, count)
    found = by_turns({name: engine.seconds for name, engine in engines.items()}, rounds)
    what = f"a chain of {count} steps" if chain else f"{count} independent steps, two at a time"
    table(f"{what}: engine time per step", found, "ninja")
    print(f"  promised: penstock at most {PROMISED['chain' if chain else 'steps']:g}× ninja")
    spent = {name: engine.processor[1:] for name, engine in engines.items()}
    table("of that on the processors, step and engine together", spent, "ninja")


def memory(place: Path, count: int, rounds: int) -> None:
    """Time and peak memory of many steps beside a thousand."""
    turn = partial(penstock_turn, place, chain=False, variables={"PENSTOCK_CONTAIN": "session"})
    engines = {f"{n} steps": Engine(turn, n) for n in sorted({1000, count})}
    found = by_turns({name: engine.seconds for name, engine in engines.items()}, rounds, warm=False)
    table("engine time per step", found, next(iter(engines)))
    table("of that on the processors", {n: e.processor for n, e in engines.items()}, next(iter(engines)))
    for name, engine in engines.items():
        print(f"  peak memory of {name}: {engine.peak / 1e6:.0f} MB")
    print("  promised: no slower per step than 1000, and under 300 MB")


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--chain", type=int, default=0, metavar="STEPS", help="a chain of so many steps instead")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="those to compare with, with commas between; all by default")
    parser.add_argument("--memory", action="store_true", help="memory and time of many steps, without peers")
    asked = parser.parse_args()
    two_processors()
    with scratch() as place:
        prepared_home(place)
        if asked.memory:
            memory(place, asked.steps, asked.rounds)
        else:
            peers = chosen(list(FILES), asked.peers)
            compare(place, asked.chain or asked.steps, bool(asked.chain), peers, asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
