"""Probes by the real command: recorded requests decide before any traffic, and call where nobody calls."""

import json
from typing import Any

from acceptance.tiny import Tiny

ASKED = "".join(json.dumps({"path": f"/?n={n}"}) + "\n" for n in range(10))
SPOILT = 'body = file.read().replace(b"0.9", b"0.75") if self.path.endswith("7") else file.read()'


def probed(tiny: Tiny, probe: str, more: str = "") -> None:
    """The package has recorded requests, which production's releases are probed with."""
    tiny.repo.put("asked.jsonl", ASKED)
    tiny.edit("penstock.yaml", "code: [serve.py]", "code: [serve.py, asked.jsonl]")
    tiny.edit("serve.py", 'protocol_version = "HTTP/1.1"', 'protocol_version = "HTTP/1.1"\n    wbufsize = -1')
    tiny.edit("penstock.yaml", "needs: staging, port:", f"needs: staging, probe: {probe}{more}, port:")
    tiny.commit("a probe")


def production(run: dict[str, Any]) -> tuple[str, str | None]:
    """Status and reason of the release to production."""
    (found,) = (release for release in run["releases"] if release["environment"] == "production")
    return found["status"], found["reason"]


def test_answers_decide_where_the_file_demands_it(tiny: Tiny) -> None:
    """A first release has nothing to agree with; one that answers otherwise goes on until agreement is demanded."""
    probed(tiny, "asked.jsonl")
    assert production(tiny.run())[0] == "serving"
    tiny.commit("another model", accuracy=0.95)
    other = tiny.run()
    assert tiny.serving("production") == other["version"]
    tiny.edit("penstock.yaml", "probe: asked.jsonl", "probe: {requests: asked.jsonl, agreement: 95%, repeat: 3}")
    tiny.edit("serve.py", "body = file.read()", SPOILT.replace("0.9", "0.95"))
    tiny.commit("a broken server")
    broken = tiny.run(code=1)
    status, reason = production(broken)
    assert status == "rejected"
    assert reason == (
        "the probe: 9 of 10 answers agree with those of the stable release, where 95 % must: "
        "line 8: GET /?n=7: at $.accuracy expected 0.95, came 0.75, off by 0.2"
    )
    assert tiny.serving("production") == other["version"]
    assert broken["version"] in tiny("status").out
    log = tiny("logs", str(broken["run"]), "probe.production").out
    assert "line 8: GET /?n=7\n  at $.accuracy expected 0.95, came 0.75, off by 0.2\n" in log
    assert "=== probe.production\nfail: 9 of 10 answers agree" in tiny("logs", str(broken["run"])).out
    refused = tiny("logs", str(broken["run"]), "probe.staging", code=2)
    refused.refuses(f"run {broken['run']} has probed no release to staging")


def test_requests_that_are_none_are_no_pass(tiny: Tiny) -> None:
    """A file that cannot be read is told with its line, and the run ends errored with nothing released."""
    probed(tiny, "asked.jsonl")
    tiny.repo.put("asked.jsonl", ASKED + "{\n")
    tiny.commit("a broken file")
    status, reason = production(tiny.run(code=3))
    assert (status, (reason or "").partition(" this is")[0]) == ("rejected", "the probe: asked.jsonl:11:")
    assert tiny.ask("production") is None


def test_a_canary_is_judged_where_nobody_calls(tiny: Tiny) -> None:
    """With `traffic: probe` its requests go through the router, marked as ours, and are evidence enough to promote."""
    probed(tiny, "asked.jsonl", ", rollout: {canary: 50%, interval: 1s, deadline: 2m, traffic: probe}")
    first = tiny.run()
    tiny.commit("another model", accuracy=0.95)
    second = tiny.run()
    assert first["version"] != second["version"] == tiny.serving("production")
