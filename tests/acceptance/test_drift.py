"""Drift as a person has it: real requests that change, a real serve that dies, and one run that trains anew."""

import json
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from acceptance.test_serve import PATIENCE, Serve, state, until
from acceptance.tiny import Tiny, end, make

PIPELINE = """\
name: tiny
on: {drift: production}
variables: {LEDGER: "%s"}
steps:
  data: {run: "mkdir data; echo data >>$LEDGER; date >data/it", inputs: [], outputs: [data/]}
  train:
    run: mkdir model; echo train >>$LEDGER; wc -l <$LEDGER >model/it
    inputs: [data/]
    outputs: [model/]
    fresh: drift
package: {model: model/, code: [serve.py, sample.jsonl], serve: python serve.py, start_timeout: 20s}
environments:
  production:
    port: %d
    drift: {reference: sample.jsonl, share: 100%%, window: 100, interval: 10ms, confidence: 0.999}
"""

SERVE = """\
import http.server
import json
import os

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"class": "long" if asked["petal_length"] > 0 else "short"})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""


def flower(draw: random.Random, shift: float = 0.0) -> dict[str, float]:
    return {"petal_length": draw.gauss(shift, 1), "petal_width": draw.gauss(0, 1)}


def sample(rows: int = 400) -> str:
    draw = random.Random(1)  # noqa: S311 - no secret
    lines = []
    for _ in range(rows):
        asked = flower(draw)
        answer = {"class": "long" if asked["petal_length"] > 0 else "short"}
        lines.append(json.dumps({"path": "/predict", "json": asked, "answer": answer}))
    return "\n".join(lines) + "\n"


@dataclass
class Field:
    """The project, its serves, and the callers of its production."""

    tiny: Tiny
    folder: Path
    serves: list[Serve] = field(default_factory=list)

    def serve(self, **variables: str) -> Serve:
        log = self.folder / f"serve-{len(self.serves)}.log"
        words = ("serve", "--repo", str(self.tiny.repo.folder), "--poll", "0.1", "--port", "0")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.tiny.command.argv(*words),
                cwd=self.folder,
                env={**self.tiny.command.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        made = Serve(process, log)
        self.serves.append(made)
        return made

    @contextmanager
    def callers(self, shift: float) -> Iterator[None]:
        """Requests one after the other, none of which may fail."""
        over, faults = threading.Event(), list[str]()
        thread = threading.Thread(target=self._call, args=(shift, over, faults))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PATIENCE)
        assert faults == []

    def _call(self, shift: float, over: threading.Event, faults: list[str]) -> None:
        draw = random.Random(2)  # noqa: S311 - no secret
        connection = HTTPConnection("127.0.0.1", self.tiny.ports["production"], timeout=20)
        while not over.wait(0.001):
            connection.request("POST", "/predict", json.dumps(flower(draw, shift)))
            answer = connection.getresponse()
            if answer.read() == b"" or answer.status != 200:
                faults.append(f"status {answer.status}")
        connection.close()

    def runs(self) -> list[tuple[str, str]]:
        """All runs, oldest first: trigger and status."""
        found: list[dict[str, Any]] = self.tiny("runs", "--json").json
        return [(run["trigger"], run["status"]) for run in reversed(found)]

    def ledger(self) -> list[str]:
        return (self.folder / "ledger").read_text().split()


@pytest.fixture
def meadow(tmp_path: Path) -> Iterator[Field]:
    """The project with its first release in production."""
    tiny = make(tmp_path)
    for path, text in {"serve.py": SERVE, "sample.jsonl": sample()}.items():
        tiny.repo.put(path, text)
    tiny.repo.put("penstock.yaml", PIPELINE % (tmp_path / "ledger", tiny.ports["production"]))
    tiny.commit("watched for drift")
    tiny("run")
    made = Field(tiny, tmp_path)
    yield made
    for serve in made.serves:
        with suppress(ProcessLookupError):
            serve.kill()
    end(tiny.command, tmp_path)


def test_requests_that_change_train_the_model_anew(meadow: Field) -> None:
    """Requests like the sample ask for nothing; others bring one run, whose training is not reused, into production."""
    before = meadow.tiny.serving("production")
    serve = meadow.serve()
    with meadow.callers(0.0):
        until(lambda: status(meadow)["drift"] is not None, "a first window")
        until(lambda: "no drift in 3 features" in str(state(serve)["environments"][0]["note"]), "the page tells of it")
    assert "sees drift" not in serve.said
    assert meadow.runs() == [("manual", "passed")]
    with meadow.callers(2.0):
        until(lambda: meadow.runs()[1:] == [("drift", "passed")], "the run that drift asks for")
    assert "sees drift: feature petal_length: PSI" in serve.said
    assert "the drift of production is asked for" in serve.said
    assert meadow.ledger() == ["data", "train", "train"]
    assert meadow.tiny.serving("production") == before  # the same commit, and so the same version
    rows = list(meadow.tiny.command.home.rglob("window-*.jsonl"))
    assert {path.stat().st_mode & 0o777 for path in rows} <= {0o600}


def status(meadow: Field) -> dict[str, Any]:
    """How production stands."""
    (row,) = meadow.tiny("status", "production", "--json").json["environments"]
    return dict(row)


@pytest.mark.parametrize(
    "point",
    [
        "drift.look:before_commit",
        "drift.look:after_commit",
        "trigger.drift:before_commit",
        "trigger.drift:after_commit",
    ],
)
def test_a_kill_between_detection_and_run_leaves_exactly_one_run(meadow: Field, point: str) -> None:
    """Wherever serve dies between seeing drift and asking for its run, the drift has one run in the end."""
    with meadow.callers(2.0):
        dying = meadow.serve(PENSTOCK_CRASH=point)
        assert dying.process.wait(PATIENCE) == -signal.SIGKILL
    with meadow.callers(2.0):
        meadow.serve()
        until(lambda: meadow.runs()[1:] == [("drift", "passed")], "the run that drift asks for")
    assert meadow.ledger() == ["data", "train", "train"]
