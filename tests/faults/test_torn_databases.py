"""Copies of the database as a power cut leaves them: sound, with all that reached them (FAULTS 14)."""

import random
import shutil
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.conftest import NewPlace
from penstock.cli import checkup
from penstock.store.sql import Store, open_store

COPIES = 120
CUTS = 120


@dataclass
class Writer:
    """Writes transactions of different sizes, numbered from 1."""

    store: Store
    number: int = 0

    def write(self, dice: random.Random) -> None:
        self.number += 1
        with self.store.transaction(durable=dice.random() < 0.2):
            for part in ("begin", "end"):
                text = "x" * dice.randrange(1, 20_000)
                self.store._journal.record("test", str(self.number), part, (None, "written"), text)


def copied(path: Path, place: Path) -> None:
    """Copy database and log as they lie, the database first: what a checkpoint moves meanwhile is in both."""
    place.mkdir()
    for name in ("penstock.db", "penstock.db-wal"):
        shutil.copyfile(path.with_name(name), place / name)


def written(path: Path) -> list[int]:
    """The numbers of the whole transactions in a database, which must be sound."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT entity, count(*) FROM events WHERE kind = 'test' GROUP BY entity").fetchall()
    connection.close()
    assert {count for _, count in rows} <= {2}, "half of a transaction"
    return sorted(int(entity) for entity, _ in rows)


def test_copies_cut_at_any_byte(tmp_path: Path) -> None:
    """A log cut off or zeroed from any byte on: the database is sound and holds a beginning of what was committed."""
    dice = random.Random(1)  # noqa: S311 - a seeded order, no secret
    path = tmp_path / "home" / "penstock.db"
    with open_store(path) as store:
        # What a checkpoint moved to the database was synced in the log before: such a log is not cut off.
        store._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        store._connection.exec_driver_sql("PRAGMA wal_autocheckpoint=0")
        writer = Writer(store)
        for _ in range(60):
            writer.write(dice)
        log = path.with_name("penstock.db-wal").read_bytes()
        base = path.read_bytes()
    lengths = []
    for number in range(CUTS):
        torn = tmp_path / f"torn{number}" / "penstock.db"
        torn.parent.mkdir()
        torn.write_bytes(base)
        cut = dice.randrange(len(log))
        rest = (b"", bytes(len(log) - cut), dice.randbytes(min(4096, len(log) - cut)))[number % 3]
        torn.with_name("penstock.db-wal").write_bytes(log[:cut] + rest)
        found = written(torn)
        assert found == list(range(1, len(found) + 1)), "a hole among the committed"
        lengths.append((cut, len(found)))
    assert [count for _, count in sorted(lengths)] == sorted(count for _, count in lengths), "a longer log holds more"
    assert len({count for _, count in lengths}) > 20


def test_a_copy_of_everything_has_everything(tmp_path: Path) -> None:
    """Database and log as they lie after each of many commits, checkpoints in between: all that was committed."""
    dice = random.Random(3)  # noqa: S311 - a seeded order, no secret
    path = tmp_path / "home" / "penstock.db"
    with open_store(path) as store:
        store._connection.exec_driver_sql("PRAGMA wal_autocheckpoint=40")
        writer = Writer(store)
        for number in range(COPIES):
            writer.write(dice)
            copied(path, tmp_path / f"copy{number}")
            assert written(tmp_path / f"copy{number}" / "penstock.db") == list(range(1, writer.number + 1))


def test_copies_while_it_is_written(tmp_path: Path) -> None:
    """Copied by a thread beside the writing one, with no checkpoint between: sound, with all from before the copy."""
    dice = random.Random(4)  # noqa: S311 - a seeded order, no secret
    path = tmp_path / "home" / "penstock.db"
    before = []
    with open_store(path) as store:
        store._connection.exec_driver_sql("PRAGMA wal_autocheckpoint=0")
        writer = Writer(store)
        writer.write(dice)
        for number in range(COPIES // 2):
            before.append(writer.number)
            thread = threading.Thread(target=copied, args=(path, tmp_path / f"copy{number}"))
            thread.start()
            for _ in range(4):
                writer.write(dice)
            thread.join()
    for number, least in enumerate(before):
        found = written(tmp_path / f"copy{number}" / "penstock.db")
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= least, "what was acknowledged before the copy is in it"


def test_doctor_flags_a_damaged_database(new_place: NewPlace) -> None:
    """A page of the database that was overwritten is found by doctor, which says so and what to do."""
    place = new_place(penstock_yaml="name: fine\nsteps:\n  fine: {run: echo fine}\n")
    place.type("run").ends()
    assert "database" in place.type("doctor").ends()
    path = place.home / "penstock.db"
    good = path.read_bytes()
    with sqlite3.connect(path) as connection:
        pages = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events'").fetchall()
    connection.close()
    with path.open("r+b") as file:
        file.seek((pages[0][0] - 1) * 4096 + 8)
        file.write(b"\xff" * 2000)
    command = place.type("doctor")
    assert command.wait() == 3
    assert "damaged" in command.said
    assert "Traceback" not in command.said
    path.write_bytes(good)


@pytest.mark.parametrize(
    ("version", "fine"),
    [((3, 40, 1), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 44, 6), True), ((3, 50, 7), True)],
)
def test_doctor_flags_an_old_sqlite(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], *, fine: bool
) -> None:
    """SQLite before 3.51.3 is named with what could go wrong and why it does not here; later ones say nothing."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    monkeypatch.setattr(sqlite3, "sqlite_version", ".".join(map(str, version)))
    found = checkup._sqlite()
    assert found.fine
    assert ("before 3.51.3" in found.detail) is not fine
