"""Charts: one value that terminal, report and page draw."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from penstock.charts import Chart, chart_of, drawn

GAIN = Chart("gain", "correct", -0.008, -0.023, 0.006, -0.01, None, 0.95, 360, 7, "counted", 2100)
NUMBERS = st.floats(-1e6, 1e6)


def test_a_chart_shows_the_forbidden_side_the_edge_and_the_interval() -> None:
    """Left of the margin is forbidden; the interval reaches into it, so nothing is decided."""
    assert drawn(GAIN, 32) == "░░░├──────────│─●───────────┤   "


def test_a_range_is_forbidden_on_both_sides() -> None:
    """What lies below the least and above the most is forbidden."""
    level = replace(GAIN, kind="level", estimate=0.9, low=0.88, high=0.92, least=0.8, most=0.95)
    shown = drawn(level, 40)
    assert (shown[0], shown[-1], shown.count("│")) == ("░", "░", 2)
    assert [level.allows(number) for number in (0.79, 0.8, 0.95, 0.96)] == [False, True, True, False]


@given(marks=st.lists(NUMBERS, min_size=3, max_size=3).map(sorted), edge=NUMBERS, width=st.integers(8, 80))
def test_every_chart_fits(marks: list[float], edge: float, width: int) -> None:
    """Whatever the numbers are, the drawing has the asked width and shows the estimate."""
    chart = replace(GAIN, low=marks[0], estimate=marks[1], high=marks[2], least=edge)
    assert len(drawn(chart, width)) == width
    assert "●" in drawn(chart, width)


def test_a_chart_is_kept_as_json() -> None:
    """What was written down reads back as itself; a gate without an interval has none."""
    assert chart_of(GAIN.as_json()) == GAIN
    assert chart_of(None) is None
