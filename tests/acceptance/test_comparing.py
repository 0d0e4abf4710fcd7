"""`compare` and `report`: what differs between two runs, and a run as it is shown to other people."""

from typing import Any

from acceptance.test_batches import batched
from acceptance.tiny import Tiny
from docs.test_docs import first_cells_of_keys, keys, page, section


def test_two_versions_side_by_side(tiny: Tiny) -> None:
    """Metrics with their difference, verdicts, values of the file, inputs and files; the keys as documented."""
    first = tiny.run("--no-deploy")
    tiny.edit("penstock.yaml", "start_timeout: 20s", "start_timeout: 30s")
    tiny.repo.put("notes.txt", "new\n")
    tiny.commit("a spoiled model", accuracy=0.5)
    second = tiny.run("--no-deploy", code=1)
    found = tiny("compare", first["version"], "2", "--json").json
    assert (found["a"]["run"], found["b"]["version"]) == (1, second["version"])
    wanted = {"name": "train.accuracy", "a": 0.9, "b": 0.5}
    assert found["metrics"][1] == wanted | {"difference": found["metrics"][1]["difference"]}
    assert round(found["metrics"][1]["difference"], 9) == -0.4
    assert found["gates"] == [{"name": "accurate", "a": "pass", "b": "fail"}]
    assert found["parameters"] == [{"name": "package.start_timeout", "a": "20.0", "b": "30.0"}]
    assert "train inputs" in {row["name"] for row in found["inputs"]}
    changed = {row["path"]: row["change"] for row in found["files"]}
    assert changed == {"notes.txt": "added", "penstock.yaml": "changed", "settings.json": "changed"}
    assert (found["dependencies"], found["notes"]) == ([], [])
    assert found["outputs"] == [found["outputs"][0] | {"name": "train", "added": 0, "removed": 0, "changed": 1}]
    table = first_cells_of_keys(section(page("docs/commands.md"), "The differences object"))
    assert [key for key in table if not key.startswith("dependencies[]")] == list(keys(found))
    shown = tiny("compare", "1", "2").out
    for words in ("-0.4", "pass  →  fail", "20.0  →  30.0", "+ notes.txt", "~ settings.json", "3 files, +3 −2 lines"):
        assert words in shown
    assert "nothing else differs" in tiny("compare", "1", "1").out
    tiny("compare", "1", "9", code=2).refuses("there is no run 9")
    tiny("compare", "0.0", "2", code=2).refuses('"0.0" fits more than one version of tiny', first["version"])
    tiny("compare", "7.1", "2", code=2).refuses('tiny has no run of "7.1"', first["version"])


EVALUATE = """\
import json
import os

with open(f"{os.environ['PENSTOCK_PACKAGE']}/model/weights.json") as file:
    settings = json.load(file)
with open("answers.csv", "w") as file:
    file.write("id,truth,prediction,region\\n")
    for n in range(settings.get("first", 0), 300):
        region = "north" if n < 100 else "south"
        wrong = n % 100 >= 100 * settings["accuracy"] and region == "north"
        file.write(f"{n},{'ab'[n % 2]},{'x' if wrong else 'ab'[n % 2]},{region}\\n")
with open("served.json", "w") as file:
    file.write("{}")
"""


def with_evidence(tiny: Tiny, gate: str = "") -> None:
    tiny.edit("penstock.yaml", "metrics: served.json", "metrics: served.json, evidence: answers.csv")
    tiny.repo.put("evaluate.py", EVALUATE)
    if gate:
        tiny.edit("penstock.yaml", "environments:\n", f"{gate}environments:\n")
    tiny.commit("evidence")


def test_what_flipped_and_where(tiny: Tiny) -> None:
    """Evidence is joined by id: what is newly wrong, the gain with its bounds, and the slice that got worse."""
    with_evidence(tiny)
    tiny.run("--no-deploy")
    tiny.commit("worse in the north", accuracy=0.8)
    tiny.run("--no-deploy")
    (found,) = tiny("compare", "1", "2", "--json").json["evidence"]
    assert (found["step"], found["score"], found["n"], found["better"], found["worse"]) == (
        "evaluate",
        "correct",
        300,
        0,
        10,
    )
    assert found["gain"]["high"] < 0
    assert found["examples"][0] == {"id": "80", "truth": "a", "a": "a", "b": "x", "score_a": 1.0, "score_b": 0.0}
    worst = found["slices"][0]
    assert (worst["column"], worst["label"], worst["n"], worst["shown"]) == ("region", "north", 100, "worse")
    table = first_cells_of_keys(section(page("docs/commands.md"), "The flips object"))
    assert table == [key for key in keys(found) if not key.startswith("gain.")]
    shown = tiny("compare", "1", "2", "--examples", "2").out
    for words in (
        "0.9667 → 0.9333 correct on the same 300 examples",
        "0 newly right, 10 newly wrong",
        "show a loss",
        "and 8 more: --examples N shows so many",
        "north",
    ):
        assert words in shown


