"""Gates on evidence by the real command: compared with the champion, planned, and rehearsed."""

from acceptance.tiny import Tiny

EVALUATE = """\
import json
import os

with open(f"{os.environ['PENSTOCK_PACKAGE']}/model/weights.json") as file:
    wrong = round((1 - json.load(file)["accuracy"]) * 500)
with open("answers.csv", "w") as file:
    file.write("id,truth,prediction\\n")
    file.writelines(f"{n},a,{'b' if n < wrong else 'a'}\\n" for n in range(500))
with open("served.json", "w") as file:
    file.write("{}")
"""
GATE = "  steady: {evidence: evaluate, not_worse_than: champion, margin: 0.03}\n"


def compared(tiny: Tiny) -> None:
    tiny.edit("penstock.yaml", "metrics: served.json", "metrics: served.json, evidence: answers.csv")
    tiny.edit("penstock.yaml", "environments:\n", f"{GATE}environments:\n")
    tiny.repo.put("evaluate.py", EVALUATE)
    tiny.commit("evidence")


def test_a_release_is_held_against_the_one_before(tiny: Tiny) -> None:
    """The first passes with a warning, a better one is released, a worse one stops with a sentence and a chart."""
    compared(tiny)
    first = tiny.run()
    assert first["gates"][1]["reasons"][0].startswith("warning: 0.9 was compared with nothing")
    tiny.commit("better", accuracy=0.95)
    better = tiny.run()
    assert [gate["verdict"] for gate in better["gates"]] == ["pass", "pass"]
    tiny.commit("worse", accuracy=0.85)
    worse = tiny.run(code=1)
    gate = worse["gates"][1]
    assert (gate["verdict"], gate["value"], gate["chart"]["n"]) == ("fail", 0.85, 500)
    assert gate["reasons"][0].startswith(f"10.0 points worse than {better['version']} on the same 500 examples")
    assert tiny.serving("production") == better["version"]
    shown = tiny("show", "3").out
    assert "are beyond a loss of 3 points: fail" in " ".join(shown.split())
    assert "├" in shown
    (plan,) = tiny("gate", "--plan", "--json").json
    assert (plan["gate"], plan["at_hand"], plan["supposed"]) == (
        "steady",
        500,
        "10 % of answers differ and both are as good",
    )
    assert plan["sentence"].split(" if ")[0] in " ".join(tiny("gate", "--plan").out.split())
    (rehearsed,) = tiny("gate", "--self-test", "--json").json
    assert (rehearsed["rounds"], rehearsed["flip_rate"] <= 0.065, round(rehearsed["alpha"], 6)) == (2000, True, 0.05)
    assert "promised at most 5 %" in " ".join(tiny("gate", "--self-test").out.split())


SLICED = """\
import json
import os
import sys

with open(f"{sys.argv[1]}/weights.json") as file:
    settings = json.load(file)
with open("answers.csv", "w") as file:
    file.write("id,truth,prediction,digit\\n")
    for n in range(600):
        bad = 18 if n % 6 < 5 else round(settings["wrong"] * 100)
        file.write(f"{n},1,{1 if n // 6 >= bad else 0.5},{n % 6}\\n")
with open("served.json", "w") as file:
    file.write("{}")
"""
GATES = """\
  each: {evidence: evaluate, score: absolute_error, at_most: 0.12, slices: digit}
  steady:
    {evidence: evaluate, score: absolute_error, not_worse_than: champion, margin: 5%, slices: {by: digit, judge: worst}}
  parity: {evidence: evaluate, same_as: trained, tolerance: 0.0001}
  either:
    any_of:
      - {metric: train.accuracy, at_least: 0.99}
      - {evidence: evaluate, score: absolute_error, not_worse_than: champion, margin: 0.01}
environments:
"""


def test_slices_members_and_parity_are_judged(tiny: Tiny) -> None:
    """A model that is worse in one slice is stopped by that, though its package answers as what was trained."""
    tiny.edit("train.py", 'json.dump({"accuracy": settings["accuracy"]}, file)', 'json.dump({"accuracy": 0.9}, file)')
    tiny.edit("penstock.yaml", "metrics: served.json", "metrics: served.json, evidence: answers.csv")
    tiny.edit("penstock.yaml", "run: python evaluate.py", "run: python evaluate.py $PENSTOCK_PACKAGE/model")
    trained = (
        "  trained: {run: python evaluate.py model, inputs: [evaluate.py, model/], evidence: answers.csv}\npackage:\n"
    )
    tiny.edit("penstock.yaml", "package:\n  model", f"{trained}  model")
    tiny.edit("penstock.yaml", "environments:\n", GATES)
    tiny.repo.put("evaluate.py", SLICED)
    tiny.commit("slices", wrong=0.18)
    first = tiny.run()
    assert [gate["verdict"] for gate in first["gates"]] == ["pass"] * 5
    assert first["gates"][1]["reasons"][0] == "all 6 slices by digit pass"
    assert first["gates"][3]["reasons"] == [
        "all 600 examples of both have the same prediction, none off by more than 0.0001"
    ]
    tiny.commit("worse in one", wrong=0.6)
    worse = tiny.run(code=1)
    _, each, steady, parity, either = worse["gates"]
    assert (each["verdict"], parity["verdict"], either["verdict"]) == ("fail", "pass", "fail"), worse["gates"]
    assert each["reasons"][0] == "of 6 slices by digit 1 fails, 5 pass: fail"
    assert (steady["verdict"], steady["chart"]["slice_of"], steady["chart"]["n"]) == ("fail", "digit=5", 100)
    assert "worse than the 0.09 of" in steady["reasons"][1]
    assert either["reasons"][1] == "1. train.accuracy at least 0.99: fail (0.9 is below 0.99)"
    shown = " ".join(tiny("show", "2").out.split())
    assert "the worst of 6 slices by digit is digit=5" in shown
    plans = tiny("gate", "--plan", "--json").json
    assert [(plan["gate"], plan["slices"], plan["smallest"]) for plan in plans] == [
        ("steady", 6, "digit=0"),
        ("either.2", 0, None),
    ]
    rehearsed = tiny("gate", "--self-test", "--json").json
    assert all(row["flip_rate"] <= row["alpha"] + 0.03 for row in rehearsed)


def test_an_enforced_budget_hides_plans_and_tests(tiny: Tiny) -> None:
    """Nothing that depends on scores is told: what is supposed is made up, and says so."""
    compared(tiny)
    tiny.edit("penstock.yaml", "margin: 0.03}", "margin: 0.03, reuse: enforce}")
    tiny.commit("enforced")
    tiny.run()
    tiny.commit("another", accuracy=0.8)
    tiny.run(code=1)
    (plan,) = tiny("gate", "--plan", "--json").json
    assert (plan["at_hand"], "5 % of answers differ (supposed: reuse: enforce" in plan["sentence"]) == (500, True)
    (rehearsed,) = tiny("gate", "--self-test", "--json").json
    assert (rehearsed["made_up"], round(rehearsed["alpha"], 5)) == (True, 0.00338)


def test_there_may_be_nothing_to_say(tiny: Tiny) -> None:
    """A file whose gates no interval decides, and a project without evidence, are told so; one of two is asked for."""
    assert "no gate of the file is decided by an interval" in tiny("gate", "--plan").out
    tiny("gate", code=2).refuses("needs either --plan or --self-test")
    compared(tiny)
    assert "there is no evidence of this project yet" in tiny("gate", "--self-test").out
    assert "nothing is known" in tiny("gate", "--plan").out
