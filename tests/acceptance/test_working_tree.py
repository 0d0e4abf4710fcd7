"""Uncommitted work: a run builds HEAD and says so; `--worktree` builds what lies there and never releases it."""

from acceptance.tiny import Tiny, sentence


def test_uncommitted_changes_are_not_part_of_a_run(tiny: Tiny) -> None:
    """HEAD is built; the note counts the changes and names commit and way out, on stderr and in the run's notes."""
    head = tiny.repo.git("rev-parse", "HEAD")
    tiny.repo.put("settings.json", '{"accuracy": 0.1}')
    tiny.repo.put("new.py", "x = 1\n")
    said = tiny("run", "--no-deploy")
    note = sentence(said.err, "uncommitted")
    assert "2 uncommitted changes are not part of this run" in note
    assert head[:7] in note
    assert "--worktree" in note
    shown = tiny("show", "1", "--json").json
    assert (shown["commit"], shown["dirty"], shown["status"]) == (head, False, "passed")
    assert shown["metrics"]["train.accuracy"] == 0.9
    assert len(shown["notes"]) == 1


def test_a_working_tree_is_built_and_never_released(served: Tiny) -> None:
    """`--worktree` takes changed, new and no ignored files, is marked dirty, and passes without a release."""
    before = served.serving("production")
    served.repo.put("settings.json", '{"accuracy": 0.99}')
    served.edit("unit.py", 'print("tested")', 'import os, new\nassert not os.path.exists("ignored")')
    served.edit("penstock.yaml", "inputs: [unit.py]", "inputs: [unit.py, new.py]")
    served.repo.put("new.py", "x = 1\n")
    served.repo.put("ignored/secret.txt", "x")
    run = served.run("--worktree")
    assert (run["status"], run["dirty"]) == ("passed", True)
    assert run["version"].endswith("dirty")
    assert run["metrics"]["train.accuracy"] == 0.99
    assert {r["status"] for r in run["releases"]} == {"skipped"}
    assert "nobody committed" in run["releases"][0]["reason"]
    assert served.serving("production") == served.serving("staging") == before
    served("deploy", run["version"], "staging", code=2).refuses(run["version"])
    assert served.serving("staging") == before
    assert served.repo.git("status", "--porcelain").count("\n") == 3


def test_a_clean_working_tree_is_its_commit(tiny: Tiny) -> None:
    """`--worktree` with nothing changed is HEAD: the same version, not dirty, and released as such."""
    tiny("run", "--no-deploy")
    run = tiny.run("--worktree")
    assert (run["dirty"], run["commit"]) == (False, tiny.repo.git("rev-parse", "HEAD"))
    assert {s["name"] for s in run["steps"] if not s["cached"]} <= {"package"}
    assert tiny.serving("production") == run["version"]


def test_worktree_reads_an_uncommitted_pipeline_file(tiny: Tiny) -> None:
    """The file as it lies there counts, even where no commit has it."""
    tiny.repo.git("rm", "--quiet", "--cached", "penstock.yaml")
    tiny.repo.git("commit", "--quiet", "-m", "without the file")
    assert tiny.run("--worktree")["status"] == "passed"
