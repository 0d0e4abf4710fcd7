"""Python environments by uv: made from locks with hashes, shared by the lock's digest, never the project itself."""

import fcntl
import json
import os
import platform
import posixpath
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from uv import find_uv_bin

from penstock.artifacts import Digest, digest_of, digest_of_bytes, is_digest
from penstock.engine.contracts import Command, RuntimeRequest
from penstock.errors import EngineError, SourceError
from penstock.parts import LOOKED_AT
from penstock.runtimes import building, projects, requirements
from penstock.runtimes.settings import UvSettings, uv_settings

LOCK = "penstock.lock"

_FOREIGN_LOCKS = ("poetry.lock", "pdm.lock", "Pipfile.lock", "conda-lock.yml", "pixi.lock")


class UvRuntimes:
    """The `Runtimes` of `engine.contracts`, by uv.

    `home` is Penstock's home; environments live in `home/runtimes/DIGEST/`, each finished by its manifest.
    `environment` is the person's, handed in by the caller; `gpu` says whether this machine has one.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], *, gpu: bool = False) -> None:
        self._folder = home / "runtimes"
        self._environment = dict(environment)
        self._gpu = gpu

    @cached_property
    def _settings(self) -> UvSettings:
        return uv_settings(self._environment, prefix=Path(sys.prefix))

    def files(
        self, request: RuntimeRequest, read: Callable[[str], bytes | None], paths: Collection[str] = ()
    ) -> Mapping[str, bytes]:
        """The commit's files that the runtime depends on. Raises SourceError for what is missing or unlockable."""
        del paths  # what is read names what else is needed
        name = posixpath.basename(request.file)
        if name in _FOREIGN_LOCKS:
            raise SourceError(
                f"{request.file} is a lock that uv cannot install: "
                "export it as a requirements file with hashes and name that under runtime.lock"
            )
        if request.kind == "pyproject":
            return projects.project_files(request.file, read)
        if name == "uv.lock":
            return projects.uv_lock_files(request.file, read)
        if request.kind == "lock" and name.endswith(".toml"):
            return projects.pylock_files(request.file, read)
        found = requirements.follow(request.file, read)
        if request.kind == "lock":
            return _locked(request.file, found)
        return {**found, **projects.uv_files(request.file, read)}

    def key(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Digest:
        """What a resolution depends on: the files, Python, platform, the person's index settings, the torch rule."""
        value = {
            "kind": request.kind,
            "file": request.file,
            "files": {path: digest_of_bytes(data) for path, data in files.items()},
            "python": _version(request.python),
            "platform": _platform(),
            "settings": self._settings.deciding,
            "torch": self._torch_options(_addresses(files)),
        }
        return digest_of("runtime", value)

    def resolve(self, request: RuntimeRequest, files: Mapping[str, bytes]) -> Command:
        """The command that writes `penstock.lock` in a workspace holding `files`."""
        if request.kind == "lock" and posixpath.basename(request.file) != "uv.lock":
            return Command(f"cp -- {shlex.quote(request.file)} {LOCK}")
        folder = posixpath.dirname(request.file)
        target = posixpath.relpath(LOCK, folder or ".")
        argv = self._resolution(request, files, target)
        lines = [f"cd -- {shlex.quote(folder)}"] if folder else []
        lines.append(f"{shlex.join(argv)} > /dev/null")
        if addresses := _addresses(files):
            # What the repository itself says about indexes must reach the installation, which has the lock alone.
            lines.append(f"printf '%s\\n' {shlex.join(addresses)} | cat - {target} > {target}.new")
            lines.append(f"mv -- {target}.new {target}")
        return Command("\n".join(lines), self._settings.variables)

    def _resolution(self, request: RuntimeRequest, files: Mapping[str, bytes], target: str) -> list[str]:
        name = posixpath.basename(request.file)
        plain = ["--no-header", "--no-annotate", "--no-progress", "--output-file", target]
        if name == "uv.lock" or (request.kind == "pyproject" and projects.beside(request.file, "uv.lock") in files):
            exported = ["export", "--frozen", "--no-emit-workspace", "--format", "requirements-txt"]
            return [_uv(), *exported, "--python", _interpreter(request.python), *plain]
        compiled = ["pip", "compile", name, "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"]
        compiled += ["--python-version", _version(request.python), "--python", _interpreter(request.python)]
        if request.kind == "pyproject":
            content = projects.parse(request.file, files[request.file])
            compiled += [part for group in projects.groups(content) for part in ("--group", group)]
        return [_uv(), *compiled, *plain, *self._settings.options, *self._torch_options(_addresses(files))]

    def _torch_options(self, addresses: Sequence[str]) -> list[str]:
        """The CPU build of the PyTorch family, unless there is a GPU or somebody says where torch comes from."""
        said = self._gpu or self._settings.provides_torch or any("torch" in address for address in addresses)
        return [] if said else ["--torch-backend", "cpu"]

    def _torch_options_of(self, lock: bytes) -> list[str]:
        """The same for a lock: one of the repository's own may hold other builds, which the CPU index does not have."""
        if b"+cpu" not in lock or building.is_pylock(lock):
            return []
        return self._torch_options(requirements.addresses({LOCK: lock}, [LOCK]))

    def digest(self, request: RuntimeRequest, lock: bytes) -> Digest:
        """The name of the environment of a lock: its content, Python version and platform."""
        value = {"lock": digest_of_bytes(lock), "python": _version(request.python), "platform": _platform()}
        return digest_of("environment", value)

    def build(self, request: RuntimeRequest, lock: bytes) -> Command | None:
        """The command that makes the environment of a lock; None where it stands as it was made."""
        folder, lock_digest = self._folder / self.digest(request, lock), digest_of_bytes(lock)
        standing, flaw = building.state(folder, lock_digest)
        if standing:
            os.utime(folder / building.MANIFEST)  # by which `discard` knows what is used
            return None
        python = _interpreter(request.python)
        argv = [sys.executable, "-I", building.__file__, "--uv", _uv(), "--python", python]
        argv += ["--version", _version(request.python), "--lock-digest", lock_digest]
        argv += ["--", str(folder), *self._settings.options, *self._torch_options_of(lock)]
        reason = None if flaw is None else f"the environment was changed since it was made ({flaw}): it is made anew"
        return Command(shlex.join(argv), {**self._settings.variables, **building.packed("PENSTOCK_LOCK", lock)}, reason)

    def discard(self, keep: Collection[Digest], before: float) -> int:
        """Remove environments that nobody needs; see the contract. Raises nothing: what cannot go now goes later."""
        names = {path.name for path in self._folder.glob("*")}
        plain = {name for name in names if is_digest(name)} | {name.removesuffix(".flock") for name in names}
        gone = [name for name in sorted(plain) if is_digest(name) and name not in keep and self._discard(name, before)]
        aside = [name for name in names if building.ASIDE in name and self._is_old(name, before)]
        for name in aside:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        return len(gone) + len(aside)

    def _discard(self, name: str, before: float) -> bool:
        folder, lock = self._folder / name, self._folder / f"{name}.flock"
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False  # somebody makes it at this moment
            manifest = folder / building.MANIFEST
            used = manifest if manifest.exists() else folder
            if not folder.exists() or used.stat().st_mtime >= before:
                return False
            manifest.unlink(missing_ok=True)  # first: no half of it is ever taken for whole
            shutil.rmtree(folder, ignore_errors=True)
            return True

    def _is_old(self, name: str, before: float) -> bool:
        """By the time that its name tells, which is when it was set aside."""
        return int(name.rpartition("-")[2]) < before * 1e9

    def variables(self, environment: Digest) -> Mapping[str, str]:
        """What a process needs to use a built environment; `PATH` is the folder to put in front."""
        folder = self._folder / environment
        return {"VIRTUAL_ENV": str(folder), "PATH": str(folder / "bin")}

    def image(self, environment: Digest) -> str | None:
        """None: no environment of uv's is an image."""
        del environment
        return None

    def check(self, python: str | None, strict: Sequence[str], lenient: Sequence[str]) -> Command:
        """The command of the `check` step, with a Python of the version asked for, else Penstock's own."""
        interpreter = self._installed(_version(python))
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        note = "" if interpreter else f"checked by Python {own}: {_version(python)} is not installed here"
        wanted = {"note": note, "strict": list(strict), "lenient": list(lenient)}
        script = str(Path(building.__file__).with_name("checking.py"))
        argv = [interpreter or sys.executable, "-I", "-X", "utf8", script]
        return Command(shlex.join(argv), building.packed("PENSTOCK_CHECK", json.dumps(wanted).encode()))

    def fingerprint(self, addresses: Sequence[str]) -> Command:
        """The command that prints what stands at addresses of outside data now; other schemes are told by name alone.

        Whoever names such an address has a command of their own beside it.
        """
        looked = [a for a in addresses if a.partition("://")[0] in LOOKED_AT]
        named = [a for a in addresses if a not in looked]
        script = str(Path(building.__file__).with_name("addresses.py"))
        lines = [shlex.join([sys.executable, "-I", script, *looked])] if looked else []
        lines += [shlex.join(["echo", *named])] if named else []
        return Command("{ " + "; ".join(lines) + "; }")

    def _installed(self, version: str) -> str | None:
        """An interpreter of that version, found without executing anything: ours, on PATH, or one that uv keeps."""
        if _interpreter(version) == sys.executable:
            return sys.executable
        short = ".".join(version.split(".")[:2])
        folders = [Path(folder) for folder in self._environment.get("PATH", "").split(":") if folder]
        data = self._environment.get("XDG_DATA_HOME") or f"{self._environment.get('HOME', '')}/.local/share"
        kept = Path(self._environment.get("UV_PYTHON_INSTALL_DIR") or f"{data}/uv/python")
        folders += sorted(kept.glob(f"cpython-{short}.*/bin"), reverse=True)
        found = (folder / f"python{short}" for folder in folders)
        return next((str(path) for path in found if _is_program(path)), None)


def _is_program(path: Path) -> bool:
    """Whether this is an interpreter, and not a script that stands for one which may not be there."""
    try:
        with path.open("rb") as file:
            return file.read(2) not in {b"#!", b""}
    except OSError:
        return False


def _locked(file: str, found: Mapping[str, bytes]) -> Mapping[str, bytes]:
    if len(found) > 1:
        other = next(path for path in found if path != file)
        raise SourceError(f"{file} includes {other}, and a lock stands alone: put all its lines into one file")
    if (line := requirements.unhashed(file, found[file])) is not None:
        raise SourceError(
            f"{line.place}: {line.text.partition(' ')[0]} has no hash: make the lock with "
            "`uv pip compile --generate-hashes`, or name the file under runtime.requirements"
        )
    return found


def _addresses(files: Mapping[str, bytes]) -> list[str]:
    toml = [path for path in files if posixpath.basename(path) in {"uv.toml", "pyproject.toml"}]
    locks = [path for path in files if posixpath.basename(path) == "uv.lock" or path.endswith(".toml")]
    found = requirements.addresses(files, [path for path in files if path not in locks])
    return found + [line for path in toml for line in projects.addresses(path, files[path]) if line not in found]


def _version(asked: str | None) -> str:
    if asked is None:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    if not re.fullmatch(r"3(\.\d{1,3}){0,2}", asked):
        raise SourceError(f"runtime.python is {asked!r}: write a version such as 3.11")
    return asked


def _interpreter(asked: str | None) -> str:
    """What uv is asked for: Penstock's own Python where the version fits, as it needs no search and no download."""
    own = platform.python_version()
    return sys.executable if f"{own}.".startswith(f"{_version(asked)}.") else _version(asked)


def _platform() -> list[str]:
    return [sys.platform, platform.machine(), "-".join(platform.libc_ver())]


def _uv() -> str:
    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise EngineError("the program uv of Penstock's installation is missing: install Penstock again") from error
