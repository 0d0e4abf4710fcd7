"""Many slices or metrics: one lucky or unlucky member does not decide."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.decisions import Rule, Word, decide
from penstock.errors import UsageError
from penstock.families import adjusted, all_of, any_of, averaged, holm, settled, stepped_down
from penstock.proportions import paired_shares

CHANCES = st.lists(st.sampled_from([0.001, 0.004, 0.01, 0.012, 0.02, 0.03, 0.049, 0.2, 0.9]), min_size=1, max_size=8)
LOGS = st.lists(st.floats(-5, 8), min_size=1, max_size=7)


def member(above: float, below: float, confidence: float) -> Word:
    """A member by its p values: that its claim is wrong, and that it is right."""
    if above <= 1 - confidence:
        return "pass"
    return "fail" if below <= 1 - confidence else "inconclusive"


def test_holm_is_as_in_the_textbook() -> None:
    """.01, .04, .03, .005 at .05: .005 and .01 fall, .03 stands against .025, and so does all above."""
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == (True, False, False, True)
    assert holm([], 0.05) == ()


@given(CHANCES)
def test_stepping_down_is_holm(chances: list[float]) -> None:
    """Asked with growing risk, members that know only their confidence fall as by their p values."""
    shows = [partial(lambda chance, confidence: chance <= 1 - confidence + 1e-12, chance) for chance in chances]
    assert stepped_down(shows, 0.95) == holm(chances, 0.05)


@given(CHANCES, st.randoms())
def test_the_order_of_members_does_not_matter(chances: list[float], random: "object") -> None:
    """Whoever comes first, the same fall; and all that fall have less than α by themselves."""
    fallen = {chance for chance, down in zip(chances, holm(chances, 0.05), strict=True) if down}
    again = sorted(chances)
    assert fallen == {chance for chance, down in zip(again, holm(again, 0.05), strict=True) if down}
    assert all(chance <= 0.05 for chance in fallen)


def test_all_must_pass_and_one_may_fail_only_beyond_chance() -> None:
    """Each passes at 95 %; one of ten that fails at 95 % by itself is open, at 99.9 % it fails the family."""
    good, open_ = partial(member, 0.001, 0.9), partial(member, 0.2, 0.3)
    assert all_of([good] * 3, 0.95) == ("pass", ("pass",) * 3)
    assert all_of([good, open_], 0.95) == ("inconclusive", ("pass", "inconclusive"))
    assert all_of([good] * 9 + [partial(member, 0.9, 0.03)], 0.95)[0] == "inconclusive"
    assert all_of([good] * 9 + [partial(member, 0.9, 0.001)], 0.95)[0] == "fail"


def test_any_may_pass_but_only_beyond_chance() -> None:
    """The other way round: one of ten passes the family with Holm's confidence, and it fails where all do."""
    bad, open_ = partial(member, 0.9, 0.001), partial(member, 0.3, 0.2)
    assert any_of([bad] * 9 + [partial(member, 0.03, 0.9)], 0.95)[0] == "inconclusive"
    assert any_of([bad] * 9 + [partial(member, 0.001, 0.9)], 0.95)[0] == "pass"
    assert any_of([bad] * 3, 0.95) == ("fail", ("fail",) * 3)
    assert any_of([bad, open_], 0.95)[0] == "inconclusive"


def test_equal_models_fail_on_slices_at_most_as_often_as_promised() -> None:
    """20 slices of two equal models: the family fails in at most 5 % of runs, where slices alone fail in most."""
    draw, alone, together = np.random.default_rng(1), 0, 0
    words: dict[tuple[int, int, float], Word] = {}

    def judge(wins: int, losses: int, confidence: float) -> Word:
        key = (wins, losses, confidence)
        if key not in words:
            rule = Rule("not_worse_than", confidence=confidence)
            words[key] = decide(rule, paired_shares(wins, losses, 100, confidence)).verdict
        return words[key]

    for wins, losses, _ in draw.multinomial(100, [0.05, 0.05, 0.9], (25, 20)).swapaxes(1, 2).tolist():
        members = [partial(judge, w, c) for w, c in zip(wins, losses, strict=True)]
        alone += any(judge(0.95) == "fail" for judge in members)
        together += all_of(members, 0.95)[0] == "fail"
    assert together <= 0.12 * 25
    assert alone > 0.4 * 25


# --- e-values ------------------------------------------------------------------------------------------------------


def test_evidence_is_averaged() -> None:
    """e-values of 1 and 3 make 2; nothing lost stays nothing, and large ones do not overflow."""
    assert averaged([0.0, math.log(3)]) == pytest.approx(math.log(2))
    assert averaged([-math.inf]) == -math.inf
    assert averaged([2000.0, 2000.0]) == pytest.approx(2000)


def test_a_strong_member_stands_out_of_its_family() -> None:
    """e-values of 100, 1 and 1 leave the first a third of 102."""
    assert adjusted([math.log(100), 0.0, 0.0])[0] == pytest.approx(math.log(34))
    assert adjusted([math.log(100), 0.0, 0.0])[1] == 0


@given(LOGS)
def test_adjusted_evidence_is_less_but_not_least(logs: list[float]) -> None:
    """No member gains by its family, none falls below the weakest, the order stays."""
    found = adjusted(logs)
    assert all(after <= before + 1e-9 for after, before in zip(found, logs, strict=True))
    assert min(found) >= min(logs) - 1e-9
    ranked = [after for _, after in sorted(zip(logs, found, strict=True))]
    assert all(one <= other + 1e-9 for one, other in pairwise(ranked))


@dataclass(frozen=True)
class Told:
    """A member's verdict, with the confidence at which it was reached."""

    verdict: Word
    confidence: float


@given(st.lists(st.tuples(st.sampled_from([0.0001, 0.004, 0.03, 0.5]), st.booleans()), min_size=1, max_size=7))
def test_what_is_shown_of_a_member_is_what_decided_it(chances: list[tuple[float, bool]]) -> None:
    """The words are those of the family; each judgement says the word that its member has there."""
    for family in (all_of, any_of):
        plain = [
            partial(member, chance, 1 - chance) if good else partial(member, 1 - chance, chance)
            for chance, good in chances
        ]
        members = [lambda sure, one=one: Told(one(sure), sure) for one in plain]
        whole, found = settled(family, members, 0.95)
        assert (whole, tuple(word for word, _ in found)) == family(plain, 0.95)
        assert all(told.verdict == word and told.confidence >= 0.95 - 1e-12 for word, told in found)


def test_families_need_members() -> None:
    """Nothing to judge is no pass."""
    with pytest.raises(UsageError, match="a family without members"):
        all_of([], 0.95)
    with pytest.raises(UsageError, match="a family without members"):
        any_of([], 0.95)
    with pytest.raises(UsageError, match="no evidence to average"):
        averaged([])
