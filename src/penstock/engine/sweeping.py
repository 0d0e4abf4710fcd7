"""gc: what no live release, no open run and no recent result needs is removed; over its cap the cache loses more.

Nothing here hurts what runs: a result is taken from the store before its bytes go, bytes that somebody touched since
the sweep began stay, and what the cache lost is made again.
"""

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest
from penstock.cache.contract import BlobError, Cache
from penstock.engine.configuring import config_folder
from penstock.engine.hooking import commands_of
from penstock.engine.serving import read_package
from penstock.engine.world import World
from penstock.errors import PenstockError
from penstock.releases import LIVE, ReleaseStatus
from penstock.runs import ENDED_RUN, RunStatus
from penstock.store.contract import Action, Release

DAY = 86400.0
RECENT = 20
"""The newest runs keep all that they hold for so long as the cache is under its cap."""
RECENT_OVER_CAP = 5
"""Over the cap only so many do."""

_PART = 0.9  # of the cap: how much is left, so that the next result does not ask for the next sweep
_STEP = 0.02  # of the cap: how much must have been added before a sweep that could not do it is tried again
_REMEMBERED = 90 * DAY
_BESIDE_RUNS, _QUIET = 3600.0, 60.0
"""Seconds for which bytes are safe after a touch: a result's are kept before the result is."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What gc removed: results, blobs with their bytes, work folders, mirrors, runtimes; and what is left.

    `held` are the bytes of the cache afterwards, `cap` those that it may take (0: any).
    """

    results: int
    blobs: int
    bytes: int
    folders: int
    mirrors: int
    runtimes: int
    held: int
    cap: int


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes of the cache as far as they are known without a look at each blob, and when all were looked at last.

    `left` are the bytes that the last sweep for the cap left.
    """

    bytes: int
    counted: float
    left: int = 0


async def sweep(world: World, options: Mapping[str, Any], *, quiet: bool = False) -> Freed:
    """Remove results unused for `days` (default 30), then more where the cache is over its cap, then what is loose.

    Loose are bytes, work folders, mirrors and runtimes that nothing names any more. Kept are packages of every
    release, what open runs and the newest runs hold, and the logs of all runs. `quiet` says that no run goes on.
    """
    now, days = world.clock.now(), float(options.get("days", 30))
    results = _evict_unused(world, now - days * DAY, f"nothing used it for {days:g} days", now)
    return await _free(world, now, days, results, safe=_QUIET if quiet else _BESIDE_RUNS)


async def sweep_over_cap(world: World, *, quiet: bool) -> Freed | None:
    """Keep the cache under its cap by itself; and tidy up once a day where it is `quiet` (no run goes on).

    None where there was nothing to do, which costs no look at the blobs. For the event loop's thread, at any time
    after a run has ended; one at a time.
    """
    use = await _use(world)
    now = world.clock.now()
    if quiet and now - use.counted > DAY:
        return await sweep(world, {}, quiet=True)
    again = max(world.cache_cap, use.left + int(world.cache_cap * _STEP) if use.left > world.cache_cap else 0)
    if not world.cache_cap or use.bytes <= again:
        return None
    return await _free(world, now, None, 0, safe=_QUIET if quiet else _BESIDE_RUNS)


async def _free(world: World, now: float, days: float | None, results: int, *, safe: float) -> Freed:
    """Evict for the cap and remove what is loose; without `days` only bytes."""
    store, cap = world.store, world.cache_cap
    everything = store.actions.all()
    for tight in (False, True):
        needed, bare = _needed(world, tight=tight)
        chosen = _Choice(world.cache, [action for action, _ in everything], needed, bare)
        evicted = await asyncio.to_thread(chosen.evictions, int(cap * _PART) if cap else None, cap, now - safe)
        if chosen.enough:
            break
    with store.transaction():
        store.actions.evict(evicted, f"the cache was over its cap of {size_words(cap)}", now)
        store.actions.forget_evictions(now - _REMEMBERED)
    swept = await asyncio.to_thread(world.cache.sweep, chosen.keep, safe, now)
    held = chosen.held - swept.bytes
    _remember(world, Use(max(held, 0), now, max(held, 0)))
    loose = (0, 0, 0) if days is None else await _tidy(world, now - days * DAY)
    return Freed(results + len(evicted), swept.count, swept.bytes, *loose, held=max(held, 0), cap=cap)


def _evict_unused(world: World, horizon: float, reason: str, now: float) -> int:
    old = [action for action, used in world.store.actions.all() if used < horizon]
    with world.store.transaction():
        world.store.actions.evict(old, reason, now)
    return len(old)


def size_words(count: int) -> str:
    """A number of bytes as a person wrote it: in powers of 1024 or of 1000, whichever is shorter."""
    found = [f"{count} bytes"]
    for base, units in ((1024, ("TiB", "GiB", "MiB", "KiB")), (1000, ("TB", "GB", "MB", "kB"))):
        fitting = ((count / base**power, unit) for power, unit in zip((4, 3, 2, 1), units, strict=True))
        found += [f"{amount:.4g} {unit}" for amount, unit in fitting if amount >= 1][:1]
    return min(found[1:] or found, key=len)


# --- which results go ----------------------------------------------------------------------------------------------


class _Choice:
    """Which results go and which bytes stay. Reads the cache: for a thread of its own."""

    def __init__(self, cache: Cache, actions: Sequence[Action], needed: set[Digest], bare: set[Digest]) -> None:
        self._cache, self._actions = cache, actions
        self._needed, self._bare = needed, bare
        self.keep: frozenset[Digest] = frozenset()
        self.held = 0
        self.enough = True

    def evictions(self, wanted: int | None, cap: int, limit: float) -> list[Action]:
        """The results to evict, the longest unused first, so that about `wanted` bytes are left where `cap` is passed.

        Only bytes untouched since `limit` count: others cannot be removed yet. Sets `keep`, `held` and `enough`.
        """
        stored = self._cache.stored()
        self.held = sum(blob.bytes for blob in stored.values())
        needed = self._cache.closure(self._needed) | self._bare
        closures = [self._cache.closure(_digests(action.result)) for action in self._actions]
        users = Counter(digest for closure in closures for digest in closure)
        inputs = {d for action in self._actions for d in _digests(action.ingredients)}
        removable = {d: b.bytes for d, b in stored.items() if d not in needed and b.touched <= limit}
        left = self.held - sum(size for d, size in removable.items() if d not in users and d not in inputs)
        chosen = set()
        for index, closure in enumerate(closures if wanted is not None and left > cap else ()):
            if left <= (wanted or 0):
                break
            if not closure.isdisjoint(removable):
                chosen.add(index)
                users.subtract(closure)
                left -= sum(removable[d] for d in closure if not users[d] and d in removable)
        self.enough = wanted is None or left <= cap
        kept = [(a, c) for i, (a, c) in enumerate(zip(self._actions, closures, strict=True)) if i not in chosen]
        self.keep = frozenset(needed.union(*(c | _digests(a.ingredients) for a, c in kept)))
        return [self._actions[index] for index in sorted(chosen)]


def _needed(world: World, *, tight: bool) -> tuple[set[Digest], set[Digest]]:
    """Digests that must stay with all they name: of releases, of open and of recent runs; and those that stay bare.

    Bare are the trees of inputs: they explain what changed, and their files come from elsewhere. `tight` keeps
    less: only releases that live or could be rolled back to, and fewer runs.
    """
    store = world.store
    opened = {r.id for r in store.runs.open()}
    recent = {r.id for r in store.runs.latest(limit=RECENT_OVER_CAP if tight else RECENT)}
    releases = _kept_releases(store.releases.of()) if tight else store.releases.of()
    keep, bare = {Digest(r.package) for r in releases}, set[Digest]()
    for number in opened | recent:
        for step in store.runs.steps(number):
            keep |= _digests(step.result or {})
            (keep if number in opened else bare).update(_digests(step.ingredients or {}))
        package = store.runs.get(number).package
        keep |= {Digest(package)} if package else set()
    for release in releases:
        keep |= _evidence(world, release) if release.status in LIVE else set()
    return keep, bare


def _kept_releases(releases: Iterable[Release]) -> list[Release]:
    """Those that live, and for each environment the newest that was retired: what `rollback` goes back to."""
    kept: dict[Any, Release] = {}
    for release in releases:
        if release.status in LIVE or release.status is ReleaseStatus.DRAINING:
            kept[release.id] = release
        elif release.status is ReleaseStatus.RETIRED:
            place = (release.project, release.environment)
            newest = kept.get(place)
            kept[place] = release if newest is None or release.id > newest.id else newest
    return list(kept.values())


def _evidence(world: World, release: Release) -> set[Digest]:
    """What the gates of later runs compare with."""
    results = [step.result or {} for step in world.store.runs.steps(release.run)]
    known = {Digest(e.collected) for e in world.store.evidence.of_package(release.project, release.package)}
    return known | {Digest(result["collected"]) for result in results if isinstance(result.get("collected"), str)}


def _digests(values: Mapping[str, Any]) -> set[Digest]:
    """What a step's result names; a step in batches that goes on has those of before."""
    batches = values.get("batches", ())
    return {Digest(digest) for digest in batches} | {
        Digest(values[name])
        for name in ("outputs", "collected", "lock", "package", "inputs")
        if isinstance(values.get(name), str)
    }


