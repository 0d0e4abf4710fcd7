"""A project of a few small files and the real command on it: everything a person has, in a folder of the test's own."""

import json
import os
import random
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from sources.repositories import Repo, isolated, new_repo

PIPELINE = """\
name: tiny
steps:
  train:
    run: python train.py
    inputs: [train.py, settings.json]
    outputs: [model/]
    metrics: metrics.json
  unit: {run: python unit.py, inputs: [unit.py]}
  evaluate: {needs: package, run: python evaluate.py, inputs: [evaluate.py], metrics: served.json}
package:
  model: model/
  code: [serve.py]
  serve: python serve.py
  start_timeout: 20s
gates:
  accurate: {metric: train.accuracy, at_least: 0.8}
environments:
  staging: {port: STAGING}
  production: {needs: staging, port: PRODUCTION}
"""

TRAIN = """\
import json
import os

with open("settings.json") as file:
    settings = json.load(file)
os.mkdir("model")
with open("model/weights.json", "w") as file:
    json.dump(settings, file)
with open("metrics.json", "w") as file:
    json.dump({"accuracy": settings["accuracy"]}, file)
print("trained")
"""

SERVE = """\
import http.server
import os
import sys

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open("model/weights.json", "rb") as file:
            body = file.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""

EVALUATE = """\
import json
import os
import urllib.request

with urllib.request.urlopen(os.environ["PENSTOCK_URL"], timeout=10) as answer:
    served = json.load(answer)
with open("served.json", "w") as file:
    json.dump({"accuracy": served["accuracy"]}, file)
"""

FILES = {
    "penstock.yaml": PIPELINE,
    "train.py": TRAIN,
    "serve.py": SERVE,
    "evaluate.py": EVALUATE,
    "unit.py": 'print("tested")\n',
    "settings.json": '{"accuracy": 0.9}\n',
    ".gitignore": "ignored/\n",
}

PATIENCE = 300.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return f"{self.out}\n{self.err}"

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refuses(self, *words: str) -> None:
        """It ended with exit code 2 and exactly one sentence on stderr that says all of these words."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (2, 1), self
        assert lines[0].startswith("penstock: "), self
        assert [w for w in words if w not in lines[0]] == [], self


@dataclass(frozen=True, slots=True)
class Command:
    """The command with a home of its own. `environment` is all that it and git know of this machine."""

    home: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, cwd: Path, code: int | None = None, **variables: str) -> Said:
        """Run it to its end; with `code` that is how it must end. It never shows a traceback of its own."""
        done = subprocess.run(
            self.argv(*arguments),
            cwd=cwd,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in said.err, said
        assert "defect of Penstock" not in said.all, said
        assert code in {None, said.code}, f"{arguments} ended with {said.code}:\n{said.all}"
        return said

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "penstock", *arguments]

    def start(self, *arguments: str, cwd: Path) -> "subprocess.Popen[str]":
        """Begin it, for a test that meets it on the way."""
        return subprocess.Popen(
            self.argv(*arguments),
            cwd=cwd,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> dict[int, str]:
        """Every live process that was started for this home: its number, its command line and variables."""
        return dict(_processes(str(self.home)))


def _processes(home: str) -> Iterator[tuple[int, str]]:
    """Those whose command line, environment or current folder names the home; a zombie has none of these."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known = (folder / "environ").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if line and home in f"{line} {known} {(folder / 'cwd').readlink()}":
                yield int(folder.name), f"{line} {known}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an environment answered: the release that gave it, and the body."""

    release: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Tiny:
    """The project in its repository, the command, and the ports of its environments."""

    repo: Repo
    command: Command
    ports: Mapping[str, int]

    def __call__(self, *arguments: str, code: int | None = 0, **variables: str) -> Said:
        """The command, in the repository."""
        return self.command(*arguments, cwd=self.repo.folder, code=code, **variables)

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """`run --json`, as the object it printed."""
        found: dict[str, Any] = self("run", "--json", *arguments, code=code).json
        return found

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that stands exactly once in a file."""
        text = (self.repo.folder / path).read_text()
        assert text.count(old) == 1, (path, old, text)
        self.repo.put(path, text.replace(old, new))

    def commit(self, message: str = "a change", **accuracy: float) -> str:
        """Commit all that lies there; `accuracy=` gives the model another one before."""
        if accuracy:
            self.repo.put("settings.json", json.dumps(accuracy))
        return self.repo.commit(message)

    def ask(self, environment: str) -> Answer | None:
        """One request through the router; None where nothing listens."""
        connection = HTTPConnection("127.0.0.1", self.ports[environment], timeout=20)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return Answer(answer.getheader("x-penstock-release"), answer.read())
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    def serving(self, environment: str) -> str | None:
        """The version that answers, by the answer's own header."""
        answer = self.ask(environment)
        return None if answer is None else answer.release


@dataclass(frozen=True, slots=True)
class Signal:
    """A pipe between a test and a step, so that neither sleeps: one byte, in either direction."""

    path: Path
    descriptor: int

    @classmethod
    def make(cls, tiny: Tiny, name: str) -> Self:
        path = tiny.command.home.parent / name
        os.mkfifo(path)
        return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))  # open at both ends, so that nobody blocks

    def given(self) -> str:
        """The line of a step that gives the signal."""
        return f"open({str(self.path)!r}, 'w').write('x')\n"

    def awaited(self) -> str:
        """The line of a step that waits for it."""
        return f"open({str(self.path)!r}).read(1)\n"

    def give(self) -> None:
        os.write(self.descriptor, b"x")

    def wait(self) -> None:
        """Wait until a step gave it."""
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE)
        assert ready, f"nobody gave the signal {self.path.name}"
        os.read(self.descriptor, 1)


def make(folder: Path) -> Tiny:
    """The project, committed once, with a home that does not exist yet."""
    environment = isolated(folder / "person")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.update({name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ})
    environment["PENSTOCK_HOME"] = str(folder / "home")
    repo = new_repo(folder / "project", environment)
    staging, production = free_ports(2)
    for path, text in FILES.items():
        repo.put(path, text.replace("STAGING", str(staging)).replace("PRODUCTION", str(production)))
    repo.commit("the beginning")
    return Tiny(repo, Command(folder / "home", environment), {"staging": staging, "production": production})


def end(command: Command, cwd: Path) -> None:
    """Stop what the home serves; nothing of it may be left then."""
    command("stop", cwd=cwd, code=0)
    left = command.processes()
    assert left == {}, left


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, below those that the kernel gives to connections."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randint(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)


def sentence(text: str, pattern: str) -> str:
    """The one line of a text in which the pattern is found."""
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    assert len(lines) == 1, (pattern, text)
    return lines[0]
