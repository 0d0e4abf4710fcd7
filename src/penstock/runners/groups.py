"""Control groups: memory limits of whole trees, and freezing them. Version 2, version 1 and both at once.

Groups are made below the one that we run in, or below one above it that we may write: found by trying.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from penstock.errors import EngineError

_PREFIX = "penstock."
_LIMITS = ("memory.max", "memory.limit_in_bytes")
_SWAPS = (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", None))
_COUNTS = ("memory.events", "memory.oom_control")
_FREEZERS = {"cgroup.freeze": ("1", "0"), "freezer.state": ("FROZEN", "THAWED")}
_TRIAL_SECONDS = 10


def memory_base() -> Path | None:
    """Where a group with a memory limit can be made, or None."""
    return next((base for base in _bases("memory") if _allows(base, _LIMITS)), None)


def freezing_base() -> Path | None:
    """Where a group that can be frozen can be made, or None."""
    return next((base for base in _bases("freezer") if _allows(base, tuple(_FREEZERS))), None)


def make(base: Path, name: str, memory: int | None) -> Path:
    """A group of this name, with a limit in bytes where given. Raises EngineError where the system refuses."""
    group = base / (_PREFIX + blake2b(name.encode(), digest_size=10).hexdigest())
    try:
        group.mkdir(exist_ok=True)
        if memory is not None:
            _limit(group, memory)
    except OSError as error:
        remove(str(group))
        raise EngineError(
            f"the control group {group} cannot be made: {(error.strerror or str(error)).lower()}"
        ) from None
    return group


def _limit(group: Path, memory: int) -> None:
    for name in _LIMITS:
        if (group / name).exists():
            (group / name).write_text(str(memory))
    # Swapping would turn a limit into a crawl. Not every kernel counts swap: then the limit is of memory alone.
    for name, value in _SWAPS:
        with suppress(OSError):
            if (group / name).exists():
                (group / name).write_text(value or str(memory))


def remove(group: str) -> None:
    """Take an empty group away, with what its processes made below it; one that still holds a process stays."""
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106 - os.walk gives names


def members(group: str) -> set[int]:
    """The numbers of all processes of a group and of those below it."""
    found: set[int] = set()
    for folder, _, _ in os.walk(group):
        with suppress(OSError):
            found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return found


def oom_kills(group: str) -> int:
    """How many processes the kernel has ended for this group's memory limit."""
    return sum(_counted(Path(group, name)) for name in _COUNTS)


def oom_kills_of_the_machine() -> int:
    """How many processes the kernel has ended for want of memory since the boot, by any limit."""
    return _counted(Path("/proc/vmstat"))


def spared() -> bool:
    """Whether our own group tells that the kernel never ended a process of it for want of memory.

    The machine's count rises for strangers too, say for a container beside us. False where nothing is told.
    """
    base = next(_bases("memory"), None)
    files = (base / name for name in ("memory.events.local", "memory.oom_control")) if base is not None else ()
    return any("oom_kill 0" in _lines(file) for file in files)


@contextmanager
def frozen(group: str) -> Iterator[None]:
    """Nothing of the group executes meanwhile, so nothing can fork away from a signal."""
    switch = next(((Path(group, name), words) for name, words in _FREEZERS.items() if Path(group, name).exists()), None)
    if switch is None:
        yield
        return
    file, (on, off) = switch
    with suppress(OSError):
        file.write_text(on)
    try:
        yield
    finally:
        with suppress(OSError):
            file.write_text(off)


def _counted(file: Path) -> int:
    return next((int(line.split()[1]) for line in _lines(file) if line.startswith("oom_kill ")), 0)


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel's; none where it is not there."""
    with suppress(OSError):
        return file.read_text().splitlines()
    return []


def _allows(base: Path, needed: tuple[str, ...]) -> bool:
    """Whether a group can be made there that has one of the files, and whether a process can go into it."""
    trial = base / f"{_PREFIX}trial.{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return False
    try:
        command = ["/bin/sh", "-c", 'echo 0 >"$0"', str(trial / "cgroup.procs")]
        return any((trial / name).exists() for name in needed) and _passes(command)
    finally:
        remove(str(trial))


def _passes(command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _bases(controller: str) -> Iterator[Path]:
    """Our own group and those above it: of version 1 where that has the controller, then of version 2.

    Lines of /proc/self/cgroup: number, controllers, path. Of mountinfo: the mounted root is its fourth field, the
    place its fifth; behind " - " come the type and, last, the options with the controllers.
    """
    paths = dict[str, str]()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        options = kind.split()[-1].split(",")
        if kind.startswith("cgroup ") and controller in options and controller in paths:
            yield from _upwards(place, paths[controller])
        elif kind.startswith("cgroup2 ") and "" in paths:
            yield from _upwards(place, paths[""])


def _upwards(place: str, path: str) -> Iterator[Path]:
    root, mount = place.split()[3:5]
    mount_point = Path(mount.encode().decode("unicode_escape"))
    with suppress(ValueError):
        ours = Path(path).relative_to(root)
        yield from (mount_point / folder for folder in (ours, *ours.parents))
