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


def engine_time(turn: Callable[[int], Callable[[], Taken]], count: int) -> float:
    """Seconds per step: the command of n steps minus that of one."""
    one, many = turn(1)(), turn(count)()
    return (many.seconds - one.seconds) / (count - 1)


def compare(place: Path, count: int, chain: bool, peers: list[str], rounds: int) -> None:
    """Penstock and its peers by turns; a table."""
    session = partial(penstock_turn, place, chain=chain, variables={"PENSTOCK_CONTAIN": "session"})
    contained = partial(penstock_turn, place, chain=chain, variables={"PENSTOCK_CONTAIN": ""})
    contenders = {"penstock": partial(engine_time, session, count)}
    for name in peers:
        fewer = min(count, FEWER.get(name, count))
        label = name if fewer == count else f"{name} ({fewer} steps)"
        contenders[label] = partial(engine_time, partial(peer_turn, name, place, chain=chain), fewer)
    contenders["penstock, namespaces"] = partial(engine_time, contained, count)
    found = by_turns(contenders, rounds)
    what = f"a chain of {count} steps" if chain else f"{count} independent steps, two at a time"
    table(f"{what}: engine time per step", found, "ninja")
    print(f"  promised: penstock at most {PROMISED['chain' if chain else 'steps']:g}× ninja")


def memory(place: Path, count: int, rounds: int) -> None:
    """Time and peak memory of many steps beside a thousand."""
    turn = partial(penstock_turn, place, chain=False, variables={"PENSTOCK_CONTAIN": "session"})
    peaks: dict[int, int] = {}

    def per_step(steps: int) -> float:
        one, many = turn(1)(), turn(steps)()
        peaks[steps] = max(many.memory, peaks.get(steps, 0))
        return (many.seconds - one.seconds) / (steps - 1)

    counts = sorted({1000, count})
    found = by_turns({f"{n} steps": partial(per_step, n) for n in counts}, rounds, warm=False)
    table("engine time per step", found, f"{counts[0]} steps")
    for steps, peak in sorted(peaks.items()):
        print(f"  peak memory of {steps} steps: {peak / 1e6:.0f} MB")
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
