"""The champion is asked anew where it has no evidence on the test set, served by a process of its own."""

import os
import signal

from acceptance.tiny import Signal, Tiny

ASK = """\
import json
import os
import urllib.request

with open("asked.json") as file:
    count = json.load(file)["count"]
with urllib.request.urlopen(os.environ["PENSTOCK_URL"], timeout=10) as answer:
    wrong = round((1 - json.load(answer)["accuracy"]) * count)
with open(f"{os.environ['PENSTOCK_PACKAGE']}/model/weights.json") as file:
    assert json.load(file)["accuracy"] == 1 - wrong / count
with open("answers.csv", "w") as file:
    file.write("id,truth,prediction\\n")
    file.writelines(f"{n},a,{'b' if n < wrong else 'a'}\\n" for n in range(count))
"""
EVALUATE = "{needs: package, run: python evaluate.py, inputs: [evaluate.py, asked.json], evidence: answers.csv}"
GATE = "  steady: {evidence: evaluate, not_worse_than: champion, margin: 0.03}\n"


def compared(tiny: Tiny) -> None:
    tiny.edit(
        "penstock.yaml",
        "{needs: package, run: python evaluate.py, inputs: [evaluate.py], metrics: served.json}",
        EVALUATE,
    )
    tiny.edit("penstock.yaml", "environments:\n", f"{GATE}environments:\n")
    tiny.repo.put("evaluate.py", ASK)
    tiny.repo.put("asked.json", '{"count": 500}\n')
    tiny.commit("evidence")


def steps(tiny: Tiny, run: int) -> dict[str, tuple[str, str]]:
    found = tiny("show", str(run), "--json").json["steps"]
    return {step["name"]: (step["status"], step["reason"] or "") for step in found}


def test_the_champion_is_asked_on_a_new_test_set(tiny: Tiny) -> None:
    """Nobody is asked before the first release, nor where the answers are known; on a new test set the champion is.

    Its step runs with its own package and replica, what it answered is kept, and it is no decision on the test set.
    """
    compared(tiny)
    first = tiny.run()
    assert steps(tiny, 1)["evaluate.champion"] == ("skipped", "there is nothing to ask: there is no champion yet")
    tiny.commit("better", accuracy=0.95)
    better = tiny.run()
    assert steps(tiny, 2)["evaluate.champion"][1].endswith(f"{first['version']} has answered this test set before")
    tiny.repo.put("asked.json", '{"count": 600}\n')
    tiny.commit("a new test set", accuracy=0.96)
    third = tiny.run()
    found = steps(tiny, 3)
    assert found["evaluate.champion"][0] == "passed"
    assert found["serve.champion"][0] == "passed"
    reasons = third["gates"][1]["reasons"]
    assert f"1.0 points better than {better['version']} on the same 600 examples" in reasons[0]
    assert "decision 1 on this test set" in reasons
    assert "evaluate.champion" in tiny("plan").out
    tiny.commit("worse", accuracy=0.80)
    reasons = tiny.run(code=1)["gates"][1]["reasons"]
    assert f"16.0 points worse than {third['version']}" in reasons[0]
    assert "decision 2 on this test set" in reasons


def test_the_same_package_asks_nobody(tiny: Tiny) -> None:
    """A commit that changes nothing of the package is as good as the champion, on any test set."""
    compared(tiny)
    first = tiny.run()
    tiny.repo.put("asked.json", '{"count": 700}\n')
    tiny.commit("a new test set")
    assert tiny.run()["gates"][1]["verdict"] == "pass"
    assert steps(tiny, 2)["evaluate.champion"] == (
        "skipped",
        f"the same package as the champion {first['version']}",
    )


def test_a_champion_that_cannot_answer_makes_it_inconclusive(tiny: Tiny) -> None:
    """Where the step fails with the champion only, that warns, and the gate says that it could not be asked."""
    compared(tiny)
    first = tiny.run()
    tiny.repo.put("evaluate.py", ASK.replace("import json\n", "import json\nimport sys\n", 1) + CHOOSY)
    tiny.commit("needs more", accuracy=0.95)
    run = tiny.run(code=1)
    assert steps(tiny, 2)["evaluate.champion"][0] == "warned"
    gate = run["gates"][1]
    assert (gate["verdict"], run["status"]) == ("inconclusive", "failed")
    assert f"champion {first['version']} could not be asked (evaluate.champion: exit code 7)" in gate["reasons"][0]


CHOOSY = """\
if wrong == round(0.1 * count):
    sys.exit(7)
with open("answers.csv", "a") as file:
    file.write("more,a,a\\n")
"""


