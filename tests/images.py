"""The container engine of this machine, and a small image with this very Python, for tests that need them.

No image is pulled: the base is made of this machine's own Python, `sh` and the usual small programs, once per content,
and kept between runs. Where podman runs as root, it is given what a machine without systemd needs of it.
"""

import ensurepip
import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from penstock.cli.settings import find_container_engine
from penstock.engine.contracts import ContainerEngine

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
PROGRAMS = ("bash", "cat", "chmod", "cp", "env", "false", "id", "ls", "mkdir", "rm", "sleep", "touch", "true", "wc")

_LEFT_OUT = re.compile(r"/(test|tests|site-packages|idlelib|tkinter|lib2to3|config-[^/]*)(/|$)")
_ALSO = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libgomp.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
)
_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


def conf() -> Path:
    """A containers.conf by which podman works as root where no systemd is."""
    folder = Path(tempfile.gettempdir()) / f"penstock-test-containers-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / "containers.conf"
    if not place.exists() or place.read_text(encoding="utf-8") != _CONF:
        fresh = folder / f"{os.getpid()}.new"
        fresh.write_text(_CONF, encoding="utf-8")
        fresh.replace(place)
    return place


def engine_variables() -> dict[str, str]:
    """What a command in a test's own environment needs to use the machine's container engine as the tests do."""
    plain = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    kept = {k: v for k, v in os.environ.items() if k.startswith(("CONTAINER", "DOCKER_", "XDG_RUNTIME"))}
    own = {} if os.geteuid() != 0 or "CONTAINERS_CONF" in os.environ else {"CONTAINERS_CONF": str(conf())}
    return {**plain, **kept, **own}


@cache
def engine() -> ContainerEngine:
    """The container engine of this machine, tried out; skips the test where there is none, fails where CI=true."""
    found = find_container_engine(engine_variables())
    if found is None:
        _unavailable("neither podman nor docker is on PATH")
    done = podman("image", "ls", found=found)
    if done.returncode != 0:
        _unavailable(f"{found.kind} does not work: {done.stderr.strip()[-200:]}")
    return found


def _unavailable(reason: str) -> NoReturn:
    """Skips the test; where CI=true it fails, for the set-up has installed an engine there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def podman(*arguments: str, found: ContainerEngine | None = None) -> "subprocess.CompletedProcess[str]":
    """One call of the container engine."""
    asked = found or engine()
    return subprocess.run(
        [asked.program, *arguments], env=dict(asked.variables), capture_output=True, text=True, check=False
    )


@cache
def base_image() -> str:
    """The reference of an image with `sh`, small programs and this Python below /usr/local."""
    made = f"{sys.version} {Path(__file__).read_text(encoding='utf-8')}"
    name = f"localhost/penstock-test-base:{hashlib.sha256(made.encode()).hexdigest()[:16]}"
    engine()
    with (Path(tempfile.gettempdir()) / f"penstock-test-base-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests in many processes want the very same image
        if podman("image", "inspect", name).returncode != 0:
            path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
            _import(_files(), name, "--change", path, "--change", "LABEL vendor=tests")
    done = podman("run", "--rm", "--network", "host", name, "true")
    if done.returncode != 0:
        _unavailable(f"{engine().kind} runs no container here: {done.stderr.strip()[-200:]}")
    return name


def bare_image(name: str, *paths: str) -> str:
    """An image that holds nothing but empty programs at these paths."""
    reference = f"localhost/penstock-test-{name}:1"
    _import(dict.fromkeys(paths, b""), reference)
    return reference


def _import(files: Mapping[str, Path | bytes], name: str, *options: str) -> None:
    """An image of files, its layer the same for the same files."""
    found = engine()
    argv = [found.program, "import", *options, "-", name]
    quiet = subprocess.DEVNULL
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=dict(found.variables), stdin=pipe, stdout=quiet, stderr=quiet) as made:
        with tarfile.open(fileobj=made.stdin, mode="w|") as tar:
            for path, content in sorted(files.items()):
                _add(tar, path, content)
        assert made.stdin is not None
        made.stdin.close()
        assert made.wait() == 0


def _add(tar: tarfile.TarFile, path: str, content: Path | bytes) -> None:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.mode = 0o755
    if path.endswith("/"):
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(entry)
        return
    data = content if isinstance(content, bytes) else content.read_bytes()
    entry.size = len(data)
    entry.mtime = 0 if isinstance(content, bytes) else int(content.stat().st_mtime)  # of which Python's bytecode knows
    tar.addfile(entry, io.BytesIO(data))


def _files() -> dict[str, Path | bytes]:
    prefix = Path(sys.base_prefix)
    files: dict[str, Path | bytes] = {"/tmp/": b""}  # noqa: S108 (of the image)
    sh = Path(shutil.which("sh") or "/bin/sh").resolve()
    python = Path(os.path.realpath(sys.executable))
    files |= {"/bin/sh": sh, f"/usr/local/bin/python{MINOR}": python, "/usr/local/bin/python3": python}
    files |= {"/usr/local/bin/python": python, "/usr/local/bin/pip": b'#!/bin/sh\nexec python -m pip "$@"\n'}
    small = {name: Path(found).resolve() for name in PROGRAMS if (found := shutil.which(name))}
    files |= {f"/bin/{name}": program for name, program in small.items()}
    for path in (prefix / f"lib/python{MINOR}").rglob("*"):
        where = f"/usr/local/{path.relative_to(prefix)}"
        if path.is_file() and not _LEFT_OUT.search(where):
            files[where] = path
    files |= {f"/usr/local/lib/python{MINOR}/site-packages/{path}": data for path, data in _pip().items()}
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.is_file():
        files[str(certificates)] = certificates
    programs = [sh, python, *small.values(), *(p for p in files.values() if isinstance(p, Path) and ".so" in p.name)]
    return files | {str(library): library for library in _libraries(programs)}


def _pip() -> dict[str, bytes]:
    """The files of the pip that Python brings along for its virtual environments."""
    folders = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    found = [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]
    with zipfile.ZipFile(found[0]) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}


def _libraries(programs: list[Path]) -> Iterator[Path]:
    """The shared libraries of programs, and those that wheels take for granted."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    found = {Path(path) for path in re.findall(r"(/\S+) \(0x", said)}
    folders = {path.parent for path in found}
    yield from found
    yield from (folder / name for folder in folders for name in _ALSO if (folder / name).is_file())
