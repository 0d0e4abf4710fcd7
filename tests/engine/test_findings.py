"""Gates on coverage, benchmarks and the model's files, on a real store, cache and git."""

from typing import Any

import pytest

from engine.builders import House
from penstock.artifacts import Digest, digest_of_bytes
from penstock.baselines import Origin
from penstock.engine.building import OwnSteps
from penstock.models import model_from
from penstock.runners.scripted import Act
from penstock.runs import RunView
from pure.model_files import safetensors

TINY: dict[str, Any] = {
    "steps": {
        "train": {"run": "train it", "inputs": ["src/"], "outputs": ["model/"]},
        "unit": {"run": "cover it", "inputs": ["src/"], "coverage": "c.info"},
        "bench": {"run": "time it", "inputs": ["src/"], "benchmark": "b.json"},
    },
    "package": {"model": ["model/"], "code": ["src/"]},
}
MODEL = safetensors({"a": ("F32", [5], 20)}).decode("latin-1")
LCOV = "SF:src/a.py\nDA:1,1\nDA:2,0\nend_of_record\n"


def run(house: House, gates: dict[str, Any], **files: str) -> RunView:
    """A run of a new commit whose steps write these files; `bench` and `report` stand for theirs."""
    number = len(house.store.runs.latest(limit=100))
    script = house.machine.script
    script["train it"] = Act(files={"model/w": files.get("model", MODEL)})
    script["cover it"] = Act(files={"c.info": files.get("report", LCOV)})
    script["time it"] = Act(files={"b.json": files.get("bench", '{"load": 5}')})
    house.commit({**TINY, "gates": gates}, src__a=f"A = {number}\nB = {number}\n")
    return house.run()


def judged(shown: RunView) -> dict[str, tuple[str | None, str]]:
    return {gate.name: (gate.verdict, "; ".join(gate.reasons)) for gate in shown.gates}


def ratio(**more: Any) -> dict[str, Any]:
    return {"fast": {"benchmark": "bench.load", "ratio_to": "branch:main", "at_most": 1.1, **more}}


def test_a_benchmark_that_is_not_there_gets_a_hint(house: House) -> None:
    """The nearest name, all names, or that there is none; and so where there is no baseline yet."""
    for name, said in (
        ("bench.loud", "there is no benchmark bench.loud: did you mean bench.load?"),
        ("bench.xyz", "there is no benchmark bench.xyz: there are load"),
    ):
        shown = run(house, {"fast": {"benchmark": name, "ratio_to": "branch:main", "at_most": 1.1}})
        assert judged(shown)["fast"] == ("errored", said)
    nothing = run(house, ratio(), bench='{"none": {}}')
    assert judged(nothing)["fast"] == ("errored", "there is no benchmark bench.load: step bench left none")


@pytest.mark.parametrize(
    ("before", "after", "verdict", "reason"),
    [
        ('{"load": 10}', '{"load": 10.5}', "pass", "1.05 is at most 1.1: 10.5 against 10 of branch main"),
        ('{"load": [1,1,1,1,1]}', '{"load": [2,2,2,2,2]}', "fail", "by the medians of 5 and 5 rounds"),
        ('{"load": [1,1,1,1]}', '{"load": [2,2,2,2]}', "fail", "2 is above 1.1: 2 against 1 of branch main"),
        ('{"load": 1}', '{"load": [2,2,2,2,2]}', "pass", "warning: 2 was compared with nothing"),
        (
            '{"benchmarks": [{"name": "load", "stats": {"median": 0.001}}]}',
            '{"benchmarks": [{"name": "load", "stats": {"median": 0.002, "data": [0.002, 0.002, 0.002]}}]}',
            "fail",
            "2 is above 1.1: 2 against 1 of branch main",
        ),
        ('{"load": 1}', '{"load": 0}', "errored", "bench.load is 0 in a round"),
    ],
)
def test_both_sides_are_compared_in_one_unit(house: House, before: str, after: str, verdict: str, reason: str) -> None:
    """Rounds with rounds, else the same number of both; milliseconds are never divided by seconds."""
    run(house, {}, bench=before)
    found = judged(run(house, ratio(), bench=after))["fast"]
    assert found[0] == verdict
    assert reason in found[1]


ELSEWHERE = Origin(hardware={"machine": "vax", "processor": "KA630", "cpus": 1, "gpus": []})
TAKEN = {
    **TINY,
    "steps": {
        "train": {"run": "train it", "inputs": ["data/"], "outputs": ["model/"]},
        "bench": {"run": "time it", "inputs": ["src/"], "benchmark": "b.json"},
    },
}