def test_what_cannot_be_compared_is_said(tiny: Tiny) -> None:
    """A run without the step, one whose step was not reached, and a test set that is another one in part."""
    tiny.run("--no-deploy")
    with_evidence(tiny)
    tiny.run("--no-deploy")
    assert tiny("compare", "1", "2", "--json").json["notes"] == [
        "the evidence of evaluate is not compared: run 1 has no step evaluate that writes evidence"
    ]
    tiny.repo.put("settings.json", '{"accuracy": 0.85, "first": 20}')
    tiny.commit("fewer examples")
    tiny.run("--no-deploy")
    (found,) = tiny("compare", "2", "3", "--json").json["evidence"]
    assert (found["n"], found["only_a"], found["only_b"], found["same_test_set"]) == (280, 20, 0, False)
    assert "the test set is another one; left out: 20 that only run 2 answered" in tiny("compare", "2", "3").out
    tiny.repo.put("train.py", "raise SystemExit(1)\n")
    tiny.commit("broken")
    tiny.run("--no-deploy", code=1)
    (note,) = tiny("compare", "3", "4", "--json").json["notes"]
    assert note == "the evidence of evaluate is not compared: step evaluate of run 4 is skipped and left no evidence"


def test_what_a_package_answered_elsewhere_is_taken(tiny: Tiny) -> None:
    """A run that was asked another test set is compared by what its package answered to this one in another run."""
    with_evidence(tiny, "  right: {evidence: evaluate, at_least: 0.5}\n")
    tiny.run("--no-deploy")
    tiny.edit("evaluate.py", 'settings.get("first", 0)', "50")
    tiny.commit("fewer examples for the same package")
    tiny.run("--no-deploy")
    tiny.commit("worse in the north", accuracy=0.8)
    tiny.run("--no-deploy")
    (found,) = tiny("compare", "1", "3", "--json").json["evidence"]
    assert (found["n"], found["same_test_set"], found["worse"]) == (250, True, 10)


def test_answers_in_batches_are_compared_as_far_as_both_go(tiny: Tiny) -> None:
    """Where a run stopped early, what its package answered in another run since then is taken too."""
    batched(tiny)
    early = 100 * answered(tiny.run())
    tiny.commit("worse", accuracy=0.75)
    late = 100 * answered(tiny.run(code=1))
    assert early < late
    (found,) = tiny("compare", "1", "2", "--json").json["evidence"]
    assert (found["n"], found["only_b"], found["same_test_set"]) == (late, 0, True)
    (back,) = tiny("compare", "2", "1", "--json").json["evidence"]
    assert (back["n"], back["only_a"]) == (early, late - early)


def answered(run: dict[str, Any]) -> int:
    """How many batches a run answered."""
    return int(next(step["attempts"] for step in run["steps"] if step["name"] == "evaluate"))


def test_what_the_cache_has_lost_is_said(tiny: Tiny) -> None:
    """Where the bytes are gone there is a sentence of each thing that could not be compared, and the rest is shown."""
    with_evidence(tiny)
    tiny.run("--no-deploy")
    tiny.commit("worse in the north", accuracy=0.8)
    tiny.run("--no-deploy")
    for blob in (tiny.command.home / "cache").rglob("*"):
        if blob.is_file():
            blob.unlink()
    found = tiny("compare", "1", "2", "--json").json
    (note,) = found["notes"]
    assert note.startswith("the evidence of evaluate is not compared: the content ")
    assert [(o["name"], o["changed"]) for o in found["outputs"]] == [("train", None)]
    assert found["evidence"] == []
    assert "the evidence of evaluate is not compared" in tiny("report", "2", "--html").out


def test_a_test_set_that_is_kept_hidden_stays_so(tiny: Tiny) -> None:
    """Where a gate tells pass or fail only, neither compare nor report shows an example of that test set."""
    with_evidence(tiny, "  blind: {evidence: evaluate, at_least: 0.5, confidence: 0.95, reuse: enforce}\n")
    tiny.run("--no-deploy")
    tiny.commit("worse in the north", accuracy=0.85)
    tiny.run("--no-deploy")
    found = tiny("compare", "1", "2", "--json").json
    (note,) = found["notes"]
    assert (found["evidence"], "not compared: gate blind says reuse: enforce" in note) == ([], True)


