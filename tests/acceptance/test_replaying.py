"""Recorded requests by the real command: the package as served is held against the trained model, and measured."""

import json

from acceptance.tiny import Signal, Tiny

RECORD = """\
with open("asked.jsonl", "w") as file:
    for n in range(20):
        request = {"id": f"example-{n}", "path": f"/?n={n}", "answer": settings}
        file.write(json.dumps(request) + "\\n")
"""
GATES = """\
gates:
  parity: {metric: replay.agreement, equals: 1}
  sound: {metric: replay.errors, equals: 0}
  quick: {metric: replay.p99_ms, at_most: 20000}
  small: {metric: replay.memory_mib, within: [2, 2000]}
"""
SPOILT = 'body = file.read().replace(b"0.9", b"0.75") if self.path.endswith("7") else file.read()'


def recorded(tiny: Tiny) -> None:
    """The training writes what the trained model says; its server answers the same."""
    tiny.edit("penstock.yaml", "outputs: [model/]", "outputs: [model/, asked.jsonl]")
    tiny.edit("penstock.yaml", "  start_timeout: 20s\n", "  start_timeout: 20s\n  requests: asked.jsonl\n")
    tiny.edit("penstock.yaml", "gates:\n", GATES)
    tiny.edit("train.py", 'print("trained")\n', RECORD)
    tiny.edit("serve.py", 'protocol_version = "HTTP/1.1"', 'protocol_version = "HTTP/1.1"\n    wbufsize = -1')
    tiny.commit("recorded requests")


def test_a_broken_export_is_stopped(tiny: Tiny) -> None:
    """What serves as it was trained is released; what answers two requests otherwise is not, and its log says which."""
    recorded(tiny)
    first = tiny.run()
    assert [gate["verdict"] for gate in first["gates"]] == ["pass"] * 5
    found = {name.removeprefix("replay."): value for name, value in first["metrics"].items() if "replay" in name}
    assert (found["requests"], found["agreement"], found["errors"]) == (20, 1, 0)
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"]
    assert tiny.serving("production") == first["version"]
    tiny.edit("serve.py", "body = file.read()", SPOILT)
    tiny.commit("a broken export")
    broken = tiny.run(code=1)
    assert [gate["verdict"] for gate in broken["gates"]] == ["fail", "pass", "pass", "pass", "pass"]
    assert broken["gates"][0]["reasons"][0] == "0.9 does not equal 1"
    assert tiny.serving("production") == first["version"]
    assert [s["reason"] for s in broken["steps"] if s["name"] == "replay"] == ["2 of 20 answers disagree"]
    log = tiny("logs", str(broken["run"]), "replay").out
    assert "line 8 (example-7): GET /?n=7\n  at $.accuracy expected 0.9, came 0.75, off by 0.15\n" in log
    assert "line 18 (example-17): GET /?n=17\n" in log


def test_what_was_measured_is_known(tiny: Tiny) -> None:
    """The same commit again asks nothing and has the same metrics; the plan foresees it, and why a change asks anew."""
    recorded(tiny)
    first, second = tiny.run(), tiny.run()
    assert [s["cached"] for s in second["steps"] if s["name"] in {"replay", "serve"}] == [True, True]
    assert second["metrics"] == first["metrics"]
    rows = {row["name"]: row for row in tiny("plan", "--json").json["steps"]}
    assert rows["replay"]["action"] == "cached"
    tiny.edit("penstock.yaml", "requests: asked.jsonl", "requests: {file: asked.jsonl, repeat: 2}")
    tiny.commit("asked twice")
    rows = {row["name"]: row for row in tiny("plan", "--json").json["steps"]}
    assert (rows["replay"]["action"], rows["replay"]["reason"]) == ("run", "how often it asks changed")
    assert json.dumps(tiny.run()["metrics"]) != json.dumps(first["metrics"])


def test_a_killed_command_loses_no_replay(tiny: Tiny) -> None:
    """The command is killed while a request is being answered; `resume` goes on with the same two processes."""
    recorded(tiny)
    asked, answered = Signal.make(tiny, "asked"), Signal.make(tiny, "answered")
    waits = f"""\
    def do_GET(self):
        if self.path.endswith("=3") and not os.path.exists("../met"):
            open("../met", "w").close()
            {asked.given().strip()}
            {answered.awaited().strip()}
"""
    tiny.edit("serve.py", "    def do_GET(self):\n", waits)
    tiny.commit("waits within an answer")
    command = tiny.command.start("run", cwd=tiny.repo.folder)
    asked.wait()
    command.kill()
    command.communicate()
    answered.give()
    tiny("resume")
    run = tiny("show", "1", "--json").json
    (replay,) = (step for step in run["steps"] if step["name"] == "replay")
    assert (replay["status"], replay["attempts"], run["status"]) == ("passed", 1, "passed")
    assert run["metrics"]["replay.agreement"] == 1
