"""What a step leaves behind, read from real workspaces into a real cache; and what it makes of a run."""

from pathlib import Path
from typing import Any

import pytest

from engine.builders import ACTS, DIGITS, FAILED_CASE, JUNIT, House, step
from penstock.artifacts import Digest, File
from penstock.cache.disk import DiskCache
from penstock.engine.results import Collected, collect, declared_files, is_whole, red_report
from penstock.errors import ReportError
from penstock.pipelines import Pipeline, Step
from penstock.runners.scripted import Act

SOURCE = {"src__a.py": "A = 1\n"}
TODAY = "2026-06-01"


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "cache")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def made(**fields: Any) -> Step:
    return Pipeline.model_validate({"name": "x", "steps": {"train": {"run": "true", **fields}}}).steps["train"]


def write(workspace: Path, **files: str) -> None:
    for name, text in files.items():
        (workspace / name.replace("__", "/").replace("_dot_", ".")).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name.replace("__", "/").replace("_dot_", ".")).write_text(text)


def test_outputs_and_files_are_kept(cache: DiskCache, workspace: Path) -> None:
    """Outputs go on, declared files are collected beside them, numbers bear the step's name."""
    write(workspace, model__w="w", m_dot_json='{"accuracy": 0.5, "loss": {"last": 2}}', b_dot_json='{"p99_ms": 7}')
    step_ = made(outputs=["model/"], metrics="m.json", benchmark="b.json")
    found = collect(step_, workspace, cache, TODAY)
    assert found.failure is None
    assert found.values["metrics"] == {"train.accuracy": 0.5, "train.loss.last": 2.0, "train.p99_ms": 7.0}
    assert list(cache.tree(found.values["outputs"])) == ["model/w"]
    assert list(cache.tree(found.values["collected"])) == ["b.json", "m.json"]
    assert "tests" not in found.values


def test_shares_of_lines_and_branches_are_metrics(cache: DiskCache, workspace: Path) -> None:
    """Beside the step's own numbers; what the report does not count is not there."""
    lines = "SF:a.py\nDA:1,1\nDA:2,0\nDA:3,1\nDA:4,1\n"
    write(workspace, c_dot_info=f"{lines}BRDA:1,0,0,1\nBRDA:1,0,1,0\nend_of_record\n", m_dot_json='{"loss": 2}')
    found = collect(made(coverage="c.info", metrics="m.json"), workspace, cache, TODAY)
    assert found.values["metrics"] == {"train.loss": 2.0, "train.coverage": 0.75, "train.branch_coverage": 0.5}
    assert list(cache.tree(found.values["collected"])) == ["c.info", "m.json"]
    write(workspace, c_dot_info="SF:a.py\nend_of_record\n")
    assert collect(made(coverage="c.info"), workspace, cache, TODAY).values["metrics"] == {}
    write(workspace, c_dot_info="what")
    with pytest.raises(ReportError, match="neither Cobertura XML nor LCOV"):
        collect(made(coverage="c.info"), workspace, cache, TODAY)


def test_a_step_that_declares_nothing_leaves_nothing(cache: DiskCache, workspace: Path) -> None:
    """Whatever else lies in the workspace is not kept."""
    write(workspace, junk="x")
    assert collect(made(), workspace, cache, TODAY).values == {"outputs": None, "collected": None, "metrics": {}}


def test_all_files_that_a_step_declares() -> None:
    """Metrics, report, benchmark and evidence are collected; outputs are not among them."""
    whole = made(
        outputs=["model/"], metrics="m", report="r", benchmark="b", evidence={"predictions": "p", "truth": "t"}
    )
    assert declared_files(whole) == ("m", "r", "b", "p", "t")
    assert declared_files(made(coverage="c")) == ("c",)
    assert declared_files(made(evidence="p")) == ("p",)
    assert declared_files(made()) == ()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"outputs": ["model/"]}, "ended well but did not write model/, which it declares"),
        (
            {"outputs": ["model/", "*.bin"], "metrics": "m.json"},
            "ended well but did not write model/ and *.bin and m.json, which it declares",
        ),
        ({"report": "junit.xml"}, "ended well but did not write junit.xml, which it declares"),
    ],
)
def test_what_was_promised_and_not_left(
    cache: DiskCache, workspace: Path, fields: dict[str, Any], sentence: str
) -> None:
    """A declared file that is not there is a failure that names it, although the command ended well."""
    assert collect(made(**fields), workspace, cache, TODAY).failure == sentence


