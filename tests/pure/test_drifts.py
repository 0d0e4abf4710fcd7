"""Drift of requests against a sample: features, the index, the tests, and how often a quiet service is called so."""

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.drifts import (
    MOST,
    Compared,
    Look,
    Rules,
    asks_again,
    compared,
    features,
    look,
    stability,
    watched,
)

_NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers()
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)
_COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=12)

FLOWER = {"petal_length": 1.4, "species": "setosa", "wild": True, "place": {"height": 12}}


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def gauss(rows: int, seed: int, shift: float = 0.0, count: int = 1) -> list[dict[str, float | str]]:
    """Rows of normal numbers, the first of which may be shifted."""
    draw = dice(seed)
    return [{f"x{n}": draw.gauss(shift if n == 0 else 0.0, 1) for n in range(count)} for _ in range(rows)]


def test_keys_are_features_by_their_dotted_path() -> None:
    """Numbers stay numbers, texts and booleans are texts, and the answer's keys lie below `answer.`."""
    assert features(FLOWER, {"class": "setosa", "scores": [0.75, 0.25]}) == {
        "petal_length": 1.4,
        "species": "setosa",
        "wild": "true",
        "place.height": 12.0,
        "answer.class": "setosa",
        "answer.scores[0]": 0.75,
        "answer.scores[1]": 0.25,
    }


def test_long_lists_of_numbers_are_told_by_four_figures_and_a_length() -> None:
    """64 pixels, flat or as a table, are no 64 features."""
    flat = features({"pixels": [0] * 32 + [2] * 32})
    assert flat == {"pixels.mean": 1, "pixels.std": 1, "pixels.min": 0, "pixels.max": 2, "pixels.length": 64}
    assert features({"pixels": [[0] * 8] * 4 + [[2] * 8] * 4}) == flat


@pytest.mark.parametrize(
    ("request_", "answer", "row"),
    [
        (None, None, {}),
        (3, "yes", {"body": 3.0, "answer": "yes"}),
        ([1.0, 2.0], None, {"body[0]": 1.0, "body[1]": 2.0}),
        ({"rows": [{"a": 1}, {"a": 2}]}, None, {"rows.length": 2.0, "rows[0].a": 1.0}),
        ({"rows": []}, None, {"rows.length": 0.0}),
        ({"text": "x" * 65}, None, {"text.length": 65.0}),
        (
            {"answer": 1, "answer.class": 2},
            {"class": 3},
            {"body.answer": 1.0, "body.answer.class": 2.0, "answer.class": 3},
        ),
        ({"far": 10**400, "none": None}, None, {}),
        ({"odd": math.nan}, None, {"odd": "nan"}),
    ],
)
def test_every_json_has_its_features(request_: Any, answer: Any, row: dict[str, Any]) -> None:
    """Roots, lists of objects, long texts, nulls and numbers that are none: each has the features that it can have."""
    assert features(request_, answer) == row


@given(_JSON, _JSON)
def test_any_json_gives_short_finite_features(request_: Any, answer: Any) -> None:
    """Whatever is asked and answered, a row is of finite numbers and short texts, and survives being written down."""
    row = features(request_, answer)
    assert all(math.isfinite(v) if isinstance(v, float) else len(v) <= 64 for v in row.values())
    assert all(len(name) <= 120 for name in row)
    assert json.loads(json.dumps(row)) == row


def test_a_row_has_at_most_a_thousand_features() -> None:
    """A hostile request of very many keys costs no more than that."""
    assert len(features({f"key{n}": n for n in range(2000)})) == 1000


# --- the index -----------------------------------------------------------------------------------------------------


@given(_COUNTS)
def test_the_index_is_never_negative_and_knows_no_direction(cells: list[tuple[int, int]]) -> None:
    """It is the same from either side, at least zero, finite, and zero for equal counts."""
    one, other = [a for a, _ in cells], [b for _, b in cells]
    psi, chance = stability(one, other)
    assert 0 <= psi < math.inf
    assert psi == pytest.approx(stability(other, one)[0])
    assert stability(one, one)[0] == 0
    assert chance >= 0


def test_the_index_of_a_sample_of_the_same_law_is_what_is_said_of_chance() -> None:
    """Over 150 pairs of 200 and 400 rows its mean is (bins - 1) · (1/200 + 1/400) = 0.0675, within an eighth."""
    found = [compared("x0", gauss(400, seed), gauss(200, 10_000 + seed)) for seed in range(150)]
    assert found[0].chance == pytest.approx(9 * (1 / 200 + 1 / 400))
    assert sum(one.psi for one in found) / 150 == pytest.approx(0.0675, rel=0.125)


def test_few_rows_pass_a_bare_limit_by_chance_alone() -> None:
    """With 60 rows each a third and more of equal samples have an index above .2: that is why a test must agree."""
    found = [look(gauss(60, seed), gauss(60, 10_000 + seed), 1, Rules()) for seed in range(100)]
    assert sum(one.features[0].psi >= 0.2 for one in found) > 33
    assert sum(bool(one.drifted) for one in found) <= 5


# --- false alarms and true ones ------------------------------------------------------------------------------------


