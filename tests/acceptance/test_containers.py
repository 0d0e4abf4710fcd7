"""The digits example in containers: built, trained, judged, served, and switched under load, by the real command."""

import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
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
from penstock.artifacts import digest_of_bytes
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


def conf_with_pip(folder: Path, own: Path | None) -> Path:
    """A containers.conf by which pip in a container is told what it is told on this machine, folders included.

    Where nobody says from where packages come, torch comes without CUDA, which would be some gigabytes.
    """
    told = settings_of_pip()
    if not told.keys() & {"index-url", "extra-index-url", "find-links", "no-index"}:
        told["extra-index-url"] = "https://download.pytorch.org/whl/cpu"
    written = folder / "pip.conf"
    written.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in told.items()))
    words = [word for value in told.values() for word in value.split()]
    named = [Path(word) for word in words if word.startswith("/")]
    named += [Path(word[7:]).parent for word in words if word.startswith("file:///")]  # an index has files beside it
    there = sorted({str(place) for place in named if place.exists()})
    tables = tomllib.loads(own.read_text()) if own is not None else {}
    volumes = [f"{written}:/etc/pip.conf:ro", *(f"{place}:{place}:ro" for place in there)]
    tables["containers"] = {**tables.get("containers", {}), "volumes": volumes}
    made = folder / "containers.conf"
    made.write_text("".join(f"[{name}]\n{_lines(table)}" for name, table in tables.items()))
    return made


def _lines(table: Mapping[str, Any]) -> str:
    """The plain values of a table of TOML, which writes them as JSON does."""
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items())


@pytest.fixture
def command(tmp_path: Path, container_engine: ContainerEngine) -> Iterator[Command]:
    """The command with a container engine that gives containers this machine's settings of pip."""
    if container_engine.kind != "podman":
        pytest.skip("only podman can be told by a file which folders of this machine a build finds")
    variables = isolated(tmp_path / "person") | dict(container_engine.variables)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = variables.get("CONTAINERS_CONF")
    conf = conf_with_pip(tmp_path, Path(own) if own else None)
    variables |= {"PENSTOCK_HOME": str(tmp_path / "home"), "CONTAINERS_CONF": str(conf)}
    made = Command(tmp_path / "home", variables)
    yield made
    end(made, tmp_path)
    assert containers(made.home, running=False) == []
    forget_images(made.home)


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
    repo.put("containers.yaml", text.replace("8811", str(staging)).replace("8810", str(production)))
    repo.commit("digits in containers")
    return repo


def containers(home: Path, *, running: bool = True) -> list[str]:
    """The names of a home's containers."""
    more = [] if running else ["--all"]
    said = images.podman("ps", *more, "--format", '{{.Names}} {{index .Labels "penstock.process"}}').stdout
    return [line.split()[0] for line in said.splitlines() if str(home) in line]


def forget_images(home: Path) -> None:
    """Remove a home's images, but for the last that the Dockerfile gave: the next build finds its layers."""
    for path in home.glob("runtimes/*/penstock.json"):
        images.podman("tag", json.loads(path.read_bytes())["image"], "localhost/penstock-test-digits:kept")
    listed = images.podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    ours = f"-{digest_of_bytes(os.fsencode(home))[:8]}"
    names = [name for name in listed if name.startswith("localhost/penstock/") and name.endswith(ours)]
    if names:
        images.podman("rmi", *names)


def production(repo: Repo) -> int:
    found: int = yaml.safe_load((repo.folder / "containers.yaml").read_text())["environments"]["production"]["port"]
    return found


def serving(port: int) -> str | None:
    """The version that answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/health")
    release = connection.getresponse().getheader("x-penstock-release")
    connection.close()
    return release


def predicted(port: int, sample: Mapping[str, Any]) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/predict", json.dumps({"images": sample["images"]}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    found: int = answer["digits"][0]
    return found


def run(command: Command, repo: Repo, *more: str) -> dict[str, Any]:
    """A run of the variant, all of which passed."""
    said = command("run", "--json", "--file", "containers.yaml", *more, cwd=repo.folder)
    assert said.out, said
    found: dict[str, Any] = said.json
    if said.code != 0:
        raise AssertionError(f"{said.all}\n{command('logs', str(found['run']), cwd=repo.folder).all[-9000:]}")
    assert {step["name"] for step in found["steps"] if step["status"] != "passed" and not step["cached"]} == set()
    assert {gate["verdict"] for gate in found["gates"]} == {"pass"}
    return found


def of_others(folder: Path) -> list[str]:
    """The paths of a folder that do not belong to us."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.lstat().st_uid != os.getuid()]


