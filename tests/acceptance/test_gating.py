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


def test_there_may_be_nothing_to_say(tiny: Tiny) -> None:
    """A file whose gates no interval decides, and a project without evidence, are told so; one of two is asked for."""
    assert "no gate of the file is decided by an interval" in tiny("gate", "--plan").out
    tiny("gate", code=2).refuses("needs either --plan or --self-test")
    compared(tiny)
    assert "there is no evidence of this project yet" in tiny("gate", "--self-test").out
    assert "nothing is known" in tiny("gate", "--plan").out
