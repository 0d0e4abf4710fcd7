"""Which failures of a report count: names as the file may write them, and days until which a quarantine helps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.parts import Quarantine
from penstock.quarantines import covering, full_name, is_named, stops_early, weigh
from penstock.reports import Status, TestCase, TestReport


def entry(test: str, until: str = "2026-12-31", owner: str = "ana") -> Quarantine:
    return Quarantine(test=test, owner=owner, reason="the service moves", until=until)


def report(**statuses: Status) -> TestReport:
    return TestReport(tuple(TestCase(name, "t", status, 0.0) for name, status in statuses.items()))


@pytest.mark.parametrize(
    ("wanted", "suite", "name", "matches"),
    [
        ("tests/test_a.py::test_b", "tests.test_a", "test_b", True),
        ("tests/test_a.py::TestC::test_b", "tests.test_a.TestC", "test_b", True),
        ("tests.test_a::test_b", "tests.test_a", "test_b", True),
        ("tests/test_a.py::test_b", "tests.test_a", "test_b[1-x]", True),
        ("tests/test_a.py::test_b[1-x]", "tests.test_a", "test_b[1-x]", True),
        ("tests/test_a.py::test_b[a/b.py::c]", "tests.test_a", "test_b[a/b.py::c]", True),
        ("tests/test_a.py::test_b[1]", "tests.test_a", "test_b[1-x]", False),
        ("tests/test_a.py::test_b", "tests.test_a", "test_bc", False),
        ("tests/test_a.py", "tests.test_a", "test_b", False),
        ("test_b", "tests.test_a", "test_b", False),
        ("adds two", "", "adds two", True),
        ("Sums::adds two", "Sums", "adds two", True),
        ("pkg/sums::TestAdd/two", "pkg/sums", "TestAdd/two", True),
    ],
)
def test_what_a_name_means(wanted: str, suite: str, name: str, *, matches: bool) -> None:
    """A test is named as reports do or in pytest's way; without brackets all its parameters are meant."""
    assert is_named(wanted, full_name(suite, name)) is matches


names = st.text(st.sampled_from("ab[].:/ "), min_size=1, max_size=12)


@given(names, names)
def test_every_test_can_be_named(suite: str, name: str) -> None:
    """The full name that is shown means the test that it is shown for."""
    assert is_named(full_name(suite, name), full_name(suite, name))


def test_a_failure_in_quarantine_does_not_count() -> None:
    """What is covered is told apart from what counts, with whose it is, until when, and why."""
    found = weigh(
        report(a="failed", b="errored", c="passed", d="skipped"), [entry("t::b"), entry("t::c")], "2026-06-01"
    )
    assert [case.name for case in found.counted] == ["a"]
    assert found.failure == "1 of 4 tests failed: a (1 more in quarantine)"
    assert found.note == ("1 of 4 tests failed and is in quarantine: b (ana, until 2026-12-31: the service moves)")


@pytest.mark.parametrize(("today", "counts"), [("2026-12-30", False), ("2026-12-31", False), ("2027-01-01", True)])
def test_a_quarantine_ends(today: str, *, counts: bool) -> None:
    """The last day still helps; afterwards the failure counts again, and the sentence says why."""
    found = weigh(report(a="failed"), [entry("t::a")], today)
    assert bool(found.counted) is counts
    told = "1 of 1 tests failed: a; the quarantine of a ended on 2026-12-31 (ana: the service moves)"
    assert found.failure == (told if counts else None)


def test_of_several_entries_the_last_day_counts() -> None:
    """An entry that is over does not undo one that goes on."""
    several = [entry("t::a", "2026-01-01"), entry("t::a", "2026-12-31", "bo"), entry("t::a", "2026-02-01")]
    found = covering(several, "t::a")
    assert found is not None
    assert found.owner == "bo"
    assert weigh(report(a="failed"), several, "2026-06-01").failure is None


def test_nothing_red_says_nothing() -> None:
    """A quarantine whose test passes makes no sentence."""
    found = weigh(report(a="passed"), [entry("t::a")], "2026-06-01")
    assert (found.failure, found.note, found.over) == (None, None, ())


def test_many_are_counted() -> None:
    """Three are named; the others are a number."""
    red: dict[str, Status] = dict.fromkeys("abcde", "failed")
    assert weigh(report(**red), [], "2026-06-01").failure == "5 of 5 tests failed: a, b, c and 2 more"
    note = weigh(report(**red), [entry(f"t::{n}") for n in "abcde"], "2026-06-01").note
    assert note is not None
    assert note.startswith("5 of 5 tests failed and are in quarantine: a (ana,")
    assert note.endswith(" and 2 more")


statuses = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["passed", "failed", "errored", "skipped"]))


@given(statuses, st.sets(st.sampled_from("abcdef")), st.sampled_from(["2026-12-31", "2027-01-01"]))
def test_every_red_test_is_somewhere(found: dict[str, Status], covered: set[str], today: str) -> None:
    """Each red test counts or is forgiven, never both; after its day none is forgiven."""
    weighed = weigh(report(**found), [entry(f"t::{name}") for name in sorted(covered)], today)
    red = {name for name, status in found.items() if status in {"failed", "errored"}}
    counted, forgiven = {c.name for c in weighed.counted}, {c.name for c, _ in weighed.forgiven}
    assert counted | forgiven == red
    assert not counted & forgiven
    assert forgiven == (red & covered if today == "2026-12-31" else set())
    assert (weighed.failure is None) == (not counted)


@pytest.mark.parametrize(
    ("command", "stops"),
    [
        ("pytest -x tests", True),
        ("pytest -qx", True),
        ("pytest -xvs", True),
        ("pytest --exitfirst", True),
        ("pytest --maxfail=1", True),
        ("npx jest --bail", True),
        ("go test -failfast ./...", True),
        ("ctest --stop-on-failure", True),
        ("pytest tests", False),
        ("pytest --junitxml=x.xml -p no:x", False),
        ("pytest -k x --maxfailure-like", False),
        ("set -ex; tar -xf data.tar; pytest tests", False),
        ("pytest tests; tar -xf data.tar", False),
    ],
)
def test_what_stops_early(command: str, *, stops: bool) -> None:
    """Options by which usual tools end at a first failure, alone or among others."""
    assert stops_early(command) is stops
