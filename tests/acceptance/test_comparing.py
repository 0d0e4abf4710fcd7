"""`compare` and `report`: what differs between two runs, and a run as it is shown to other people."""

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
    table = first_cells_of_keys(section(page("docs/commands.md"), "The differences object"))
    assert [key for key in table if not key.startswith("dependencies[]")] == list(keys(found))
    shown = tiny("compare", "1", "2").out
    for words in ("-0.4", "pass  →  fail", "20.0  →  30.0", "+ notes.txt", "~ settings.json"):
        assert words in shown
    assert "nothing else differs" in tiny("compare", "1", "1").out
    tiny("compare", "1", "9", code=2).refuses("there is no run 9")
    tiny("compare", "0.0", "2", code=2).refuses('"0.0" fits more than one version of tiny', first["version"])
    tiny("compare", "7.1", "2", code=2).refuses('tiny has no run of "7.1"', first["version"])


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
    assert tiny("report", "1", "--json").json == run


def test_a_report_holds_metrics_against_the_default_branch(tiny: Tiny) -> None:
    """Beside each metric stands that of the newest run that passed there before; red runs do not count."""
    first = tiny.run("--no-deploy")
    tiny.commit("a spoiled model", accuracy=0.5)
    tiny.run("--no-deploy", code=1)
    tiny.commit("a better model", accuracy=0.95)
    tiny.run("--no-deploy")
    lines = tiny("report", "3").out.splitlines()
    assert f"| metric | {first['version']} (run 1) | this run | difference |" in lines
    assert "| train.accuracy | 0.9 | 0.95 | +0.05 |" in lines
