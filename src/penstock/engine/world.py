"""The parts that the engine works with, and where a home keeps what."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.cache.contract import Cache
from penstock.engine.contracts import Clock, Router, Runner, Runtimes, Source
from penstock.store.sql import Store


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds all state; deleting it (after `penstock stop`) uninstalls."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "penstock.db"

    @property
    def lock(self) -> Path:
        return self.path / "coordinator.lock"

    @property
    def fifo(self) -> Path:
        return self.path / "poke"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def sources(self) -> Path:
        return self.path / "sources"

    @property
    def router(self) -> Path:
        return self.path / "router"

    def run(self, number: int) -> Path:
        return self.path / "runs" / str(number)

    def release(self, number: int) -> Path:
        return self.path / "releases" / str(number)

    def person(self, project: str) -> Path:
        """The private HOME of a project's steps and replicas."""
        return self.path / "persons" / project

    def make(self) -> None:
        """Make the home's folders and its FIFO, for its owner alone."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.cache, self.sources, self.router, self.path / "runs", self.path / "releases"):
            folder.mkdir(exist_ok=True, mode=0o700)
        if not self.fifo.exists():
            try:
                os.mkfifo(self.fifo, 0o600)
            except FileExistsError:
                return


@dataclass(frozen=True, slots=True)
class World:
    """Everything a coordinator needs.

    `environment` is the person's, handed in once; `cpus` bounds what runs at once;
    `grace`, `drain` and `settle` are seconds. `crash` is told of every crash point beside those of the store.
    """

    home: Home
    store: Store
    cache: Cache
    source: Source
    runtimes: Runtimes
    runner: Runner
    router: Router
    clock: Clock
    environment: Mapping[str, str]
    cpus: int
    grace: float = 10.0
    drain: float = 30.0
    settle: float = 0.3
    crash: Callable[[str], None] = lambda _point: None