def test_asking_survives_the_death_of_the_command(tiny: Tiny) -> None:
    """Killed while the champion is being asked, the run goes on by resume and decides once."""
    compared(tiny)
    tiny.run()
    began, go = Signal.make(tiny, "began"), Signal.make(tiny, "go")
    waits = f"if wrong == round(0.1 * count):\n    {began.given()}    {go.awaited()}"
    tiny.repo.put("evaluate.py", f"{ASK}{waits}")
    tiny.repo.put("asked.json", '{"count": 800}\n')
    tiny.commit("a new test set", accuracy=0.95)
    command = tiny.command.start("run", cwd=tiny.repo.folder)
    began.wait()
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    go.give()
    tiny("resume")
    run = tiny("show", "2", "--json").json
    assert (run["status"], run["gates"][1]["verdict"]) == ("passed", "pass")
    assert "decision 1 on this test set" in run["gates"][1]["reasons"]
    assert steps(tiny, 2)["evaluate.champion"][0] == "passed"


def test_a_champion_is_asked_in_the_same_way(tiny: Tiny) -> None:
    """Answers to another script are no evidence: where the asking has changed the champion is asked anew with it."""
    compared(tiny)
    tiny.run()
    tiny.repo.put("evaluate.py", ASK.replace("n < wrong", "n < wrong - 50"))
    tiny.commit("lenient", accuracy=0.80)
    gate = tiny.run(code=1)["gates"][1]
    assert steps(tiny, 2)["evaluate.champion"][0] == "passed"
    assert (gate["value"], gate["reasons"][0].startswith("10.0 points worse than")) == (0.9, True)


def test_who_was_asked_is_who_is_compared_with(tiny: Tiny) -> None:
    """A champion that comes while a run is interrupted is not taken for the one whose answers the run has."""
    compared(tiny)
    first = tiny.run()
    began, go = Signal.make(tiny, "began"), Signal.make(tiny, "go")
    waits = f"if wrong == round(0.1 * count):\n    {began.given()}    {go.awaited()}"
    tiny.repo.put("evaluate.py", f"{ASK}{waits}")
    tiny.commit("slow to ask", accuracy=0.91)
    command = tiny.command.start("run", cwd=tiny.repo.folder)
    began.wait()
    command.send_signal(signal.SIGINT)
    go.give()
    command.communicate()
    tiny.repo.put("evaluate.py", ASK)
    tiny.commit("a better one", accuracy=0.99)
    tiny.run()
    go.give()
    tiny("resume", code=None)
    gate = tiny("show", "2", "--json").json["gates"][1]
    assert f"1.0 points better than {first['version']}" in gate["reasons"][0]


def test_a_damaged_champion_is_no_fault_of_the_commit(tiny: Tiny) -> None:
    """Where the champion's package cannot be laid out that warns, and the gate says that nobody could be asked."""
    compared(tiny)
    tiny.edit("penstock.yaml", "margin: 0.03", "margin: 0.03, inconclusive: warn")
    tiny.commit("warn")
    tiny.run()
    for blob in (tiny.command.home / "cache" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes() == b'{"accuracy": 0.9}':
            blob.chmod(0o644)
            blob.write_bytes(b"x" * 17)
    tiny.repo.put("asked.json", '{"count": 800}\n')
    tiny.commit("a new test set", accuracy=0.95)
    run = tiny.run()
    assert (run["status"], run["gates"][1]["verdict"]) == ("passed", "inconclusive")
    assert steps(tiny, 2)["serve.champion"][0] == "warned"
    assert "could not be asked (evaluate.champion: " in run["gates"][1]["reasons"][0]


def test_a_rerun_asks_again_what_could_not_be_asked(tiny: Tiny) -> None:
    """A rerun of what failed takes no warning of the champion's over: it asks."""
    compared(tiny)
    tiny.run()
    hindered = tiny.command.home.parent / "hindered"
    hindered.touch()
    stops = f"if wrong == round(0.1 * count) and os.path.exists({str(hindered)!r}):\n    raise SystemExit(7)\n"
    tiny.repo.put("evaluate.py", f"{ASK}{stops}")
    tiny.repo.put("asked.json", '{"count": 800}\n')
    tiny.commit("a new test set", accuracy=0.95)
    tiny.run(code=1)
    assert steps(tiny, 2)["evaluate.champion"] == ("warned", "exit code 7")
    hindered.unlink()
    tiny("rerun", "2", "--failed")
    assert steps(tiny, 3)["evaluate.champion"][0] == "passed"
