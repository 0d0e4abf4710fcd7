"""What `tests` shows, from values alone: it fits where it is drawn, and nobody's words reach the terminal raw."""

from dataclasses import replace

import pytest

from penstock.cli.histories import FEW, duration, known_json, render_steps, render_tests, step_json
from penstock.engine.observations import KnownTest, Shelved, StepTests
from penstock.flakes import Observation, flakiness
from penstock.parts import Quarantine
from penstock.store.contract import ReportRecord

HISTORY = tuple(Observation(run, 1, "0123456789", "failed" if run % 3 else "passed", 0.25) for run in range(1, 9))
ENTRY = Quarantine(test="tests/test_a.py::test_c", owner="ana", reason="waits for a service", until="2026-12-31")
OTHER = ENTRY.model_copy(update={"test": "t::x"})
FLAKY = KnownTest(
    step="unit",
    test="tests.test_a::test_a",
    status="failed",
    message="expected 1\nfound 2 \x1b[31m",
    seconds=0.25,
    since=7,
    flakiness=flakiness(HISTORY),
    quarantine=None,
    history=HISTORY,
)
FAILING = replace(FLAKY, test="tests.test_a::test_b", flakiness=None, quarantine=ENTRY, since=8)
STEADY = replace(FLAKY, test="tests.test_a::test_d", status="passed", since=None, message="")
STEP = StepTests(
    step="unit",
    report=ReportRecord(1, "p1", "unit", "", 8, 1, "k", 1.0),
    counts={"passed": 1200, "failed": 2, "errored": 0, "skipped": 1},
    failing=(FAILING, FLAKY),
    flaky=(FLAKY, STEADY),
    quarantine=(
        Shelved(ENTRY, ("failed",), is_over=True),
        Shelved(OTHER, (), is_over=False),
        Shelved(OTHER, ("failed", "passed"), is_over=False),
    ),
    slowest=(("tests.test_a::test_slow", 75.0), ("tests.test_a::test_b", 0.25)),
)


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
def test_it_fits(width: int) -> None:
    """No line is wider than the terminal."""
    pictures = (render_steps("digits", [STEP], 20, "2027-01-01"), render_tests([FLAKY, FAILING], 3))
    assert max(line.cell_len for picture in pictures for line in picture.lines(width)) <= width


def test_what_a_step_shows() -> None:
    """Counts, since when a test fails, its flip rate, whose quarantine it is and whether it is over, the slowest."""
    text = str(render_steps("digits", [STEP], 20, "2027-01-01"))
    for words in (
        "digits  tests of 1 step",
        "run 8: 1,200 passed, 2 failed, 1 skipped",
        "✗ tests.test_a::test_b ",
        "since run 8; its quarantine ended on 2026-12-31",
        "since run 7; flaky: disagreed with itself 4 of 7 times on unchanged inputs",
        "tests.test_a::test_d",
        "quarantine  ana, until 2026-12-31: waits for a service; it is over; last failed",
        "names no test of the last report",
        "1 of 2 failed last",
        "tests.test_a::test_slow  1 min 15 s",
        "250 ms",
    ):
        assert words in text, text
    assert text.count("tests.test_a::test_a") == 1
    assert "\x1b" not in text


def test_more_is_counted() -> None:
    """Of each kind only so many are shown; the others are a number."""
    text = str(render_steps("digits", [STEP], 1, "2026-06-01"))
    for words in ("and 1 more that fail", "and 2 more in quarantine"):
        assert words in text
    assert "ended on" not in text


def test_a_step_without_trouble() -> None:
    """Where nothing is wrong there are counts alone."""
    quiet = replace(STEP, failing=(), flaky=(), quarantine=(), slowest=(), counts={"passed": 0})
    assert str(render_steps("digits", [quiet], 20, "2026-06-01")).endswith("unit  run 8: no tests")


def test_a_history() -> None:
    """Newest results come first, so many as are asked for, with what they ran on."""
    text = str(render_tests([FLAKY], 3))
    assert text.index("✗ run 8") < text.index("✗ run 7") < text.index("✓ run 6")
    assert "run 5" not in text
    assert "and 5 earlier" in text
    assert "usually 250 ms, red since run 7, flaky" in text
    assert "inputs 01234567" in text
    again = replace(FLAKY, history=(replace(HISTORY[0], attempt=2),))
    assert "attempt 2" in str(render_tests([again], 3))
    assert "quarantine: ana" in str(render_tests([FAILING], 3))


def test_of_many_tests_each_has_a_line() -> None:
    """A part of a name that means many lists them."""
    assert len(str(render_tests([FLAKY] * (FEW + 1), 3)).splitlines()) == FEW + 1


def test_the_objects_are_whole() -> None:
    """What is not so is null, and what is so is told in numbers."""
    found = step_json(STEP)
    assert [test["test"] for test in found["failing"]] == [FAILING.test, FLAKY.test]
    assert found["quarantine"][0]["is_over"]
    assert known_json(FAILING)["flaky"] is None
    assert known_json(STEADY)["quarantine"] is None
    rate = known_json(FLAKY)["flaky"]
    assert rate["low"] < rate["estimate"] < rate["high"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0004, "0 ms"), (0.25, "250 ms"), (1.0, "1.0 s"), (75.0, "1 min 15 s")]
)
def test_durations(seconds: float, words: str) -> None:
    """What takes less than a second is told in thousandths."""
    assert duration(seconds) == words
