"""One width of a canary: what was counted so far, what it shows, and how much is missing.

Harm is shown where one of the comparisons that may roll back has made 1/α' of its stake; α' is α divided by the number
of such tests and of widths, so a whole rollout of a release that is no worse is rolled back with a chance of at most α.
A width is safe where errors are: either the comparison excludes the tolerated ratio, or the canary alone is shown to be
below `error_rate_at_most`, each at α; and where everything listed in `require` is. No data shows neither.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from penstock.decisions import Word
from penstock.error_counts import (
    Bound,
    Comparison,
    bounded,
    compared,
    looking_for_harm,
    looking_for_safety,
    more_to_bound,
    more_to_compare,
    relative_risk,
    unbounded,
)
from penstock.errors import UsageError
from penstock.intervals import risk
from penstock.latencies import LatencyRule, Watch, seen_slow, watched
from penstock.traffic import NOTHING, Arm, Increment, split_alarm

Assignment = Literal["random", "sticky"]
TOLERANCES: Mapping[Assignment, float] = {"random": 0.1, "sticky": 0.5}
"""By how much of itself the canary's share may differ without an alarm: users who stay make requests in clusters."""
CustomWord = Literal["pass", "fail", "inconclusive", "errored"]
"""What a person's own rule says; `errored` where it could not be asked, which is no pass."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a person's own rule said at a look, and why."""

    word: CustomWord
    why: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a canary may do to users, and how sure one must be of it.

    `error_rate_ratio`: times the stable release's error rate (None: errors never roll back); `error_rate_at_most`: a
    share (None: the ratio alone widens); `latencies`: rules that roll back; `edges`: of the latency buckets, rising;
    `customs`: names of a person's own rules; `require`: rules that must be shown to hold before a width widens,
    errors aside, which always must. Raises UsageError where that makes no sense.
    """

    error_rate_ratio: float | None = 2.0
    error_rate_at_most: float | None = 0.01
    latencies: tuple[LatencyRule, ...] = ()
    edges: tuple[float, ...] = ()
    customs: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    confidence: float = 0.95
    assignment: Assignment = "random"

    def __post_init__(self) -> None:
        risk(self.confidence)
        if self.error_rate_ratio is None and self.error_rate_at_most is None:
            raise UsageError("nothing could ever widen the canary: write error_rate_at_most or error_rate_ratio")
        if self.error_rate_ratio is not None and not self.error_rate_ratio > 1:
            raise UsageError(f"the error_rate_ratio is {self.error_rate_ratio:g}: write a number above 1")
        if self.error_rate_at_most is not None:
            unbounded(self.error_rate_at_most)
        if self.latencies and not self.edges:
            raise UsageError("latency rules need latency buckets: name their edges")
        if list(self.edges) != sorted(set(self.edges)):
            raise UsageError("the edges of latency buckets must rise")
        known = {*self.customs, *(rule.name for rule in self.latencies)}
        for name in self.require:
            if name not in known:
                raise UsageError(f"require names {name}, which is no rule of this rollout: write one of abort_if")

    @property
    def tests(self) -> int:
        """How many tests may roll back, so that the risk is divided among them; at least 1."""
        return max(1, (self.error_rate_ratio is not None) + len(self.latencies))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was counted at one width. `history` are the stable release's latencies since the rollout began."""

    harm: Comparison | None
    safety: Comparison | None
    bound: Bound | None
    watches: tuple[Watch, ...]
    history: tuple[int, ...] = ()
    canary: Arm = NOTHING
    stable: Arm = NOTHING
    customs: Mapping[str, Told] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgment:
    """What the evidence shows: `pass` the width is safe, `fail` harm, else `inconclusive`; and why, in one sentence.

    `missing` is about how many more requests of the canary would show that the width is safe, if its errors are as
    rare as the stable release's; None where that is shown, or where no number of requests would do.
    """

    verdict: Word
    reason: str
    missing: int | None = None


def nothing_seen(limits: Limits, history: tuple[int, ...] = ()) -> Evidence:
    """The evidence of a width at its beginning; `history` is all that is taken over from the width before."""
    ratio, most = limits.error_rate_ratio, limits.error_rate_at_most
    return Evidence(
        harm=None if ratio is None else looking_for_harm(),
        safety=None if ratio is None else looking_for_safety(ratio),
        bound=None if most is None else unbounded(most),
        watches=tuple(map(watched, limits.latencies)),
        history=history,
    )


def gathered(evidence: Evidence, limits: Limits, new: Increment) -> Evidence:
    """The evidence after one more look; the share of the canary is the one seen in it."""
    events = (new.canary.errors, new.stable.errors)
    requests = (new.canary.requests, new.stable.requests)
    earlier = Arm(latencies=evidence.history)
    return replace(
        evidence,
        harm=None if evidence.harm is None else compared(evidence.harm, events, requests),
        safety=None if evidence.safety is None else compared(evidence.safety, events, requests),
        bound=None if evidence.bound is None else bounded(evidence.bound, events[0], requests[0]),
        watches=tuple(seen_slow(watch, limits.edges, evidence.history, new) for watch in evidence.watches),
        history=(earlier + Arm(latencies=new.stable.latencies)).latencies,
        canary=evidence.canary + new.canary,
        stable=evidence.stable + new.stable,
    )


