"""One home for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.builders import Command, House
from penstock.store.sql import open_store


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once."""
    path = tmp_path_factory.mktemp("database") / "penstock.db"
    open_store(path).close()
    return path


@pytest.fixture
def house(tmp_path: Path, database: Path) -> Iterator[House]:
    made = House(tmp_path, database)
    yield made
    made.machine.close()
    made.store.close()


@pytest.fixture
def command() -> Iterator[Command]:
    made = Command()
    yield made
    made.die()