def test_a_report_can_be_pasted(tiny: Tiny) -> None:
    """Markdown with the verdict, gates, metrics and folded steps; what a repository says cannot break out of a cell."""
    tiny.commit("a | <b>bold</b> `title`", accuracy=0.5)
    run = tiny.run("--no-deploy", code=1)
    said = tiny("report", "1").out
    lines = said.splitlines()
    assert lines[0] == f"### ❌ tiny {run['version']}: failed"
    assert r"a \| &lt;b&gt;bold&lt;/b&gt; \`title\`" in said
    for line in (
        "| accurate | ❌ fail | 0.5 | at least 0.8 | 0.5 is below 0.8 |",
        "| train.accuracy | 0.5 |",
        "<details><summary>6 steps</summary>",
    ):
        assert line in lines
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") - line.count(r"\|") for line in tables} == {3, 6}
    found = tiny("report", "1", "--json").json
    assert {name: found[name] for name in run} == run
    assert (found["before"], found["against"], found["evidence"], found["gaps"]) == (None, None, [], [])
    tiny("report", "1", "--json", "--html", code=2).refuses("prints --html or --json: choose one of them")


def test_a_report_holds_metrics_against_the_default_branch(tiny: Tiny) -> None:
    """Beside each metric stands that of the newest run that passed there before; red runs do not count."""
    first = tiny.run("--no-deploy")
    tiny.commit("a spoiled model", accuracy=0.5)
    tiny.run("--no-deploy", code=1)
    tiny.commit("a better model", accuracy=0.95)
    tiny.run("--no-deploy")
    page = tiny("report", "3", "--html").out
    assert page.startswith("<!doctype html>")
    assert f"Beside those of <b>{first['version']}</b> (run 1)" in page
    lines = tiny("report", "3").out.splitlines()
    assert f"| metric | {first['version']} (run 1) | this run | difference |" in lines
    assert "| train.accuracy | 0.9 | 0.95 | +0.05 |" in lines


JUNIT = """\
with open("junit.xml", "w") as file:
    file.write('<testsuite name="unit"><testcase name="one"/><testcase name="two"><skipped/></testcase></testsuite>')
"""


def test_a_report_holds_evidence_against_the_champion(tiny: Tiny) -> None:
    """What served when the run began is what its evidence is held against: in Markdown, JSON and on the page."""
    with_evidence(tiny)
    tiny.edit("penstock.yaml", "inputs: [unit.py]", "inputs: [unit.py], report: junit.xml")
    tiny.repo.put("unit.py", JUNIT)
    tiny.commit("tests with a report")
    served = tiny.run()
    tiny.commit("worse in the north", accuracy=0.8)
    tiny.run()
    found = tiny("report", "2", "--json").json
    role = "the champion in production"
    assert found["against"] == {"run": 1, "version": served["version"], "role": role}
    assert [(f["better"], f["worse"]) for f in found["evidence"]] == [(0, 10)]
    assert found["test_counts"] == [
        {"step": "unit", "passed": 1, "failed": 0, "errored": 0, "skipped": 1, "reason": None}
    ]
    more = [key for key in keys(found) if key.partition(".")[0].partition("[")[0] not in served]
    table = first_cells_of_keys(section(page("docs/commands.md"), "The report object"))
    assert table == [key for key in more if not key.startswith("evidence[].")]
    said = tiny("report", "2").out
    assert f"(run 1), {role}" in said
    assert "| ✅ unit | 1 | 0 | 1 |  |" in said
    html = tiny("report", "2", "--html").out
    assert f"Held against <b>{served['version']}</b> (run 1), {role}." in html
    assert "newly wrong" in html
    assert "the newest run that passed before" not in html


def test_a_report_holds_evidence_against_what_the_gate_names(tiny: Tiny) -> None:
    """Where a gate names another baseline than the champion, that is it; where nothing flipped, no slice is shown."""
    with_evidence(tiny, "  steady: {evidence: evaluate, not_worse_than: previous, margin: 0.5}\n")
    tiny.run("--no-deploy")
    tiny.repo.put("notes.txt", "new\n")
    tiny.commit("the same model")
    tiny.run("--no-deploy")
    found = tiny("report", "2", "--json").json
    assert (found["against"]["run"], found["against"]["role"]) == (1, "the run before")
    assert [(f["better"], f["worse"]) for f in found["evidence"]] == [(0, 0)]
    assert "slice" not in tiny("compare", "1", "2").out + tiny("report", "2").out
