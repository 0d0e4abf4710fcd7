"""The settings of one command: the only place that reads the process's environment."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command knows of its surroundings: the home, the person's environment, who they are, processors."""

    home: Path
    environment: Mapping[str, str]
    actor: str
    cpus: int
    gpu: bool
    crash: str | None


def read_settings() -> Settings:
    """Read the environment once. Raises UsageError where PENSTOCK_HOME makes no sense."""
    environment = dict(os.environ)
    home = environment.get("PENSTOCK_HOME")
    if home is not None and not home.strip():
        raise UsageError("PENSTOCK_HOME is empty: unset it, or name a folder")
    return Settings(
        home=Path(home).absolute() if home else _default_home(),
        environment=environment,
        actor=_actor(environment),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        crash=environment.get("PENSTOCK_CRASH") or None,
        gpu=Path("/dev/nvidia0").exists() and environment.get("CUDA_VISIBLE_DEVICES") not in {"", "-1"},
    )


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("penstock", appauthor=False))


def _actor(environment: Mapping[str, str]) -> str:
    """The operating system's user; before there are users, that is who acts."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return environment.get("USER", "unknown")
