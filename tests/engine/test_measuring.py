"""The program that measures a served package: by itself, against real servers with real trees of processes."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.measuring import Measurement, main, taken

SERVER = """\
import http.server, json, os

HELD = bytearray(int(os.environ.get("HELD", "0")) << 20)
HELD[::4096] = b"1" * len(HELD[::4096])
COUNT = 0

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global COUNT
        COUNT += 1
        if self.path == "/gone":
            self.close_connection = True
            return
        status, said = 200, {"y": [0.25, COUNT], "path": self.path}
        if self.path == "/count":
            said = COUNT
        elif self.path == "/bad":
            status, said = 500, "no"
        elif self.path == "/spoil":
            HELD.extend(b"1" * (64 << 20))
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
print(server.server_address[1], flush=True)
for _ in range(int(os.environ.get("WORKERS", "0"))):
    if not os.fork():
        break
server.serve_forever()
"""


@contextmanager
def serving(**variables: str) -> Iterator[tuple[int, int]]:
    """The port and the pid of a server of its own process."""
    argv = [sys.executable, "-c", SERVER]
    with subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=True)


Measure = Callable[..., tuple[int, str, Any]]


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Measure]:
    """Measures requests; gives the exit code, what it said, and what it left."""

    def measure(port: int, *lines: Any, pid: int | None = None, repeat: int = 1) -> tuple[int, str, Any]:
        text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        (tmp_path / "asked.jsonl").write_text(text)
        wanted = Measurement("asked.jsonl", port, 1e-6, repeat, pid, "found.json")
        code = main([json.dumps(asdict(wanted))])
        return code, capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())

    monkeypatch.chdir(tmp_path)
    yield measure
    gc.unfreeze()


def test_it_is_a_program(tmp_path: Path) -> None:
    """Its command is a shell text that measures in the current folder, whatever stands in the path of the file."""
    (tmp_path / "it's asked.jsonl").write_text('{"path": "/"}')
    with serving() as (port, pid):
        command = Measurement("it's asked.jsonl", port, 1e-6, 1, pid, "found.json").command
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 recorded requests, each asked 2 times")
    assert done.stderr == ""
    assert json.loads((tmp_path / "found.json").read_text())["metrics"]["errors"] == 0


def test_every_metric_of_a_good_server(measure: Measure) -> None:
    """Agreement, errors, three quantiles, memory and the number of requests are left, and nothing needs to be said."""
    lines = [{"path": f"/{n}", **({"answer": {"y": [0.25, 1], "path": f"/{n}"}} if n == 0 else {})} for n in range(20)]
    with serving() as (port, pid):
        code, said, found = measure(port, *lines, pid=pid, repeat=0)
    metrics = found["metrics"]
    assert (code, found["note"]) == (0, None)
    assert metrics.keys() == {"requests", "agreement", "errors", "memory_mib"}
    assert (metrics["requests"], metrics["agreement"], metrics["errors"]) == (20, 1, 0)
    assert said.startswith("20 recorded requests, each asked 1 times")
    with serving() as (port, pid):
        metrics = measure(port, {"path": "/"}, pid=pid, repeat=30)[2]["metrics"]
    assert 0 < metrics["p50_ms"] <= metrics["p90_ms"] <= metrics["p99_ms"]


def test_what_is_wrong_stands_in_the_log(measure: Measure) -> None:
    """An answer that changes from one pass to the next, a wrong status and a broken connection are told with place."""
    with serving() as (port, pid):
        lines = [{"path": "/count", "answer": 1, "id": "one"}, {"path": "/bad"}, {"path": "/gone"}, {"path": "/"}]
        code, said, found = measure(port, *lines, pid=pid)
    assert code == 0
    assert found["note"] == "1 of 4 answers disagree, 2 of 4 requests were not answered as expected"
    assert (found["metrics"]["agreement"], found["metrics"]["errors"]) == (0, 0.5)
    assert said.splitlines()[1:7] == [
        "line 1 (one): GET /count",
        "  at $ expected 1, came 5, off by 4",
        "line 2: GET /bad",
        '  expected status 2xx, came 500: "\\"no\\""',
        "line 3: GET /gone",
        "  not answered: it closed the connection",
    ]


def test_a_server_that_is_gone_is_not_asked_for_ever(measure: Measure) -> None:
    """After ten requests in a row that nothing answered the others count as errors too, and no latency is told."""
    with serving() as (port, _):
        pass
    code, said, found = measure(port, *[{"path": "/", "answer": 1}] * 12)
    assert (code, found["metrics"]) == (0, {"requests": 12, "errors": 1, "agreement": 0})
    assert "not answered: nothing listens" in said
    assert found["note"].endswith(
        "12 of 12 requests were not answered as expected; memory is not measured in a container"
    )


def test_a_file_that_is_none_fails(measure: Measure) -> None:
    """The sentence with file and line is in the log and in what is left."""
    code, said, found = measure(1, {"path": "/"}, "{\n")
    assert code == 1
    assert found["fault"].startswith("asked.jsonl:2: this is no JSON")
    assert said == f"{found['fault']}\n"


def test_memory_is_that_of_the_whole_tree(measure: Measure) -> None:
    """What a server holds counts once though its forked workers share it, and what requests make it hold counts too."""
    with serving() as (port, pid):
        plain = measure(port, {"path": "/"}, pid=pid)[2]["metrics"]["memory_mib"]
        spoiled = measure(port, {"path": "/spoil"}, pid=pid)[2]["metrics"]["memory_mib"]
    with serving(HELD="100", WORKERS="3") as (port, pid):
        forked = measure(port, {"path": "/"}, pid=pid)[2]["metrics"]["memory_mib"]
    assert 4 < plain < 60
    assert plain + 60 < spoiled < plain + 200
    assert plain + 98 < forked < plain + 130


def test_memory_of_nothing_is_not_known(measure: Measure) -> None:
    """A process that is gone has no memory that could be told, which is not the same as none."""
    with serving() as (port, pid):
        pass
    assert taken(pid) is None
    with serving() as (port, _):
        found = measure(port, {"path": "/"}, pid=pid)[2]
    assert "memory_mib" not in found["metrics"]
    assert found["note"] == "memory could not be read"
