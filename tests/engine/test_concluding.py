"""What is kept of a step's tests, and what a quarantine makes of red ones: whole runs on a scripted machine."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.builders import FAILED_CASE, JUNIT, House, step
from penstock.engine.hearing import results_folder
from penstock.engine.views import to_json
from penstock.runners.scripted import LOST, Act
from penstock.runs import StepView

DAY = 86400.0
SOURCE = {"src__a.py": "A = 1\n"}
GREEN, RED = (Act(code, files={"junit.xml": JUNIT.format(case)}) for code, case in ((0, ""), (1, FAILED_CASE)))
OTHER = """<testcase classname="t" name="multiplies"><error message="no"/></testcase>"""


def day(house: House, later: int) -> str:
    """A day so many days from the house's now."""
    return (datetime.fromtimestamp(house.clock.now(), UTC) + timedelta(later)).date().isoformat()


def pipeline(**fields: Any) -> dict[str, Any]:
    return {"steps": {"unit": {"run": "run the units", "inputs": ["src/"], "report": "junit.xml", **fields}}}


def in_quarantine(house: House, later: int = 2, **fields: Any) -> dict[str, Any]:
    entry = {"test": "t::divides", "owner": "ana", "reason": "it waits", "until": day(house, later)}
    return pipeline(quarantine=[entry], **fields)


def unit(house: House, act: Act, **options: Any) -> StepView:
    """The step in a run in which its command does this."""
    house.machine.script["run the units"] = act
    return step(house.run(**options), "unit")


def kept(house: House) -> list[tuple[int, int, Mapping[str, str]]]:
    """What trusted runs observed of all tests: run, attempt, and statuses by name."""
    cases = house.store.cases
    project = house.store.runs.projects()[0].id
    found: dict[tuple[int, int], dict[str, str]] = {}
    tests = {record.test: record.name for _, record in cases.named(project, "", 99)}
    for number, observations in cases.observations(project, "unit", list(tests)).items():
        for o in observations:
            found.setdefault((o.run, o.attempt), {})[tests[number]] = o.status
    return [(*key, statuses) for key, statuses in sorted(found.items())]


BOTH = {"adds": "passed", "divides": "failed"}

# --- what is kept --------------------------------------------------------------------------------------------------


def test_every_attempt_is_an_observation(house: House) -> None:
    """Red results and those before a retry are kept like green ones; what the cache knew is no new observation."""
    house.commit(pipeline(retry={"max": 1, "on": ["exit"], "backoff": 0.001}), **SOURCE)
    assert unit(house, RED).status == "failed"
    assert unit(house, GREEN).status == "passed"
    again = house.run()
    assert step(again, "unit").cached
    assert kept(house) == [(1, 1, BOTH), (1, 2, BOTH), (2, 1, {"adds": "passed"})]
    found = [house.store.cases.observed(run, "unit") for run in (1, 2, 3)]
    assert [one and (one.run, one.attempt) for one in found] == [(1, 2), (2, 1), (2, 1)]


def test_what_they_ran_on_is_the_steps_key(house: House) -> None:
    """Results with equal names ran on equal inputs: a commit that changes none has the same, another has not."""
    house.commit(pipeline(cache=False), **SOURCE, **{"README.md": "one\n"})
    unit(house, RED)
    house.repo.commit(**{"README.md": "two\n"})
    unit(house, GREEN)
    house.repo.commit(**{"src/a.py": "A = 2\n"})
    unit(house, GREEN)
    reports = [house.store.cases.report(number) for number in (1, 2, 3)]
    first, second, third = (found.inputs for found in reports if found is not None)
    assert first == second == house.store.runs.step(1, "unit").key
    assert second != third


def test_a_step_without_results_keeps_none(house: House) -> None:
    """A report that is not there or cannot be read, and an empty one, are no observation."""
    house.commit(pipeline(cache=False), **SOURCE)
    for act in (Act(1), Act(1, files={"junit.xml": "<not"}), Act(0, files={"junit.xml": "<testsuite/>"})):
        unit(house, act)
    assert kept(house) == []


def test_an_untrusted_change_keeps_apart(house: House) -> None:
    """What a change from outside observed is in nobody's history."""
    house.commit(pipeline(), **SOURCE)
    unit(house, RED, scope="fork")
    assert kept(house) == []
    assert house.store.cases.observed(1, "unit") is not None


