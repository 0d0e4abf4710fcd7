"""Disks that are full or broken: only what needs them fails, nothing half-written is used (FAULTS 12, 13)."""

import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.conftest import NewPlace
from faults.crashes import Place
from faults.disks import MIB, Disk, Fragile, fragile_disk, small_disk
from faults.house import until
from penstock.artifacts import File
from penstock.cache.disk import DiskCache
from penstock.errors import DiskError, EngineError
from penstock.store import disks
from penstock.store.sql import Store, open_store

SMALL = MIB // 2
"""Bytes that are as good as none."""

NEIGHBOUR = 'neighbour: {run: "echo before; while [ ! -e $HOME/../go ]; do sleep 0.05; done"}'
PIPELINE = f"""\
name: full
steps:
  {NEIGHBOUR}
  fill: {{run: FILL}}
"""
# What fills the disk lets its neighbour go on only then; echo may fail, the file is there.
FILL = {
    "output": '"cat /dev/zero >big 2>/dev/null || { : >$HOME/../go; exit 1; }"',
    "log": '"cat /dev/zero 2>/dev/null || { : >$HOME/../go; exit 1; }"',
    "kept": '"cat /dev/zero >big 2>/dev/null || { : >$HOME/../go; sleep 0.5; }"',
}
ARTIFACT = """\
name: artifact
steps:
  big: {run: head -c 14000000 /dev/urandom >big, outputs: [big]}
  neighbour: {run: sleep 0.1}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "small", 32 * MIB) as made:
        yield made


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Fragile]:
    with fragile_disk(tmp_path / "fragile") as made:
        yield made


def at(place: Place, status: str) -> list[str]:
    """The steps of the first run with a status."""
    return [name for (name,) in place.rows("SELECT name FROM steps WHERE status = ? AND run = 1 ORDER BY 1", status)]


def admits_again(place: Place) -> None:
    """A new commit whose steps are small passes."""
    place.repo.commit("small", **{"penstock.yaml": "name: full\nsteps:\n  small: {run: echo fine}\n"})
    place.type("run").ends()


@pytest.mark.parametrize("kind", ["output", "log"])
def test_a_step_that_fills_the_disk_fails_alone(disk: Disk, new_place: NewPlace, kind: str) -> None:
    """Not a byte is left: the step fails, its neighbour passes, all is recorded and shown, and then there is room."""
    place = new_place(home=disk.folder, penstock_yaml=PIPELINE.replace("FILL", FILL[kind]))
    place.type("run").ends(1)
    assert disk.left < SMALL or kind == "log"  # zeros take little room once they are compressed
    assert (at(place, "failed"), at(place, "passed")) == (["fill"], ["check", "neighbour"])
    for verb in (("runs",), ("show", "1"), ("status",)):
        place.type(*verb).ends()
    again = place.type("run", "--no-cache")
    assert again.wait() == (3 if "disk is" in again.said else 1)
    assert "Traceback" not in again.said
    for file in [*place.home.glob("runs/*/work/*/big"), *place.home.glob("runs/*/*.log")]:
        file.unlink()
    admits_again(place)


def test_a_step_that_leaves_the_disk_full_passes(disk: Disk, new_place: NewPlace) -> None:
    """Commits need no room that was not there before: a full disk at the end of every step is recorded all the same."""
    place = new_place(home=disk.folder, penstock_yaml=PIPELINE.replace("FILL", FILL["kept"]))
    place.type("run").ends()
    assert disk.left < SMALL
    assert at(place, "passed") == ["check", "fill", "neighbour"]
    next(place.home.glob("runs/1/work/*/big")).unlink()
    admits_again(place)


def test_nothing_begins_on_a_full_disk(disk: Disk, new_place: NewPlace) -> None:
    """A run on a disk that is as good as full is errored with a sentence that says what to do; later it passes."""
    place = new_place(home=disk.folder, penstock_yaml="name: full\nsteps:\n  small: {run: echo fine}\n")
    place.type("run").ends()
    disk.fill()
    command = place.type("run", "--no-cache")
    assert command.wait() == 3
    assert "the disk is as good as full (0 MiB left): penstock gc, or make room" in command.said
    disk.free()
    assert place.rows("SELECT count(*) FROM attempts WHERE run = 2") == [(0,)]
    place.type("run", "--no-cache").ends()


def test_an_artifact_without_room(disk: Disk, new_place: NewPlace) -> None:
    """An output that does not fit into the cache: the step is errored, no part of it stays, with room it passes."""
    place = new_place(home=disk.folder, penstock_yaml=ARTIFACT)
    held = place.home / "cache"
    place.type("run").ends(3)
    assert (at(place, "errored"), at(place, "passed")) == (["big"], ["check", "neighbour"])
    assert [file for file in held.rglob("*") if file.is_file() and file.stat().st_size > 1_000_000] == []
    disk.resize(96 * MIB)
    place.type("run").ends()
    result = place.rows("SELECT json_extract(result, '$.outputs') FROM steps WHERE run = 2 AND name = 'big'")[0][0]
    cache = DiskCache(held)
    (big,) = cache.tree(result).entries.values()
    assert isinstance(big, File)
    assert len(cache.read(big.digest)) == 14_000_000


def grow(store: Store, number: int, *, durable: bool = False) -> None:
    """A transaction of 64 KiB."""
    with store.transaction(durable=durable):
        store._journal.record("test", str(number), "grow", (None, "grown"), "x" * 65536)


def grown(path: Path) -> list[int]:
    """The numbers of the committed transactions."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [int(n) for (n,) in connection.execute("SELECT entity FROM events WHERE kind = 'test' ORDER BY seq")]


