"""The parts that the engine works with, and where a home keeps what."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.cache.contract import Cache
from penstock.engine.contracts import Clock, Images, Router, Runner, Runtimes, Source
from penstock.engine.scheduling import Capacity
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
    def pushed(self) -> Path:
        """The FIFO by which Git hooks wake `serve`; not the coordinator's, which may be another command."""
        return self.path / "pushed"

    @property
    def serve_lock(self) -> Path:
        return self.path / "serve.lock"

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

    `environment` is the person's, handed in once; `capacity` bounds what runs at once; `grace`, `drain`, `settle` and
    `look` (how often a rollout is looked at) are seconds, `log_limit` bytes, `cache_cap` the bytes that the cache may
    take (0: any); `contain` gives steps a pid namespace of their own where there is one. `crash` is told of every crash
    point beside those of the store;
    `secrets` gives the values of a project's secrets by name, for an environment (or none).
    """

    home: Home
    store: Store
    cache: Cache
    source: Source
    runtimes: Runtimes
    runner: Runner
    router: Router
    images: Images
    clock: Clock
    environment: Mapping[str, str]
    capacity: Capacity
    grace: float = 10.0
    drain: float = 30.0
    settle: float = 0.3
    look: float = 1.0
    log_limit: int = 256 << 20
    contain: bool = False
    crash: Callable[[str], None] = lambda _point: None
    cache_cap: int = 0
    secrets: Callable[[str, Sequence[str], str], Mapping[str, str]] = lambda _project, _names, _environment: {}
