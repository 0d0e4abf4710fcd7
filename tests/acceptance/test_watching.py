"""The watch as a person has it: a release goes wrong after its promotion, with the real router and a real serve."""

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from acceptance.test_drift import Field
from acceptance.test_serve import until
from acceptance.tiny import Tiny, sentence


@pytest.fixture
def watched(tiny: Tiny, tmp_path: Path) -> Iterator[Field]:
    """Production is watched, and has two releases; the second answers 500 to whoever asks for `/wrong`."""
    port = tiny.ports["production"]
    watch = f"watch: {{for: 1h, notify: 'echo $PENSTOCK_VERSION $PENSTOCK_REASON >>{tmp_path}/told'}}"
    tiny.edit("penstock.yaml", f"port: {port}", f"port: {port}, {watch}")
    tiny.edit("serve.py", "self.send_response(200)", "self.send_response(self.status(body))")
    tiny.edit("serve.py", "    def log_message", STATUS)
    tiny.commit("watched")
    tiny("run")
    tiny.commit(accuracy=0.95)
    tiny("run")
    field = Field(tiny, tmp_path)
    yield field
    for serve in field.serves:
        serve.kill()


STATUS = """\
    def status(self, body):
        return 500 if self.path == "/wrong" and b"0.95" in body else 200

    def log_message"""


def ask(field: Field, path: str, times: int) -> None:
    connection = HTTPConnection("127.0.0.1", field.tiny.ports["production"], timeout=20)
    for _ in range(times):
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()


def status(field: Field) -> str:
    return field.tiny("status", "production").out


def test_what_goes_wrong_later_goes_back(watched: Field) -> None:
    """Nothing works on the home: status says so. A serve that comes counts on, rolls back, and tells once."""
    before, after = (row["version"] for row in reversed(watched.tiny("runs", "--json").json))
    ask(watched, "/", 50)
    sentence(status(watched), "unattended: penstock serve (begins|goes on with) it")
    serve = watched.serve()
    until(lambda: "50 requests, 0 failed" in status(watched), "a look")
    assert "unattended" not in status(watched)
    serve.kill()
    ask(watched, "/wrong", 40)
    assert watched.tiny.serving("production") == after
    watched.serve()
    until(lambda: watched.tiny.serving("production") == before, "the rollback")
    before, after = re.escape(before), re.escape(after)
    reason = f"rolled back to {before} by its watch: 40 of the last [0-9]+ requests failed"
    sentence(status(watched), f"{after} was {reason}")
    told = watched.folder / "told"
    until(told.exists, "the notice")
    sentence(told.read_text(), f"^{after} {reason}")
