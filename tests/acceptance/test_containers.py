"""The digits example in containers: built, trained, judged, served, and switched under load, by the real command."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

import images
from acceptance.tiny import Command, end, free_ports
from penstock.engine.contracts import ContainerEngine
from sources.repositories import Repo, isolated, new_repo

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
FROM = "FROM docker.io/library/python:3.11-slim"


@dataclass
class Callers:
    """Threads that ask one port for a prediction until they are told to end; nobody asks twice."""

    port: int
    body: bytes
    answers: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def calling(self, count: int = 3) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(number % 2 == 0,)) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _call(self, keep: bool) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._over.wait(0.02):  # callers, servers and Penstock share the machine's processors
            try:
                connection.request("POST", "/predict", self.body)
                answer = connection.getresponse()
                said, release = answer.read(), answer.getheader("x-penstock-release")
                if answer.status == 200 and release is not None:
                    self.answers[release] = self.answers.get(release, 0) + 1
                else:
                    self.failed.append(f"{answer.status} {said!r}")
            except (OSError, HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            if not keep:
                connection.close()
        connection.close()


def settings_of_pip() -> dict[str, str]:
    """What this machine's pip is told, each with the settings of its variables over those of its files."""
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    pairs = [line.partition("=") for line in said.splitlines() if "=" in line]
    found = [(name.rpartition(".")[2], value.strip("'\""), name.startswith(":env:")) for name, _, value in pairs]
    return {name: value for name, value, _ in sorted(found, key=lambda one: one[2])}


def conf_with_pip(folder: Path) -> Path:
    """A containers.conf by which pip in a container is told what it is told on this machine, folders included."""
    told = settings_of_pip()
    written = folder / "pip.conf"
    written.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in told.items()))
    written.chmod(0o644)
    words = [word for value in told.values() for word in value.split()]
    named = [Path(word) for word in words if word.startswith("/")]
    named += [Path(word[7:]).parent for word in words if word.startswith("file:///")]  # an index has files beside it
    there = sorted({str(place) for place in named if place.exists()})
    volumes = [
        f"{written}:/etc/pip.conf:ro",
        *(f"{place}:{place}:ro" for place in sorted(there) if Path(place).exists()),
    ]
    made = folder / "containers.conf"
    made.write_text(f"{images.conf().read_text()}volumes = {json.dumps(volumes)}\n")
    return made


@pytest.fixture
def command(tmp_path: Path, container_engine: ContainerEngine) -> Iterator[Command]:
    """The command with a container engine that gives containers this machine's settings of pip."""
    if container_engine.kind != "podman":
        pytest.skip("only podman can be told by a file which folders of this machine a build finds")
    variables = isolated(tmp_path / "person") | dict(container_engine.variables)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables |= {"PENSTOCK_HOME": str(tmp_path / "home"), "CONTAINERS_CONF": str(conf_with_pip(tmp_path))}
    made = Command(tmp_path / "home", variables)
    yield made
    end(made, tmp_path)
    assert containers(tmp_path / "home", running=False) == []


@pytest.fixture
def digits(tmp_path: Path, command: Command, base_image: str) -> Repo:
    """The example in a repository, upon the tests' own image instead of one that is pulled."""
    repo = new_repo(tmp_path / "digits", dict(command.environment))
    shutil.copytree(DIGITS, repo.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    dockerfile = (DIGITS / "Dockerfile").read_text()
    assert dockerfile.count(FROM) == 1
    repo.put("Dockerfile", dockerfile.replace(FROM, f"FROM {base_image}"))
    text = (DIGITS / "containers.yaml").read_text().replace("at_most: 250", "at_most: 60000")  # on a busy machine
    staging, production = free_ports(2)
    repo.put("containers.yaml", text.replace("8801", str(staging)).replace("8800", str(production)))
    repo.commit("digits in containers")
    return repo


def containers(home: Path, *, running: bool = True) -> list[str]:
    """The names of a home's containers."""
    more = [] if running else ["--all"]
    said = images.podman("ps", *more, "--format", '{{.Names}} {{index .Labels "penstock.process"}}').stdout
    return [line.split()[0] for line in said.splitlines() if str(home) in line]


def production(repo: Repo) -> int:
    found: int = yaml.safe_load((repo.folder / "containers.yaml").read_text())["environments"]["production"]["port"]
    return found


def predicted(port: int, sample: Mapping[str, Any]) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/predict", json.dumps({"images": sample["images"]}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    found: int = answer["digits"][0]
    return found


def run(command: Command, repo: Repo) -> dict[str, Any]:
    """A run of the variant, all of which passed."""
    said = command("run", "--json", "--file", "containers.yaml", cwd=repo.folder)
    if said.code != 0:
        logs = [command("logs", "latest", name, cwd=repo.folder).all[-3000:] for name in ("lock", "runtime")]
        raise AssertionError("\n".join([said.all, *logs]))
    found: dict[str, Any] = said.json
    assert {step["name"] for step in found["steps"] if step["status"] != "passed" and not step["cached"]} == set()
    assert {gate["verdict"] for gate in found["gates"]} == {"pass"}
    return found


def of_others(folder: Path) -> list[str]:
    """The paths of a folder that do not belong to us."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.lstat().st_uid != os.getuid()]


def test_the_variant_differs_in_nothing_else() -> None:
    """The example in containers has the very steps, gates and environments of the example without."""
    plain, contained = (yaml.safe_load((DIGITS / name).read_text()) for name in ("penstock.yaml", "containers.yaml"))
    assert contained.pop("runtime") == {"dockerfile": "Dockerfile", "path": plain.pop("runtime")["path"]}
    assert [each.pop("as") for each in contained["environments"].values()] == ["container", "container"]
    assert contained == plain


@pytest.mark.timeout(1200)
def test_digits_in_containers(command: Command, digits: Repo) -> None:
    """From a Dockerfile to a prediction; then forward and back under load, of which no request fails."""
    port = production(digits)
    samples = [json.loads(line) for line in (digits.folder / "samples.jsonl").read_text().splitlines()]
    first = run(command, digits)
    assert len(containers(command.home)) == 3, "one replica of staging, two of production"
    right = [predicted(port, sample) == sample["truth"] for sample in samples]
    assert sum(right) >= 0.85 * len(right)
    # The log of a replica is given to the user of its image by runc, which does so with every standard output.
    assert [
        path for path in of_others(command.home) if not (path.startswith("releases/") and path.endswith("/log"))
    ] == []

    server = digits.folder / "src/digits/serve.py"
    server.write_text(f"{server.read_text()}\n# the same answers\n")
    digits.commit("another server")
    callers = Callers(port, json.dumps({"images": samples[0]["images"]}).encode())
    with callers.calling():
        second = run(command, digits)
        assert {"data", "train", "runtime"} <= {step["name"] for step in second["steps"] if step["cached"]}
        command("rollback", "production", cwd=digits.folder, code=0)
    assert callers.failed == []
    assert {first["version"], second["version"]} == set(callers.answers)
