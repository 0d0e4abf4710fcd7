"""A person with a folder of wheels and no index, so that uv is real and the network is not needed."""

import hashlib
import os
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from penstock.engine.contracts import Command, RuntimeRequest
from penstock.runtimes.uv import UvRuntimes

USUAL = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}

Done = subprocess.CompletedProcess[str]
Place = Callable[[Command, Path], Done]


def _wheel(folder: Path, name: str, version: str) -> str:
    """Write the smallest wheel there can be; its SHA-256."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    meta = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{meta}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{meta}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{meta}/RECORD", f"{name}.py,,\n{meta}/METADATA,,\n{meta}/WHEEL,,\n{meta}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _place(command: Command, workspace: Path) -> Done:
    """Execute a command as a runner would: by sh -e, in a workspace, with its variables beside the usual ones."""
    return subprocess.run(
        ["sh", "-e", "-c", command.text],
        cwd=workspace,
        env={**USUAL, **command.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def place() -> Place:
    return _place


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """A folder with two packages, and their hashes by name."""
    folder = tmp_path_factory.mktemp("wheels")
    return {
        "folder": str(folder),
        "sluice": _wheel(folder, "sluice", "1.2"),
        "weir": _wheel(folder, "weir", "0.3"),
    }


@pytest.fixture(scope="session")
def person(wheels: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a person whose pip knows the folder of wheels and nothing else."""
    home = tmp_path_factory.mktemp("person")
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_FIND_LINKS": wheels["folder"],
        "PIP_NO_INDEX": "1",
        "UV_NO_CONFIG": "1",
        "UV_TORCH_BACKEND": "auto",
    }


@pytest.fixture
def runtimes(tmp_path: Path, person: dict[str, str]) -> UvRuntimes:
    return UvRuntimes(tmp_path / "home", person)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def lock(wheels: Mapping[str, str]) -> bytes:
    return f"sluice==1.2 --hash=sha256:{wheels['sluice']}\n".encode()


@pytest.fixture
def request_for_lock() -> RuntimeRequest:
    return RuntimeRequest("lock", "requirements.lock")
