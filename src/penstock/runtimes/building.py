"""Makes the environment of a lock with uv: lock the folder, make a venv, install, write the manifest last.

Executed by its path with Penstock's own Python, standard library only, so that it starts quickly whatever is
installed. It may be killed at any point: a folder without a manifest is unfinished and is made again. The lock
comes, compressed, in the variables PENSTOCK_LOCK_0, 1, …, because a single variable holds no more than 128 KiB.

An environment is shared by many runs, and a step can write to it. So its manifest lists its files, and it is used
again only while they are as they were made: by a look at size and time of each, and by the digests of those that
differ in these. One that was changed is set aside and made anew.
"""

import argparse
import base64
import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "penstock.json"
FILES = "penstock-files.json"
ASIDE = ".changed-"

_VARIABLE_BYTES = 100_000
"""One variable holds at most 128 KiB on Linux, its name and all."""
_PATIENCE = 2.0
"""Seconds for digests of files whose time differs; with more of them than that, it is quicker to make it anew."""
_OURS = frozenset({MANIFEST, FILES, f"{MANIFEST}.new", f"{FILES}.new"})
_EXECUTED = (".py", ".pth", ".so", ".egg-link")

_PINNED_COMMIT = re.compile(rb"@\s*git\+\S+@[0-9a-f]{40}\b")


def main() -> int:
    """Make the environment; 0 where it stands afterwards, else 1 after one sentence that says why not."""
    wanted = arguments()
    wanted.lock = unpacked("PENSTOCK_LOCK")
    folder: Path = wanted.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(folder.parent / f"{folder.name}.flock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another run is making this environment: waiting for it")
        fcntl.flock(held, fcntl.LOCK_EX)
    standing, flaw = state(folder, wanted.lock_digest)
    if standing:
        say("the environment stands already")
        return 0
    if flaw is not None:
        return make_anew(wanted, held, flaw)
    # uv inherits the lock: where this process is killed and uv is not, nobody else begins in the same folder.
    return make(wanted, held)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("--uv", "--python", "--version", "--lock-digest"):
        parser.add_argument(name, required=True)
    parser.add_argument("options", nargs="*")
    return parser.parse_args()


def state(folder: Path, lock_digest: str) -> tuple[bool, str | None]:
    """Whether a finished environment of this lock is there as it was made; else what was changed, where one is there.

    What was changed is half a sentence. The files are looked at, not read, but for those that look changed.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False, None
    finished = isinstance(manifest, dict) and manifest.get("lock") == lock_digest and (folder / "bin/python").exists()
    found = changed(folder) if finished else None
    return finished and found is None, found and found[1]


# --- what it holds -------------------------------------------------------------------------------------------------


def changed(folder: Path) -> tuple[str, str] | None:
    """The first file that is not as it was made and what befell it, in half a sentence; None where all are.

    Bytecode does not count: Python writes it when it likes. Nor do files that were added and that nothing executes.
    """
    made, there = recorded(folder), dict(files(folder))
    if made is None:
        return "", "nothing says which files it had"
    differing = [path for path, entry in made.items() if there.get(path) != entry[:2]]
    for path in differing:
        if path not in there:
            return path, f"{path} is missing"
    for path in there:
        if path not in made and (path.endswith(_EXECUTED) or path.startswith("bin/") or ".dist-info/" in path):
            return path, f"{path} was added"
    until = time.monotonic() + _PATIENCE
    for path in differing:
        if time.monotonic() > until:
            return path, f"{len(differing)} of its files have another time than when they were made"
        if len(made[path]) < 3 or len(there[path]) < 2 or digest(folder / path) != made[path][2]:
            return path, f"{path} was changed"
    if differing:
        write(folder / FILES, made | {path: [*there[path], made[path][2]] for path in differing})
    return None


def recorded(folder: Path) -> dict[str, list[Any]] | None:
    try:
        found = json.loads((folder / FILES).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def files(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    """Each file with its size and time, each link with its target; bytecode and what is ours left out."""
    left = [""]
    while left:
        below = left.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.is_symlink():
                    yield path, [str(Path(entry.path).readlink())]
                elif not entry.is_dir(follow_symlinks=False):
                    if not path.endswith(".pyc") and path not in _OURS:
                        status = entry.stat(follow_symlinks=False)
                        yield path, [status.st_size, status.st_mtime_ns]
                elif entry.name != "__pycache__":
                    left.append(f"{path}/")


def inventory(folder: Path) -> dict[str, list[Any]]:
    """Each file with its size, time and SHA-256, each link with its target; digests as packages tell them."""
    said = dict(said_by_packages(folder))
    found = dict(files(folder))
    for path, entry in found.items():
        if len(entry) == 2:
            size, hashed = said.get(path, (None, ""))
            entry.append(hashed if size == entry[0] else digest(folder / path))
    return found


def said_by_packages(folder: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    """Size and SHA-256 of the files that installed packages list in their RECORD."""
    for record in folder.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        site = record.parent.parent.relative_to(folder)
        with record.open(encoding="utf-8", newline="") as file:
            for path, hashed, size in (row for row in csv.reader(file) if len(row) == 3):
                if hashed.startswith("sha256=") and size.isdigit():
                    name = hashed.removeprefix("sha256=")
                    value = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).hex()
                    yield os.path.normpath(site / path), (int(size), value)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- making --------------------------------------------------------------------------------------------------------


def make_anew(wanted: argparse.Namespace, held: int, flaw: str) -> int:
    """Set a changed environment aside and make it again, past uv's cache where that shares the changed file."""
    folder = wanted.folder
    made, found = recorded(folder) or {}, changed(folder)
    aside = folder.with_name(f"{folder.name}{ASIDE}{time.time_ns()}")
    say(f"the environment was changed since it was made ({flaw}): it is set aside as {aside.name} and made anew")
    folder.rename(aside)
    code = make(wanted, held)
    path = found[0] if found else ""
    if code == 0 and len(made.get(path, ())) == 3 and not is_as_before(folder / path, made[path][2]):
        say(f"uv's cache holds the changed {path} too: the packages are fetched anew")
        wanted.options = [*wanted.options, "--no-cache"]
        code = make(wanted, held)
    return code


def is_as_before(path: Path, hashed: str) -> bool:
    return path.is_file() and digest(path) == hashed


def make(wanted: argparse.Namespace, held: int) -> int:
    began, folder = time.monotonic(), wanted.folder
    remove(folder)
    if not make_venv(wanted, held) or not install(wanted, held):
        return 1
    packages = installed(folder)
    write(folder / FILES, inventory(folder))
    write(folder / MANIFEST, {"lock": wanted.lock_digest, "python": python_version(folder), "packages": packages})
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
    lock = wanted.lock
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


def write(path: Path, value: dict[str, Any]) -> None:
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def packed(name: str, data: bytes) -> dict[str, str]:
    """The variables NAME_0, NAME_1, … that hold a value, from which `unpacked` takes it."""
    text = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
    parts = [text[start : start + _VARIABLE_BYTES] for start in range(0, len(text), _VARIABLE_BYTES)]
    return {f"{name}_{number}": part for number, part in enumerate(parts)}


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