def mixed(rows: int, draw: random.Random) -> list[dict[str, float | str]]:
    """Rows with a measure, a count, a category, an id of its own, and something that one in ten lacks."""
    return [
        {
            "measure": draw.lognormvariate(0, 1),
            "count": float(draw.randint(0, 4)),
            "city": draw.choice("aaaaabbbccd"),
            "id": str(draw.random()),
            **({"rare": draw.random()} if draw.random() < 0.9 else {}),
        }
        for _ in range(rows)
    ]


def test_a_quiet_service_is_called_drifting_in_at_most_one_watch_of_twenty() -> None:
    """80 watches of 5 windows against one sample each, the tests alone deciding: at most 5 % have any alarm.

    Of 80 at a true 5 % more than 8 would be seen in one of 50 such experiments; this one is drawn from a fixed seed.
    """
    draw, alarms = dice(6), 0
    for _ in range(80):
        sample = mixed(200, draw)
        looks = (look(sample, mixed(60, draw), number, Rules(psi=0)) for number in range(1, 6))
        alarms += any(one.drifted for one in looks)
    assert alarms <= 8


def test_values_that_are_rare_cause_no_alarm() -> None:
    """With a value in one of 200 rows, chi-squared alone would give p < 0.001 ten times as often as it may."""
    draw = dice(5)

    def window(rows: int) -> list[dict[str, float | str]]:
        return [{"city": city} for city in draw.choices("ab", (0.995, 0.005), k=rows)]

    sample = window(2000)
    assert sum(compared("city", sample, window(100)).p < 0.001 for _ in range(500)) <= 2


def test_a_new_value_is_found_though_it_is_rare() -> None:
    """Eight rows of 100 with a city that the sample does not know are no chance."""
    found = compared("city", [{"city": "Ulm"}] * 1000, [{"city": "Ulm"}] * 92 + [{"city": "Bonn"}] * 8)
    assert found.p < 1e-6


def test_a_shift_is_found_late_as_well_as_early() -> None:
    """Half a standard deviation in 1,000 requests is found at the first look and at the ten-thousandth."""
    sample = gauss(5000, 1, count=9)
    for number in (1, 10_000):
        found = look(sample, gauss(1000, 2, shift=0.6, count=9), number, Rules())
        assert found.drifted == ("x0",)
        assert "feature x0: PSI 0." in found.sentence()
        assert "1,000 requests against 5,000 of the sample, p < 1e-9" in found.sentence()


def test_a_sure_difference_that_is_small_is_no_drift() -> None:
    """A tenth of a deviation is sure with 20,000 rows, and too little to train anew for."""
    found = look(gauss(20_000, 1), gauss(20_000, 2, shift=0.1), 1, Rules())
    assert found.features[0].p < 1e-6
    assert found.drifted == ()
    assert "no drift in 1 feature; most x0: PSI 0.01" in found.sentence()


def test_what_is_missing_is_drift_too() -> None:
    """A number that a third of the requests no longer have, and a new category, are found."""
    draw = dice(3)
    sample, window = mixed(1000, draw), mixed(500, draw)
    for row in window[::3]:
        row.pop("rare", None)
        row["city"] = "elsewhere"
    assert look(sample, window, 1, Rules()).drifted == ("city", "rare")


def test_a_number_that_none_has_any_more_is_drift() -> None:
    """A window entirely without a measured feature is compared by how many rows have it."""
    found = compared("x0", gauss(100, 1), [{"other": 1.0}] * 100)
    assert (found.p < 1e-9, found.psi > 1) == (True, True)


def test_a_constant_never_drifts_from_itself() -> None:
    """A feature of one value in both has index 0 and p 1."""
    found = compared("x", [{"x": 1.0}] * 50, [{"x": 1.0}] * 50)
    assert (found.psi, found.p) == (0.0, 1.0)


# --- words and choices ---------------------------------------------------------------------------------------------


def test_named_features_are_the_only_ones_compared() -> None:
    """A name stands for itself and what is inside it, not for names that merely begin alike."""
    row: dict[str, float | str] = dict.fromkeys(("pixels.mean", "pixels.std", "pix", "a[0]", "answer.class"), 1.0)
    sample = [row]
    assert watched(sample, ["pixels", "a"]) == ["a[0]", "pixels.mean", "pixels.std"]
    assert len(watched(sample)) == 5
    assert len(watched(gauss(1, 1, count=200))) == MOST


def test_a_look_says_the_worst_first_and_how_many_more() -> None:
    """The sentence names the feature with the largest index among those that drifted."""
    one = Compared("petal_length", 0.41, 0.01, 1e-12, 1000, 5000)
    other = Compared("petal_width", 0.3, 0.01, 1e-4, 1000, 5000)
    both = Look(3, (other, one), ("petal_length", "petal_width"))
    words = "feature petal_length: PSI 0.41, 1,000 requests against 5,000 of the sample, p < 1e-9"
    assert both.sentence() == f"{words}; and 1 more"
    assert Look(3, (one,), ("petal_length",)).sentence() == words
    assert other.sentence().endswith("p = 0.0001")
    assert Look(1, (), ()).sentence() == "the window has none of the sample's features"


def test_drift_that_goes_on_asks_ever_less_often() -> None:
    """Of the first 20 drifted windows of a release the 1st, 2nd, 4th, 8th and 16th ask for a run."""
    assert [n for n in range(21) if asks_again(n)] == [1, 2, 4, 8, 16]
