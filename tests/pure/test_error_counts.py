"""Counts of errors as evidence: valid however often one looks, and as quick as promised."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.error_counts import (
    CLEARS,
    HARMS,
    RATES,
    Comparison,
    bounded,
    compared,
    looking_for_harm,
    looking_for_safety,
    more_to_bound,
    more_to_compare,
    more_until,
    relative_risk,
    unbounded,
)
from penstock.errors import UsageError

BAR = -math.log(0.05)


def race(draw: np.random.Generator, part: float, risk: float, cap: int) -> tuple[str, int]:
    """What errors decide first, one at a time, at a base rate of 1 %, and after how many requests of both arms."""
    rate, at_canary = 0.01 * (risk * part + 1 - part), risk * part / (risk * part + 1 - part)
    harm, safety, n = looking_for_harm(), looking_for_safety(2.0), 0
    requests = (round(100 * part), 100 - round(100 * part))
    while True:
        n += 1 + int(math.log(1 - draw.random()) / math.log(1 - rate))
        if n > cap:
            return "open", cap
        events = (1, 0) if draw.random() < at_canary else (0, 1)
        harm, safety = compared(harm, events, requests), compared(safety, events, requests)
        if harm.wealth >= BAR or safety.wealth >= BAR:
            return ("back" if harm.wealth >= BAR else "safe"), n


# --- promises ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "risk", "word", "least", "median"),
    [
        (0.1, 1, "safe", 0.92, 10_200),
        (0.1, 2, "back", 0.93, 9_500),
        (0.1, 5, "back", 1, 1_050),
        (0.1, 10, "back", 1, 350),
        (0.5, 1, "safe", 0.92, 4_800),
        (0.5, 3, "back", 0.97, 1_200),
    ],
)
def test_errors_decide_as_soon_as_promised(part: float, risk: float, word: str, least: float, median: int) -> None:
    """At 1 % errors and a tolerated ratio of 2 equal releases pass and worse ones do not, in so many requests."""
    draw = np.random.default_rng(3)
    found = [race(draw, part, risk, 100_000) for _ in range(80)]
    sizes = [n for end, n in found if end == word]
    assert len(sizes) >= least * len(found)
    assert statistics.median(sizes) <= 1.15 * median


def chances_of(part: float, risk: float, most: int = 1500) -> tuple[float, float]:
    """The exact chances that harm, and that safety, is shown first within so many errors, looked at after each."""
    at_canary = risk * part / (risk * part + 1 - part)
    requests = (round(100 * part), 100 - round(100 * part))
    begun = (looking_for_harm(), looking_for_safety(2.0))
    starts = [np.array(c.logs) for c in begun]
    grown = [
        [np.array(compared(c, event, requests).logs) - np.array(c.logs) for event in ((1, 0), (0, 1))] for c in begun
    ]
    chances, found = np.array([1.0]), [0.0, 0.0]
    for n in range(1, most + 1):
        chances = np.append(chances * (1 - at_canary), 0) + np.append(0, chances * at_canary)
        hits = np.arange(n + 1)
        for i, (start, (hit, other)) in enumerate(zip(starts, grown, strict=True)):
            logs = start[:, None] + hit[:, None] * hits + other[:, None] * (n - hits)
            shown = np.logaddexp.reduce(logs) >= BAR
            found[i] += float(chances[shown].sum())
            chances[shown] = 0
    return found[0], found[1]


@pytest.mark.parametrize("part", [0.1, 0.5])
def test_errors_at_every_look_are_counted_out_to_be_as_rare_as_promised(part: float) -> None:
    """Equal releases are rolled back, and a ratio of exactly 2 let through, in less than 5 %, by exact counting."""
    assert 0.02 < chances_of(part, 1, 600)[0] < 0.05
    assert 0.02 < chances_of(part, 2, 600)[1] < 0.05


@pytest.mark.parametrize("looking", [looking_for_harm(), looking_for_safety(2.0)])
def test_the_mean_wealth_never_grows_where_the_claim_is_true(looking: Comparison) -> None:
    """Counted out over all results of a look, for base rates of .1 to 40 %, the mean factor is at most 1."""
    for base in (0.001, 0.1, 0.4):
        for sizes in ((1, 1), (3, 9), (8, 2)):
            rates = (base * looking.null, base)
            mean = 0.0
            for hit in range(sizes[0] + 1):
                for other in range(sizes[1] + 1):
                    chance = math.prod(
                        math.comb(n, k) * p**k * (1 - p) ** (n - k)
                        for n, k, p in zip(sizes, (hit, other), rates, strict=True)
                    )
                    mean += chance * math.exp(compared(looking, (hit, other), sizes).wealth)
            assert mean <= 1 + 1e-12


def test_a_rate_at_the_limit_is_excluded_as_rarely_as_promised() -> None:
    """Of canaries with exactly 1 % errors at most 5 % are ever shown to be below, looked at all the way to 6,000."""
    draw, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        bound = unbounded(0.01)
        for _ in range(300):
            bound = bounded(bound, int(draw.binomial(20, 0.01)), 20)
            if bound.wealth >= BAR:
                wrong += 1
                break
    assert wrong <= 16


def test_few_clean_requests_exclude_one_percent() -> None:
    """340 requests without an error do, where 298 are the least for any test; at .1 % errors 444 are the mean."""
    assert more_to_bound(unbounded(0.01), 0.05) == 336
    draw, sizes = np.random.default_rng(1), []
    for _ in range(100):
        bound = unbounded(0.01)
        while bound.wealth < BAR:
            bound = bounded(bound, int(draw.binomial(10, 0.001)), 10)
        sizes.append(bound.requests)
    assert statistics.mean(sizes) <= 1.15 * 444
    assert sum(n <= 1000 for n in sizes) >= 0.9 * len(sizes)


# --- laws ----------------------------------------------------------------------------------------------------------

COUNTS = st.tuples(st.integers(0, 50), st.integers(0, 50))


@given(st.lists(COUNTS, min_size=1, max_size=20), st.integers(1, 50), st.integers(1, 50))
def test_only_counts_and_the_split_matter(looks: list[tuple[int, int]], seen: int, rest: int) -> None:
    """While the split stays, many looks show what one look at all of them shows."""
    many = looking_for_harm()
    for events in looks:
        many = compared(many, events, (seen, rest))
    total = (sum(e for e, _ in looks), sum(e for _, e in looks))
    once = compared(looking_for_harm(), total, (seen * len(looks), rest * len(looks)))
    assert many.logs == pytest.approx(once.logs, abs=1e-6)
    assert (many.events, many.requests) == (once.events, once.requests)


@given(COUNTS, st.sampled_from([(0, 10), (10, 0), (0, 0)]))
def test_one_arm_alone_says_nothing(events: tuple[int, int], requests: tuple[int, int]) -> None:
    """Where only one arm had requests nothing was compared."""
    assert compared(looking_for_harm(), events, requests).logs == looking_for_harm().logs


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 2000))
def test_what_is_missing_is_what_it_takes(errors: int, clean: int) -> None:
    """Without errors so many more requests reach the bar and one fewer does not; none are missing only at the bar."""
    bound = bounded(unbounded(0.01), errors, errors + clean)
    missing = more_to_bound(bound, 0.05)
    if errors == 0:
        assert missing is not None
        assert bounded(bound, 0, missing).wealth >= BAR
        assert missing == 0 or bounded(bound, 0, missing - 1).wealth < BAR
    else:
        assert (missing == 0) == (bound.wealth >= BAR)


def test_what_no_number_of_requests_would_show() -> None:
    """A rate at the limit, no event to compare, an arm without traffic, a relative risk at the tolerated ratio."""
    assert more_to_bound(bounded(unbounded(0.01), 10, 1000), 0.05) is None
    assert more_to_compare(looking_for_safety(2.0), 0.05, 0.1, 1.0) is None
    some = compared(looking_for_safety(2.0), (1, 9), (100, 900))
    assert more_to_compare(some, 0.05, 0.0, 1.0) is None
    assert more_to_compare(some, 0.05, 0.1, 2.0) is None
    assert 500 < (more_to_compare(some, 0.05, 0.1, 1.0) or 0) < 2000
    assert more_until([0.0], [1.0], 1.0) == 0


def test_the_relative_risk_is_read_off_the_counts() -> None:
    """Twice the errors are about two times; nothing at all is 1."""
    assert relative_risk(looking_for_harm()) == 1
    assert relative_risk(compared(looking_for_harm(), (20, 90), (1000, 9000))) == pytest.approx(2.04, abs=0.02)


def test_the_first_stakes_are_one() -> None:
    """The parts of each bet add up to its first wealth of 1."""
    assert [math.fsum(parts.values()) for parts in (HARMS, CLEARS, RATES)] == pytest.approx([1, 1, 1])


def test_what_cannot_be_compared_is_refused() -> None:
    """A ratio of 0 and a rate that is no share."""
    with pytest.raises(UsageError, match="above 0"):
        looking_for_safety(0.0)
    for limit in (0.0, 1.0, math.nan):
        with pytest.raises(UsageError, match="write a share"):
            unbounded(limit)
