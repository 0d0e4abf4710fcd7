"""The whole crash matrix: kill -9 at every crash point, and what became of the home.

    python benchmarks/crash_matrix.py [--seeds 1 2 3] [--workers 2] [--scenarios steps serve …] [--minutes 60]

Every point that an undisturbed run passes (each transition before and after its commit, each effect) is one at which
the coordinator is killed; after each commit and effect a shim, or the step or server itself, is killed too. Then
`resume`, or the next command, goes on; in some cases it is killed as well. Lost is what was asked for and never came to
its end; doubled what happened twice; stuck what did not end within a minute. The exit code says whether all three are
0. Processes, git, SQLite and the router are real; only the imports of the commands are saved.
"""

import argparse
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from faults.crashes import KINDS, SCENARIOS, Case, Found, Workshop, cases

SHOWN = ("cases", "struck", "lost", "doubled", "stuck", "median", "most")


def points(scenarios: Sequence[str], folder: Path) -> list[tuple[str, str, int]]:
    """All points of the scenarios."""
    folder.mkdir()
    with Workshop(folder) as workshop:
        return [(name, *point) for name in scenarios for point in workshop.points(name)]


def play(wanted: "multiprocessing.Queue[Case | None]", done: "multiprocessing.Queue[Found]", folder: Path) -> None:
    """Play cases in a process of its own until there are no more."""
    folder.mkdir()
    with Workshop(folder) as workshop:
        while (case := wanted.get()) is not None:
            done.put(workshop.play(case))


def play_all(all_cases: Sequence[Case], workers: int, folder: Path, limit: float) -> Iterator[Found]:
    """Play the cases in random order, side by side; what does not fit into the limit (seconds) is left out."""
    wanted: multiprocessing.Queue[Case | None] = multiprocessing.Queue(2 * workers)
    done: multiprocessing.Queue[Found] = multiprocessing.Queue()
    players = [multiprocessing.Process(target=play, args=(wanted, done, folder / f"{n}")) for n in range(workers)]
    for player in players:
        player.start()
    begun, open_cases = time.monotonic(), 0
    for case in all_cases:
        if time.monotonic() - begun > limit:
            break
        wanted.put(case)
        open_cases += 1
        while open_cases > 2 * workers:
            yield done.get()
            open_cases -= 1
    for _ in players:
        wanted.put(None)
    for _ in range(open_cases):
        yield done.get()
    for player in players:
        player.join()


def row(name: str, found: Sequence[Found]) -> str:
    """One line of the table."""
    seconds = [it.seconds for it in found if it.seconds is not None]
    numbers = [
        str(len(found)),
        str(sum(bool(it.killed) for it in found)),
        *(str(sum(bool(getattr(it, what)) for it in found)) for what in ("lost", "doubled", "stuck")),
        f"{statistics.median(seconds):.2f} s" if seconds else "",
        f"{max(seconds):.2f} s" if seconds else "",
    ]
    return f"{name:<24}" + "".join(f"{number:>10}" for number in numbers)


def table(found: Sequence[Found]) -> str:
    """Cases by scenario and kind; seconds are those until something moved again after a kill of the coordinator."""
    lines = [f"{'':<24}" + "".join(f"{name:>10}" for name in SHOWN)]
    for scenario in SCENARIOS:
        for kind in KINDS:
            part = [it for it in found if (it.case.scenario, it.case.kind) == (scenario, kind)]
            if part:
                lines.append(row(f"{scenario}, {kind}", part))
    return "\n".join([*lines, row("all", found)])


def tell(found: Found) -> None:
    """What is wrong with a case."""
    print(f"\n{found.case}: killed {found.killed}", file=sys.stderr)
    for what in ("lost", "doubled", "stuck"):
        for line in getattr(found, what):
            print(f"  {what}: {line}", file=sys.stderr)


def main() -> int:
    """0 where nothing was lost, doubled or stuck."""
    parser = argparse.ArgumentParser(description="Kill at every crash point and look what became of the home.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--minutes", type=float, default=240.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-crashes-") as place:
        found_points = points(asked.scenarios, Path(place) / "points")
        wanted = cases(found_points, asked.seeds)
        combinations = len(wanted) // len(asked.seeds)
        print(f"{len(found_points)} points, {combinations} combinations with what is killed, {len(wanted)} cases")
        random.Random(0).shuffle(wanted)  # noqa: S311 - an order, no secret
        found: list[Found] = []
        for one in play_all(wanted, asked.workers, Path(place), asked.minutes * 60):
            found.append(one)
            print(f"\r{len(found)} of {len(wanted)} ", end="", file=sys.stderr, flush=True)
            if not one.sound:
                tell(one)
        print(file=sys.stderr)
    print(table(found))
    return 0 if all(it.sound for it in found) else 1


if __name__ == "__main__":
    sys.exit(main())