# --- quarantine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exit_code", [0, 1, 8])
def test_a_failure_in_quarantine_does_not_redden(house: House, exit_code: int) -> None:
    """The step passes and says whose test it is; a red exit code that means nothing else counts as passed."""
    house.commit(in_quarantine(house), **SOURCE)
    found = unit(house, Act(exit_code, files=RED.files))
    note = f"1 of 2 tests failed and is in quarantine: divides (ana, until {day(house, 2)}: it waits)"
    assert found.status == "passed"
    assert found.reason == (note if exit_code == 0 else f"exit code {exit_code} counts as passed: {note}")
    assert house.last().status == "passed"
    assert kept(house) == [(1, 1, BOTH)]
    (shown,) = [r for _, r in house.store.cases.named(house.store.runs.projects()[0].id, "divides", 5)]
    assert (shown.status, shown.quarantined) == ("failed", True)


def test_the_last_day_counts_and_then_it_is_over(house: House) -> None:
    """On its last day a quarantine helps, on the next the failure counts though nothing changed, and that is said."""
    house.commit(in_quarantine(house, later=1), **SOURCE)
    assert unit(house, RED).status == "passed"
    house.clock.ahead = DAY
    last = day(house, 0)
    assert unit(house, RED).status == "passed"
    house.clock.ahead = 2 * DAY
    found = unit(house, RED)
    assert (found.status, found.cached) == ("failed", False)
    assert found.reason == f"1 of 2 tests failed: divides; the quarantine of divides ended on {last} (ana: it waits)"


def test_what_was_forgiven_is_not_reused(house: House) -> None:
    """A pass that hangs on a quarantine is made again each time, also in a rerun of what failed."""
    steps = in_quarantine(house)["steps"]
    house.commit({"steps": {**steps, "other": {"run": "do the other", "inputs": ["src/"]}}}, **SOURCE)
    house.machine.script["do the other"] = 1
    assert not unit(house, RED).cached
    assert not unit(house, RED).cached
    assert not unit(house, RED, failed_of=2).cached
    assert not unit(house, GREEN).cached
    assert unit(house, GREEN).cached


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(1, files={"junit.xml": JUNIT.format(FAILED_CASE + OTHER)}), "1 of 3 tests failed: multiplies"),
        (Act(1, files=GREEN.files), "exit code 1"),
        (Act(-9, files=RED.files), "was killed by signal 9, which may mean more than what is in quarantine: 1 of 2"),
        (Act(1, files=RED.files, oom=True), "ran out of memory, which may mean more than"),
        (Act(1), "exit code 1"),
    ],
)
def test_any_other_red_exit_stays_red(house: House, act: Act, reason: str) -> None:
    """A failure outside of quarantine, a report without one, a signal, and no report at all are failures."""
    house.commit(in_quarantine(house), **SOURCE)
    found = unit(house, act)
    assert found.status == "failed"
    assert (found.reason or "").startswith(reason)


def test_a_command_that_stops_early_is_not_forgiven(house: House) -> None:
    """What ends at the first failure may not have come to the next one."""
    house.commit(in_quarantine(house, run="run the units --bail"), **SOURCE)
    found = unit(house, RED)
    assert found.status == "failed"
    assert (found.reason or "").startswith("exit code 1, which may mean more than what is in quarantine: 1 of 2 tests")


def test_a_lost_process_is_an_error(house: House) -> None:
    """Where nobody knows how it ended a quarantine tells nothing."""
    house.commit(in_quarantine(house), **SOURCE)
    lost = Act(None, files=RED.files)
    assert LOST.exit_code is lost.exit_code
    assert unit(house, lost).status == "errored"


def test_a_forgiven_step_leaves_its_outputs(house: House) -> None:
    """What needs it goes on with what it wrote; an output that is missing fails it."""
    named = in_quarantine(house, outputs=["made/"])["steps"]
    then = {"run": "use it", "inputs": ["made/"]}
    house.commit({"steps": {**named, "then": then}}, **SOURCE)
    assert unit(house, Act(1, files={**RED.files, "made/it": "1"})).status == "passed"
    assert house.last().status == "passed"
    assert house.machine.found["1.then.1"] == {"made/it"}
    missing = unit(house, RED)
    assert (missing.status, missing.reason) == ("failed", "ended well but did not write made/, which it declares")


