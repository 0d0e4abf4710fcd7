"""How quickly the cache lays out and captures a tree of 1 GiB, beside `cp --reflink=auto` on the same disk.

    python benchmarks/restore.py [--rounds 7] [--mebibytes 1024] [--folder DIR]

By turns in each round: `cp` of the tree, `lay_out` of the same tree from a cache that holds it, `capture` of the tree
into an empty cache, `capture` into a cache that holds it. What each leaves for the disk to write is waited for apart
(`sync`), so that nobody pays for the one before. Figures are medians of seconds. The promise is `lay_out` at most
1.2 × `cp` for content as models are, which does not compress. Text is
compressed in the cache where files cannot be cloned, and its time is shown beside.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from penstock.artifacts import Tree
from penstock.cache.disk import DiskCache

PROMISE = 1.2
MEBIBYTE = 1 << 20
SMALL = 50 << 10
PROMISED = ("one file", "large files", "many small files")


@dataclass(frozen=True)
class Place:
    """A tree on disk, a cache that holds it, and a folder for what is written anew each time."""

    tree: Path
    cache: DiskCache
    scratch: Path


def noise(size: int, seed: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)  # noqa: S311 (no secret, and the same every time)


def text(size: int, seed: int) -> bytes:
    """Lines of numbers, as a table has them."""
    order = random.Random(seed)  # noqa: S311 (as above)
    rows = [f"{n},{order.random():.6f},{order.randrange(100)},{order.random() * 1e4:.2f}\n" for n in range(30_000)]
    block = "".join(rows).encode()
    return (block * (size // len(block) + 1))[:size]


def make_tree(folder: Path, files: int, size: int, content: Callable[[int, int], bytes]) -> None:
    """Files of `size` bytes each, a hundred to a folder, all different."""
    large = min(size, 16 * MEBIBYTE)
    for number in range(files):
        path = folder / f"{number // 100:03}" / f"{number % 100:02}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size, large):
                file.write(content(min(large, size - start), number * 10_000 + start // large))


def kinds(mebibytes: int) -> Mapping[str, tuple[int, int, Callable[[int, int], bytes]]]:
    """What is measured: number of files, bytes of each, and what is in them."""
    whole = mebibytes * MEBIBYTE
    return {
        "one file": (1, whole, noise),
        "large files": (16, whole // 16, noise),
        "many small files": (whole // SMALL, SMALL, noise),
        "tables of text": (16, whole // 16, text),
    }


def emptied(folder: Path) -> None:
    """Give back the memory and blocks of all files, but not the files: a file system without a journal searches long
    among those that were deleted just now, and whoever comes next would pay for it.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            os.truncate(path, 0)


def contenders(place: Place, held: Tree) -> Mapping[str, Callable[[Path], object]]:
    """What is timed, by name; each writes into a folder that is not there yet."""

    def copy(folder: Path) -> None:
        subprocess.run(["cp", "-r", "--reflink=auto", str(place.tree), str(folder)], check=True)

    return {
        "cp": copy,
        "lay_out": lambda folder: place.cache.lay_out(held, folder),
        "capture, new": lambda folder: DiskCache(folder).capture(place.tree, ["**"]),
        "capture, held": lambda _: place.cache.capture(place.tree, ["**"]),
    }


def seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def measure(folder: Path, tree: tuple[int, int, Callable[[int, int], bytes]], rounds: int) -> dict[str, list[float]]:
    """Median seconds of the act and of the sync after it, by name; one round first does not count."""
    place = Place(folder / "tree", DiskCache(folder / "cache"), folder / "scratch")
    place.scratch.mkdir()
    make_tree(place.tree, *tree)
    held = place.cache.capture(place.tree, ["**"]).tree
    os.sync()
    taken: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for name, act in contenders(place, held).items():
            out = place.scratch / f"{number} {name}"
            taken.setdefault(name, []).append((seconds(partial(act, out)), seconds(os.sync)))
            emptied(out)
            os.sync()
    return {
        name: [statistics.median(column) for column in zip(*pairs[1:], strict=True)] for name, pairs in taken.items()
    }


def main() -> int:
    """Print the table; always 0, because a timing fails nothing."""
    parser = argparse.ArgumentParser(description="Measure how quickly the cache lays out and captures a large tree.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to be measured; default: the temporary one")
    parser.add_argument("--only", help="one tree by its name")
    asked = parser.parse_args()
    kept = True
    print(f"{'':<20}{'':<16}{'seconds':>9}{'of cp':>8}{'sync':>9}")
    for name, tree in kinds(asked.mebibytes).items():
        if asked.only not in {None, name}:
            continue
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            medians = measure(Path(folder), tree, max(1, asked.rounds))
        floor = medians["cp"][0]
        for act, (took, synced) in medians.items():
            print(f"{name:<20}{act:<16}{took:>9.3f}{took / floor:>7.2f}×{synced:>9.3f}")
        kept = kept and (name not in PROMISED or medians["lay_out"][0] <= PROMISE * floor)
    print(f"lay_out within {PROMISE:g} × cp: {'yes' if kept else 'NO'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
