"""The real command deploys to a folder of somebody else's, behind a server whose address is all that is known of it."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from acceptance.tiny import Signal, Tiny

SCRIPT = """\
set -eu
echo "$1 $PENSTOCK_VERSION of $PENSTOCK_ENVIRONMENT after ${PENSTOCK_PREVIOUS_VERSION:-nothing}, with $TOKEN"
grep -q opensesame "$PENSTOCK_CONFIG/app.json"
if [ -n "${WAIT:-}" ]; then . ./wait.sh; fi
from=$PENSTOCK_PACKAGE version=$PENSTOCK_VERSION
if [ "$1" = back ]; then from=$PENSTOCK_PREVIOUS_PACKAGE version=$PENSTOCK_PREVIOUS_VERSION; fi
echo "$1 $version $PENSTOCK_RELEASE" >> "$THERE/history"
if [ "$1" = up ]; then ./check.sh; fi
cp "$from/model/weights.json" "$THERE/new"
mv "$THERE/new" "$THERE/weights.json"
echo "$version" > "$THERE/version"
"""

ENVIRONMENTS = """\
environments:
  production:
    variables: {THERE: "FOLDER"}
    secrets: [TOKEN]
    config: {template: app.json}
    deploy:
      run: sh deploy.sh up
      rollback: sh deploy.sh back
      health: "ADDRESS/health?${{ version }}"
      timeout: 30s
"""


class Elsewhere(ThreadingHTTPServer):
    """Serves what lies in a folder: 200 where its version is the one that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(("127.0.0.1", 0), _Answers)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def version(self) -> str:
        return (self.folder / "version").read_text().strip()

    @property
    def accuracy(self) -> Any:
        return json.loads((self.folder / "weights.json").read_text())["accuracy"]

    @property
    def history(self) -> list[list[str]]:
        """What ran there: up or back, the version that it brought, and the release's number."""
        return [line.split() for line in (self.folder / "history").read_text().splitlines()]


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Elsewhere)
        there = (self.server.folder / "version").exists() and self.server.version == urlsplit(self.path).query
        with suppress(ConnectionError):
            self.send_response(200 if there else 503)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere(tiny: Tiny) -> Iterator[Elsewhere]:
    """A server, and the project that deploys to it; its package serves nothing."""
    folder = tiny.command.home.parent / "elsewhere"
    folder.mkdir()
    server = Elsewhere(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    text = (tiny.repo.folder / "penstock.yaml").read_text().partition("environments:")[0]
    text = text.replace(
        "  evaluate: {needs: package, run: python evaluate.py, inputs: [evaluate.py], metrics: served.json}\n", ""
    )
    text = text.replace("  serve: python serve.py\n", "").replace(
        "[serve.py]", "[deploy.sh, check.sh, wait.sh, app.json]"
    )
    text += ENVIRONMENTS.replace("FOLDER", str(folder)).replace("ADDRESS", server.address)
    for path, content in {
        "penstock.yaml": text,
        "deploy.sh": SCRIPT,
        "check.sh": "#!/bin/sh\n",
        "wait.sh": "",
        "app.json": '{"token": "${{ secrets.TOKEN }}", "version": "${{ version }}"}\n',
    }.items():
        tiny.repo.put(path, content)
    (tiny.repo.folder / "check.sh").chmod(0o755)
    subprocess.run(
        tiny.command.argv("secret", "set", "TOKEN"),
        cwd=tiny.repo.folder,
        env=dict(tiny.command.environment),
        input=b"opensesame",
        check=True,
    )
    tiny.commit("deployed elsewhere")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def production(tiny: Tiny) -> dict[str, Any]:
    (found,) = tiny("status", "--json").json["environments"]
    assert isinstance(found, dict)
    return found


def test_a_package_goes_elsewhere_and_back(tiny: Tiny, elsewhere: Elsewhere) -> None:
    """`run` deploys by the command, the health URL is the verdict; `rollback` runs the way back; logs are masked."""
    first = tiny.run()
    assert (elsewhere.version, elsewhere.accuracy) == (first["version"], 0.9)
    (shown,) = first["releases"]
    assert (shown["status"], shown["url"]) == ("serving", f"{elsewhere.address}/health?{first['version']}")
    tiny.commit(accuracy=0.95)
    second = tiny.run()
    assert (elsewhere.version, elsewhere.accuracy) == (second["version"], 0.95)
    said = tiny("logs", str(second["run"]), "deploy.production").out
    assert said == f"up {second['version']} of production after {first['version']}, with ***\n"
    assert production(tiny) == production(tiny) | {"version": second["version"], "status": "serving", "replicas": "-"}
    tiny("rollback", "production")
    assert (elsewhere.version, elsewhere.accuracy) == (first["version"], 0.9)
    assert [row[:2] for row in elsewhere.history] == [
        ["up", first["version"]],
        ["up", second["version"]],
        ["back", first["version"]],
    ]
    assert production(tiny)["version"] == first["version"]
    tiny("deploy", second["version"], "production")
    assert elsewhere.version == second["version"]
    tiny("stop")
    assert production(tiny)["status"] == "serving"
    assert "rolled back to" in tiny("status", "production", "--history").out


def test_a_command_that_fails_leaves_the_old_one(tiny: Tiny, elsewhere: Elsewhere) -> None:
    """The run fails with the reason, the log's end and what became of the way back."""
    first = tiny.run()["version"]
    tiny.repo.put("check.sh", "#!/bin/sh\necho there is no room\nexit 3\n")
    tiny.commit(accuracy=0.95)
    second = tiny.run(code=1)
    (shown,) = second["releases"]
    assert shown["reason"] == (
        f"its deploy command did not pass (exit code 3): penstock logs {second['run']} deploy.production shows it; "
        "its log ends: there is no room; its rollback passed"
    )
    assert (elsewhere.version, elsewhere.accuracy) == (first, 0.9)
    said = tiny("logs", str(second["run"]), "deploy.production").out
    assert "=== deploy.production (rollback)\n" in said


def test_a_health_url_that_says_no(tiny: Tiny, elsewhere: Elsewhere) -> None:
    """A command that exits with 0 is not enough."""
    first = tiny.run()["version"]
    tiny.edit("penstock.yaml", "/health?${{ version }}", "/health?another")
    tiny.edit("penstock.yaml", "timeout: 30s", "timeout: 3s")
    tiny.commit(accuracy=0.95)
    (shown,) = tiny.run(code=1)["releases"]
    assert shown["reason"].startswith(
        f"{elsewhere.address}/health?another did not answer 200 3 times in a row within 3 s"
    )
    assert elsewhere.version == first


def test_kill_9_while_the_command_runs(tiny: Tiny, elsewhere: Elsewhere) -> None:
    """The command outlives the coordinator that started it; `resume` finds it, and it ran once."""
    begun, go = Signal.make(tiny, "begun"), Signal.make(tiny, "go")
    tiny.repo.put("wait.sh", f"echo x > {begun.path}\nhead -c 1 {go.path} > /dev/null\n")
    tiny.edit("penstock.yaml", 'variables: {THERE: "', 'variables: {WAIT: "1", THERE: "')
    tiny.commit("a command that waits")
    process = tiny.command.start("run", "--json", cwd=tiny.repo.folder)
    begun.wait()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    go.give()
    tiny("resume")
    (run,) = tiny("runs", "--json").json
    assert run["status"] == "passed"
    assert [row[:2] for row in elsewhere.history] == [["up", run["version"]]]
    assert production(tiny)["version"] == elsewhere.version == run["version"]
