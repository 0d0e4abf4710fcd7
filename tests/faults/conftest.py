"""A house per test, which is stopped and looked over at its end; and homes whose commands are forks."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from faults.crashes import Place
from faults.forks import Forks
from faults.house import House
from penstock.store.sql import open_store
from sources.repositories import isolated, new_repo


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as made:
        yield made


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once."""
    path = tmp_path_factory.mktemp("database") / "penstock.db"
    open_store(path).close()
    return path


NewPlace = Callable[..., Place]


@pytest.fixture
def new_place(tmp_path: Path, forks: Forks, database: Path) -> Iterator[NewPlace]:
    """Makes a home, with a repository of these files, whose commands are forks; looked over at the end."""
    made: list[Place] = []

    def make(
        *, contain: bool = False, home: Path | None = None, more: Mapping[str, str] | None = None, **files: str
    ) -> Place:
        folder = tmp_path / f"place{len(made)}"
        repo = new_repo(folder / "repo", {**isolated(folder / "person"), **(more or {})})
        repo.commit("one", **{name.replace("_", "."): text for name, text in files.items()})
        place = Place(folder, forks, repo, contain=contain)
        if home is not None:
            (home / "home").mkdir()
            place.home.symlink_to(home / "home", target_is_directory=True)
        place.room.mkdir(parents=True)
        shutil.copyfile(database, place.home / "penstock.db")
        made.append(place)
        return place

    yield make
    for place in made:
        place.gone()