def test_the_variant_differs_in_nothing_else() -> None:
    """The example in containers has the very steps, gates and environments of the example without, on other ports."""
    plain, contained = (yaml.safe_load((DIGITS / name).read_text()) for name in ("penstock.yaml", "containers.yaml"))
    assert contained.pop("runtime") == {"dockerfile": "Dockerfile", "path": plain.pop("runtime")["path"]}
    assert contained.pop("name") != plain.pop("name")
    assert [each.pop("as") for each in contained["environments"].values()] == ["container", "container"]
    ports = [each.pop("port") for file in (plain, contained) for each in file["environments"].values()]
    assert len(set(ports)) == len(ports) == 4
    assert contained == plain


def test_the_image_of_the_example_keeps_to_its_word() -> None:
    """A maintained Python below, every dependency pinned, a user that is not root, no cache of pip, no code inside."""
    lines = [line for line in (DIGITS / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == FROM
    assert all("==" in line for line in (DIGITS / "requirements.txt").read_text().splitlines())
    assert [line.split()[1].split(":")[0] != "0" for line in lines if line.startswith("USER ")] == [True]
    assert ["--no-cache-dir" in line for line in lines if "pip install" in line] == [True]
    assert [line for line in lines if line.startswith(("COPY ", "ADD "))] == [
        "COPY requirements.txt /tmp/requirements.txt"
    ]


@pytest.mark.timeout(1200)
def test_digits_in_containers(command: Command, digits: Repo) -> None:
    """From a Dockerfile to a prediction; then forward and back under load, of which no request fails; then nothing."""
    port = production(digits)
    first = run(command, digits)
    assert "pip install" in command("logs", str(first["run"]), "runtime", cwd=digits.folder, code=0).out
    served_by_nobody(command)
    samples = [json.loads(line) for line in (digits.folder / "samples.jsonl").read_text().splitlines()]
    right = [predicted(port, sample) == sample["truth"] for sample in samples]
    assert sum(right) >= 0.85 * len(right)

    again = run(command, digits, "--no-deploy")
    assert {step["name"] for step in again["steps"] if not step["cached"]} <= {"package"}
    exported_is_what_serves(command, digits, first["version"])

    server = digits.folder / "src/digits/serve.py"
    server.write_text(f"{server.read_text()}\n# the same answers\n")
    digits.commit("another server")
    callers = Callers(port, json.dumps({"images": samples[0]["images"]}).encode())
    with callers.calling():
        second = run(command, digits)
        assert {"data", "train", "runtime"} <= {step["name"] for step in second["steps"] if step["cached"]}
        command("rollback", "production", cwd=digits.folder, code=0)
        assert serving(port) == first["version"]
    assert callers.failed == []
    assert {first["version"], second["version"]} == set(callers.answers)

    command("stop", cwd=digits.folder, code=0)
    assert containers(command.home, running=False) == []
    assert command.processes() == {}
    assert of_others(command.home) == []


def served_by_nobody(command: Command) -> None:
    """One replica of staging and two of production, each in a container of its own that nobody can be root in."""
    found = containers(command.home)
    assert len(found) == 3
    assert [images.podman("exec", name, "id", "-u").stdout for name in found] == ["10001\n"] * 3


def exported_is_what_serves(command: Command, digits: Repo, version: str) -> None:
    """`penstock export` of a version gives the very image that its replicas run in."""
    name = f"localhost/penstock-test-digits:{os.getpid()}"
    told = command("export", version, "--oci", name, "--json", cwd=digits.folder, code=0).json
    known = [images.podman("inspect", "--format", "{{.Image}}", name).stdout for name in containers(command.home)]
    images.podman("rmi", name)
    assert set(known) == {f"{told['id'].removeprefix('sha256:')}\n"}