def until_refused(store: Store, *, durable: bool = False) -> int:
    """Write until that is refused; how many transactions were acknowledged."""
    for number in range(10_000):
        try:
            grow(store, number, durable=durable)
        except DiskError as error:
            sys.stdout.write(f"\n{number} transactions, then: {error}\n")
            return number
    raise AssertionError("the disk never ran full")


def test_a_commit_without_room(disk: Disk) -> None:
    """The database on a full disk takes what has room, then refuses for good; all that it took is there."""
    path = disk.folder / "penstock.db"
    store = open_store(path)
    grow(store, -1)
    disk.fill()
    taken = until_refused(store)
    assert taken * 65536 > disks.RESERVE // 2, "what was kept for it is used"
    disk.free()
    with pytest.raises(DiskError, match="make room, then penstock resume"):
        grow(store, 0)
    store.close()
    assert grown(path) == [-1, *range(taken)]
    with open_store(path) as again:
        grow(again, taken)
    assert grown(path)[-1] == taken


def test_room_is_kept_between_commands(disk: Disk) -> None:
    """While nobody has the database open a file keeps the room; with a full disk the next command has it."""
    path = disk.folder / "penstock.db"
    with open_store(path) as store:
        grow(store, 0)
    assert path.with_name("penstock.db-reserve").stat().st_blocks * 512 >= disks.RESERVE
    disk.fill()
    with open_store(path) as store:
        grow(store, 1)
        assert not path.with_name("penstock.db-reserve").exists()
    assert grown(path) == [0, 1]


def test_an_fsync_that_fails(fragile: Fragile) -> None:
    """A disk that takes nothing any more: a durable commit is refused, and all before it is there after a repair."""
    path = fragile.folder / "penstock.db"
    store = open_store(path)
    grow(store, 0, durable=True)
    fragile.break_()
    with pytest.raises(DiskError, match=r"nothing can be recorded in .* any more"):
        grow(store, 1, durable=True)
    with pytest.raises(DiskError):
        grow(store, 2)
    store.close()
    fragile.mend()
    assert grown(path) == [0]


def test_a_command_on_a_broken_disk(fragile: Fragile, new_place: NewPlace, tmp_path: Path) -> None:
    """The disk breaks under a run: one sentence and exit 3; after a repair `resume` goes on and the run passes."""
    gate = tmp_path / "go"
    waits = f"until [ -e {gate} ]; do sleep 0.05; done"
    pipeline = f'name: broken\nsteps:\n  wait: {{run: "{waits}", retry: {{max: 2, on: [error]}}}}\n'
    place = new_place(home=fragile.folder, penstock_yaml=pipeline)
    command = place.type("run")
    place.until_recorded(1, "wait")
    fragile.sync()
    fragile.break_()
    gate.touch()
    begun = time.monotonic()
    assert command.wait() == 3
    sys.stdout.write(f"\nnoticed after {time.monotonic() - begun:.2f} s: {command.said}\n")
    assert "nothing can be recorded in" in command.said
    assert "Traceback" not in command.said
    for verb in (("runs",), ("show", "1")):
        looked = place.type(*verb)
        assert looked.wait() in {0, 3}
        assert "Traceback" not in looked.said
    until(lambda: not place.processes(), "what ran has ended")
    fragile.mend()
    place.type("resume").ends()
    assert place.rows("SELECT status FROM runs") == [("passed",)]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A database that is no database is said to be so, with what to do."""
    path = tmp_path / "penstock.db"
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(EngineError, match=r"cannot be used .*: run penstock doctor"):
        open_store(path)
