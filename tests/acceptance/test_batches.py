"""Evidence in batches by the real command: asked until every verdict stands, and not a batch more."""

import os
import signal

from acceptance.tiny import Signal, Tiny

ASK = """\
import json
import os

with open(f"{os.environ['PENSTOCK_PACKAGE']}/model/weights.json") as file:
    right = json.load(file)["accuracy"] * 1000
with open(os.environ["PENSTOCK_BATCH"]) as file:
    ids = file.read().split()
with open("predictions.csv", "w") as file:
    file.write("id,prediction\\n")
    file.writelines(f"{one},{'a' if int(one) * 37 % 1000 < right else 'b'}\\n" for one in ids)
print(f"asked {len(ids)}")
"""
STEP = (
    "{needs: package, run: python evaluate.py, inputs: [evaluate.py, truth.csv], "
    "evidence: {predictions: predictions.csv, truth: truth.csv, batch: 100, at_most: 2000}}"
)
GATES = """\
  good: {evidence: evaluate, at_least: 0.7, confidence: 0.95}
  steady: {evidence: evaluate, not_worse_than: champion, margin: 0.05}
"""


def batched(tiny: Tiny) -> None:
    tiny.edit(
        "penstock.yaml", "{needs: package, run: python evaluate.py, inputs: [evaluate.py], metrics: served.json}", STEP
    )
    tiny.edit("penstock.yaml", "environments:\n", f"{GATES}environments:\n")
    tiny.repo.put("evaluate.py", ASK)
    tiny.repo.put("truth.csv", "id,truth\n" + "".join(f"{n},a\n" for n in range(4000)))
    tiny.commit("batches")


def step(tiny: Tiny, run: int, name: str = "evaluate") -> tuple[str, str, int]:
    found = next(s for s in tiny("show", str(run), "--json").json["steps"] if s["name"] == name)
    return found["status"], found["reason"] or "", found["attempts"]


def test_no_more_is_asked_than_decides(tiny: Tiny) -> None:
    """A clear level stops after the first batches; the champion is asked once for all; a worse model stops early."""
    batched(tiny)
    first = tiny.run()
    status, reason, attempts = step(tiny, 1)
    asked = 100 * attempts
    assert (status, attempts < 10) == ("passed", True)
    assert reason == f"every verdict stands after {asked:,} examples: {2000 - asked:,} were spared"
    assert f"on the first {asked:,} of 4,000 examples in drawn order" in first["gates"][1]["reasons"][0]
    assert first["gates"][2]["reasons"][0].startswith("warning")
    tiny.commit("worse", accuracy=0.75)
    worse = tiny.run(code=1)
    assert step(tiny, 2, "evaluate.champion")[:2] == (
        "passed",
        "answered 2,000 examples, for all runs that compare with it",
    )
    steady = worse["gates"][2]
    assert steady["verdict"] == "fail"
    assert "decision 2 on this test set" in steady["reasons"]
    assert f"points worse than {first['version']} on the first" in steady["reasons"][0]
    assert step(tiny, 2)[2] < 20
    tiny.commit("better", accuracy=0.95)
    assert tiny.run()["status"] == "passed"
    assert step(tiny, 3, "evaluate.champion")[1].endswith("has answered this test set before")
    log = tiny("logs", "3", "evaluate").out
    assert log.count("asked 100") == step(tiny, 3)[2]


def test_what_was_asked_is_reused_where_nothing_changed(tiny: Tiny) -> None:
    """A run of the same package against the same champion asks nobody."""
    batched(tiny)
    tiny.run()
    tiny.run()
    assert tiny.run()["gates"][2]["reasons"][0].startswith("this is the same package as")
    assert step(tiny, 3)[0] == "skipped"


def test_a_batch_left_unanswered_fails(tiny: Tiny) -> None:
    """Leaving out an example that was asked fails the step, and names it."""
    batched(tiny)
    tiny.edit("evaluate.py", "for one in ids)", "for one in ids[1:])")
    tiny.commit("lazy")
    tiny.run(code=1)
    status, reason, _ = step(tiny, 1)
    assert status == "failed"
    assert reason.startswith("left 1 of the examples that it was asked without a prediction, such as")
    assert "predict every id in the file that $PENSTOCK_BATCH names" in reason


