"""Which interval suits which scores."""

import numpy as np
import pytest

from penstock.errors import ReportError
from penstock.proportions import paired_shares
from penstock.samples import bootstrapped_gain, is_binary, level, paired_gain, unpaired_gain

NEW, OLD = np.array([1.0, 1, 0, 1, 0, 1, 1, 1]), np.array([1.0, 0, 0, 1, 1, 0, 1, 0])
NUMBERS = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def test_scores_of_0_and_1_are_counted() -> None:
    """A level is exact, a comparison is that of its discordant counts."""
    assert is_binary(NEW)
    assert not is_binary(NEW / 2)
    assert level(NEW, 0.95).method.startswith("exact")
    assert paired_gain(NEW, OLD, 0.95) == paired_shares(3, 1, 8, 0.95)


def test_other_scores_have_means() -> None:
    """A level and a comparison by t, with the discordant examples counted."""
    assert level(NEW / 2, 0.95).method.startswith("mean")
    found = paired_gain(NEW / 2, OLD / 2, 0.95)
    assert (found.estimate, found.n, found.discordant) == (0.125, 8, 4)
    assert found.method.startswith("paired mean")


def test_repeats_make_one_example() -> None:
    """Scores of one example are averaged first, and n counts examples, by each method."""
    for found in (
        level(NEW, 0.95, NUMBERS),
        paired_gain(NEW, OLD, 0.95, NUMBERS),
        bootstrapped_gain(NEW, OLD, 0.95, NUMBERS),
    ):
        assert found.n == 4
        assert "repeats" in found.method
    assert level(NEW, 0.95, NUMBERS).estimate == 0.75


def test_gaps_in_the_numbers_of_examples_are_no_examples() -> None:
    """Numbers that nobody bears do not count."""
    assert level(NEW, 0.95, NUMBERS * 5).n == 4


def test_a_scale_makes_a_relative_comparison() -> None:
    """With .9 a model that is as good as the other gains a tenth of its score; discordant are still the different."""
    found = paired_gain(NEW, NEW, 0.95, scale=0.9)
    assert found.estimate == pytest.approx(0.1 * NEW.mean())
    assert found.discordant == 0
    assert bootstrapped_gain(NEW, NEW, 0.95, scale=0.9).estimate == pytest.approx(0.1 * NEW.mean())


def test_unpaired_scores_say_so() -> None:
    """Newcombe for 0 and 1, Welch for others, each by name."""
    assert "Newcombe" in unpaired_gain(NEW, OLD[:5], 0.95).method
    assert "Welch" in unpaired_gain(NEW / 2, OLD[:5], 0.95).method


def test_pairs_have_the_same_length() -> None:
    """Scores that were not joined are refused."""
    for compare in (paired_gain, bootstrapped_gain):
        with pytest.raises(ReportError, match="8 new and 7 old scores: pair them by id"):
            compare(NEW, OLD[:7], 0.95)
