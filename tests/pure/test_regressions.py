"""No new failure: what fails here and not in the baseline is named, and what could hide a failure is said."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.flakes import RED
from penstock.pipelines import Gate
from penstock.regressions import TestBaseline, judge_tests
from penstock.reports import Status

GATE = Gate.model_validate({"name": "no_regression", "tests": "unit", "no_new_failures": "champion"})
GREEN: dict[str, Status] = {"a": "passed", "b": "passed"}


def champion(results: Mapping[str, Status] | None) -> TestBaseline:
    return TestBaseline("the champion 1.4.0", results)


def test_no_failure_passes() -> None:
    """Where nothing fails there is nothing new."""
    found = judge_tests(GATE, GREEN, champion(GREEN))
    assert (found.verdict, found.value) == ("pass", 0.0)
    assert found.reasons == ("no new failure against the champion 1.4.0 in 2 tests",)


def test_a_known_failure_passes() -> None:
    """What failed in the baseline may fail, however it ended there."""
    found = judge_tests(GATE, {**GREEN, "c": "failed"}, champion({**GREEN, "c": "errored"}))
    assert (found.verdict, found.value) == ("pass", 0.0)
    assert found.reasons == ("no new failure against the champion 1.4.0 in 3 tests; 1 failed there too",)


@pytest.mark.parametrize("before", ["passed", "skipped", None])
def test_a_new_failure_fails(before: Status | None) -> None:
    """A test that passed, was skipped or was not there, and fails now, is named."""
    theirs: dict[str, Status] = GREEN if before is None else {**GREEN, "c": before}
    found = judge_tests(GATE, {**GREEN, "c": "failed"}, champion(theirs))
    assert (found.verdict, found.value) == ("fail", 1.0)
    assert found.reasons == ("1 new failure against the champion 1.4.0: c",)


def test_the_first_three_are_named() -> None:
    """Of many new failures three are named in order, the others counted."""
    found = judge_tests(GATE, dict.fromkeys("edcba", "errored"), champion(GREEN))
    assert found.value == 5.0
    assert found.reasons == ("5 new failures against the champion 1.4.0: a, b, c and 2 more",)


def test_what_vanished_is_said() -> None:
    """A test that ran in the baseline and not here might have failed; one that was skipped there might not."""
    theirs: dict[str, Status] = {**GREEN, "old": "failed", "idle": "skipped"}
    found = judge_tests(GATE, GREEN, champion(theirs))
    assert found.verdict == "pass"
    assert found.reasons[1:] == ("1 test of the champion 1.4.0 did not run here: old",)


def test_what_is_in_quarantine_is_left_out() -> None:
    """Its failure is no new one, and it is said that it was left out; where it passes nothing is said."""
    mine: dict[str, Status] = {**GREEN, "c": "failed"}
    found = judge_tests(GATE, mine, champion(GREEN), {"c", "a"})
    assert (found.verdict, found.value) == ("pass", 0.0)
    assert found.reasons[1:] == ("left out, being in quarantine: c",)


def test_no_baseline_yet() -> None:
    """The first time it passes with a warning that names what failed, unless the gate requires a baseline."""
    mine: dict[str, Status] = {**GREEN, "c": "failed"}
    found = judge_tests(GATE, mine, None)
    assert (found.verdict, found.value) == ("pass", 1.0)
    why = "warning: 1 was compared with nothing, because there is no champion yet"
    assert found.reasons == (why, "failed: c")
    assert "the branch is gone" in judge_tests(GATE, mine, None, lacking="the branch is gone").reasons[0]
    found = judge_tests(GATE.model_copy(update={"required": True}), GREEN, None)
    assert (found.verdict, found.value) == ("fail", 0.0)
    assert "requires a baseline" in found.reasons[0]


def test_a_baseline_without_results() -> None:
    """A baseline whose results are not known decides nothing."""
    found = judge_tests(GATE, GREEN, champion(None))
    assert (found.verdict, found.value) == ("inconclusive", None)
    assert found.reasons[0].startswith("the champion 1.4.0 has no results")


@pytest.mark.parametrize("mine", [None, {}])
def test_no_results_are_an_error(mine: Mapping[str, Status] | None) -> None:
    """A step that left no results is never taken for one without failures."""
    assert judge_tests(GATE, mine, champion(GREEN)).verdict == "errored"


results: st.SearchStrategy[dict[str, Status]] = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from(["passed", "failed", "errored", "skipped"]), min_size=1
)


@given(results, results, st.sets(st.sampled_from("abcdef")))
def test_new_failures_are_a_difference(mine: dict[str, Status], theirs: dict[str, Status], free: set[str]) -> None:
    """The value is the number of tests that are red here, not red there and not in quarantine; 0 passes."""
    new = {n for n, s in mine.items() if s in RED and n not in free} - {n for n, s in theirs.items() if s in RED}
    found = judge_tests(GATE, mine, champion(theirs), free)
    assert found.value == len(new)
    assert found.verdict == ("fail" if new else "pass")


@given(results, st.sets(st.sampled_from("abcdef")))
def test_nothing_is_worse_than_itself(mine: dict[str, Status], free: set[str]) -> None:
    """A run against itself has no new failure."""
    assert judge_tests(GATE, mine, champion(mine), free).verdict == "pass"


def test_what_was_never_told_is_a_first_time() -> None:
    """A baseline from before the step told of tests is as good as none: a warning, or a fail where one is required."""
    found = judge_tests(GATE, {**GREEN, "c": "failed"}, TestBaseline("the champion 1.4.0", None, never=True))
    assert (found.verdict, found.value) == ("pass", 1.0)
    assert found.reasons[0].endswith("because the champion 1.4.0 has no results of these tests")
    strict = GATE.model_copy(update={"required": True})
    assert judge_tests(strict, GREEN, TestBaseline("the champion 1.4.0", None, never=True)).verdict == "fail"


def test_no_test_is_no_pass() -> None:
    """A report without a test says so, and is told from no report."""
    assert judge_tests(GATE, {}, champion(GREEN)).reasons == ("the step ran no test, so there is nothing to judge",)
    assert judge_tests(GATE, None, champion(GREEN)).verdict == "errored"
