"""Plays a home under crashes, lost, late and doubled messages and jumping clocks, and says how it went.

    python benchmarks/simulation.py [--events 1000000] [--seed 1] [--engine]

Without `--engine` the pure rules are played: the schedule, the frontier, the transition tables, the longest paths.
With it the real coordinator, drivers and store are played, on a scripted machine under invented time. After every
event the promises are checked; a broken one is told with its event, and the exit code is 1. The digest names all that
happened: the same seed gives the same digest, so a fault can be played again.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine.books import BrokenError
from engine.simulation import Simulation


def play_rules(events: int, seed: int) -> str:
    """Play the pure rules; gives the digest."""
    home = Simulation(seed)
    home.play(events)
    home.settle()
    for kind, count in sorted({**home.counts, **home.seen}.items()):
        print(f"  {kind:20} {count:9}")
    print(f"  {'runs ended':20} {len(home.facts.ended):9}")
    return home.digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.perf_counter()
    try:
        digest = play_rules(asked.events, asked.seed)
    except BrokenError as error:
        print(f"seed {asked.seed}: broken: {error}")
        return 1
    print(f"{asked.events / (time.perf_counter() - began):.0f} events per second")
    print(f"digest {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
