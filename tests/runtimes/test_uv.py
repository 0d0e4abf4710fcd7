"""Environments made by the real uv."""

import json
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.contracts import Command, RuntimeRequest, Runtimes
from penstock.errors import SourceError
from penstock.runtimes import building
from penstock.runtimes.uv import UvRuntimes

Place = Callable[[Command, Path], subprocess.CompletedProcess[str]]

REQUIREMENTS = RuntimeRequest("requirements", "requirements.txt")


def lay_out(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def resolved(
    runtimes: Runtimes, request: RuntimeRequest, commit: Mapping[str, bytes], place: Place, folder: Path
) -> bytes:
    files = runtimes.files(request, commit.get)
    lay_out(folder, files)
    done = place(runtimes.resolve(request, files), folder)
    assert done.returncode == 0, done.stdout
    return (folder / "penstock.lock").read_bytes()


def built(runtimes: Runtimes, request: RuntimeRequest, lock: bytes, place: Place, folder: Path) -> Path:
    command = runtimes.build(request, lock)
    assert command is not None
    done = place(command, folder)
    assert done.returncode == 0, done.stdout
    assert runtimes.build(request, lock) is None
    return Path(runtimes.variables(runtimes.digest(request, lock))["VIRTUAL_ENV"])


def test_from_requirements_to_a_python_that_imports_them(
    runtimes: UvRuntimes, workspace: Path, place: Place, wheels: Mapping[str, str]
) -> None:
    """The find-links of pip lead uv to the packages; the lock has hashes and no address; the environment imports."""
    commit = {"requirements.txt": b"sluice\n-c limits/c.txt\n", "limits/c.txt": b"sluice<2\n"}
    lock = resolved(runtimes, REQUIREMENTS, commit, place, workspace)
    assert lock.decode().split() == ["sluice==1.2", "\\", f"--hash=sha256:{wheels['sluice']}"]
    folder = built(runtimes, REQUIREMENTS, lock, place, workspace)
    variables = runtimes.variables(runtimes.digest(REQUIREMENTS, lock))
    assert variables == {"VIRTUAL_ENV": str(folder), "PATH": str(folder / "bin")}
    argv = ["python", "-c", "import sluice, sys; print(sluice.version, sys.prefix)"]
    said = subprocess.run(argv, env=variables, executable=folder / "bin/python", capture_output=True, check=True)
    assert said.stdout.decode().split() == ["1.2", str(folder)]
    manifest = json.loads((folder / "penstock.json").read_text())
    assert manifest["packages"] == {"sluice": "1.2"}
    assert manifest["python"].startswith("3.")


def test_the_index_of_this_machine(tmp_path: Path, workspace: Path, place: Place) -> None:
    """With the ordinary settings of this machine packages come from its index, and the lock names none."""
    runtimes = UvRuntimes(tmp_path / "home", os.environ)
    lock = resolved(runtimes, REQUIREMENTS, {"requirements.txt": b"iniconfig\nsix\n"}, place, workspace)
    assert b"--hash=sha256:" in lock
    assert b"://" not in lock
    folder = built(runtimes, REQUIREMENTS, lock, place, workspace)
    assert set(json.loads((folder / "penstock.json").read_text())["packages"]) == {"iniconfig", "six"}


@pytest.fixture
def address(wheels: Mapping[str, str]) -> Iterator[str]:
    """The folder of wheels, served on loopback."""
    answering = partial(SimpleHTTPRequestHandler, directory=wheels["folder"])
    with ThreadingHTTPServer(("127.0.0.1", 0), answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_pylock_installs_as_it_is(
    runtimes: UvRuntimes, workspace: Path, place: Place, wheels: Mapping[str, str], address: str
) -> None:
    """A pylock.toml is the lock itself, addresses included, and its hashes are verified."""
    pylock = f"""
lock-version = "1.0"
created-by = "a person"
[[packages]]
name = "sluice"
version = "1.2"
wheels = [{{ url = "{address}/sluice-1.2-py3-none-any.whl", hashes = {{ sha256 = "{wheels["sluice"]}" }} }}]
""".encode()
    request = RuntimeRequest("lock", "pylock.toml")
    lock = resolved(runtimes, request, {"pylock.toml": pylock}, place, workspace)
    assert lock == pylock
    folder = built(runtimes, request, lock, place, workspace)
    assert json.loads((folder / "penstock.json").read_text())["packages"] == {"sluice": "1.2"}
    spoilt = runtimes.build(request, pylock.replace(wheels["sluice"].encode(), b"00" * 32))
    assert spoilt is not None
    workspace.joinpath("cache").mkdir()
    fresh = Command(spoilt.text, {**spoilt.variables, "UV_CACHE_DIR": str(workspace / "cache")})
    assert place(fresh, workspace).returncode == 1


def test_a_project_with_and_without_its_uv_lock(
    runtimes: UvRuntimes, workspace: Path, place: Place, wheels: Mapping[str, str]
) -> None:
    """A pyproject is resolved with its default groups; its uv.lock is exported; the project is not installed."""
    project = b"""
[project]
name = "dam"
version = "1"
requires-python = ">=3.9"
dependencies = ["sluice"]
[dependency-groups]
dev = ["weir"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
    request = RuntimeRequest("pyproject", "app/pyproject.toml")
    lock = resolved(runtimes, request, {"app/pyproject.toml": project}, place, workspace)
    assert re.findall(rb"^\w+", lock, re.MULTILINE) == [b"sluice", b"weir"]
    packages = [("sluice", "1.2", wheels["sluice"]), ("weir", "0.3", wheels["weir"])]
    commit = {"app/pyproject.toml": project, "app/uv.lock": uv_lock(packages).encode()}
    exported = resolved(runtimes, request, commit, place, workspace)
    assert re.findall(rb"^\w+", exported, re.MULTILINE) == [b"sluice", b"weir"]
    assert b"--hash=sha256:" in exported
    assert resolved(runtimes, RuntimeRequest("lock", "app/uv.lock"), commit, place, workspace) == exported
    folder = built(runtimes, request, exported, place, workspace)
    assert set(json.loads((folder / "penstock.json").read_text())["packages"]) == {"sluice", "weir"}


def uv_lock(packages: list[tuple[str, str, str]]) -> str:
    """A lock as uv writes it for the project above."""
    head = """version = 1
requires-python = ">=3.9"
[[package]]
name = "dam"
version = "1"
source = { editable = "." }
dependencies = [{ name = "sluice" }]
[package.dev-dependencies]
dev = [{ name = "weir" }]
[package.metadata]
requires-dist = [{ name = "sluice" }]
[package.metadata.requires-dev]
dev = [{ name = "weir" }]
"""
    return head + "".join(
        f"""[[package]]
name = "{name}"
version = "{version}"
source = {{ registry = "https://e.org/simple" }}
wheels = [{{ url = "https://e.org/{name}-{version}-py3-none-any.whl", hash = "sha256:{digest}", size = 1 }}]
"""
        for name, version, digest in packages
    )


def test_the_repositorys_own_indexes_reach_the_lock(runtimes: UvRuntimes, workspace: Path, place: Place) -> None:
    """What the repository's files say about indexes stands at the top of the lock; uv's settings beside them count."""
    commit = {"app/r.txt": b"sluice\n--find-links https://127.0.0.1:1/links.html\n", "app/uv.toml": b"offline = true\n"}
    request = RuntimeRequest("requirements", "app/r.txt")
    files = runtimes.files(request, commit.get)
    lay_out(workspace, {**files, "app/r.txt": b"sluice\n"})
    done = place(runtimes.resolve(request, files), workspace)
    assert done.returncode == 0, done.stdout
    lines = (workspace / "penstock.lock").read_text().splitlines()
    assert lines[0] == "--find-links https://127.0.0.1:1/links.html"
    assert lines[1].startswith("sluice==1.2")


def test_a_hash_that_does_not_match_fails(
    runtimes: UvRuntimes, request_for_lock: RuntimeRequest, workspace: Path, place: Place
) -> None:
    """A package whose bytes are not those of the lock is not installed, and no environment stands afterwards."""
    lock = b"sluice==1.2 --hash=sha256:" + b"00" * 32 + b"\n"
    command = runtimes.build(request_for_lock, lock)
    assert command is not None
    done = place(command, workspace)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("the packages of the lock could not be installed: ")
    assert runtimes.build(request_for_lock, lock) is not None


def test_an_empty_lock_gives_an_empty_environment(runtimes: UvRuntimes, workspace: Path, place: Place) -> None:
    """A project that needs no package has a runtime all the same."""
    lock = resolved(runtimes, REQUIREMENTS, {"requirements.txt": b"# none yet\n"}, place, workspace)
    folder = built(runtimes, REQUIREMENTS, lock, place, workspace)
    assert (folder / "bin/python").exists()


def test_a_python_that_is_not_here(tmp_path: Path, person: dict[str, str], workspace: Path, place: Place) -> None:
    """One sentence says which Python is missing and what to do."""
    runtimes = UvRuntimes(tmp_path / "home", {**person, "UV_PYTHON_DOWNLOADS": "never"})
    command = runtimes.build(RuntimeRequest("lock", "l", python="3.99"), b"")
    assert command is not None
    done = place(command, workspace)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "Python 3.99 is not on this machine and uv could not fetch it: install it, or change runtime.python"
    )


def test_an_unfinished_environment_is_made_again(
    runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes, workspace: Path, place: Place
) -> None:
    """Without a manifest, with another's, or without its Python a folder counts for nothing."""
    folder = built(runtimes, request_for_lock, lock, place, workspace)
    manifest = folder / "penstock.json"
    for damage in (
        f"rm {manifest}",
        f'echo \'{{"lock": "another"}}\' > {manifest}',
        f"echo [] > {manifest}",
        f"rm {folder}/bin/python",
        f"rm -r {manifest} {folder}/lib",
    ):
        subprocess.run(["sh", "-c", damage], check=True)
        assert built(runtimes, request_for_lock, lock, place, workspace) == folder
        assert (folder / "bin/python").exists()
        assert list(folder.glob("lib/*/site-packages/sluice.py"))


def test_two_builds_at_once_both_end_well(
    runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes, workspace: Path
) -> None:
    """Of several builds of one lock one makes the environment and the others find it."""
    command = runtimes.build(request_for_lock, lock)
    assert command is not None
    started = [start(command, workspace) for _ in range(4)]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert sum("installed 1 packages" in text for text in said) == 1
    assert sum("stands already" in text for text in said) == 3
    assert runtimes.build(request_for_lock, lock) is None


def test_a_killed_build_whose_uv_lives_on(
    runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes, workspace: Path, place: Place
) -> None:
    """Where the build is killed and its uv is not, the next build waits for that uv before it begins anew."""
    command = runtimes.build(request_for_lock, lock)
    assert command is not None
    gate = workspace / "gate"
    os.mkfifo(gate)
    argv = shlex.split(command.text)
    slow, uv = workspace / "uv", argv[argv.index("--uv") + 1]
    slow.write_text(f'#!/bin/sh\n[ "$1" = venv ] || {{ echo reached; read x < {gate}; }}\nexec {uv} "$@"\n')
    slow.chmod(0o755)
    argv[argv.index("--uv") + 1] = str(slow)
    variables = {**command.variables, "UV_LINK_MODE": "copy"}
    first = start(Command(f"exec {shlex.join(argv)}", variables), workspace)
    assert first.stdout is not None
    assert first.stdout.readline() == "reached\n"
    first.kill()
    assert first.wait() == -signal.SIGKILL
    second = start(command, workspace)
    assert second.stdout is not None
    assert second.stdout.readline() == "another run is making this environment: waiting for it\n"
    gate.write_text("go\n")
    assert "installed 1 packages" in second.communicate()[0]
    assert second.returncode == 0
    first.communicate()
    assert runtimes.build(request_for_lock, lock) is None


def start(command: Command, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["sh", "-e", "-c", command.text],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **command.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_locks_that_cannot_be_taken(runtimes: UvRuntimes) -> None:
    """A lock without hashes, in parts, or of another tool is refused with what to do instead."""
    commit = {
        "a.lock": b"six==1.17.0\n",
        "b.lock": b"-r c.txt\n",
        "c.txt": b"",
        "poetry.lock": b"",
    }
    for file, sentence in {
        "a.lock": "a.lock:1: six==1.17.0 has no hash: make the lock with `uv pip compile --generate-hashes`, or name",
        "b.lock": "b.lock includes c.txt, and a lock stands alone: put all its lines into one file",
        "poetry.lock": "poetry.lock is a lock that uv cannot install: export it as a requirements file with hashes",
        "none.lock": "runtime names none.lock, which the commit does not have: commit it, or correct the name",
    }.items():
        with pytest.raises(SourceError) as caught:
            runtimes.files(RuntimeRequest("lock", file), commit.get)
        assert str(caught.value).startswith(sentence)
    with pytest.raises(SourceError, match=r"^runtime.python is 'new': write a version such as 3.11$"):
        runtimes.build(RuntimeRequest("lock", "l", python="new"), b"")


def test_the_key_follows_what_a_resolution_depends_on(tmp_path: Path, person: dict[str, str]) -> None:
    """Files, Python, index settings and the torch rule change the key; home and cache do not."""
    files = {"requirements.txt": b"six\n"}
    asked = RuntimeRequest("requirements", "requirements.txt", "3.12")

    def key(request: RuntimeRequest = REQUIREMENTS, *, gpu: bool = False, **environment: str) -> str:
        return UvRuntimes(tmp_path, {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1", **environment}, gpu=gpu).key(
            request, files
        )

    assert key() == UvRuntimes(tmp_path / "other", {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1"}).key(
        REQUIREMENTS, files
    )
    assert key() == key(UV_CACHE_DIR="/elsewhere", UV_HTTP_TIMEOUT="9", PIP_TIMEOUT="3")
    others = [key(), key(asked), key(gpu=True), key(PIP_INDEX_URL="https://e.org"), key(PIP_NO_INDEX="1")]
    assert len(set(others)) == len(others)


def test_the_cpu_build_of_torch(tmp_path: Path, wheels: Mapping[str, str]) -> None:
    """Without a GPU and without anybody's word on torch uv is asked for its CPU build, to install too."""
    clean = {"PIP_CONFIG_FILE": "/dev/null", "UV_NO_CONFIG": "1"}
    lock = b"torch==2.9.0+cpu --hash=sha256:00\n"

    def asks(environment: Mapping[str, str], requirements: bytes = b"torch\n", *, gpu: bool = False) -> bool:
        runtimes = UvRuntimes(tmp_path, environment, gpu=gpu)
        return "--torch-backend cpu" in runtimes.resolve(REQUIREMENTS, {"requirements.txt": requirements}).text

    def installs(environment: Mapping[str, str], lock: bytes) -> bool:
        command = UvRuntimes(tmp_path, environment).build(RuntimeRequest("lock", "l"), lock)
        return command is not None and "--torch-backend cpu" in command.text

    assert asks(clean)
    assert asks({**clean, "PIP_FIND_LINKS": wheels["folder"]})
    assert not asks(clean, gpu=True)
    assert not asks({**clean, "UV_TORCH_BACKEND": "cu130"})
    assert not asks(clean, b"torch\n--extra-index-url https://e.org/pytorch/cpu\n")
    assert installs(clean, lock)
    assert not installs(clean, b"torch==2.9.0 --hash=sha256:00\n")
    assert not installs(clean, b"--extra-index-url https://e.org/pytorch/cpu\n" + lock)
    assert not installs({**clean, "PIP_INDEX_URL": "https://own.example"}, lock)


@given(st.binary(max_size=2000), st.integers(0, 300_000))
def test_what_is_passed_in_variables_arrives(data: bytes, more: int) -> None:
    """Any bytes arrive as they were, in variables of at most 128 KiB each."""
    sent = data + os.urandom(more)
    packed = building.packed("PENSTOCK_TEST", sent)
    assert all(len(name) + len(value) + 2 <= 128 << 10 for name, value in packed.items())
    os.environ.update(packed)
    assert building.unpacked("PENSTOCK_TEST") == sent
    assert not packed.keys() & os.environ.keys()
