"""Looking for drift: rows of what passes an environment, window by window, beside the sample of its package.

`penstock serve` does it. Of a request and its answer only the features stay (numbers, and texts up to 64 characters),
in a file that its owner alone can read, and only until their window was looked at. Whoever is killed loses at most the
rows of one turn; a look and the end of its window are one, since a window's file has the number of its look.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from penstock.drifts import Look, Row, Rules, features, look, watched
from penstock.engine.contracts import Exchange
from penstock.engine.installing import package_folder
from penstock.engine.world import World
from penstock.errors import EngineError, PenstockError
from penstock.recordings import Recording, parse_recordings
from penstock.releases import ReleaseStatus
from penstock.store.contract import DriftLook, Release

TURNS = 20
"""A window is made of at least so many turns, so that it stands for the whole of its interval."""
LISTENS = 5.0
"""Seconds that one turn listens at most."""
PAUSE = 1.0
"""Seconds until another look at what serves, where nothing is due."""
SHORTEST = 0.02
"""Seconds between two turns at least."""
LATER = 10.0
"""Seconds until a release is tried again with which something went wrong."""
LEAST = 50
"""A sample of fewer requests shows nothing."""
MOST = 20_000
"""Of a sample no more rows are held in memory."""

log = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample of a release: its rows, of which requests (method and path), and which features are compared."""

    rows: tuple[Row, ...]
    asked: frozenset[tuple[str, str]]
    names: frozenset[str]

    def row(self, exchange: Exchange) -> Row | None:
        """The row of an exchange like those of the sample that was answered well; None for any other."""
        if (exchange.method, urlsplit(exchange.path).path) not in self.asked or not 200 <= exchange.status < 300:
            return None
        return _only(self.names, features(_json(exchange.request), _json(exchange.answer)))


def _only(names: Collection[str], row: Row) -> Row:
    return {name: value for name, value in row.items() if name in names}


