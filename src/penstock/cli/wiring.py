"""The only place where the parts are put together."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from penstock.cli.settings import Settings
from penstock.engine.scheduling import Capacity, Gpu
from penstock.engine.world import Home, World
from penstock.errors import EngineError


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def crasher(wanted: str | None) -> Callable[[str], None] | None:
    """Kills this process with -9 at the n-th passing of a crash point (`POINT` or `POINT#N`); for tests only."""
    if wanted is None:
        return None
    point, _, number = wanted.partition("#")
    left = int(number) if number.isdigit() else 1

    def crash(passed: str) -> None:
        nonlocal left
        left -= passed == point
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash


def _log_to(home: Home) -> logging.Handler:
    """Defects of ours go to a file of the home, with their traceback; a person's terminal gets sentences."""
    handler = logging.FileHandler(home.path / "penstock.log", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
    log = logging.getLogger("penstock")
    log.handlers[:] = [handler]
    log.propagate = False
    return handler


@contextmanager
def open_world(settings: Settings) -> Iterator[World]:
    """All real parts on the home of the settings. Raises EngineError where the home cannot be used."""
    from penstock.cache.disk import DiskCache
    from penstock.routers.envoy import EnvoyRouter
    from penstock.runners.container import ContainerRunner
    from penstock.runtimes.choosing import ChosenRuntimes
    from penstock.runtimes.exporting import Exports
    from penstock.runtimes.images import ImageRuntimes
    from penstock.runtimes.uv import UvRuntimes
    from penstock.sources.git import GitSource
    from penstock.store.secrets import KEY_FILE, Secrets
    from penstock.store.sql import open_store

    home = Home(settings.home)
    try:
        home.make()
    except OSError as error:
        raise EngineError(
            f"the home {settings.home} cannot be used ({error.strerror}): set PENSTOCK_HOME to a folder you can write"
        ) from error
    handler = _log_to(home)
    crash = crasher(settings.crash)
    runner = ContainerRunner(settings.container_engine)
    with closing(handler), closing(open_store(home.database, crash)) as store:
        vault = Secrets(store, home.path / KEY_FILE)
        yield World(
            home=home,
            store=store,
            cache=DiskCache(home.cache),
            source=GitSource(home.sources, settings.environment, store.blobs),
            runtimes=ChosenRuntimes(
                UvRuntimes(settings.home, settings.environment, gpu=bool(settings.gpus)),
                ImageRuntimes(settings.home, settings.container_engine),
            ),
            runner=runner,
            router=EnvoyRouter(home.router, runner),
            images=Exports(settings.home, settings.container_engine),
            clock=SystemClock(),
            environment=settings.environment,
            capacity=Capacity(
                settings.cpus, settings.memory, tuple(Gpu(index, kind) for index, kind in enumerate(settings.gpus))
            ),
            contain=settings.contain,
            cache_cap=settings.cache_size,
            secrets=lambda project, names, environment: vault.values(project, names, environment=environment),
            crash=crash or (lambda _point: None),
        )
