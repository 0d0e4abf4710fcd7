"""`penstock export`: a version as an image that serves without Penstock, and what is refused."""

import json
import os
import random
import re
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from acceptance.tiny import Tiny, end, free_ports, make
from docs.test_docs import keys, section
from images import MINOR, bare_image, base_image, engine, podman

PIPELINE = """\
name: tiny
runtime: {python: "MINOR", lock: requirements.lock, path: [src]}
variables: {GREETING: "from ${{ version }}"}
steps:
  train: {run: python train.py, inputs: [train.py, settings.json], outputs: [model/]}
package:
  model: model/
  code: [src/]
  serve: python -m served
  start_timeout: 20s
environments:
  production: {port: PORT}
"""

SERVED = """\
import http.server, json, os, pathlib, sys
import sluice

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        number = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        weights = json.loads(pathlib.Path("model/weights.json").read_text())
        told = {"prediction": number * weights["accuracy"], "sluice": sluice.version, "user": os.getuid()}
        told |= {"greeting": os.environ["GREETING"], "prefix": sys.prefix, "writable": writable()}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *arguments):
        pass

def writable():
    folders = [folder for folder, _, _ in os.walk("/opt/penstock")]
    return [folder for folder in folders if os.access(folder, os.W_OK)]

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""

SLUICE = "sluice==1.2 --hash=sha256:"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the one package, and its hash."""
    from runtimes.conftest import _wheel  # noqa: PLC0415 (another room's fixture, by its maker)

    folder = tmp_path_factory.mktemp("wheels")
    return folder, _wheel(folder, "sluice", "1.2")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, wheels: tuple[Path, str]) -> Iterator[Tiny]:
    """The project with a locked package, whose one version has passed; podman is the person's own."""
    tiny = project_in(tmp_path_factory.mktemp("export"), wheels)
    tiny("run", "--no-deploy")
    yield tiny
    end(tiny.command, tiny.repo.folder)


def project_in(folder: Path, wheels: tuple[Path, str]) -> Tiny:
    tiny = make(folder)
    variables = {"PIP_FIND_LINKS": str(wheels[0]), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    engines = {name: value for name, value in engine().variables.items() if name not in {"HOME", "PATH"}}
    tiny.command.environment.update({**engines, **variables})  # type: ignore[attr-defined]
    pipeline = PIPELINE.replace("MINOR", MINOR).replace("PORT", str(tiny.ports["production"]))
    tiny.repo.put("penstock.yaml", pipeline)
    tiny.repo.put("requirements.lock", f"{SLUICE}{wheels[1]}\n")
    tiny.repo.put("src/served.py", SERVED)
    tiny.repo.commit("a locked package")
    return tiny


@pytest.fixture
def name() -> Iterator[str]:
    """A name for an image of the test's own, which is gone afterwards."""
    made = f"localhost/penstock-test-tiny-{os.getpid()}-{random.SystemRandom().randint(0, 10**9)}"
    yield made
    listed = podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", made).stdout.split()
    podman("image", "rm", "--force", *listed)


def exported(tiny: Tiny, target: str, *more: str) -> dict[str, Any]:
    told: dict[str, Any] = tiny("export", "0", "--oci", target, "--base", base_image(), "--json", *more).json
    return told


def ask(port: int, method: str, body: bytes | None = None) -> bytes | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, "/health" if body is None else "/predict", body)
        return connection.getresponse().read()
    except OSError:
        return None
    finally:
        connection.close()


def healthy(port: int, container: str) -> None:
    """Wait until it answers, or fail with its log."""
    until = time.monotonic() + 30
    while ask(port, "GET") is None:
        state = podman("container", "inspect", "--format", "{{.State.Status}}", container).stdout.strip()
        assert (state, time.monotonic() < until) == ("running", True), podman("logs", container)


