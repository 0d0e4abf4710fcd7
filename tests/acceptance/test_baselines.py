"""Baselines by the real command: by branch and environment, fixed, lowered by approvals that survive kill -9."""

import json
from typing import Any

import pytest

from acceptance.tiny import Tiny, make

STEPS = """\
name: tiny
variables: {SEED: 7}
steps:
  train: {run: python train.py, inputs: [train.py, settings.json], outputs: [model/], metrics: metrics.json}
gates:
"""
APPROVE = ("baseline", "approve", "learned", "--to", "0.85", "--reason", "a harder test set")


def gates(tiny: Tiny, **named: str) -> None:
    """A file of one step, with these gates on its accuracy."""
    lines = "".join(f"  {name}: {{metric: train.accuracy, margin: 0.02, {rule}}}\n" for name, rule in named.items())
    tiny.repo.put("penstock.yaml", STEPS + lines)


def reasons(run: dict[str, Any]) -> str:
    return "\n".join(reason for gate in run["gates"] for reason in gate["reasons"])


def test_branches_red_runs_and_working_trees(tiny: Tiny) -> None:
    """Only what passed of what was committed is compared with, and the command says what stands and where from."""
    gates(tiny, steady='not_worse_than: "branch:main"', before="not_worse_than: previous")
    tiny.commit(accuracy=0.9)
    first = tiny.run()
    assert reasons(first).count("was compared with nothing, because there is no run") == 2
    tiny.commit(accuracy=0.5)
    assert tiny.run(code=1)["status"] == "failed"
    tiny.repo.put("settings.json", json.dumps({"accuracy": 0.99}))
    assert tiny.run("--worktree")["status"] == "passed"
    tiny.repo.git("checkout", "--quiet", "settings.json")
    tiny.repo.git("switch", "--quiet", "-c", "aside")
    tiny.commit(accuracy=0.97)
    aside = tiny.run()
    assert f"branch main ({first['version']}) has 0.9, less" in reasons(aside)
    assert f"the run before ({first['version']}) has 0.9, less" in reasons(aside)
    rows = {row["gate"]: row for row in tiny("baseline", "--json").json}
    assert (rows["steady"]["run"], rows["steady"]["value"], rows["steady"]["version"]) == (1, 0.9, first["version"])
    assert rows["steady"]["commit"] == first["commit"]
    assert rows["steady"]["seeds"] == {"PENSTOCK_SEED": "0", "SEED": "7"}
    assert rows["steady"]["hardware"]["cpus"] >= 1
    assert rows["before"]["version"] == aside["version"]
    shown = tiny("baseline").out
    assert f"branch main ({first['version']}) has 0.9, run 1, commit {first['commit'][:7]}" in shown


def test_a_fixed_number_is_lowered_by_an_approval(tiny: Tiny) -> None:
    """Raised by itself, lowered only after somebody approved it, and every change is on record."""
    gates(tiny, learned="not_worse_than: {fixed: 0.9, source: a paper}")
    tiny.commit(accuracy=0.93)
    tiny.run()
    gates(tiny, learned="not_worse_than: {fixed: 0.85}")
    tiny.commit(accuracy=0.84)
    stopped = tiny.run(code=1)
    assert "0.84 is below 0.88: the approved baseline is 0.9 (a paper), less the margin of 0.02" in reasons(stopped)
    assert "penstock baseline approve learned --to 0.85 --reason TEXT" in reasons(stopped)
    assert "the file says 0.85, which is not approved" in tiny("baseline").out
    said = tiny(*APPROVE)
    assert "the file may lower gate learned from 0.9 to 0.85" in said.out
    assert tiny.run("--no-cache")["status"] == "passed"
    record = tiny("baseline", "history", "learned", "--json").json
    assert [(change["event"], change["before"], change["value"]) for change in record] == [
        ("set", None, 0.9),
        ("approved", 0.9, 0.85),
        ("lowered", 0.9, 0.85),
    ]
    assert record[1]["reason"] == "a harder test set"
    assert record[1]["actor"] == record[0]["actor"] != ""
    assert "a harder test set" in tiny("baseline", "history").out


@pytest.mark.parametrize(("when", "code"), [("before_commit", 0), ("after_commit", 2)])
def test_an_approval_is_made_once_whenever_it_is_killed(tiny: Tiny, when: str, code: int) -> None:
    """Killed before its record is written it did not happen, killed after it did: asking again leaves one record."""
    gates(tiny, learned="not_worse_than: {fixed: 0.9}")
    tiny.commit(accuracy=0.93)
    tiny.run()
    tiny(*APPROVE, code=-9, PENSTOCK_CRASH=f"baseline.approved:{when}")
    again = tiny(*APPROVE, code=code)
    assert ("approved for gate learned already" in again.err) is (code == 2)
    record = tiny("baseline", "history", "--json").json
    assert [change["event"] for change in record] == ["set", "approved"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("approve", "learned", "--to", "0.95", "--reason", "x"), "0.95 is not below 0.9"),
        (("approve", "lerned", "--to", "0.5", "--reason", "x"), "there is learned"),
        (("approve", "learned", "--to", "nan", "--reason", "x"), "needs a number and a reason"),
        (("approve", "learned", "--to", "0.5", "--reason", " \n"), "needs a number and a reason"),
        (("history", "lerned"), "there is learned"),
        (("--project", "none"), 'no project "none"'),
    ],
)
def test_mistakes_get_one_sentence(fixed: Tiny, arguments: tuple[str, ...], words: str) -> None:
    """What cannot be approved or shown is refused in words that help."""
    fixed("baseline", *arguments, code=2).refuses(words)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A project in which 0.9 stands."""
    tiny = make(tmp_path_factory.mktemp("fixed"))
    gates(tiny, learned="not_worse_than: {fixed: 0.9}")
    tiny.commit(accuracy=0.93)
    tiny.run()
    return tiny


def test_before_there_is_anything(tiny: Tiny) -> None:
    """A home without runs, and a file without baselines, are told as such."""
    tiny("baseline", code=2).refuses("penstock run makes one")
    gates(tiny, plain="at_least: 0.5")
    tiny.edit("penstock.yaml", "margin: 0.02, ", "")
    tiny.commit()
    tiny.run()
    assert "no gate of the file compares with a baseline" in tiny("baseline").out
    assert "no fixed baseline stands yet" in tiny("baseline", "history").out


def test_each_environment_has_a_champion_of_its_own(tiny: Tiny) -> None:
    """What serves in staging is not what serves in production."""
    rules = "\n".join(
        f"  {name}: {{metric: train.accuracy, not_worse_than: {champion}, margin: 0.02}}"
        for name, champion in {"near": '"champion:staging"', "far": "champion"}.items()
    )
    tiny.edit("penstock.yaml", "environments:", f"{rules}\nenvironments:")
    tiny.commit(accuracy=0.9)
    first = tiny.run()
    tiny.commit(accuracy=0.95)
    second = tiny.run("--to", "staging")
    tiny.commit(accuracy=0.92)
    third = tiny.run("--no-deploy", code=1)
    verdicts = {gate["name"]: (gate["verdict"], gate["reasons"][0]) for gate in third["gates"]}
    assert verdicts["near"][0] == "fail"
    assert f"the champion {second['version']} of staging has 0.95" in verdicts["near"][1]
    assert verdicts["far"][0] == "pass"
    assert f"the champion {first['version']} has 0.9" in verdicts["far"][1]
