"""Gates on coverage, benchmarks and the model's files by the real command."""

import json
import sqlite3
from typing import Any

from acceptance.tiny import Tiny
from penstock.artifacts import digest_of_bytes
from pure.model_files import called, named, onnx, pickled, safetensors

FILE = """\
name: tiny
steps:
  train: {run: cp -r weights model, inputs: [weights/], outputs: [model/]}
  unit: {run: python cover.py, inputs: [src/, cover.py], coverage: coverage.info}
  bench: {run: cp rounds.json bench.json, inputs: [rounds.json], benchmark: bench.json}
package: {model: model/, code: [src/]}
gates:
"""

COVER = """\
import glob

with open("coverage.info", "w") as report:
    for path in sorted(set(glob.glob("src/*.py")) - {"src/forgotten.py"}):
        print(f"SF:{path}", file=report)
        for number, line in enumerate(open(path), 1):
            print(f"DA:{number},{int('never' not in line)}", file=report)
        print("end_of_record", file=report)
"""


def gates(tiny: Tiny, **written: str) -> None:
    tiny.repo.put("penstock.yaml", FILE + "".join(f"  {name}: {{{rule}}}\n" for name, rule in written.items()))


def begin(tiny: Tiny) -> None:
    tiny.repo.put("cover.py", COVER)
    tiny.repo.put("src/a.py", "def f():\n    return 1\n")
    tiny.repo.put("rounds.json", json.dumps({"predict": [1.0, 1.01, 0.99, 1.02, 1.0, 1.01], "load": 5}))
    tiny.repo.put("weights/w.safetensors", safetensors({"a": ("F32", [10, 5], 200)}))
    tiny.repo.put("weights/labels.txt", "cat\n")


