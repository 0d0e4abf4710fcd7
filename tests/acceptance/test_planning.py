"""`plan` and `check` before a run, and the choices of a run: allowed failures, cache, files as they lie there."""

import json

import pytest

from acceptance.tiny import Tiny, sentence


def _foreseen(tiny: Tiny) -> dict[str, tuple[str, str]]:
    return {row["name"]: (row["action"], row["reason"]) for row in tiny("plan", "--json").json["steps"]}


def test_plan_foresees_what_a_run_then_does(tiny: Tiny) -> None:
    """Before the first run, after it, and after a change: what plan calls run or cached is what the run does."""
    for change in (None, "nothing", "unit.py", "settings.json"):
        if change == "unit.py":
            tiny.repo.put("unit.py", 'print("tested better")\n')
        if change == "settings.json":
            tiny.repo.put("settings.json", '{"accuracy": 0.95}')
        tiny.commit(str(change))
        planned = _foreseen(tiny)
        done = {s["name"]: s for s in tiny.run("--no-deploy")["steps"]}
        assert set(planned) == set(done)
        for name, (action, reason) in planned.items():
            same = done[name]["reason"] == "the same package as before"
            assert action in {"wait", "cached" if done[name]["cached"] or same else "run"}, (change, name)
            assert name == "check" or action == "wait" or done[name]["reason"] in {reason, None}, (change, name)


def test_plan_shows_the_reasons_and_changes_nothing(tiny: Tiny) -> None:
    """Before: no earlier result. After a run: all cached. After a change: the file's name, and what waits for it."""
    assert {row for name, row in _foreseen(tiny).items() if name != "serve"} == {("run", "no earlier result")}
    assert tiny("runs", "--json").json == []
    tiny("run", "--no-deploy")
    assert {a for name, (a, _) in _foreseen(tiny).items() if name != "serve"} == {"cached"}
    tiny.commit(accuracy=0.95)
    assert _foreseen(tiny)["train"] == ("run", "settings.json changed")
    assert _foreseen(tiny)["package"] == ("wait", "depends on what train gives")
    assert "settings.json changed" in sentence(tiny("plan").out, "● train")
    tiny.edit("penstock.yaml", "inputs: [unit.py]", "inputs: [unti.py]")
    tiny.commit()
    tiny("plan", code=2).refuses('input "unti.py" names no file')


def test_check_is_fine_with_the_project(tiny: Tiny) -> None:
    """A fine file: one line with what it holds; uncommitted files count, as they lie there."""
    tiny.repo.put("unit.py", "x = 1\n")
    assert "penstock.yaml: fine (3 steps, 1 gate, 2 environments" in tiny("check").out
    assert tiny.command.processes() == {}


def test_check_names_file_and_line(tiny: Tiny) -> None:
    """A Python file that does not compile: exit code 1 with file and line. A bad pipeline file: 2 with position."""
    tiny.repo.put("unit.py", "x = 1\ny = (\n")
    said = tiny("check", code=1)
    sentence(said.all, r"unit\.py:2:")
    tiny.edit("penstock.yaml", "at_least: 0.8", "at_leest: 0.8")
    sentence(tiny("check", code=2).err, r'penstock\.yaml:\d+:\d+: .*"at_leest".*at_least')


def test_check_prints_the_schema(tiny: Tiny) -> None:
    """`check --schema` prints the JSON Schema with every top-level key, wherever it is called."""
    schema = json.loads(tiny.command("check", "--schema", cwd=tiny.command.home.parent, code=0).out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) >= {"name", "steps", "package", "gates", "environments"}


def test_allow_failure_only_warns(tiny: Tiny) -> None:
    """A red step that may fail is `warned`; the run passes and releases."""
    tiny.edit("penstock.yaml", "inputs: [unit.py]}", "inputs: [unit.py], allow_failure: true}")
    tiny.repo.put("unit.py", 'raise SystemExit("a known fault")\n')
    tiny.commit()
    run = tiny.run("--to", "staging")
    unit = next(s for s in run["steps"] if s["name"] == "unit")
    assert (run["status"], unit["status"], unit["exit_code"]) == ("passed", "warned", 1)
    assert tiny.serving("staging") == run["version"]


def test_no_cache_runs_all_again_and_still_stores(tiny: Tiny) -> None:
    """`--no-cache` reuses nothing of an equal run; the run after it reuses what it stored."""
    tiny("run", "--no-deploy")
    again = tiny.run("--no-deploy", "--no-cache")
    assert [s["name"] for s in again["steps"] if s["cached"]] == []
    after = tiny.run("--no-deploy")
    assert {s["reason"] for s in after["steps"] if s["name"] in {"train", "unit"}} == {"nothing changed since run 2"}


@pytest.mark.parametrize("folder", [".", "deep/er"])
def test_a_run_begins_anywhere_in_the_repository(tiny: Tiny, folder: str) -> None:
    """From a folder below, `run` finds the repository and the file at its root; and by its path from outside."""
    tiny.repo.put("deep/er/note.txt", "x")
    tiny.commit()
    said = tiny.command("run", "--no-deploy", "--json", cwd=tiny.repo.folder / folder, code=0)
    elsewhere = tiny.command("run", "--no-deploy", "--json", str(tiny.repo.folder), cwd=tiny.repo.folder.parent, code=0)
    assert (said.json["version"], elsewhere.json["run"]) == (elsewhere.json["version"], 2)
    assert said.json["project"] == "tiny"
