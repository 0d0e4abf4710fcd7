"""How long the plan of a large pipeline takes after its file was parsed, in this process.

    python benchmarks/planning.py [--steps 10000] [--rounds 5]

Three shapes: steps that need nothing, a chain, and layers of 100 steps whose inputs are outputs of the layer before.
The file is parsed once, apart. The promise is a plan of 10,000 steps in under 1 s; beside it, in the same turns, the
time that `json` takes to read the same pipeline, as a yardstick for this machine.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from penstock.plans import plan
from penstock.sources.definitions import load
from side_by_side import Measured, by_turns, table, two_processors

WIDTH = 100
"""Steps of a layer."""

Steps = dict[str, dict[str, object]]


def apart(count: int) -> Steps:
    return {f"s{n}": {"run": "true", "inputs": [f"in/{n}"], "outputs": [f"out/{n}"]} for n in range(count)}


def chain(count: int) -> Steps:
    return {f"s{n}": {"run": "true", "needs": [f"s{n - 1}"] if n else []} for n in range(count)}


def layers(count: int) -> Steps:
    """Each step reads three outputs of the layer before."""
    return {
        f"s{n}": {
            "run": "true",
            "inputs": [f"out/{(n // WIDTH - 1) * WIDTH + (n + k) % WIDTH}" for k in range(3)]
            if n >= WIDTH
            else ["in/"],
            "outputs": [f"out/{n}"],
        }
        for n in range(count)
    }


SHAPES: Mapping[str, Callable[[int], Steps]] = {"apart": apart, "chain": chain, "layers": layers}


def seconds(work: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes: it waits for nothing, and others on this machine do not count."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> int:
    """Measure and print; 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    two_processors()
    contenders: dict[str, Measured] = {}
    for shape, make in SHAPES.items():
        text = json.dumps({"name": "large", "steps": make(asked.steps)}).encode()
        begin = time.process_time()
        pipeline = load(text, "penstock.yaml")
        print(f"parsing {shape:<8} {time.process_time() - begin:6.2f} s, once")
        contenders[f"plan, {shape}"] = partial(seconds, partial(plan, pipeline))
        contenders.setdefault("json.loads", partial(seconds, partial(json.loads, text)))
    table(f"a plan of {asked.steps} steps, after parsing", by_turns(contenders, asked.rounds), "json.loads", "s", 1)
    print("  promised: under 1 s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