@pytest.mark.parametrize(
    ("cases", "failure", "counts"),
    [
        ("", None, (1, 0)),
        (FAILED_CASE, "1 of 2 tests failed: divides", (1, 1)),
        (FAILED_CASE * 5, "5 of 6 tests failed: divides, divides, divides and 2 more", (1, 5)),
    ],
)
def test_failed_tests_are_named(
    cache: DiskCache, workspace: Path, cases: str, failure: str | None, counts: tuple[int, int]
) -> None:
    """A report with failures reddens the step whatever its exit code, and says which tests failed."""
    write(workspace, junit_dot_xml=JUNIT.format(cases))
    found = collect(made(report="junit.xml"), workspace, cache, TODAY)
    assert found.failure == failure
    assert (found.values["tests"]["passed"], found.values["tests"]["failed"]) == counts


@pytest.mark.parametrize("text", ["", "{", '{"accuracy": "high"}', '{"accuracy": NaN}', "[1]"])
def test_metrics_that_cannot_be_read(cache: DiskCache, workspace: Path, text: str) -> None:
    """A metrics file that holds no numbers is an error that names it, never an empty result."""
    write(workspace, m_dot_json=text)
    with pytest.raises(ReportError, match=r"m\.json"):
        collect(made(metrics="m.json"), workspace, cache, TODAY)


def test_the_report_of_a_red_step(cache: DiskCache, workspace: Path) -> None:
    """A step that failed still tells its tests, where it wrote a report."""
    wanted = made(report="junit.xml")
    assert red_report(made(), workspace, cache, TODAY) == Collected()
    assert red_report(wanted, workspace, cache, TODAY) == Collected()
    write(workspace, junit_dot_xml=JUNIT.format(FAILED_CASE))
    found = red_report(wanted, workspace, cache, TODAY)
    assert (found.values["tests"]["failed"], found.failure) == (1, "1 of 2 tests failed: divides")


def test_the_coverage_of_a_red_step(cache: DiskCache, workspace: Path) -> None:
    """A step that failed still leaves its coverage, and nothing else, for gates to judge."""
    wanted = made(coverage="lines.info", metrics="m.json")
    assert red_report(wanted, workspace, cache, TODAY) == Collected()
    (workspace / "lines.info").write_text("SF:a.py\nDA:1,1\nDA:2,0\nend_of_record\n")
    write(workspace, m_dot_json='{"accuracy": 1}')
    values = red_report(wanted, workspace, cache, TODAY).values
    assert values["metrics"] == {f"{wanted.name}.coverage": 0.5}
    assert set(cache.tree(values["collected"])) == {"lines.info"}


def test_a_result_is_whole_or_nothing(cache: DiskCache, workspace: Path) -> None:
    """A stored result counts only while the cache holds every byte of it."""
    write(workspace, model__w="w", model__v="v")
    values = collect(made(outputs=["model/"]), workspace, cache, TODAY).values
    assert is_whole(values, cache)
    assert is_whole({}, cache)
    tree = cache.tree(values["outputs"])
    one = next(iter(tree.digests()))
    cache.sweep({values["outputs"], *tree.digests()} - {one}, 0, 1e12)
    assert not is_whole(values, cache)
    assert not is_whole({"outputs": Digest("0" * 64)}, cache)


# --- what it makes of a run ----------------------------------------------------------------------------------------


def run(house: House, name: str, act: Act, **changes: Any) -> Any:
    """A run of the example in which one command does something else."""
    house.commit({**DIGITS, **changes}, **SOURCE)
    house.machine.script[name] = act
    return house.run(no_deploy=True)


def test_a_declared_output_that_is_missing(house: House) -> None:
    """The command ended with 0 and its step is red, with the sentence and the exit code."""
    shown = run(house, "train for", Act(files={"metrics.json": '{"accuracy": 1}'}))
    found = step(shown, "train")
    assert (found.status, found.exit_code) == ("failed", 0)
    assert found.reason == "ended well but did not write model/, which it declares"
    assert (shown.status, shown.metrics) == ("failed", {})