@pytest.mark.parametrize(("option", "writable"), [("--read-only=false", ["/opt/penstock/home"]), ("--read-only", [])])
def test_the_image_serves(project: Tiny, name: str, option: str, writable: list[str]) -> None:
    """It honours PORT, predicts with the model and the locked package, as nobody, with one writable folder, or none
    on a root that is read-only; TERM ends it at once.
    """
    image = exported(project, name)
    version = image["version"]
    (port,) = free_ports(1)
    options = ["--detach", "--network", "host", option, "--env", f"PORT={port}"]
    started = podman("run", *options, image["reference"])
    assert started.returncode == 0, started.stderr
    container = started.stdout.strip()
    try:
        healthy(port, container)
        told = json.loads(ask(port, "POST", b"10") or b"")
        began = time.monotonic()
        stopped = podman("stop", container)
        seconds = time.monotonic() - began
        code = podman("container", "inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip()
    finally:
        podman("rm", "--force", container)
    assert told == {
        "prediction": 9.0,
        "sluice": "1.2",
        "user": 10001,
        "greeting": f"from {version}",
        "prefix": "/opt/penstock/env",
        "writable": writable,
    }
    assert (stopped.returncode, code) == (0, "143")
    assert seconds < 9  # it was not killed, which happens after ten


def test_its_labels_lead_back(project: Tiny, name: str) -> None:
    """Version, commit and package of the labels are those of the lineage; the name has the version as its tag."""
    image = exported(project, name)
    labels = json.loads(podman("image", "inspect", image["reference"]).stdout)[0]["Config"]["Labels"]
    lineage = project("lineage", f"{image['version']}@{labels['penstock.package']}", "--json").json
    assert labels["org.opencontainers.image.version"] == lineage["version"]
    assert labels["org.opencontainers.image.revision"] == lineage["lineage"]["commit"]["sha"]
    assert labels["org.opencontainers.image.title"] == "tiny"
    assert labels["penstock.environment"] == lineage["lineage"]["environment"]
    assert labels["vendor"] == "tests"
    assert "org.opencontainers.image.source" not in labels
    assert image["reference"] == f"{name}:{image['version'].replace('+', '-')}"


def test_the_same_commit_in_another_home(project: Tiny, wheels: tuple[Path, str], tmp_path: Path) -> None:
    """Another home on the same commit gives the same digest and the same file; a second export writes nothing."""
    first = exported(project, str(tmp_path / "first.tar"))
    other = str(tmp_path / "home")
    project("run", "--no-deploy", PENSTOCK_HOME=other)
    argv = ("export", first["version"], "--oci", str(tmp_path / "second.tar"), "--base", base_image())
    said = project(*argv, PENSTOCK_HOME=other)
    assert said.out == f"{tmp_path / 'second.tar'} {first['digest']}\n"
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    assert "packing the dependencies" in said.err
    again = exported(project, str(tmp_path / "first.tar"))
    assert (again["written"], again["digest"]) == (False, first["digest"])
    project("stop", PENSTOCK_HOME=other)


def test_a_new_model_sends_the_model(wheels: tuple[Path, str], tmp_path: Path) -> None:
    """After a commit that trains anew, one layer of all is new; an environment that is gone is made again."""
    tiny = project_in(tmp_path, wheels)
    tiny("run", "--no-deploy")
    first = exported(tiny, "./image.tar")
    tiny.repo.commit("better", **{"settings.json": '{"accuracy": 0.95}\n'})
    version = tiny.run("--no-deploy")["version"]
    for manifest in (tiny.command.home / "runtimes").glob("*/penstock.json"):
        manifest.unlink()
    second = tiny("export", version, "--oci", "./image.tar", "--base", base_image(), "--json").json
    assert [layer["what"] for layer in second["layers"] if layer["new"]] == ["model"]
    assert [layer["digest"] for layer in first["layers"][:-1]] == [layer["digest"] for layer in second["layers"][:-1]]
    assert first["version"] != second["version"] == version


def test_the_object_is_documented(project: Tiny, tmp_path: Path) -> None:
    """Every key that `--json` prints stands in its table, and no other."""
    image = exported(project, str(tmp_path / "a.tar"))
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([^`]+)` \|", section(page, "The export object"), re.MULTILINE)
    assert sorted(documented) == sorted(set(keys(image)))


def test_what_is_refused(project: Tiny, tmp_path: Path) -> None:
    """A version that is not there, a name that none is, a base without the Python, a folder that does not exist."""
    base = ("--base", base_image())
    project("export", "9", "--oci", "a", *base, code=2).refuses('no package of version "9"')
    project("export", "0", "--oci", "Digits", *base, code=2).refuses("'Digits' is neither a file nor the name")
    lost = str(tmp_path / "no/a.tar")
    said = project("export", "0", "--oci", lost, *base, code=2)
    assert said.err.splitlines()[-1].endswith("a.tar cannot be written (No such file or directory): name another file")
    bare = bare_image("bare", "/bin/sh")
    said = project("export", "0", "--oci", "a", "--base", bare, code=2)
    assert f"has no python{MINOR} on its PATH, which the package's dependencies are for (it has none)" in said.err


def test_what_did_not_pass_is_not_exported(wheels: tuple[Path, str], tmp_path: Path) -> None:
    """A version whose gates are red has a package, and no image."""
    tiny = project_in(tmp_path, wheels)
    pipeline = (tiny.repo.folder / "penstock.yaml").read_text()
    red = "gates:\n  high: {metric: train.accuracy, at_least: 0.99}\n"
    pipeline = pipeline.replace("outputs: [model/]}", "outputs: [model/], metrics: metrics.json}") + red
    tiny.repo.commit("red", **{"penstock.yaml": pipeline})
    tiny("run", "--no-deploy", code=1)
    tiny("export", "0", "--oci", "a", "--base", base_image(), code=2).refuses("did not pass all its steps and gates")
