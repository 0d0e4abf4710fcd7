"""Probes: what recorded requests say of a candidate before any traffic, beside the stable release.

Three things are judged: whether the candidate answers as the file says it should, how many of its answers agree with
those of the stable release, and how much longer they take. The first release of an environment has nothing to be
compared with. What nobody could find out is no pass: it is errored, or, for a latency that too few answers tell of,
inconclusive, which is said and does not reject.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from penstock.errors import ReportError
from penstock.intervals import Interval, risk
from penstock.recordings import Outcome, Recording, Reply, judged, quantile, told

CONFIDENCE = 0.95
"""How sure all latency rules together are when they reject."""
QUANTILES = (0.5, 0.9, 0.99)
"""The latencies that are told, and that a rule may limit."""

Word = Literal["pass", "fail", "errored"]


@dataclass(frozen=True, slots=True)
class Probed:
    """The verdict of a probe, why in one sentence, and what was measured, as plain values that JSON can hold."""

    verdict: Word
    reason: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a probe asks and demands.

    `requests` is a file of the package, asked once to warm up and then `repeat` times. `agreement` is the least share
    of answers that must agree with the stable release's, None where none must; `errors` the most share of requests
    that may not be answered as expected. A ratio is how many times the stable release's latency is allowed, None: any.
    `timeout` is in seconds, for all of it.
    """

    requests: str
    tolerance: float = 1e-6
    repeat: int = 1
    agreement: float | None = None
    errors: float = 0.0
    latency_p50_ratio: float | None = None
    latency_p90_ratio: float | None = None
    latency_p99_ratio: float | None = None
    timeout: float = 600.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The rules that were written down with a release; what it does not have is as usual."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def limit(self, share: float) -> float | None:
        """The ratio that a quantile may have, None where any will do."""
        ratios = (self.latency_p50_ratio, self.latency_p90_ratio, self.latency_p99_ratio)
        return dict(zip(QUANTILES, ratios, strict=True))[share]


# --- what became of the requests -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of one recorded request, however often both releases were asked it.

    `candidate` and `stable` are held against what was recorded, `compared` is the candidate's answer against the
    stable release's; both are None where that gave no answer. `unsteady` says that it contradicted itself.
    """

    candidate: Outcome
    stable: Outcome | None = None
    compared: Outcome | None = None
    unsteady: bool = False

    def joined(self, later: "Asked") -> "Asked":
        """Both together: a request is as good as its worst answer."""
        return Asked(
            self.candidate.joined(later.candidate),
            _joined(self.stable, later.stable),
            _joined(self.compared, later.compared),
            self.unsteady or later.unsteady,
        )


def _joined(one: Outcome | None, later: Outcome | None) -> Outcome | None:
    return one.joined(later) if one is not None and later is not None else one or later


def compared(recording: Recording, stable: Reply, candidate: Reply, tolerance: float) -> Outcome | None:
    """What the candidate's answer is to that of the stable release; None where that gave none.

    They agree where the status is the same and the bodies are: to the byte, or as JSON whose numbers may differ.
    """
    if stable.status is None:
        return None
    if (stable.status, stable.body) == (candidate.status, candidate.body):
        return Outcome(recording)
    wanted = replace(recording, has_answer=True, answer=_value(stable.body), status=stable.status)
    return judged(wanted, candidate, tolerance)


def _value(body: bytes) -> Any:
    """An answer as JSON, else as text, in which bytes that are no text equal nothing."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Seen:
    """All that a probe saw. `asked` are the requests that there was time for, `missed` is how many there was none for.

    Milliseconds are of timed requests that both answered, in the same order; of the stable release none where there is
    no such release, as `is_first` says.
    """

    asked: Sequence[Asked]
    missed: int = 0
    candidate_ms: Sequence[float] = ()
    stable_ms: Sequence[float] = ()
    is_first: bool = False


# --- the verdict ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Finding:
    """One thing that was judged, in words; `inconclusive` is said and rejects nothing."""

    word: Word | Literal["inconclusive"]
    sentence: str


def judge(rules: Rules, seen: Seen) -> Probed:
    """The verdict of a probe: failed beats errored, and a pass says all that was found."""
    latencies = _latencies(rules, seen)
    findings = [_errors(rules, seen), *_missed(rules, seen), *_agreement(rules, seen)]
    findings += [_slowness(share, found) for share, found in latencies.items() if found.limit is not None]
    for word in ("fail", "errored"):
        if why := [f.sentence for f in findings if f.word == word]:
            return Probed(word, "; ".join(why), _values(seen, latencies))
    return Probed("pass", "; ".join(f.sentence for f in findings), _values(seen, latencies))


