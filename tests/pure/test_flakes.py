"""Tests that disagree with themselves are told from steady ones by flips on unchanged inputs, and from nothing else."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from penstock.flakes import PRIOR, THRESHOLD, Observation, flakiness, red_since, usual_seconds
from penstock.reports import Status


def observed(statuses: str, inputs: str | None = None, run: int | None = None) -> list[Observation]:
    """Results by their first letters, of the same inputs unless told; each in a run of its own unless `run` is."""
    words: dict[str, Status] = {"p": "passed", "f": "failed", "e": "errored", "s": "skipped"}
    keys = inputs or "k" * len(statuses)
    return [
        Observation(i if run is None else run, i, key, words[letter], float(i))
        for i, (letter, key) in enumerate(zip(statuses, keys, strict=True), start=1)
    ]


statuses = st.text("pfes", max_size=60)


@pytest.mark.parametrize(
    ("results", "inputs", "flips", "pairs"),
    [
        ("", None, 0, 0),
        ("p", None, 0, 0),
        ("pp", None, 0, 1),
        ("pf", None, 1, 1),
        ("pfp", None, 2, 2),
        ("fe", None, 0, 1),
        ("psf", None, 1, 1),
        ("pf", "ab", 0, 0),
        ("pfpf", "abab", 0, 2),
        ("ppff", "abab", 2, 2),
    ],
)
def test_flips_are_counted_on_unchanged_inputs(results: str, inputs: str | None, flips: int, pairs: int) -> None:
    """A pair is two results that ran on the same inputs, whatever ran between; skipped ones are no results."""
    found = flakiness(observed(results, inputs))
    assert (found.flips, found.pairs) == (flips, pairs)


@given(statuses, st.data())
def test_what_changes_with_its_inputs_is_not_flaky(results: str, data: st.DataObject) -> None:
    """A test whose result is decided by its inputs is never labelled, in whatever order these come."""
    keys = data.draw(st.text("abc", min_size=len(results), max_size=len(results)))
    decided: dict[str, str] = {}
    same = "".join(decided.setdefault(key, letter) for key, letter in zip(keys, results, strict=True))
    found = flakiness(observed(same, keys))
    assert found.flips == 0
    assert not found.is_flaky


@given(statuses)
def test_the_interval_holds_the_estimate(results: str) -> None:
    """Bounds enclose the estimate and lie between 0 and 1, as far as the counts may go."""
    found = flakiness(observed(results))
    assert 0 <= found.flips <= found.pairs < max(len(results), 1)
    low, high = found.interval
    assert 0 <= low <= high <= 1
    assert found.estimate <= high


@given(statuses, st.sampled_from("pf"))
def test_a_flip_raises_and_an_agreement_lowers(results: str, last: str) -> None:
    """One more result that disagrees with the last one raises the lower bound; one that agrees lowers it."""
    results += last
    other = {"p": "f", "f": "p"}[last]
    now, agreed, flipped = (flakiness(observed(results + more)).interval[0] for more in ("", last, other))
    assert agreed <= now < flipped


def test_one_stray_failure_is_no_label() -> None:
    """A failure between passes makes two flips, and these are never enough; a second stray one is, early on."""
    assert not any(flakiness(observed("p" * n + "f" + "p" * m)).is_flaky for n in range(25) for m in range(25))
    assert flakiness(observed("pfp")).interval[0] < THRESHOLD
    assert flakiness(observed("pfpppfp")).is_flaky


def test_a_retry_counts_half() -> None:
    """Flips between attempts of one run weigh half, and are told apart."""
    between, within = flakiness(observed("fpfp")), flakiness(observed("fpfp", run=7))
    assert (between.retried, within.retried) == (0, 3)
    assert within.estimate == (PRIOR[0] + 1.5) / (sum(PRIOR) + 1.5) < between.estimate
    assert between.is_flaky
    assert not within.is_flaky


def test_the_interval_is_that_of_a_beta_posterior() -> None:
    """Two flips of five pairs and a prior of 1 % that weighs twenty pairs are Beta(2.2, 22.8)."""
    found = flakiness(observed("pppfpp"))
    assert found.interval == pytest.approx(beta(2.2, 22.8).ppf([0.05, 0.95]))
    assert found.estimate == pytest.approx(2.2 / 25)


def test_no_result_is_the_prior() -> None:
    """Of a test that was never seen twice the prior is all that is known."""
    found = flakiness([])
    assert found.estimate == PRIOR[0] / sum(PRIOR)
    assert not found.is_flaky


def test_the_figures_in_words() -> None:
    """The sentence says flips, pairs, the rate and its interval."""
    assert flakiness(observed("fpfpfppppp")).sentence == (
        "disagreed with itself 5 of 9 times on unchanged inputs: flip rate 18 %, 90 % interval 8 to 31 %"
    )
    assert ", 1 of them in a retry:" in flakiness(observed("fp", run=1)).sentence


def labelled(probability: float, length: int, tests: int, seed: int) -> tuple[float, float]:
    """The share of tests that are labelled at the end, and at any time, where each result fails by chance."""
    dice = Random(seed)  # noqa: S311 - reproducible, not secret
    at_end = ever = 0
    for _ in range(tests):
        found = observed("".join("f" if dice.random() < probability else "p" for _ in range(length)))
        at_end += flakiness(found).is_flaky
        ever += any(flakiness(found[:n]).is_flaky for n in range(2, length + 1)) if _has_red(found) else 0
    return at_end / tests, ever / tests


def _has_red(found: list[Observation]) -> bool:
    return any(one.status == "failed" for one in found)


def test_steady_tests_are_not_labelled() -> None:
    """Of tests that fail once in 500 results, for reasons of the machine, at most 1 % ever get a label in 50."""
    assert labelled(0.002, 50, 600, seed=4)[1] <= 0.01


@pytest.mark.parametrize(("length", "share"), [(20, 0.5), (30, 0.75), (50, 0.85)])
def test_flaky_tests_are_found(length: int, share: float) -> None:
    """Tests that flip 20 % of the time (they fail 11.3 %) are found: 58 % after 20 results, 91 % after 50."""
    assert labelled(0.1127, length, 300, seed=length)[0] >= share


def test_the_threshold_is_beyond_the_prior() -> None:
    """What is expected of an unknown test is no label."""
    assert PRIOR[0] / sum(PRIOR) < THRESHOLD


def test_the_usual_duration_is_the_median_of_the_last_five() -> None:
    """Older results and skipped ones do not count."""
    assert usual_seconds(observed("pppppps")) == 4.0
    assert usual_seconds(observed("pf")) == 1.5
    assert usual_seconds(observed("ss")) is None


@pytest.mark.parametrize(("results", "since"), [("", None), ("pf", 2), ("pfe", 2), ("fpf", 3), ("fp", None)])
def test_since_when_a_test_is_red(results: str, since: int | None) -> None:
    """The first run of the red results that nothing green follows."""
    assert red_since(observed(results)) == since