def verdicts(run: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {gate["name"]: (gate["verdict"], "; ".join(gate["reasons"])) for gate in run["gates"]}


def test_coverage_of_all_and_of_the_change(tiny: Tiny) -> None:
    """On the default branch against the first parent, on another against where it began; a forgotten file counts."""
    begin(tiny)
    gates(tiny, all="coverage: unit, at_least: 60%", change="coverage: unit, of: change, at_least: 90%")
    tiny.commit()
    first = verdicts(tiny.run())
    assert first["all"] == ("pass", "100 % is at least 60 %: 2 of 2 lines ran")
    assert first["change"] == ("pass", "100 % is at least 90 %: 2 of 2 changed lines with code ran")
    tiny.repo.put("notes.md", "never\n")
    tiny.commit()
    assert verdicts(tiny.run())["change"] == ("pass", "no changed line holds code: there is nothing to cover")
    tiny.repo.git("switch", "--quiet", "-c", "feature")
    tiny.edit("src/a.py", "return 1", "return 2 if f else 'never'")
    tiny.commit()
    tiny.repo.put("src/forgotten.py", "x = 1\n")
    tiny.commit()
    run = tiny.run(code=1)
    assert verdicts(run)["all"][0] == "fail"
    reason = "0 % is below 90 %: 0 of 2 changed lines with code ran, 2 lines fewer than needed"
    places = "not covered: src/a.py:2, src/forgotten.py:1; not in the report at all: src/forgotten.py"
    assert verdicts(run)["change"] == ("fail", f"{reason}; {places}")
    assert run["metrics"]["unit.coverage"] == 0.5


def test_benchmarks_against_a_baseline(tiny: Tiny) -> None:
    """By an interval of their rounds, else as a plain ratio; never on other hardware, nor where the rounds are gone."""
    begin(tiny)
    rules = {
        "rounds": 'benchmark: bench.predict, ratio_to: "branch:main", at_most: 1.1, inconclusive: warn',
        "plain": "benchmark: bench.load, ratio_to: previous, at_most: 1.5",
    }
    gates(tiny, **rules, absent="benchmark: bench.what, ratio_to: previous, at_most: 2")
    tiny.commit()
    first = verdicts(tiny.run(code=3))
    assert first["absent"][0] == "errored"
    assert (
        first["absent"][1]
        == "there is no benchmark bench.what: there are load, predict, predict.max, predict.mean, predict.median"
    )
    gates(tiny, **rules)
    tiny.commit()
    rules["both"] = (
        "all_of: [{benchmark: bench.load, ratio_to: previous, at_most: 1.1}, {metric: bench.load, at_most: 9}]"
    )
    gates(tiny, **rules)
    tiny.commit()
    version = tiny.run()["version"]
    tiny.repo.put("rounds.json", json.dumps({"predict": [1.5, 1.51, 1.49, 1.52, 1.5, 1.51], "load": 6}))
    tiny.commit()
    slower = verdicts(tiny.run(code=1))
    assert slower["rounds"][0] == "fail"
    assert slower["rounds"][1].startswith(
        f"1.498 times branch main ({version}) by the medians of 6 and 6 rounds; its 95 % bounds"
    )
    plain = f"1.2 is at most 1.5: 6 against 5 of the run before ({version}), without bounds"
    assert slower["plain"] == ("pass", f"{plain}, which take 5 rounds of both")
    assert slower["both"][0] == "fail"
    assert "1.2 is above 1.1: 6 against 5" in slower["both"][1]
    with sqlite3.connect(tiny.command.home / "penstock.db") as store:
        rows = store.execute("select run, hardware from origins").fetchall()
        for run, hardware in rows:
            other = json.dumps({**json.loads(hardware), "cpus": 640})
            store.execute("update origins set hardware = ? where run = ?", (other, run))
    apart = verdicts(tiny.run("--no-cache", code=1))
    assert apart["rounds"][0] == "inconclusive"
    assert "640 × " in apart["rounds"][1]
    assert "speeds are compared on the same hardware only; a warning only: the run goes on" in apart["rounds"][1]


def test_rounds_that_are_gone_decide_nothing(tiny: Tiny) -> None:
    """A baseline whose file the cache has lost, or that is no benchmark file any more, is no measure."""
    begin(tiny)
    gates(tiny, fast='benchmark: bench.predict, ratio_to: "branch:main", at_most: 1.1')
    tiny.commit()
    version = tiny.run()["version"]
    kept = (tiny.repo.folder / "rounds.json").read_bytes()
    tiny.repo.put("rounds.json", json.dumps({"predict": [1.0] * 6}))
    tiny.commit()
    digest = digest_of_bytes(kept)
    (tiny.command.home / "cache" / "blobs" / digest[:2] / digest[2:]).unlink()
    reason = (
        f"branch main ({version}) has benchmarks that are no longer in the cache, so there is nothing to compare with"
    )
    assert verdicts(tiny.run(code=1))["fast"] == ("inconclusive", reason)


def test_without_a_package_there_is_no_model(tiny: Tiny) -> None:
    """A step that failed before it is named, and nothing passes."""
    begin(tiny)
    gates(tiny, small="model: size, at_most: 1MB")
    tiny.edit("penstock.yaml", "cp -r weights model", "exit 1")
    tiny.commit()
    assert verdicts(tiny.run(code=1))["small"] == ("errored", "there is no package to look at: step package skipped")


def test_a_model_is_judged_without_being_loaded(tiny: Tiny) -> None:
    """Its size, parameters, format and risks; what cannot be counted errs; the lineage has it all."""
    begin(tiny)
    rules = {
        "small": "model: size, at_most: 1kB",
        "few": "model: parameters, at_most: 60",
        "format": "model: format, one_of: [safetensors, onnx]",
        "safe": "model: risks, at_most: 0",
    }
    gates(tiny, **rules)
    tiny.commit()
    run = tiny.run()
    assert {name: verdict for name, (verdict, _) in verdicts(run).items()} == dict.fromkeys(rules, "pass")
    assert verdicts(run)["few"][1] == "50 is at most 60: the numbers in the tensors of 1 file"
    assert "model    safetensors, 313 bytes, 50 parameters" in tiny("lineage", run["version"]).out
    tiny.repo.put("weights/net.onnx", onnx())
    tiny.repo.put("weights/scaler.pkl", pickled(called(named("os", "system"), "touch loaded")))
    tiny.commit()
    bad = tiny.run(code=1)
    assert verdicts(bad) == {
        "small": ("pass", verdicts(bad)["small"][1]),
        "few": ("errored", "the parameters cannot be counted without loading model/scaler.pkl (pickle)"),
        "format": ("fail", "model/scaler.pkl is pickle, not safetensors or onnx"),
        "safe": ("fail", "1 is above 0: loading the model could call model/scaler.pkl: os.system"),
    }
    shown = tiny("lineage", bad["version"]).out
    assert "model    onnx and pickle and safetensors" in shown
    assert "model    model/scaler.pkl: loading it could call os.system" in shown
    files = tiny("lineage", bad["version"], "--json").json["lineage"]["model"]["files"]
    assert files["model/net.onnx"] == {"format": "onnx", "size": len(onnx()), "parameters": 0}


def test_what_a_gate_needs_is_known_before_the_run(tiny: Tiny) -> None:
    """A step without the file, a step that is not there, a model that the package does not name."""
    begin(tiny)
    gates(
        tiny,
        a="coverage: bench, at_least: 0.5",
        b="benchmark: unit.x, ratio_to: champion, at_most: 2",
        c="coverage: units, at_least: 0.5",
    )
    tiny.commit()
    said = tiny("check", code=2).all
    assert 'step "bench" has no coverage: add coverage: FILE to it' in said
    assert 'step "unit" has no benchmark: add benchmark: FILE to it' in said
    assert 'no step is named "units": did you mean "unit"?' in said
    gates(tiny, d="model: size, at_most: 1MB")
    tiny.edit("penstock.yaml", "package: {model: model/, code: [src/]}", "package: {code: [src/]}")
    assert "there are no model files to judge: add model: FILES to the package" in tiny("check", code=2).all
