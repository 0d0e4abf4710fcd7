"""What goes wrong in a run: the exit code, one sentence, and production as it was."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance.tiny import Said, Tiny, sentence

CRASH = 'sys.exit("the server cannot start")\n'
NEVER = 'import time\nprint("still loading", flush=True)\ntime.sleep(3600)\n'
ONLY_IN = 'if os.environ.get("PENSTOCK_ENVIRONMENT") == "{0}":\n    {1}'
HTTP = "http.server.ThreadingHTTPServer"


def _red_test(tiny: Tiny) -> None:
    tiny.repo.put("unit.py", 'import sys\nsys.exit("2 of 3 are wrong")\n')


def _red_gate(tiny: Tiny) -> None:
    tiny.repo.put("settings.json", '{"accuracy": 0.5}')


def _syntax(tiny: Tiny) -> None:
    tiny.repo.put("unit.py", "fine = 1\ndef broken(:\n    pass\n")


def _crash(tiny: Tiny) -> None:
    tiny.edit("serve.py", HTTP, CRASH + HTTP)


def _never(tiny: Tiny) -> None:
    tiny.edit("penstock.yaml", "start_timeout: 20s", "start_timeout: 2s")
    tiny.edit("serve.py", HTTP, NEVER + HTTP)


def _not_200(tiny: Tiny) -> None:
    tiny.edit("penstock.yaml", "start_timeout: 20s", "start_timeout: 1s")
    tiny.edit("serve.py", "self.send_response(200)", "self.send_response(503)")


def _killed(tiny: Tiny) -> None:
    tiny.repo.put("unit.py", "import os\nos.kill(os.getpid(), 9)\n")


def _timeout(tiny: Tiny) -> None:
    tiny.edit("penstock.yaml", "inputs: [unit.py]}", "inputs: [unit.py], timeout: 500ms}")
    tiny.repo.put("unit.py", "import subprocess\nsubprocess.run(['sleep', '3600'])\n")


def _no_output(tiny: Tiny) -> None:
    tiny.edit("penstock.yaml", "outputs: [model/]", "outputs: [model/, vocabulary.txt]")


def _no_metrics(tiny: Tiny) -> None:
    tiny.edit("train.py", 'open("metrics.json", "w")', 'open("other.json", "w")')


def _bad_metrics(tiny: Tiny) -> None:
    tiny.edit("train.py", '{"accuracy": settings["accuracy"]}', '{"accuracy": "very good"}')


def _no_input(tiny: Tiny) -> None:
    tiny.edit("penstock.yaml", "inputs: [unit.py]", "inputs: [unti.py]")


RED: dict[str, tuple[Callable[[Tiny], None], str]] = {
    "a red test": (_red_test, "stopped at step unit: exit code 1"),
    "a test that is killed": (_killed, "stopped at step unit: (was killed by signal 9|exit code 137)"),
    "a test that takes too long": (_timeout, "stopped at step unit: took longer than its timeout of 0.5 s"),
    "a red gate": (_red_gate, "stopped at gate accurate: 0.5 is below 0.8"),
    "a syntax error": (_syntax, "stopped at step check: .* does not compile"),
    "a crashing server": (_crash, "stopped at step serve: ended before it was healthy: exit code 1"),
    "a server that is never healthy": (_never, "stopped at step serve: did not answer /health with 200 within 2 s"),
    "a server that answers 503": (_not_200, "stopped at step serve: did not answer /health with 200 within 1 s"),
    "an output that is not written": (_no_output, "stopped at step train: .*vocabulary.txt"),
    "metrics that are not written": (_no_metrics, "stopped at step train: .*metrics.json"),
    "metrics that are no numbers": (_bad_metrics, "stopped at step train: .*metrics.json"),
    "an input that names nothing": (_no_input, 'stopped at step check: .*input "unti.py" names no file'),
}
ERRORED = {"metrics that are no numbers"}
GROUPS = {
    "in its tests": [what for what in RED if "test" in what or "gate" in what or "syntax" in what],
    "in its server": [what for what in RED if "server" in what],
    "in its files": [what for what in RED if "written" in what or "numbers" in what or "input" in what],
}


def test_every_fault_is_in_a_group() -> None:
    """The groups leave none out; each tries its faults one after another, as each first release takes seconds."""
    assert sorted(what for group in GROUPS.values() for what in group) == sorted(RED)


@pytest.mark.parametrize("group", GROUPS)
def test_a_red_run_leaves_production_as_it_was(served: Tiny, group: str) -> None:
    """Whatever is red: exit code 1 (3 where we could not tell), one sentence, the old version answers, nothing new."""
    before, live = served.serving("production"), set(served.command.processes())
    for what in GROUPS[group]:
        change, words = RED[what]
        change(served)
        served.commit(what)
        said = served("run", code=3 if what in ERRORED else 1)
        assert "production still serves" in sentence(said.out, words), what
        assert served.serving("production") == before is not None, what
        assert served.serving("staging") == before, what
        assert set(served.command.processes()) == live, what
        served.repo.git("reset", "--quiet", "--hard", "HEAD~1")


def test_a_syntax_error_is_named_with_file_and_line(tiny: Tiny) -> None:
    """The log's end in the summary says where the file does not compile."""
    _syntax(tiny)
    tiny.commit()
    sentence(tiny("run", code=1).out, r"unit\.py:2:\d+: invalid syntax")


