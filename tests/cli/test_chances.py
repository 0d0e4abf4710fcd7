"""What `insight` shows, from values alone: it fits where it is drawn, and never says that something is certain."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.chances import CalibrationRow, Chances, DurationRow, StageRow, bounds, percent, render_chances

STAGES = (
    StageRow("code", 412, 420, 0.981, 0.966, 0.9996, 0.9),
    StageRow("build", 400, 412, 0.85, 0.8, 0.9, 0.95),
    StageRow("test", 100, 400, 0.25, 0.2, 0.3, 0.98),
    StageRow("deploy", 0, 0, 0.99, 0.95, 1.0, 0.99),
)
CHANCES = Chances(
    project="digits",
    commits=420,
    stages=STAGES,
    product=0.2,
    asked=("code", "build", "test", "deploy"),
    forecast=(0.21, 0.15, 0.28),
    effect=(0.1, 0.7),
    forgetting=0.98,
    weight=10.0,
    foretold=415,
    calibrations=(
        CalibrationRow("this model", 0.15, 0.4, 0.05, 37, 41),
        CalibrationRow("base rate", 0.18, 0.5, 0.1, 35, 41),
        CalibrationRow("same as last time", 0.3, 1.9, 0.3, 5, 41),
    ),
    durations=tuple(DurationRow(f"step{i}", 100.0 - i, 1 + i % 5) for i in range(15)),
)
NOTHING = replace(CHANCES, commits=0, stages=STAGES[3:], asked=("code",), foretold=0, calibrations=(), durations=())


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
@pytest.mark.parametrize("found", [CHANCES, NOTHING])
def test_it_fits(found: Chances, width: int) -> None:
    """No line is wider than the terminal."""
    assert max(line.cell_len for line in render_chances(found).lines(width)) <= width


def test_at_80_columns_nothing_is_cut() -> None:
    """The usual terminal shows every word."""
    assert [line.plain.rstrip() for line in render_chances(CHANCES).lines(80)] == str(
        render_chances(CHANCES)
    ).splitlines()


def test_what_it_says() -> None:
    """The forecast, the run effect where there is one, the best predictor in bold, and how many steps are left out."""
    text = str(render_chances(CHANCES))
    for words in (
        "420 commits",
        "21.0 % (15 to 28 %) to pass code, build, test and deploy",
        "±0.70",
        "and 3 that take less",
    ):
        assert words in text
    assert text.count("(the prior)") == 1
    lines = render_chances(CHANCES).lines(80)
    assert [
        "this model" in line.plain
        for line in lines
        if any(s.style == "bold" and "0.150" in line.plain for s in line.spans)
    ] == [True]
    assert "run effect" not in str(render_chances(replace(CHANCES, effect=(0.1, 0.0))))
    assert "too few commits to say: 0 foretold, 10 are needed" in str(render_chances(NOTHING))


@given(st.floats(0, 1, exclude_max=True))
def test_nothing_is_certain(share: float) -> None:
    """What is below 1 is never shown as 100 %."""
    assert "100" not in percent(share)
    assert "100" not in bounds(0.5, share)