# --- folders, mirrors, runtimes ------------------------------------------------------------------------------------


async def _tidy(world: World, horizon: float) -> tuple[int, int, int]:
    """Remove dead folders, and mirrors and runtimes that nothing kept needs and nobody used since the horizon."""
    folders, kept = _dead_folders(world), [*world.store.runs.latest(limit=RECENT), *world.store.runs.open()]
    mirrors = {world.home.path / run.mirror for run in kept}
    environments = _environments(world, {run.id for run in kept})
    removed = await asyncio.to_thread(_remove, folders)
    discarded = await asyncio.to_thread(world.source.discard, mirrors, horizon)
    runtimes = await asyncio.to_thread(world.runtimes.discard, environments, horizon)
    served = {Digest(release.package) for release in _kept_releases(world.store.releases.of())}
    await asyncio.to_thread(world.images.discard, served, horizon)
    return removed, discarded, runtimes


def _environments(world: World, runs: Collection[int]) -> set[Digest]:
    """The runtimes of these runs and of the releases that live or could be rolled back to."""
    results = [step.result or {} for number in runs for step in world.store.runs.steps(number)]
    found = {Digest(r["environment"]) for r in results if isinstance(r.get("environment"), str)}
    for release in _kept_releases(world.store.releases.of()):
        try:
            environment = read_package(world, Digest(release.package)).environment
        except (BlobError, PenstockError, KeyError):
            continue  # a package that cannot be read starts no replica: its runtime is no use either
        found |= {Digest(environment)} if environment else set()
    return found