@pytest.mark.parametrize(
    ("place", "trouble", "words"),
    [
        ("production", 'sys.exit("no database")\n', r"its server ended \d+ times .* exit code 1.*no database"),
        ("staging", "__import__('time').sleep(3600)\n", "replica 1 of 1 did not answer /health with 200 within 2 s"),
    ],
    ids=["crashes in production", "never healthy in staging"],
)
def test_a_release_that_does_not_become_healthy_is_rejected(served: Tiny, place: str, trouble: str, words: str) -> None:
    """A server that fails only in one environment: exit code 1, and that environment keeps what it had."""
    before, live = served.serving("production"), set(served.command.processes())
    if place == "staging":
        served.edit("penstock.yaml", "start_timeout: 20s", "start_timeout: 2s")
    served.edit("serve.py", HTTP, ONLY_IN.format(place, trouble) + HTTP)
    served.commit("fails somewhere")
    run = served.run(code=1)
    rejected = next(r for r in run["releases"] if r["environment"] == place)
    assert rejected["status"] in {"rejected", "refused"}
    assert sentence(rejected["reason"], words)
    assert served.serving("production") == before
    assert served.serving("staging") == (before if place == "staging" else run["version"])
    new = {pid: text for pid, text in served.command.processes().items() if pid not in live}
    assert [text for text in new.values() if f"PENSTOCK_ENVIRONMENT={place}" in text] == []


def test_a_run_that_ended_red_is_told_on_stderr_in_one_line(tiny: Tiny) -> None:
    """Without a terminal stderr is plain lines, and its last one is the run with its reason."""
    _red_test(tiny)
    tiny.commit()
    said = tiny("run", code=1)
    assert said.err.splitlines()[-1].startswith("run 1  failed  ")
    assert said.err.splitlines()[-1].endswith("step unit failed")
    assert "\x1b" not in said.all


# --- refusals: exit code 2 before anything ran


def _refused(tiny: Tiny, *arguments: str) -> Said:
    """`run`, refused; production answers as before and no process is new."""
    before, live = tiny.serving("production"), set(tiny.command.processes())
    said = tiny("run", *arguments, code=2)
    assert tiny.serving("production") == before
    assert set(tiny.command.processes()) == live
    return said


def test_a_missing_commit_is_refused(served: Tiny) -> None:
    """`--ref nope` says that there is no such branch, tag or commit."""
    _refused(served, "--ref", "nope").refuses('no branch, tag or commit named "nope"')


def test_an_uncommitted_pipeline_file_is_refused(tiny: Tiny) -> None:
    """A penstock.yaml that lies there but is in no commit: commit it, or use --worktree."""
    tiny.repo.git("rm", "--quiet", "--cached", "penstock.yaml")
    tiny.repo.git("commit", "--quiet", "-m", "without the file")
    _refused(tiny).refuses("penstock.yaml is not committed: commit it, or use --worktree")


def test_a_pipeline_file_that_is_nowhere_is_refused(tiny: Tiny) -> None:
    """A repository without the file is told of init and --file."""
    tiny.repo.git("rm", "--quiet", "penstock.yaml")
    tiny.repo.git("commit", "--quiet", "-m", "without the file")
    _refused(tiny).refuses("has no penstock.yaml", "penstock init", "--file")


def test_all_problems_of_a_pipeline_file_are_refused_at_once(served: Tiny) -> None:
    """Two mistakes of a committed file: two lines with position and hint, exit code 2."""
    served.edit("penstock.yaml", "inputs: [evaluate.py]", "input: [evaluate.py]")
    served.edit("penstock.yaml", "needs: staging", "needs: stagign")
    served.commit("mistakes")
    lines = _refused(served).err.splitlines()
    assert len(lines) == 2
    assert "penstock.yaml:9:" in lines[0]
    assert "inputs" in lines[0]
    assert "penstock.yaml:19:" in lines[1]
    assert "staging" in lines[1]


def test_what_does_not_exist_is_refused(tiny: Tiny) -> None:
    """A step, environment, file or place that is not there: one sentence that names it, and often what there is."""
    wrong = {
        ("--step", "nope"): ['no step "nope"', "train"],
        ("--to", "nope"): ['no environment "nope"', "staging"],
        ("--file", "nope.yaml"): ["nope.yaml"],
        ("--file", "../penstock.yaml"): ["not a path inside the repository"],
        ("--ref", "main", "--worktree"): ["exclude each other"],
        ("nowhere",): ["nowhere"],
    }
    for arguments, words in wrong.items():
        tiny("run", *arguments, code=2).refuses(*words)
    assert tiny("runs", "--json").json == []


def test_a_folder_without_a_repository_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """Outside of git there is no commit to run."""
    (tmp_path / "empty").mkdir()
    tiny.command("run", cwd=tmp_path / "empty").refuses("git")


def test_a_repository_without_a_commit_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """A repository that was just made has no commit either."""
    tiny.repo.git("init", "--quiet", str(tmp_path / "new"))
    tiny.command("run", cwd=tmp_path / "new").refuses("commit")


def test_a_taken_port_is_one_sentence(tiny: Tiny) -> None:
    """Another program on the environment's port: the run fails or errs, and says which port."""
    with socket.create_server(("127.0.0.1", tiny.ports["staging"])):
        said = tiny("run", code=None)
    assert said.code in {1, 3}
    assert str(tiny.ports["staging"]) in sentence(said.out, "stopped|not released|refused|rejected")
