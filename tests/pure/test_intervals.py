"""What an interval is, and which confidences there are."""

import pytest

from penstock.errors import UsageError
from penstock.intervals import Interval, risk


def test_a_mirrored_interval_is_of_the_other_sign() -> None:
    """Estimate and bounds change sign, the bounds change places, and twice is as before."""
    found = Interval(0.1, 0.0, 0.3, 50, 7, "a method", 0.95)
    assert found.mirrored() == Interval(-0.1, -0.3, 0.0, 50, 7, "a method", 0.95)
    assert found.mirrored().mirrored() == found


@pytest.mark.parametrize("confidence", [0.5, 1.0, 0.0, 95.0, float("nan")])
def test_a_confidence_is_above_a_half_and_below_one(confidence: float) -> None:
    """Percent, certainty and coin tosses are refused in one sentence."""
    with pytest.raises(UsageError, match=r"write a number above 0\.5 and below 1"):
        risk(confidence)


def test_risk_is_what_confidence_leaves() -> None:
    """One minus the confidence."""
    assert risk(0.95) == pytest.approx(0.05)
