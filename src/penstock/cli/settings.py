"""The settings of one command: the only place that reads the process's environment."""

import getpass
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.engine.contracts import ContainerEngine


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command knows of its surroundings: the home, the person's environment, who they are, processors."""

    home: Path
    environment: Mapping[str, str]
    actor: str
    cpus: int
    memory: int
    gpus: tuple[str, ...]
    crash: str | None
    contain: bool
    cache_size: int
    container_engine: "ContainerEngine | None"


def read_settings() -> Settings:
    """Read the environment once. Raises UsageError where PENSTOCK_HOME or PENSTOCK_CACHE_SIZE makes no sense."""
    environment = dict(os.environ)
    home = environment.get("PENSTOCK_HOME")
    if home is not None and not home.strip():
        raise UsageError("PENSTOCK_HOME is empty: unset it, or name a folder")
    if home is not None and not _is_text(home):
        raise UsageError("PENSTOCK_HOME is not UTF-8 text: name another folder")
    folder = Path(home).absolute() if home else _default_home()
    return Settings(
        home=folder,
        environment=environment,
        actor=_actor(environment),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        crash=environment.get("PENSTOCK_CRASH") or None,
        contain=environment.get("PENSTOCK_CONTAIN") != "session",
        memory=_memory(),
        gpus=_gpus(environment),
        cache_size=_cache_size(environment, folder),
        container_engine=find_container_engine(environment),
    )


_ENGINES: tuple[Literal["podman", "docker"], ...] = ("podman", "docker")
_ENGINE_PREFIXES = ("CONTAINER", "DOCKER_", "BUILDAH_", "PODMAN_", "STORAGE_", "XDG_", "LC_")
_ENGINE_VARIABLES = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TMPDIR",
        "REGISTRY_AUTH_FILE",
        "DBUS_SESSION_BUS_ADDRESS",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSH_AUTH_SOCK",
    }
)


def find_container_engine(environment: Mapping[str, str]) -> "ContainerEngine | None":
    """The person's podman, else docker, with the variables that it needs; None where there is neither.

    `PENSTOCK_CONTAINERS` says which of the two. Raises UsageError where it names another, or one that is not there.
    """
    said = environment.get("PENSTOCK_CONTAINERS")
    if said is not None and said not in _ENGINES:
        raise UsageError(f"PENSTOCK_CONTAINERS is {said!r}: write podman or docker, or unset it")
    found = [(kind, shutil.which(kind, path=environment.get("PATH"))) for kind in _ENGINES if said in {None, kind}]
    engines = [(kind, program) for kind, program in found if program is not None]
    if said is not None and not engines:
        raise UsageError(f"PENSTOCK_CONTAINERS is {said}, which is not on PATH: install it, or unset the variable")
    if not engines:
        return None
    from penstock.engine.contracts import ContainerEngine

    kind, program = engines[0]
    return ContainerEngine(kind, program, {k: v for k, v in environment.items() if _is_the_engines(k)})


def _is_the_engines(name: str) -> bool:
    return name in _ENGINE_VARIABLES or name.startswith(_ENGINE_PREFIXES) or name.lower().endswith("_proxy")


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT])(i?)B", re.IGNORECASE)
_LEAST_CACHE, _MOST_CACHE = 5 << 30, 100 << 30


def _cache_size(environment: Mapping[str, str], home: Path) -> int:
    """Bytes that the cache may take: as said, else a tenth of the home's disk, from 5 to 100 GiB."""
    said = environment.get("PENSTOCK_CACHE_SIZE")
    if said is None:
        there = next((folder for folder in (home, *home.parents) if folder.is_dir()), Path("/"))
        return min(max(shutil.disk_usage(there).total // 10, _LEAST_CACHE), _MOST_CACHE)
    found = _SIZE.fullmatch(said.strip())
    if found is None:
        raise UsageError(f"PENSTOCK_CACHE_SIZE is {said!r}: write a size such as 20GiB or 500MB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** ("KMGT".index(found[2].upper()) + 1))


def _is_text(word: str) -> bool:
    """Whether a word of the command line or environment was UTF-8: other bytes arrive as lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in word)


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("penstock", appauthor=False))


def _memory() -> int:
    """Bytes of memory that the machine has; 0 where that cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def _gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The kind of each GPU, by index: declared by PENSTOCK_GPUS (`a100,a100`), else what the NVIDIA driver lists.

    An empty CUDA_VISIBLE_DEVICES hides them all, as it does from every CUDA program.
    """
    declared = environment.get("PENSTOCK_GPUS")
    if declared is not None:
        return tuple(kind.strip().lower() for kind in declared.split(",") if kind.strip())
    if environment.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return ()
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return tuple(_model(card) for card in cards)


def _model(card: Path) -> str:
    """The model of a card, in one lower-case word (`nvidia a100-sxm4-40gb` reads `a100-sxm4-40gb`)."""
    try:
        lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    models = [line.partition(":")[2].strip().lower() for line in lines if line.startswith("Model")]
    return models[0].removeprefix("nvidia ").replace(" ", "-") if models else "unknown"


def _actor(environment: Mapping[str, str]) -> str:
    """The operating system's user; before there are users, that is who acts."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return environment.get("USER", "unknown")
