"""How long the export of a package takes the first time and unchanged, and what a new model sends again.

    python benchmarks/export.py --base IMAGE [--rounds 3] [--packages scikit-learn,numpy] [--model 100]

Each round has a home of its own and exports a version to a file: the first time, again to the same file, and again to
another one; then a version with a new model. Beside them `tar` packs the same environment, which is the floor of the
first, and `penstock lineage` looks at the same version, which is the floor of any command. The promise is the same
digest, unchanged at most 0.1× of the first, and one new layer. The peak of memory does not grow with the model.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from side_by_side import PENSTOCK, Taken, environment, repository, run, scratch, taken, two_processors

PIPELINE = """\
name: exported
runtime: {{python: "{python}", requirements: requirements.txt}}
steps:
  train: {{run: python train.py, inputs: [train.py, seed], outputs: [model/]}}
package: {{model: model/, code: [serve.py], serve: python serve.py}}
"""
TRAIN = """\
import os, random
os.mkdir("model")
made = random.Random(open("seed").read())
with open("model/weights.bin", "wb") as file:
    for _ in range({megabytes}):
        file.write(made.randbytes(1_000_000))
"""


def files(packages: str, megabytes: int) -> dict[str, str]:
    """A project whose model is random bytes, which nothing can pack."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "penstock.yaml": PIPELINE.format(python=python),
        "requirements.txt": "".join(f"{package}\n" for package in packages.split(",")),
        "train.py": TRAIN.format(megabytes=megabytes),
        "serve.py": "import time; time.sleep(60)\n",
        "seed": "1",
    }


def exported(folder: Path, variables: dict[str, str], target: str, base: str) -> tuple[Taken, dict[str, Any]]:
    """One export of the newest version: what it took, and what it told."""
    version = json.loads(told(folder, variables, "runs", "--json", "--limit", "1"))[0]["version"]
    command = (*PENSTOCK, "export", version, "--oci", target, "--base", base, "--json")
    figures = taken(command, folder, variables)
    return figures, json.loads(told(folder, variables, *command[len(PENSTOCK) :]))


def told(folder: Path, variables: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        (*PENSTOCK, *arguments), cwd=folder, env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout


def packed(home: Path, place: Path) -> float:
    """Seconds that tar takes for the environment alone."""
    command = ("tar", "--create", "--file", str(place / "plain.tar"), "--directory", str(home), "runtimes")
    return taken(command, place, environment(home)).seconds


def one_round(place: Path, asked: argparse.Namespace) -> dict[str, float]:
    """All exports in a new home."""
    shutil.rmtree(place, ignore_errors=True)
    folder, home = repository(place / "project", files(asked.packages, asked.model)), place / "home"
    variables = environment(home)
    run((*PENSTOCK, "run", "--no-deploy"), folder, variables)
    floor = taken((*PENSTOCK, "lineage", "0"), folder, variables)
    first, whole = exported(folder, variables, str(place / "a.tar"), asked.base)
    same, again = exported(folder, variables, str(place / "a.tar"), asked.base)
    other, copy = exported(folder, variables, str(place / "b.tar"), asked.base)
    assert whole["digest"] == again["digest"] == copy["digest"]
    (folder / "seed").write_text("2")
    run(("git", "commit", "-qam", "two"), folder, variables)
    run((*PENSTOCK, "run", "--no-deploy"), folder, variables)
    newer, changed = exported(folder, variables, str(place / "c.tar"), asked.base)
    kept = {layer["digest"] for layer in whole["layers"]}
    return {
        "first": first.seconds,
        "unchanged": same.seconds,
        "another file": other.seconds,
        "new model": newer.seconds,
        "tar": packed(home, place),
        "lineage": floor.seconds,
        "memory": first.memory / 1e6,
        "size": whole["size"] / 1e6,
        "sent": sum(layer["size"] for layer in changed["layers"] if layer["digest"] not in kept) / 1e6,
    }


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="an image that podman or docker has, with this Python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packages", default="scikit-learn,numpy")
    parser.add_argument("--model", type=int, default=100, help="megabytes")
    asked = parser.parse_args()
    two_processors()
    with scratch() as place:
        rounds = [one_round(place / "round", asked) for _ in range(asked.rounds)]
    found = {name: median(turn[name] for turn in rounds) for name in rounds[0]}
    ratio = median(turn["unchanged"] / turn["first"] for turn in rounds)
    print(f"image                     {found['size']:8.0f} MB")
    for name in ("first", "unchanged", "another file", "new model", "tar", "lineage"):
        print(f"{name:<25} {found[name]:8.2f} s")
    print(f"unchanged beside first    {ratio:8.2f} × (promised: 0.1)")
    print(f"sent after a new model    {found['sent']:8.1f} MB")
    print(f"peak memory of the first  {found['memory']:8.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
