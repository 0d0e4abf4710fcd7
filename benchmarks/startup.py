"""How quickly commands answer, beside the imports that a command line of this kind usually pays for.

    python benchmarks/startup.py [--rounds 9]

Commands and yardstick run by turns in each round, so that a busy machine slows all alike; figures are medians. The
promise is about `penstock --help`: at most 0.4 of the yardstick; whether it was kept is the last line.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

YARDSTICK = (sys.executable, "-c", "import typer, pydantic, sqlalchemy, yaml, fastapi")
PENSTOCK = (sys.executable, "-m", "penstock")
MEASURED: Mapping[str, Sequence[str]] = {
    "import typer, pydantic, sqlalchemy, yaml, fastapi": YARDSTICK,
    "python -c pass": (sys.executable, "-c", "pass"),
    "penstock --version": (*PENSTOCK, "--version"),
    "penstock --help": (*PENSTOCK, "--help"),
    "penstock runs": (*PENSTOCK, "runs"),
    "penstock plan, all cached": (*PENSTOCK, "plan"),
    "penstock run, all cached": (*PENSTOCK, "run"),
}
PROMISE = 0.4

PIPELINE = """\
name: tiny
steps:
  make: {run: cp source.txt made.txt, inputs: [source.txt], outputs: [made.txt]}
  look: {stage: test, run: grep -q one made.txt, inputs: [made.txt]}
"""


def seconds(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> float:
    """How long a command takes that must end well."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - begin


def new_project(folder: Path, environment: Mapping[str, str]) -> None:
    """A repository of one commit, run once so that everything is in the cache."""
    (folder / "penstock.yaml").write_text(PIPELINE)
    (folder / "source.txt").write_text("one\n")
    name = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), (*name, "commit", "-q", "-m", "one")):
        seconds(("git", *command), folder, environment)
    seconds((*PENSTOCK, "run"), folder, environment)


def measure(rounds: int) -> dict[str, float]:
    """The median seconds of everything measured, by turns, after one round that does not count."""
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "project"
        project.mkdir()
        environment = {**os.environ, "PENSTOCK_HOME": f"{place}/home"}
        new_project(project, environment)
        taken: dict[str, list[float]] = {name: [] for name in MEASURED}
        for _ in range(rounds + 1):
            for name, command in MEASURED.items():
                taken[name].append(seconds(command, project, environment))
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description="Measure how quickly commands answer.")
    parser.add_argument("--rounds", type=int, default=9)
    medians = measure(max(1, parser.parse_args().rounds))
    yardstick = next(iter(medians.values()))
    for name, value in medians.items():
        print(f"{name:<52} {value * 1000:7.0f} ms {value / yardstick:6.2f}×")
    kept = medians["penstock --help"] <= PROMISE * yardstick
    print(f"penstock --help within {PROMISE:g}× of the imports: {'yes' if kept else 'NO'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