def changed(house: House, number: int, *, measured: bool, gates: dict[str, Any] | None = None) -> RunView:
    """A run of a commit that changes what is trained, and what is measured if so; else that is taken over."""
    script = house.machine.script
    script["train it"], script["time it"] = Act(files={"model/w": MODEL}), Act(files={"b.json": '{"load": 5}'})
    files = {"src__a": f"A = {number}\n"} if measured else {}
    house.repo.put("data/d", str(number))
    house.commit({**TAKEN, "gates": ratio() if gates is None else gates}, **files)
    return house.run()


def test_a_benchmark_was_measured_where_its_step_ran(house: House) -> None:
    """Taken over from a run elsewhere it is compared with what ran elsewhere, and with nothing that runs here."""
    changed(house, 1, measured=True, gates={})
    house.store.baselines.keep_origin(1, ELSEWHERE)
    assert judged(changed(house, 2, measured=False))["fast"][0] == "pass"
    found = judged(changed(house, 3, measured=True))["fast"]
    assert found[0] == "inconclusive"
    assert "branch main (" in found[1]
    assert "1 × KA630" in found[1]


def test_a_benchmark_of_a_run_that_kept_no_hardware_was_measured_where_runs_were(house: House) -> None:
    """Here, where nothing says else; where the last sound run before was elsewhere it cannot be told."""
    red = {"never": {"model": "size", "at_most": 1}}
    changed(house, 1, measured=True, gates=red)
    changed(house, 2, measured=False, gates={})
    assert judged(changed(house, 3, measured=False))["fast"][0] == "pass"
    changed(house, 4, measured=True, gates=red)
    house.store.baselines.keep_origin(3, ELSEWHERE)
    found = judged(changed(house, 5, measured=False))["fast"]
    assert found == ("inconclusive", "it is not known on which hardware step bench was measured: run it --no-cache")


def test_a_baseline_whose_file_is_gone_is_no_measure(house: House) -> None:
    """Its bytes are read again from the cache, which may have lost them."""
    run(house, {}, bench='{"load": 1}')
    collected = next(r for r in house.store.runs.steps(1) if r.name == "bench").result
    assert collected is not None
    digest = digest_of_bytes(b'{"load": 1}')
    assert digest in house.world.cache.tree(Digest(collected["collected"])).digests()
    (house.world.home.cache / "blobs" / digest[:2] / digest[2:]).unlink()
    found = judged(run(house, ratio(), bench='{"load": 2}'))["fast"]
    assert found[0] == "inconclusive"
    assert "has benchmarks that are no longer in the cache" in found[1]


def test_coverage_of_all_and_of_the_change(house: House) -> None:
    """By the commit's own lines; a report without lines errs."""
    rules = {
        "all": {"coverage": "unit", "at_least": 0.5},
        "change": {"coverage": "unit", "of": "change", "at_least": 0.5},
    }
    house.repo.put("src/a.py", "x = 1\ny = 2\n")
    first = judged(run(house, rules))
    assert first["all"] == ("pass", "50 % is at least 50 %: 1 of 2 lines ran")
    assert first["change"][0] == "pass"
    house.repo.put("src/a.py", "x = 1\ny = 3\n")
    second = judged(run(house, rules))
    assert second["change"][0] == "fail"
    assert "not covered: src/a.py:2" in second["change"][1]
    empty = judged(run(house, rules, report="SF:src/a.py\nend_of_record\n"))
    assert {verdict for verdict, _ in empty.values()} == {"errored"}


def test_the_lineage_says_what_the_model_is(house: House) -> None:
    """Seen when the package is made, and not again for the same package."""
    rules = {"few": {"model": "parameters", "at_most": 5}, "small": {"model": "size", "at_most": 1}}
    shown = run(house, rules)
    assert judged(shown)["few"] == ("pass", "5 is at most 5: the numbers in the tensors of 1 file")
    assert judged(shown)["small"][0] == "fail"
    (record,) = house.store.runs.packages(house.store.runs.get(1).project)
    assert model_from(record.lineage["model"]).parameters == 5
    assert record.lineage["model"]["files"]["model/w"]["size"] == len(MODEL.encode())


def test_a_package_of_an_older_version_is_looked_at(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run goes on whose lineage does not say what the model is."""

    async def unseen(*_: object) -> None:
        """As before lineages said it."""

    monkeypatch.setattr(OwnSteps, "_seen", unseen)
    assert judged(run(house, {"few": {"model": "parameters", "at_most": 5}}))["few"][0] == "pass"
    (record,) = house.store.runs.packages(house.store.runs.get(1).project)
    assert "model" not in record.lineage
