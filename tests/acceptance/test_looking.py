"""The verbs that only look: what they print, in words and as the documented objects."""

import re

from acceptance.tiny import Signal, Tiny, sentence

RUN = {"run", "project", "version", "commit", "status", "seconds", "steps", "gates", "package", "metrics", "releases"}
STEP = {"name", "stage", "status", "reason", "cached", "attempts", "seconds", "exit_code", "log"}
GATE = {"name", "verdict", "reasons", "value"}
RELEASE = {"environment", "version", "status", "url"}


def test_a_run_is_the_documented_object(tiny: Tiny) -> None:
    """`run --json` prints one object with at least the documented keys on stdout, and the progress on stderr."""
    said = tiny("run", "--json")
    run = said.json
    assert set(run) >= RUN
    assert [set(s) >= STEP for s in run["steps"]] == [True] * 6
    assert set(run["gates"][0]) >= GATE
    assert [set(r) >= RELEASE for r in run["releases"]] == [True, True]
    assert set(run["package"]) == {"digest", "size"}
    assert run["metrics"] == {"train.accuracy": 0.9, "evaluate.accuracy": 0.9}
    assert run["gates"][0] | {"name": "accurate", "verdict": "pass", "value": 0.9} == run["gates"][0]
    assert {s["name"]: s["stage"] for s in run["steps"]} == {
        "check": "build",
        "train": "build",
        "unit": "test",
        "package": "build",
        "serve": "test",
        "evaluate": "test",
    }
    assert said.err.splitlines()[-1].startswith(f"run {run['run']}  passed  ")


def test_runs_lists_the_newest_first(tiny: Tiny) -> None:
    """`runs --json` is a list of the same objects; the table has a line each; `--limit` shortens both."""
    assert tiny("runs").out == "no runs yet: penstock run makes the first\n"
    assert tiny("runs", "--json").json == []
    first = tiny.run("--no-deploy")
    tiny.commit("a spoiled model", accuracy=0.5)
    second = tiny.run("--no-deploy", code=1)
    assert tiny("runs", "--json").json == [second, first]
    assert tiny("runs", "--json", "--limit", "1").json == [second]
    listed = tiny("runs").out
    assert "failed" in sentence(listed, "a spoiled model")
    assert "passed" in sentence(listed, "the beginning")
    assert tiny("show", "2", "--json").json == second


def test_the_pages_of_a_run_agree(served: Tiny) -> None:
    """`show`, `logs`, `explain`, `lineage`, `status` and `doctor` after one run name its parts, each in its words."""
    version = str(served.serving("production"))
    shown = served("show", "1").out
    for words in (version, "build", "unit", "accurate", "at least 0.8", "production", "train.accuracy"):
        assert words in shown
    assert served("logs", "1", "train").out == "trained\n"
    assert "=== train\ntrained\n=== unit\ntested\n" in served("logs", "1").out
    explained = served("explain", "1", "train").out
    for words in ("train of run 1: passed", "because no earlier result", "needs    check", "exit code 0"):
        assert words in explained
    status = served("status").out
    for name, port in served.ports.items():
        assert re.search(rf"{name} +serving +{re.escape(version)} +1 of 1 +http://127.0.0.1:{port}", status)
    doctor = served("doctor").out
    assert "BAD" not in doctor
    for what in ("git", "uv", "envoy", "sqlite", "disk", "cache", "production"):
        sentence(doctor, rf"^ok +{what} ")


def test_status_is_an_object_with_each_environment(served: Tiny) -> None:
    """`status --json`: one entry per environment with status, version, address and replicas."""
    assert served("status", "--json").json["environments"] == [
        {
            "environment": name,
            "status": "serving",
            "version": served.serving(name),
            "url": f"http://127.0.0.1:{port}",
            "replicas": "1 of 1",
            "since": served("status", "--json").json["environments"][position]["since"],
            "note": None,
            "tried": None,
            "rollout": None,
            "drift": None,
        }
        for position, (name, port) in enumerate(served.ports.items())
    ]


