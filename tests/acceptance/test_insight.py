"""`insight` on a project with passing and failing runs: what it counts, and what it says in words and as an object."""

import pytest

from acceptance.tiny import Tiny
from docs.test_docs import first_cells_of_keys, keys, page, section
from penstock.reliability import PREDICTORS, learned


def test_a_home_without_runs_says_so(tiny: Tiny) -> None:
    """Before the first run there is no project to say anything about."""
    tiny("insight", code=2).refuses("--project", "penstock run makes one")


def test_what_history_says(tiny: Tiny) -> None:
    """Each commit counts once at the stage where it ended; drafts, single steps and reruns do not add to it."""
    tiny("run", "--to", "staging")
    sound = (tiny.repo.folder / "serve.py").read_text()
    tiny.repo.put("serve.py", "def broken(:\n")
    tiny.commit("code that does not compile")
    tiny("run", "--no-deploy", code=1)
    tiny.repo.put("serve.py", sound)
    tiny.commit("a spoiled model", accuracy=0.5)
    tiny("run", "--no-deploy", code=1)
    tiny("rerun", "3", code=1)
    tiny.repo.put("unit.py", "raise SystemExit(1)\n")
    tiny("run", "--worktree", "--no-deploy", code=1)
    tiny.commit("all is well", accuracy=0.95)
    tiny("run", "--step", "train")
    found = tiny("insight", "--json").json
    counted = {s["stage"]: (s["passed"], s["total"]) for s in found["stages"]}
    assert counted == {"code": (2, 3), "build": (2, 2), "test": (1, 2), "deploy": (1, 1)}
    assert (found["project"], found["commits"]) == ("tiny", 3)
    assert found["forecast"]["stages"] == ["code", "build", "test"]
    assert found["foretold"] == 0
    assert found["calibration"] == []
    shown = tiny("insight").out
    for words in ("2 of 3", "1 of 2", "to pass code, build and test", "0 foretold, 10 are needed", "train"):
        assert words in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_object_is_documented(tiny: Tiny) -> None:
    """`insight --json` has exactly the documented keys, judged forecasts among them, and its chances fit the runs."""
    tiny.run("--no-deploy")
    for number in range(15):
        tiny.repo.put("unit.py", f"# {number}\nraise SystemExit({int(number % 4 == 3)})\n")
        tiny.commit(f"change {number}")
        tiny("run", "--no-deploy", code=None)
    found = tiny("insight", "--json", "--project", "tiny").json
    assert first_cells_of_keys(section(page("docs/commands.md"), "The insight object")) == list(keys(found))
    assert [row["name"] for row in found["calibration"]] == list(PREDICTORS)
    assert found["foretold"] == 11
    assert all(row["covered"] <= row["blocks"] == 1 for row in found["calibration"])
    test = found["stages"][2]
    assert (test["passed"], test["total"]) == (13, 16)
    assert test["low"] < test["estimate"] < test["high"]
    assert found["forecast"]["low"] < found["forecast"]["estimate"] < found["forecast"]["high"]
    assert found["product"] < learned([]).product
    assert found["stages"][3]["estimate"] == pytest.approx(0.99)
    assert {row["step"] for row in found["durations"]} >= {"unit", "evaluate"}
    shown = tiny("insight").out
    for words in (*PREDICTORS, "11 foretold", "failures in 10 within bounds", "(the prior)"):
        assert words in shown
