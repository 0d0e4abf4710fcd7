"""How long it takes to see that many files have not changed.

    python benchmarks/unchanged.py [--files 20000] [--rounds 5]

One step reads all files; it was made before. `penstock plan` looks at the commit, `penstock plan --worktree` at the
files themselves as they lie in the folder; `dvc status` and `git status` are beside them, in the same turns. The
promise is at most 0.1× of `dvc status`.
"""

import argparse
import json
import sys
from pathlib import Path

from side_by_side import (
    COMMANDS,
    PENSTOCK,
    Measured,
    MissingError,
    begin,
    by_turns,
    environment,
    lay_out,
    prepared_home,
    program,
    repository,
    run,
    scratch,
    table,
    taken,
    two_processors,
)

PIPELINE = "name: many\nsteps:\n  look: {run: ls data | wc -l >count, inputs: [data/], outputs: [count]}\n"
DVC = {"stages": {"look": {"cmd": "ls data | wc -l >count", "deps": ["data"], "outs": ["count"]}}}


def files(count: int) -> dict[str, str]:
    """Small files, a hundred in a folder."""
    return {f"data/{n // 100}/{n}.txt": f"{n}\n" * 20 for n in range(count)}


def penstock_turns(place: Path, count: int) -> dict[str, Measured]:
    """The repository, in which the step was run; Git's own look at it is a yardstick."""
    folder = repository(place / "penstock", {"penstock.yaml": PIPELINE, **files(count)})
    variables = environment(place / "prepared-home")
    run((*PENSTOCK, "run"), folder, variables)
    run((*PENSTOCK, "run", "--worktree"), folder, variables)
    commands = {
        "penstock plan": (*PENSTOCK, "plan"),
        "penstock plan --worktree": (*PENSTOCK, "plan", "--worktree"),
        "penstock --version": (*PENSTOCK, "--version"),
        "git status": (program("git"), "status"),
    }
    return {name: lambda c=command: taken(c, folder, variables).seconds for name, command in commands.items()}  # type: ignore[misc]


def dvc_turns(place: Path, count: int) -> dict[str, Measured]:
    """The same files under DVC, which has run the stage; nothing where it cannot be had."""
    try:
        path = program("dvc")
    except MissingError as error:
        print(f"dvc left out: {error}", file=sys.stderr)
        return {}
    folder = place / "dvc"
    lay_out(folder, {"dvc.yaml": json.dumps(DVC), **files(count)})
    begin("dvc", folder)
    run((path, *COMMANDS["dvc"]), folder, environment(folder))
    return {"dvc status": lambda: taken((path, "status"), folder, environment(folder)).seconds}


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    two_processors()
    with scratch() as place:
        prepared_home(place)
        contenders = {**penstock_turns(place, asked.files), **dvc_turns(place, asked.files)}
        found = by_turns(contenders, asked.rounds)
    table(f"{asked.files} unchanged files", found, "dvc status")
    print("  promised: at most 0.1× dvc status")
    return 0


if __name__ == "__main__":
    sys.exit(main())