def test_what_bets_cannot_decide_is_refused(tiny: Tiny) -> None:
    """A gate without a confidence on a step in batches is refused with its place, before anything runs."""
    batched(tiny)
    tiny.edit("penstock.yaml", "at_least: 0.7, confidence: 0.95", "at_least: 0.7")
    tiny.commit("unsure")
    said = tiny("check", code=2)
    assert 'step "evaluate" is asked in batches, so the gate needs a confidence' in said.err


def ended_in_the_third(tiny: Tiny, by: signal.Signals) -> None:
    """A run of a gate that takes long to decide, whose command is ended while it asks the third batch."""
    began, go = Signal.make(tiny, "began"), Signal.make(tiny, "go")
    waits = f"if os.environ['PENSTOCK_ATTEMPT'] == '3':\n    {began.given()}    {go.awaited()}"
    tiny.repo.put("evaluate.py", f"{ASK}{waits}")
    tiny.edit("penstock.yaml", "at_least: 0.7, confidence: 0.95", "at_least: 0.88, confidence: 0.95")
    tiny.commit("close")
    command = tiny.command.start("run", cwd=tiny.repo.folder)
    began.wait()
    command.send_signal(by)
    go.give()
    command.communicate()


def test_a_death_costs_a_batch_at_most(tiny: Tiny) -> None:
    """Killed in the third batch, the run goes on with it, and asks none of the first two again."""
    batched(tiny)
    ended_in_the_third(tiny, signal.SIGKILL)
    tiny("resume", code=None)
    status, _, attempts = step(tiny, 1)
    log = tiny("logs", "1", "evaluate").out
    assert (status, log.count("asked 100")) == ("passed", attempts)
    assert attempts > 3


def test_what_a_failed_batch_left_is_no_evidence(tiny: Tiny) -> None:
    """A step that may fail and answers only what it gets right is not judged by that."""
    batched(tiny)
    tiny.edit("penstock.yaml", "run: python evaluate.py", "allow_failure: true, run: python evaluate.py")
    tiny.edit("evaluate.py", "for one in ids)", "for one in ids if int(one) * 37 % 1000 < right)")
    tiny.commit("only what is right", accuracy=0.81)
    gates = tiny.run(code=3)["gates"]
    assert step(tiny, 1)[0] == "warned"
    assert (gates[1]["verdict"], gates[1]["reasons"]) == ("errored", ["step evaluate left no evidence to judge"])


def test_early_answers_are_not_all(tiny: Tiny) -> None:
    """Where batches are given up the champion, which stopped early, is asked all that it has not answered."""
    batched(tiny)
    both = ASK.replace('os.environ["PENSTOCK_BATCH"]', 'os.environ.get("PENSTOCK_BATCH", "truth.csv")')
    tiny.repo.put("evaluate.py", both.replace(".split()", ".replace(',a', '').replace('id,truth', '').split()"))
    tiny.commit("either way")
    tiny.run()
    tiny.edit("penstock.yaml", ", batch: 100, at_most: 2000", "")
    tiny.commit("at once", accuracy=0.92)
    run = tiny.run()
    assert step(tiny, 2, "evaluate.champion")[0] == "passed"
    assert "on the same 4,000 examples" in run["gates"][2]["reasons"][0]


def test_gc_keeps_the_batches_of_an_open_run(tiny: Tiny) -> None:
    """Interrupted in the third batch and swept, the run goes on with the two that it has."""
    batched(tiny)
    ended_in_the_third(tiny, signal.SIGINT)
    for blob in (tiny.command.home / "cache" / "blobs").rglob("*"):
        if blob.is_file():
            os.utime(blob, (1, 1))
    tiny("gc")
    tiny("resume", code=None)
    status, reason, _ = step(tiny, 1)
    assert status == "passed", reason
    assert tiny("logs", "1", "evaluate").out.count("=== evaluate (attempt") > 3
