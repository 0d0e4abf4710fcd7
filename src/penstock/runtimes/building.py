"""Makes the environment of a lock with uv: lock the folder, make a venv, install, write the manifest last.

Executed by its path with Penstock's own Python, standard library only, so that it starts quickly whatever is
installed. It may be killed at any point: a folder without a manifest is unfinished and is made again. The lock
comes, compressed, in the variables PENSTOCK_LOCK_0, 1, …, because a single variable holds no more than 128 KiB.
"""

import argparse
import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

MANIFEST = "penstock.json"

_PINNED_COMMIT = re.compile(rb"@\s*git\+\S+@[0-9a-f]{40}\b")


def main() -> int:
    """Make the environment; 0 where it stands afterwards, else 1 after one sentence that says why not."""
    wanted = arguments()
    folder: Path = wanted.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(folder.parent / f"{folder.name}.flock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another run is making this environment: waiting for it")
        fcntl.flock(held, fcntl.LOCK_EX)
    if stands(folder, wanted.lock_digest):
        say("the environment stands already")
        return 0
    # uv inherits the lock: where this process is killed and uv is not, nobody else begins in the same folder.
    return make(wanted, held)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("--uv", "--python", "--version", "--lock-digest"):
        parser.add_argument(name, required=True)
    parser.add_argument("options", nargs="*")
    return parser.parse_args()


def stands(folder: Path, lock_digest: str) -> bool:
    """Whether a finished environment of this lock is there, its Python included."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("lock") == lock_digest and (folder / "bin/python").exists()


def make(wanted: argparse.Namespace, held: int) -> int:
    began, folder = time.monotonic(), wanted.folder
    remove(folder)
    if not make_venv(wanted, held) or not install(wanted, held):
        return 1
    packages = installed(folder)
    write_manifest(folder, {"lock": wanted.lock_digest, "python": python_version(folder), "packages": packages})
    say(f"installed {len(packages)} packages in {time.monotonic() - began:.1f} s")
    return 0


def remove(folder: Path) -> None:
    """Remove what is left of an earlier build, its manifest first so that no half of it is ever taken for whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def make_venv(wanted: argparse.Namespace, held: int) -> bool:
    argv = [wanted.uv, "venv", "--no-project", "--no-progress", "--quiet", "--python", wanted.python]
    made = subprocess.run([*argv, str(wanted.folder)], pass_fds=[held], check=False)
    if made.returncode == 0:
        return True
    find = [wanted.uv, "python", "find", "--no-project", "--no-python-downloads", "--quiet", wanted.python]
    if subprocess.run(find, pass_fds=[held], check=False, capture_output=True).returncode == 0:
        say(f"the virtual environment {wanted.folder} could not be made: uv says above what is in the way")
    else:
        say(
            f"Python {wanted.version} is not on this machine and uv could not fetch it: "
            "install it, or change runtime.python"
        )
    return False


def install(wanted: argparse.Namespace, held: int) -> bool:
    lock = unpacked("PENSTOCK_LOCK")
    # uv tells the two formats apart by the file's name.
    name = "pylock.toml" if is_pylock(lock) else "penstock.lock"
    file = wanted.folder / name
    file.write_bytes(lock)
    argv = [wanted.uv, "pip", "sync", "--no-progress", "--allow-empty-requirements", "--python", str(wanted.folder)]
    # With hashes it does not matter which index a file comes from, so all may be asked.
    argv += ["--index-strategy", "unsafe-best-match", *wanted.options]
    if name == "penstock.lock" and not _PINNED_COMMIT.search(lock):
        argv.append("--require-hashes")  # a commit of git has none; all other hashes are verified even so
    if not linkable(wanted.uv, wanted.folder):
        argv += ["--link-mode", "copy"]
    done = subprocess.run([*argv, str(file)], pass_fds=[held], check=False).returncode == 0
    if not done:
        say("the packages of the lock could not be installed: uv says above which one and why")
    return done


def is_pylock(lock: bytes) -> bool:
    return re.search(rb"^lock-version\s*=", lock, re.MULTILINE) is not None


def linkable(uv: str, folder: Path) -> bool:
    """Whether uv's cache is on the same disk; elsewhere it copies, which it would warn about."""
    if "UV_LINK_MODE" in os.environ:
        return True
    cache = subprocess.run([uv, "cache", "dir"], check=False, capture_output=True, text=True).stdout.strip()
    return not cache or not Path(cache).exists() or Path(cache).stat().st_dev == folder.stat().st_dev


def installed(folder: Path) -> dict[str, str]:
    """Name and version of each package, from the names of their metadata folders."""
    found = (path.name.removesuffix(".dist-info") for path in folder.glob("lib/python*/site-packages/*.dist-info"))
    return dict(sorted((name, version) for name, _, version in (one.rpartition("-") for one in found)))


def python_version(folder: Path) -> str:
    match = re.search(r"^version_info\s*=\s*(\S+)", (folder / "pyvenv.cfg").read_text("utf-8"), re.MULTILINE)
    return match[1] if match else "unknown"


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    new = folder / f"{MANIFEST}.new"
    with new.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / MANIFEST)


def unpacked(name: str) -> bytes:
    """The value that was split over the variables NAME_0, NAME_1, … They are taken away: uv needs them not."""
    parts, number = [], 0
    while (part := os.environ.pop(f"{name}_{number}", None)) is not None:
        parts.append(part)
        number += 1
    return zlib.decompress(base64.b64decode("".join(parts)))


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the log of a step is what it prints


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        say(f"the environment could not be made: {error.strerror}: {error.filename}")
        sys.exit(1)