# --- pytest without a file -----------------------------------------------------------------------------------------


class Pytest:
    """The scripted machine's pytest: writes what the plugin would, where the step was told to."""

    def __init__(self, house: House, *lines: Any) -> None:
        start = house.machine.start

        def told(spec: Any) -> Any:
            folder = spec.variables.get("PENSTOCK_TESTS")
            if folder is not None:
                assert Path(folder) == results_folder(spec.workspace)
                (Path(folder) / "1").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            return start(spec)

        house.machine.start = told  # type: ignore[method-assign] # a machine with a pytest on it


PASSES, FAILS = ["t", "adds", "passed", 0.5, ""], ["t", "divides", "failed", 0.1, "1 != 2"]
END = {"exit": 1, "whole": True}


def pytest_step(house: House, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = in_quarantine(house, run="run the units by pytest", **fields)["steps"]["unit"]
    return {"steps": {"unit": {k: v for k, v in found.items() if k != "report"}}}


def test_pytest_needs_no_report(house: House) -> None:
    """Which tests failed is told instead of an exit code, and they are kept; the cache's key is as without."""
    house.commit({"steps": {"unit": {"run": "run the units by pytest", "inputs": ["src/"]}}}, **SOURCE)
    Pytest(house, PASSES, FAILS, END)
    found = unit(house, Act(1))
    assert (found.status, found.reason) == ("failed", "1 of 2 tests failed: divides")
    assert kept(house) == [(1, 1, BOTH)]


def test_it_only_tells(house: House) -> None:
    """A green exit code stays green where pytest told of failures: without a report nobody asked for more."""
    house.commit({"steps": {"unit": {"run": "run the units by pytest", "inputs": ["src/"]}}}, **SOURCE)
    Pytest(house, PASSES, FAILS, END)
    assert unit(house, Act(0)).status == "passed"
    assert kept(house) == [(1, 1, BOTH)]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([PASSES, FAILS, END], "passed"),
        ([PASSES, FAILS], "failed"),
        ([PASSES, FAILS, {**END, "whole": False}], "failed"),
        ([PASSES, FAILS, {**END, "exit": 2}], "failed"),
        ([PASSES, FAILS, "torn", END], "failed"),
        ([PASSES, END], "failed"),
    ],
)
def test_only_a_whole_session_is_forgiven(house: House, lines: list[Any], status: str) -> None:
    """A pytest that was stopped, interrupted or killed may have missed another failure."""
    house.commit(pytest_step(house), **SOURCE)
    Pytest(house, *lines)
    assert unit(house, Act(1)).status == status


def test_other_steps_are_left_alone(house: House) -> None:
    """A step with a report, and one without pytest, has no variable of the plugin."""
    other = {"run": "do the other", "inputs": ["src/"]}
    named = {"run": "run the units by pytest", "inputs": ["src/"], "report": "junit.xml"}
    house.commit({"steps": {"unit": named, "other": other}}, **SOURCE)
    unit(house, GREEN)
    names = {spec.id: "PENSTOCK_TESTS" in spec.variables for spec in house.machine.started}
    assert names["1.unit.1"] is names["1.other.1"] is False


def test_a_step_with_secrets_keeps_no_messages(house: House) -> None:
    """What a test says of itself may hold a secret, so it is neither written nor kept."""
    house.world = replace(house.world, secrets=lambda *_: {"TOKEN": "a secret"})
    house.commit({"steps": {"unit": {"run": "run the units by pytest", "secrets": ["TOKEN"]}}}, **SOURCE)
    Pytest(house, PASSES, FAILS, END)
    unit(house, Act(1))
    (spec,) = [spec for spec in house.machine.started if spec.id == "1.unit.1"]
    assert (results_folder(spec.workspace) / "quiet").exists()
    found = house.store.cases.observed(1, "unit")
    assert found is not None
    assert [record.message for record in house.store.cases.results(found.id)] == ["", ""]