def test_failed_tests_redden_a_step(house: House) -> None:
    """A command that hides its failures behind exit code 0 does not hide them from its report."""
    shown = run(house, "run the units", Act(files={"junit.xml": JUNIT.format(FAILED_CASE)}))
    found = step(shown, "unit")
    assert (found.status, found.exit_code, found.reason) == ("failed", 0, "1 of 2 tests failed: divides")
    assert (house.store.runs.step(1, "unit").result or {})["tests"]["failed"] == 1


def test_a_red_command_tells_its_tests(house: House) -> None:
    """The tests that failed say more than an exit code; a report that nobody can read says nothing."""
    act = Act(exit_code=1, files={"junit.xml": JUNIT.format(FAILED_CASE)})
    assert step(run(house, "run the units", act), "unit").reason == "1 of 2 tests failed: divides"
    house.machine.script["run the units"] = Act(exit_code=1, files={"junit.xml": "<not xml"})
    assert step(house.run(no_deploy=True), "unit").reason == "exit code 1"


def test_bad_metrics_are_an_error(house: House) -> None:
    """A metrics file that cannot be read errors its step: we could not tell."""
    shown = run(house, "train for", Act(files={"model/w": "w", "metrics.json": "{"}))
    assert (step(shown, "train").status, shown.status) == ("errored", "errored")
    assert "metrics.json" in (step(shown, "train").reason or "")
    assert shown.metrics == {}


EVIDENCE = {
    "steps": {
        **DIGITS["steps"],
        "evaluate": {
            "run": "evaluate",
            "inputs": ["src/", "truth.csv"],
            "evidence": {"predictions": "predictions.csv", "truth": "truth.csv"},
        },
    },
    "gates": {"accurate": {"evidence": "evaluate", "score": "correct", "at_least": 0.5}},
}


@pytest.mark.parametrize(
    ("predictions", "verdict", "value"),
    [
        ("id,prediction\n1,a\n2,b\n", "pass", 1.0),
        ("id,prediction\n1,b\n2,a\n", "fail", 0.0),
        ("no,such\ncolumns,here\n", "errored", None),
    ],
)
def test_evidence_is_scored_by_us(house: House, predictions: str, verdict: str, value: float | None) -> None:
    """Predictions are joined with the truth and judged; what cannot be read is no pass."""
    house.commit({**DIGITS, **EVIDENCE}, **SOURCE, **{"truth.csv": "id,truth\n1,a\n2,b\n"})
    house.machine.script["evaluate"] = Act(files={"predictions.csv": predictions})
    shown = house.run(no_deploy=True)
    assert (shown.gates[0].verdict, shown.gates[0].value) == (verdict, value)
    assert shown.gates[0].reasons
    assert shown.status == {"pass": "passed", "fail": "failed", "errored": "errored"}[verdict]


def test_a_gate_against_the_champion(house: House) -> None:
    """The champion is what production serves: a worse model is stopped, and without a champion the first passes."""
    gates = {"no_worse": {"metric": "train.accuracy", "not_worse_than": "champion", "margin": 0.01}}
    house.commit({**DIGITS, "gates": gates}, **SOURCE)
    first = house.run()
    assert first.status == "passed"
    assert "no champion yet" in first.gates[0].reasons[0]
    same = house.run()
    assert (same.status, same.gates[0].verdict) == ("passed", "pass")
    house.repo.commit(**{"src/a.py": "A = 2\n"})
    train = ACTS["train for"]
    house.machine.script["train for"] = Act(files={**train.files, "metrics.json": '{"accuracy": 0.9}'})
    worse = house.run()
    assert (worse.status, worse.gates[0].verdict) == ("failed", "fail")
    assert house.served(8802) == first.version


