"""Rehearsals: what a gate on evidence will be able to say, before it is asked: how many examples, how often it errs.

Where a gate of the file enforces a budget, scores are told to nobody: what is supposed then is made up, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.comparisons import percent, rounded, rules_of
from penstock.decisions import least_examples
from penstock.errors import UsageError
from penstock.families import corrected
from penstock.sample_sizes import level_examples, level_power, mean_examples, paired_power, planned_examples
from penstock.samples import is_binary
from penstock.self_tests import against_itself, invented, slices_against_themselves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    from penstock.decisions import Rule
    from penstock.pipelines import Gate
    from penstock.slicings import Slice

    Floats = npt.NDArray[np.float64]

POWER = 0.8
DISAGREEMENT = 0.05
"""The share of answers that differ between two models, where no two have met the same test set yet."""

_ROUNDS = 2000
_DRAWS = 100_000_000
_SLICES = 20_000
"""So many slices are drawn of all rounds together, at 500 rounds at most."""


def rehearsed(gate: Gate) -> Iterator[Gate]:
    """The gates that an interval decides, of a gate or of those that it is made of: these as `GATE.1`, `GATE.2.1`."""
    if gate.by_interval:
        yield gate
    for member in gate.members:
        yield from rehearsed(member.model_copy(update={"name": f"{gate.name}.{member.name}"}))


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores at hand, with their own sign: of the newest package, and of another on the same test set.

    `sign` is -1 where less is better. Either may be missing. `slices` are those of a gate that names some, without the
    ones that it leaves out. `hides` says that nothing may be told that depends on scores.
    """

    new: Floats | None = None
    old: Floats | None = None
    sign: int = 1
    slices: tuple[Slice, ...] = ()
    hides: bool = False

    @property
    def count(self) -> int | None:
        """Examples at hand."""
        return None if self.new is None else len(self.new)

    @property
    def told(self) -> Scored:
        """What may be told of it: no scores where these are hidden."""
        return Scored(None, None, self.sign, self.slices, hides=True) if self.hides else self

    @property
    def is_share(self) -> bool:
        return self.new is None or (is_binary(self.new) and (self.old is None or is_binary(self.old)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What one rule of a gate needs. Counts are examples; `power` is the chance to pass on those at hand.

    `wanted` passes a model that is as supposed with 80 %; None where no number does, or nothing can be supposed.
    `least` is what even the best result takes, None where unknown. `supposed` is the supposition, in words, and
    `lacking` why there is none. Of `slices` each needs as many; at hand is then what `smallest` of them has.
    """

    gate: str
    rule: str
    wanted: int | None
    least: int | None
    at_hand: int | None
    power: float | None
    supposed: str
    lacking: str = ""
    slices: int = 0
    smallest: str | None = None

    @property
    def sentence(self) -> str:
        """As in "198 examples pass with 80 % if 2 % of answers differ; the 360 at hand with 97 %"."""
        if self.lacking:
            best = f"; even the best result passes on {self.least:,} examples at least" if self.least else ""
            return f"nothing can be planned, since {self.lacking}{best}{self._known}"
        if self.wanted is None:
            return f"no number of examples passes if {self.supposed}: a better model does, or a rule that asks for less"
        each = " in each slice" if self.slices else ""
        return f"{rounded(self.wanted):,} examples{each} pass with {100 * POWER:.0f} % if {self.supposed}{self._known}"

    @property
    def _known(self) -> str:
        if self.at_hand is None:
            return ""
        chance = "" if self.power is None else f" with {100 * self.power:.0f} %"
        if self.slices:
            passes = f" and passes{chance}" if chance else ""
            return f"; the smallest of {self.slices:,}, {self.smallest}, has {self.at_hand:,}{passes}"
        return f"; the {self.at_hand:,} at hand{chance or ' were seen'}"


def plans(gate: Gate, scored: Scored) -> list[Plan]:
    """What each rule of a gate needs; none for a gate that no interval decides."""
    return [_plan(gate, rule, scored) for rule in rules_of(gate)]


def _plan(gate: Gate, rule: Rule, scored: Scored) -> Plan:
    rule = _in_slices(gate, rule, scored)
    is_share = scored.is_share if scored.told.new is not None else gate.score in {None, "correct"}
    smallest = min(scored.slices, key=lambda one: one.n, default=None)
    at_hand = scored.count if smallest is None else smallest.n
    words = gate.rule if gate.within is None else f"{rule.kind.replace('_', ' ')} {rule.bound:.12g}"
    least = least_examples(rule) if is_share and not rule.relative else None
    name = None if smallest is None else smallest.name
    plan = Plan(gate.name, words, None, least, at_hand, None, "", "", len(scored.slices), name)
    try:
        supposed, wanted, power = (_paired if rule.paired else _single)(rule, scored.told, is_share=is_share)
    except _NothingKnownError as error:
        return replace(plan, lacking=str(error))
    chance = None if at_hand is None or power is None else power(at_hand)
    return replace(plan, supposed=supposed, wanted=_or_none(wanted), power=chance)


def _in_slices(gate: Gate, rule: Rule, scored: Scored) -> Rule:
    """The rule as it is asked in one slice: surer where the worst of some is judged."""
    if gate.slices is None or gate.slices.judge == "each" or not scored.slices:
        return rule
    return replace(rule, confidence=corrected(rule.confidence, len(scored.slices)))


def _or_none(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except UsageError:
        return None


class _NothingKnownError(Exception):
    """There is nothing to suppose; says why, as a clause."""


def _nothing_known(scored: Scored, lacking: str) -> _NothingKnownError:
    return _NothingKnownError("reuse: enforce tells no scores" if scored.hides else lacking)


_Found = tuple[str, "Callable[[], int]", "Callable[[int], float] | None"]


def _paired(rule: Rule, scored: Scored, *, is_share: bool) -> _Found:
    """Unchanged models for `not_worse_than`; for `better_than` a gain of twice the bound, at least two points."""
    margin = rule.bound if rule.kind == "not_worse_than" else -rule.bound
    gain = 0.0 if rule.kind == "not_worse_than" else max(2 * rule.bound, 0.02)
    if rule.relative:
        return _shares(rule, scored)
    if not is_share:
        return _numbers(rule, scored, margin, gain)
    seen = None if scored.new is None or scored.old is None else float((scored.new != scored.old).mean())
    differ = max(seen or DISAGREEMENT, gain)
    models = "both are as good" if not gain else f"it is better by {100 * gain:.3g} points"
    unknown = " (supposed: reuse: enforce tells no scores)" if scored.hides else " (nothing is known)"
    supposed = f"{100 * differ:.3g} % of answers differ{'' if seen else unknown} and {models}"
    sure = rule.confidence
    return (
        supposed,
        lambda: planned_examples(margin, differ, gain, sure, POWER),
        lambda n: paired_power(n, margin, differ, gain, sure),
    )


_TWO = "no two packages have met the test set"


def _shares(rule: Rule, scored: Scored) -> _Found:
    """A margin that is a share of the other's mean, for any scores: unchanged models, or twice the gain asked for."""
    if scored.new is None or scored.old is None:
        raise _nothing_known(scored, _TWO)
    new, old = scored.sign * scored.new, scored.sign * scored.old
    spread, unit = float((new - rule.scale * old).std()), abs(float(old.mean()))
    gain = 0.0 if rule.kind == "not_worse_than" else max(2 * rule.bound, 0.02)
    room = unit * (rule.bound if not gain else gain - rule.bound)
    models = "both are as good" if not gain else f"it is better by {100 * gain:.3g} %"
    supposed = f"differences spread by {spread:.3g} and {models}"
    return supposed, lambda: mean_examples(room, spread, 0.0, rule.confidence, POWER), None


def _numbers(rule: Rule, scored: Scored, margin: float, gain: float) -> _Found:
    if scored.new is None or scored.old is None:
        raise _nothing_known(scored, _TWO)
    spread = float((scored.new - scored.old).std())
    models = "both are as good" if not gain else f"it is better by {gain:.3g}"
    supposed = f"differences spread by {spread:.3g} and {models}"
    return supposed, lambda: mean_examples(margin, spread, gain, rule.confidence, POWER), None


def _single(rule: Rule, scored: Scored, *, is_share: bool) -> _Found:
    if scored.new is None:
        raise _nothing_known(scored, "no package has met the test set")
    found, spread = float(scored.new.mean()), float(scored.new.std())
    room = abs(found - rule.bound) if rule.holds(found) else 0.0
    supposed = f"the level stays {found:.4g}"
    if not is_share:
        return supposed, lambda: mean_examples(room, spread, 0.0, rule.confidence, POWER), None
    return supposed, lambda: level_examples(rule, found, POWER), lambda n: level_power(n, rule, found)


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
    slices: int = 0
    made_up: bool = False

    @property
    def sentence(self) -> str:
        """As in "flips in 3.9 % of 2,000 rounds on 360 examples; promised at most 5 %"."""
        of = f"{self.slices:,} slices of " if self.slices else ""
        seen = f"{100 * self.flip_rate:.1f} % of {self.rounds:,} rounds on {of}{self.examples:,} examples"
        made_up = " with answers made up (reuse: enforce tells no scores)" if self.made_up else ""
        return f"flips in {seen}{made_up}; promised at most {percent(round(self.alpha, 10))}"


def rehearsals(gate: Gate, scored: Scored) -> list[Rehearsal]:
    """Each rule of a gate against the scores at hand; none without scores, or for a gate that no interval decides.

    Where no other package met the test set a model is its own opponent, and no answer differs. Where scores are hidden
    answers are made up, for `correct`; nothing is rehearsed for other scores then.
    """
    found = [(rule, _made_up(gate, rule, scored) if scored.hides else scored) for rule in rules_of(gate)]
    return [_rehearsed(gate, rule, one, one.new) for rule, one in found if one is not None and one.new is not None]


def _made_up(gate: Gate, rule: Rule, scored: Scored) -> Scored | None:
    """As many answers as there are at hand: 5 % of them differ between two models, or a level is what is asked for."""
    if scored.new is None or gate.score not in {None, "correct"}:
        return None
    new, old = invented(len(scored.new), 0.9 if rule.paired else rule.bound, DISAGREEMENT)
    return replace(scored, new=new, old=old if rule.paired else None)


def _rehearsed(gate: Gate, rule: Rule, scored: Scored, new: Floats) -> Rehearsal:
    other = None if not rule.paired else new if scored.old is None else scored.old
    sign = scored.sign if rule.paired else 1
    signed = sign * new, None if other is None else sign * other
    rounds = _ROUNDS if scored.is_share and not rule.relative else _rounds(len(new), _ROUNDS)
    if gate.slices is not None and scored.slices:
        parts = [(signed[0][s.places], None if signed[1] is None else signed[1][s.places]) for s in scored.slices]
        rounds = max(20, min(rounds, 500, _SLICES // len(parts)))
        found = slices_against_themselves(rule, [p for p in parts if len(p[0]) > 1], gate.slices.judge, rounds)
    else:
        found = against_itself(rule, *signed, rounds)
    words = gate.rule if gate.within is None else f"{rule.kind.replace('_', ' ')} {rule.bound:.12g}"
    counts = (found.rounds, found.passed, found.failed, found.wrong, found.flip_rate, found.alpha)
    return Rehearsal(gate.name, words, len(new), *counts, slices=len(scored.slices), made_up=scored.hides)


def _rounds(n: int, most: int) -> int:
    return max(100, min(most, _DRAWS // max(n, 1)))
