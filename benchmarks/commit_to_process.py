"""How long it takes from a commit to the first process of its run, under `penstock serve` with the Git hook.

    python benchmarks/commit_to_process.py [--rounds 20]

The step itself writes what the clock shows; so what is measured ends in the step's own shell, inside its containment,
and begins when `git commit` has returned. A bare `git fetch` of the same commit, in each round, is the yardstick: most
of the time is git's. The promise is a median under 150 ms.
"""

import argparse
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from side_by_side import PENSTOCK, environment, repository, run, scratch, table, two_processors, until

PIPELINE = """\
name: tiny
steps:
  first: {{run: "date +%s.%N >{folder}/clock.new; mv {folder}/clock.new {folder}/clock"}}
"""


def prepare(folder: Path, variables: Mapping[str, str]) -> Path:
    """A repository with one commit and the hook, and a clone for the yardstick."""
    repo = repository(folder / "repository", {"penstock.yaml": PIPELINE.format(folder=folder)})
    run(("git", "clone", "--quiet", "--bare", ".", str(folder / "yardstick.git")), repo, variables)
    run((*PENSTOCK, "hook", "install", "."), repo, variables)
    return repo


def measure(folder: Path, repo: Path, variables: Mapping[str, str]) -> dict[str, float]:
    """One commit: seconds from its end to the request, the run and the process, and those of commit and yardstick."""
    clock = folder / "clock"
    clock.unlink(missing_ok=True)
    began = time.time()
    run(("git", "commit", "--quiet", "--allow-empty", "-m", "next"), repo, variables)
    committed = time.time()
    until(clock.exists, "the run")
    with sqlite3.connect(f"file:{folder / 'home' / 'penstock.db'}?mode=ro", uri=True) as store:
        (asked,) = store.execute("SELECT max(created) FROM triggers").fetchone()
        (added,) = store.execute("SELECT max(created) FROM runs").fetchone()
        open_ = "SELECT count(*) FROM requests WHERE status = 'open'"
        until(lambda: store.execute(open_).fetchone() == (0,), "the end of the run")
    fetching = time.time()
    fetch = ("git", "fetch", "--quiet", str(repo), "+refs/heads/*:refs/heads/*")
    run(fetch, folder / "yardstick.git", variables)
    return {
        "git fetch": time.time() - fetching,
        "git commit with the hook": committed - began,
        "commit to request": asked - committed,
        "commit to run": added - committed,
        "commit to first process": float(clock.read_text()) - committed,
    }


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    two_processors()
    with scratch() as folder:
        variables = environment(folder / "home")
        repo = prepare(folder, variables)
        command = (*PENSTOCK, "serve", "--repo", ".", "--poll", "3600", "--port", "0")
        serve = subprocess.Popen(command, cwd=repo, env=variables, stderr=subprocess.DEVNULL)
        try:
            until((folder / "clock").exists, "the first run")
            found = [measure(folder, repo, variables) for _ in range(rounds)]
        finally:
            serve.terminate()
            serve.wait()
    table(f"{rounds} commits under serve", {name: [row[name] for row in found] for name in found[0]}, "git fetch")
    print("  promised: commit to first process in under 150 ms (median)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