def read_sample(data: bytes, file: str, wanted: Sequence[str] = ()) -> Sample:
    """The sample of a file of recorded requests, with the features that are wanted (none: all, at most 64).

    Of very many requests it takes every second, third and so on. Raises ReportError where the file is no sample, and
    EngineError where it shows nothing.
    """
    recordings = parse_recordings(data, file)
    if len(recordings) < LEAST:
        raise EngineError(f"{file}: {len(recordings)} requests are too few to tell drift: record at least {LEAST}")
    some = recordings[:: -(-len(recordings) // MOST)]
    rows = [features(_json(r.body or b""), r.answer if r.has_answer else None) for r in some]
    names = frozenset(watched(rows, wanted))
    if not names:
        which = f" called {' or '.join(wanted)}" if wanted else ""
        raise EngineError(f"{file}: no request or answer has a number or a text{which} in JSON: there is no feature")
    return Sample(tuple(_only(names, row) for row in rows), frozenset(map(_what, recordings)), names)


def _what(recording: Recording) -> tuple[str, str]:
    return recording.method, urlsplit(recording.path).path


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None


class Window:
    """The rows of one look, in a file that only its owner can read; a line that was cut short is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = list(_lines(path))

    def add(self, rows: Sequence[Row]) -> None:
        """Keep more rows; what a kill leaves of a line does not spoil the next one."""
        if not rows:
            return
        text = "\n" + "".join(f"{json.dumps(row)}\n" for row in rows)
        opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "a", encoding="utf-8") as file:
            file.write(text)
        self.rows += rows

    def forget(self) -> None:
        """It was looked at."""
        self._path.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[Row]:
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                found = json.loads(line) if line else None
                if isinstance(found, dict):
                    yield found


class Watched:
    """One release that serves and is watched: its sample, its window, and when it is listened to again."""

    def __init__(self, world: World, release: Release, sample: Sample) -> None:
        self._world = world
        self._sample = sample
        self.release = release
        self.rules: Mapping[str, Any] = release.spec["drift"]
        self.due = 0.0
        self._open()

    def _open(self) -> None:
        self._number = self._world.store.drifts.count(self.release.id) + 1
        folder = self._world.home.release(self.release.id)
        for old in folder.glob("window-*.jsonl"):
            if old.name != f"window-{self._number}.jsonl":
                old.unlink(missing_ok=True)
        self._window = Window(folder / f"window-{self._number}.jsonl")

    async def listen(self) -> Look | None:
        """One turn; the look at the window where that made it whole. Raises EngineError where nothing can be heard."""
        size = int(self.rules["window"])
        most = max(1, size // TURNS)
        environment = f"{self.release.project}-{self.release.environment}"
        heard = await self._world.router.sampled(environment, float(self.rules["share"]), most, LISTENS)
        found = [self._sample.row(one) for one in heard if one.release == self.release.version]
        rows = [row for row in found if row][: size - len(self._window.rows)]
        self._window.add(rows)
        pause = float(self.rules["interval"]) * max(len(rows), bool(heard)) / size
        self.due = self._world.clock.monotonic() + pause
        return await self._look() if len(self._window.rows) >= size else None

    async def _look(self) -> Look:
        rules = Rules(1 - self.rules["confidence"], self.rules["psi"], tuple(self.rules["features"]))
        found = await asyncio.to_thread(look, self._sample.rows, self._window.rows, self._number, rules)
        with self._world.store.transaction():
            self._world.store.drifts.add(_kept(self.release.id, found, len(self._window.rows)))
            self._world.crash("drift.look:before_commit")
        self._world.crash("drift.look:after_commit")
        self._window.forget()
        self._open()
        return found


def _kept(release: int, found: Look, rows: int) -> DriftLook:
    values = [{"name": f.name, "psi": f.psi, "chance": f.chance, "p": f.p} for f in found.features]
    return DriftLook(release, found.number, 0.0, rows, list(found.drifted), found.sentence(), values)


class Sampling:
    """Watches all releases of a home that serve and ask for it, one after the other. `say` is told what is found."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._watched: dict[int, Watched] = {}
        self._told: dict[int, str] = {}
        self._later: dict[int, float] = {}
        self._known: set[int] | None = None

    async def watch(self) -> None:
        """Listen to whatever is due. Never returns."""
        while True:
            for release in self._serving():
                await self._turn(release)
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        """Seconds until the next turn is due, or what serves is to be looked up again."""
        left = [one.due - self._world.clock.monotonic() for n, one in self._watched.items() if n not in self._later]
        return max(SHORTEST, min(PAUSE, *left) if left else PAUSE)

    def _serving(self) -> list[Release]:
        found = [r for r in self._world.store.releases.current() if r.status is ReleaseStatus.SERVING]
        wanted = [r for r in found if "drift" in r.spec]
        numbers = {release.id for release in wanted}
        if numbers != self._known:
            self._known = numbers
            self._forget_others()
        self._watched = {n: one for n, one in self._watched.items() if n in numbers}
        self._told = {n: words for n, words in self._told.items() if n in numbers}
        self._later = {n: moment for n, moment in self._later.items() if n in numbers}
        return wanted

    def _forget_others(self) -> None:
        """Windows of releases that are not watched (any more) are of no use to anybody."""
        for path in self._world.home.release(0).parent.glob("*/window-*.jsonl"):
            if path.parent.name not in {str(number) for number in self._known or ()}:
                path.unlink(missing_ok=True)

    async def _turn(self, release: Release) -> None:
        """What goes wrong with one release is said once, and tried again after a while."""
        now = self._world.clock.monotonic()
        if now < self._later.get(release.id, 0.0):
            return
        try:
            await self._listen(release)
        except (PenstockError, OSError) as error:
            self._tell(release, f"is not watched for drift: {error}")
        except Exception as error:  # the loop's edge: one release's defect must not stop the others
            log.exception("watching release %s for drift met a defect of Penstock", release.id)
            what = f"a defect of Penstock ({type(error).__name__}: {error})"
            self._tell(release, f"is not watched for drift, by {what}: please report it")

    def _tell(self, release: Release, words: str) -> None:
        self._later[release.id] = self._world.clock.monotonic() + LATER
        if self._told.get(release.id) != words:
            self._told[release.id] = words
            self._say(f"{release.environment}: {release.version} {words}")

    async def _listen(self, release: Release) -> None:
        one = self._watched.get(release.id)
        if one is None:
            sample = await asyncio.to_thread(self._sample, release)
            one = self._watched[release.id] = Watched(self._world, release, sample)
        if self._world.clock.monotonic() < one.due:
            return
        found = await one.listen()
        self._told.pop(release.id, None)
        self._later.pop(release.id, None)
        if found is not None and found.drifted:
            self._say(f"{release.environment}: {release.version} sees drift: {found.sentence()}")

    def _sample(self, release: Release) -> Sample:
        file = str(release.spec["drift"]["reference"])
        try:
            data = (package_folder(self._world, release) / file).read_bytes()
        except FileNotFoundError as error:
            raise EngineError(f"the package has no {file}: add it to the package's code or model") from error
        return read_sample(data, file, release.spec["drift"]["features"])
