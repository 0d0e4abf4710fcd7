"""What holds a process tree together on this machine: a pid namespace, else a cgroup, else the session and sweeps.

A pid namespace is proven empty by the end of its first process, and ends as a whole with it, whatever forks inside.
User and filesystem stay as they are; only /proc is mounted anew, so that `ps` and the like show what is inside.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.runners import groups

# Passes only as the first process of a namespace with a /proc of its own, and leaves with a code to be passed on.
_TRIAL = 'read -r line </proc/self/stat && [ $$ = 1 ] && [ "${line%% *}" = 1 ] && exit 7'
_TRIAL_SECONDS = 10

_UNSHARE = ("--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_BWRAP = ("--dev-bind", "/", "/", "--unshare-pid", "--as-pid-1", "--proc", "/proc", "--die-with-parent")

# bwrap dies with its parent, and that must be the shim, not the coordinator: so a shell stands between them.
_UNDER_A_SHELL = ("/bin/sh", "-c", 'trap : TERM INT HUP; "$@"; exit $?', "sh")


@dataclass(frozen=True, slots=True)
class Containment:
    """One way to hold a tree. `prefix` is the argv to put before the shim's; `base` is where a cgroup can be made."""

    name: str
    kind: Literal["namespace", "cgroup", "session"]
    prefix: tuple[str, ...] = ()
    base: Path | None = None


SESSION = Containment("session and sweeps", "session")


def find_containment() -> Containment:
    """The best that this machine allows, tried out (a few milliseconds where the first trial passes)."""
    for found in _namespaces():
        if _works(found.prefix):
            return found
    base = groups.freezing_base()
    return Containment("cgroup", "cgroup", base=base) if base is not None else SESSION


def _namespaces() -> Iterator[Containment]:
    unshare, bwrap = shutil.which("unshare"), shutil.which("bwrap")
    if unshare is not None:
        if os.geteuid() == 0:
            yield Containment("pid namespace (unshare)", "namespace", (unshare, *_UNSHARE, "--"))
        mapped = (unshare, "--user", "--map-current-user", *_UNSHARE, "--")
        yield Containment("pid namespace (unshare, user namespace)", "namespace", mapped)
    if bwrap is not None:
        rights = ("--cap-add", "ALL") if os.geteuid() == 0 else ()
        yield Containment("pid namespace (bwrap)", "namespace", (*_UNDER_A_SHELL, bwrap, *_BWRAP, *rights, "--"))


def _works(prefix: tuple[str, ...]) -> bool:
    try:
        trial = subprocess.run(
            [*prefix, "/bin/sh", "-c", _TRIAL],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=_TRIAL_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 7