def test_lineage_leads_from_version_to_commit_and_back(served: Tiny) -> None:
    """A version's lineage names commit, author, inputs, metrics, gate and releases; a beginning of it is enough."""
    version = str(served.serving("production"))
    sha = served.repo.git("rev-parse", "HEAD")
    facts = served("lineage", version, "--json").json
    assert (facts["version"], facts["passed"], facts["run"]) == (version, True, 1)
    assert facts["lineage"]["commit"]["sha"] == sha
    assert set(facts["lineage"]["inputs"]) >= {"train", "unit"}
    assert facts["metrics"]["train.accuracy"] == 0.9
    assert facts["gates"][0]["verdict"] == "pass"
    assert {r["environment"]: r["status"] for r in facts["releases"]} == {"staging": "serving", "production": "serving"}
    told = served("lineage", version.partition("+")[0]).out
    for words in (sha, "Ada", "main", "train.accuracy  0.9", "accurate  pass", "production  serving"):
        assert words in told
    served("lineage", "9.9", code=2).refuses("9.9", version)


def test_explain_says_why_a_step_ran_was_cached_or_skipped(tiny: Tiny) -> None:
    """After a change of one input: which file changed, what was cached since which run, what was skipped and why."""
    tiny("run", "--no-deploy")
    tiny.repo.put("unit.py", 'raise SystemExit("wrong")\n')
    tiny.edit("train.py", 'print("trained")', 'raise SystemExit("no data")')
    tiny.commit()
    tiny("run", "--no-deploy", code=1)
    assert "exit code 1" in tiny("explain", "2", "unit").out
    assert "needs train, which failed" in tiny("explain", "2", "package").out
    tiny.repo.git("revert", "--no-edit", "HEAD")
    tiny("run", "--no-deploy")
    assert "train of run 3: cached\nbecause nothing changed since run 1" in tiny("explain", "3", "train").out
    tiny.commit(accuracy=0.85)
    tiny("run", "--no-deploy")
    assert "because settings.json changed" in tiny("explain", "4", "train").out


def test_what_is_not_there_cannot_be_looked_at(served: Tiny) -> None:
    """An unknown run, step or project: one sentence with exit code 2."""
    served("show", "7", code=2).refuses("7")
    served("logs", "7", code=2).refuses("7")
    served("logs", "1", "nope", code=2).refuses("nope")
    served("explain", "1", "nope", code=2).refuses("nope")
    served("cancel", "7", code=2).refuses("7")
    served("resume", "7", code=2).refuses("7")
    assert served("resume").all.strip() == "nothing to resume: no run is open"
    served("cancel", "1", code=2).refuses("run 1 has already passed")
    served("runs", "--project", "nope", code=2).refuses("nope", "tiny")


def test_logs_follow_a_running_step_to_its_end(tiny: Tiny) -> None:
    """`logs -f` prints what is there, goes on while the step writes, and ends with it."""
    begun, go_on = Signal.make(tiny, "begun"), Signal.make(tiny, "go on")
    tiny.repo.put("unit.py", f'print("first", flush=True)\n{begun.given()}{go_on.awaited()}print("last")\n')
    tiny.commit()
    with tiny.command.start("run", "--no-deploy", cwd=tiny.repo.folder) as running:
        begun.wait()
        with tiny.command.start("logs", "1", "unit", "-f", cwd=tiny.repo.folder) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == "first\n"
            assert following.poll() is None
            go_on.give()
            assert following.communicate() == ("last\n", "")
        running.communicate()
        assert running.returncode == 0


def test_a_canceled_run_ends_with_what_it_started(served: Tiny) -> None:
    """`cancel` from another terminal ends the run's processes: its command exits 3, production answers as before."""
    before, live = served.serving("production"), set(served.command.processes())
    begun = Signal.make(served, "begun")
    served.repo.put("unit.py", f"import time\n{begun.given()}time.sleep(3600)\n")
    served.commit()
    with served.command.start("run", cwd=served.repo.folder) as running:
        begun.wait()
        assert served("cancel", "2").out == "run 2 is canceled\n"
        running.communicate()
        assert running.returncode == 3
    assert served.serving("production") == before
    assert set(served.command.processes()) == live


def test_gc_keeps_what_serves_and_what_a_run_reuses(served: Tiny) -> None:
    """After `gc` production answers, a new replica can be started, and the same commit is cached from end to end."""
    version = served.serving("production")
    assert served("gc").out.startswith("freed ")
    assert served.serving("production") == version
    run = served.run()
    assert {s["name"] for s in run["steps"] if not s["cached"]} <= {"package"}
    served("stop", "production")
    served("gc", "--days", "0")
    served("deploy", str(version), "production")
    assert served.serving("production") == version
