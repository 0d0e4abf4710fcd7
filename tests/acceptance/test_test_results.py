"""Tests of a real project: pytest without a file, quarantine, flaky tests, and what `tests` and `show` say of them."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from acceptance.tiny import Tiny, end, make
from docs.test_docs import first_cells_of_keys, keys, page, section

UNTIL = (datetime.now(UTC) + timedelta(30)).date().isoformat()
PIPELINE = f"""\
name: tiny
variables: {{PYTHONDONTWRITEBYTECODE: "1"}}
steps:
  unit:
    run: {sys.executable} -m pytest -q -p no:cacheprovider -p no:randomly tests
    inputs: [tests/]
    cache: false
    quarantine:
      - {{test: "tests/test_a.py::test_shelved", owner: ana, reason: waits for a service, until: {UNTIL}}}
      - {{test: "tests/test_a.py::test_over", owner: bo, reason: was broken, until: 2020-01-31}}
  reported:
    run: {sys.executable} -m pytest -q -p no:cacheprovider --junitxml=junit.xml tests/test_b.py
    inputs: [tests/]
    report: junit.xml
"""
TEST_A = """\
import os

def test_fine(): pass

def test_shelved(): assert False, "the service has moved"

def test_over(): pass

def test_shaky():
    assert int(os.environ["PENSTOCK_RUN"]) % 2, "by chance"
"""


@pytest.fixture
def project(tmp_path: Path) -> Tiny:
    """A project whose steps are pytests."""
    tiny = make(tmp_path)
    tiny.repo.put("penstock.yaml", PIPELINE)
    tiny.repo.put("tests/test_a.py", TEST_A)
    tiny.repo.put("tests/test_b.py", "def test_b(): pass\n")
    tiny.commit()
    return tiny


def test_tests_are_known_without_a_file(project: Tiny) -> None:
    """A pytest step tells each test; the one in quarantine does not redden it, and a flaky one does.

    Afterwards the verb says what is flaky and in quarantine, and a history leads back to every run.
    """
    for number in range(1, 7):
        run = project.run(code=0 if number % 2 else 1)
        unit = next(step for step in run["steps"] if step["name"] == "unit")
        assert unit["exit_code"] == 1
        names = {test["test"]: test["quarantine"] for test in run["tests"]}
        assert names["tests.test_a::test_shelved"] == f"ana, until {UNTIL}: waits for a service"
        assert ("tests.test_a::test_shaky" in names) is (number % 2 == 0)
    assert unit["reason"] == "1 of 5 tests failed: test_shaky (1 more in quarantine)"
    found = project("tests", "--json").json
    assert first_cells_of_keys(section(page("docs/commands.md"), "The tests object")) == list(_flat(found))
    reported, unit = found["steps"]
    assert (reported["step"], reported["run"], reported["passed"]) == ("reported", 1, 1)
    (shaky,) = unit["flaky"]
    assert (shaky["flaky"]["flips"], shaky["flaky"]["pairs"], shaky["since"]) == (5, 5, 6)
    assert [(q["owner"], q["is_over"], q["statuses"]) for q in unit["quarantine"]] == [
        ("ana", False, ["failed"]),
        ("bo", True, ["passed"]),
    ]
    assert [test["test"] for test in unit["failing"]] == ["tests.test_a::test_shaky"]
    shown = project("tests").out
    for words in ("disagreed with itself 5 of 5 times", f"ana, until {UNTIL}", "it is over", "slowest"):
        assert words in shown
    shown = project("show", "6").out
    assert f"in quarantine (ana, until {UNTIL}: waits for a service)" in shown
    assert "flaky: disagreed with itself" in shown
    history = project("tests", "tests/test_a.py::test_shaky", "--json").json["tests"]
    assert [one["run"] for one in history[0]["history"]] == [1, 2, 3, 4, 5, 6]
    assert "attempt" in history[0]["history"][0]
    assert "run 6 failed" in " ".join(project("tests", "shaky").out.split())
    assert "test_shelved" in project("tests", "test_").out
    project("tests", "nothing_like_it", code=2).refuses("nothing_like_it", "reported, unit")
    _insist_that_the_history_object_is_documented(project)
    end(project.command, project.repo.folder)


def _insist_that_the_history_object_is_documented(project: Tiny) -> None:
    """A test that is flaky and in quarantine has every key of the page."""
    project.edit("penstock.yaml", "test_over", "test_shaky")
    project.edit("penstock.yaml", "2020-01-31", UNTIL)
    project.commit()
    project("run", code=None)
    (found,) = project("tests", "test_shaky", "--json").json["tests"]
    assert first_cells_of_keys(section(page("docs/commands.md"), "The test history object")) == list(keys(found))


def _flat(found: dict[str, object]) -> list[str]:
    """The keys of the object as its page has them: tests and entries of quarantines have tables of their own."""
    inner = ("failing", "flaky", "quarantine", "slowest")
    return [key for key in keys(found) if not any(f"{name}[]" in key for name in inner)]


def test_a_home_without_tests_says_so(tiny: Tiny) -> None:
    """Where no step told of tests there is nothing to show, and the sentence says what to do."""
    tiny.run("--no-deploy")
    assert "give one a report, or have it run pytest" in tiny("tests").out
    assert tiny("tests", "--json").json == {"project": "tiny", "steps": [], "tests": []}