@pytest.mark.parametrize("champion", ["staging", None])
def test_who_is_the_champion(house: House, champion: str | None) -> None:
    """The file may name the champion's environment; where nothing serves there, there is no champion."""
    gates = {"no_worse": {"metric": "train.accuracy", "not_worse_than": "champion", "margin": 0.01}}
    environments = {"staging": {"port": 8801}, "other": {"port": 8803}}
    pipeline = {**DIGITS, "gates": gates, "environments": environments, "champion": champion or "other"}
    house.commit(pipeline, **SOURCE)
    first = house.run(to=champion or "staging")
    assert first.status == "passed"
    again = house.run(no_cache=True, no_deploy=True)
    assert ("no champion yet" in again.gates[0].reasons[0]) is (champion is None)


# --- evidence against the champion ---------------------------------------------------------------------------------

COMPARED = {
    **EVIDENCE,
    "gates": {"no_regression": {"evidence": "evaluate", "not_worse_than": "champion", "margin": 0.03}},
}
TRUTH = {"truth.csv": "id,truth\n" + "".join(f"{n},a\n" for n in range(360))}


def answers(wrong: int, whole: int = 360) -> Act:
    rows = "".join(f"{n},{'b' if n < wrong else 'a'}\n" for n in range(whole))
    return Act(files={"predictions.csv": f"id,prediction\n{rows}"})


def compared(house: House, **gate: Any) -> Any:
    """A house whose first release answered four of 360 examples wrongly."""
    rule = {**COMPARED["gates"]["no_regression"], **gate}
    house.commit({**DIGITS, **COMPARED, "gates": {"no_regression": rule}}, **SOURCE, **TRUTH)
    house.machine.script["evaluate"] = answers(4)
    first = house.run()
    assert first.status == "passed"
    return first


def another(house: House, wrong: int, whole: int = 360, **more: str) -> Any:
    """A commit of another model, which answers so many examples wrongly."""
    number = len(house.store.runs.latest(limit=100))
    house.repo.commit(**{"src/a.py": f"A = 'model {number}'\n"}, **more)
    train = ACTS["train for"]
    house.machine.script["train for"] = Act(files={**train.files, "model/w": f"model {number}"})
    house.machine.script["evaluate"] = answers(wrong, whole)
    return house.run()


def test_evidence_is_compared_with_the_champions(house: House) -> None:
    """The first release passes with a warning; then a model is held against what production answered."""
    first = compared(house)
    assert first.gates[0].reasons[0].startswith("warning: 0.9889 was compared with nothing")
    good = another(house, 5)
    assert (good.status, good.gates[0].verdict, good.gates[0].value) == ("passed", "pass", 355 / 360)
    assert good.gates[0].reasons[0].startswith(f"0.3 points worse than {first.version} on the same 360 examples")
    assert good.gates[0].chart is not None
    assert (good.gates[0].chart.n, good.gates[0].chart.discordant) == (360, 1)
    bad = another(house, 60)
    assert (bad.status, bad.gates[0].verdict) == ("failed", "fail")
    assert f"worse than {good.version}" in bad.gates[0].reasons[0]
    assert house.served(8802) == good.version


def test_the_same_package_is_its_own_equal(house: House) -> None:
    """A commit that changes no model passes whatever its evidence says, and is remembered by its first answers."""
    compared(house)
    house.machine.script["evaluate"] = answers(100)
    same = house.run(no_cache=True)
    assert (same.status, same.gates[0].verdict) == ("passed", "pass")
    assert "the same package as the champion" in same.gates[0].reasons[0]
    assert "as good as" in another(house, 4).gates[0].reasons[0]


def test_a_new_test_set_decides_nothing_until_the_champion_met_it(house: House) -> None:
    """Where the champion was never asked the gate says so and stops; a run of its own package makes it comparable."""
    first = compared(house)
    fewer = {"truth.csv": "".join(f"{line}\n" for line in TRUTH["truth.csv"].splitlines()[:301])}
    unknown = another(house, 4, 300, **fewer)
    assert (unknown.status, unknown.gates[0].verdict) == ("failed", "inconclusive")
    lacking = "has no evidence on this test set, but on another, so there is nothing to compare with"
    assert unknown.gates[0].reasons[0] == f"the champion {first.version} {lacking}"
    house.repo.commit(**{"src/a.py": SOURCE["src__a.py"]})
    house.machine.script["train for"] = ACTS["train for"]
    same = house.run()
    assert "the same package as the champion" in same.gates[0].reasons[0]
    assert "as good as" in another(house, 4, 300).gates[0].reasons[0]


