"""What is known of a project's tests after real runs: failing, flaky, in quarantine, slow, and found by name."""

import pytest

from engine.builders import JUNIT, House
from engine.test_concluding import GREEN, RED, SOURCE, day, in_quarantine, pipeline, unit
from penstock.engine.observations import KnownTest, StepTests, known_by_name, known_of_step
from penstock.runners.scripted import Act
from penstock.store.contract import Project

MORE = '<testcase classname="t" name="adds[1]" time="3"/><testcase classname="t" name="adds[2]"><skipped/></testcase>'


def project(house: House) -> Project:
    (found,) = house.store.runs.projects()
    return found


def known(house: House, step: str = "unit") -> StepTests | None:
    return known_of_step(house.store, project(house).id, step, house.clock.now(), 2)


def named(house: House, name: str, limit: int = 9) -> list[KnownTest]:
    return list(known_by_name(house.store, project(house).id, name, limit))


def test_what_is_known_of_a_step(house: House) -> None:
    """The newest report counts; a test is red since the run in which that began, and the slowest are told."""
    house.commit(pipeline(cache=False), **SOURCE)
    unit(house, GREEN)
    unit(house, RED)
    unit(house, Act(1, files={"junit.xml": RED.files["junit.xml"].replace("</testsuite>", f"{MORE}</testsuite>")}))
    found = known(house)
    assert found is not None
    assert (found.report.run, found.counts) == (3, {"passed": 2, "failed": 1, "errored": 0, "skipped": 1})
    assert [(test.test, test.since, test.message) for test in found.failing] == [("t::divides", 2, "1 != 2")]
    assert (found.flaky, found.quarantine) == ((), ())
    assert found.slowest[0] == ("t::adds[1]", 3.0)
    assert len(found.slowest) == 2


def test_a_step_that_told_nothing(house: House) -> None:
    """Of a step without results nothing is known."""
    house.commit(pipeline(), **SOURCE)
    unit(house, Act(1))
    assert known(house) is None
    assert known(house, "other") is None


def test_flaky_ones_are_found(house: House) -> None:
    """A test that flips on unchanged inputs is flaky, and its history says when."""
    house.commit(pipeline(cache=False), **SOURCE)
    for _ in range(3):
        unit(house, RED)
        unit(house, Act(0, files={"junit.xml": RED.files["junit.xml"].replace('<failure message="1 != 2"/>', "")}))
    found = known(house)
    assert found is not None
    assert [(test.test, test.status, test.since) for test in found.flaky] == [("t::divides", "passed", None)]
    (flaky,) = named(house, "t::divides")
    assert flaky.flakiness is not None
    assert (flaky.flakiness.flips, flaky.flakiness.pairs) == (5, 5)
    assert [seen.run for seen in flaky.history] == [1, 2, 3, 4, 5, 6]
    assert flaky.history[0].inputs == flaky.history[-1].inputs


def test_a_quarantine_is_known_with_its_tests(house: House) -> None:
    """While it goes on its test is not among those that fail; after its day it is, and both say so."""
    house.commit(in_quarantine(house, later=1), **SOURCE)
    unit(house, RED)
    found = known(house)
    assert found is not None
    assert found.failing == ()
    (entry,) = found.quarantine
    assert (entry.entry.until, entry.statuses, entry.is_over) == (day(house, 1), ("failed",), False)
    house.clock.ahead = 2 * 86400.0
    found = known(house)
    assert found is not None
    assert [test.test for test in found.failing] == ["t::divides"]
    assert found.quarantine[0].is_over
    (test,) = named(house, "t::divides")
    assert test.quarantine is not None
    assert test.quarantine.owner == "ana"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t::adds", ["t::adds", "t::adds[1]", "t::adds[2]"]),
        ("t.adds[1]", ["t::adds[1]"]),
        ("t.py::adds[1]", ["t::adds[1]"]),
        ("dd", ["t::adds", "t::adds[1]", "t::adds[2]"]),
        ("[2]", ["t::adds[2]"]),
        ("nothing", []),
    ],
)
def test_tests_are_found_by_name(house: House, name: str, expected: list[str]) -> None:
    """A whole name, in either way, means its test with all parameters; any other text those that hold it."""
    house.commit(pipeline(), **SOURCE)
    unit(house, Act(0, files={"junit.xml": JUNIT.format(MORE)}))
    assert [test.test for test in named(house, name)] == expected
    assert len(named(house, name, limit=1)) == min(1, len(expected))
