"""How long it takes to see that nothing is to be done: steps of one input and one output each, all made before.

    python benchmarks/nothing_to_do.py [--steps 1000] [--rounds 5] [--peers ninja,make,doit,snakemake,dvc]

Two figures each: the whole command; and its engine part, which is the whole command minus that of a project of one such
step, so that start-up is apart. Beside them `penstock --version`, the floor of every command. Snakemake and DVC get 200
and 100 steps (making them first would take minutes); their engine part is told per 1,000 steps like the others'.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from side_by_side import (
    COMMANDS,
    PENSTOCK,
    Measured,
    begin,
    by_turns,
    chosen,
    environment,
    lay_out,
    prepared_home,
    program,
    ratio,
    repository,
    run,
    scratch,
    table,
    taken,
    two_processors,
)

FEWER = {"snakemake": 200, "dvc": 100}
"""Steps of those peers that would take minutes to make a thousand at first."""


def inputs(count: int) -> dict[str, str]:
    return {f"in/{n}": f"{n}\n" for n in range(count)}


def penstock_files(count: int) -> dict[str, str]:
    steps = [f"  s{n}: {{run: cp in/{n} out{n}, inputs: [in/{n}], outputs: [out{n}]}}\n" for n in range(count)]
    return {"penstock.yaml": "name: nothing\nsteps:\n" + "".join(steps)}


def ninja_files(count: int) -> dict[str, str]:
    edges = [f"build out{n}: copy in/{n}\n" for n in range(count)]
    return {"build.ninja": "rule copy\n  command = cp $in $out\n" + "".join(edges)}


def make_files(count: int) -> dict[str, str]:
    rules = [f"out{n}: in/{n}\n\tcp in/{n} out{n}\n" for n in range(count)]
    return {"Makefile": f"MAKEFLAGS += -r\nall: {' '.join(f'out{n}' for n in range(count))}\n" + "".join(rules)}


def doit_files(count: int) -> dict[str, str]:
    tasks = [
        {"name": f"s{n}", "actions": [f"cp in/{n} out{n}"], "file_dep": [f"in/{n}"], "targets": [f"out{n}"]}
        for n in range(count)
    ]
    return {"dodo.py": f"def task_t():\n    yield from {tasks!r}\n"}


def snakemake_files(count: int) -> dict[str, str]:
    return {
        "Snakefile": f"rule all:\n    input: expand('out{{n}}', n=range({count}))\n"
        "rule s:\n    input: 'in/{n}'\n    output: 'out{n}'\n    shell: 'cp {input} {output}'\n"
    }


def dvc_files(count: int) -> dict[str, str]:
    stages = {f"s{n}": {"cmd": f"cp in/{n} out{n}", "deps": [f"in/{n}"], "outs": [f"out{n}"]} for n in range(count)}
    return {"dvc.yaml": json.dumps({"stages": stages})}


FILES: Mapping[str, Callable[[int], dict[str, str]]] = {
    "ninja": ninja_files,
    "make": make_files,
    "doit": doit_files,
    "snakemake": snakemake_files,
    "dvc": dvc_files,
}


def penstock_turn(place: Path, count: int) -> Measured:
    """A project whose every step is in the cache; a turn is one more run."""
    folder = repository(place / f"penstock-{count}", {**penstock_files(count), **inputs(count)})
    variables = environment(place / "prepared-home")
    run((*PENSTOCK, "run"), folder, variables)
    return lambda: taken((*PENSTOCK, "run"), folder, variables).seconds


def peer_turn(name: str, place: Path, count: int) -> Measured:
    """A folder in which the peer has made everything."""
    folder = place / f"{name}-{count}"
    lay_out(folder, {**FILES[name](count), **inputs(count)})
    begin(name, folder)
    command = (program(name), *COMMANDS[name])
    run(command, folder, environment(folder))
    return lambda: taken(command, folder, environment(folder)).seconds


def compare(place: Path, count: int, peers: list[str], rounds: int) -> None:
    """Penstock and its peers by turns; two tables."""
    contenders: dict[str, Measured] = {}
    counts: dict[str, int] = {}
    for name in ("penstock", *peers):
        fewer = min(count, FEWER.get(name, count))
        label = name if fewer == count else f"{name} ({fewer} steps)"
        counts[label] = fewer
        for steps, what in ((fewer, label), (1, f"{label}, 1")):
            turn = penstock_turn(place, steps) if name == "penstock" else peer_turn(name, place, steps)
            contenders[what] = turn
    contenders["penstock --version"] = lambda: taken((*PENSTOCK, "--version"), place, environment(place)).seconds
    found = by_turns(contenders, rounds)
    whole = {name: values for name, values in found.items() if not name.endswith(", 1")}
    table(f"{count} steps, nothing to do: the whole command", whole, "make")
    engine = {
        name: [(all_ - one) / (steps - 1) * 1000 for all_, one in zip(found[name], found[f"{name}, 1"], strict=True)]
        for name, steps in counts.items()
    }
    table("its engine part, per 1,000 steps", engine, "make")
    print("  promised: penstock's engine part below make's and every Python peer's; the whole command below doit's")
    if "doit" in whole:
        print(f"  whole command: {ratio(whole['penstock'], whole['doit']):.2f}× doit;", end=" ")
    print(f"start-up with one cached step {statistics.median(found['penstock, 1']) * 1000:.0f} ms")


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="those to compare with, with commas between; all by default")
    asked = parser.parse_args()
    two_processors()
    with scratch() as place:
        prepared_home(place)
        compare(place, asked.steps, chosen(list(FILES), asked.peers), asked.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