def _dead_folders(world: World) -> list[Path]:
    """Work folders of runs of which nothing lives; folders of releases without a replica that nobody goes back to."""
    store = world.store
    ended = [r for r in store.runs.latest(limit=100000) if r.status in {*ENDED_RUN, RunStatus.WAITING}]
    folders = [world.home.run(r.id) / part for r in ended for part in ("work", "package")]
    folders += [folder for r in ended for folder in world.home.run(r.id).glob("package.*")]
    used = {r.release for r in store.releases.all_replicas()} | {m.release for m in store.migrations.running()}
    known = store.releases.of()
    used |= {c["to"] for r in known for c in commands_of(r) if c["status"] == "running"}
    rest = [r for r in known if r.id not in used and r.status not in LIVE]
    folders += [world.home.release(r.id) / "package" for r in rest]
    folders += [config_folder(world, r.id) for r in rest]
    return [f for f in folders if f.exists()]


def _remove(folders: list[Path]) -> int:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return len(folders)


# --- how much there is ---------------------------------------------------------------------------------------------


async def _use(world: World) -> Use:
    """How much the cache takes: what was counted last and what was added since; counted where nothing is known."""
    known, grown = _recall(world), world.cache.grown()
    if known is None:
        usage = await asyncio.to_thread(world.cache.usage)
        known, grown = Use(usage.bytes, world.clock.now()), -1
    if grown:
        known = Use(known.bytes + max(grown, 0), known.counted, known.left)
        _remember(world, known)
    return known


def _file(world: World) -> Path:
    return world.home.cache / "usage.json"


def _recall(world: World) -> Use | None:
    try:
        values = json.loads(_file(world).read_bytes())
        return Use(int(values["bytes"]), float(values["counted"]), int(values["left"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it only saves a count, so that a torn one is as good as none


def _remember(world: World, use: Use) -> None:
    new = _file(world).with_suffix(f".{os.getpid()}")
    values = {"bytes": use.bytes, "counted": use.counted, "left": use.left}
    try:
        new.write_text(json.dumps(values))
        new.replace(_file(world))
    except OSError:
        new.unlink(missing_ok=True)  # as good as a torn one; whoever needs the disk says what is wrong with it