@pytest.mark.parametrize(("word", "status"), [("fail", "failed"), ("hold", "errored"), ("warn", "passed")])
def test_what_an_inconclusive_verdict_does(house: House, word: str, status: str) -> None:
    """It fails the run, ends it errored with nothing released, or lets it go on, as the file says."""
    first = compared(house, margin=0.001, inconclusive=word)
    shown = another(house, 5)
    assert (shown.status, shown.gates[0].verdict) == (status, "inconclusive")
    assert house.served(8802) == (shown.version if word == "warn" else first.version)
    assert any("examples can never show" in reason for reason in shown.gates[0].reasons)


def test_the_champions_evidence_may_be_gone(house: House) -> None:
    """Where its bytes are lost there is nothing to compare with, and that is no pass."""
    first = compared(house)
    collected = (house.store.runs.step(1, "evaluate").result or {})["collected"]
    for entry in house.world.cache.tree(collected).entries.values():
        assert isinstance(entry, File)
        (found,) = house.world.home.cache.rglob(f"*{entry.digest[4:]}*")
        found.unlink()
    shown = another(house, 5)
    assert (shown.status, shown.gates[0].verdict) == ("failed", "inconclusive")
    assert f"the champion {first.version} has evidence that is no longer in the cache" in shown.gates[0].reasons[0]


def test_decisions_on_one_test_set_are_counted(house: House) -> None:
    """Distinct packages count; a rerun does not, and a new test set begins anew."""
    assert compared(house).gates[0].reasons[-1] == "decision 1 on this test set"
    assert another(house, 5).gates[0].reasons[-1] == "decision 2 on this test set"
    assert house.run(no_cache=True).gates[0].reasons[-1] == "decision 2 on this test set"
    fewer = {"truth.csv": "".join(f"{line}\n" for line in TRUTH["truth.csv"].splitlines()[:301])}
    assert another(house, 5, 300, **fewer).gates[0].reasons[-1] == "decision 1 on this test set"


def test_an_enforced_budget_tells_pass_or_fail_only(house: House) -> None:
    """Each further package gets less of the risk, and nobody learns by how much it passed or failed."""
    first = compared(house, reuse="enforce")
    assert (first.gates[0].verdict, first.gates[0].value) == ("pass", None)
    assert first.gates[0].reasons[0] == "warning: nothing was compared, because there is no champion yet"
    second = another(house, 10)
    assert (second.status, second.gates[0].verdict, second.gates[0].value) == ("failed", "fail", None)
    assert second.gates[0].chart is None
    assert second.gates[0].reasons == (
        "fail with a risk of 0.76 %, this package's share; reuse: enforce tells no more",
        "decision 2 on this test set",
    )
    third = another(house, 4)
    assert third.gates[0].reasons[0].startswith("pass with a risk of 0.34 %, this package's share")


# --- slices, wholes, parity ----------------------------------------------------------------------------------------


def in_digits(wrong: str) -> Act:
    """Answers to 360 examples of three digits, of which the first forty of some are wrong."""
    rows = "".join(f"{n},{'b' if str(n % 3) in wrong and n < 120 else 'a'},{n % 3}\n" for n in range(360))
    return Act(files={"predictions.csv": f"id,prediction,digit\n{rows}"})


def test_a_rule_is_held_in_each_slice(house: House) -> None:
    """The champion's slices are not needed: it is asked about the same examples."""
    compared(house, margin=0.1)
    rule = {**COMPARED["gates"]["no_regression"], "slices": "digit", "margin": 0.1}
    for wrong, verdict, reason in (
        ("", "pass", "all 3 slices by digit pass"),
        ("2", "fail", "of 3 slices by digit 1 fails, 2 pass: fail"),
    ):
        changed = {**SOURCE, "src/a.py": f"A = 'wrong in {wrong}'\n"}
        house.commit({**DIGITS, **COMPARED, "gates": {"no_regression": rule}}, **changed, **TRUTH)
        model = {"model/w": f"wrong in {wrong}"}
        house.machine.script["train for"] = Act(files={**ACTS["train for"].files, **model})
        house.machine.script["evaluate"] = in_digits(wrong)
        (gate,) = house.run().gates
        assert (gate.verdict, gate.reasons[0]) == (verdict, reason)
        assert gate.chart is not None
        assert (gate.chart.n, gate.chart.slice_of) == (120, "digit=2" if wrong else "digit=1")


