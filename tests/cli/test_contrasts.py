"""What a person reads of two models on the same examples: levels, counts, bounds, what was left out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.test_any_view import CALM, assert_fits
from penstock.charts import Chart
from penstock.cli.contrasts import (
    Names,
    bounded,
    counts,
    flip_cells,
    flip_lines,
    gain_words,
    is_loss,
    left_out,
    levels,
    slice_cells,
)
from penstock.cli.pictures import Picture
from penstock.flips import Flip, Flips, SliceRow

NAMES = Names("run 1", "run 2")
GAIN = Chart("gain", "correct", -0.05, -0.07, -0.02, None, None, 0.95, 900, 70, "counted")
FLIP = Flip("img-1", "9", "9", "5", 1.0, 0.0)
ROW = SliceRow("pen", "marker", 1200, 0.95, 0.59, -0.36, "worse")
SHARE = Flips(
    step="evaluate",
    score="correct",
    lower_is_better=False,
    same_test_set=True,
    n=900,
    only_a=0,
    only_b=0,
    relabelled=0,
    a=0.95,
    b=0.9,
    better=10,
    worse=55,
    gain=GAIN,
    examples=(FLIP, replace(FLIP, score_a=0.0, score_b=1.0)),
    slices=(ROW,),
)
ERROR = replace(SHARE, score="absolute_error", lower_is_better=True, a=12.345678, b=20.0)


def test_a_share_is_told_in_points() -> None:
    """Of `correct` differences are points and examples newly right or wrong."""
    assert levels(SHARE) == "0.95 → 0.9 correct on the same 900 examples"
    assert counts(SHARE) == "10 newly right, 55 newly wrong"
    assert gain_words(SHARE) == "5.0 points worse; its 95 % bounds −7.0 … −2.0 show a loss"
    assert flip_cells(FLIP, SHARE) == ("img-1", "9", "9", "5")
    assert slice_cells(ROW, SHARE) == ("pen", "marker", "1,200", "0.950", "0.590", "−36.0", "worse")
    assert [is_loss(flip, SHARE) for flip in SHARE.examples] == [True, False]


def test_another_score_is_told_in_its_unit() -> None:
    """Of an error the means, both scores of an example, and what is better; less of it is a gain."""
    assert levels(ERROR) == "12.35 → 20 mean absolute error on the same 900 examples"
    assert counts(ERROR) == "10 better, 55 worse"
    assert flip_cells(replace(FLIP, b=None, score_a=0.25, score_b=3.0), ERROR) == ("img-1", "9", "9", "", "0.25 → 3")
    assert slice_cells(replace(ROW, difference=0.0, shown=None), ERROR)[-2:] == ("0", "")
    assert [is_loss(flip, ERROR) for flip in ERROR.examples] == [False, True]


@pytest.mark.parametrize(
    ("low", "estimate", "high", "words"),
    [
        (0.01, 0.02, 0.03, "2.0 points better; its 95 % bounds +1.0 … +3.0 show a gain"),
        (
            -0.01,
            0.0,
            0.01,
            "neither better nor worse; its 95 % bounds −1.0 … +1.0 show neither a gain nor a loss",
        ),
        (
            -0.01,
            0.004,
            0.02,
            "0.4 points better; its 95 % bounds −1.0 … +2.0 show neither a gain nor a loss",
        ),
    ],
)
def test_bounds_show_a_gain_a_loss_or_neither(low: float, estimate: float, high: float, words: str) -> None:
    """What both bounds are on one side of zero for is shown, and nothing else."""
    assert gain_words(replace(SHARE, gain=replace(GAIN, low=low, estimate=estimate, high=high))) == words


def test_nothing_is_said_where_nothing_changed() -> None:
    """Equal errors have no bounds to speak of; one example has none at all."""
    same = replace(ERROR, better=0, worse=0, gain=replace(GAIN, low=0.0, estimate=0.0, high=0.0))
    assert (counts(same), gain_words(same), bounded(same)) == ("no example changed", "", None)
    assert gain_words(replace(SHARE, gain=None)) == "one example says nothing of others"


def test_a_bound_at_zero_does_not_seem_beyond_it() -> None:
    """Numbers are shown as precisely as it takes to tell on which side of zero they are."""
    said = gain_words(replace(SHARE, gain=replace(GAIN, low=0.0001, estimate=0.002, high=0.004)))
    assert said == "0.20 points better; its 95 % bounds +0.01 … +0.40 show a gain"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"same_test_set": False, "only_a": 3, "relabelled": 1}, "3 that only run 1 answered, 1 with another truth"),
        ({"same_test_set": False, "only_b": 1200}, "1,200 that only run 2 answered"),
        ({"same_test_set": False}, "examples that neither answered"),
    ],
)
def test_what_is_left_out_is_counted(change: dict[str, Any], words: str) -> None:
    """Where the test sets differ, in one sentence; where both were asked the same, there is nothing to say."""
    said = left_out(replace(SHARE, **change), NAMES)
    assert said == (words and f"the test set is another one; left out: {words}")


def test_of_one_test_set_not_all_may_be_answered() -> None:
    """Where evidence is asked in batches one of the two may have gone further: that is no other test set."""
    shown = replace(SHARE, only_b=40)
    assert levels(shown) == "0.95 → 0.9 correct on 900 examples that both answered"
    assert left_out(shown, NAMES) == "left out: 40 that only run 2 answered"


TEXT = st.text(max_size=30)
FLIPS = st.builds(Flip, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
ROWS = st.builds(
    SliceRow,
    TEXT,
    TEXT,
    st.integers(1, 10**7),
    st.floats(-1e9, 1e9),
    st.floats(-1e9, 1e9),
    st.floats(-1e9, 1e9),
    st.sampled_from(["worse", "better", None]),
)


@CALM
@given(
    flips=st.sampled_from([SHARE, ERROR, replace(SHARE, gain=None)]),
    step=TEXT,
    examples=st.lists(FLIPS, max_size=12).map(tuple),
    slices=st.lists(ROWS, max_size=12).map(tuple),
    limit=st.integers(0, 15),
    width=st.integers(2, 160),
)
def test_no_evidence_breaks_the_window(
    flips: Flips, step: str, examples: tuple[Flip, ...], slices: tuple[SliceRow, ...], limit: int, width: int
) -> None:
    """Whatever examples and slices are called, every line is clean and within the window."""
    shown = replace(flips, step=step, examples=examples, slices=slices)
    assert_fits(Picture(lambda room: list(flip_lines(shown, NAMES, limit, room))), width)
