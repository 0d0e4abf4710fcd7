"""gc: what no live release, no open run and no recent result needs is removed."""

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.artifacts import Digest
from penstock.engine.world import World
from penstock.runs import ENDED_RUN

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Freed:
    """What gc removed: results, blobs with their bytes, folders of runs and releases."""

    results: int
    blobs: int
    bytes: int
    folders: int


async def sweep(world: World, options: Mapping[str, Any]) -> Freed:
    """Remove results unused for `days` (default 30), then the bytes and folders that nothing names any more.

    Kept are packages of every release and of the newest 20 runs, what open runs hold, and the logs of those runs.
    """
    horizon = world.clock.now() - float(options.get("days", 30)) * DAY
    store = world.store
    old = [action for action, used in store.actions.all() if used < horizon]
    with store.transaction():
        for action in old:
            store.actions.forget(action.key)
    keep = _wanted(world)
    closed = await asyncio.to_thread(world.cache.closure, keep)
    swept = await asyncio.to_thread(world.cache.sweep, closed, 3600.0, world.clock.now())
    folders = await asyncio.to_thread(_remove, _dead_folders(world))
    return Freed(len(old), swept.count, swept.bytes, folders)


def _wanted(world: World) -> set[Digest]:
    """Digests that must stay: of results, packages and runs."""
    store = world.store
    keep: set[Digest] = set()
    for action, _ in store.actions.all():
        keep |= _digests(action.result) | _digests(action.ingredients)
    recent = {r.id for r in store.runs.latest(limit=20)} | {r.id for r in store.runs.open()}
    for number in recent:
        for step in store.runs.steps(number):
            keep |= _digests(step.result or {}) | _digests(step.ingredients or {})
        package = store.runs.get(number).package
        keep |= {Digest(package)} if package else set()
    keep |= {Digest(r.package) for r in store.releases.of()}
    return keep


def _digests(values: Mapping[str, Any]) -> set[Digest]:
    return {
        Digest(values[name])
        for name in ("outputs", "collected", "lock", "package", "inputs")
        if isinstance(values.get(name), str)
    }


def _dead_folders(world: World) -> list[Path]:
    """Work folders of ended runs, and folders of releases without a replica."""
    store = world.store
    ended = [r for r in store.runs.latest(limit=100000) if r.status in ENDED_RUN]
    folders = [world.home.run(r.id) / part for r in ended for part in ("work", "package")]
    served = {r.release for r in store.releases.all_replicas()}
    folders += [world.home.release(r.id) / "package" for r in store.releases.of() if r.id not in served]
    return [f for f in folders if f.exists()]


def _remove(folders: list[Path]) -> int:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return len(folders)