def test_one_gate_that_wants_a_column_that_is_not_there_errs_alone(house: House) -> None:
    """The sentence names the files and the column; other gates on the same evidence are judged."""
    gates = {
        "sliced": {"evidence": "evaluate", "at_least": 0.5, "slices": "place"},
        "plain": {"evidence": "evaluate", "at_least": 0.5},
    }
    house.commit({**DIGITS, **EVIDENCE, "gates": gates}, **SOURCE, **TRUTH)
    house.machine.script["evaluate"] = in_digits("")
    shown = house.run(no_deploy=True)
    assert [gate.verdict for gate in shown.gates] == ["errored", "pass"]
    assert (
        shown.gates[0]
        .reasons[0]
        .startswith('neither predictions.csv nor truth.csv has the column "place": write it into one')
    )


@pytest.mark.parametrize(
    ("whole", "verdict", "status"),
    [("all_of", "fail", "failed"), ("any_of", "pass", "passed")],
)
def test_gates_are_made_of_gates(house: House, whole: str, verdict: str, status: str) -> None:
    """Each member is judged as it would be by itself, also against the champion, and has its line."""
    members = [
        {"metric": "train.accuracy", "at_least": 0.99},
        {"evidence": "evaluate", "not_worse_than": "champion", "margin": 0.03},
        {"evidence": "evaluate", "at_least": 0.5, "slices": "digit"},
    ]
    house.commit({**DIGITS, **EVIDENCE, "gates": {"whole": {whole: members}}}, **SOURCE, **TRUTH)
    house.machine.script["evaluate"] = in_digits("")
    shown = house.run()
    (gate,) = shown.gates
    assert (shown.status, gate.verdict, gate.value) == (status, verdict, None)
    alone = "warning: 1 was compared with nothing, because there is no champion yet"
    assert gate.reasons[:3] == (
        f"{whole.replace('_', ' ')} 3 must pass: 1 fail, 2 pass: {verdict}",
        "1. train.accuracy at least 0.99: fail (0.95 is below 0.99)",
        f"2. evaluate not worse than the champion by more than 0.03: pass ({alone})",
    )
    assert gate.reasons[-1] == "decision 1 on this test set"


@pytest.mark.parametrize(
    ("served", "verdict", "reason"),
    [
        ("0.25", "pass", "all 2 examples of both have the same prediction, none off by more than 0.001"),
        (
            "0.3",
            "fail",
            "1 of 2 examples differ between served and trained, by up to 0.05 of prediction where 0.001 is",
        ),
        ("cat", "fail", "1 of 2 examples differ between served and trained"),
    ],
)
def test_the_packaged_model_answers_as_the_trained_one(house: House, served: str, verdict: str, reason: str) -> None:
    """A step that asks the package is held against one that asks what was trained, prediction by prediction."""
    evidence = {"inputs": ["src/", "truth.csv"], "evidence": {"predictions": "predictions.csv", "truth": "truth.csv"}}
    steps = {
        **DIGITS["steps"],
        "trained": {"run": "ask trained", **evidence},
        "served": {"run": "ask served", "needs": "package", **evidence},
    }
    gates = {"parity": {"evidence": "served", "same_as": "trained", "tolerance": 0.001}}
    house.commit({**DIGITS, "steps": steps, "gates": gates}, **SOURCE, **{"truth.csv": "id,truth\n1,1\n2,0\n"})
    house.machine.script["ask trained"] = Act(files={"predictions.csv": "id,prediction\n1,1\n2,.25\n"})
    house.machine.script["ask served"] = Act(files={"predictions.csv": f"id,prediction\n2,{served}\n1,1.0\n"})
    (gate,) = house.run(no_deploy=True).gates
    assert (gate.verdict, gate.reasons[0].startswith(reason)) == (verdict, True), gate