def _errors(rules: Rules, seen: Seen) -> _Finding:
    """Whether enough requests were answered as the file says; a request of the package is the package's own promise."""
    wrong = [asked for asked in seen.asked if not asked.candidate.agrees]
    whole = len(seen.asked) + seen.missed
    if not wrong:
        return _Finding("pass", f"all {len(seen.asked):,} recorded requests were answered as expected")
    too = sum(asked.stable is not None and not asked.stable.agrees for asked in wrong)
    were = "was" if len(wrong) == 1 else "were"
    said = f"{len(wrong):,} of {whole:,} recorded requests {were} not answered as expected"
    said += f", {too:,} of them not by the stable release either" if too else ""
    said += f", where {_percent(rules.errors)} may be" if rules.errors else ""
    if len(wrong) <= rules.errors * whole + _SLACK:
        return _Finding("pass", said)
    return _Finding("fail", f"{said}: {_first(wrong[0].candidate)}")


def _missed(rules: Rules, seen: Seen) -> list[_Finding]:
    if not seen.missed:
        return []
    whole = len(seen.asked) + seen.missed
    said = f"there was time for {len(seen.asked):,} of {whole:,} recorded requests within {rules.timeout:g} s"
    return [_Finding("errored", f"{said}: record fewer, or allow more by timeout")]


def _agreement(rules: Rules, seen: Seen) -> list[_Finding]:
    """What the stable release's answers say, where there are any; demanded only where the file does."""
    if seen.is_first:
        return [_Finding("pass", "there is no stable release to compare with")]
    counted = [asked.compared for asked in seen.asked if asked.compared is not None and not asked.unsteady]
    unsteady = sum(asked.unsteady for asked in seen.asked)
    if not counted:
        why = "contradicts itself on every answer" if unsteady else "gave no answer to compare with"
        return [_Finding("pass" if rules.agreement is None else "errored", f"the stable release {why}")]
    apart = [outcome for outcome in counted if not outcome.agrees]
    alike = len(counted) - len(apart)
    agree = "agrees with that" if alike == 1 else "agree with those"
    said = f"{alike:,} of {len(counted):,} answers {agree} of the stable release"
    said += f" (it contradicts itself on {unsteady:,} more)" if unsteady else ""
    if rules.agreement is None:
        return [_Finding("pass", said)]
    said += f", where {_percent(rules.agreement)} must"
    if alike >= rules.agreement * len(counted) - _SLACK:
        return [_Finding("pass", said)]
    return [_Finding("fail", f"{said}: {_first(apart[0])}")]


_SLACK = 1e-9
"""Shares are rounded numbers: 7 % of 100 requests are 7."""


def _percent(share: float) -> str:
    return f"{share * 100:g} %"


def _first(outcome: Outcome) -> str:
    """One request with what was wrong with it."""
    return f"{outcome.recording.name}: {outcome.fault or outcome.difference}"


# --- latencies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Latency:
    """One quantile of both releases in milliseconds, and how many times that of the stable one the candidate's is."""

    ms: float
    stable_ms: float | None
    ratio: Interval | None
    limit: float | None

    @property
    def word(self) -> Literal["pass", "fail", "inconclusive"]:
        """Whether the limit is kept, as far as that is shown."""
        if self.ratio is None or self.limit is None:
            return "inconclusive"
        return "fail" if self.ratio.low > self.limit else "pass" if self.ratio.high <= self.limit else "inconclusive"

    @property
    def values(self) -> dict[str, Any]:
        """All of it for JSON, which has no infinity."""
        found = self.ratio
        high = None if found is None or math.isinf(found.high) else found.high
        bounds = {} if found is None else {"ratio": found.estimate, "low": found.low, "high": high}
        stable = {} if self.stable_ms is None else {"stable_ms": self.stable_ms}
        limit = {} if self.limit is None else {"limit": self.limit, "verdict": self.word}
        return {"ms": self.ms, **stable, **bounds, **limit}


def _latencies(rules: Rules, seen: Seen) -> dict[float, _Latency]:
    """Each quantile by its share; the chance of a false rejection is divided by the number of rules."""
    new, old = sorted(seen.candidate_ms), sorted(seen.stable_ms)
    limits = {share: None if seen.is_first else rules.limit(share) for share in QUANTILES}
    tests = sum(limit is not None for limit in limits.values())
    confidence = 1 - (1 - CONFIDENCE) / max(tests, 1)
    return {
        share: _Latency(
            quantile(new, share) if new else math.nan,
            quantile(old, share) if old else None,
            ratio_of_quantiles(new, old, share, confidence) if new and old else None,
            limits[share],
        )
        for share in QUANTILES
    }


