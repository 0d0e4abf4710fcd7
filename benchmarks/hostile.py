"""How long it takes to refuse a pipeline file that is made to hurt: at most a second is promised for each.

    python benchmarks/hostile.py [--rounds 3] [CASE …]

Seconds of the processor, medians, the slowest first.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from sources.files import refused
from sources.hostile import HOSTILE


def seconds(data: bytes) -> float:
    begun = time.process_time()
    refused(data)
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    given = parser.parse_args()
    rows = []
    for case in given.cases or HOSTILE:
        data = HOSTILE[case]()
        rows.append((statistics.median(seconds(data) for _ in range(given.rounds)), case))
    for took, case in sorted(rows, reverse=True):
        sys.stdout.write(f"{took:6.2f} s  {case}\n")


if __name__ == "__main__":
    main()
