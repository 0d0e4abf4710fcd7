"""Rehearsals: what a gate on evidence will be able to say, before it is asked: how many examples, how often it errs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.comparisons import percent, rounded, rules_of
from penstock.decisions import least_examples
from penstock.errors import UsageError
from penstock.sample_sizes import level_examples, level_power, mean_examples, paired_power, planned_examples
from penstock.samples import is_binary
from penstock.self_tests import against_itself

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from penstock.decisions import Rule
    from penstock.pipelines import Gate

    Floats = npt.NDArray[np.float64]

POWER = 0.8
DISAGREEMENT = 0.05
"""The share of answers that differ between two models, where no two have met the same test set yet."""

_ROUNDS = 2000
_DRAWS = 100_000_000


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores at hand, with their own sign: of the newest package, and of another on the same test set.

    `sign` is -1 where less is better. Either may be missing.
    """

    new: Floats | None = None
    old: Floats | None = None
    sign: int = 1

    @property
    def is_share(self) -> bool:
        return self.new is None or (is_binary(self.new) and (self.old is None or is_binary(self.old)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What one rule of a gate needs. Counts are examples; `power` is the chance to pass on those at hand.

    `wanted` passes a model that is as supposed with 80 %; None where no number does. `least` is what even the best
    result takes, None where unknown. `supposed` is the supposition, in words.
    """

    gate: str
    rule: str
    wanted: int | None
    least: int | None
    at_hand: int | None
    power: float | None
    supposed: str

    @property
    def sentence(self) -> str:
        """As in "198 examples pass with 80 % if 2 % of answers differ; the 360 at hand with 97 %"."""
        if self.wanted is None:
            return f"no number of examples passes if {self.supposed}: allow more"
        known = ""
        if self.at_hand is not None:
            chance = "" if self.power is None else f" with {100 * self.power:.0f} %"
            known = f"; the {self.at_hand:,} at hand{chance or ' were seen'}"
        return f"{rounded(self.wanted):,} examples pass with {POWER:.0%} if {self.supposed}{known}".replace(
            "80%", "80 %"
        )


def plans(gate: Gate, scored: Scored) -> list[Plan]:
    """What each rule of a gate needs; none for a gate that no interval decides."""
    return [_plan(gate, rule, scored) for rule in rules_of(gate)]


def _plan(gate: Gate, rule: Rule, scored: Scored) -> Plan:
    supposed, wanted, power = (_paired if rule.paired else _single)(rule, scored)
    at_hand = None if scored.new is None else len(scored.new)
    words = gate.rule if gate.within is None else f"{rule.kind.replace('_', ' ')} {rule.bound:.12g}"
    least = least_examples(rule) if scored.is_share else None
    chance = None if at_hand is None or power is None else power(at_hand)
    return Plan(gate.name, words, _or_none(wanted), least, at_hand, chance, supposed)


def _or_none(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except UsageError:
        return None


_Found = tuple[str, "Callable[[], int]", "Callable[[int], float] | None"]


def _paired(rule: Rule, scored: Scored) -> _Found:
    """Unchanged models for `not_worse_than`; for `better_than` a gain of twice the bound, at least two points."""
    margin = rule.bound if rule.kind == "not_worse_than" else -rule.bound
    gain = 0.0 if rule.kind == "not_worse_than" else max(2 * rule.bound, 0.02)
    if not scored.is_share and scored.new is not None:
        return _numbers(rule, scored, margin, gain)
    seen = None if scored.new is None or scored.old is None else float((scored.new != scored.old).mean())
    differ = max(seen or DISAGREEMENT, gain)
    models = "both are as good" if not gain else f"it is better by {100 * gain:.3g} points"
    supposed = f"{100 * differ:.3g} % of answers differ{'' if seen else ' (nothing is known)'} and {models}"
    sure = rule.confidence
    return (
        supposed,
        lambda: planned_examples(margin, differ, gain, sure, POWER),
        lambda n: paired_power(n, margin, differ, gain, sure),
    )


def _numbers(rule: Rule, scored: Scored, margin: float, gain: float) -> _Found:
    if scored.new is None or scored.old is None:
        return "two packages have met the test set, and none has", _unknown, None
    spread = float((scored.new - scored.old).std())
    models = "both are as good" if not gain else f"it is better by {gain:.3g}"
    supposed = f"differences spread by {spread:.3g} and {models}"
    return supposed, lambda: mean_examples(margin, spread, gain, rule.confidence, POWER), None


def _single(rule: Rule, scored: Scored) -> _Found:
    if scored.new is None:
        return "a package has met the test set, and none has", _unknown, None
    found, spread = float(scored.new.mean()), float(scored.new.std())
    room = abs(found - rule.bound) if rule.holds(found) else 0.0
    supposed = f"the level stays {found:.4g}"
    if not scored.is_share:
        return supposed, lambda: mean_examples(room, spread, 0.0, rule.confidence, POWER), None
    return supposed, lambda: level_examples(rule, found, POWER), lambda n: level_power(n, rule, found)


def _unknown() -> int:
    raise UsageError("there is no evidence to plan with")


# --- a model against itself ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How one rule of a gate fared when a model was judged against itself, in so many rounds; `alpha` was promised."""

    gate: str
    rule: str
    examples: int
    rounds: int
    passed: int
    failed: int
    wrong: int
    flip_rate: float
    alpha: float

    @property
    def sentence(self) -> str:
        """As in "flips in 3.9 % of 2,000 rounds on 360 examples; promised at most 5 %"."""
        seen = f"{100 * self.flip_rate:.1f} % of {self.rounds:,} rounds on {self.examples:,} examples"
        return f"flips in {seen}; promised at most {percent(round(self.alpha, 10))}"


def rehearsals(gate: Gate, scored: Scored) -> list[Rehearsal]:
    """Each rule of a gate against the scores at hand; none without scores, or for a gate that no interval decides.

    Where no other package met the test set a model is its own opponent, and no answer differs.
    """
    if scored.new is None:
        return []
    return [_rehearsed(gate, rule, scored, scored.new) for rule in rules_of(gate)]


def _rehearsed(gate: Gate, rule: Rule, scored: Scored, new: Floats) -> Rehearsal:
    other = None if not rule.paired else new if scored.old is None else scored.old
    sign = scored.sign if rule.paired else 1
    rounds = _ROUNDS if scored.is_share else max(100, min(_ROUNDS, _DRAWS // max(len(new), 1)))
    found = against_itself(rule, sign * new, None if other is None else sign * other, rounds)
    words = gate.rule if gate.within is None else f"{rule.kind.replace('_', ' ')} {rule.bound:.12g}"
    return Rehearsal(
        gate.name, words, len(new), found.rounds, found.passed, found.failed, found.wrong, found.flip_rate, found.alpha
    )
