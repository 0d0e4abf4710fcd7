"""Plays a home under crashes, lost, late and doubled messages and jumping clocks, and says how it went.

    python benchmarks/simulation.py [--events 1000000] [--seed 1] [--engine]

Without `--engine` the pure rules are played: the schedule, the frontier, the transition tables, the longest paths.
With it the real coordinator, drivers and store are played, on a scripted machine under invented time. After every
event the promises are checked; a broken one is told with its event, and the exit code is 1. The digest names all that
happened: the same seed gives the same digest, so a fault can be played again. With `--engine` an event is a recorded
transition, and one home of 40 runs after another is played, each with the next seed, until there are enough.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine.books import BrokenError
from engine.simulation import Simulation
from engine.whole import Whole
from penstock.store.sql import open_store


def play_rules(events: int, seed: int) -> str:
    """Play the pure rules; gives the digest."""
    home = Simulation(seed)
    home.play(events)
    home.settle()
    for kind, count in sorted({**home.counts, **home.seen}.items()):
        print(f"  {kind:20} {count:9}")
    print(f"  {'runs ended':20} {len(home.facts.ended):9}")
    return home.digest


def play_engine(transitions: int, seed: int) -> tuple[int, str]:
    """Play the real engine until so many transitions are recorded; gives their number and the digest of all homes."""
    done, number, seen, digest = 0, 0, Counter[str](), hashlib.blake2b(digest_size=16)
    while done < transitions:
        with tempfile.TemporaryDirectory(prefix="penstock-simulation-") as folder:
            open_store(Path(folder) / "empty.db").close()
            home = Whole(Path(folder) / "home", Path(folder) / "empty.db", seed + number)
            try:
                home.play(40)
            except BrokenError as error:
                raise BrokenError(
                    f"home {number}, played alone by --seed {seed + number} --events 1: {error}"
                ) from error
            seen.update(home.seen)
            digest.update(home.digest.encode())
        number += 1
        done = seen["transitions"]
    for kind, count in sorted(seen.items()):
        print(f"  {kind:40} {count:9}")
    return done, digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", action="store_true", help="the real engine; events are transitions then")
    asked = parser.parse_args()
    began = time.perf_counter()
    try:
        count, digest = asked.events, ""
        if asked.engine:
            count, digest = play_engine(asked.events, asked.seed)
        else:
            digest = play_rules(asked.events, asked.seed)
    except BrokenError as error:
        print(f"seed {asked.seed}: broken: {error}")
        return 1
    print(f"{count / (time.perf_counter() - began):.0f} events per second")
    print(f"digest {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