def _slowness(share: float, found: _Latency) -> _Finding:
    name, ratio = f"p{share * 100:g}", found.ratio
    if ratio is None:
        said = f"no timed answers of both releases tell whether its {name} is at most {found.limit:g} times as long"
        return _Finding(found.word, said)
    said = f"its {name} of {found.ms:.3g} ms is {ratio.estimate:.3g} times that of the stable release"
    high = "any number of" if math.isinf(ratio.high) else f"{ratio.high:.3g}"
    said += f" ({ratio.low:.3g} to {high} times by {ratio.n:,} timed answers, where {found.limit:g} may be)"
    more = ", which decides nothing: a higher repeat would" if found.word == "inconclusive" else ""
    return _Finding(found.word, said + more)


def ratio_of_quantiles(new: Sequence[float], old: Sequence[float], share: float, confidence: float) -> Interval:
    """How many times as slow the new answers are, by a quantile; both ascending and above 0, `n` is the fewer.

    The claim "at most r times as slow" makes the number of new answers above r times an order statistic of the old
    ones at most beta-binomial, whatever latencies are like (the exceedance test of Epstein, Journal of the American
    Statistical Association 49, 1954). So the bounds are ratios of order statistics, and each errs with at most
    1 - confidence. Where both were asked the same requests they are rather too wide. Too few answers give 0 or
    infinity. Raises ReportError where there are none.
    """
    alpha = risk(confidence)
    if not new or not old:
        raise ReportError("a ratio of latencies takes answers of both releases")
    mine, theirs = math.ceil(share * len(new)), math.ceil(share * len(old))
    beyond = least_beyond(len(new), len(old), theirs, alpha)
    low = new[len(new) - beyond] / old[theirs - 1] if beyond <= len(new) else 0.0
    beyond = least_beyond(len(old), len(new), mine, alpha)
    high = new[mine - 1] / old[len(old) - beyond] if beyond <= len(old) else math.inf
    center = quantile(new, share) / quantile(old, share)
    fewer = min(len(new), len(old))
    return Interval(center, min(low, center), max(high, center), fewer, None, "exceedance test", confidence)


def least_beyond(new: int, old: int, place: int, alpha: float) -> int:
    """The smallest number that is surprising: of `new` values, above the `place`-th smallest of `old` ones.

    If all come from the same law, so many or more are above it with a chance of at most alpha; one more than `new`
    where no number is surprising. The number above is beta-binomial with the parameters old + 1 - place and place.
    """
    import numpy as np
    from scipy.special import betaln, gammaln

    above = np.arange(new + 1.0)
    a, b = old + 1.0 - place, float(place)
    choices = gammaln(new + 1.0) - gammaln(above + 1) - gammaln(new - above + 1)
    chances = np.exp(choices + betaln(above + a, new - above + b) - betaln(a, b))
    tails = np.cumsum(chances[::-1])  # of as many or more, from the most downwards
    return new + 1 - int(np.searchsorted(tails, alpha, side="right"))


# --- what is told --------------------------------------------------------------------------------------------------


def _values(seen: Seen, latencies: Mapping[float, _Latency]) -> dict[str, Any]:
    """What was measured, for people and pages; what nobody knows is absent."""
    whole = len(seen.asked) + seen.missed
    stable = [asked.stable for asked in seen.asked if asked.stable is not None]
    alike = [a.compared.agrees for a in seen.asked if a.compared is not None and not a.unsteady]
    wrong = sum(not asked.candidate.agrees for asked in seen.asked)
    return {
        "requests": whole,
        "errors": wrong / whole,
        **({"stable_errors": sum(not outcome.agrees for outcome in stable) / len(stable)} if stable else {}),
        **({"agreement": sum(alike) / len(alike)} if alike else {}),
        "unsteady": sum(asked.unsteady for asked in seen.asked),
        "timed": len(seen.candidate_ms),
        "latency": {f"p{s * 100:g}": f.values for s, f in latencies.items() if seen.candidate_ms},
        "seen": list(_told(seen)),
    }


def _told(seen: Seen) -> list[str]:
    """Lines on the first requests with which something was wrong, then on those whose answers differ."""
    apart = [a.compared for a in seen.asked if a.candidate.agrees and a.compared is not None and not a.unsteady]
    wrong = [*told([asked.candidate for asked in seen.asked])]
    differing = [*told(apart)]
    return [*wrong, *(["against the stable release:", *differing] if differing else [])]
