"""The real command fills in a config file for what it serves, and tells a template's mistakes before anything runs."""

import stat
import subprocess
from pathlib import Path

import pytest

from acceptance.tiny import Tiny

SERVE = """\
import http.server
import os
import pathlib

CONFIG = pathlib.Path(os.environ["APP_CONFIG"]).read_bytes()

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONFIG)))
        self.end_headers()
        self.wfile.write(CONFIG)

    def log_message(self, *arguments):
        pass

print("it is", CONFIG.decode(), flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""
TEMPLATE = "${{ variables.LEVEL }} ${{ secrets.TOKEN }} ${{ version }} ${{ environment }}"


@pytest.fixture
def configured(tiny: Tiny) -> Tiny:
    """The project with one environment, whose server answers with its config file."""
    text, _, environments = (tiny.repo.folder / "penstock.yaml").read_text().partition("environments:")
    text = text.replace("[serve.py]", "[serve.py, app.conf]").replace(
        "  evaluate: {needs: package", "  evaluate: {needs: train"
    )
    port = tiny.ports["production"]
    config = "config: {template: app.conf, to: etc/app.conf, as: APP_CONFIG}"
    assert environments
    text += f"environments:\n  production: {{port: {port}, variables: {{LEVEL: low}}, secrets: [TOKEN], {config}}}\n"
    for path, content in {
        "penstock.yaml": text,
        "serve.py": SERVE,
        "app.conf": TEMPLATE,
        "evaluate.py": "open('served.json', 'w').write('{}')\n",
    }.items():
        tiny.repo.put(path, content)
    secret(tiny, "opensesame")
    tiny.commit("configured")
    return tiny


def secret(tiny: Tiny, value: str) -> None:
    subprocess.run(
        tiny.command.argv("secret", "set", "TOKEN"),
        cwd=tiny.repo.folder,
        env=dict(tiny.command.environment),
        input=value.encode(),
        check=True,
    )


def files(tiny: Tiny) -> list[Path]:
    return sorted((tiny.command.home / "releases").glob("*/config/**/*.conf"))


def test_what_serves_reads_its_config(configured: Tiny) -> None:
    """The values of the environment, its secrets among them, in a file for the owner alone; no log shows the secret."""
    version = configured.run()["version"]
    answer = configured.ask("production")
    assert answer is not None
    assert answer.body.decode() == f"low opensesame {version} production"
    (file,) = files(configured)
    assert (file.parent.name, stat.S_IMODE(file.stat().st_mode)) == ("etc", 0o600)
    logs = [p.read_text() for p in (configured.command.home / "releases").glob("*/*/log")]
    assert [f"it is low *** {version} production" in text for text in logs] == [True]
    configured("stop")
    assert files(configured) == []


def test_a_template_that_names_nothing(configured: Tiny) -> None:
    """`plan` refuses it with line and column, `run` fails at its check, and what served before serves on."""
    version = configured.run()["version"]
    configured.repo.put("app.conf", f"{TEMPLATE}\n ${{{{ variables.LEVLE }}}}\n")
    configured.commit("a mistake")
    said = 'app.conf:2:2: "${{ variables.LEVLE }}" names nothing: did you mean "variables.LEVEL"?'
    configured("plan", code=2).refuses(said)
    run = configured.run(code=1)
    assert [s["reason"] for s in run["steps"] if s["name"] == "check"] == [said]
    assert configured.serving("production") == version