def judged(evidence: Evidence, limits: Limits, share: float, widths: int = 1, name: str = "canary") -> Judgment:
    """What the evidence of one width shows; `share` is what the canary should get, `widths` how many there are.

    `name` is what the sentences call it: `canary` or `shadow`.
    """
    alpha = risk(limits.confidence)
    harm = next(_harms(evidence, alpha / (limits.tests * max(1, widths)), name), None)
    if harm:
        return Judgment("fail", harm)
    open_ = [*_open(evidence, limits, share, alpha, name)]
    if not open_:
        return Judgment("pass", _safe(evidence, alpha, name))
    sizes = [size for _, size in open_]
    missing = None if None in sizes else max(size for size in sizes if size is not None) or None
    return Judgment("inconclusive", "; ".join(text for text, _ in open_), missing)


# --- harm ----------------------------------------------------------------------------------------------------------


def _harms(evidence: Evidence, alpha: float, name: str) -> Iterator[str]:
    """Every harm that is shown, in one sentence each."""
    if evidence.harm and evidence.harm.wealth >= -math.log(alpha):
        yield f"errors: {_counts(evidence.harm, name)}: more than chance explains at a risk of {alpha:.2g}"
    for watch in evidence.watches:
        if watch.harm.wealth >= -math.log(alpha):
            quantile, ratio = f"p{watch.rule.quantile * 100:g}", watch.rule.ratio
            yield f"latency: the {quantile} is more than {ratio:g} times that of the stable release, at {alpha:.2g}"
    for rule, told in sorted(evidence.customs.items()):
        if told.word == "fail":
            yield f"{rule}: {told.why or 'the rule says fail'}"


def _counts(comparison: Comparison, name: str) -> str:
    (hit, other), (seen, rest) = comparison.events, comparison.requests
    return (
        f"{hit:,} of {seen:,} requests at the {name}, {other:,} of {rest:,} at the stable release, "
        f"about {relative_risk(comparison):.2g} times as likely"
    )


# --- safety --------------------------------------------------------------------------------------------------------


def _open(
    evidence: Evidence, limits: Limits, share: float, alpha: float, name: str
) -> Iterator[tuple[str, int | None]]:
    """What keeps a width from being safe, each with about how many more requests show it (0: it is not of requests)."""
    if not evidence.canary.requests:
        yield f"the {name} got no request, and no data is no success", _errors_missing(evidence, share, alpha)
        return
    if not _errors_safe(evidence, alpha):
        yield _errors_open(evidence, limits, name), _errors_missing(evidence, share, alpha)
    for watch in evidence.watches:
        if watch.rule.name in limits.require and watch.safety.wealth < -math.log(alpha):
            missing = more_to_compare(watch.safety, alpha, share, relative_risk(watch.safety))
            yield f"{watch.rule.name} is not yet shown to be below {watch.rule.ratio:g}", missing
    for rule in limits.customs:
        told = evidence.customs.get(rule)
        if rule in limits.require and (told is None or told.word != "pass"):
            why = f" ({told.why})" if told is not None and told.why else ""
            yield f"{rule} {_SAID[told.word if told else None]}{why}", 0
    alarm = split_alarm((evidence.canary.requests, evidence.stable.requests), share, TOLERANCES[limits.assignment])
    if alarm:
        yield f"{alarm}: the arms may not be alike", 0


_SAID = {None: "has said nothing yet", "inconclusive": "is undecided", "errored": "could not be asked"}


def _errors_safe(evidence: Evidence, alpha: float) -> bool:
    return _ratio_excluded(evidence, alpha) or _rate_excluded(evidence, alpha)


def _rate_excluded(evidence: Evidence, alpha: float) -> bool:
    return evidence.bound is not None and evidence.bound.wealth >= -math.log(alpha)


def _ratio_excluded(evidence: Evidence, alpha: float) -> bool:
    """Whether the tolerated ratio is excluded, by a stable release whose errors leave room for that ratio at all."""
    safety = evidence.safety
    if safety is None or safety.wealth < -math.log(alpha):
        return False
    return evidence.stable.errors * safety.null <= evidence.stable.requests


def _errors_open(evidence: Evidence, limits: Limits, name: str) -> str:
    errors, requests = evidence.canary.errors, evidence.canary.requests
    text = f"{errors:,} errors in {requests:,} requests of the {name} do not exclude "
    if limits.error_rate_at_most is None:
        return f"{text}{limits.error_rate_ratio:g} times the errors of the stable release"
    ratio = f" or {limits.error_rate_ratio:g} times those of the stable release" if limits.error_rate_ratio else ""
    return f"{text}a rate of {limits.error_rate_at_most * 100:g} %{ratio}"


def _errors_missing(evidence: Evidence, share: float, alpha: float) -> int | None:
    """About how many more requests show that errors are safe, by the shorter road, if the arms are alike."""
    both = evidence.canary + evidence.stable
    rate = both.errors / both.requests if both.requests else 0.0
    sizes = [None if evidence.bound is None else more_to_bound(evidence.bound, alpha, rate)]
    if evidence.safety and evidence.stable.errors * evidence.safety.null <= evidence.stable.requests:
        sizes.append(more_to_compare(evidence.safety, alpha, share, 1.0))
    return min((size for size in sizes if size is not None), default=None)


def _safe(evidence: Evidence, alpha: float, name: str) -> str:
    errors, requests = evidence.canary.errors, evidence.canary.requests
    if evidence.bound and _rate_excluded(evidence, alpha):
        limit = f"{evidence.bound.limit * 100:g} %"
        return f"{errors:,} errors in {requests:,} requests of the {name} exclude a rate of {limit}"
    if evidence.safety is None:
        return ""
    return f"errors: {_counts(evidence.safety, name)}: {evidence.safety.null:g} times is excluded"