def test_a_run_shows_its_red_tests(house: House) -> None:
    """The run object has each test that failed, with its step and whether that counts."""
    house.commit(in_quarantine(house), **SOURCE)
    unit(house, Act(1, files={"junit.xml": JUNIT.format(FAILED_CASE + OTHER)}))
    found = to_json(house.last())["tests"]
    assert [(t["step"], t["test"], t["status"], t["quarantine"] is None) for t in found] == [
        ("unit", "t::divides", "failed", False),
        ("unit", "t::multiplies", "errored", True),
    ]


# --- the gate on tests ---------------------------------------------------------------------------------------------


def gated(house: House, steps: Mapping[str, Any] | None = None, **rule: Any) -> dict[str, Any]:
    """A step that may be red, and a gate that allows no new failure."""
    steps = steps or pipeline(allow_failure=True)["steps"]
    return {"steps": steps, "gates": {"steady": {"tests": "unit", "no_new_failures": "champion", **rule}}}


def verdict(house: House) -> tuple[str | None, tuple[str, ...]]:
    (gate,) = house.last().gates
    return gate.verdict, gate.reasons


def change(house: House) -> None:
    house.repo.commit(**{"src/a.py": f"A = {len(house.store.runs.latest(limit=100)) + 1}\n"})


def test_no_new_failure(house: House) -> None:
    """What failed in the baseline may fail; a test that passed there may not, and is named."""
    house.commit(gated(house), **SOURCE)
    unit(house, Act(0, files={"junit.xml": JUNIT.format(OTHER)}))
    found, reasons = verdict(house)
    assert (found, reasons[1:]) == ("pass", ("failed: t::multiplies",))
    assert reasons[0].startswith("warning: 1 was compared with nothing, because there is no champion yet")
    first = house.last().version
    change(house)
    unit(house, Act(1, files={"junit.xml": JUNIT.format(OTHER)}))
    assert (house.last().status, verdict(house)[0]) == ("passed", "pass")
    assert verdict(house)[1][0].startswith(f"no new failure against the champion {first} in 2 tests; 1 failed there")
    change(house)
    unit(house, Act(1, files={"junit.xml": JUNIT.format(FAILED_CASE)}))
    (found, reasons) = verdict(house)
    assert (house.last().status, found) == ("failed", "fail")
    assert reasons[0].startswith("1 new failure against the champion")
    assert reasons[0].endswith(": t::divides")
    assert reasons[1].endswith("did not run here: t::multiplies")


def test_a_reused_result_is_compared_by_the_run_that_made_it(house: House) -> None:
    """Where the cache knew the step, its tests are those of the earlier run, on both sides."""
    house.commit(gated(house), **SOURCE)
    unit(house, GREEN)
    house.repo.commit(**{"README.md": "nothing that the tests read\n"})
    assert unit(house, GREEN).cached
    found, reasons = verdict(house)
    assert found == "pass"
    assert reasons[0].startswith("no new failure against the champion")
    change(house)
    unit(house, RED)
    assert verdict(house)[1][0].endswith(": t::divides")


def test_the_gate_leaves_out_what_is_in_quarantine(house: House) -> None:
    """A failure that does not count for the step does not count for the gate, which says so."""
    house.commit(gated(house, in_quarantine(house)["steps"]), **SOURCE)
    unit(house, GREEN)
    change(house)
    unit(house, RED)
    found, reasons = verdict(house)
    assert found == "pass"
    assert reasons[-1] == "left out, being in quarantine: t::divides"


def test_a_step_that_told_nothing_is_an_error_of_its_gate(house: House) -> None:
    """No results are never taken for no failures."""
    house.commit(gated(house), **SOURCE)
    unit(house, Act(1))
    assert verdict(house)[0] == "errored"
    assert house.last().status == "errored"


def test_results_that_are_not_kept_any_more(house: House) -> None:
    """A cached step whose observation is too old says so, and what to do."""
    house.commit(gated(house), **SOURCE)
    unit(house, GREEN)
    with house.store.transaction():
        house.store._connection.exec_driver_sql("DELETE FROM test_reports")
    unit(house, GREEN)
    found, (reason,) = verdict(house)
    assert found == "errored"
    assert reason.endswith("not kept any more: run it --no-cache")
    house.repo.commit(**{"src/a.py": "A = 2\n"})
    unit(house, GREEN)
    found, (reason,) = verdict(house)
    assert found == "inconclusive"
    assert "has no results of these tests" in reason
